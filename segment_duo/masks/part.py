"""A rectangle of an image as an image of its own, for a model that looks closer: prompts go in, masks come out.

The rectangle is a :class:`~segment_duo.types.Box` whose corners are whole pixels, both inside: (0, 0, 99, 49) is 100 x 50 pixels.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from segment_duo.boxes import covered, in_pixels, of_ends
from segment_duo.types import Box, ImageFacts, Mask, Point, Prompt, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def cut_pixels(pixels: npt.NDArray[np.uint8], part: Box) -> npt.NDArray[np.uint8]:
    """The part of an image, uint8, shape (h, w, 3), C-contiguous."""
    import numpy as np

    left, top, width, height = covered(part)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def holds(part: Box, prompt: Prompt) -> bool:
    """Whether all of a prompt lies in the part."""
    box = prompt.box
    corners = [(box.x0, box.y0), (box.x1, box.y1)] if box else []
    places = [*((point.x, point.y) for point in prompt.points), *corners]
    return all(part.x0 <= x <= part.x1 and part.y0 <= y <= part.y1 for x, y in places)


def cut_mask(prompt: Prompt, facts: ImageFacts) -> Prompt:
    """The same prompt for the image without its banner: its mask has that size."""
    from segment_duo.masks.rle import resize_canvas

    if prompt.mask is None or not facts.banner.height:
        return prompt
    return dataclasses.replace(prompt, mask=resize_canvas(prompt.mask, facts.cut_height, facts.width))


def into_part(prompt: Prompt, part: Box) -> Prompt:
    """The same prompt in the part's own coordinates; its box is cut off at the part's edge, its mask too."""
    left, top, width, height = covered(part)
    box = prompt.box and _moved_box(prompt.box, part)
    points = tuple(Point(point.x - left, point.y - top, point.label) for point in prompt.points)
    mask = prompt.mask and _cut_mask(prompt.mask, left, top, width, height)
    return dataclasses.replace(prompt, points=points, box=box, mask=mask)


def out_of_part(mask: Mask, part: Box, height: int, width: int) -> Mask:
    """A mask of the part on the whole image of this size in pixels, with the part as its crop box."""
    from segment_duo.masks.rle import bounding_box, decode_crop, encode_crop

    left, top, *_ = covered(part)
    x, y, w, h = in_pixels(bounding_box(mask.rle))
    rle = encode_crop(decode_crop(mask.rle, x, y, max(w, 1), max(h, 1)), left + x, top + y, height, width)
    return dataclasses.replace(
        mask,
        rle=rle,
        bbox=bounding_box(rle),
        point_coords=tuple((at_x + left, at_y + top) for at_x, at_y in mask.point_coords),
        crop_box=of_ends(part.x0, part.y0, part.x1, part.y1),
    )


def uncut(mask: Mask, facts: ImageFacts | None, part: Box | None = None) -> Mask:
    """The engine's mask with our box, on the image with its banner.

    Args:
        facts: of the image; None for a preview, which keeps its size.
        part: what the engine saw of it, where that was not the whole image.
    """
    from segment_duo.masks.rle import bounding_box, resize_canvas

    if facts is not None and part is not None:
        return out_of_part(mask, part, facts.height, facts.width)
    mask = dataclasses.replace(mask, bbox=bounding_box(mask.rle))
    if facts is None or facts.banner.height == 0:
        return mask
    return dataclasses.replace(mask, rle=resize_canvas(mask.rle, facts.height, facts.width))


def _moved_box(box: Box, part: Box) -> Box:
    left, top, width, height = covered(part)
    return Box(
        max(box.x0 - left, 0), max(box.y0 - top, 0), min(box.x1 - left, width - 1), min(box.y1 - top, height - 1)
    )


def _cut_mask(mask: Rle, left: int, top: int, width: int, height: int) -> Rle:
    from segment_duo.masks.rle import decode_crop, encode

    return encode(decode_crop(mask, left, top, width, height))
