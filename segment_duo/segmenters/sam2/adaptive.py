"""The fast mode, adaptive prompting: no prompt is spent where confident masks already explain the grid point.

The grid is decoded from coarse to fine: every fourth point of a row and column, every second, the rest. A point is skipped if it lies in
a mask of an earlier level that passed the thresholds, that another prompt answered with nearly the same mask, and that is small against
the image. A mask nobody confirmed may be a poor first answer: the exact mode would find the better one that a neighbouring point gives. And
a large one (a plate, the ground) says little about what lies on it. So the saving is large where the model is sure, and small where it is
not. It is written into the run's notes. Everything else is that of a screened run (:mod:`segment_duo.segmenters.sam2.screened`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.parameters import AutoParameters
    from segment_duo.segmenters.sam2.candidates import GridCandidate

STRIDES = (4, 2, 1)
"""Grid steps of the levels."""

LARGE_SHARE = 0.1
"""Masks above this share of the crop explain no point."""

AGREEMENT = 0.9
"""IoU from which two prompts' masks confirm each other."""


class Coverage:
    """Which points of a crop are explained: by accepted masks that two different prompts agree on.

    Args:
        low_size: height and width of low-res masks.
        canvas: height and width of what they show, in pixels of the crop.
    """

    def __init__(self, parameters: AutoParameters, low_size: tuple[int, int], canvas: tuple[int, int]) -> None:
        self.parameters = parameters
        self.size = canvas
        self.low_size = low_size
        self.covered = np.zeros(low_size, dtype=bool)
        self.accepted: list[dict[str, Any]] = []
        """COCO RLE of every accepted small mask, at low resolution."""
        self.points = np.zeros((0, 2), dtype=np.float32)
        """The prompt of each."""

    def add(self, fresh: Iterable[GridCandidate]) -> None:
        """Take in candidates, and mark what those cover that a mask of another prompt confirms."""
        from pycocotools import mask as coco

        p = self.parameters
        limit = LARGE_SHARE * self.low_size[0] * self.low_size[1]
        known = len(self.accepted)
        points = []
        for c in fresh:
            if c.measured is None or not bool(c.measured.stability >= p.stability_score_thresh):
                continue
            inside = np.zeros(self.low_size, dtype=np.uint8, order="F")
            rows, cols = c.low_res.logits.shape
            top, left = c.low_res.top, c.low_res.left
            inside[top : top + rows, left : left + cols] = c.low_res.logits.cpu().numpy() > p.mask_threshold
            if np.count_nonzero(inside) <= limit:
                self.accepted.append(coco.encode(inside))
                points.append(c.point.cpu().numpy())
        if not points:
            return
        self.points = np.concatenate([self.points, np.stack(points)])
        agreement = coco.iou(self.accepted[known:], self.accepted, [False] * len(self.accepted))
        others = (self.points[known:, None] != self.points[None]).any(axis=2)
        pairs = (agreement >= AGREEMENT) & others
        for i in {*np.flatnonzero(pairs.any(axis=1)) + known, *np.flatnonzero(pairs.any(axis=0))}:
            self.covered |= coco.decode(self.accepted[i]).astype(bool)

    def unexplained(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Those of points (N, 2) in crop pixels that no accepted mask covers."""
        scale = np.array([self.low_size[1] / self.size[1], self.low_size[0] / self.size[0]])
        x, y = np.floor(points * scale).astype(int).T
        y, x = y.clip(0, self.low_size[0] - 1), x.clip(0, self.low_size[1] - 1)
        remaining: npt.NDArray[np.float64] = points[~self.covered[y, x]]
        return remaining


def levels(points: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[np.float64]]:
    """Split grid points (N, 2) from coarse to fine by their rank along each axis."""
    ranks = [np.unique(points[:, axis], return_inverse=True)[1] for axis in (0, 1)]
    done = np.zeros(len(points), dtype=bool)
    for stride in STRIDES:
        chosen = ~done
        for rank in ranks:
            # From the middle of the first step: the outermost rows are the least informative ones.
            chosen &= rank % stride == stride // 2
        if chosen.any():
            yield points[chosen]
        done |= chosen


def note(decoded: int, total: int) -> str:
    """What adaptive prompting changed."""
    return f"fast: {decoded} of {total} grid points were prompted; the others lay in masks that two prompts before agreed on"
