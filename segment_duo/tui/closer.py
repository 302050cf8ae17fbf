"""What the model is shown: when one looks closer, the part of the image that is in view, so that small objects are large enough for it.

Every model shrinks an image to a fixed number of pixels a side. Parts are halved images on a coarse raster: a small step of the view
keeps the part, and with it the embedding. Pure arithmetic.
"""

from __future__ import annotations

from segment_duo.boxes import covered
from segment_duo.closer import part_around
from segment_duo.terminal.viewport import Viewport
from segment_duo.types import Box

LARGEST_ZOOM = 2
"""A part is shown to the model enlarged so many times at most. Nano, one point each, mean IoU: 15-px discs on 1024 x 1024 px 0.66 whole, 0.90 at
full size, 0.96 enlarged twice; the 14 smallest of `particles.tif` (22 to 50 px) 0.84, 0.93, 0.93; larger ones lose their surroundings."""


def part_in_view(view: Viewport, input_size: int, *points: tuple[float, float]) -> Box | None:
    """The part to show to a model for this view.

    Args:
        input_size: pixels a side that the model shrinks an image to, 0 if it takes it as it is.
        points: image points that must lie in the part.

    Returns:
        whole pixels, both corners inside; None for the whole image: it is not shrunk, most of it is in view, or no part holds all points.
    """
    width, height = view.image_width, view.image_height
    x0, y0, x1, y1 = view.visible()
    seen = max(x1 - x0, y1 - y0)
    side = float(max(width, height))
    least = max(seen, input_size / LARGEST_ZOOM)
    if input_size <= 0 or side / 2 < least:
        return None
    while side / 2 >= least:
        side /= 2
    return part_around(((x0 + x1) / 2, (y0 + y1) / 2), side, width, height, points)


def side_text(part: Box) -> str:
    """``625 × 625 px``."""
    *_, width, height = covered(part)
    return f"{width:,} × {height:,} px"
