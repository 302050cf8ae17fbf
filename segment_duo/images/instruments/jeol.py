"""JEOL: sidecar ``<stem>.txt`` of lines ``$CM_KEY value`` and ``$$SM_KEY value``; both prefixes and the case of keys vary.

The scale comes from the burned-in micron bar, whose length is given in whole pixels, so it is 0.5 to 1 % uncertain.
"""

from __future__ import annotations

import re

from segment_duo.images.instruments.finding import (
    Finding,
    Source,
    counts,
    joined,
    kilovolts,
    magnification,
    millimetres,
    positive,
    rescaled,
    text_of,
    unreadable,
)  # fmt: skip
from segment_duo.lengths import length_nm
from segment_duo.types import Instrument, PixelSize


def read(source: Source) -> Finding | None:
    values = next(
        (found for name, raw in source.sidecars.items() if name.endswith(".txt") and (found := _values(raw))), None
    )
    if values is None:
        return None
    full_width, full_height = counts(values.get("FULL_SIZE"))
    marker, bar = length_nm(values.get("MICRON_MARKER", "")), positive(values.get("MICRON_BAR"))
    size = None
    warnings: tuple[str, ...] = ()
    banner: int | None = None
    if full_width == source.width and 0 < full_height <= source.height:
        banner = source.height - full_height
    if marker and bar:
        nm, origin = marker / bar, f"JEOL text file, micron bar {values['MICRON_MARKER']} = {bar:g} px"
        if full_width and full_width != source.width:
            nm, origin = nm * full_width / source.width, f"{origin}, scaled by {full_width}/{source.width}"
            if rescaled(full_width, full_height, source.width, source.height) is None:
                text = f"the file is {source.width} px wide, the scan was {full_width}: taken for a scaled copy; check the pixel size"
                warnings = (text,)
        size = PixelSize(nm, nm, origin, "low" if warnings else "medium")
    elif values.get("MICRON_MARKER") and values.get("MICRON_BAR"):
        key, written = ("MICRON_BAR", values["MICRON_BAR"]) if marker else ("MICRON_MARKER", values["MICRON_MARKER"])
        warnings = (unreadable("JEOL text file", key, written),)
    return Finding(size, banner, _instrument(values), warnings)


def _values(raw: bytes) -> dict[str, str]:
    """Keys without prefix, in upper case: ``$$SM_MICRON_BAR 91`` gives ``MICRON_BAR``. Empty if the file is not JEOL's."""
    values: dict[str, str] = {}
    for line in text_of(raw).splitlines():
        match = re.fullmatch(r"\s*\$+(?:CM|SM)_(\w+)(?:[\s=]+(.*))?", line.rstrip(), re.IGNORECASE)
        if match:
            values.setdefault(match[1].upper(), (match[2] or "").strip())
    return values


def _instrument(values: dict[str, str]) -> Instrument:
    return Instrument(
        maker="JEOL",
        model=values.get("INSTRUMENT", ""),
        accelerating_voltage_kv=kilovolts(values.get("ACCEL_VOLT"), "kV"),
        working_distance_mm=millimetres(values.get("WD"), "mm"),
        magnification=magnification(values.get("MAG")),
        detector=values.get("DETECTOR_NAME") or values.get("SIGNAL_NAME") or values.get("SIGNAL", ""),
        beam="electron",
        acquired=joined(values.get("DATE", ""), values.get("TIME", "")),
    )
