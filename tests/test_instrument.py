"""What microscopes write: the real files, and texts made after the documented forms of each maker."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segment_duo.errors import UsageError
from segment_duo.images import parse_pixel_size, read_image, sidecar_names
from segment_duo.images.instruments import read_instrument
from segment_duo.images.instruments.finding import Source, ini_sections, safe_xml, text_of
from segment_duo.lengths import describe_nm
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


def read_facts(data: bytes, **options: Any) -> ImageFacts:
    return read_image(data, **options).facts


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
