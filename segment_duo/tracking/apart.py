"""Masks of one frame that are objects beside each other: what automatic masks hold twice, as a whole and its parts, is dropped; which are new; and
which followed objects took something new for a part of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segment_duo.boxes import in_pixels
from segment_duo.masks.cropped import CroppedMask, common_pixels
from segment_duo.types import Mask

SHARE = 0.5
"""Of a mask's pixels: with more of them in better masks it is one of those once more."""
WITHIN = 0.75
"""Of a mask's pixels: with more of them in an object it is held by that object."""
PART = 0.25
"""Of a mask's pixels: with more of them in an object that object took a part of it."""
ELSEWHERE = 0.3
"""Of a mask's pixels: with fewer of them where an object was it came beside it."""
LEAST = 0.08
"""Of an object's pixels: what came and is a smaller part of it is left there."""
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


def shrunk(
    masks: Sequence[Mask], known: Mapping[int, CroppedMask], before: Mapping[int, CroppedMask]
) -> dict[int, CroppedMask]:
    """Objects that took what came beside them for a part of themselves, and what is left of each.

    Such an object holds a mask that lies where it was: that is what is left. And it reaches into another that lies where it was not: that is what
    came. An object that merely falls into pieces, or grew, stays as it is.

    Args:
        masks: of the frame, beside each other.
        known: the objects that are followed, by id, on this frame.
        before: the same on an earlier frame.
    """
    found = {}
    for ident, mask in known.items():
        earlier = before.get(ident)
        if earlier is None or not earlier.pixels.size or not mask.pixels.size:
            continue
        near = _near(masks, mask)
        taken = [common_pixels(one, mask) for one in near]
        stayed = [common_pixels(one, earlier) for one in near]
        heir = max(range(len(near)), key=lambda i: stayed[i], default=None)
        if heir is None or stayed[heir] <= SHARE * earlier.area or taken[heir] <= WITHIN * near[heir].area:
            continue
        if any(
            taken[i] > max(PART * one.area, LEAST * mask.area) and stayed[i] < ELSEWHERE * one.area
            for i, one in enumerate(near)
            if i != heir
        ):
            found[ident] = near[heir]
    return found


def _near(masks: Sequence[Mask], place: CroppedMask) -> list[CroppedMask]:
    """The masks whose boxes meet that of ``place``."""
    left, top, right, bottom = place.window
    boxes = [(mask, in_pixels(mask.bbox)) for mask in masks if mask.area]
    return [
        CroppedMask.of_rle(mask.rle)
        for mask, (x, y, w, h) in boxes
        if x < right and x + w > left and y < bottom and y + h > top
    ]


def _worth(mask: Mask) -> tuple[float, float]:
    known = [score for score in (mask.predicted_iou, mask.stability_score) if score is not None]
    value = 1.0
    for score in known:
        value *= score
    return (value if known else 0.0), float(mask.area)
