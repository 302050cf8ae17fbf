"""What microscopes write: the real files, and texts made after the documented forms of each maker."""

from __future__ import annotations

import base64
import io
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segment_duo.errors import UsageError
from segment_duo.images import parse_pixel_size, read_image, sidecar_names
from segment_duo.images.instruments import read_instrument
from segment_duo.images.instruments.finding import Finding, Source, ini_sections, magnification, safe_xml, text_of
from segment_duo.lengths import describe_nm, fitting_unit, parse_number, parse_quantity, to_nm
from segment_duo.types import ImageFacts

GREY = np.tile(np.arange(200, dtype=np.uint8), (150, 1))


def tiff(tag: int = 0, text: str | bytes = b"", *, image: np.ndarray = GREY, **options: object) -> bytes:
    """A TIFF with one private tag: ASCII for text, bytes as UNDEFINED."""
    buffer = io.BytesIO()
    extra = []
    if tag and isinstance(text, str):
        raw = text.encode("cp1252") + b"\0"
        extra = [(tag, 2, len(raw), raw, True)]
    elif tag:
        extra = [(tag, 7, len(text), text, True)]
    tifffile.imwrite(buffer, image, extratags=extra, **options)
    return buffer.getvalue()


def facts_of(data: bytes, name: str = "a.tif", **sidecars: bytes) -> ImageFacts:
    return read_facts(
        data, name=name, sidecars={k.replace("__", "-").replace("_", "."): v for k, v in sidecars.items()}
    )


def read_facts(data: bytes, *, sidecars: Mapping[str, bytes] | None = None, **options: Any) -> ImageFacts:
    return read_image(data, sidecars=lambda: sidecars or {}, **options).facts


def nm(facts: ImageFacts) -> tuple[float, float]:
    assert facts.pixel_size is not None
    return facts.pixel_size.x_nm, facts.pixel_size.y_nm


# ---- real files


@pytest.mark.parametrize(
    ("name", "size", "model", "kilovolts", "distance", "magnification", "detector"),
    [
        ("FEI-Helios-Ebeam-8bits.tif", 3372.4, 'Helios NanoLab" 660', 5.0, 4.035, 120, "ETD (SE)"),
        ("FEI-Helios-Ebeam-16bits.tif", 3372.4, 'Helios NanoLab" 660', 5.0, 4.035, 120, "ETD (SE)"),
        ("test_tiff_Zeiss_SEM_1k.tif", 2614.514, "Merlin", 25.0, 14.808, 105, "HE-SE2"),
        ("test_tiff_Zeiss_SEM_512pix.tif", 11.649976, "ULTRA 55-36-06", 5.0, 3.9, 50000, "InLens"),
    ],
)
def test_real_files(
    shared_dir: Path, name: str, size: float, model: str, kilovolts: float, distance: float,
    magnification: float, detector: str,
) -> None:  # fmt: skip
    facts = read_facts((shared_dir / "images" / "sem" / name).read_bytes(), name=name)
    assert nm(facts) == pytest.approx((size, size), rel=1e-6)
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "high"
    assert facts.instrument.model == model
    assert facts.instrument.accelerating_voltage_kv == kilovolts
    assert facts.instrument.working_distance_mm == pytest.approx(distance, abs=0.001)
    assert facts.instrument.magnification == pytest.approx(magnification, rel=1e-3)
    assert facts.instrument.detector == detector
    assert facts.instrument.beam == "electron"
    assert facts.instrument.acquired
    assert facts.warnings == ()


def test_the_zeiss_figures_agree_with_the_scale_bars_in_the_pictures(shared_dir: Path) -> None:
    """The block of the 512-pixel file says 5.825 nm; only after rescaling from 1024 pixels does its 200 nm bar measure 200 nm."""
    name = "test_tiff_Zeiss_SEM_512pix.tif"
    image = read_image((shared_dir / "images" / "sem" / name).read_bytes(), name=name, banner="off")
    green = np.all(image.pixels == (0, 255, 0), axis=2)
    columns = np.flatnonzero(green.any(axis=0))
    bar = columns[-1] - columns[0]
    assert image.facts.pixel_size is not None
    assert bar * image.facts.pixel_size.x_nm == pytest.approx(200, rel=0.06)
    assert "5.825 nm at 1024 px" in image.facts.pixel_size.source
    name = "test_tiff_Zeiss_SEM_1k.tif"
    image = read_image((shared_dir / "images" / "sem" / name).read_bytes(), name=name, banner="off")
    row = image.pixels[735, 10:200, 0] < 128
    bar = np.flatnonzero(row)[-1] - np.flatnonzero(row)[0]
    assert image.facts.pixel_size is not None
    assert bar * image.facts.pixel_size.x_nm == pytest.approx(200_000, rel=0.03)
    assert "2614.5 nm" in image.facts.pixel_size.source


