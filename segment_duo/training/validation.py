"""How good a model is on labelled pictures, for fine-tuning: after clicks and with automatic masks, and which thresholds suit it.

    Checked picture --simulated clicks--> IoU after one and three clicks
                    --generator, everything let through--> masks, predicted IoU, stability --every combination of thresholds--> precision, recall

Clicks and automatic masks part ways in training: the first ask whether one mask fits its object, the second also whether predicted IoU and stability
tell the good masks of a thousand prompts from the bad ones. So both are measured, and the thresholds are chosen for each state of the weights anew.

This is the only module of the training code that knows the automatic generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from segment_duo.masks.cropped import CroppedMask, common_pixels
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import AutomaticRun, OnProgress, no_progress
from segment_duo.segmenters.sam2.scales import is_scaled
from segment_duo.training.clicks import corrections
from segment_duo.training.forward import Features, decode
from segment_duo.training.objective import overlap
from segment_duo.training.views import LabelledPicture, ObjectMask, View, coverages, whole
from segment_duo.types import Box, Mask

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

CLICKED = 32
"""Objects that are clicked in one picture, evenly taken from all: more change the mean by less than a hundredth and take time."""

POINTS = 24
"""Points a side of the grid for checks, where the model's own is finer: half the time, and the same thresholds."""

LOOSE = {"pred_iou_thresh": 0.15, "stability_score_thresh": 0.15, "box_nms_thresh": 1.0}
"""Thresholds that let every mask through that a combination below may want."""

EVERYTHING = {"pred_iou_thresh": -1.0, "stability_score_thresh": -1.0, "box_nms_thresh": 1.0}
"""For masks that have been through their thresholds already."""

PREDICTED_IOU = (0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
STABILITY = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
OVERLAP = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7)

CAUTION = 0.01
CHANCE = 2.0
"""Mean F1 that a combination of thresholds must gain over the present ones before it replaces them: so much, and that of so many objects. Hundreds of
combinations are tried on one picture or a few; the best of them is often so by chance, and worse on the next picture."""

HOLD = 0.02
"""Precision or recall may fall by this much before a combination counts as a trade of one for the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A picture to check on. ``objects``: indices of those kept apart from training; ``strip``: where they lie (XYXY), None for the whole picture."""

    picture: LabelledPicture
    objects: npt.NDArray[np.int64]
    strip: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores on the pictures kept apart.

    Attributes:
        one_click, three_clicks: mean IoU over objects, in the whole picture, at the resolution of the low-res logits.
        precision, recall: of automatic masks at IoU 0.5; ``f75``: F1 at IoU 0.75.
        thresholds: those the automatic masks were made with.
    """

    one_click: float
    three_clicks: float
    precision: float
    recall: float
    f75: float
    thresholds: Mapping[str, float]

    @property
    def f1(self) -> float:
        return _f1(self.precision, self.recall)

    @property
    def clicks(self) -> float:
        return (self.one_click + self.three_clicks) / 2

    @property
    def automatic(self) -> float:
        """Mean F1 at IoU 0.5 and 0.75."""
        return (self.f1 + self.f75) / 2

    @property
    def value(self) -> float:
        """One number to compare states of one run by."""
        return (self.clicks + self.automatic) / 2

    def record(self) -> dict[str, float]:
        """For the card."""
        names = ("one_click", "three_clicks", "precision", "recall", "f1", "f75")
        return {name: round(float(getattr(self, name)), 4) for name in names}


# -- clicks -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def click_scores(
    model: SAM2Base, checked: Sequence[Checked], features: Callable[[View], Features], batch: int
) -> tuple[float, float]:
    """Mean IoU after one and after three clicks. ``batch`` prompts are decoded together."""
    first: list[float] = []
    third: list[float] = []
    for one in checked:
        view = View(one.picture, whole(one.picture), int(model.image_size))
        wanted = one.objects[np.unique(np.linspace(0, len(one.objects) - 1, CLICKED).round().astype(int))]
        crops = [c for c in map(view.crop, wanted.tolist()) if c is not None]
        seen = features(view) if crops else None
        for start in range(0, len(crops), batch):
            part = crops[start : start + batch]
            assert seen is not None
            clicks = [crop.click(np.random.default_rng(0), middle=1.0) for crop in part]
            target = torch.from_numpy(coverages(part, view.side)).to(model.device)
            ious = _clicked(model, seen, torch.tensor(clicks, device=model.device)[:, None], target)
            first += ious[0].tolist()
            third += ious[1].tolist()
    return (float(np.mean(first)), float(np.mean(third))) if first else (0.0, 0.0)


def _clicked(
    model: SAM2Base, features: Features, points: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU after the first click and after two corrections, (P,) each."""
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)  # corrections break ties at random
    count = len(points)
    owner = torch.zeros(count, dtype=torch.long, device=points.device)
    labels = torch.ones(count, 1, dtype=torch.long, device=points.device)
    out = decode(model, features, owner, points, labels)
    best = out.iou[:, 1:].argmax(dim=1)[:, None] + 1
    one = overlap(out.logits, target).gather(1, best)[:, 0]
    logits = out.logits.gather(1, best[:, :, None, None].expand(-1, -1, *out.logits.shape[-2:]))
    for _ in range(2):
        more, kinds = corrections(logits, target)
        points, labels = torch.cat([points, more], 1), torch.cat([labels, kinds], 1)
        logits = decode(model, features, owner, points, labels, logits).logits[:, :1]
    torch.random.set_rng_state(generator)
    return one, overlap(logits, target)[:, 0]


