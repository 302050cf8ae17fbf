"""From a file's bytes to samples: TIFF through tifffile, PNG, JPEG, BMP and WebP through Pillow.

The type is told by the content, never by the name. Sizes are checked against our own limit before anything is allocated. Every
failure, whatever a library raised, leaves this module as one :class:`ImageError` that names the file and what was found.

This module must not interpret instrument tags, cut banners or stretch; it only carries the raw tags along.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from segment_duo.errors import ImageError, SegduoError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IMAGE_SUFFIXES: frozenset[str] = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Lower-case extensions, with the dot, of the files we open."""

MAKER_TAGS = (34118, 34680, 34682, 34683, 50431)
"""Zeiss, FEI S-FEG, FEI Helios, FEI Titan and Phenom, Tescan."""

_READ = frozenset({"TIFF", "PNG", "JPEG", "BMP", "WebP"})
_MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "a GIF file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive (or an Office file)"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x80", "a Python pickle"),
)
_MAX_BYTES_PER_PIXEL = 16
_TRANSPARENT = "transparency is ignored; the colours beneath are used"
# Pillow has only a global limit on pixels, checked while a header is read.
_pillow_limit = threading.Lock()


@dataclass(frozen=True, slots=True)
class TiffTags:
    """What instrument readers need of a TIFF page; ``raw`` holds the bytes of the private tags in ``MAKER_TAGS``."""

    raw: Mapping[int, bytes]
    make: str = ""
    model: str = ""
    description: str = ""
    x_resolution: float | None = None
    y_resolution: float | None = None
    is_ome: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One page of a file.

    Attributes:
        samples: (height, width) or (height, width, 3), upright, brighter is larger, alpha removed. Palette indices when ``palette`` is given.
        palette: uint8 (entries, 3), or None.
        format: ``PNG``, ``JPEG``, ``BMP``, ``WebP``, ``TIFF`` or ``BigTIFF``.
        dtype: NumPy's name of the samples as stored.
        channels: samples per pixel as stored, alpha included.
        sideways: the orientation tag swapped width and height.
    """

    samples: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None
    format: str
    dtype: str
    channels: int
    pages: int
    tags: TiffTags | None = None
    sideways: bool = False
    warnings: tuple[str, ...] = field(default=())


def decode(data: bytes, *, name: str, page: int, max_pixels: int) -> Decoded:
    """Decode page ``page`` (counted from 0) of ``data``.

    Raises:
        ImageError: not an image, damaged, of a kind we do not read, without that page, or larger than ``max_pixels``.
    """
    kind = sniff(data)
    try:
        if kind == "TIFF":
            return _decode_tiff(data, name, page, max_pixels)
        if kind in _READ:
            return _decode_pillow(data, kind, name, page, max_pixels)
    except SegduoError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode this image") from error
    except (
        Exception
    ) as error:  # broken files raise whatever a decoder happens to raise (struct, zlib, index and value errors)
        raise ImageError(
            f"{name}: damaged or unreadable {kind} file ({type(error).__name__}: {error})",
            "copy the file again, or export it anew from the program that made it",
        ) from error
    hint = "PNG, JPEG, TIFF, BMP and WebP can be read"
    if kind == "a web page (HTML)":
        hint = "the server sent a page instead of the file: check the path and the login"
    raise ImageError(f"{name}: not an image; found {kind}", hint)


def sniff(data: bytes) -> str:
    """Name the kind of ``data``: ``TIFF``, ``PNG``, ``JPEG``, ``BMP``, ``WebP``, or a phrase for an error message."""
    if data[8:12] == b"WEBP" and data.startswith(b"RIFF"):
        return "WebP"
    if data.startswith(b"BM") and len(data) >= 26:
        return "BMP"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    return _describe_text(data) if data.strip(b"\0") else "nothing but zero bytes" if data else "an empty file"


def _describe_text(data: bytes) -> str:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<html" in head or head.startswith((b"<!doctype html", b"<head", b"<body")):
        return "a web page (HTML)"
    if not all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "unknown binary data"
    if head.startswith(b"<"):
        return "XML text"
    return "JSON text" if head.startswith((b"{", b"[")) else "text"


def _check_size(name: str, width: int, height: int, bytes_per_pixel: float, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: damaged file, its size is {width} x {height} pixels")
    hint = f"--max-pixels {width * height} opens it, if the memory suffices"
    if width * height > max_pixels:
        message = f"{name}: {width} x {height} = {width * height} pixels, more than the limit of {max_pixels}"
        raise ImageError(message, hint)
    if width * height * bytes_per_pixel > max_pixels * _MAX_BYTES_PER_PIXEL:
        size = width * height * bytes_per_pixel / 2**20
        hint = f"--max-pixels {int(-(-width * height * bytes_per_pixel // _MAX_BYTES_PER_PIXEL))} opens it, if the memory suffices"
        raise ImageError(
            f"{name}: {size:.0f} MiB when decoded, more than {_MAX_BYTES_PER_PIXEL} x {max_pixels} bytes", hint
        )


def _check_page(name: str, page: int, pages: int) -> None:
    if not 0 <= page < pages:
        what = "one page, number 0" if pages == 1 else f"{pages} pages, 0 to {pages - 1}"
        raise ImageError(f"{name}: there is no page {page}; the file has {what}", "choose another one with --page")


def _upright(samples: npt.NDArray[Any], orientation: int) -> tuple[npt.NDArray[Any], bool]:
    """Undo the EXIF/TIFF orientation 1..8 (TIFF 6.0, tag 274); the second value says whether width and height were swapped."""
    import numpy as np

    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    if orientation not in {2, 3, 4, 5, 6, 7, 8}:
        return samples, False
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    return np.ascontiguousarray(np.flip(samples, flips.get(orientation, ()))), orientation >= 5


# ---------------------------------------------------------------------------------------------------------------------- TIFF


@contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """tifffile reports odd tags through logging; on a terminal that would appear as stray lines."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _decode_tiff(data: bytes, name: str, page_number: int, max_pixels: int) -> Decoded:
    import tifffile

    with _quiet_tifffile(), tifffile.TiffFile(io.BytesIO(data)) as tif:
        pages = len(tif.pages)
        if pages == 0:
            raise ImageError(f"{name}: damaged TIFF file, it holds no image")
        frames = _hidden_frames(tif) if pages == 1 else 1
        _check_page(name, page_number, max(pages, frames))
        page = tif.pages[0 if frames > 1 else page_number]
        if not isinstance(page, tifffile.TiffPage):
            page = page.aspage()
        _check_tiff_page(page, name, max_pixels, len(data), lone=frames == 1)
        stored = _read_ccitt(data, page_number) if page.compression in {2, 3, 4} else None
        if stored is None:
            stored = _frame(tif, page_number) if frames > 1 else page.asarray()
        tags = _tiff_tags(page, data, is_ome=bool(tif.is_ome))
        first = replace(
            _arrange_tiff(stored, page),
            format="BigTIFF" if tif.is_bigtiff else "TIFF",
            pages=max(pages, frames),
            tags=tags,
        )
        orientation = page.tags.valueof(274, default=1)
    samples, sideways = _upright(first.samples, int(orientation) if isinstance(orientation, int) else 1)
    return replace(first, samples=samples, sideways=sideways)