# ---- FEI


def test_fei_without_scan_section_uses_the_field_width() -> None:
    text = "[Beam]\nBeam=IBeam\nScan=IScan\n[IBeam]\nHV=30000\nHFW=2e-05\nVFW=1.5e-05\nWD=0.0165\n[Image]\nResolutionX=200\nResolutionY=150\n"
    facts = facts_of(tiff(34682, text))
    assert nm(facts) == pytest.approx((100, 100))
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "medium"
    assert facts.instrument.beam == "ion"
    assert facts.instrument.working_distance_mm == pytest.approx(16.5)


def test_fei_ion_scan_is_taken_from_its_own_section() -> None:
    text = "[Beam]\nBeam=IBeam\nScan=IScan\n[EScan]\nPixelWidth=1e-9\n[IScan]\nPixelWidth=4e-9\nPixelHeight=5e-9\n"
    assert nm(facts_of(tiff(34682, text))) == pytest.approx((4, 5))


def test_fei_scaled_copy_scales_the_pixel_size_and_a_crop_does_not() -> None:
    text = "[Scan]\nPixelWidth=3e-9\nPixelHeight=3e-9\n[Image]\nResolutionX={}\nResolutionY={}\n"
    scaled = facts_of(tiff(34682, text.format(400, 300)))
    assert nm(scaled) == pytest.approx((6, 6))
    assert "scaled copy" in scaled.warnings[0]
    crop = facts_of(tiff(34682, text.format(1024, 300)))
    assert nm(crop) == pytest.approx((3, 3))
    assert crop.pixel_size is not None
    assert crop.pixel_size.trust == "low"
    assert "crop" in crop.warnings[0]


def test_fei_banner_from_the_resolution_when_the_key_is_empty() -> None:
    text = "[Scan]\nPixelWidth=3e-9\n[Image]\nResolutionX=200\nResolutionY=130\n[PrivateFei]\nDatabarHeight=\n"
    finding = read_instrument(Source(200, 150, raw={34682: text.encode()}))
    assert finding.banner_rows == 20


PHENOM = """<?xml version="1.0"?><FeiImage version="3.1"><databarHeight>12</databarHeight>
<pixelWidth unit="um">0.25</pixelWidth><pixelHeight unit="um">0.25</pixelHeight>
<acquisition><workingDistance unit="um">7000</workingDistance></acquisition>
<instrument><type>ProX</type></instrument></FeiImage>"""


def test_phenom_xml_comes_before_an_empty_ini_tag() -> None:
    finding = read_instrument(Source(200, 150, raw={34682: b"\0", 34683: PHENOM.encode() + b"\0"}))
    assert finding.pixel_size is not None
    assert finding.pixel_size.x_nm == pytest.approx(250)
    assert finding.banner_rows == 12
    assert finding.instrument.model == "ProX"
    assert finding.instrument.working_distance_mm == pytest.approx(7)


def test_phenom_xml_in_a_jpeg() -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG", comment=PHENOM.encode())
    assert nm(read_facts(buffer.getvalue(), name="a.jpg")) == pytest.approx((250, 250))


def test_titan_xml_in_metres() -> None:
    text = "<Root><Microscope>Titan</Microscope><PixelSize><X>2e-10</X><Y>3e-10</Y></PixelSize></Root>"
    facts = facts_of(tiff(34683, text))
    assert nm(facts) == pytest.approx((0.2, 0.3))
    assert facts.instrument.model == "Titan"


def test_old_sfeg_files_are_not_trusted() -> None:
    facts = facts_of(tiff(34680, "[Vector]\nMagnification=10000\n[DatabarData]\nflHV=5000\nflWD=4.9\nszDetName=TLD\n"))
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "low"
    assert "scale bar" in facts.warnings[0]
    assert facts.instrument.accelerating_voltage_kv == 5


BOMB = """<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<FeiImage><pixelWidth unit="um">&b;</pixelWidth></FeiImage>"""


@pytest.mark.parametrize(
    "text", [BOMB, "<FeiImage><pixelWidth", "<a/>", "", "<FeiImage><pixelWidth unit='um'>nan</pixelWidth></FeiImage>"]
)
def test_hostile_or_broken_xml_gives_nothing(text: str) -> None:
    assert facts_of(tiff(34683, text)).pixel_size is None
    assert safe_xml(BOMB) is None


# ---- Zeiss


def zeiss(block: str, *entries: tuple[str, str]) -> str:
    return "\r\n".join([*block.split(), *(line for entry in entries for line in entry)]) + "\r\n"


