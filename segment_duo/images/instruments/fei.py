"""FEI and Thermo Fisher: tag 34682 (Helios, Quanta), 34683 (Titan, Phenom), 34680 (S-FEG).

The content decides, not the tag: INI text, XML of the Phenom or Titan, or XML of named values (``MementoItemCollection``), each as it is or in
base64 (seen in 34680). 34682 may be present and empty beside 34683, so the XML is looked at first. Lengths without a unit are in metres.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.images.instruments.finding import (
    Finding,
    Source,
    ini_sections,
    joined,
    kilovolts,
    local_name,
    magnification,
    millimetres,
    number,
    positive,
    rescaled,
    safe_xml,
    text_of,
    unreadable,
    whole,
)  # fmt: skip
from segment_duo.lengths import length_nm, parse_number
from segment_duo.types import Instrument, PixelSize, Trust

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_BLANK = b"\0 \r\n"
_MAX_PACKED = 2**22
_DEEPEST = 100  # real files nest some 20 deep; Python gives up at 1000

HELIOS, XML, SFEG = 34682, 34683, 34680
_SFEG_UM_PER_MAGNIFICATION = (
    0.0024388925  # the factor other public readers of these files use; no maker's document is known
)

Ini = dict[str, dict[str, str]]


def read(source: Source) -> Finding | None:
    texts = {tag: _unwrapped(source.raw[tag]) for tag in (XML, HELIOS, SFEG) if source.raw.get(tag, b"").strip(_BLANK)}
    if XML not in texts and source.embedded_xml:
        texts[XML] = text_of(source.embedded_xml)
    found: list[Finding] = []
    for tag, text in texts.items():
        if text.lstrip("\ufeff \r\n\t").startswith("<"):
            finding = _read_xml(text, tag)
        else:
            ini = ini_sections(text)
            finding = _read_sfeg(ini) if {"vector", "databardata"} & ini.keys() else _read_ini(ini, tag, source)
        if finding is not None and finding.pixel_size is not None:
            return finding
        found += [finding] if finding is not None else []
    return found[0] if found else None


def _unwrapped(raw: bytes) -> str:
    """The tag's text; of base64 what it stands for. Text of makers holds ``[``, ``=`` or ``<`` early, so it is never taken for base64."""
    text = text_of(raw)
    packed = re.sub(r"\s+", "", text[:_MAX_PACKED])
    if len(packed) < 16 or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", packed):
        return text
    try:
        inner = text_of(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    except ValueError:
        return text
    return inner if inner.lstrip("\ufeff \r\n\t").startswith(("<", "[")) else text


# ---- 34682


def _read_ini(ini: Ini, tag: int, source: Source) -> Finding:
    beam = ini.get("beam", {}).get("beam", "") or ("EBeam" if "ebeam" in ini else "IBeam" if "ibeam" in ini else "")
    scan = ini.get("beam", {}).get("scan", "") or ("IScan" if beam.lower() == "ibeam" else "EScan")
    image = ini.get("image", {})
    full_width, full_height = whole(image.get("resolutionx")) or 0, whole(image.get("resolutiony")) or 0
    size, unread = _ini_pixel_size(ini, tag, beam.lower(), scan.lower(), full_width, full_height)
    banner = whole(ini.get("privatefei", {}).get("databarheight"))
    if banner is None and 0 < full_height <= source.height and full_width == source.width:
        banner = source.height - full_height
    warnings: tuple[str, ...] = ()
    if size is not None and full_width and full_width != source.width:
        size, banner, warnings = _other_width(size, banner, full_width, full_height, source)
    return Finding(size, banner, _ini_instrument(ini, beam), (*unread, *warnings))


def _ini_pixel_size(
    ini: Ini, tag: int, beam: str, scan: str, full_width: int, full_height: int
) -> tuple[PixelSize | None, tuple[str, ...]]:
    unread: list[str] = []
    for section in dict.fromkeys(("scan", scan, "escan", "iscan")):
        table = ini.get(section, {})
        across, down = table.get("pixelwidth", ""), table.get("pixelheight", "") or table.get("pixelwidth", "")
        x_nm, y_nm = length_nm(across, "m"), length_nm(down, "m")
        name = {"scan": "Scan", "escan": "EScan", "iscan": "IScan"}.get(section, section)
        if x_nm and y_nm:
            return PixelSize(x_nm, y_nm, f"FEI tag {tag}, [{name}] PixelWidth", "high"), tuple(unread)
        if across and number(across) != 0:  # a zero is how these files say that they do not know
            key, written = ("PixelHeight", down) if x_nm else ("PixelWidth", across)
            unread.append(unreadable(f"FEI tag {tag}", f"[{name}] {key}", written))
    for section in dict.fromkeys((beam, "ebeam", "ibeam")):
        table = ini.get(section, {})
        x_nm, y_nm = length_nm(table.get("hfw", ""), "m"), length_nm(table.get("vfw", ""), "m")
        if x_nm and full_width and full_height:
            nm = x_nm / full_width
            source = f"FEI tag {tag}, [{'IBeam' if section == 'ibeam' else 'EBeam'}] HFW / ResolutionX"
            return PixelSize(nm, y_nm / full_height if y_nm else nm, source, "medium"), tuple(unread)
    return None, tuple(unread)


def _other_width(
    size: PixelSize, banner: int | None, full_width: int, full_height: int, source: Source
) -> tuple[PixelSize, int | None, tuple[str, ...]]:
    """The file is not as wide as the recorded scan: a scaled copy (with or without its banner) or a crop."""
    factor = rescaled(full_width, full_height + (banner or 0), source.width, source.height)
    factor = factor or rescaled(full_width, full_height, source.width, source.height)
    trust: Trust = "low"
    if factor is not None:
        text = f"the file is {source.width} px wide, the scan was {full_width}: a scaled copy, so the pixel size was scaled too"
        origin = f"{size.source}, scaled by {full_width}/{source.width}"
        return PixelSize(size.x_nm * factor, size.y_nm * factor, origin, "medium"), None, (text,)
    text = f"the file is {source.width} px wide, the scan was {full_width}: taken for a crop; check the pixel size"
    return PixelSize(size.x_nm, size.y_nm, size.source, trust), banner, (text,)


def _ini_instrument(ini: Ini, beam: str) -> Instrument:
    table = ini.get(beam.lower(), {})
    field = length_nm(table.get("hfw", ""), "m")
    canvas = length_nm(ini.get("image", {}).get("magcanvasrealwidth", ""), "m")
    detectors = ini.get("detectors", {})
    name, mode = detectors.get("name", ""), detectors.get("mode", "")
    user = ini.get("user", {})
    when = ini.get("privatefei", {}).get("timeofcreation") or joined(user.get("date", ""), user.get("time", ""))
    return Instrument(
        maker="FEI",
        model=ini.get("system", {}).get("systemtype", ""),
        accelerating_voltage_kv=kilovolts(table.get("hv"), "V") or kilovolts(ini.get("beam", {}).get("hv"), "V"),
        working_distance_mm=millimetres(table.get("wd"), "m")
        or millimetres(ini.get("stage", {}).get("workingdistance"), "m"),
        magnification=canvas / field if canvas and field else None,
        detector=f"{name} ({mode})" if name and mode else name or mode,
        beam={"ebeam": "electron", "ibeam": "ion"}.get(beam.lower(), beam),
        acquired=when,
    )


# ---- 34683


@dataclass(frozen=True, slots=True)
class _Value:
    """``text`` of an element with its unit; an empty unit where it names none."""

    text: str = ""
    unit: str = ""

    def length_nm(self) -> float | None:
        return length_nm(f"{self.text} {self.unit}", "m")


def _read_xml(text: str, tag: int) -> Finding | None:
    root = safe_xml(text)
    if root is None:
        return None
    values = _memento_values(root) if local_name(root) == "mementoitemcollection" else _element_values(root)
    found = next((pair for pair in _XML_SCALES if values.get(pair[0])), None)
    size = None
    warnings: tuple[str, ...] = ()
    if found is not None:
        key, key_y, shown, trust = found
        across, down = values[key], values.get(key_y) or values[key]
        x_nm, y_nm = across.length_nm(), down.length_nm()
        if x_nm and y_nm:
            size = PixelSize(x_nm, y_nm, f"FEI tag {tag}, {shown}", trust)
        else:
            bad = down if x_nm else across
            warnings = (unreadable(f"FEI tag {tag}", shown, f"{bad.text} {bad.unit}".strip()),)
    return Finding(size, whole(_text(values, "databarheight")), _xml_instrument(values), warnings)


_XML_SCALES: tuple[tuple[str, str, str, Trust], ...] = (
    ("pixelwidth", "pixelheight", "pixelWidth", "high"),
    ("image/pixelsize/width", "image/pixelsize/height", "Image PixelSize", "high"),
    ("pixelsize/width", "pixelsize/height", "PixelSize", "high"),
    ("pixelsize/x", "pixelsize/y", "PixelSize", "medium"),
)
"""Where a pixel's width and height stand, what to call it, and how far to trust it."""


def _element_values(root: Element) -> dict[str, _Value]:
    """Elements by name and by parent/name; the first of equal ones counts."""
    values: dict[str, _Value] = {}
    for element in root.iter():
        for child in element:
            name = local_name(child)
            value = _Value((child.text or "").strip(), child.get("unit", "").strip())
            for key in (name, f"{local_name(element)}/{name}"):
                values.setdefault(key, value)
    return values


def _memento_values(root: Element) -> dict[str, _Value]:
    """``item``s of a key and a ``MementoItem``, which is a value with its unit (``MementoItemUnitMeter``) or a section of further items.

    Each value is found under the last one, two and three names of its path.
    """
    values: dict[str, _Value] = {}

    def walk(element: Element, path: tuple[str, ...], depth: int = 0) -> None:
        for child in element if depth < _DEEPEST else ():
            if local_name(child) != "mementoitem":
                walk(child, path, depth + 1)
                continue
            parts = {local_name(part): part for part in child}
            inner = (*path, _content(parts.get("name")).lower())
            if "mementoitemsection" in parts:
                walk(parts["mementoitemsection"], inner, depth + 1)
            unit = _content(parts.get("mementoitemunit")).removeprefix("MementoItemUnit")
            plain = unit.lower() in {"", "scalar", "section", "string"}
            value = _Value(_content(parts.get("anytype")), "" if plain else unit)
            for names in (1, 2, 3):
                values.setdefault("/".join(inner[-names:]), value)

    walk(root, ())
    return values


def _content(element: Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _text(values: dict[str, _Value], *keys: str) -> str:
    return next((values[key].text for key in keys if key in values and values[key].text), "")


def _xml_instrument(values: dict[str, _Value]) -> Instrument:
    volts = values.get("accelerationvoltage") or values.get("acceleratingvoltage") or values.get("hv") or _Value()
    bare = parse_number(volts.text)
    distance = values.get("workingdistance") or _Value()
    distance_nm = distance.length_nm()
    return Instrument(
        maker="FEI",
        model=_text(values, "instrument/type", "system/systemtype", "type", "microscope"),
        # Phenoms write kilovolts, Titans volts, both without a unit; nobody images below 100 V.
        accelerating_voltage_kv=kilovolts(f"{volts.text} {volts.unit}", "kV" if bare and bare < 100 else "V"),
        working_distance_mm=distance_nm / 1e6 if distance_nm else None,
        magnification=magnification(_text(values, "magnification")),
        detector=_text(values, "detector"),
        beam="electron",
        acquired=_text(values, "time", "acquisition/date"),
    )


# ---- 34680


def _read_sfeg(ini: Ini) -> Finding:
    vector = positive(ini.get("vector", {}).get("magnification"))
    data = ini.get("databardata", {})
    size = None
    warnings: tuple[str, ...] = ()
    if vector is not None:
        nm = vector * _SFEG_UM_PER_MAGNIFICATION * 1e3
        size = PixelSize(nm, nm, f"FEI tag {SFEG}, [Vector] Magnification", "low")
        warnings = (
            "the pixel size of old S-FEG files is derived from one number of unclear unit; check it against the scale bar",
        )
    tension = data.get("flhv") or ini.get("vector", {}).get("hightension")
    bare = number(tension)
    instrument = Instrument(
        maker="FEI",
        model="S-FEG",
        accelerating_voltage_kv=kilovolts(tension, "kV" if bare and bare <= 100 else "V"),
        working_distance_mm=millimetres(data.get("flwd"), "mm"),
        magnification=magnification(data.get("flmagn")),
        detector=data.get("szdetname", ""),
        beam="electron",
    )
    return Finding(size, None, instrument, warnings)
