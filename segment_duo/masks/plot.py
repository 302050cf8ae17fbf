"""One picture of a measured set: the image with outlines and a scale bar, and the histogram of diameters. Pillow only."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from segment_duo.masks.measure import Measures, Summary
from segment_duo.masks.overlay import PALETTE, format_length, overlay
from segment_duo.text import safe
from segment_duo.types import ImageData, Mask, PixelSize

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

_INK, _GRID, _GROUND = (40, 40, 40), (220, 220, 220), (255, 255, 255)
_BAR = PALETTE[4]
_PANEL = 900
"""Height of both panels in pixels."""


def plot(
    image: ImageData,
    masks: Sequence[Mask],
    measures: Sequence[Measures],
    summary: Summary,
    *,
    pixel_size: PixelSize | None = None,
    title: str = "",
) -> bytes:
    """PNG of the image with the outlines of ``masks`` beside the histogram of the equivalent diameters of ``measures``.

    Args:
        summary: of the same measures; its unit labels the axis, D10, D50 and D90 are drawn.
        pixel_size: draws the scale bar.
    """
    from PIL import Image

    size = pixel_size or image.facts.pixel_size
    picture = Image.fromarray(overlay(image.pixels, masks, fill=False, scale_bar=size))
    width = max(200, round(picture.width * _PANEL / picture.height))
    width = min(width, 3 * _PANEL)
    shown = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (width + _PANEL + 60, max(_PANEL, shown.height) + 80), _GROUND)
    sheet.paste(shown, (20, 60))
    values = [
        value
        for row in measures
        if (value := row.equivalent_diameter_nm if summary.unit == "nm" else row.equivalent_diameter_px) is not None
    ]
    panel = Image.new("RGB", (_PANEL, _PANEL), _GROUND)
    _draw_histogram(panel, values, summary)
    sheet.paste(panel, (width + 40, 60))
    _header(sheet, title, summary)
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()


def histogram(values: Sequence[float], bins: int = 0) -> tuple[list[float], list[int]]:
    """Edges (bins + 1) and counts; the number of bins follows the square root of the count, between 5 and 40, when not given."""
    import numpy as np

    number = bins or min(40, max(5, round(math.sqrt(len(values)))))
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high <= low:
        low, high = low * 0.9, (high * 1.1) or 1.0
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=number, range=(low, high))
    return edges.tolist(), counts.tolist()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _header(sheet: Image.Image, title: str, summary: Summary) -> None:
    from PIL import ImageDraw

    text = f"{summary.count} masks"
    if summary.mean is not None:
        text += f", mean diameter {_length(summary.mean, summary.unit)}"
        text += "" if summary.sd is None else f" ± {_length(summary.sd, summary.unit)}"
    if summary.number_per_um2 is not None:
        text += f", {summary.number_per_um2:.3g} per um^2"
    name = safe(title, limit=80)
    ImageDraw.Draw(sheet).text((20, 16), f"{name}: {text}" if name else text, font=_font(24), fill=_INK)


def _length(value: float, unit: str) -> str:
    return format_length(value) if unit == "nm" else f"{value:.3g} px"


def _draw_histogram(panel: Image.Image, values: Sequence[float], summary: Summary) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(panel)
    left, top, right, bottom = 80, 70, panel.width - 20, panel.height - 90
    if not values:
        draw.text((left, top), "no masks", font=_font(22), fill=_INK)
        return
    edges, counts = histogram(values)
    # Pillow's own font has neither Greek letters nor superscripts, hence um and um^2.
    factor, unit = (1e-3, "um") if summary.unit == "nm" and edges[-1] >= 2000 else (1.0, summary.unit)
    step = max(1, round(_nice_step(max(counts), 5)))
    ceiling = step * math.ceil(max(counts) / step)
    low, high = edges[0], edges[-1]

    def across(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    def up(count: float) -> float:
        return bottom - (bottom - top) * count / ceiling

    small = _font(18)
    for tick in range(0, ceiling + 1, step):
        draw.line((left, up(tick), right, up(tick)), fill=_GRID)
        draw.text((left - 10 - draw.textlength(str(tick), font=small), up(tick) - 11), str(tick), font=small, fill=_INK)
    for count, begin, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            draw.rectangle((across(begin) + 1, up(count), across(end) - 1, bottom), fill=_BAR)
    draw.line((left, bottom, right, bottom), fill=_INK, width=2)
    _axis(draw, across, (low * factor, high * factor), factor, bottom)
    label = f"equivalent diameter [{unit}]"
    draw.text(((left + right - draw.textlength(label, font=small)) / 2, bottom + 50), label, font=small, fill=_INK)
    # One above the other: in a long-tailed distribution the three lie close together.
    for row, (name, value) in enumerate((("D10", summary.d10), ("D50", summary.d50), ("D90", summary.d90))):
        if value is not None:
            height = top - 22 * (row + 1)
            draw.line((across(value), height, across(value), bottom), fill=PALETTE[5], width=2)
            shift = 4 if across(value) + 50 < panel.width else -44
            draw.text((across(value) + shift, height - 2), name, font=small, fill=PALETTE[5])


def _axis(
    draw: ImageDraw.ImageDraw, across: Callable[[float], float], span: tuple[float, float], factor: float, bottom: int
) -> None:
    step = _nice_step(span[1] - span[0], 6)
    tick = math.ceil(span[0] / step) * step
    font = _font(18)
    while tick <= span[1] * (1 + 1e-9):
        x = across(tick / factor)
        text = f"{tick:.6g}"
        draw.line((x, bottom, x, bottom + 8), fill=_INK, width=2)
        draw.text((x - draw.textlength(text, font=font) / 2, bottom + 12), text, font=font, fill=_INK)
        tick += step


def _nice_step(span: float, parts: int) -> float:
    """1, 2 or 5 times a power of ten, so that ``span`` has about ``parts`` steps."""
    power = 10.0 ** math.floor(math.log10(span / parts)) if span > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * parts >= span * 0.999)
