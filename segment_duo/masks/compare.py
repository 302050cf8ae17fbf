"""Two sets compared, and a set scored against a label image.

Matching is one to one and greedy by falling IoU, as usual for average precision; above an IoU of 0.5 of disjoint objects there is no choice
anyway. IoU = shared pixels / pixels of either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segment_duo.boxes import in_pixels
from segment_duo.errors import MaskFileError
from segment_duo.types import Mask, MaskSet

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Match:
    """Two masks that are taken for the same object."""

    before: Mask
    after: Mask
    iou: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """``matched`` by falling IoU, ``new`` only in the second set, ``gone`` only in the first, both in their order."""

    matched: tuple[Match, ...]
    new: tuple[Mask, ...]
    gone: tuple[Mask, ...]

    @property
    def mean_iou(self) -> float | None:
        """Mean over the matched pairs; None without any."""
        return sum(match.iou for match in self.matched) / len(self.matched) if self.matched else None

    @property
    def identical(self) -> bool:
        """Both sets hold the same masks, pixel by pixel."""
        return not self.new and not self.gone and all(match.iou == 1 for match in self.matched)


def diff(a: MaskSet, b: MaskSet, iou: float = 0.5) -> Comparison:
    """Compare set ``a`` (before) with ``b`` (after).

    Args:
        iou: least IoU, above 0 and up to 1, of a matched pair.

    Raises:
        MaskFileError: the sets are for images of different sizes.
    """
    from segment_duo.masks.rle import intersection

    found = []
    for i, j in _touching_boxes(a.masks, b.masks):
        shared = intersection(a.masks[i].rle, b.masks[j].rle)
        if shared:
            found.append((shared / (a.masks[i].area + b.masks[j].area - shared), i, j))
    # Masks without a pixel share none, yet are the same.
    empty_a, empty_b = ([n for n, mask in enumerate(side.masks) if not mask.area] for side in (a, b))
    found += [(1.0, i, j) for i, j in zip(empty_a, empty_b, strict=False)]
    pairs = _greedy(found, iou)
    used_a, used_b = {i for _, i, _ in pairs}, {j for _, _, j in pairs}
    return Comparison(
        matched=tuple(Match(a.masks[i], b.masks[j], value) for value, i, j in pairs),
        new=tuple(mask for j, mask in enumerate(b.masks) if j not in used_b),
        gone=tuple(mask for i, mask in enumerate(a.masks) if i not in used_a),
    )


def _touching_boxes(first: Sequence[Mask], second: Sequence[Mask]) -> list[tuple[int, int]]:
    """Positions of masks whose boxes overlap."""
    import numpy as np

    sizes = {(mask.rle.height, mask.rle.width) for mask in (*first, *second)}
    if len(sizes) > 1:
        shown = " and ".join(f"{width} x {height}" for height, width in sorted(sizes)[:3])
        raise MaskFileError(f"masks of {shown} cannot be compared")
    boxes = np.array([mask.bbox for mask in second], dtype=np.float64).reshape(-1, 4)
    out: list[tuple[int, int]] = []
    for i, mask in enumerate(first):
        x, y, w, h = mask.bbox
        near = (boxes[:, 0] < x + w) & (boxes[:, 0] + boxes[:, 2] > x)
        near &= (boxes[:, 1] < y + h) & (boxes[:, 1] + boxes[:, 3] > y)
        out.extend((i, j) for j in np.flatnonzero(near).tolist())
    return out


def _greedy(candidates: Iterable[tuple[float, int, int]], least: float) -> list[tuple[float, int, int]]:
    """One-to-one pairs by falling IoU; of equal ones the first positions."""
    used_a: set[int] = set()
    used_b: set[int] = set()
    pairs = []
    for value, i, j in sorted(candidates, key=lambda item: (-item[0], item[1], item[2])):
        if value < least:
            break
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            pairs.append((value, i, j))
    return pairs


@dataclass(frozen=True, slots=True)
class Score:
    """How a set agrees with the truth.

    ``ap50`` and ``ap75`` are TP / (TP + FP + FN) at an IoU of 0.5 and 0.75, the average precision of cell segmentation (Data Science Bowl 2018,
    StarDist, Cellpose), which needs no ranking of the masks. Precision, recall and the counts are at 0.5. ``mean_iou`` is the mean, over
    all true objects, of the IoU with the mask matched to it at any IoU, 0 when it has none; ``matched_iou`` that of the pairs at 0.5, None
    without any.
    """

    ap50: float
    ap75: float
    mean_iou: float
    matched_iou: float | None
    precision: float
    recall: float
    true_positives: int
    false_positives: int
    false_negatives: int
    masks: int
    truth: int


def score(masks: Sequence[Mask], truth_labels: npt.NDArray[np.integer[Any]]) -> Score:
    """Score masks against a label image.

    Args:
        masks: may overlap; each counts as one object.
        truth_labels: integers, shape (height, width) of the masks, 0 background, one value an object.

    Raises:
        MaskFileError: sizes differ.
    """
    import numpy as np

    from segment_duo.masks.rle import decode_crop

    values, numbered = np.unique(truth_labels, return_inverse=True)
    numbered = numbered.reshape(truth_labels.shape)
    areas = np.bincount(numbered.ravel(), minlength=len(values))
    found = []
    for i, mask in enumerate(masks):
        if (mask.rle.height, mask.rle.width) != truth_labels.shape:
            height, width = truth_labels.shape
            raise MaskFileError(
                f"the masks are {mask.rle.width} x {mask.rle.height}, the label image {width} x {height}"
            )
        x, y, w, h = in_pixels(mask.bbox)
        if not w:
            continue
        under = numbered[y : y + h, x : x + w][decode_crop(mask.rle, x, y, w, h)]
        shared = np.bincount(under, minlength=len(values))
        for j in np.flatnonzero(shared).tolist():
            if values[j] != 0:
                found.append((float(shared[j] / (mask.area + areas[j] - shared[j])), i, j))
    truth = int((values != 0).sum())
    at_half = _greedy(found, 0.5)
    hits, strict_hits = len(at_half), len(_greedy(found, 0.75))

    def precision_of(count: int) -> float:
        together = len(masks) + truth - count
        return count / together if together else 1.0

    return Score(
        ap50=precision_of(hits),
        ap75=precision_of(strict_hits),
        mean_iou=sum(value for value, _, _ in _greedy(found, 0.0)) / truth if truth else 1.0,
        matched_iou=sum(value for value, _, _ in at_half) / hits if hits else None,
        precision=hits / len(masks) if masks else 1.0,
        recall=hits / truth if truth else 1.0,
        true_positives=hits,
        false_positives=len(masks) - hits,
        false_negatives=truth - hits,
        masks=len(masks),
        truth=truth,
    )