def test_zeiss_block_is_scaled_to_the_width() -> None:
    text = zeiss("0 0 0 3.59375e-008 1e3 6", ("AP_WIDTH", "Width = 36.80 µm"), ("AP_MAG", "Mag =   3.10 K X"))
    facts = facts_of(tiff(34118, text))
    assert nm(facts)[0] == pytest.approx(35.9375 * 1024 / 200)
    assert facts.instrument.magnification == pytest.approx(3100)
    assert facts.warnings == ()


def test_zeiss_contradiction_lowers_the_trust() -> None:
    facts = facts_of(tiff(34118, zeiss("0 0 0 1e-008 1 6", ("AP_WIDTH", "Width = 36.80 µm"))))
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "low"
    assert "contradicts" in facts.warnings[0]


@pytest.mark.parametrize("unit", ["µm", "?m", "um"])
def test_zeiss_without_a_block_falls_back_to_the_labels(unit: str) -> None:
    assert nm(facts_of(tiff(34118, zeiss("", ("AP_IMAGE_PIXEL_SIZE", f"Image Pixel Size = 2.5 {unit}")))))[
        0
    ] == pytest.approx(2500)
    assert nm(facts_of(tiff(34118, zeiss("", ("AP_PIXEL_SIZE", "Pixel Size = 890.5 pm")))))[0] == pytest.approx(0.8905)


# ---- Tescan

MAIN = "Date=2023-04-05\r\nDevice=MIRA3 LMH\r\nImageStripSize=63\r\nMagnification=25000\r\nPixelSizeX=1.25e-8\r\nPixelSizeY=1.5e-8\r\n"
SEM = "Detector=SE\r\nHV=15000.0\r\nWD=0.0071\r\n"


def tescan_blocks() -> bytes:
    parts = [(1, b"\xff\xd8thumb"), (2, MAIN.encode()), (3, SEM.encode()), (0, b"")]
    return b"".join(struct.pack("<IH", len(body), kind) + body for kind, body in parts)


@pytest.mark.parametrize("raw", [tescan_blocks(), b"\1\2junk AccFrames=4\r\n" + (MAIN + SEM).encode()])
def test_tescan_tag(raw: bytes) -> None:
    finding = read_instrument(Source(200, 150, raw={50431: raw}))
    assert finding.pixel_size is not None
    assert (finding.pixel_size.x_nm, finding.pixel_size.y_nm) == pytest.approx((12.5, 15))
    assert finding.banner_rows == 63
    assert finding.instrument.accelerating_voltage_kv == 15
    assert finding.instrument.working_distance_mm == pytest.approx(7.1)
    assert nm(facts_of(tiff(50431, raw))) == pytest.approx((12.5, 15))


@pytest.mark.parametrize(
    ("image", "sidecar"), [("b.tif", "b-tif.hdr"), ("b.png", "b-png.hdr"), ("b.TIF", "b-tif.HDR"), ("b.tif", "b.hdr")]
)
def test_tescan_sidecar(image: str, sidecar: str) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    data = buffer.getvalue() if image.endswith("png") else tiff()
    facts = read_facts(data, name=image, sidecars={sidecar: f"[MAIN]\r\n{MAIN}[SEM]\r\n{SEM}".encode()})
    assert nm(facts) == pytest.approx((12.5, 15))
    assert facts.instrument.maker == "Tescan"


# ---- JEOL and Hitachi

JEOL = """$CM_FORMAT JEOL-SEM
$CM_INSTRUMENT JSM-7100F
$CM_ACCEL_VOLT 15.00
$CM_MAG 10000
$CM_FULL_SIZE 200 140
$$SM_MICRON_BAR 91
$$SM_MICRON_MARKER 10um
$$SM_WD 10.1
$CM_SIGNAL SEI
"""


@pytest.mark.parametrize("text", [JEOL, JEOL.replace("$CM_", "$$SM_"), JEOL.lower(), JEOL.replace("\n", "\r\n")])
def test_jeol_sidecar(text: str) -> None:
    facts = facts_of(tiff(), a_txt=text.encode())
    assert nm(facts)[0] == pytest.approx(10000 / 91)
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "medium"
    assert facts.instrument.accelerating_voltage_kv == 15
    assert facts.instrument.working_distance_mm == 10.1
    assert read_instrument(Source(200, 150, sidecars={"a.txt": text.encode()})).banner_rows == 10


def test_jeol_scaled_copy() -> None:
    facts = facts_of(tiff(), a_txt=JEOL.replace("200 140", "400 300").encode())
    assert nm(facts)[0] == pytest.approx(2 * 10000 / 91)
    assert facts.warnings == ()


