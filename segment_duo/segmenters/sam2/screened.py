"""Screening: grid points are judged in lower precision; what may be kept is decoded again in float32, and only that is answered with.

    points --low precision--> cheap candidates --thresholds and NMS, each with a margin--> points that may be kept --float32--> candidates
                                     ^                                                                                  |
                                     +------------------- margins: how far the two differ -----------------------------+

A cheap candidate is left out only if it fails a threshold by more than the margin, or if a mask that is certain to be kept suppresses it by more
than the margins. Where no pair of numbers differs by more, thresholds and NMS in float32 therefore keep the same masks as if every point had been
decoded in float32. Margins are measured on the picture itself (no numbers of a model, no state between pictures): predicted IoU on some of its points
beforehand, stability and boxes on what was decoded twice, until nothing more has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from segment_duo.parameters import AutoParameters
from segment_duo.results import ROUTINE_NOTE
from segment_duo.segmenters.sam2.candidates import GridCandidate, Margins, Screen

if TYPE_CHECKING:
    from segment_duo.segmenters.sam2.embedding import Sam2Embedding
    from segment_duo.segmenters.sam2.prompting import PointModel

SAMPLE = 24
"""Points, evenly spread, whose predicted IoU is computed both ways beforehand."""

LEAST_POINTS = 4 * SAMPLE
"""Fewer points are not worth it."""

SHARE, FACTOR = 0.98, 1.5
"""A margin is this quantile of the differences, times the factor: 3.5 standard deviations of normal ones."""

Decode = Callable[[npt.NDArray[np.float64]], list[GridCandidate]]
"""Candidates in float32 of points (N, 2) in crop pixels."""

NearEdge = Callable[[npt.NDArray[np.float64], float], npt.NDArray[np.bool_]]
"""Given boxes (N, 4), XYXY in crop pixels, and a number of pixels they are moved inwards by: which of them the crop's edge drops."""


def calibrated(
    cheap: PointModel,
    exact: PointModel,
    embedding: Sam2Embedding,
    points: npt.NDArray[np.float64],
    check: Callable[[], None],
) -> Screen:
    """A screen whose margin of predicted IoU is measured on some of a crop's points (N, 2)."""
    sample = points[np.linspace(0, len(points) - 1, SAMPLE).round().astype(int)]
    at = torch.as_tensor(sample, dtype=torch.float32, device=exact.device)
    both = [model.predicted_iou(embedding, at, check=check).cpu() for model in (cheap, exact)]
    return Screen(Margins(_reach((both[0] - both[1]).abs().flatten().tolist())))


def confirm(
    screen: Screen, cheap: Sequence[GridCandidate], parameters: AutoParameters, decode: Decode, near_edge: NearEdge
) -> list[GridCandidate]:
    """Candidates in float32 of every point that may keep a mask, in the order of ``cheap``; decodes what was not yet.

    Args:
        cheap: measured candidates of the crop.
    """
    # At first what would be kept if nothing differed, and the surest masks whatever becomes of them: something must show how much does.
    surest = sorted(range(len(cheap)), key=lambda i: -float(cheap[i].predicted_iou))[:SAMPLE]
    margins = replace(screen.margins, predicted_iou=0.0) if not screen.confirmed else screen.margins
    wanted = {*contenders(cheap, parameters, margins, near_edge), *surest}
    missing = _missing(cheap, wanted, screen)
    while missing:
        screen.confirmed |= {p: [] for p in missing}
        for candidate in decode(np.array(missing, dtype=np.float64)):
            screen.confirmed[_key(candidate)].append(candidate)
        screen.margins = screen.margins.merged(_measured(cheap, screen, parameters.stability_score_thresh))
        missing = _missing(cheap, contenders(cheap, parameters, screen.margins, near_edge), screen)
    order = dict.fromkeys(_key(c) for c in cheap)
    return [c for point in order for c in screen.confirmed.get(point, ())]


def _missing(cheap: Sequence[GridCandidate], wanted: set[int], screen: Screen) -> list[tuple[float, float]]:
    """Points of wanted candidates that were not decoded in float32 yet, in the order of ``cheap``."""
    points = dict.fromkeys(_key(cheap[i]) for i in sorted(wanted))
    return [p for p in points if p not in screen.confirmed]


