"""Masks of one frame that are objects beside each other: what automatic masks hold twice, as a whole and its parts, is dropped; and which are new."""

from __future__ import annotations

from collections.abc import Sequence

from segment_duo.boxes import in_pixels
from segment_duo.masks.cropped import CroppedMask
from segment_duo.types import Mask

SHARE = 0.5
"""Of a mask's pixels: with more of them in better masks it is one of those once more."""
GROUND = 0.5
"""Share of the frame from which a mask is the ground, not an object."""


def apart(masks: Sequence[Mask], height: int, width: int) -> list[Mask]:
    """The masks that lie beside each other, in their order; the better ones stay.

    A mask is dropped when more than half of it lies in better ones, when it holds more than half of a better one, or when it covers over half of the
    frame. Better is by predicted IoU times stability; masks without scores by area, the larger first.

    Args:
        height, width: of the frame without its banner, pixels.
    """
    import numpy as np

    from segment_duo.masks.rle import decode_crop

    owner = np.full((height, width), -1, np.int32)
    areas = {position: mask.area for position, mask in enumerate(masks)}
    kept: set[int] = set()
    for position in sorted(areas, key=lambda one: (*_worth(masks[one]), -one), reverse=True):
        mask = masks[position]
        x, y, w, h = in_pixels(mask.bbox)
        window = owner[y : y + h, x : x + w]
        crop = decode_crop(mask.rle, x, y, w, h)[: window.shape[0]]
        if not mask.area or mask.area > GROUND * height * width:
            continue
        under, counts = np.unique(window[crop], return_counts=True)
        taken = {int(one): int(count) for one, count in zip(under, counts, strict=True) if one >= 0}
        if sum(taken.values()) > SHARE * mask.area or any(n > SHARE * areas[one] for one, n in taken.items()):
            continue
        window[crop & (window < 0)] = position
        kept.add(position)
    return [mask for position, mask in enumerate(masks) if position in kept]


def uncovered(masks: Sequence[Mask], known: Sequence[CroppedMask], height: int, width: int) -> list[Mask]:
    """The masks that are none of the objects that are known: no more than half of them lies in those, and they hold no more than half of one.

    Args:
        height, width: of the frame without its banner, pixels.
    """
    import numpy as np

    from segment_duo.masks.rle import decode_crop

    owner = np.zeros((height, width), np.int32)
    areas = {0: 0}
    for number, one in enumerate(known, 1):
        rows, columns = one.pixels.shape
        owner[one.top : one.top + rows, one.left : one.left + columns][one.pixels] = number
        areas[number] = one.area
    kept = []
    for mask in masks:
        x, y, w, h = (int(n) for n in mask.bbox)
        window = owner[y : y + h, x : x + w]
        under, counts = np.unique(window[decode_crop(mask.rle, x, y, w, h)[: window.shape[0]]], return_counts=True)
        taken = {int(one): int(count) for one, count in zip(under, counts, strict=True) if one}
        if sum(taken.values()) <= SHARE * mask.area and not any(n > SHARE * areas[one] for one, n in taken.items()):
            kept.append(mask)
    return kept


def _worth(mask: Mask) -> tuple[float, float]:
    known = [score for score in (mask.predicted_iou, mask.stability_score) if score is not None]
    value = 1.0
    for score in known:
        value *= score
    return (value if known else 0.0), float(mask.area)