HITACHI = """[SemImageFile]
InstructName=S-4800
SignalName=SE(U)
AcceleratingVoltage=15000 Volt
WorkingDistance=8100 um
Magnification=50000
DataSize=200x150
PixelSize=1.984375
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-16", "utf-16-le", "cp1252", "utf-8-sig"])
def test_hitachi_sidecar(encoding: str) -> None:
    facts = facts_of(tiff(), a_TXT=HITACHI.encode(encoding))
    assert nm(facts)[0] == pytest.approx(1.984375)
    assert facts.instrument.model == "S-4800"
    assert facts.instrument.accelerating_voltage_kv == 15
    assert facts.instrument.working_distance_mm == pytest.approx(8.1)


def test_old_hitachi_uses_the_photograph() -> None:
    facts = facts_of(tiff(), a_txt=HITACHI.replace("PixelSize=1.984375\n", "").encode())
    assert nm(facts)[0] == pytest.approx(127e6 / 50000 / 200)
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "low"


def test_a_text_file_of_someone_else_is_ignored() -> None:
    facts = facts_of(tiff(), a_txt=b"notes: sample 3 looked fine, pixel size unknown")
    assert facts.pixel_size is None
    assert facts.instrument.maker == ""
    other = read_facts(tiff(), name="b.tif", sidecars={"a.txt": JEOL.encode()})
    assert other.pixel_size is None


# ---- numbers with a decimal comma, numbers with something behind them


def with_comma(text: str) -> str:
    """The text as a machine set to a language with a decimal comma writes it."""
    return re.sub(r"(?<=\d)\.(?=\d)", ",", text)


ZEISS = [
    ("AP_WIDTH", "Width = 36.80 µm"),
    ("AP_ACTUALKV", "EHT = 5.50 kV"),
    ("AP_WD", "WD = 3.9 mm"),
    ("AP_MAG", "Mag = 3.10 K X"),
]
FEI_INI = "[EBeam]\nHV=5500.0\nHFW=6.74e-007\nWD=0.0041\n[Image]\nResolutionX=200\nResolutionY=150\n"
SFEG = "[Vector]\nMagnification=10000.5\n[DatabarData]\nflHV=5500.5\nflWD=4.9\n"


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (34682, FEI_INI + "[EScan]\nPixelWidth=3.37e-009\nPixelHeight=3.38e-009\n"),
        (34682, FEI_INI),
        (34683, PHENOM.replace(' version="3.1"', "").replace('<?xml version="1.0"?>', "").replace("7000", "7000.5")),
        (34683, "<Root><PixelSize><X>2.5e-10</X><Y>3.5e-10</Y></PixelSize></Root>"),
        (34680, SFEG),
        (34118, zeiss("0 0 0 3.59375e-008 1e3 6", *ZEISS)),
        (34118, zeiss("", *ZEISS)),
        (34118, zeiss("", ("AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 2.5 µm"))),
        (50431, MAIN + SEM),
    ],
)
def test_a_decimal_comma_changes_nothing_in_a_tag(tag: int, text: str) -> None:
    raw, comma = text.encode("cp1252"), with_comma(text).encode("cp1252")
    if tag == 50431:
        raw, comma = (b"AccFrames=4\r\n" + part for part in (raw, comma))
    assert raw != comma
    finding = read_instrument(Source(200, 150, raw={tag: raw}))
    assert finding.pixel_size is not None
    shown = read_instrument(Source(200, 150, raw={tag: comma}))
    assert shown == finding


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", HITACHI.replace("8100 um", "8.1 mm").replace("15000 Volt", "15.5 kV")),
        ("a.txt", JEOL.replace("10um", "0.5um").replace("BAR 91", "BAR 91.5")),
        ("a-tif.hdr", f"[MAIN]\r\n{MAIN}[SEM]\r\n{SEM}"),
    ],
)
def test_a_decimal_comma_changes_nothing_in_a_text_file(name: str, text: str) -> None:
    found = read_instrument(Source(200, 150, sidecars={name: text.encode()}))
    assert with_comma(text) != text
    assert found.pixel_size is not None
    shown = read_instrument(Source(200, 150, sidecars={name: with_comma(text).encode()}))
    assert (shown.pixel_size.x_nm, shown.pixel_size.y_nm) == (found.pixel_size.x_nm, found.pixel_size.y_nm)  # type: ignore[union-attr]
    assert shown.instrument == found.instrument


@pytest.mark.parametrize("padded", ["{}\0\r\n", "{}\0", "{}\r\n\0\0", "{}\0\0\0\n"])
@pytest.mark.parametrize(
    ("tag", "name", "text"),
    [
        (34118, "", zeiss("0 0 0 3.59375e-008 1e3 6", *ZEISS)),
        (34118, "", zeiss("", *ZEISS)),
        (34682, "", FEI_INI + "[EScan]\nPixelWidth=3.37e-009\n"),
        (50431, "", "AccFrames=4\r\n" + MAIN + SEM),
        (0, "a.txt", JEOL),
        (0, "a.txt", HITACHI),
        (0, "a-tif.hdr", f"[MAIN]\r\n{MAIN}[SEM]\r\n{SEM}"),
    ],
)
def test_nuls_at_the_ends_of_lines_change_nothing(tag: int, name: str, text: str, padded: str) -> None:
    def found(raw: bytes) -> Finding:
        return read_instrument(Source(200, 150, raw={tag: raw} if tag else {}, sidecars={name: raw} if name else {}))

    plain = found(text.encode("cp1252"))
    assert plain.pixel_size is not None
    with_nuls = "".join(map(padded.format, text.splitlines()))
    assert found(with_nuls.encode("cp1252")) == plain
    assert found(b"\0" + text.encode("cp1252") + b"\0\0") == plain


def test_a_zero_says_that_the_scale_is_unknown() -> None:
    finding = read_instrument(Source(200, 150, raw={34682: (FEI_INI + "[Scan]\nPixelWidth=0\n").encode()}))
    assert finding.pixel_size is not None
    assert finding.pixel_size.source.endswith("HFW / ResolutionX")
    assert finding.warnings == ()


@pytest.mark.parametrize("encoding", ["shift_jis", "gbk", "utf-16", "cp1252", "utf-8"])
def test_micrometres_in_the_encodings_of_the_makers_countries(encoding: str) -> None:
    text = JEOL.replace("10um", "10\N{MICRO SIGN}m" if encoding == "cp1252" else "10\N{GREEK SMALL LETTER MU}m")
    plain = read_instrument(Source(200, 150, sidecars={"a.txt": JEOL.encode()}))
    found = read_instrument(Source(200, 150, sidecars={"a.txt": text.encode(encoding)}))
    assert plain.pixel_size is not None
    assert found.pixel_size is not None
    assert found.pixel_size.x_nm == plain.pixel_size.x_nm


def test_a_description_in_no_known_encoding_is_read_all_the_same() -> None:
    text = b"ImageJ=1.54f\nunit=nm\nnote=\x81\x8d\n"  # neither UTF-8 nor Windows-1252
    facts = read_facts(tiff(description=text, metadata=None, resolution=(2, 2)), name="a.tif")
    assert facts.pixel_size is not None
    assert facts.pixel_size.x_nm == 0.5


@pytest.mark.parametrize(
    ("tag", "text", "told"),
    [
        (34682, "[EScan]\nPixelWidth=3.37.1e-9\n", "[EScan] PixelWidth"),
        (34682, "[Scan]\nPixelWidth=3e-9\nPixelHeight=3 furlongs\n", "[Scan] PixelHeight"),
        (34683, "<FeiImage><pixelWidth unit='um'>1,234.5</pixelWidth></FeiImage>", "pixelWidth"),
        (
            34683,
            "<FeiImage><pixelWidth unit='um'>1</pixelWidth><pixelHeight unit='?'>1</pixelHeight></FeiImage>",
            "pixelWidth",
        ),
        (34118, zeiss("", ("AP_WIDTH", "Width = 36.80.2 µm")), "AP_WIDTH"),
        (50431, "AccFrames=1\r\nPixelSizeX=1.25e-8;\r\n", "PixelSizeX"),
        (50431, "AccFrames=1\r\nPixelSizeX=1.25e-8\r\nPixelSizeY=1.25e-8.\r\n", "PixelSizeY"),
    ],
)
def test_a_scale_with_unread_characters_is_unknown_and_told(tag: int, text: str, told: str) -> None:
    finding = read_instrument(Source(200, 150, raw={tag: text.encode("cp1252")}))
    assert finding.pixel_size is None
    [warning] = finding.warnings
    assert told in warning


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HITACHI.replace("1.984375", "1.984.375"), "PixelSize is '1.984.375'"),
        (JEOL.replace("10um", "10.0.0um"), "MICRON_MARKER"),
        (JEOL.replace("BAR 91", "BAR 91 to 93"), "MICRON_BAR"),
    ],
)
def test_a_text_file_with_unread_characters_gives_no_scale(text: str, told: str) -> None:
    """Hitachi's magnification stands in for a missing pixel size, not for one that is there and not understood."""
    finding = read_instrument(Source(200, 150, sidecars={"a.txt": text.encode()}))
    assert finding.pixel_size is None
    assert told in finding.warnings[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50000", 50000),
        ("105 X", 105),
        ("3,10 K X", 3100),
        ("x50.0k", 50000),
        ("1.20 M X", 1.2e6),
        ("10,000", None),
        ("5 um", None),
    ],
)
def test_magnifications(text: str, value: float | None) -> None:
    assert magnification(text) == value


