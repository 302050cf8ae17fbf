"""Pixel sizes in files that other programs wrote: ImageJ's description and OME-XML. A plain ``XResolution`` is never used."""

from __future__ import annotations

import re

from segment_duo.images.instruments.finding import Finding, Source, local_name, safe_xml
from segment_duo.lengths import to_nm
from segment_duo.types import Instrument, PixelSize


def read(source: Source) -> Finding | None:
    if source.description.startswith("ImageJ="):
        return _read_imagej(source)
    if source.is_ome or "<OME" in source.description[:2000]:
        return _read_ome(source)
    return None


def _read_imagej(source: Source) -> Finding | None:
    """``unit=`` names the length, XResolution counts pixels in one of it."""
    match = re.search(r"^unit=(.*)$", source.description, re.MULTILINE)
    if match is None or not source.x_resolution or source.x_resolution <= 0:
        return None
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), match[1].strip())
    factor = to_nm(1.0, unit)
    if factor is None:
        return None
    down = source.y_resolution if source.y_resolution and source.y_resolution > 0 else source.x_resolution
    return Finding(PixelSize(factor / source.x_resolution, factor / down, f"ImageJ, unit {unit}", "medium"))


def _read_ome(source: Source) -> Finding | None:
    """``PhysicalSizeX`` of the first ``Pixels`` element; its unit is the micrometre unless ``PhysicalSizeXUnit`` says otherwise."""
    root = safe_xml(source.description)
    if root is None:
        return None
    instrument = Instrument()
    size = None
    for element in root.iter():
        name = local_name(element)
        if name == "pixels" and size is None:
            size = _ome_size(dict(element.attrib))
        elif name == "microscope" and not instrument.maker:
            instrument = Instrument(element.get("Manufacturer", ""), element.get("Model", ""))
    return Finding(size, None, instrument) if size is not None or instrument.maker else None


def _ome_size(attributes: dict[str, str]) -> PixelSize | None:
    lengths = []
    for axis in "XY":
        try:
            value = float(attributes.get(f"PhysicalSize{axis}", ""))
        except ValueError:
            continue
        nm = to_nm(value, attributes.get(f"PhysicalSize{axis}Unit", "µm"))
        if nm is not None and 0 < nm < float("inf"):
            lengths.append(nm)
    return PixelSize(lengths[0], lengths[-1], "OME-XML, PhysicalSizeX", "high") if lengths else None
