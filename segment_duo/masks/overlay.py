"""Masks drawn over their image, for files and for the terminal UI; and the scale bar.

Colours are those of Okabe and Ito (2008), told apart with any common colour vision; a mask keeps its colour by its id.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from segment_duo.boxes import in_pixels
from segment_duo.types import Mask, PixelSize, Point

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Pixels = npt.NDArray[np.uint8]

PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
SELECTED = (255, 255, 255)
INCLUDE, EXCLUDE = (0, 158, 115), (213, 94, 0)
FILL, FILL_SELECTED = 0.35, 0.6
_NICE = (1.0, 2.0, 5.0)


def colour_of(mask: Mask, colours: Mapping[str, tuple[int, int, int]] | None = None) -> tuple[int, int, int]:
    """RGB of a mask: that of its label, or else by its id. ``colours``: label -> RGB."""
    return (colours or {}).get(mask.label) or PALETTE[mask.id % len(PALETTE)]


def overlay(
    pixels: Pixels,
    masks: Sequence[Mask],
    *,
    selected: Collection[int] | None = None,
    points: Iterable[Point] = (),
    scale_bar: PixelSize | None = None,
    fill: bool = True,
    colours: Mapping[str, tuple[int, int, int]] | None = None,
    ids: bool = False,
) -> Pixels:
    """Image with masks, outlines, prompt points and a scale bar.

    Args:
        pixels: uint8, shape (H, W, 3); its rows may end above the masks' (the banner is cut).
        masks: of the uncut size; smaller ones are drawn on top.
        selected: ids drawn stronger, with a white outline.
        points: prompt points: a disc for include, a cross for exclude.
        scale_bar: draw a bar of a round length.
        fill: False draws outlines only.
        colours: label -> RGB, for masks that are to be coloured by their label.
        ids: write each mask's id in its middle.

    Returns:
        uint8, shape (H, W, 3), a new array.
    """
    import numpy as np

    out = np.array(pixels, dtype=np.uint8, order="C")
    width = line_width(out.shape[0], out.shape[1])
    chosen = frozenset(selected or ())
    for mask in sorted(masks, key=lambda mask: (mask.id in chosen, -mask.area)):
        _paint(out, mask, colour_of(mask, colours), selected=mask.id in chosen, width=width, fill=fill)
    marks = tuple(points)
    if marks or ids or scale_bar is not None:
        from PIL import Image

        picture = Image.fromarray(out)
        if ids:
            draw_ids(picture, masks)
        _draw_points(picture, marks, width)
        if scale_bar is not None:
            draw_scale_bar(picture, scale_bar)
        out = np.array(picture, dtype=np.uint8)
    return out


def line_width(height: int, width: int) -> int:
    """Outline width in pixels that is visible at full view: 1 up to about 1500 pixels, then growing."""
    return max(1, round(min(height, width) / 1000))


def inner_outline(crop: npt.NDArray[np.bool_], width: int = 1) -> npt.NDArray[np.bool_]:
    """Pixels of a mask crop that lie within ``width`` pixels of its border (the crop's edge counts as border)."""
    import numpy as np

    inside = np.pad(crop, 1)
    for _ in range(width):
        core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        inside = np.pad(core, 1)
    return np.asarray(crop & ~inside[1:-1, 1:-1])


def _paint(out: Pixels, mask: Mask, ink: tuple[int, int, int], *, selected: bool, width: int, fill: bool) -> None:
    import numpy as np

    from segment_duo.masks.rle import decode_crop

    x, y, w, h = in_pixels(mask.bbox)
    shown_h, shown_w = min(h, out.shape[0] - y), min(w, out.shape[1] - x)
    if shown_h <= 0 or shown_w <= 0:
        return
    crop = decode_crop(mask.rle, x, y, w, h)
    border = inner_outline(crop, width + selected)[:shown_h, :shown_w]
    crop = crop[:shown_h, :shown_w]
    window = out[y : y + shown_h, x : x + shown_w]
    colour = np.array(ink, dtype=np.float32)
    if fill:
        share = FILL_SELECTED if selected else FILL
        window[crop] = (window[crop] * (1 - share) + colour * share).astype(np.uint8)
    window[border] = SELECTED if selected else colour.astype(np.uint8)


def draw_ids(
    picture: Image.Image,
    masks: Sequence[Mask],
    *,
    scale: float = 1.0,
    origin: tuple[float, float] = (0.0, 0.0),
    size: int | None = None,
) -> None:
    """Write ids, white with a dark rim, each in the middle of its mask's box; where two would touch, the larger mask's stays.

    Args:
        scale: pixels of the picture for one of the image.
        origin: place of the picture's corner in the image.
        size: of the font, in pixels.
    """
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(picture)
    size = size or max(10, round(picture.height / 50))
    font = ImageFont.load_default(size)
    taken: list[tuple[float, float, float, float]] = []
    for mask in sorted(masks, key=lambda mask: -mask.area):
        x, y, w, h = mask.bbox
        middle = ((x + w / 2 - origin[0]) * scale, (y + h / 2 - origin[1]) * scale)
        left, top, right, bottom = draw.textbbox(middle, str(mask.id), font=font, anchor="mm")
        if any(left < x1 and x0 < right and top < y1 and y0 < bottom for x0, y0, x1, y1 in taken):
            continue
        taken.append((left, top, right, bottom))
        draw.text(
            middle,
            str(mask.id),
            font=font,
            anchor="mm",
            fill=SELECTED,
            stroke_width=max(1, size // 8),
            stroke_fill=(0, 0, 0),
        )


def _draw_points(picture: Image.Image, points: Sequence[Point], width: int) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    radius = 3 + 2 * width
    for point in points:
        x, y = point.x, point.y
        if point.label:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=INCLUDE, outline=SELECTED, width=width)
            continue
        for line, colour in ((width + 3, SELECTED), (width + 1, EXCLUDE)):
            draw.line((x - radius, y - radius, x + radius, y + radius), fill=colour, width=line)
            draw.line((x - radius, y + radius, x + radius, y - radius), fill=colour, width=line)


def bar_length(width: int, pixel_size: PixelSize) -> tuple[float, str]:
    """A round length (1, 2 or 5 times a power of ten) of about a fifth of the image's width.

    Args:
        width: image width in pixels.
        pixel_size: its ``x_nm`` counts.

    Returns:
        the length in pixels and its text, e.g. ``(148.3, "500 um")``.
    """
    target = width * pixel_size.x_nm / 5
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in _NICE if step * power <= target * 1.0000001)
    return length / pixel_size.x_nm, format_length(length)


