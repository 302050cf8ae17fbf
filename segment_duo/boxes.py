"""Rectangles: their conventions, told here, and every conversion between them.

x to the right, y down, in pixels. A mask whose only pixels are (7, 3) and (8, 3), in each of the forms:

    what it is                                                    form                                           here
    ``Mask.bbox``, ``Mask.crop_box``, most formats of other tools XYWH, counts pixels                            (7, 3, 2, 1)
    SAM's own box: the engine's answers, records of our sets      XYWH, last pixel less first                    (7, 3, 1, 0)
    :data:`Window`: crops, tiles, slices of arrays                XYXY, ends excluded                            (7, 3, 9, 4)
    :class:`~segment_duo.types.Box` of a prompt, region or part   XYXY, places; of whole pixels both are inside  (7, 3, 8, 3)

An empty mask has four zeros in each. This module must not import NumPy, torch or anything slow.
"""

from __future__ import annotations

from segment_duo.types import Box

Xywh = tuple[float, float, float, float]
"""Left, top, width and height; a single pixel is 1 x 1."""

SamBox = tuple[float, float, float, float]
"""Left, top, and by how much the last column and row are further; for a single pixel 0 and 0."""

Window = tuple[int, int, int, int]
"""XYXY, ends excluded."""


EMPTY: Xywh = (0.0, 0.0, 0.0, 0.0)
"""Of a mask without a pixel, in every form."""


def whole(height: int, width: int) -> Xywh:
    """An image of this size in pixels."""
    return (0.0, 0.0, float(width), float(height))


def of_ends(left: float, top: float, right: float, bottom: float) -> Xywh:
    """First and last column and row, both inside."""
    return (float(left), float(top), float(right - left + 1), float(bottom - top + 1))


def of_window(window: Window) -> Xywh:
    left, top, right, bottom = window
    return (float(left), float(top), float(right - left), float(bottom - top))


def in_pixels(box: Xywh) -> tuple[int, int, int, int]:
    """The same, XYWH, in integers to cut arrays with."""
    left, top, width, height = box
    return int(left), int(top), int(width), int(height)


def window(box: Xywh) -> Window:
    left, top, width, height = in_pixels(box)
    return left, top, left + width, top + height


def covered(box: Box) -> tuple[int, int, int, int]:
    """XYWH in integers of the pixels of a box whose corners are whole pixels."""
    return in_pixels(of_ends(int(box.x0), int(box.y0), int(box.x1), int(box.y1)))


def ends(box: Xywh) -> tuple[float, float, float, float]:
    """First and last column and row, both inside, XYXY."""
    left, top, width, height = box
    return (left, top, left + width - 1, top + height - 1) if width and height else EMPTY


def middle(box: Xywh) -> tuple[float, float]:
    """Where its middle is; that of a single pixel is the pixel's place."""
    left, top, width, height = box
    return left + (width - 1) / 2, top + (height - 1) / 2


def sam(box: Xywh) -> SamBox:
    """SAM's own box."""
    left, top, width, height = box
    return (float(left), float(top), max(0.0, float(width) - 1), max(0.0, float(height) - 1))
