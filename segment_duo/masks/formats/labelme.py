"""LabelMe's JSON: polygons for masks in one piece without holes, its ``mask`` shape (a PNG crop) for the others."""

from __future__ import annotations

import base64
import binascii
import io
import math
from dataclasses import replace
from functools import partial
from typing import Any

from segment_duo.boxes import ends, in_pixels
from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import (
    DEFAULT_LABEL,
    Gathered,
    canvas,
    check_stated_size,
    file_name,
    is_numbers,
    key_of,
    name_notice,
    objects_of,
    read_json,
    ring_array,
    whole,
    write_json,
)
from segment_duo.masks.outlines import ellipse, outline_parts, rle_of_rings
from segment_duo.masks.rle import area, bounding_box, union
from segment_duo.types import Mask, MaskSet, Rle

_POLYGONS = ("polygon", "oriented_rectangle", "rotation")
"""The last two: rotated rectangles of later LabelMe and of X-AnyLabeling, four corners."""
_VERSION = "5.5.0"
"""The LabelMe whose files these are like; ``mask`` shapes came with 5.2."""


def dump(mask_set: MaskSet) -> bytes:
    """One LabelMe file, without the image's bytes (``imagePath`` names it)."""
    height, width = canvas(mask_set)
    shapes = []
    for mask in mask_set.masks:
        parts = outline_parts(mask.rle)
        if not parts:
            continue
        shape: dict[str, Any] = {
            "label": mask.label or DEFAULT_LABEL,
            "points": parts[0][0].tolist(),
            "group_id": mask.id,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        if len(parts) > 1 or len(parts[0]) > 1:
            left, top, right, bottom = ends(mask.bbox)
            shape |= {
                "shape_type": "mask",
                "points": [[int(left), int(top)], [int(right), int(bottom)]],
                "mask": _png_text(mask),
            }
        shapes.append(shape)
    return write_json(
        {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": file_name(mask_set, "image"),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
    )


def _png_text(mask: Mask) -> str:
    from PIL import Image

    from segment_duo.masks.rle import decode_crop

    x, y, w, h = in_pixels(mask.bbox)
    out = io.BytesIO()
    Image.fromarray(decode_crop(mask.rle, x, y, w, h)).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")


def load(data: bytes, height: int, width: int, *, image_name: str = "") -> tuple[list[Mask], list[str]]:
    """Masks from polygons, rectangles, circles and mask shapes, and what was left out (points and lines).

    Shapes of one label and one ``group_id`` are one object, as LabelMe has it; the group's number becomes the mask's id.
    """
    content = read_json(data)
    if not isinstance(content, dict) or "shapes" not in content:
        raise MaskFileError("is no LabelMe file: it has no shapes")
    check_stated_size(content.get("imageHeight"), content.get("imageWidth"), height, width)
    found = Gathered("shape", notices=name_notice(content.get("imagePath"), image_name))
    grouped: dict[tuple[str, str], int] = {}
    used: set[int] = set()
    for position, shape in enumerate(objects_of(content["shapes"], "shapes"), 1):
        group, label = shape.get("group_id"), shape.get("label", "")
        number = whole(group)
        identity = number if number is not None and number not in used else None
        taken = found.take(
            f"shape {position}", partial(_shape, shape, height, width), label=label, extra={"id": identity}
        )
        if not taken:
            continue
        if group is not None:
            at = grouped.setdefault((str(label), key_of(group)), len(found.masks) - 1)
            if at != len(found.masks) - 1:
                part, whole_mask = found.masks.pop(), found.masks[at]
                rle = union([whole_mask.rle, part.rle])
                found.masks[at] = replace(whole_mask, rle=rle, area=area(rle), bbox=bounding_box(rle))
                continue
        if identity is not None:
            used.add(identity)
    return found.result()


def _shape(shape: dict[str, Any], height: int, width: int) -> Rle:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind in _POLYGONS:
        return rle_of_rings([ring_array(points, width, height)], height, width)
    if kind not in ("rectangle", "circle", "mask"):
        raise MaskFileError(f"a {str(kind)[:20]} has no area")
    if not isinstance(points, list) or len(points) < 2 or not all(is_numbers(point, 2) for point in points):
        raise MaskFileError(f"a {kind} needs two points")
    if kind == "mask":
        return _mask_shape(shape.get("mask"), points, height, width)
    if kind == "rectangle" and len(points) > 2:
        # Some of LabelMe's relatives write all four corners.
        return rle_of_rings([ring_array(points, width, height)], height, width)
    (x0, y0), (x1, y1) = points[0], points[1]
    if kind == "rectangle":
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    else:
        radius = math.hypot(x1 - x0, y1 - y0)
        ring = ellipse((x0, y0), (radius, 0.0), (0.0, radius)).tolist()
    return rle_of_rings([ring_array(ring, width, height)], height, width)


def _mask_shape(text: object, points: list[Any], height: int, width: int) -> Rle:
    import numpy as np
    from PIL import Image

    from segment_duo.masks.rle import empty, encode_crop

    if not isinstance(text, str):
        raise MaskFileError("a mask shape without a mask")
    # As LabelMe does: a shape that was moved has corners between pixels, both by the same part of one.
    x0, y0, x1, y1 = (math.floor(n) for point in points[:2] for n in point)
    size = x1 - x0 + 1, y1 - y0 + 1
    if not (0 < size[0] <= width and 0 < size[1] <= height):
        raise MaskFileError(f"a mask shape of {size} in an image of {width} x {height}")
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
            if image.size != size:
                raise MaskFileError(f"a mask shape of {image.size}, its corners say {size}")
            crop = np.array(image.convert("L")) > 0
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MaskFileError(f"a damaged mask shape ({type(error).__name__})") from None
    left, top = max(0, x0), max(0, y0)
    inside = crop[top - y0 : max(top, height) - y0, left - x0 : max(left, width) - x0]
    return encode_crop(inside, left, top, height, width) if inside.size else empty(height, width)
