"""One picture of a measured set: the image with outlines and a scale bar, and the histogram of diameters, as a raster image or as SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol
from xml.sax.saxutils import escape

from segment_duo.errors import UsageError
from segment_duo.masks.classes import Colour
from segment_duo.masks.measure import Measures, Summary
from segment_duo.masks.outlines import outline_parts
from segment_duo.masks.overlay import PALETTE, bar_length, colour_of, draw_ids, format_length, overlay
from segment_duo.text import safe
from segment_duo.types import ImageData, Mask, PixelSize

if TYPE_CHECKING:
    from PIL import Image, ImageFont

_INK, _GRID, _GROUND = (40, 40, 40), (220, 220, 220), (255, 255, 255)
_BAR = PALETTE[4]
_PANEL = 900
"""Height of both panels in pixels."""
_LEFT, _TOP = 20, 60
"""Where the image lies on the sheet."""
_STROKE = 3
"""Width of outlines on the sheet."""
FORMATS = {
    ".png": "PNG",
    ".svg": "SVG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".pdf": "PDF",
}
"""What is written for a file's extension; a name without one is PNG."""


def plot_format(name: str) -> str:
    """The value of :data:`FORMATS` that suits a file's name.

    Raises:
        UsageError: the name promises something else.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix and suffix not in FORMATS:
        raise UsageError(f"a plot cannot be written as {suffix}", f"Name a file with {', '.join(FORMATS)}.")
    return FORMATS.get(suffix, "PNG")


def plot(
    image: ImageData,
    masks: Sequence[Mask],
    measures: Sequence[Measures],
    summary: Summary,
    *,
    pixel_size: PixelSize | None = None,
    title: str = "",
    fmt: str = "PNG",
    colours: Mapping[str, Colour] | None = None,
    ids: bool = False,
) -> bytes:
    """The image with the outlines of ``masks`` beside the histogram of the equivalent diameters of ``measures``.

    Args:
        summary: of the same measures; its unit labels the axis, D10, D50 and D90 are drawn.
        pixel_size: draws the scale bar.
        colours: label -> RGB, for masks that are to be coloured by their label.
        ids: write each mask's id in its middle.
        fmt: a value of :data:`FORMATS`. SVG holds outlines, histogram and text as such, the image as PNG.
    """
    from PIL import Image

    size = pixel_size or image.facts.pixel_size
    height, width = image.pixels.shape[:2]
    shown_width = min(max(200, round(width * _PANEL / height)), 3 * _PANEL)
    shown_height = max(1, round(height * shown_width / width))
    vector = fmt == "SVG"
    picture = image.pixels if vector else overlay(image.pixels, masks, fill=False, scale_bar=size, colours=colours)
    shown = Image.fromarray(picture).resize((shown_width, shown_height), Image.Resampling.LANCZOS)
    sheet: Sheet
    sheet_size = (shown_width + _PANEL + 60, max(_PANEL, shown_height) + 80)
    if vector:
        sheet = Svg(*sheet_size)
        sheet.picture(shown)
        sheet.outlines(masks, shown_width / width, colours)
        if ids:
            sheet.ids(masks, shown_width / width)
        if size is not None:
            sheet.scale_bar(width, size, shown_width, shown_height)
    else:
        if ids:
            draw_ids(shown, masks, scale=shown_width / width)
        sheet = Raster(*sheet_size, fmt)
        sheet.picture(shown)
    values = [
        value
        for row in measures
        if row.area_px
        and (value := row.equivalent_diameter_nm if summary.unit == "nm" else row.equivalent_diameter_px) is not None
    ]
    _draw_histogram(sheet, shown_width + 40, _TOP, values, summary)
    _header(sheet, title, summary)
    return sheet.data()


class Sheet(Protocol):
    """What both kinds of picture can draw. Coordinates in pixels of the sheet, y down; text hangs from its upper left corner."""

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: int = 1) -> None: ...
    def bar(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None: ...
    def text(self, x: float, y: float, text: str, size: int, colour: Colour = _INK) -> None: ...
    def data(self) -> bytes: ...


class Raster:
    """A sheet of pixels; ``fmt`` is Pillow's name of a format."""

    def __init__(self, width: int, height: int, fmt: str) -> None:
        from PIL import Image, ImageDraw

        self._format = fmt
        self._sheet = Image.new("RGB", (width, height), _GROUND)
        self._draw = ImageDraw.Draw(self._sheet)

    def picture(self, shown: Image.Image) -> None:
        self._sheet.paste(shown, (_LEFT, _TOP))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: int = 1) -> None:
        self._draw.line((x0, y0, x1, y1), fill=colour, width=width)

    def bar(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self._draw.rectangle((x0, y0, x1, y1), fill=colour)

    def text(self, x: float, y: float, text: str, size: int, colour: Colour = _INK) -> None:
        self._draw.text((x, y), text, font=_font(size), fill=colour)

    def data(self) -> bytes:
        out = io.BytesIO()
        self._sheet.save(out, format=self._format)
        return out.getvalue()


class Svg:
    """A sheet that is an SVG document."""

    def __init__(self, width: int, height: int) -> None:
        self._lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif">',
            f'<rect width="{width}" height="{height}" fill="{_hex(_GROUND)}"/>',
        ]

    def picture(self, shown: Image.Image) -> None:
        out = io.BytesIO()
        shown.save(out, format="PNG")
        data = base64.b64encode(out.getvalue()).decode("ascii")
        self._lines.append(
            f'<image x="{_LEFT}" y="{_TOP}" width="{shown.width}" height="{shown.height}" href="data:image/png;base64,{data}"/>'
        )

    def outlines(self, masks: Sequence[Mask], scale: float, colours: Mapping[str, Colour] | None) -> None:
        self._lines.append(
            f'<g transform="translate({_LEFT} {_TOP}) scale({scale:.8g})" fill="none" stroke-width="{_STROKE / scale:.6g}" '
            'stroke-linejoin="round">'
        )
        for mask in masks:
            rings = [ring.tolist() for part in outline_parts(mask.rle) for ring in part]
            path = "".join("M" + "L".join(f"{x},{y}" for x, y in ring) + "Z" for ring in rings)
            self._lines.append(f'<path id="mask-{mask.id}" stroke="{_hex(colour_of(mask, colours))}" d="{path}"/>')
        self._lines.append("</g>")

    def ids(self, masks: Sequence[Mask], scale: float) -> None:
        self._lines.append(
            '<g font-size="18" fill="#ffffff" stroke="#000000" stroke-width="3" paint-order="stroke" text-anchor="middle">'
        )
        for mask in masks:
            x, y, w, h = mask.bbox
            self._lines.append(
                f'<text x="{_LEFT + (x + w / 2) * scale:.6g}" y="{_TOP + (y + h / 2) * scale + 6:.6g}">{mask.id}</text>'
            )
        self._lines.append("</g>")

    def scale_bar(self, width: int, size: PixelSize, shown_width: int, shown_height: int) -> None:
        pixels, text = bar_length(width, size)
        length, font = pixels * shown_width / width, max(20, shown_height // 30)
        ground = max(length, 0.6 * font * len(text)) + 2 * font
        right, bottom = _LEFT + shown_width - font / 2, _TOP + shown_height - font / 2
        middle = right - ground / 2
        self._lines += [
            f'<rect x="{right - ground:.6g}" y="{bottom - 2.2 * font:.6g}" width="{ground:.6g}" height="{2.2 * font:.6g}" '
            'fill="#000000" fill-opacity="0.63"/>',
            f'<text x="{middle:.6g}" y="{bottom - 1.1 * font:.6g}" font-size="{font}" fill="#ffffff" text-anchor="middle">'
            f"{escape(text)}</text>",
            f'<rect x="{middle - length / 2:.6g}" y="{bottom - 0.8 * font:.6g}" width="{length:.6g}" height="{font / 4:.6g}" '
            'fill="#ffffff"/>',
        ]

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: int = 1) -> None:
        self._lines.append(
            f'<line x1="{x0:.6g}" y1="{y0:.6g}" x2="{x1:.6g}" y2="{y1:.6g}" stroke="{_hex(colour)}" stroke-width="{width}"/>'
        )

    def bar(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self._lines.append(
            f'<rect x="{x0:.6g}" y="{y0:.6g}" width="{x1 - x0:.6g}" height="{y1 - y0:.6g}" fill="{_hex(colour)}"/>'
        )

    def text(self, x: float, y: float, text: str, size: int, colour: Colour = _INK) -> None:
        # The width is fixed to that of the font the layout was made with, whatever font the reader has.
        self._lines.append(
            f'<text x="{x:.6g}" y="{y + 0.9 * size:.6g}" font-size="{size}" fill="{_hex(colour)}" '
            f'textLength="{text_width(text, size):.6g}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
        )

    def data(self) -> bytes:
        return "\n".join([*self._lines, "</svg>", ""]).encode()


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


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


def text_width(text: str, size: int) -> float:
    """Pixels that a text takes on a sheet."""
    from PIL import Image, ImageDraw

    return float(ImageDraw.Draw(Image.new("L", (1, 1))).textlength(text, font=_font(size)))


def _header(sheet: Sheet, title: str, summary: Summary) -> None:
    text = f"{summary.count} masks"
    if summary.mean is not None:
        text += f", mean diameter {_length(summary.mean, summary.unit)}"
        text += "" if summary.sd is None else f" ± {_length(summary.sd, summary.unit)}"
    if summary.number_per_um2 is not None:
        text += f", {_density(summary.number_per_um2)}"
    name = safe(title, limit=80)
    sheet.text(20, 16, f"{name}: {text}" if name else text, 24)


def _density(per_um2: float) -> str:
    """Per the square of a unit in which the number is neither tiny nor huge; "um" because the font drawn with has no Greek letters."""
    for unit, factor in (("mm", 1e6), ("um", 1.0)):
        if per_um2 * factor < 1e4:
            return f"{per_um2 * factor:.4g} per {unit}^2"
    return f"{per_um2 * 1e-6:.3g} per nm^2"


def _length(value: float, unit: str) -> str:
    return format_length(value) if unit == "nm" else f"{value:.3g} px"


def _axis_unit(unit: str, largest: float) -> tuple[float, str]:
    """Factor and unit of an axis up to ``largest``."""
    scales = (("mm", 1e6), ("um", 1e3)) if unit == "nm" else ()
    return next(((1 / size, name) for name, size in scales if largest >= 2 * size), (1.0, unit))


def _draw_histogram(sheet: Sheet, x: int, y: int, values: Sequence[float], summary: Summary) -> None:
    """Draw into the panel whose upper left corner is (x, y)."""
    left, top, right, bottom = x + 80, y + 70, x + _PANEL - 20, y + _PANEL - 90
    if not values:
        sheet.text(left, top, "no masks", 22)
        return
    edges, counts = histogram(values)
    factor, unit = _axis_unit(summary.unit, edges[-1])
    step = max(1, round(nice_step(max(counts), 5)))
    ceiling = step * math.ceil(max(counts) / step)
    low, high = edges[0], edges[-1]

    def across(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    def up(count: float) -> float:
        return bottom - (bottom - top) * count / ceiling

    for tick in range(0, ceiling + 1, step):
        sheet.line(left, up(tick), right, up(tick), _GRID)
        sheet.text(left - 10 - text_width(str(tick), 18), up(tick) - 11, str(tick), 18)
    for count, begin, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            sheet.bar(across(begin) + 1, up(count), across(end) - 1, bottom, _BAR)
    sheet.line(left, bottom, right, bottom, _INK, 2)
    _axis(sheet, across, (low * factor, high * factor), factor, bottom)
    label = f"equivalent diameter [{unit}]"
    sheet.text((left + right - text_width(label, 18)) / 2, bottom + 50, label, 18)
    # One above the other: in a long-tailed distribution the three lie close together.
    for row, (name, value) in enumerate((("D10", summary.d10), ("D50", summary.d50), ("D90", summary.d90))):
        if value is not None:
            height = top - 22 * (row + 1)
            sheet.line(across(value), height, across(value), bottom, PALETTE[5], 2)
            shift = 4 if across(value) + 50 < x + _PANEL else -44
            sheet.text(across(value) + shift, height - 2, name, 18, PALETTE[5])


def _axis(
    sheet: Sheet, across: Callable[[float], float], span: tuple[float, float], factor: float, bottom: int
) -> None:
    step = nice_step(span[1] - span[0], 6)
    tick = math.ceil(span[0] / step) * step
    while tick <= span[1] * (1 + 1e-9):
        x = across(tick / factor)
        text = f"{tick:.6g}"
        sheet.line(x, bottom, x, bottom + 8, _INK, 2)
        sheet.text(x - text_width(text, 18) / 2, bottom + 12, text, 18)
        tick += step


def nice_step(span: float, parts: int) -> float:
    """1, 2 or 5 times a power of ten, so that ``span`` has about ``parts`` steps."""
    power = 10.0 ** math.floor(math.log10(span / parts)) if span > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * parts >= span * 0.999)
