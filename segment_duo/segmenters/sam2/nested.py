"""Suppression of masks that lie in better ones.

Box NMS compares rectangles, and leaves two kinds of duplicates: a part of an object beside the whole of it (their boxes have little in
common), and a group of touching objects beside its members. Here the masks themselves are compared, by the share of the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segment_duo.masks.cropped import common_pixels
from segment_duo.segmenters.sam2.segments import Segment


def without_nested(
    segments: Sequence[Segment], limit: float, ranks: npt.NDArray[np.float64] | None = None
) -> list[Segment]:
    """Drop every mask that shares more than ``limit`` of the smaller one's pixels with a mask of higher rank; empty ones too.

    Args:
        segments: in the order in which those that stay are returned.
        limit: share of the smaller mask's pixels, 0 to 1; nothing is dropped from 1.
        ranks: float64 (N,), the higher stays; predicted IoU if None. Equal ranks: the first stays.
    """
    if limit >= 1 or not segments:
        return list(segments)
    scores = np.array([s.predicted_iou for s in segments]) if ranks is None else ranks
    boxes = np.array([s.mask.window for s in segments], dtype=np.int64)
    areas = np.array([s.mask.area for s in segments], dtype=np.int64)
    kept = np.zeros(len(segments), dtype=bool)
    for i in map(int, np.argsort(-scores, kind="stable")):
        x0, y0, x1, y1 = boxes[i]
        near = kept & (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
        kept[i] = areas[i] > 0 and not any(
            common_pixels(segments[i].mask, segments[j].mask) > limit * min(areas[i], areas[j])
            for j in map(int, np.flatnonzero(near))
        )
    return [segment for segment, stays in zip(segments, kept, strict=True) if stays]