def contenders(
    cheap: Sequence[GridCandidate], parameters: AutoParameters, margins: Margins, near_edge: NearEdge
) -> set[int]:
    """Indices of the candidates that thresholds and NMS may keep, given what their numbers may be off by."""
    p = parameters
    scores = np.array([float(c.predicted_iou) for c in cheap])
    stability = np.array([float(c.measured.stability) if c.measured else np.nan for c in cheap])
    boxes = np.array([c.measured.box.tolist() if c.measured else [0] * 4 for c in cheap], dtype=np.float64)
    possible = np.ones(len(cheap), dtype=bool)
    certain = np.ones(len(cheap), dtype=bool)
    for values, limit, margin in (
        (scores, p.pred_iou_thresh, margins.predicted_iou),
        (stability, p.stability_score_thresh, margins.stability),
    ):
        if limit > 0.0:
            possible &= values >= limit - margin
            certain &= values > limit + margin
    if len(cheap):
        possible &= ~near_edge(boxes, margins.pixels)
        certain &= ~near_edge(boxes, -margins.pixels)
    chosen = np.flatnonzero(possible)
    kept = undecided(boxes[chosen], scores[chosen], certain[chosen], p.box_nms_thresh, margins)
    return {int(i) for i in chosen[kept]}


def undecided(
    boxes: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float64],
    certain: npt.NDArray[np.bool_],
    limit: float,
    margins: Margins,
) -> npt.NDArray[np.bool_]:
    """Which of N boxes greedy NMS may keep, bool (N,).

    Args:
        boxes: (N, 4), XYXY; scores: (N,).
        certain: (N,), whether a box is sure to take part.
        limit: a box goes if its IoU with a better one is above this.
    """
    tie = 2 * margins.predicted_iou
    sure = np.zeros(len(boxes), dtype=bool)
    gone = np.zeros(len(boxes), dtype=bool)
    for i in np.argsort(-scores, kind="stable"):
        overlap = box_iou(boxes[i], boxes)
        overlap[i] = 0.0
        gone[i] = bool((sure & (scores > scores[i] + tie) & (overlap > limit + margins.overlap)).any())
        rivals = ~gone & (scores >= scores[i] - tie) & (overlap > limit - margins.overlap)
        sure[i] = not gone[i] and certain[i] and not rivals.any()
    return ~gone


def box_iou(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of a box (4,) with others (..., 4), XYXY; 0 where both are empty."""
    low = np.maximum(box[..., :2], others[..., :2])
    high = np.minimum(box[..., 2:], others[..., 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas = (box[..., 2:] - box[..., :2]).prod(-1) + (others[..., 2:] - others[..., :2]).prod(-1)
    union = areas - shared
    iou: npt.NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return iou


def _measured(cheap: Sequence[GridCandidate], screen: Screen, least: float) -> Margins:
    """Margins from what was decoded both ways and is stable at least so much in float32: what is not has boxes of chance."""
    pairs, scores = [], []
    low = {(_key(c), c.token): c for c in cheap}
    for candidate in screen.candidates:
        twin = low.get((_key(candidate), candidate.token))
        if twin is None or twin.measured is None or candidate.measured is None:
            continue
        if bool(candidate.measured.stability >= least):
            pairs.append((twin.measured, candidate.measured))
            scores.append(abs(float(twin.predicted_iou) - float(candidate.predicted_iou)))
    if not pairs:
        return screen.margins
    stability = np.array([abs(float(a.stability) - float(b.stability)) for a, b in pairs])
    first, second = (np.array([m.box.tolist() for m in side], dtype=np.float64) for side in zip(*pairs, strict=True))
    apart = 1.0 - box_iou(first, second)
    empty = (first == second).all(1)
    return Margins(
        _reach(scores),
        _reach(stability[np.isfinite(stability)]),
        # Two masks are compared, and each is off.
        2 * _reach(np.where(empty, 0.0, apart)),
        _reach(np.abs(first - second).max(1)),
    )


def _reach(differences: Sequence[float] | npt.NDArray[np.float64]) -> float:
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(FACTOR * np.quantile(values, SHARE)) if len(values) else 0.0


def _key(candidate: GridCandidate) -> tuple[float, float]:
    x, y = candidate.point.tolist()
    return float(x), float(y)


def notes(again: int, total: int, margins: Margins | None, dtype: torch.dtype | None) -> list[str]:
    """What a run did otherwise than the exact mode.

    Args:
        again: points decoded again in float32, of ``total``.
        margins: the largest used; None where no point was screened.
        dtype: of the first pass.
    """
    out = [
        f"{ROUTINE_NOTE}the decoder's products were taken in another order (differences of about 1e-6 in the logits)"
    ]
    if margins is not None and dtype is not None:
        name = str(dtype).removeprefix("torch.")
        out.append(
            f"{ROUTINE_NOTE}{total} grid points were judged in {name}, {again} that may keep a mask decoded again in float32"
        )
        out.append(f"{ROUTINE_NOTE}margins, measured on this picture: {margins}")
    return out