# ---- FEI: XML of named values


def memento(*items: tuple[str, str]) -> str:
    return "".join(f"<item><key><string>{name}</string></key><value>{inner}</value></item>" for name, inner in items)


def memento_value(name: str, text: str, unit: str) -> tuple[str, str]:
    attributes = 'xmlns:q1="http://www.w3.org/2001/XMLSchema" d:type="q1:double" xmlns:d="http://www.w3.org/2001/XMLSchema-instance"'
    unit = f"<MementoItemUnit>MementoItemUnit{unit}</MementoItemUnit>" if unit else ""
    return name, f"<MementoItem><Name>{name}</Name>{unit}<anyType {attributes}>{text}</anyType></MementoItem>"


def memento_section(name: str, *items: tuple[str, str]) -> tuple[str, str]:
    head = f"<Name>{name}</Name><MementoItemUnit>MementoSection</MementoItemUnit>"
    return name, f"<MementoItem>{head}<MementoItemSection>{memento(*items)}</MementoItemSection></MementoItem>"


def memento_xml(width: str, height: str, unit: str = "Meter") -> bytes:
    size = memento_section("PixelSize", memento_value("Width", width, unit), memento_value("Height", height, unit))
    beam = memento_section(
        "Beam", memento_value("HV", "5000", "Volt"), memento_value("WorkingDistance", "0.0041", "Meter")
    )
    field = memento_section("Field", memento_value("Width", "1.6e-05", "Meter"))
    text = memento(
        memento_section("Chamber", memento_value("Type", "xT-SDB", "Scalar")),
        beam,
        memento_section("Image", field, size),
    )
    return f'\ufeff<?xml version="1.0" encoding="utf-8"?><MementoItemCollection>{text}</MementoItemCollection>'.encode()


