"""FEI and Thermo Fisher: tag 34682 (Helios, Quanta; INI), 34683 (Titan, Phenom; XML), 34680 (old S-FEG; INI).

34682 may be present and empty beside 34683, so the XML is looked at first. Lengths are in metres in the INI text; in Phenom's XML they carry
a unit.
"""

from __future__ import annotations

from segment_duo.images.instruments.finding import (
    Finding,
    Source,
    ini_sections,
    joined,
    local_name,
    number,
    positive,
    rescaled,
    safe_xml,
    text_of,
    whole,
)  # fmt: skip
from segment_duo.lengths import to_nm
from segment_duo.types import Instrument, PixelSize, Trust

HELIOS, XML, SFEG = 34682, 34683, 34680
_SFEG_UM_PER_MAGNIFICATION = (
    0.0024388925  # the factor other public readers of these files use; no maker's document is known
)

Ini = dict[str, dict[str, str]]


def read(source: Source) -> Finding | None:
    xml = source.raw.get(XML, b"") or source.embedded_xml
    finding = _read_xml(text_of(xml), XML) if xml.strip(b"\0 \r\n") else None
    if finding is None and source.raw.get(HELIOS, b"").strip(b"\0 \r\n"):
        finding = _read_helios(ini_sections(text_of(source.raw[HELIOS])), source)
    if finding is None and source.raw.get(SFEG, b"").strip(b"\0 \r\n"):
        finding = _read_sfeg(text_of(source.raw[SFEG]))
    return finding


# ---- 34682


def _read_helios(ini: Ini, source: Source) -> Finding:
    beam = ini.get("beam", {}).get("beam", "") or ("EBeam" if "ebeam" in ini else "IBeam" if "ibeam" in ini else "")
    scan = ini.get("beam", {}).get("scan", "") or ("IScan" if beam.lower() == "ibeam" else "EScan")
    image = ini.get("image", {})
    full_width, full_height = whole(image.get("resolutionx")) or 0, whole(image.get("resolutiony")) or 0
    size = _helios_pixel_size(ini, beam.lower(), scan.lower(), full_width, full_height)
    banner = whole(ini.get("privatefei", {}).get("databarheight"))
    if banner is None and 0 < full_height <= source.height and full_width == source.width:
        banner = source.height - full_height
    warnings: tuple[str, ...] = ()
    if size is not None and full_width and full_width != source.width:
        size, banner, warnings = _other_width(size, banner, full_width, full_height, source)
    return Finding(size, banner, _helios_instrument(ini, beam), warnings)


def _helios_pixel_size(ini: Ini, beam: str, scan: str, full_width: int, full_height: int) -> PixelSize | None:
    for section in dict.fromkeys(("scan", scan, "escan", "iscan")):
        table = ini.get(section, {})
        width = positive(table.get("pixelwidth"))
        if width is not None:
            height = positive(table.get("pixelheight")) or width
            name = {"scan": "Scan", "escan": "EScan", "iscan": "IScan"}.get(section, section)
            return PixelSize(width * 1e9, height * 1e9, f"FEI tag {HELIOS}, [{name}] PixelWidth", "high")
    for section in dict.fromkeys((beam, "ebeam", "ibeam")):
        table = ini.get(section, {})
        across = positive(table.get("hfw"))
        if across is not None and full_width and full_height:
            nm = across * 1e9 / full_width
            down = positive(table.get("vfw"))
            source = f"FEI tag {HELIOS}, [{'IBeam' if section == 'ibeam' else 'EBeam'}] HFW / ResolutionX"
            return PixelSize(nm, down * 1e9 / full_height if down else nm, source, "medium")
    return None


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


