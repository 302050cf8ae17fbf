"""The info banner, on synthetic micrographs that look like the difficult real ones, and on the real files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from segment_duo.errors import ImageError, UsageError
from segment_duo.images import read_image
from segment_duo.images.banner import banner_agrees, find_banner, grey_levels

Grey = np.ndarray


def specimen(
    seed: int, width: int, height: int, *, mean: float = 110, contrast: float = 30, noise: float = 8, blur: float = 6
) -> Grey:
    """Blurred random texture with shot-like noise: uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal((height, width)), blur)
    texture /= max(1e-9, texture.std())
    image = mean + contrast * texture + noise * rng.standard_normal((height, width))
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Style:
    background: int
    ink: int
    line: int | None  # level of a divider at the top, None for none
    frame: bool = False
    logo: bool = False
    stray_row: bool = False  # Zeiss leaves one row of specimen below the frame


STYLES = {
    "fei": Style(0, 255, 252, frame=True),
    "zeiss": Style(255, 0, 0, frame=True, logo=True, stray_row=True),
    "plain-dark": Style(0, 255, None),
    "plain-light": Style(255, 0, None),
    "grey": Style(60, 230, None, logo=True),
    "tescan": Style(0, 230, None, frame=False, logo=True),
}


def add_banner(image: Grey, rows: int, style: Style) -> Grey:
    """Paste a banner of ``rows`` rows below ``image``: text in two lines where there is room, a scale bar, a logo."""
    width = image.shape[1]
    bar = Image.new("L", (width, rows), style.background)
    draw = ImageDraw.Draw(bar)
    font = ImageFont.load_default(size=max(7, rows * (0.34 if rows >= 30 else 0.6)))
    lines = ("15.0 kV  8.1 mm  x50.0k  SE(U)  2024-05-17", "Signal A = InLens  WD = 3.9 mm")
    for number, text in enumerate(lines if rows >= 30 else lines[:1]):
        draw.text((width * 0.22, rows * (0.08 + 0.42 * number) + 1), text, fill=style.ink, font=font)
    middle = int(rows * 0.6)
    draw.line([(width * 0.03, middle), (width * 0.17, middle)], fill=style.ink, width=max(1, rows // 20))
    for x in (0.03, 0.17):
        draw.line([(width * x, rows * 0.4), (width * x, rows * 0.8)], fill=style.ink, width=max(1, rows // 20))
    if style.logo:
        draw.rectangle([(width * 0.88, rows * 0.15), (width * 0.96, rows * 0.85)], fill=style.ink)
    if style.line is not None:
        draw.line([(0, 0), (width, 0)], fill=style.line)
    if style.frame:
        low = rows - (2 if style.stray_row else 1)
        draw.rectangle([(0, 0), (width - 1, low)], outline=style.line)
    whole = np.vstack([image, np.asarray(bar)])
    if style.stray_row:
        whole[-1] = specimen(7, width, 1, blur=0.1)
    return whole


def void_image(seed: int, rows: int, ragged: int, level: int, particles: bool) -> Grey:
    image = specimen(seed, 700, 560)
    rng = np.random.default_rng(seed)
    edge = 560 - rows + ndimage.gaussian_filter1d(rng.standard_normal(700), 8) * ragged * 3
    void = np.arange(560)[:, None] >= edge[None]
    image[void] = level
    if particles:
        for _ in range(25):
            x, y, radius = rng.uniform(0, 700), rng.uniform(560 - rows, 560), rng.uniform(2, 9)
            inside = np.hypot(np.arange(700)[None] - x, np.arange(560)[:, None] - y) < radius
            image[inside & void] = np.clip(rng.normal(150, 40, int((inside & void).sum())), 0, 255).astype(np.uint8)
    return image


def charged(seed: int, rows: int, share: float, level: int) -> Grey:
    rng = np.random.default_rng(seed)
    image = specimen(seed, 640, 480)
    band = image[-rows:].astype(float) + (150 if level else -150) * (rng.random((rows, 640)) < share)
    image[-rows:] = np.clip(band, 0, 255).astype(np.uint8)
    for y in rng.integers(100, 480, 5):
        image[y] = level
    return image


def deepen(seed: int, style: str, dtype: type, bulk: int) -> np.ndarray:
    rows = 50
    image = add_banner(specimen(seed, 600, 500), rows, STYLES[style])
    top = 1.0 if dtype is np.float32 else float(np.iinfo(dtype).max)
    deep = image.astype(np.float64) / 255 * top
    deep[:-rows] = deep[:-rows] * (bulk / 4000 * 0.8 + 0.2) + 0.05 * top
    return np.clip(deep, 0, top).astype(dtype)


def jpeg(image: Grey, quality: int) -> Grey:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


seeds = st.integers(0, 10_000)
styles = st.sampled_from(sorted(STYLES))
relaxed = settings(max_examples=8, deadline=None)


@given(seeds, styles, st.integers(300, 1100), st.integers(300, 900), st.floats(0.05, 0.13), st.floats(65, 200))
@relaxed
def test_exact_files_are_cut_to_the_row(
    seed: int, style: str, width: int, height: int, share: float, mean: float
) -> None:
    rows = max(22, round(height * share))
    image = add_banner(specimen(seed, width, height, mean=mean), rows, STYLES[style])
    assert find_banner(image) == rows
    assert banner_agrees(image, rows)


@given(seeds, styles, st.integers(60, 95), st.floats(60, 190))
@relaxed
def test_jpeg_copies_are_cut_within_the_blur(seed: int, style: str, quality: int, mean: float) -> None:
    image = jpeg(add_banner(specimen(seed, 800, 600, mean=mean), 56, STYLES[style]), quality)
    assert 53 <= find_banner(image) <= 59


@given(seeds, styles, st.floats(0.5, 1.7))
@relaxed
def test_resampled_copies_are_cut_and_the_tag_is_not_believed(seed: int, style: str, scale: float) -> None:
    image = add_banner(specimen(seed, 800, 640), 64, STYLES[style])
    small = Image.fromarray(image).resize((round(800 * scale), round(704 * scale)), Image.Resampling.BICUBIC)
    found = find_banner(np.asarray(small))
    assert abs(found - 64 * scale) <= 3
    if abs(scale - 1) > 0.15:
        assert not banner_agrees(np.asarray(small), 64)


@given(seeds, st.integers(200, 1000), st.integers(200, 900), st.floats(5, 250), st.floats(0, 60), st.floats(1, 20))
@settings(max_examples=16, deadline=None)
def test_plain_micrographs_are_not_cut(
    seed: int, width: int, height: int, mean: float, contrast: float, noise: float
) -> None:
    assert find_banner(specimen(seed, width, height, mean=mean, contrast=contrast, noise=noise)) == 0


@given(seeds, st.integers(8, 120), st.integers(0, 12), st.sampled_from([0, 3, 40]), st.integers(70, 100), st.booleans())
@settings(max_examples=16, deadline=None)
def test_dark_voids_at_the_bottom_are_not_cut(
    seed: int, rows: int, ragged: int, level: int, quality: int, particles: bool
) -> None:
    """A dark substrate under the specimen, its edge straight or ragged, with bright particles in it or without."""
    image = void_image(seed, rows, ragged, level, particles)
    if quality < 95:
        image = jpeg(image, quality)
    assert find_banner(image) == 0


@given(seeds, st.integers(10, 110), st.floats(0.5, 0.95), st.sampled_from([0, 255]))
@settings(max_examples=16, deadline=None)
def test_charging_bands_and_saturated_rows_are_not_cut(seed: int, rows: int, share: float, level: int) -> None:
    """Scan rows that charged up: sharp edges above and below, most of each row at the limit of the range.

    A band that is black over its whole width can pass for a banner with a few bright marks; ``docs/micrographs.md`` says so.
    """
    assert find_banner(charged(seed, rows, share, level)) == 0


@given(seeds, styles, st.integers(20, 80))
@relaxed
def test_a_void_above_the_banner_does_not_hide_it(seed: int, style: str, depth: int) -> None:
    """Black specimen down to a banner: with a divider, or on a light banner, the edge can still be seen; else at most void is lost."""
    image = specimen(seed, 700, 500)
    image[-depth:] = 0
    found = find_banner(add_banner(image, 44, STYLES[style]))
    if STYLES[style].line is not None or STYLES[style].background:
        assert found in {43, 44}  # a black divider under a black void is part of the void
    else:
        assert found == 0 or 44 <= found <= 44 + depth


@given(seeds, styles, st.integers(0, 400))
@relaxed
def test_saturated_rows_in_the_specimen_do_not_move_the_cut(seed: int, style: str, row: int) -> None:
    image = specimen(seed, 700, 500)
    image[row : row + 6, :600] = 255
    assert find_banner(add_banner(image, 44, STYLES[style])) == 44


@given(seeds, styles, st.sampled_from([np.uint16, np.int16, np.uint32, np.float32]), st.integers(1, 4000))
@relaxed
def test_deeper_samples_are_cut_too(seed: int, style: str, dtype: type, bulk: int) -> None:
    """A specimen that fills a small part of the range, and a banner at the ends of it."""
    assert find_banner(grey_levels(deepen(seed, style, dtype, bulk))) == 50


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (4, 4), (9, 50), (20, 20), (33, 64)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_tiny_and_constant_images_are_left_alone(shape: tuple[int, int], level: int) -> None:
    assert find_banner(np.full(shape, level, np.uint8)) == 0
    assert find_banner(specimen(1, shape[1], shape[0], blur=0.5)) == 0


def test_a_photograph_page_margin_is_not_a_banner() -> None:
    image = specimen(3, 600, 400)
    margin = np.full((120, 600), 255, np.uint8)
    assert find_banner(np.vstack([image, margin])) == 0


def test_colour_copies_and_palettes_are_judged_by_their_grey() -> None:
    image = add_banner(specimen(5, 640, 480), 48, STYLES["zeiss"])
    assert find_banner(grey_levels(np.dstack([image] * 3))) == 48
    inverse = np.arange(256, dtype=np.uint8)[::-1]
    palette = np.stack([inverse] * 3, axis=1)
    assert find_banner(grey_levels(255 - image, palette)) == 48


# ---- through read_image: who decides, and what is recorded


def png(image: Grey) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def helios(image: Grey, rows: object) -> bytes:
    """A TIFF whose FEI tag claims a banner of ``rows``."""
    text = f"[Scan]\r\nPixelWidth=3e-09\r\nPixelHeight=3e-09\r\n[PrivateFei]\r\nDatabarHeight={rows}\r\n".encode()
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, extratags=[(34682, 2, len(text) + 1, text + b"\0", True)])
    return buffer.getvalue()


BANNERED = add_banner(specimen(11, 640, 480), 48, STYLES["fei"])


def test_the_tag_decides_when_the_pixels_agree() -> None:
    facts = read_image(helios(BANNERED, 48), name="a.tif").facts
    assert (facts.banner.height, facts.banner.source, facts.warnings) == (48, "tag", ())


@pytest.mark.parametrize("claimed", [20, 40, 46, 90, 300, 4000])
def test_the_pixels_decide_when_the_tag_is_wrong(claimed: int) -> None:
    facts = read_image(helios(BANNERED, claimed), name="a.tif").facts
    assert (facts.banner.height, facts.banner.source) == (48, "pixels")
    assert f"{claimed} rows" in facts.warnings[0]


def test_nothing_is_cut_when_the_tag_was_kept_but_the_banner_was_not() -> None:
    facts = read_image(helios(specimen(12, 640, 480), 48), name="a.tif").facts
    assert (facts.banner.height, facts.banner.source) == (0, "none")
    assert "nothing was cut" in facts.warnings[0]


@pytest.mark.parametrize("empty", ["", "0"])
def test_an_empty_tag_leaves_it_to_the_pixels(empty: str) -> None:
    assert read_image(helios(BANNERED, empty), name="a.tif").facts.banner.source == "pixels"


def test_the_flag_overrules_everything() -> None:
    data = helios(BANNERED, 48)
    off = read_image(data, name="a.tif", banner="off")
    assert (off.facts.banner.height, off.facts.banner.source, off.pixels.shape) == (0, "off", (528, 640, 3))
    for given_rows in (10, "10"):
        cut = read_image(data, name="a.tif", banner=given_rows)
        assert (cut.facts.banner.height, cut.facts.banner.source) == (10, "flag")
        assert cut.pixels.shape == (518, 640, 3)
        assert cut.original.shape == (518, 640)
        assert (cut.facts.width, cut.facts.height, cut.facts.cut_height) == (640, 528, 518)


@pytest.mark.parametrize("wrong", ["on", "-3", "3.5", "", -1])
def test_a_banner_that_is_no_banner_is_a_usage_error(wrong: str | int) -> None:
    with pytest.raises(UsageError):
        read_image(png(BANNERED), name="a.png", banner=wrong)


def test_a_banner_as_high_as_the_image_is_refused() -> None:
    with pytest.raises(ImageError, match="leaves nothing"):
        read_image(png(BANNERED), name="a.png", banner=528)


def test_the_cut_comes_before_the_stretch() -> None:
    """12-bit specimen between 1000 and 1400, banner at 0 and 65535: without the cut the specimen would be almost black."""
    image = specimen(13, 640, 480).astype(np.uint16) + 1000
    drawn = add_banner(np.zeros((1, 640), np.uint8), 48, STYLES["fei"])[1:].astype(np.uint16) * 257
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.vstack([image, drawn]))
    data = read_image(buffer.getvalue(), name="a.tif")
    assert data.facts.banner.height == 48
    assert data.facts.significant_bits == 11
    assert data.pixels.std() > 40
    assert np.ptp(data.pixels) == 255


# ---- the real files


@pytest.mark.parametrize(
    ("name", "rows", "source"),
    [
        ("FEI-Helios-Ebeam-8bits.tif", 29, "tag"),
        ("FEI-Helios-Ebeam-16bits.tif", 29, "tag"),
        ("test_tiff_Zeiss_SEM_1k.tif", 77, "pixels"),
        ("test_tiff_Zeiss_SEM_512pix.tif", 34, "pixels"),
    ],
)
def test_real_micrographs(shared_dir: Path, name: str, rows: int, source: str) -> None:
    data = read_image((shared_dir / "images" / "sem" / name).read_bytes(), name=name)
    assert (data.facts.banner.height, data.facts.banner.source) == (rows, source)
    levels = grey_levels(
        np.asarray(
            read_image(  # the same without the tag
                (shared_dir / "images" / "sem" / name).read_bytes(), name=name, banner="off"
            ).original
        )
    )
    assert find_banner(levels) == rows


@pytest.mark.parametrize("quality", [60, 75, 90])
@pytest.mark.parametrize(("name", "rows"), [("test_tiff_Zeiss_SEM_1k.tif", 77), ("test_tiff_Zeiss_SEM_512pix.tif", 34)])
def test_jpeg_copies_of_real_micrographs(shared_dir: Path, name: str, rows: int, quality: int) -> None:
    whole = read_image((shared_dir / "images" / "sem" / name).read_bytes(), name=name, banner="off").pixels
    assert abs(find_banner(jpeg(whole[..., 0], quality)) - rows) <= 2


@pytest.mark.parametrize("name", ["groceries.jpg", "truck.jpg"])
def test_photographs_have_none(shared_dir: Path, name: str) -> None:
    facts = read_image((shared_dir / "images" / name).read_bytes(), name=name).facts
    assert (facts.banner.height, facts.banner.source) == (0, "none")


def test_real_micrographs_cut_anywhere_above_the_banner_stay_whole(shared_dir: Path) -> None:
    name = "test_tiff_Zeiss_SEM_1k.tif"
    whole = read_image((shared_dir / "images" / "sem" / name).read_bytes(), name=name).pixels[..., 0]
    for bottom in range(120, len(whole) + 1, 7):
        assert find_banner(whole[:bottom]) == 0, bottom
        assert find_banner(jpeg(whole[:bottom], 70)) == 0, bottom