def wrapped(raw: bytes) -> bytes:
    return base64.encodebytes(raw) + b"\0"


@pytest.mark.parametrize("tag", [34680, 34682, 34683])
@pytest.mark.parametrize("pack", [base64.b64encode, wrapped, bytes])
def test_fei_xml_of_named_values_in_base64_or_plain(tag: int, pack: Callable[[bytes], bytes]) -> None:
    facts = facts_of(tiff(tag, pack(memento_xml("1.6E-08", "1,7E-08"))))
    assert nm(facts) == pytest.approx((16, 17))
    assert facts.pixel_size is not None
    assert facts.pixel_size.source == f"FEI tag {tag}, Image PixelSize"
    assert facts.instrument.accelerating_voltage_kv == 5
    assert facts.instrument.working_distance_mm == pytest.approx(4.1)


def test_fei_ini_in_base64_and_units_of_named_values() -> None:
    ini = b"[Scan]\nPixelWidth=3e-9\nPixelHeight=3e-9\n"
    assert nm(facts_of(tiff(34680, base64.b64encode(ini) + b"\0"))) == pytest.approx((3, 3))
    assert nm(facts_of(tiff(34680, memento_xml("16", "16", "Nanometer")))) == pytest.approx((16, 16))
    unknown = facts_of(tiff(34680, memento_xml("16", "16", "Lightyear")))
    assert unknown.pixel_size is None
    assert "16 Lightyear" in unknown.warnings[0]


@pytest.mark.parametrize("inner", [b"A" * 64, b"A" * 65, b"<MementoItemCollection>" + b"<item>" * 3000, b"<a>" * 50])
def test_base64_of_nothing_useful_gives_nothing(inner: bytes) -> None:
    deep = b"<MementoItemCollection>" + b"<item>" * 2000 + b"</item>" * 2000 + b"</MementoItemCollection>"
    for raw in (inner, base64.b64encode(inner), base64.b64encode(deep)):
        assert read_instrument(Source(200, 150, raw={34680: raw})).pixel_size is None


# ---- general


def test_imagej_is_used_with_its_unit() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, GREY, imagej=True, resolution=(4.0, 2.0), metadata={"unit": "um"})
    facts = read_facts(buffer.getvalue(), name="a.tif")
    assert nm(facts) == pytest.approx((250, 500))
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "medium"
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, GREY, imagej=True, resolution=(4.0, 4.0), metadata={"unit": "pixel"})
    assert read_facts(buffer.getvalue(), name="a.tif").pixel_size is None


