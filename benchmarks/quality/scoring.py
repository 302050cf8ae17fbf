"""Scores of one model on labelled images.

Clicks: the first at the object's pixel farthest from its border, each further one at the pixel farthest from the border of the largest
connected error region, with the previous low-res logits as mask input; the answer is the candidate of highest predicted IoU. mIoU is the mean
over objects. Automatic: masks in order of predicted IoU, each matched to the free object it overlaps most; a mask with
more than half of its pixels on ignore is dropped; precision and recall at IoU 0.5, and the areas under the precision-recall curves at IoU 0.5 and
0.75 over all images (every point, precision made monotonic). Pixels to ignore count for neither side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segment_duo.masks.rle import decode
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import Embedding, PromptArrays, Segmenter

if TYPE_CHECKING:
    from benchmarks.quality.at_scale import ScaledClicks

IGNORE = 65535
GROUP = 32  # prompts decoded together; bounds memory

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """``pixels`` uint8 (H, W, 3); ``labels`` (H, W): 0 background, 1..n objects, 65535 ignore."""

    name: str
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]

    @property
    def objects(self) -> list[Mask]:
        return [self.labels == i for i in np.unique(self.labels) if i not in (0, IGNORE)]


def iou(a: Mask, b: Mask, counted: Mask) -> float:
    """IoU of two masks over the pixels that count; 0 where both are empty."""
    union = int(((a | b) & counted).sum())
    return int((a & b & counted).sum()) / union if union else 0.0


def deepest(mask: Mask) -> tuple[int, int]:
    """x and y of the pixel of ``mask`` farthest from its border (the image's edge is one); the first maximum in row-major order."""
    from scipy import ndimage

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    inside = mask[
        top : int(rows[-1]) + 1, left : int(columns[-1]) + 1
    ]  # the rest is zero: same distances, far fewer pixels
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(x) + left, int(y) + top


def largest_error(predicted: Mask, truth: Mask, counted: Mask) -> tuple[int, int, int] | None:
    """Next click (x, y, label) for a mask, or None where nothing is wrong."""
    from scipy import ndimage

    best: tuple[int, Mask, int] | None = None
    for wrong, label in ((truth & ~predicted & counted, 1), (predicted & ~truth & counted, 0)):
        pieces, count = ndimage.label(wrong)
        if count:
            sizes = np.bincount(pieces.ravel())[1:]
            largest = int(sizes.argmax())
            if best is None or int(sizes[largest]) > best[0]:
                best = int(sizes[largest]), pieces == largest + 1, label
    return None if best is None else (*deepest(best[1]), best[2])


def click_ious(
    segmenter: Segmenter, image: Labelled, rounds: int = 5, most: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """IoU of every object, or ``most`` of them, after 1..``rounds`` clicks and the IoU that was predicted, each of shape (objects, rounds)."""
    embedding = segmenter.embed(image.pixels)
    counted = image.labels != IGNORE
    objects = image.objects
    if most is not None and len(objects) > most:
        objects = [objects[i] for i in np.linspace(0, len(objects) - 1, most).astype(int)]
    reached, predicted = np.zeros((len(objects), rounds)), np.zeros((len(objects), rounds))
    for start in range(0, len(objects), GROUP):
        group = slice(start, start + GROUP)
        reached[group], predicted[group] = _click_group(segmenter, embedding, objects[group], counted, rounds)
    segmenter.release()
    return reached, predicted


def _click_group(
    segmenter: Segmenter, embedding: Embedding, objects: Sequence[Mask], counted: Mask, rounds: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    out, predicted = np.zeros((len(objects), rounds)), np.zeros((len(objects), rounds))
    clicks = [[(*deepest(truth), 1)] for truth in objects]
    previous: list[npt.NDArray[np.float32] | None] = [None] * len(objects)
    for k in range(rounds):
        prompts = [
            PromptArrays(
                np.array([c[:2] for c in own], np.float32), np.array([c[2] for c in own], np.int64), mask_input=logits
            )
            for own, logits in zip(clicks, previous, strict=True)
        ]
        for i, candidates in enumerate(segmenter.predict(embedding, prompts)):
            mask = candidates[0].array()
            out[i, k], predicted[i, k] = iou(mask, objects[i], counted), candidates[0].predicted_iou or 0.0
            previous[i] = candidates[0].low_res
            # A perfect mask is confirmed where it was clicked first: all objects of a group keep equally many clicks.
            clicks[i].append(largest_error(mask, objects[i], counted) or clicks[i][0])
    return out, predicted


@dataclass(slots=True)
class AutomaticScore:
    """Matches of automatic masks, gathered over images. ``confidences`` and ``overlaps``: (masks,) predicted IoU and IoU with the object met best."""

    confidences: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    hits: dict[float, list[bool]] = field(default_factory=lambda: {0.5: [], 0.75: [], 0.8: []})
    objects: int = 0
    dropped: int = 0

    def add(self, masks: Sequence[tuple[float, Mask]], image: Labelled) -> None:
        """Score one image's masks, given with their predicted IoU."""
        ignore = image.labels == IGNORE
        kept = []
        for confidence, mask in sorted(masks, key=lambda m: -m[0]):
            area = int(mask.sum())
            if area == 0 or 2 * int((mask & ignore).sum()) > area:
                self.dropped += 1
            else:
                kept.append((confidence, mask))
        overlaps = overlap_matrix([m for _, m in kept], np.where(ignore, 0, image.labels), ~ignore)
        self.objects += overlaps.shape[1]
        self.confidences += [c for c, _ in kept]
        self.overlaps += [float(row.max()) if row.size else 0.0 for row in overlaps]
        for threshold, hits in self.hits.items():
            free = np.ones(overlaps.shape[1], bool)
            for overlap in overlaps:
                row = np.where(free, overlap, 0.0)
                best = int(row.argmax()) if row.size else -1
                hit = best >= 0 and bool(row[best] >= threshold)
                if hit:
                    free[best] = False
                hits.append(hit)

    def precision(self, threshold: float = 0.5) -> float:
        hits = self.hits[threshold]
        return sum(hits) / len(hits) if hits else 0.0

    def recall(self, threshold: float = 0.5) -> float:
        return sum(self.hits[threshold]) / self.objects if self.objects else 0.0

    def average_precision(self, threshold: float) -> float:
        if not self.confidences or not self.objects:
            return 0.0
        order = np.argsort(-np.array(self.confidences), kind="stable")
        hits = np.array(self.hits[threshold])[order]
        found = np.cumsum(hits)
        precision = found / np.arange(1, hits.size + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        return float((precision * hits).sum() / self.objects)


def overlap_matrix(masks: Sequence[Mask], labels: npt.NDArray[np.int32], counted: Mask) -> npt.NDArray[np.float64]:
    """IoU of each mask with each object of a label image, shape (masks, objects in the order of their labels)."""
    numbers = np.unique(labels)
    numbers = numbers[numbers > 0]
    areas = np.bincount(labels.ravel(), minlength=int(labels.max()) + 1)
    out = np.zeros((len(masks), numbers.size))
    for i, mask in enumerate(masks):
        shared = np.bincount(labels[mask & counted], minlength=areas.size)[numbers]
        out[i] = shared / (int((mask & counted).sum()) + areas[numbers] - shared)
    return out


def automatic_masks(segmenter: Segmenter, image: Labelled, parameters: AutoParameters) -> list[tuple[float, Mask]]:
    """Predicted IoU and mask of every automatic mask."""
    run = segmenter.automatic(image.pixels, parameters)
    return [(float(m.predicted_iou or 0.0), decode(m.rle)) for m in run.masks]


def reliability(predicted: npt.NDArray[np.float64], reached: npt.NDArray[np.float64]) -> list[dict[str, float | int]]:
    """Predictions in bins of width 0.1 that are not empty: count, mean predicted, mean reached."""
    bins = np.minimum((predicted * 10).astype(int), 9)
    return [
        {
            "from": k / 10,
            "count": int((bins == k).sum()),
            "predicted": round(float(predicted[bins == k].mean()), 3),
            "reached": round(float(reached[bins == k].mean()), 3),
        }
        for k in np.unique(bins).tolist()
    ]


@dataclass(frozen=True, slots=True)
class Scores:
    """One row of the table. ``clicks``: mIoU after 1..5 clicks; the rest as :class:`AutomaticScore` has it."""

    images: int
    objects: int
    clicks: tuple[float, ...]
    automatic: AutomaticScore | None
    first_click: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None

    def calibration(self) -> dict[str, list[dict[str, float | int]]]:
        """Reliability of predicted IoU for first clicks and for automatic masks: bins of 0.1 with count, mean predicted and mean reached IoU."""
        out = {}
        if self.first_click is not None:
            out["1 click"] = reliability(*self.first_click)
        if self.automatic is not None:
            a = self.automatic
            out["automatic"] = reliability(np.array(a.confidences), np.array(a.overlaps))
        return out

    def row(self) -> dict[str, float | int]:
        out: dict[str, float | int] = {"images": self.images, "objects": self.objects}
        if self.clicks:
            out |= {f"mIoU {k} click{'s' * (k > 1)}": round(self.clicks[k - 1], 3) for k in (1, 3, 5)}
        if self.automatic is not None:
            a = self.automatic
            out |= {"precision": round(a.precision(), 3), "recall": round(a.recall(), 3)}
            out |= {"AP50": round(a.average_precision(0.5), 3), "AP75": round(a.average_precision(0.75), 3)}
            out |= {"found at IoU 0.8": sum(a.hits[0.8]), "other masks": len(a.hits[0.8]) - sum(a.hits[0.8])}
        return out


def score(
    segmenter: Segmenter,
    images: Iterable[Labelled],
    parameters: AutoParameters | None,
    clicks: bool = True,
    report: Callable[[str], None] = lambda _line: None,
    most: int | None = None,
    scaled: ScaledClicks | None = None,
) -> Scores:
    """Score a model on images; ``parameters`` None leaves the automatic masks out; ``most`` bounds the clicked objects of an image; ``scaled``
    clicks in their place."""
    ious: list[npt.NDArray[np.float64]] = []
    predictions: list[npt.NDArray[np.float64]] = []
    automatic = None if parameters is None else AutomaticScore()
    count = objects = 0
    for image in images:
        count += 1
        objects += len(image.objects)
        if clicks:
            reached, predicted = (
                scaled.click_ious(image, most=most) if scaled else click_ious(segmenter, image, most=most)
            )
            ious.append(reached)
            predictions.append(predicted)
        if automatic is not None and parameters is not None:
            automatic.add(automatic_masks(segmenter, image, parameters), image)
        report(image.name)
    together = np.concatenate(ious) if ious else np.zeros((0, 0))
    means = tuple(float(v) for v in together.mean(axis=0)) if together.size else ()
    first = (np.concatenate(predictions)[:, 0], together[:, 0]) if together.size else None
    return Scores(count, objects, means, automatic, first)