def format_length(nanometres: float) -> str:
    """Text of a length with the unit that suits it, from pm to mm; "um" because the font drawn with has no Greek letters."""
    for unit, size in (("mm", 1e6), ("um", 1e3), ("nm", 1.0)):
        if nanometres >= size * 0.9999999:
            return f"{nanometres / size:.4g} {unit}"
    return f"{nanometres * 1000:.4g} pm"


def draw_scale_bar(picture: Image.Image, pixel_size: PixelSize) -> None:
    """Draw a white bar with its length on a dark ground into the lower right corner of an RGB image."""
    from PIL import ImageDraw, ImageFont

    length, text = bar_length(picture.width, pixel_size)
    draw = ImageDraw.Draw(picture, "RGBA")
    size = max(10, round(picture.height / 35))
    font = ImageFont.load_default(size)
    text_width = draw.textlength(text, font=font)
    pad, thick = max(3, size // 3), max(2, size // 5)
    box_w, box_h = max(length, text_width) + 2 * pad, size * 1.2 + thick + 2 * pad
    right, bottom = picture.width - 1 - pad, picture.height - 1 - pad
    draw.rectangle((right - box_w, bottom - box_h, right, bottom), fill=(0, 0, 0, 160))
    middle = right - box_w / 2
    draw.text((middle - text_width / 2, bottom - box_h + pad * 0.6), text, font=font, fill=(255, 255, 255, 255))
    left = round(middle - length / 2)
    draw.rectangle((left, bottom - pad - thick, left + round(length) - 1, bottom - pad), fill=(255, 255, 255, 255))