def imagej(description: str, resolution: tuple[float, float] = (200, 100)) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, GREY, resolution=resolution, description=f"ImageJ=1.53t\n{description}\n", metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("description", "size"),
    [
        ("unit=micrometer", (5, 10)),
        ("unit=micrometre", (5, 10)),
        ("unit=\\u00B5m", (5, 10)),
        ("unit=micron\nyunit=nm", (5, 0.01)),
        ("yunit=nm\nunit=u", (5, 0.01)),
        ("unit=\\u212B\nyunit=\\u03BCm", (0.0005, 10)),
    ],
)
def test_imagej_units_of_each_axis(description: str, size: tuple[float, float]) -> None:
    raw = imagej(description)
    assert nm(read_facts(raw, name="a.tif")) == pytest.approx(size)
    assert nm(read_facts(raw.replace(b"ImageJ=1.53t", b"SCIFIO=0.46."), name="a.tif")) == pytest.approx(size)


@pytest.mark.parametrize(
    ("description", "told"),
    [("unit=um\nyunit=pixel", ""), ("unit=blobs", "'blobs'"), ("unit=um\nyunit=s", "'s'"), ("unit=inch", "")],
)
def test_imagej_units_that_are_no_lengths_leave_the_scale_unknown(description: str, told: str) -> None:
    facts = read_facts(imagej(description), name="a.tif")
    assert facts.pixel_size is None
    assert [told in warning for warning in facts.warnings] == [True] * bool(told)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('PhysicalSizeX="0.005"', (5, 5)),
        ('PhysicalSizeX="0,005" PhysicalSizeY="5" PhysicalSizeYUnit="nm"', (5, 5)),
        ('PhysicalSizeX="50" PhysicalSizeXUnit="Å" PhysicalSizeY="0.005" PhysicalSizeYUnit="micrometre"', (5, 5)),
        ('PhysicalSizeX="5" PhysicalSizeXUnit="nanometers"', (5, 5)),
        ('PhysicalSizeX="5" PhysicalSizeXUnit="nm" PhysicalSizeY="5" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="5.0.0"', None),
        ('PhysicalSizeX="5" PhysicalSizeXUnit="Mm"', None),
    ],
)
def test_ome_units_of_each_axis(attributes: str, size: tuple[float, float] | None) -> None:
    xml = f'<OME xmlns="x"><Image><Pixels {attributes}/></Image></OME>'
    finding = read_instrument(Source(200, 150, description=xml, is_ome=True))
    found = finding.pixel_size
    assert (found and (found.x_nm, found.y_nm)) == (pytest.approx(size) if size else None)
    assert bool(finding.warnings) == (size is None and "pixel" not in attributes)


def test_ome_xml() -> None:
    buffer = io.BytesIO()
    size = {"PhysicalSizeX": 12.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.025, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(buffer, GREY, ome=True, metadata={"axes": "YX", **size})
    assert nm(read_facts(buffer.getvalue(), name="a.ome.tif")) == pytest.approx((12.5, 25))


@pytest.mark.parametrize("dots", [96, 146, 314])
def test_a_print_resolution_is_never_a_pixel_size(dots: int) -> None:
    facts = facts_of(tiff(resolution=(dots, dots), resolutionunit="INCH"))
    assert facts.pixel_size is None


def test_implausible_sizes_warn_and_a_flag_overrules() -> None:
    text = "[Scan]\nPixelWidth=2e-5\nPixelHeight=2e-5\n"
    facts = facts_of(tiff(34682, text))
    assert "implausible" in facts.warnings[0]
    assert facts.pixel_size is not None
    assert facts.pixel_size.trust == "low"
    given = read_facts(tiff(34682, text), name="a.tif", pixel_size=parse_pixel_size("3.37nm"))
    assert nm(given) == (3.37, 3.37)
    assert given.pixel_size is not None
    assert given.pixel_size.source == "flag"
    assert given.warnings == ()


def test_orientation_swaps_the_edges_of_a_pixel() -> None:
    text = "[Scan]\nPixelWidth=1e-9\nPixelHeight=2e-9\n"
    raw = text.encode() + b"\0"
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, GREY, extratags=[(34682, 2, len(raw), raw, True), (274, 3, 1, 6, True)])
    facts = read_facts(buffer.getvalue(), name="a.tif")
    assert (facts.width, facts.height) == (150, 200)
    assert nm(facts) == pytest.approx((2, 1))


@pytest.mark.parametrize("tag", [34118, 34680, 34682, 34683, 50431])
@pytest.mark.parametrize(
    "junk", [b"\xff" * 300, b"\0" * 64, b"[Scan]\nPixelWidth=1e999\n", b"[Scan]\nPixelWidth=-3\n", bytes(range(256))]
)
def test_junk_in_a_tag_is_as_if_it_were_absent(tag: int, junk: bytes) -> None:
    facts = facts_of(tiff(tag, junk))
    assert facts.pixel_size is None
    assert (facts.width, facts.height) == (200, 150)