# -- automatic masks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the generator found in one picture before any threshold.

    Attributes:
        predicted_iou, stability: (m,).
        boxes: XYXY, (m, 4).
        overlaps: IoU of each mask with each object of the picture, (m, n).
        counted: (n,) bool, the objects kept apart.
        inside: (m,) bool, masks that count: all, or those whose middle lies in the strip.
        nested: of each mask those it shares more than the model's ``containment_thresh`` of the smaller one's pixels with, (m,) sets.
    """

    predicted_iou: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    overlaps: npt.NDArray[np.float32]
    counted: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]
    nested: Sequence[frozenset[int]]


def find_all(
    model: SAM2Base,
    checked: Checked,
    defaults: Mapping[str, Any],
    on_progress: OnProgress | None = None,
    points: int = POINTS,
) -> Found:
    """All masks that the model's prompts give in one picture seen whole, by the engine's own generator; at most ``points`` prompts a side."""
    parameters = {**defaults, **LOOSE, "scale": "whole", "containment_thresh": 1.0}
    limit = float(defaults.get("containment_thresh", 1.0))
    return _found(_generate(model, checked, parameters, points, on_progress).masks, checked, limit)


def measure(
    model: SAM2Base,
    checked: Sequence[Checked],
    defaults: Mapping[str, Any],
    choices: Sequence[Mapping[str, float]],
    on_progress: OnProgress | None = None,
    points: int = POINTS,
) -> list[AutomaticResult]:
    """What the generator gives with each choice of thresholds, run as ``auto`` runs it, at several scales too; decoded once."""
    order = sorted(range(len(choices)), key=lambda i: choices[i]["pred_iou_thresh"])
    found: dict[int, list[Found]] = {i: [] for i in order}
    for one in checked:
        candidates = None
        for i in order:
            run = _generate(model, one, {**defaults, **choices[i]}, points, on_progress, candidates)
            candidates = candidates or run.candidates
            found[i].append(_found(run.masks, one))
    return [replace(at_thresholds(found[i], EVERYTHING), thresholds=dict(choices[i])) for i in range(len(choices))]


def works_at_several_scales(model: SAM2Base, checked: Sequence[Checked], defaults: Mapping[str, Any]) -> bool:
    """Whether ``auto`` sees a picture at several scales: merging depends on thresholds, so that they cannot be applied afterwards."""
    parameters, side = AutoParameters(**defaults), int(model.image_size)
    sizes = [one.picture.image.shape for one in checked]
    return any(is_scaled(parameters, size[0], size[1], side) for size in sizes)


def _generate(
    model: SAM2Base,
    checked: Checked,
    parameters: Mapping[str, Any],
    points: int,
    on_progress: OnProgress | None,
    candidates: Any = None,
) -> AutomaticRun:
    from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
    from segment_duo.segmenters.sam2.predictor import Predictor

    wanted = replace(AutoParameters(), **parameters)
    wanted = replace(wanted, points_per_side=min(points, wanted.points_per_side))
    if checked.strip is not None:
        wanted = replace(wanted, region=Box(*checked.strip))
    generator = AutomaticMaskGenerator(Predictor(model), wanted)
    return generator.generate(checked.picture.image, on_progress=on_progress or no_progress, candidates=candidates)


def _found(records: Sequence[Mask], checked: Checked, limit: float = 1.0) -> Found:
    """``limit``: the containment threshold that is yet to be applied; 1 for none."""
    masks = [
        (m, o)
        for m, o in ((m, ObjectMask.of_rle(m.rle)) for m in records)
        if o is not None  # a mask of the loosest threshold may be empty
    ]
    boxes = np.array([(o.left, o.top, o.left + o.width - 1, o.top + o.height - 1) for _, o in masks], np.float32)
    boxes = boxes.reshape(-1, 4)
    counted = np.zeros(len(checked.picture.objects), bool)
    counted[checked.objects] = True
    inside = np.ones(len(masks), bool)
    if checked.strip is not None:
        x0, y0, x1, y1 = checked.strip
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    return Found(
        np.array([m.predicted_iou or 0.0 for m, _ in masks], np.float32),
        np.array([m.stability_score or 0.0 for m, _ in masks], np.float32),
        boxes,
        overlap_matrix([o for _, o in masks], checked.picture),
        counted,
        inside,
        nested_pairs([CroppedMask(o.pixels, o.left, o.top) for _, o in masks], limit),
    )


def nested_pairs(masks: Sequence[CroppedMask], limit: float) -> list[frozenset[int]]:
    """Of each mask the numbers of those that it shares more than ``limit`` of the smaller one's pixels with."""
    pairs: list[set[int]] = [set() for _ in masks]
    if limit < 1 and masks:
        x0, y0, x1, y1 = np.array([m.window for m in masks], np.int64).T
        areas = [m.area for m in masks]
        for i, mask in enumerate(masks):
            near = (x0[:i] < x1[i]) & (x1[:i] > x0[i]) & (y0[:i] < y1[i]) & (y1[:i] > y0[i])
            for j in np.flatnonzero(near).tolist():
                if common_pixels(mask, masks[j]) > limit * min(areas[i], areas[j]):
                    pairs[i].add(j)
                    pairs[j].add(i)
    return [frozenset(pair) for pair in pairs]


