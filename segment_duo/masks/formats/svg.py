"""SVG outlines, for figures: one path per mask along its pixel edges."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from segment_duo.masks.formats.common import canvas, file_name
from segment_duo.masks.outlines import outline_parts
from segment_duo.masks.overlay import colour_of, line_width
from segment_duo.types import MaskSet


def dump(mask_set: MaskSet, colours: Mapping[str, tuple[int, int, int]] | None = None) -> bytes:
    """An SVG document of the image's size in pixels; paths carry ``id="mask-N"`` and the label as title. ``colours``: label -> RGB."""
    height, width = canvas(mask_set)
    stroke = line_width(height, width)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(_printable(file_name(mask_set, 'masks')))}</title>",
        f'<g fill-rule="evenodd" fill-opacity="0.2" stroke-width="{stroke}" stroke-linejoin="round">',
    ]
    for mask in mask_set.masks:
        rings = [ring.tolist() for part in outline_parts(mask.rle) for ring in part]
        if not rings:
            continue
        path = "".join("M" + "L".join(f"{x},{y}" for x, y in ring) + "Z" for ring in rings)
        colour = "#{:02x}{:02x}{:02x}".format(*colour_of(mask, colours))
        title = f"<title>{escape(_printable(mask.label))}</title>" if mask.label else ""
        lines.append(
            f"<path id={quoteattr(f'mask-{mask.id}')} fill={quoteattr(colour)} stroke={quoteattr(colour)} d={quoteattr(path)}>{title}</path>"
        )
    return "\n".join([*lines, "</g>", "</svg>", ""]).encode()


def _printable(text: str) -> str:
    """XML has no control characters."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
