"""JEOL: sidecar ``<stem>.txt`` of lines ``$CM_KEY value`` and ``$$SM_KEY value``; both prefixes and the case of keys vary.

The scale comes from the burned-in micron bar, whose length is given in whole pixels, so it is 0.5 to 1 % uncertain.
"""

from __future__ import annotations

import re

from segment_duo.images.instruments.finding import Finding, Source, joined, number, positive, rescaled, text_of
from segment_duo.lengths import parse_length_nm
from segment_duo.types import Instrument, PixelSize


def read(source: Source) -> Finding | None:
    values = next(
        (found for name, raw in source.sidecars.items() if name.endswith(".txt") and (found := _values(raw))), None
    )
    if values is None:
        return None
    full = [number(part) for part in re.split(r"[\s,x*]+", values.get("FULL_SIZE", ""))[:2]]
    full_width, full_height = (full[0] or 0.0, full[1] or 0.0) if len(full) == 2 else (0.0, 0.0)
    marker, bar = parse_length_nm(values.get("MICRON_MARKER", "")), positive(values.get("MICRON_BAR"))
    size = None
    warnings: tuple[str, ...] = ()
    banner: int | None = None
    if full_width == source.width and 0 < full_height <= source.height:
        banner = round(source.height - full_height)
    if marker and bar:
        nm, origin = marker / bar, f"JEOL text file, micron bar {values['MICRON_MARKER']} = {bar:g} px"
        if full_width and full_width != source.width:
            nm, origin = nm * full_width / source.width, f"{origin}, scaled by {full_width:g}/{source.width}"
            if rescaled(full_width, full_height, source.width, source.height) is None:
                text = f"the file is {source.width} px wide, the scan was {full_width:g}: taken for a scaled copy; check the pixel size"
                warnings = (text,)
        size = PixelSize(nm, nm, origin, "low" if warnings else "medium")
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
        accelerating_voltage_kv=positive(values.get("ACCEL_VOLT")),
        working_distance_mm=positive(values.get("WD")),
        magnification=positive(values.get("MAG")),
        detector=values.get("DETECTOR_NAME") or values.get("SIGNAL_NAME") or values.get("SIGNAL", ""),
        beam="electron",
        acquired=joined(values.get("DATE", ""), values.get("TIME", "")),
    )
