"""Decoding: every kind of file scientists hand in, and everything that only pretends to be one."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from segment_duo.errors import ImageError
from segment_duo.images import IMAGE_SUFFIXES, read_image, stretch_to_uint8
from segment_duo.images.promises import read_promise

RNG = np.random.default_rng(4)
GREY = RNG.integers(0, 256, (48, 64), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (48, 64), dtype=np.uint16)


def tiff(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def pillow(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


# ---- what is read


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_8_bit_files_pass_untouched(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    for image in (GREY, COLOUR):
        data = read_image(pillow(image, kind, **options), name="a")
        expected = image if image.ndim == 3 else np.dstack([image] * 3)
        assert np.array_equal(data.pixels, expected)
        assert data.pixels.flags.c_contiguous
        assert data.facts.stretch == "none"
        assert data.facts.dtype == "uint8"


def test_facts() -> None:
    raw = tiff(DEEP)
    facts = read_image(raw, name="a.tif").facts
    assert (facts.width, facts.height, facts.format, facts.dtype, facts.channels) == (64, 48, "TIFF", "uint16", 1)
    assert (facts.page, facts.pages, facts.bytes, facts.significant_bits) == (0, 1, len(raw), 12)
    assert facts.sha256 == hashlib.sha256(raw).hexdigest()
    assert "percentiles 0.1-99.9" in facts.stretch


def test_jpeg_is_close() -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    data = read_image(pillow(smooth, "JPEG", quality=95), name="a.jpg")
    assert data.facts.format == "JPEG"
    assert np.abs(data.pixels[..., 0].astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    "dtype", ["uint16", "int16", "int8", "uint32", "int32", "float16", "float32", "float64", "int64"]
)
def test_deeper_samples_are_stretched_and_kept(dtype: str) -> None:
    ramp = np.linspace(-100 if np.dtype(dtype).kind != "u" else 10, 120, 48 * 64).reshape(48, 64).astype(dtype)
    data = read_image(tiff(ramp), name="a.tif")
    assert np.array_equal(data.original, ramp)
    assert data.original.dtype == np.dtype(dtype)
    assert data.pixels.min() == 0
    assert data.pixels.max() == 255
    assert np.all(np.diff(data.pixels[..., 0].ravel().astype(int)) >= 0)
    assert (data.facts.significant_bits is None) == (np.dtype(dtype).kind == "f")


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "jpeg"])
@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_compressed_tiff(compression: str, image: np.ndarray) -> None:
    data = read_image(tiff(image, compression=compression), name="a.tif")
    if compression != "jpeg":
        assert np.array_equal(data.original, image)
    assert data.pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 7},
        {"predictor": True, "compression": "lzw"},
    ],
    ids=str,
)
def test_tiff_layouts(options: dict[str, object]) -> None:
    data = read_image(tiff(DEEP, **options), name="a.tif")
    assert np.array_equal(data.original, DEEP)
    assert data.facts.format == ("BigTIFF" if "bigtiff" in options else "TIFF")


def test_planar_and_16_bit_colour() -> None:
    planar = read_image(tiff(np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate"), name="a.tif")
    assert np.array_equal(planar.original, COLOUR)
    deep = COLOUR.astype(np.uint16) * 257
    assert np.array_equal(read_image(tiff(deep, photometric="rgb"), name="a.tif").original, deep)


def test_16_bit_png_keeps_all_bits() -> None:
    import imagecodecs

    for stored in (DEEP, COLOUR.astype(np.uint16) * 200):
        data = read_image(imagecodecs.png_encode(stored), name="a.png")
        assert np.array_equal(data.original, stored)
        assert data.facts.dtype == "uint16"


def test_pages() -> None:
    stack = RNG.integers(0, 256, (3, 48, 64), dtype=np.uint8)
    raw = tiff(stack, photometric="minisblack")
    for page in range(3):
        data = read_image(raw, name="a.tif", page=page)
        assert np.array_equal(data.original, stack[page])
        assert (data.facts.page, data.facts.pages) == (page, 3)
    for page in (3, -1):
        with pytest.raises(ImageError, match="3 pages, 0 to 2"):
            read_image(raw, name="a.tif", page=page)
    with pytest.raises(ImageError, match="one page"):
        read_image(pillow(GREY, "PNG"), name="a.png", page=1)


def test_imagej_stack_in_one_page() -> None:
    stack = RNG.integers(0, 60000, (4, 48, 64), dtype=np.uint16)
    raw = tiff(stack, imagej=True)
    # ImageJ itself writes only the first directory of a large stack: cut the chain after it.
    header = bytearray(raw)
    with tifffile.TiffFile(io.BytesIO(raw)) as tif:
        place, order = tif.pages[0].offset, tif.byteorder
    count = struct.unpack_from(f"{order}H", header, place)[0]
    struct.pack_into(f"{order}I", header, place + 2 + 12 * count, 0)
    data = read_image(bytes(header), name="a.tif", page=2)
    assert data.facts.pages == 4
    assert np.array_equal(data.original, stack[2])


def test_palettes() -> None:
    indices = RNG.integers(0, 200, (48, 64), dtype=np.uint8)
    ramp = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    grey = read_image(tiff(indices, photometric="palette", colormap=ramp), name="a.tif")
    assert np.array_equal(grey.original, 255 - indices)
    assert grey.original.ndim == 2
    colours = ramp.copy()
    colours[1, 7] = 0
    coloured = read_image(tiff(indices, photometric="palette", colormap=colours), name="a.tif")
    assert coloured.original.shape == (48, 64, 3)
    image = Image.fromarray(COLOUR).quantize(32)
    assert np.array_equal(read_image(pillow(image, "PNG"), name="a.png").pixels, np.asarray(image.convert("RGB")))


def test_alpha_is_ignored_with_a_warning() -> None:
    alpha = np.dstack([COLOUR, GREY])
    for raw in (pillow(alpha, "PNG"), tiff(alpha, photometric="rgb", extrasamples=["unassalpha"])):
        data = read_image(raw, name="a")
        assert np.array_equal(data.pixels, COLOUR)
        assert data.facts.channels == 4
        assert "transparency" in data.facts.warnings[0]
    opaque = read_image(pillow(np.dstack([COLOUR, np.full_like(GREY, 255)]), "PNG"), name="a.png")
    assert opaque.facts.warnings == ()
    two = read_image(pillow(Image.merge("LA", [Image.fromarray(GREY)] * 2), "PNG"), name="a.png")
    assert np.array_equal(two.original, GREY)


def test_bilevel_and_shallow_depths() -> None:
    bits = GREY > 127
    for raw in (
        pillow(Image.fromarray(bits), "PNG"), pillow(Image.fromarray(bits), "TIFF"),
        tiff(bits, photometric="minisblack"), tiff(~bits, photometric="miniswhite"),
        pillow(Image.fromarray(bits), "TIFF", compression="group4"),
    ):  # fmt: skip
        data = read_image(raw, name="a")
        assert np.array_equal(data.pixels[..., 0], bits * np.uint8(255))
        assert data.facts.significant_bits == 1
    four = read_image(pillow(Image.fromarray(GREY // 16 * 17), "PNG", bits=4), name="a.png")
    assert np.array_equal(four.pixels[..., 0], GREY // 16 * 17)
    shallow = read_image(four_bit_tiff(GREY[:, :64] // 16), name="a.tif")
    assert np.array_equal(shallow.pixels[..., 0], GREY // 16 * 17)


def four_bit_tiff(levels: np.ndarray) -> bytes:
    """A grey TIFF of 4 bits a sample, which tifffile reads but does not write: built from an 8-bit one of half the width."""
    packed = (levels[:, ::2] << 4 | levels[:, 1::2]).astype(np.uint8)
    raw = bytearray(tiff(packed))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as tif:
        struct.pack_into("<I", raw, tif.pages[0].tags[256].offset + 8, levels.shape[1])
        struct.pack_into("<H", raw, tif.pages[0].tags[258].offset + 8, 4)
    return bytes(raw)


def test_white_is_zero_is_turned_round() -> None:
    for image in (GREY, DEEP):
        data = read_image(tiff(image, photometric="miniswhite"), name="a.tif")
        assert np.array_equal(data.original, np.iinfo(image.dtype).max - image)


def test_without_a_word_about_it_larger_is_brighter() -> None:
    for image in (GREY, DEEP, COLOUR):
        data = read_image(patched(tiff(image), 262, int, rename=65000), name="a.tif")
        assert np.array_equal(data.original, image)
        assert data.facts.warnings == ()


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}], ids=str)
def test_a_predictor_beside_no_compression_is_none(options: dict[str, object]) -> None:
    for image in (GREY, DEEP, COLOUR):
        raw = patched(tiff(image, extratags=[(65000, 3, 1, 2, True)], **options), 65000, int, rename=317)
        with tifffile.TiffFile(io.BytesIO(raw)) as tif:
            assert int(tif.pages[0].predictor) == 2
        assert np.array_equal(read_image(raw, name="a.tif").original, image)


def test_cmyk_is_converted_and_said_so() -> None:
    ink = np.dstack([COLOUR, np.zeros_like(GREY)])
    data = read_image(tiff(ink, photometric="separated"), name="a.tif")
    assert np.array_equal(data.pixels, 255 - COLOUR)
    jpeg = read_image(pillow(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), name="a.jpg")
    for found in (data, jpeg):
        assert found.pixels.shape == (48, 64, 3)
        assert any("CMYK" in w for w in found.facts.warnings)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[274] = orientation
    raw = pillow(COLOUR, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(raw))))
    assert np.array_equal(read_image(raw, name="a.png").pixels, expected)
    turned = read_image(tiff(COLOUR, extratags=[(274, 3, 1, orientation, True)]), name="a.tif")
    assert np.array_equal(turned.pixels, expected)
    assert (turned.facts.height, turned.facts.width) == expected.shape[:2]


def test_multichannel_without_colours_shows_the_first_three() -> None:
    five = RNG.integers(0, 256, (48, 64, 5), dtype=np.uint8)
    data = read_image(tiff(five, photometric="minisblack", planarconfig="contig"), name="a.tif")
    assert np.array_equal(data.pixels, five[..., :3])
    assert "first three" in data.facts.warnings[0]


# ---- what is refused


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "an empty file"),
        (b"\0" * 5000, "zero bytes"),
        (b"<!DOCTYPE html><html><body>Login</body></html>", "a web page"),
        (b"\n  <html lang='en'>", "a web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"<?xml version='1.0'?><a/>", "XML"),
        (b"GIF89a" + b"\0" * 50, "GIF"),
        (b"%PDF-1.7", "PDF"),
        (b"just a note", "text"),
        (bytes(range(1, 256)), "unknown binary data"),
        (b"\x80\x04K\x01.", "pickle"),
    ],
)
def test_what_is_not_an_image_is_named(raw: bytes, found: str) -> None:
    with pytest.raises(ImageError, match=found) as caught:
        read_image(raw, name="sample.tif")
    assert caught.value.message.startswith("sample.tif: not an image")
    assert caught.value.hint


WHOLE = {
    "png": pillow(COLOUR, "PNG"),
    "jpeg": pillow(COLOUR, "JPEG"),
    "bmp": pillow(COLOUR, "BMP"),
    "webp": pillow(COLOUR, "WEBP"),
    "tiff": tiff(COLOUR),
    "lzw": tiff(DEEP, compression="lzw", rowsperstrip=8),
    "tiles": tiff(DEEP, tile=(16, 16)),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.97])
def test_truncated_files_are_refused(kind: str, part: float) -> None:
    raw = WHOLE[kind]
    with pytest.raises(ImageError):
        read_image(raw[: int(len(raw) * part)], name="a")


@given(st.sampled_from(sorted(WHOLE)), st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_files_are_read_or_refused_but_never_crash(kind: str, data: st.DataObject) -> None:
    raw = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 600)))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(bytes(raw), name="a", max_pixels=4_000_000)
        except ImageError:
            return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (image.facts.cut_height, image.facts.width, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_too_large_is_refused_before_anything_is_allocated() -> None:
    huge_tiff = bytearray(tiff(np.zeros((4, 4), np.uint8)))
    with tifffile.TiffFile(io.BytesIO(bytes(huge_tiff))) as tif:
        for code in (256, 257):
            struct.pack_into("<I", huge_tiff, tif.pages[0].tags[code].offset + 8, 60_000)
    for raw in (png_header(60_000, 60_000), bytes(huge_tiff)):
        with pytest.raises(ImageError, match=r"60000 x 60000 = 3600000000 pixels, more than the limit") as caught:
            read_image(raw, name="a")
        assert "--max-pixels 3600000000" in caught.value.hint
    assert Image.MAX_IMAGE_PIXELS is not None


def test_the_limit_is_ours_and_can_be_set() -> None:
    raw = pillow(GREY, "PNG")
    assert read_image(raw, name="a.png", max_pixels=48 * 64).facts.width == 64
    with pytest.raises(ImageError, match="more than the limit of 3071"):
        read_image(raw, name="a.png", max_pixels=48 * 64 - 1)
    many = np.zeros((8, 8, 70), np.uint8)
    with pytest.raises(ImageError, match="when decoded"):
        read_image(tiff(many, photometric="minisblack", planarconfig="contig"), name="a.tif", max_pixels=64)


def test_what_we_do_not_read_is_said_plainly() -> None:
    with pytest.raises(ImageError, match="complex"):
        read_image(tiff(np.zeros((4, 4), np.complex64)), name="a.tif")
    with pytest.raises(ImageError, match="CIELab"):
        read_image(tiff(COLOUR, photometric="cielab"), name="a.tif")
    with pytest.raises(ImageError, match="volume of 5 planes"):
        read_image(tiff(np.zeros((5, 32, 32), np.uint8), volumetric=True), name="a.tif")


def test_a_missing_strip_is_not_filled_with_zeros() -> None:
    raw = bytearray(tiff(GREY, rowsperstrip=48))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as tif:
        struct.pack_into("<I", raw, tif.pages[0].tags[273].offset + 8, len(raw) + 5000)
    with pytest.raises(ImageError, match="truncated"):
        read_image(bytes(raw), name="a.tif")


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3), (45, 61), (3, 45, 61)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}, {"predictor": True}, {"predictor": True, "tile": (16, 16)}],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_lzw_is_read_as_tifffile_reads_it(
    dtype: str, options: dict[str, object], shape: tuple[int, ...], byteorder: str
) -> None:
    image = RNG.integers(0, 200, shape).astype(dtype)
    colour = {"photometric": "rgb", "planarconfig": "separate" if shape[0] == 3 else "contig"} if 3 in shape else {}
    raw = tiff(image, compression="lzw", byteorder=byteorder, **options, **colour)
    expected = np.moveaxis(image, 0, -1) if shape[0] == 3 else image
    assert np.array_equal(read_image(raw, name="a").original, expected)


def lzw_strip(raw: bytes) -> tuple[int, int]:
    with tifffile.TiffFile(io.BytesIO(raw)) as tif:
        page = tif.pages[0]
        return page.dataoffsets[0], page.databytecounts[0]


def test_a_short_lzw_strip_is_not_filled_with_zeros() -> None:
    raw = bytearray(tiff(DEEP, compression="lzw"))
    offset, count = lzw_strip(bytes(raw))
    raw[offset + count // 2 : offset + count] = bytes(count - count // 2)  # the rest of a broken copy
    with pytest.raises(ImageError, match="damaged"):
        read_image(bytes(raw), name="a.tif")
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as tif:
        struct.pack_into("<I", raw, tif.pages[0].tags[279].offset + 8, count // 2)
    with pytest.raises(ImageError, match="damaged"):
        read_image(bytes(raw), name="a.tif")


def test_damaged_lzw_codes_do_not_take_the_process_with_them() -> None:
    """imagecodecs' decoder followed codes that no table holds; some memory contents made that a segmentation fault."""
    raw = tiff(DEEP, compression="lzw", rowsperstrip=8)
    offset, count = lzw_strip(raw)
    refused = 0
    for position in range(offset, offset + count, 3):
        for value in (0, 0x7F, 0xFF):
            damaged = bytearray(raw)
            damaged[position] = value
            try:
                read_image(bytes(damaged), name="a")
            except ImageError:
                refused += 1
    assert refused > 100


