"""Hitachi: sidecar ``<stem>.txt`` that begins with ``[SemImageFile]``; ASCII, UTF-16 or Windows-1252, keys in varying case.

``PixelSize`` is in nanometres. Older files lack it: their magnification refers to a picture 127 mm wide (a 5-inch photograph).
"""

from __future__ import annotations

import re

from segment_duo.images.instruments.finding import Finding, Source, ini_sections, joined, number, positive, text_of
from segment_duo.lengths import to_nm
from segment_duo.types import Instrument, PixelSize

_PHOTOGRAPH_NM = 127e6


def read(source: Source) -> Finding | None:
    for name, raw in source.sidecars.items():
        if not name.endswith(".txt"):
            continue
        values = ini_sections(text_of(raw)).get("semimagefile")
        if values:
            size, warnings = _pixel_size(values, source)
            return Finding(size, None, _instrument(values), warnings)
    return None


def _pixel_size(values: dict[str, str], source: Source) -> tuple[PixelSize | None, tuple[str, ...]]:
    data = [number(part) for part in re.split(r"\s*[xX*]\s*", values.get("datasize", ""))[:2]]
    full_width = (data[0] or 0.0) if data else 0.0
    scale, note = 1.0, ""
    if full_width and full_width != source.width:
        scale, note = full_width / source.width, f", scaled by {full_width:g}/{source.width}"
    nm = positive(values.get("pixelsize"))
    if nm is not None:
        size = PixelSize(nm * scale, nm * scale, f"Hitachi text file, PixelSize{note}", "medium" if note else "high")
        text = f"the file is {source.width} px wide, the scan was {full_width:g}: the pixel size was scaled to it"
        return size, (text,) if note else ()
    magnification = positive(values.get("magnification"))
    if magnification is None:
        return None, ()
    nm = _PHOTOGRAPH_NM / magnification / source.width
    return PixelSize(nm, nm, "Hitachi text file, 127 mm / Magnification / width", "low"), ()


def _instrument(values: dict[str, str]) -> Instrument:
    return Instrument(
        maker="Hitachi",
        model=values.get("instructname") or values.get("instrumentname", ""),
        accelerating_voltage_kv=_kilovolts(values.get("acceleratingvoltage", "")),
        working_distance_mm=_millimetres(values.get("workingdistance", "")),
        magnification=positive(values.get("magnification")),
        detector=values.get("signalname", ""),
        beam="electron",
        acquired=joined(values.get("date", ""), values.get("time", "")),
    )


def _kilovolts(text: str) -> float | None:
    """``15000 Volt``, ``15.0 kV``; a bare number is volts."""
    value = positive(text)
    if value is None:
        return None
    return value if "kv" in text.lower() or "kilo" in text.lower() else value / 1e3


def _millimetres(text: str) -> float | None:
    """``8100 um``, ``8.1 mm``; a bare number is micrometres."""
    value = positive(text)
    unit = re.sub(r"[\s\d.+-]", "", text) or "um"
    nm = to_nm(value, unit) if value is not None else None
    return None if nm is None else nm / 1e6
