"""Zeiss SmartSEM: TIFF tag 34118, text. An unnamed block of numbers, then pairs of lines ``CODE`` and ``label = value unit``.

Item 3 of the block is the pixel size in metres of an image 1024 pixels wide, whatever the width of the stored one: in a file of 512
pixels the field width (``AP_WIDTH``) and the burned-in scale bar both give twice that number. Dates and times use ``:`` instead of ``=``, and
``µ`` may have become ``?``.
"""

from __future__ import annotations

import re
from itertools import pairwise

from segment_duo.images.instruments.finding import (
    Finding,
    Source,
    joined,
    kilovolts,
    magnification,
    millimetres,
    number,
    text_of,
    unreadable,
)  # fmt: skip
from segment_duo.lengths import describe_nm, length_nm
from segment_duo.types import Instrument, PixelSize, Trust

TAG = 34118
_REFERENCE_WIDTH = 1024
_AGREE = 0.03


def read(source: Source) -> Finding | None:
    if not source.raw.get(TAG, b"").strip(b"\0 \r\n"):
        return None
    lines = [line.strip() for line in text_of(source.raw[TAG]).splitlines()]
    entries = _entries(lines)
    size, warnings = _pixel_size(lines, entries, source.width)
    return Finding(size, None, _instrument(entries), warnings)


def _entries(lines: list[str]) -> dict[str, str]:
    """``AP_WD`` -> ``3.9 mm``: the text after the label's separator on the line below each code."""
    entries: dict[str, str] = {}
    for code, line in pairwise(lines):
        if re.fullmatch(r"(?:AP|DP|SV)_\w+", code):
            match = re.match(r"[^=:]*[=:](.*)", line)
            entries.setdefault(code, match[1].strip() if match else "")
    return entries


def _block(lines: list[str]) -> list[float | None]:
    """The numbers before the first code."""
    block: list[float | None] = []
    for line in lines:
        if re.match(r"(?:AP|DP|SV)_", line):
            break
        block.append(number(line))
    return block


def _pixel_size(lines: list[str], entries: dict[str, str], width: int) -> tuple[PixelSize | None, tuple[str, ...]]:
    field = length_nm(entries.get("AP_WIDTH", ""))
    by_field = field / width if field else None
    block = _block(lines)
    metres = block[3] if len(block) > 3 else None
    if metres is not None and 0 < metres < 1:
        recorded = metres * 1e9
        nm = recorded * _REFERENCE_WIDTH / width
        origin = f"Zeiss tag {TAG}, {recorded:.5g} nm at {_REFERENCE_WIDTH} px"
        if width != _REFERENCE_WIDTH:
            origin += f", rescaled to {width} px"
        trust: Trust = "high"
        warnings: tuple[str, ...] = ()
        if by_field is not None and abs(by_field / nm - 1) > _AGREE:
            trust = "low"
            text = f"the Zeiss tag contradicts itself: {describe_nm(nm)} a pixel by its block, {describe_nm(by_field)} by the field width"
            warnings = (text,)
        elif by_field is None:
            trust = "high" if width == _REFERENCE_WIDTH else "medium"
        return PixelSize(nm, nm, origin, trust), warnings
    if by_field is not None:
        return PixelSize(by_field, by_field, f"Zeiss tag {TAG}, AP_WIDTH / {width} px", "medium"), ()
    for code in ("AP_IMAGE_PIXEL_SIZE", "AP_PIXEL_SIZE"):
        nm_or_none = length_nm(entries.get(code, ""))
        if nm_or_none:
            return PixelSize(nm_or_none, nm_or_none, f"Zeiss tag {TAG}, {code}", "medium"), ()
    left = next((code for code in ("AP_WIDTH", "AP_IMAGE_PIXEL_SIZE", "AP_PIXEL_SIZE") if entries.get(code)), None)
    return None, (unreadable(f"Zeiss tag {TAG}", left, entries[left]),) if left else ()


def _instrument(entries: dict[str, str]) -> Instrument:
    voltage = entries.get("AP_ACTUALKV") or entries.get("AP_MANUALKV") or ""
    model = entries.get("DP_SEM") or entries.get("SV_SERIAL_NUMBER", "")
    return Instrument(
        maker="Zeiss",
        model=model,
        accelerating_voltage_kv=kilovolts(voltage, "kV"),
        working_distance_mm=millimetres(entries.get("AP_WD") or entries.get("AP_ALIAS_WD"), "mm"),
        magnification=magnification(entries.get("AP_MAG")),
        detector=entries.get("DP_DETECTOR_CHANNEL") or entries.get("DP_DETECTOR_TYPE", ""),
        beam="ion" if entries.get("DP_IMAGING_BEAM", "").upper().startswith("FIB") else "electron",
        acquired=joined(entries.get("AP_DATE", ""), entries.get("AP_TIME", "")),
    )