# ---- byte counts that say nothing, and headers that say too much


def patched(raw: bytes, code: int, change: Callable[[int], int], *, rename: int = 0) -> bytes:
    """The file with the values of one tag of its first page changed, or the tag called something else."""
    out = bytearray(raw)
    with tifffile.TiffFile(io.BytesIO(raw)) as tif:
        tag, order = tif.pages[0].tags[code], tif.byteorder
    if rename:
        struct.pack_into(f"{order}H", out, tag.offset, rename)
        return bytes(out)
    kind = {3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
    mask = 2 ** (8 * struct.calcsize(kind)) - 1
    values = struct.unpack_from(f"{order}{tag.count}{kind}", raw, tag.valueoffset)
    struct.pack_into(f"{order}{tag.count}{kind}", out, tag.valueoffset, *(change(value) & mask for value in values))
    return bytes(out)


@pytest.mark.parametrize(
    "change", [lambda n: 0, lambda n: n // 2, lambda n: -n, lambda n: 1], ids=["0", "half", "negative", "1"]
)
@pytest.mark.parametrize(
    "options", [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}], ids=str
)
@pytest.mark.parametrize("image", [GREY, DEEP, COLOUR, DEEP.astype(np.float32)], ids=["8", "16", "colour", "float"])
def test_uncompressed_pixels_are_read_from_the_geometry(
    image: np.ndarray, options: dict[str, object], change: Callable[[int], int]
) -> None:
    raw = tiff(image, **options, **({"photometric": "rgb"} if image.ndim == 3 else {}))
    raw = patched(raw, 325 if "tile" in options else 279, change)
    assert np.array_equal(read_image(raw, name="a.tif").original, image)


def test_a_zero_count_of_one_of_many_strips_and_no_counts_at_all() -> None:
    raw = tiff(DEEP, rowsperstrip=7)
    for wrong in ([0], [3], [0, 2, 5]):
        calls = iter(range(100))
        one = patched(raw, 279, lambda count, calls=calls, wrong=wrong: 0 if next(calls) in wrong else count)
        assert np.array_equal(read_image(one, name="a.tif").original, DEEP)
    for options in ({}, {"rowsperstrip": 7}):
        assert np.array_equal(
            read_image(patched(tiff(DEEP, **options), 279, int, rename=65001), name="a").original, DEEP
        )


@pytest.mark.parametrize("compression", ["lzw", "zlib", "jpeg"])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 16}], ids=str)
def test_compressed_data_that_hold_their_own_end_need_no_count(compression: str, options: dict[str, object]) -> None:
    raw = tiff(GREY, compression=compression, **options)
    expected = read_image(raw, name="a").original
    assert np.array_equal(read_image(patched(raw, 279, lambda n: 0), name="a").original, expected)