def _helios_instrument(ini: Ini, beam: str) -> Instrument:
    table = ini.get(beam.lower(), {})
    volts = positive(table.get("hv")) or positive(ini.get("beam", {}).get("hv"))
    distance = number(table.get("wd")) or number(ini.get("stage", {}).get("workingdistance"))
    field, canvas = positive(table.get("hfw")), positive(ini.get("image", {}).get("magcanvasrealwidth"))
    detectors = ini.get("detectors", {})
    name, mode = detectors.get("name", ""), detectors.get("mode", "")
    user = ini.get("user", {})
    when = ini.get("privatefei", {}).get("timeofcreation") or joined(user.get("date", ""), user.get("time", ""))
    return Instrument(
        maker="FEI",
        model=ini.get("system", {}).get("systemtype", ""),
        accelerating_voltage_kv=volts / 1e3 if volts else None,
        working_distance_mm=distance * 1e3 if distance else None,
        magnification=canvas / field if canvas and field else None,
        detector=f"{name} ({mode})" if name and mode else name or mode,
        beam={"ebeam": "electron", "ibeam": "ion"}.get(beam.lower(), beam),
        acquired=when,
    )


# ---- 34683


def _read_xml(text: str, tag: int) -> Finding | None:
    root = safe_xml(text)
    if root is None:
        return None
    texts: dict[str, str] = {}
    units: dict[str, str] = {}
    for element in root.iter():
        for child in element:
            name = local_name(child)
            for key in (name, f"{local_name(element)}/{name}"):
                texts.setdefault(key, (child.text or "").strip())
                units.setdefault(key, child.get("unit", ""))
    width = positive(texts.get("pixelwidth"))
    factor = to_nm(1.0, units.get("pixelwidth") or "m")
    size = None
    if width is not None and factor is not None:
        height = positive(texts.get("pixelheight"))
        factor_y = to_nm(1.0, units.get("pixelheight") or "m") or factor
        origin = f"FEI tag {tag}, pixelWidth"
        size = PixelSize(width * factor, height * factor_y if height else width * factor, origin, "high")
    elif positive(texts.get("pixelsize/x")) is not None:
        across = positive(texts.get("pixelsize/x")) or 0.0
        down = positive(texts.get("pixelsize/y")) or across
        size = PixelSize(across * 1e9, down * 1e9, f"FEI tag {tag}, PixelSize", "medium")
    volts = positive(texts.get("accelerationvoltage")) or positive(texts.get("acceleratingvoltage"))
    distance = positive(texts.get("workingdistance"))
    distance_nm = to_nm(distance, units.get("workingdistance") or "m") if distance else None
    kilo = volts and (units.get("accelerationvoltage", "").lower() == "kv" or volts < 100)
    instrument = Instrument(
        maker="FEI",
        model=texts.get("instrument/type") or texts.get("type") or texts.get("microscope", ""),
        accelerating_voltage_kv=(volts if kilo else volts / 1e3) if volts else None,
        working_distance_mm=distance_nm / 1e6 if distance_nm else None,
        magnification=positive(texts.get("magnification")),
        detector=texts.get("detector", ""),
        beam="electron",
        acquired=texts.get("time") or texts.get("acquisition/date", ""),
    )
    return Finding(size, whole(texts.get("databarheight")), instrument)


# ---- 34680


def _read_sfeg(text: str) -> Finding:
    ini = ini_sections(text)
    magnification = positive(ini.get("vector", {}).get("magnification"))
    data = ini.get("databardata", {})
    size = None
    warnings: tuple[str, ...] = ()
    if magnification is not None:
        nm = magnification * _SFEG_UM_PER_MAGNIFICATION * 1e3
        size = PixelSize(nm, nm, f"FEI tag {SFEG}, [Vector] Magnification", "low")
        warnings = (
            "the pixel size of old S-FEG files is derived from one number of unclear unit; check it against the scale bar",
        )
    volts = positive(data.get("flhv")) or positive(ini.get("vector", {}).get("hightension"))
    instrument = Instrument(
        maker="FEI",
        model="S-FEG",
        accelerating_voltage_kv=(volts / 1e3 if volts > 100 else volts) if volts else None,
        working_distance_mm=positive(data.get("flwd")),
        magnification=positive(data.get("flmagn")),
        detector=data.get("szdetname", ""),
        beam="electron",
    )
    return Finding(size, None, instrument, warnings)
