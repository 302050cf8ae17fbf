"""One accepted mask of an automatic run, its clean-up, and its way to a record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segment_duo.masks.cropped import CroppedMask, trim
from segment_duo.types import Mask


@dataclass(eq=False, slots=True)
class Segment:
    """One accepted mask, before it becomes a record.

    Attributes:
        mask: the mask in image coordinates, in its rectangle.
        box: XYXY in image coordinates, inclusive ends, as stock computes it.
    """

    mask: CroppedMask
    box: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop_box: tuple[int, int, int, int]


def record(segment: Segment, number: int, height: int, width: int) -> Mask:
    """A segment as a SAM record on the image's canvas."""
    x0, y0, x1, y1 = segment.box
    cx0, cy0, cx1, cy1 = (float(v) for v in segment.crop_box)
    return Mask(
        rle=segment.mask.rle(height, width),
        area=segment.mask.area,
        bbox=(x0, y0, x1 - x0, y1 - y0),
        id=number,
        predicted_iou=segment.predicted_iou,
        stability_score=segment.stability_score,
        point_coords=(segment.point,),
        point_labels=(1,),
        crop_box=(cx0, cy0, cx1 - cx0, cy1 - cy0),
        source="auto",
    )


def cleaned(mask: CroppedMask, size: int) -> CroppedMask:
    """Fill holes and drop islands of fewer than ``size`` pixels (8-connected); the largest island always stays.

    Returns the same object when nothing changes.
    """
    from scipy import ndimage

    if not mask.pixels.size:
        return mask
    eight = np.ones((3, 3), dtype=bool)
    # One pixel of background around: what is open to the outside is no hole.
    padded = np.pad(mask.pixels, 1)
    labels, count = ndimage.label(~padded, structure=eight)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    small = sizes < size
    small[[0, labels[0, 0]]] = False
    filled = padded | small[labels]
    labels, count = ndimage.label(filled, structure=eight)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    keep = np.concatenate([[False], (sizes >= size) | (np.arange(count) == int(np.argmax(sizes)))])
    kept = keep[labels]
    if np.array_equal(kept, padded):
        return mask
    return trim(CroppedMask(kept[1:-1, 1:-1], mask.left, mask.top))


def inclusive_box(mask: CroppedMask) -> tuple[float, float, float, float]:
    """XYXY with inclusive ends; zeros for an empty mask."""
    rows, cols = mask.pixels.shape
    if not rows:
        return (0.0, 0.0, 0.0, 0.0)
    return (float(mask.left), float(mask.top), float(mask.left + cols - 1), float(mask.top + rows - 1))