def test_counts_are_not_mended_beyond_the_end_of_the_file() -> None:
    raw = tiff(DEEP, rowsperstrip=7)
    for short in (raw[:-1], raw[:-300]):
        with pytest.raises(ImageError, match=r"truncated|missing"):
            read_image(patched(short, 279, lambda n: 0), name="a")
    calls = iter(range(100))
    nowhere = patched(raw, 273, lambda n: 0 if next(calls) == 3 else n)
    with pytest.raises(ImageError, match="a strip or tile is missing"):
        read_image(nowhere, name="a")
    few = bytearray(raw)
    for code in (273, 279):
        with tifffile.TiffFile(io.BytesIO(raw)) as tif:
            struct.pack_into("<I", few, tif.pages[0].tags[code].offset + 4, 3)
    with pytest.raises(ImageError, match="a strip or tile is missing"):
        read_image(bytes(few), name="a")


def lying(kind: str, width: int = 19_000, height: int = 20_000) -> bytes:
    """A small file whose header claims a large picture."""
    if kind.startswith("TIFF"):
        raw = bytearray(tiff(COLOUR, compression=kind.split()[1], photometric="rgb"))
    else:
        raw = bytearray(
            pillow(COLOUR, kind.split(maxsplit=1)[0], **({"progressive": True} if "progressive" in kind else {}))
        )
    if "JPEG" in kind or "jpeg" in kind:
        start = next(raw.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in raw)
        struct.pack_into(">HH", raw, start + 5, height, width)
    elif kind == "PNG":
        struct.pack_into(">II", raw, 16, width, height)
        struct.pack_into(">I", raw, 29, zlib.crc32(raw[12:29]))
    elif kind == "BMP":
        struct.pack_into("<ii", raw, 18, width, height)
    else:
        for code, value in ((256, width), (257, height), (278, height)):
            raw = bytearray(patched(bytes(raw), code, lambda n, value=value: value))
    return bytes(raw)