# ---- the small parsers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3.37nm", 3.37),
        ("0.5 um/px", 500),
        ("12 pm", 0.012),
        ("1e-3mm", 1000),
        ("0,5 µm", 500),
        (".5um/pixel", 500),
        ("2 Å", 0.2),
    ],
)
def test_pixel_sizes_as_typed(text: str, value: float) -> None:
    assert parse_pixel_size(text).x_nm == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "3.37", "nm", "-1nm", "0nm", "3 px", "1 furlong", "inf nm", "nan nm", "1e400nm", "3nm 4nm"]
)
def test_what_is_no_pixel_size(text: str) -> None:
    with pytest.raises(UsageError, match="not a pixel size"):
        parse_pixel_size(text)


MICROMETRES = (
    "u", "um", "UM", "µ", "μ", "µm", "μm", "㎛", "?m", "micron", "Microns", "micrometer", "Micrometers", "micrometre",
    "micrometres", "micromètre", "мкм", "um/pixel", "µm per px",
)  # fmt: skip
ANGSTROMS = ("A", "Å", "\u212b", "A\u030a", "angstrom", "Angstroms", "ångström", "Ångströms")


@pytest.mark.parametrize(
    ("units", "nm_of_one"),
    [
        (MICROMETRES, 1000),
        (ANGSTROMS, 0.1),
        (("nm", "NM", "nanometer", "nanometers", "nanometre", "Nanometres", "㎚"), 1),
        (("pm", "picometre", "picometers"), 0.001),
        (("mm", "millimeter", "Millimetres"), 1e6),
        (("m", "meter", "metres"), 1e9),
    ],
)
def test_units_as_people_and_programs_spell_them(units: tuple[str, ...], nm_of_one: float) -> None:
    assert {unit: to_nm(1, unit) for unit in units} == dict.fromkeys(units, nm_of_one)


@pytest.mark.parametrize("unit", ["", "pixel", "inch", "px", "furlong", "Mm", "Pm", "a", "s", "kV", "nmm"])
def test_what_is_no_unit_of_length(unit: str) -> None:
    assert to_nm(1, unit) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3,968", (3.968, "")),
        (" 3.968 ", (3.968, "")),
        ("3,37e-009", (3.37e-9, "")),
        ("-,5", (-0.5, "")),
        ("15000 Volt", (15000, "Volt")),
        ("50,00 K X", (50, "K X")),
        ("2\xa0µm\0", (2, "\xa0µm")),
    ],
)
def test_the_grammar_of_numbers(text: str, found: tuple[float, str]) -> None:
    assert parse_quantity(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "nm", "3.968.1", "3,968,1", "1,234.5", "1.234,5", "12 345", "3nm 4nm", "5,", "3-4", "1e999", "nan", "0x10"],
)
def test_a_number_is_never_cut_short(text: str) -> None:
    assert parse_quantity(text) is None
    assert parse_number("3.5 nm") is None


def test_sidecar_names() -> None:
    names = sidecar_names("run 3.tif")
    assert names[0] == "run 3.txt"
    assert {"run 3.TXT", "run 3.Txt", "run 3-tif.hdr", "run 3.hdr"} <= set(names)
    assert "a-png.hdr" in sidecar_names("a.png")
    for none in ("a.webp", "noextension", ".tif", "a.pkl"):
        assert sidecar_names(none) == ()


def test_text_and_ini_as_real_files_have_them() -> None:
    assert text_of("µ".encode("cp1252")) == "µ"
    assert text_of("\ufeffkey=1".encode("utf-16-be")) == "key=1"
    table = ini_sections("a=0\n[S]\nkey = 1\nKEY=2\nno equals\n[ S ]\nother=x=y\n")
    assert table == {"": {"a": "0"}, "s": {"key": "1", "other": "x=y"}}


def test_sizes_are_described_with_a_fitting_unit() -> None:
    assert [describe_nm(v) for v in (0.012, 5.825, 3372.4, 2.5e6)] == ["12 pm", "5.825 nm", "3.372 um", "2.5 mm"]
    values = (0, 1e-5, 0.99996, 999.96, 197_154, 999_999, 2.5e9, 1.152e12, 1e14)
    shown = ["0 nm", "0.01 pm", "1 nm", "1 um", "197.2 um", "1 mm", "2.5 m", "1152 m", "100000 m"]
    assert [describe_nm(v) for v in values] == shown
    assert fitting_unit(197_154) == (1000.0, "um")
