"""How well a tracked sequence agrees with the truth, frame by frame and over time.

    J            region similarity of DAVIS: IoU of an object with its truth, mean over the object's frames, mean over the objects
    F            contour accuracy of DAVIS: F-measure of boundary pixels found within 0.008 of the frame's diagonal (Perazzi et al., CVPR 2016)
    J&F          their mean
    id switch    a frame in which a true object is found under another id than when it was found last
    complete     a true object that is found in all its frames under one id, which no other true object has

In DAVIS ids are given, by the first frame's masks. Here each true object is compared with the id that is its own in most frames, each id once
(Hungarian assignment by the sum of IoUs). A true object is found in a frame by the mask that overlaps it with an IoU of 0.5 or more.
DAVIS leaves out the first and the last frame; here all frames that are given count. Where two masks share no pixel F is 0, though contours of
masks smaller than the tolerance may still agree.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Labels = npt.NDArray[np.integer[Any]]

FOUND = 0.5
"""IoU from which a mask is a true object's."""
TOLERANCE = 0.008
"""Of the frame's diagonal: how far boundaries may be apart, in DAVIS."""


@dataclass(frozen=True, slots=True)
class SequenceScore:
    """See the module. ``recall``: share of all true objects in all frames that were found; ``precision``: share of masks that are a true object's.

    ``j``, ``f`` and ``j_and_f`` are 1 where there is nothing to find.
    """

    j: float
    f: float
    j_and_f: float
    objects: int
    complete: int
    complete_share: float
    id_switches: int
    recall: float
    precision: float
    tracks: int
    frames: int


class SequenceScorer:
    """Takes frames one after the other; only numbers are remembered."""

    def __init__(self, *, contours: bool = True) -> None:
        """``contours``: compute F, which takes most of the time; without it F is NaN in what is remembered and J alone is given."""
        self._contours = contours
        self._j: dict[tuple[int, int], float] = {}
        self._f: dict[tuple[int, int], float] = {}
        self._life: dict[int, int] = {}
        self._under: dict[int, list[int | None]] = {}
        self._hits = self._masks = self._frames = 0
        self._ids: set[int] = set()

    def add(self, found: Labels, truth: Labels) -> None:
        """One frame: label images of the same shape, 0 is the ground, values are ids."""
        import numpy as np

        self._frames += 1
        ours, found_at = np.unique(found, return_inverse=True)
        theirs, truth_at = np.unique(truth, return_inverse=True)
        shared = np.zeros((len(theirs), len(ours)), np.int64)
        np.add.at(shared, (truth_at.ravel(), found_at.ravel()), 1)
        truth_areas, found_areas = shared.sum(axis=1), shared.sum(axis=0)
        self._ids |= {int(one) for one in ours if one}
        self._masks += int((ours != 0).sum())
        for i, label in enumerate(theirs.tolist()):
            if not label:
                continue
            self._life[label] = self._life.get(label, 0) + 1
            best: int | None = None
            for j in np.flatnonzero(shared[i]).tolist():
                if not ours[j]:
                    continue
                iou = float(shared[i, j] / (truth_areas[i] + found_areas[j] - shared[i, j]))
                pair = int(label), int(ours[j])
                self._j[pair] = self._j.get(pair, 0.0) + iou
                if self._contours:
                    self._f[pair] = self._f.get(pair, 0.0) + contour_accuracy(found == ours[j], truth == label)
                if iou >= FOUND:
                    best = int(ours[j])
            self._under.setdefault(int(label), []).append(best)
            self._hits += best is not None

    def score(self) -> SequenceScore:
        import numpy as np
        from scipy.optimize import linear_sum_assignment

        truths, ids = sorted(self._life), sorted(self._ids)
        js = np.zeros((len(truths), max(1, len(ids))))
        fs = np.zeros_like(js)
        at = {one: i for i, one in enumerate(truths)}, {one: j for j, one in enumerate(ids)}
        for (label, one), value in self._j.items():
            # Where the object is and the mask is not, J and F are 0, by dividing by the object's life.
            js[at[0][label], at[1][one]] = value / self._life[label]
            fs[at[0][label], at[1][one]] = self._f.get((label, one), 0.0) / self._life[label]
        rows, columns = linear_sum_assignment(-js)
        j = float(js[rows, columns].sum() / len(truths)) if truths else 1.0
        f = float(fs[rows, columns].sum() / len(truths)) if truths else 1.0
        if not self._contours:
            f = j
        complete = self._complete()
        total = sum(self._life.values())
        return SequenceScore(
            j=j,
            f=f,
            j_and_f=(j + f) / 2,
            objects=len(truths),
            complete=complete,
            complete_share=complete / len(truths) if truths else 1.0,
            id_switches=sum(_switches(under) for under in self._under.values()),
            recall=self._hits / total if total else 1.0,
            precision=self._hits / self._masks if self._masks else 1.0,
            tracks=len(ids),
            frames=self._frames,
        )

    def _complete(self) -> int:
        owners: dict[int, set[int]] = {}
        for label, under in self._under.items():
            for one in under:
                if one is not None:
                    owners.setdefault(one, set()).add(label)
        return sum(
            under[0] is not None and len(set(under)) == 1 and len(owners[under[0]]) == 1
            for under in self._under.values()
        )


def _switches(under: Iterable[int | None]) -> int:
    seen = [one for one in under if one is not None]
    return sum(a != b for a, b in itertools.pairwise(seen))


def contour_accuracy(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """F of DAVIS for two masks of the same shape (H, W); 1 when both are empty."""
    import numpy as np
    from scipy import ndimage

    reach = math.ceil(TOLERANCE * math.hypot(*found.shape))
    occupied = np.argwhere(found | truth)
    if not len(occupied):
        return 1.0
    # One pixel more on all sides, but never beyond the frame, whose edge is no boundary.
    (y0, x0), (y1, x1) = np.maximum(occupied.min(axis=0) - 1, 0), occupied.max(axis=0) + 2
    edges = [np.pad(_boundary(mask[y0:y1, x0:x1]), reach) for mask in (found, truth)]
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = x * x + y * y <= reach * reach
    near = [ndimage.binary_dilation(edge, disc) for edge in edges]
    counts = [int(edge.sum()) for edge in edges]
    if not all(counts):
        return 0.0 if any(counts) else 1.0
    precision = (edges[0] & near[1]).sum() / counts[0]
    recall = (edges[1] & near[0]).sum() / counts[1]
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _boundary(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels whose right, lower or lower right neighbour differs, as DAVIS's ``seg2bmap``; beyond the last row and column all goes on as it is."""
    import numpy as np

    on = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return np.asarray((mask != on[:-1, 1:]) | (mask != on[1:, :-1]) | (mask != on[1:, 1:]))