@pytest.mark.parametrize(
    "kind", ["JPEG", "JPEG progressive", "PNG", "BMP", "TIFF jpeg", "TIFF zlib", "TIFF lzw", "TIFF packbits"]
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused_without_memory(kind: str) -> None:
    raw = lying(kind)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="damaged"):
            read_image(raw, name="a")
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([1, 3]),
    st.integers(1, 95),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_no_true_file_is_taken_for_a_lying_one(
    width: int, height: int, channels: int, quality: int, subsampling: int, progressive: bool, noisy: bool
) -> None:
    image = (
        np.full((height, width, channels), 7, np.uint8)
        if not noisy
        else RNG.integers(0, 255, (height, width, channels)).astype(np.uint8)
    )
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive, "optimize": True}
    for kind, extra in (("JPEG", options), ("PNG", {"compress_level": 9}), ("BMP", {})):
        raw = pillow(picture, kind, **extra)
        promise = read_promise(raw, kind)
        assert promise is not None
        assert (promise.width, promise.height) == (width, height)
        assert promise.least_bytes <= len(raw)
        assert read_image(raw, name="a").facts.width == width


def test_odd_files_write_nothing_to_stderr(tmp_path: Path) -> None:
    """libtiff and Pillow would; in a terminal UI their lines tear the screen. In a process of its own, for libraries write past Python."""
    bilevel = DEEP.mean() < DEEP
    files = {
        "fax": pillow(Image.fromarray(bilevel), "TIFF", compression="group4"),
        "fax3": pillow(Image.fromarray(bilevel), "TIFF", compression="group3"),
        "exif": pillow(GREY, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x40\0\x12\x01\x03\0\xff\xff\0\0" + bytes(40)),
        "palette": palette_with_transparent_bytes(),
        "jpeg": pillow(COLOUR, "JPEG")[:-200] + b"\xff\xd9",
    }
    files["fax0"] = patched(files["fax"], 279, lambda n: 0)
    for name in ("fax", "fax3"):
        raw = bytearray(files[name])
        offset, count = lzw_strip(bytes(raw))
        raw[offset + count // 3 : offset + count // 2] = bytes(count // 2 - count // 3)  # no code has so many zeros
        files[f"broken {name}"] = bytes(raw)
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    code = (
        "import pathlib, sys\nfrom segment_duo.images import read_image\nfrom segment_duo.errors import ImageError\n"
        "for f in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: print(f.name, read_image(f.read_bytes(), name=f.name).facts.format)\n"
        "    except ImageError as error: print(f.name, 'refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-Wdefault", "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    read = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert read.keys() == files.keys()
    assert read["fax"] == read["fax0"] == "TIFF"
    assert read["broken fax"] in (
        "refused",
        "TIFF",
    )  # libtiff from 2026.10.10 of imagecodecs on fills the lines it cannot read
    assert np.array_equal(read_image(files["fax"], name="a").pixels[..., 0] > 0, bilevel)
    assert np.array_equal(read_image(files["fax0"], name="a").pixels[..., 0] > 0, bilevel)


def palette_with_transparent_bytes() -> bytes:
    image = Image.fromarray(GREY).convert("P")
    return pillow(image, "PNG", transparency=bytes(range(256)))


@pytest.mark.parametrize("inverted", [0, 1])
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_pages_keep_black_and_white(compression: str, inverted: int) -> None:
    bilevel = DEEP.mean() < DEEP
    buffer = io.BytesIO()
    first, second = Image.fromarray(bilevel), Image.fromarray(~bilevel)
    first.save(buffer, "TIFF", compression=compression, tiffinfo={262: inverted}, save_all=True, append_images=[second])
    assert np.array_equal(read_image(buffer.getvalue(), name="a").original, bilevel)
    assert np.array_equal(read_image(buffer.getvalue(), name="a", page=1).original, ~bilevel)


def test_samples_that_are_no_numbers_are_counted() -> None:
    samples = DEEP.astype(np.float32)
    assert read_image(tiff(samples), name="a").facts.warnings == ()
    samples[:2] = np.nan
    samples[5, 5] = np.inf
    [warning] = read_image(tiff(samples), name="a").facts.warnings
    assert warning.startswith(f"{2 * samples.shape[1] + 1} of {samples.size} samples are not finite")


# ---- stretch


def test_12_bit_data_in_a_16_bit_file_is_not_white() -> None:
    pixels = read_image(tiff(DEEP), name="a.tif").pixels
    assert 120 < pixels.mean() < 136
    assert np.mean(pixels == 255) < 0.01


@given(arrays.arrays(st.sampled_from([np.uint16, np.int16, np.float32]), (7, 9)))
@settings(max_examples=60, deadline=None)
def test_the_stretch_keeps_the_order(samples: np.ndarray) -> None:
    out = stretch_to_uint8(samples).pixels
    assert out.dtype == np.uint8
    finite = np.isfinite(samples)
    order = np.argsort(samples[finite], kind="stable")
    assert np.all(np.diff(out[finite][order].astype(int)) >= 0)


def test_nan_and_infinity_and_constants() -> None:
    samples = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    samples[0, :3] = (np.nan, np.inf, -np.inf)
    out = stretch_to_uint8(samples).pixels
    assert list(out[0, :3]) == [0, 255, 0]
    assert out.max() == 255
    for value in (0, 7.5, -3, np.nan, np.inf):
        flat = stretch_to_uint8(np.full((4, 5), value, np.float32))
        assert not flat.pixels.any()
        assert "constant" in flat.description
    one = np.zeros((100, 100), np.uint16)
    one[50, 50] = 9
    assert stretch_to_uint8(one).pixels[50, 50] == 255  # percentiles coincide, the extremes do not
    assert not stretch_to_uint8(np.full((3, 3), 77, np.uint16)).pixels.any()
    with pytest.raises(ValueError, match="cannot be shown"):
        stretch_to_uint8(np.zeros((2, 2), np.complex64))


def test_hot_pixels_do_not_darken_the_rest_and_percentiles_are_exact() -> None:
    samples = RNG.integers(1000, 2000, (400, 400), dtype=np.uint16)
    samples.flat[::4000] = 65535
    stretched = stretch_to_uint8(samples)
    assert 120 < np.median(stretched.pixels) < 135
    low, high = np.percentile(samples, (0.1, 99.9), method="lower")
    assert f"{low:.6g}..{high:.6g}" in stretched.description


def test_colour_channels_share_the_stretch() -> None:
    samples = np.zeros((50, 50, 3), np.uint16)
    samples[..., 0] = np.linspace(0, 1000, 2500).reshape(50, 50)
    samples[..., 1] = samples[..., 0] // 2
    out = stretch_to_uint8(samples).pixels
    assert not out[..., 2].any()
    assert out[..., 1].max() == pytest.approx(out[..., 0].max() / 2, abs=2)


def test_extreme_floats_do_not_overflow() -> None:
    top = np.finfo(np.float64).max
    assert list(stretch_to_uint8(np.array([[-top, 0.0, top]])).pixels[0]) in ([0, 127, 255], [0, 128, 255])


# ---- the package


def test_importing_is_light() -> None:
    code = (
        "import sys, segment_duo.images, segment_duo.images.view, segment_duo.images.banner;"
        "bad = {'numpy', 'PIL', 'tifffile', 'imagecodecs', 'scipy', 'xml.etree.ElementTree'} & set(sys.modules);"
        "sys.exit(' '.join(sorted(bad)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_suffixes_cover_what_is_read() -> None:
    assert {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp"} == IMAGE_SUFFIXES


def test_what_is_found_is_named_only_when_it_is_known() -> None:
    from segment_duo.images.decode import sniff

    assert sniff(b"\x80\x04\x95" + bytes(20)) == "a Python pickle"
    assert sniff(b"\x80\xff\x12\x88" * 9) == "unknown binary data"


def test_a_png_of_nothing_but_a_header_is_described_without_python_objects() -> None:
    with pytest.raises(ImageError) as refusal:
        read_image(b"\x89PNG\r\n\x1a\n" + bytes(20), name="hdr.png")
    assert "hdr.png: damaged or unreadable PNG file" in refusal.value.message
    assert "object at" not in refusal.value.message