def _hidden_frames(tif: Any) -> int:
    """ImageJ writes large stacks as one page followed by the raw planes; tifffile then gives a series larger than its page."""
    if not tif.is_imagej:
        return 1
    page, series = tif.pages[0], tif.series[0]
    return int(series.size // page.size) if page.size and series.size % page.size == 0 else 1


def _frame(tif: Any, number: int) -> npt.NDArray[Any]:
    """Plane ``number`` of an ImageJ stack in one page, without reading the others."""
    import numpy as np

    page = tif.pages[0]
    dtype = np.dtype(tif.byteorder + page.dtype.char)
    offset = int(page.dataoffsets[0]) + number * page.size * dtype.itemsize
    raw = tif.filehandle
    raw.seek(offset)
    plane = np.frombuffer(raw.read(page.size * dtype.itemsize), dtype)
    shape: tuple[int, ...] = page.shape
    return plane.reshape(shape).astype(dtype.newbyteorder("="))


def _check_tiff_page(page: Any, name: str, max_pixels: int, length: int, *, lone: bool) -> None:
    samples = int(page.samplesperpixel)
    depth = int(getattr(page, "imagedepth", 1) or 1)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    _check_size(name, int(page.imagewidth), int(page.imagelength) * depth, samples * max(8, int(bits)) / 8, max_pixels)
    if depth > 1:
        raise ImageError(f"{name}: a volume of {depth} planes in one page is not supported", "export single planes")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ImageError(f"{name}: TIFF samples of this type (complex or unknown) cannot be read")
    unsupported = {5: "", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "raw camera"}
    photometric = int(page.photometric)
    if photometric in unsupported and unsupported[photometric] and int(page.compression) not in {6, 7}:
        raise ImageError(f"{name}: {unsupported[photometric]} TIFF files cannot be read", "export it as grey or RGB")
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n]
    if not ends or (lone and max(ends) > length):
        found = "no pixel data" if not ends else f"its pixels should reach byte {max(ends)} of {length}"
        raise ImageError(f"{name}: truncated TIFF file, {found}", "copy the file again")


