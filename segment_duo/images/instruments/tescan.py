"""Tescan: private TIFF tag 50431, or a sidecar ``<stem>-tif.hdr``, ``<stem>-png.hdr``, ``<stem>.hdr``. Lengths in metres.

The tag is a chain of blocks (u32 size, u16 type, then ``size`` bytes; little endian): 1 thumbnail, 2 MAIN, 3 SEM, 4 GAMA, 5 FIB, 0 the end.
A text block holds ``Key=value`` lines without a section header. Sidecars are INI files with the sections ``[MAIN]`` and ``[SEM]``.
"""

from __future__ import annotations

import struct

from segment_duo.images.instruments.finding import (
    Finding,
    Source,
    ini_sections,
    joined,
    kilovolts,
    magnification,
    millimetres,
    text_of,
    unreadable,
    whole,
)  # fmt: skip
from segment_duo.lengths import length_nm
from segment_duo.types import Instrument, PixelSize

TAG = 50431
_SECTIONS = {2: "main", 3: "sem", 4: "gama", 5: "fib"}


def read(source: Source) -> Finding | None:
    raw = source.raw.get(TAG, b"")
    values = _tag_values(raw) if raw else {}
    origin = f"Tescan tag {TAG}, PixelSizeX"
    if "pixelsizex" not in values:
        for name, content in source.sidecars.items():
            if not name.endswith(".hdr"):
                continue
            found = _flat(ini_sections(text_of(content)))
            if "pixelsizex" in found or "imagestripsize" in found:
                values, origin = found | values, "Tescan header file, PixelSizeX"
                break
    if not values:
        return None
    across, down = values.get("pixelsizex", ""), values.get("pixelsizey", "") or values.get("pixelsizex", "")
    x_nm, y_nm = length_nm(across, "m"), length_nm(down, "m")
    size: PixelSize | None = None
    warnings: tuple[str, ...] = ()
    if x_nm and y_nm:
        size = PixelSize(x_nm, y_nm, origin, "high")
    elif across:
        warnings = (unreadable("Tescan", "PixelSizeY" if x_nm else "PixelSizeX", down if x_nm else across),)
    return Finding(size, whole(values.get("imagestripsize")), _instrument(values), warnings)


def _tag_values(raw: bytes) -> dict[str, str]:
    """Keys of all text blocks; files whose blocks are not as described are searched for their text instead."""
    sections: dict[str, dict[str, str]] = {}
    position = 0
    while position + 6 <= len(raw):
        size, kind = struct.unpack_from("<IH", raw, position)
        position += 6
        if kind == 0 or position + size > len(raw):
            break
        if kind in _SECTIONS:
            sections[_SECTIONS[kind]] = _flat(ini_sections(text_of(raw[position : position + size])))
        position += size
    if not any("pixelsizex" in section for section in sections.values()):
        start = raw.find(b"AccFrames")
        sections["main"] = _flat(ini_sections(text_of(raw[start:]))) if start >= 0 else {}
    return _flat(sections)


def _flat(sections: dict[str, dict[str, str]]) -> dict[str, str]:
    """All keys in one table; MAIN counts before SEM, and both before the rest."""
    flat: dict[str, str] = {}
    for name in sorted(
        sections, key=lambda section: ("", "main", "sem").index(section) if section in {"", "main", "sem"} else 3
    ):
        for key, value in sections[name].items():
            flat.setdefault(key, value)
    return flat


def _instrument(values: dict[str, str]) -> Instrument:
    return Instrument(
        maker="Tescan",
        model=values.get("device", ""),
        accelerating_voltage_kv=kilovolts(values.get("hv"), "V") or kilovolts(values.get("acceleratorvoltage"), "V"),
        working_distance_mm=millimetres(values.get("wd"), "m"),
        magnification=magnification(values.get("magnification")),
        detector=values.get("detector") or values.get("detector0", ""),
        beam="ion" if values.get("gun", "").lower() == "ion" else "electron",
        acquired=joined(values.get("date", ""), values.get("time", "")),
    )