def overlap_matrix(masks: Sequence[ObjectMask], picture: LabelledPicture) -> npt.NDArray[np.float32]:
    """IoU of each mask with each object, (m, n); only pairs whose rectangles meet are looked at."""
    out = np.zeros((len(masks), len(picture.objects)), np.float32)
    truths = [o.pixels for o in picture.objects]
    for row, mask in zip(out, masks, strict=True):
        pixels = mask.pixels
        right, bottom = mask.left + mask.width, mask.top + mask.height
        b = picture.boxes
        near = (b[:, 0] < right) & (b[:, 2] > mask.left) & (b[:, 1] < bottom) & (b[:, 3] > mask.top)
        for j in np.flatnonzero(near).tolist():
            o = picture.objects[j]
            x0, x1 = max(mask.left, o.left), min(right, o.left + o.width)
            y0, y1 = max(mask.top, o.top), min(bottom, o.top + o.height)
            mine = pixels[y0 - mask.top : y1 - mask.top, x0 - mask.left : x1 - mask.left]
            shared = int((mine & truths[j][y0 - o.top : y1 - o.top, x0 - o.left : x1 - o.left]).sum())
            row[j] = shared / (mask.area + o.area - shared)
    return out


@dataclass(frozen=True, slots=True)
class AutomaticResult:
    """Precision and recall at IoU 0.5, F1 at 0.75, over all pictures, with these thresholds."""

    precision: float
    recall: float
    f75: float
    thresholds: Mapping[str, float]

    @property
    def value(self) -> float:
        return (_f1(self.precision, self.recall) + self.f75) / 2


