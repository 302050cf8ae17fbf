"""How the pages of a TIFF stack are arranged: time, depth and channels as ImageJ and OME-TIFF write them, and what lies between two frames.

    ImageJ description, OME-XML -> FrameAxes, and (T, Z, C) -> the page that ``--page`` names

What cannot be read, or does not fit the number of pages, leaves a plain stack of pages. This module must not decode pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from segment_duo.images.instruments.finding import local_name, positive, safe_xml, unescaped
from segment_duo.lengths import length_nm, parse_quantity
from segment_duo.types import FrameAxes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

TIME_UNITS = {
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hr": 3600.0,
    "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
"""Seconds of one unit of time, by the spellings of ImageJ, OME and people."""


def parse_seconds(text: str, unit: str = "") -> float | None:
    """A positive time (``0.2s``, ``200 ms``, ``0,5 min``) in seconds; ``unit`` is that of a bare number. None if it is none."""
    found = parse_quantity(text)
    factor = TIME_UNITS.get((found[1] or unit).lower()) if found else None
    return found[0] * factor if found and factor and found[0] > 0 else None


def read_axes(tif: Any, pages: int) -> FrameAxes:
    """The arrangement of a ``tifffile.TiffFile`` of ``pages`` planes; its frames run along T, else Z, else C, else the pages as they are."""
    description = tif.pages.first.description or ""
    found = None
    if tif.is_imagej:
        found = _imagej_axes(description)
    elif tif.is_ome:
        found = _ome_axes(description)
    if found is not None:
        planes = 1
        for _, size in found.sizes:
            planes *= size
        if planes == pages and planes > 1:
            return found
    return FrameAxes("page", (("page", pages),))


def page_of(axes: FrameAxes, place: Mapping[str, int]) -> int:
    """The page at ``place`` (axis -> index; an axis left out is at 0), for stacks whose pages are in the order of ``axes.sizes``."""
    page = 0
    for axis, size in axes.sizes:
        page = page * size + place.get(axis, 0)
    return page


def _main_axis(sizes: Mapping[str, int]) -> str:
    return next((axis for axis in ("T", "Z", "C") if sizes.get(axis, 1) > 1), "T")


def _imagej_axes(description: str) -> FrameAxes:
    """ImageJ stores channels fastest, then slices, then frames, unless ``order=`` says otherwise."""
    values = dict(re.findall(r"^(\w+)=(.*?)\s*$", description, re.MULTILINE))
    lengths = {
        "T": _count(values.get("frames")),
        "Z": _count(values.get("slices")),
        "C": _count(values.get("channels")),
    }
    images = _count(values.get("images"))
    order = values.get("order", "czt").upper()
    order = order if sorted(order) == ["C", "T", "Z"] else "CZT"
    sizes = tuple((axis, lengths[axis]) for axis in reversed(order) if lengths[axis] > 1)
    seconds = parse_seconds(values.get("finterval", ""), unescaped(values.get("tunit", "")) or "s")
    if seconds is None:
        rate = positive(values.get("fps"))
        seconds = 1 / rate if rate else None
    unit = unescaped(values.get("zunit") or values.get("unit", ""))
    spacing = length_nm(f"{values.get('spacing', '')} {unit}")
    if not sizes and images > 1:
        return FrameAxes("page", (("page", images),), seconds, spacing)
    return FrameAxes(_main_axis(lengths), sizes, seconds, spacing)


def _count(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0 else 1


def _ome_axes(description: str) -> FrameAxes | None:
    root = safe_xml(description)
    pixels = (
        next((element for element in root.iter() if local_name(element) == "pixels"), None)
        if root is not None
        else None
    )
    if pixels is None:
        return None
    lengths = {axis: _count(pixels.get(f"Size{axis}")) for axis in "TZC"}
    samples = max(
        (_count(channel.get("SamplesPerPixel")) for channel in pixels if local_name(channel) == "channel"), default=1
    )
    lengths["C"] = max(1, lengths["C"] // samples)
    order = pixels.get("DimensionOrder", "XYZCT")[2:]
    order = order if sorted(order) == ["C", "T", "Z"] else "ZCT"
    sizes = tuple((axis, lengths[axis]) for axis in reversed(order) if lengths[axis] > 1)
    seconds = parse_seconds(pixels.get("TimeIncrement", ""), pixels.get("TimeIncrementUnit", "s"))
    spacing = length_nm(pixels.get("PhysicalSizeZ", ""), pixels.get("PhysicalSizeZUnit", "µm"))
    return FrameAxes(_main_axis(lengths), sizes, seconds or _delta(pixels), spacing)


def _delta(pixels: Element) -> float | None:
    """The median step between the planes' own times, for microscopes that note only those."""
    times: dict[int, float] = {}
    for plane in pixels:
        if local_name(plane) != "plane" or plane.get("TheZ", "0") != "0" or plane.get("TheC", "0") != "0":
            continue
        found = parse_quantity(plane.get("DeltaT", ""))
        factor = TIME_UNITS.get(plane.get("DeltaTUnit", "s").lower())
        number = plane.get("TheT", "")
        if found and not found[1] and factor and number.isascii() and number.isdigit():
            times[int(number)] = found[0] * factor
    steps = [times[number + 1] - times[number] for number in times if number + 1 in times]
    step = median(steps) if steps else 0.0
    return step if step > 0 else None


def page_order(tif: Any, axes: FrameAxes) -> Sequence[int]:
    """The page of each plane, planes counted in the order of ``axes.sizes``. OME-XML may list pages in any order; others write them in that one."""
    pages = 1
    for _, size in axes.sizes:
        pages *= size
    plain = range(pages)
    if not tif.is_ome or axes.sizes[0][0] == "page":
        return plain
    root = safe_xml(tif.pages.first.description or "")
    blocks = [element for element in root.iter() if local_name(element) == "tiffdata"] if root is not None else []
    found: dict[int, int] = {}
    for block in blocks:
        place = {axis: _index(block.get(f"First{axis}")) for axis in "TZC"}
        first, page = page_of(axes, place), _index(block.get("IFD"))
        rest = pages - first if block.get("IFD") is None else 1
        for step in range(min(_index(block.get("PlaneCount"), rest), pages - first)):
            found.setdefault(first + step, page + step)
    complete = len(found) == pages and sorted(found.values()) == list(plain)
    order = [found[plane] for plane in plain] if complete else plain
    return plain if list(order) == list(plain) else order


def _index(text: str | None, otherwise: int = 0) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else otherwise
