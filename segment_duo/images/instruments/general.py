"""Pixel sizes in files that other programs wrote: ImageJ's description and OME-XML. A plain ``XResolution`` is never used."""

from __future__ import annotations

import re

from segment_duo.images.instruments.finding import Finding, Source, local_name, safe_xml, unescaped, unreadable
from segment_duo.lengths import length_nm, parse_number, to_nm
from segment_duo.types import Instrument, PixelSize


def read(source: Source) -> Finding | None:
    if source.description.startswith(("ImageJ=", "SCIFIO=")):
        return _read_imagej(source)
    if source.is_ome or "<OME" in source.description[:2000]:
        return _read_ome(source)
    return None


def _read_imagej(source: Source) -> Finding | None:
    """``unit=`` names the length, XResolution counts pixels in one of it. ``yunit=`` stands beside it where the axes differ."""
    units = dict(reversed(re.findall(r"^(unit|xunit|yunit)=(.*)$", source.description, re.MULTILINE)))
    unit = unescaped(units.get("xunit") or units.get("unit", ""))
    unit_y = unescaped(units["yunit"]) if units.get("yunit") else unit
    across, down = source.x_resolution, source.y_resolution or source.x_resolution
    if not unit or not across or not down or across <= 0 or down <= 0:
        return None
    x_nm, y_nm = to_nm(1.0, unit), to_nm(1.0, unit_y)
    if x_nm is None or y_nm is None:
        wrong = unit if x_nm is None else unit_y
        known = wrong.lower() in _NO_UNITS
        return None if known else Finding(warnings=(unreadable("ImageJ", "unit" if x_nm is None else "yunit", wrong),))
    shown = unit if unit_y == unit else f"{unit} x {unit_y}"
    return Finding(PixelSize(x_nm / across, y_nm / down, f"ImageJ, unit {shown}", "medium"))


_NO_UNITS = frozenset({"pixel", "pixels", "inch", "inches", "in", "null", "none", "reference frame"})
"""What ImageJ writes of a picture without a scale; inches are its name for a print resolution."""


def _read_ome(source: Source) -> Finding | None:
    """``PhysicalSizeX`` of the first ``Pixels`` element; its unit is the micrometre unless ``PhysicalSizeXUnit`` says otherwise."""
    root = safe_xml(source.description)
    if root is None:
        return None
    instrument = Instrument()
    size: PixelSize | None = None
    warnings: tuple[str, ...] = ()
    for element in root.iter():
        name = local_name(element)
        if name == "pixels" and size is None:
            size, warnings = _ome_size(dict(element.attrib))
        elif name == "microscope" and not instrument.maker:
            instrument = Instrument(element.get("Manufacturer", ""), element.get("Model", ""))
    return Finding(size, None, instrument, warnings) if size is not None or instrument.maker or warnings else None


def _ome_size(attributes: dict[str, str]) -> tuple[PixelSize | None, tuple[str, ...]]:
    lengths: list[float] = []
    for axis in "XY":
        text = attributes.get(f"PhysicalSize{axis}", "")
        unit = attributes.get(f"PhysicalSize{axis}Unit", "µm")
        nm = length_nm(f"{text} {unit}")
        if nm is not None:
            lengths.append(nm)
        elif text:  # an axis that cannot be read must not be taken for a copy of the other
            known = unit.lower() in _NO_UNITS or parse_number(text) == 0
            return None, () if known else (unreadable("OME-XML", f"PhysicalSize{axis}", f"{text} {unit}"),)
    return (PixelSize(lengths[0], lengths[-1], "OME-XML, PhysicalSizeX", "high") if lengths else None), ()
