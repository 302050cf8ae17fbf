"""Hitachi: sidecar ``<stem>.txt`` that begins with ``[SemImageFile]``; ASCII, UTF-16 or Windows-1252, keys in varying case.

``PixelSize`` is in nanometres. Older files lack it: their magnification refers to a picture 127 mm wide (a 5-inch photograph).
"""

from __future__ import annotations

from segment_duo.images.instruments.finding import (
    Finding,
    Source,
    counts,
    ini_sections,
    joined,
    kilovolts,
    magnification,
    millimetres,
    text_of,
    unreadable,
)  # fmt: skip
from segment_duo.lengths import length_nm
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
    full_width = counts(values.get("datasize"))[0]
    scale, note = 1.0, ""
    if full_width and full_width != source.width:
        scale, note = full_width / source.width, f", scaled by {full_width}/{source.width}"
    written = values.get("pixelsize", "")
    nm = length_nm(written, "nm")
    if nm is not None:
        size = PixelSize(nm * scale, nm * scale, f"Hitachi text file, PixelSize{note}", "medium" if note else "high")
        text = f"the file is {source.width} px wide, the scan was {full_width}: the pixel size was scaled to it"
        return size, (text,) if note else ()
    if written:  # the rule of the photograph is for files that lack the key
        return None, (unreadable("Hitachi text file", "PixelSize", written),)
    enlarged = magnification(values.get("magnification"))
    if enlarged is None:
        return None, ()
    nm = _PHOTOGRAPH_NM / enlarged / source.width
    return PixelSize(nm, nm, "Hitachi text file, 127 mm / Magnification / width", "low"), ()


def _instrument(values: dict[str, str]) -> Instrument:
    return Instrument(
        maker="Hitachi",
        model=values.get("instructname") or values.get("instrumentname", ""),
        accelerating_voltage_kv=kilovolts(values.get("acceleratingvoltage"), "V"),
        working_distance_mm=millimetres(values.get("workingdistance"), "um"),
        magnification=magnification(values.get("magnification")),
        detector=values.get("signalname", ""),
        beam="electron",
        acquired=joined(values.get("date", ""), values.get("time", "")),
    )