def _read_ccitt(data: bytes, page: int) -> npt.NDArray[Any] | None:
    """Fax-compressed pages through Pillow's libtiff, which handles all variants; True where the page is white."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        image.seek(page)
        return np.array(image.convert("1"))


def _arrange_tiff(stored: npt.NDArray[Any], page: Any) -> Decoded:
    """Order the axes as (height, width[, channel]), drop alpha, and undo inversion, CMYK and depths below 8 bits."""
    import numpy as np

    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    photometric = int(page.photometric)
    channels = samples
    if samples > 1 and int(page.planarconfig) == 2:
        stored = np.moveaxis(stored.reshape(samples, height, width), 0, -1)
    else:
        stored = stored.reshape((height, width, samples) if samples > 1 else (height, width))
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    dtype = str(stored.dtype)
    warnings: list[str] = []
    palette = None
    if photometric == 3 and page.colormap is not None and samples == 1:
        palette = _palette_to_8_bits(np.asarray(page.colormap))
        stored = (
            np.minimum(stored.astype(np.intp, copy=False), len(palette) - 1)
            if stored.max(initial=0) >= len(palette)
            else stored
        )
        return Decoded(stored, palette, "TIFF", dtype, channels, 1)
    if photometric == 0 and int(page.compression) not in {2, 3, 4}:
        stored = _inverted(stored, int(bits))
    if stored.dtype == np.uint8 and int(bits) < 8:
        stored = (stored.astype(np.uint16) * 255 // (2 ** int(bits) - 1)).astype(np.uint8)
    if photometric == 5:
        stored = _cmyk_to_rgb(stored)
        warnings.append("CMYK colours were converted to RGB without a colour profile")
    stored = _without_extras(stored, photometric, tuple(int(e) for e in page.extrasamples), warnings)
    return Decoded(stored, None, "TIFF", dtype, channels, 1, warnings=tuple(warnings))


def _without_extras(
    stored: npt.NDArray[Any], photometric: int, extras: tuple[int, ...], warnings: list[str]
) -> npt.NDArray[Any]:
    """Leave one or three channels: alpha (extra sample 1 or 2, TIFF 6.0 tag 338) and unknown extras are dropped with a warning."""
    if stored.ndim == 2:
        return stored
    channels = stored.shape[2]
    colour = photometric in {2, 5, 6}
    keep = 3 if colour and channels >= 3 else 1
    if not colour and channels >= 3 and not any(e in {1, 2} for e in extras):
        keep = 3
        warnings.append(f"{channels} channels without colours: the first three are shown as red, green and blue")
    elif channels > keep:
        extra = stored[..., keep]
        if any(e in {1, 2} for e in extras):
            if extra.size and extra.min() != extra.max():
                warnings.append(_TRANSPARENT)
        elif photometric != 5:
            warnings.append(f"{channels - keep} extra channel(s) are ignored")
    kept: npt.NDArray[Any] = stored[..., 0] if keep == 1 else stored[..., :3]
    return kept


def _inverted(stored: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """WhiteIsZero: larger means darker; make larger brighter within the stored range."""
    import numpy as np

    darkest: Any = 0
    if stored.dtype == np.bool_:
        darkest = True
    elif stored.dtype.kind == "u":
        darkest = stored.dtype.type(2**bits - 1)
    elif stored.dtype.kind == "i":
        darkest = stored.dtype.type(-1)
    inverted: npt.NDArray[Any] = (
        stored ^ darkest if stored.dtype.kind == "b" else (darkest - stored).astype(stored.dtype)
    )
    return inverted


def _cmyk_to_rgb(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    top = np.iinfo(stored.dtype).max if stored.dtype.kind in "ui" else 1.0
    ink = stored[..., :4].astype(np.float32) / top
    rgb = (1 - ink[..., :3]) * (1 - ink[..., 3:4]) * top
    converted: npt.NDArray[Any] = rgb.round().astype(stored.dtype) if stored.dtype.kind in "ui" else rgb
    return converted


def _palette_to_8_bits(colormap: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """TIFF colour maps are 16 bit, shape (3, entries); some writers store 8-bit values in them."""
    import numpy as np

    scale = 257 if colormap.max(initial=0) > 255 else 1
    return np.ascontiguousarray((colormap.astype(np.uint32) // scale).astype(np.uint8).T)


def _tiff_tags(page: Any, data: bytes, *, is_ome: bool) -> TiffTags:
    raw: dict[int, bytes] = {}
    for code in MAKER_TAGS:
        tag = page.tags.get(code)
        if tag is not None:
            raw[code] = data[tag.valueoffset : tag.valueoffset + tag.valuebytecount]

    def text(code: int) -> str:
        value = page.tags.valueof(code, default="")
        return value.strip() if isinstance(value, str) else ""

    def ratio(code: int) -> float | None:
        value = page.tags.valueof(code, default=None)
        if isinstance(value, tuple) and len(value) == 2 and value[1]:
            return float(value[0]) / float(value[1])
        return None

    return TiffTags(raw, text(271), text(272), text(270), ratio(282), ratio(283), is_ome)


# -------------------------------------------------------------------------------------------------------------------- Pillow


def _decode_pillow(data: bytes, kind: str, name: str, page: int, max_pixels: int) -> Decoded:
    import numpy as np
    from PIL import Image

    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # the header's size is compared with our own limit just below
        try:
            image = Image.open(io.BytesIO(data), formats=[kind.upper()])
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image:
        _check_size(name, image.width, image.height, 4, max_pixels)
        pages = int(getattr(image, "n_frames", 1)) if kind in {"PNG", "WebP"} else 1
        _check_page(name, page, pages)
        if page:
            image.seek(page)
        wide = kind == "PNG" and pages == 1 and data[24:26] in {b"\x10\x02", b"\x10\x04", b"\x10\x06"}
        orientation = int(image.getexif().get(274, 1)) if kind != "BMP" else 1
        if wide:
            found = _wide_png(data)
        else:
            image.load()
            found = _from_pillow(image, kind)
    samples, sideways = _upright(found.samples, orientation)
    return replace(found, samples=np.ascontiguousarray(samples), format=kind, pages=pages, sideways=sideways)


def _wide_png(data: bytes) -> Decoded:
    """PNG with 16-bit colour or alpha, which Pillow reduces to 8 bits."""
    import imagecodecs

    stored = imagecodecs.png_decode(data)
    channels = 1 if stored.ndim == 2 else int(stored.shape[2])
    opaque = channels in {1, 3} or stored[..., -1].min() == stored[..., -1].max()
    samples = stored[..., 0] if channels == 2 else stored[..., :3] if channels == 4 else stored
    return Decoded(samples, None, "PNG", str(stored.dtype), channels, 1, warnings=() if opaque else (_TRANSPARENT,))


def _from_pillow(image: Any, kind: str) -> Decoded:
    import numpy as np

    warnings: list[str] = []
    mode = image.mode
    if mode == "P":
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        if "transparency" in image.info:
            warnings.append(_TRANSPARENT)
        indices = np.array(image)
        colours = np.vstack([colours, np.zeros((max(0, int(indices.max(initial=0)) + 1 - len(colours)), 3), np.uint8)])
        return Decoded(indices, colours, kind, "uint8", 1, 1, warnings=tuple(warnings))
    if mode == "CMYK":
        image = image.convert("RGB")
        warnings.append("CMYK colours were converted to RGB without a colour profile")
    elif mode not in {"1", "L", "I;16", "I;16B", "I", "F", "LA", "RGB", "RGBA"}:
        image = image.convert("RGBA" if "A" in mode or "a" in mode else "RGB")
    array = np.array(image)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    channels = 4 if mode == "CMYK" else 1 if array.ndim == 2 else array.shape[2]
    dtype = str(array.dtype)
    if array.ndim == 3 and array.shape[2] in {2, 4}:
        if array[..., -1].min() != array[..., -1].max():
            warnings.append(_TRANSPARENT)
        array = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    return Decoded(array, None, kind, dtype, channels, 1, warnings=tuple(warnings))