def at_thresholds(found: Sequence[Found], thresholds: Mapping[str, float]) -> AutomaticResult:
    """Precision and recall with these thresholds; box NMS runs, and nested masks are dropped, as in the generator."""
    from segment_duo.segmenters.sam2.nms import suppress

    kept = objects = 0
    hits = {0.5: 0, 0.75: 0}
    for f in found:
        objects += int(f.counted.sum())
        passing = np.flatnonzero(
            (f.predicted_iou > thresholds["pred_iou_thresh"]) & (f.stability >= thresholds["stability_score_thresh"])
        )
        order = suppress(
            torch.from_numpy(f.boxes[passing]),
            torch.from_numpy(f.predicted_iou[passing]),
            float(thresholds["box_nms_thresh"]),
        )
        chosen = _without_nested(f, passing[order])
        chosen = chosen[f.inside[chosen]]
        # A mask that marks an object used in training says nothing about what was kept apart.
        overlaps = f.overlaps[chosen]
        if overlaps.shape[1]:
            best = overlaps.argmax(axis=1)
            chosen = chosen[f.counted[best] | (overlaps[np.arange(len(best)), best] < 0.5)]
        kept += len(chosen)
        for limit in hits:
            hits[limit] += _matched(f.overlaps[chosen][:, f.counted], limit)
    precision, recall = (hits[0.5] / kept if kept else 0.0), (hits[0.5] / objects if objects else 0.0)
    f75 = _f1(hits[0.75] / kept if kept else 0.0, hits[0.75] / objects if objects else 0.0)
    return AutomaticResult(precision, recall, f75, dict(thresholds))


def _without_nested(found: Found, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``chosen`` (k,), the best first, without masks that are nested with a better one of them."""
    kept: set[int] = set()
    for i in chosen.tolist():
        if found.nested[i].isdisjoint(kept):
            kept.add(i)
    return chosen[[i in kept for i in chosen.tolist()]] if len(kept) < len(chosen) else chosen


def _matched(overlaps: npt.NDArray[np.float32], limit: float) -> int:
    """Objects of which some mask has an IoU of at least ``limit``; each mask counts for the object it overlaps most."""
    if not overlaps.size:
        return 0
    best = overlaps.argmax(axis=1)
    return len(np.unique(best[overlaps[np.arange(len(best)), best] >= limit]))


def choose_thresholds(
    found: Sequence[Found], present: AutomaticResult | None, start: Mapping[str, float]
) -> AutomaticResult:
    """The thresholds that suit best.

    Args:
        present: what the base reaches with its own; a combination in which neither its precision nor its recall is lost is preferred to one
            that trades them, where it costs no more than :data:`HOLD`.
        start: thresholds that stay when nothing is better by more than chance (:data:`CAUTION`, :data:`CHANCE`); of combinations that are
            as good as the best but for that, the one nearest to them is taken.
    """
    chance = by_chance(found)
    results = [at_thresholds(found, start)]
    for iou, stability, nms in itertools.product(PREDICTED_IOU, STABILITY, OVERLAP):
        point = {"pred_iou_thresh": iou, "stability_score_thresh": stability, "box_nms_thresh": nms}
        results.append(at_thresholds(found, point))
    best = max(results[1:], key=lambda r: r.value)
    if present is not None:
        holding = [r for r in results if holds(r, present) and r.value >= best.value - HOLD]
        best = max(holding, key=lambda r: r.value, default=best)
    good = [
        r for r in results if r.value >= best.value - chance and (r is results[0] or present is None or holds(r, best))
    ]
    return min(good, key=lambda r: (sum(abs(r.thresholds[name] - start[name]) for name in start), -r.value))


def by_chance(found: Sequence[Found]) -> float:
    """Mean F1 that one combination of thresholds may have more than another on these pictures and mean nothing."""
    return max(CAUTION, CHANCE / max(1, sum(int(f.counted.sum()) for f in found)))


def holds(result: AutomaticResult | Scores, present: AutomaticResult | Scores) -> bool:
    """Whether neither precision nor recall is lost."""
    return result.precision >= present.precision - HOLD and result.recall >= present.recall - HOLD


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
