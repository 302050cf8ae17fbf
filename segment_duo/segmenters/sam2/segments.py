"""One accepted mask of an automatic run, its clean-up, and its way to a record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segment_duo.boxes import Window, of_ends, of_window, sam
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
    crop_box: Window


def record(segment: Segment, number: int, height: int, width: int) -> Mask:
    """A segment as a SAM record on the image's canvas."""
    return Mask(
        rle=segment.mask.rle(height, width),
        area=segment.mask.area,
        bbox=sam(of_ends(*segment.box)),
        id=number,
        predicted_iou=segment.predicted_iou,
        stability_score=segment.stability_score,
        point_coords=(segment.point,),
        point_labels=(1,),
        crop_box=of_window(segment.crop_box),
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
