"""TIFF pages through tifffile: every sample type, layout and compression that instruments and other programs write.

This module must not interpret the makers' tags; it carries their bytes along.
"""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from segment_duo.errors import ImageError
from segment_duo.images.axes import read_axes
from segment_duo.images.decoded import (
    TRANSPARENT,
    Decoded,
    check_page,
    check_size,
    too_short,
    upright,
)  # fmt: skip
from segment_duo.images.instruments.finding import MAKER_TAGS, Source, text_of, without_nuls
from segment_duo.images.promises import read_promise
from segment_duo.tiff.lzw import expand_lzw
from segment_duo.tiff.mended import MendedFile
from segment_duo.tiff.quiet import quiet_tifffile
from segment_duo.tiff.segments import is_incomplete, mend_byte_counts, mend_predictor, too_few_bytes
from segment_duo.types import FrameAxes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_LARGEST_TAG = 64 << 20  # makers' texts are below 64 KiB; Tescan puts a thumbnail beside its own
_JPEG_HEAD = 1 << 16
_JPEG_PADDING = 64  # a JPEG unit is at most 32 x 32 pixels; some writers pad by one


def decode_tiff(data: bytes, name: str, page_number: int, max_pixels: int) -> Decoded:
    with TiffStack(io.BytesIO(data), name, max_pixels) as stack:
        return stack.decode(page_number)


class TiffStack:
    """A TIFF file whose planes are decoded one at a time; nothing else of it is kept in memory.

    Args:
        file: an open binary file, or the bytes of one; it stays open when the stack is closed.
        name: for messages.
        max_pixels: larger planes are refused before they are decoded.

    Raises:
        ImageError: the file holds no image.
        tifffile.TiffFileError, and whatever a broken file raises; see :func:`segment_duo.images.decode.decode`.
    """

    def __init__(self, file: BinaryIO, name: str, max_pixels: int) -> None:
        import tifffile

        self._name, self._max_pixels = name, max_pixels
        self._file = MendedFile(file)
        with quiet_tifffile():
            self.tif = tifffile.TiffFile(self._file)
            pages = len(self.tif.pages)
            if pages == 0:
                raise ImageError(f"{name}: damaged TIFF file, it holds no image")
            frames = _hidden_frames(self.tif) if pages == 1 else 1
        self._hidden = frames > 1
        self.pages = max(pages, frames)
        """Planes in the order of the file, which ``--page`` counts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tif.close()

    @cached_property
    def axes(self) -> FrameAxes:
        """How the planes are arranged; read once, for the XML of a long OME-TIFF has megabytes."""
        with quiet_tifffile():
            return read_axes(self.tif, self.pages)

    def decode(self, number: int) -> Decoded:
        """Plane ``number``, counted from 0. Not for several threads at once."""
        import tifffile

        name = self._name
        check_page(name, number, self.pages)
        with quiet_tifffile():
            page = self.tif.pages[0 if self._hidden else number]
            # tifffile keeps the first page; what is mended below must not stay in it.
            page = copy.copy(page) if isinstance(page, tifffile.TiffPage) else page.aspage()
            _check_tiff_page(page, name, self._max_pixels)
            mend_byte_counts(page, self._file.size)
            mend_predictor(page)
            _check_tiff_data(page, name, self._file.size, lone=not self._hidden)
            stored = _read_ccitt(self._file, number, page) if page.compression in {2, 3, 4} else None
            try:
                if page.compression == 5:
                    expand_lzw(page, self._file, name)
                if stored is None:
                    stored = _frame(self.tif, number) if self._hidden else page.asarray()
            finally:
                self._file.forget()
            first = replace(
                _arrange_tiff(stored, page),
                format="BigTIFF" if self.tif.is_bigtiff else "TIFF",
                pages=self.pages,
                tags=_tiff_tags(page, self.tif, self._file),
                frames=self.axes if self.pages > 1 else None,
            )
            orientation = page.tags.valueof(274, default=1)
        samples, sideways = upright(first.samples, int(orientation) if isinstance(orientation, int) else 1)
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


def _check_tiff_page(page: Any, name: str, max_pixels: int) -> None:
    samples = int(page.samplesperpixel)
    depth = int(getattr(page, "imagedepth", 1) or 1)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    check_size(name, int(page.imagewidth), int(page.imagelength) * depth, samples * max(8, int(bits)) / 8, max_pixels)
    if depth > 1:
        raise ImageError(f"{name}: a volume of {depth} planes in one page is not supported", "export single planes")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ImageError(f"{name}: TIFF samples of this type (complex or unknown) cannot be read")
    unsupported = {5: "", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "raw camera"}
    photometric = int(page.photometric)
    if photometric in unsupported and unsupported[photometric] and int(page.compression) not in {6, 7}:
        raise ImageError(f"{name}: {unsupported[photometric]} TIFF files cannot be read", "export it as grey or RGB")


def _check_tiff_data(page: Any, name: str, length: int, *, lone: bool) -> None:
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n]
    if not ends or (lone and max(ends) > length):
        found = "no pixel data" if not ends else f"its pixels should reach byte {max(ends)} of {length}"
        raise ImageError(f"{name}: truncated TIFF file, {found}", "copy the file again")
    if lone and is_incomplete(page):
        raise ImageError(f"{name}: damaged TIFF file, a strip or tile is missing", "copy the file again")
    if int(page.compression) == 7 and _lying_jpeg(page):
        raise ImageError(
            f"{name}: damaged TIFF file, its JPEG data claim another size than the page", "copy the file again"
        )
    if too_few_bytes(page):
        width, height = int(page.imagewidth), int(page.imagelength)
        raise too_short(name, "TIFF", width, height, length)


def _lying_jpeg(page: Any) -> bool:
    """Whether a JPEG strip or tile claims far more pixels than its place in the page has."""
    width = int(page.tilewidth if page.is_tiled else page.imagewidth)
    height = int(page.tilelength if page.is_tiled else page.rowsperstrip)
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(int(offset))
        promise = read_promise(file.read(min(int(count), _JPEG_HEAD)), "JPEG")
        if promise is not None and (promise.width > width + _JPEG_PADDING or promise.height > height + _JPEG_PADDING):
            return True
    return False


def _read_ccitt(file: MendedFile, number: int, page: Any) -> npt.NDArray[Any]:
    """Fax-compressed pages through imagecodecs' libtiff, which handles all variants and, unlike Pillow's, writes nothing to stderr.

    True where the page is white.
    """
    import imagecodecs
    import numpy as np

    bits: npt.NDArray[Any] = np.asarray(imagecodecs.tiff_decode(file.bytes_at(0, file.size), index=number)).astype(
        np.bool_, copy=False
    )
    return ~bits if int(page.photometric) == 0 else bits


def _arrange_tiff(stored: npt.NDArray[Any], page: Any) -> Decoded:
    """Order the axes as (height, width[, channel]), drop alpha, and undo inversion, CMYK and depths below 8 bits."""
    import numpy as np

    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    photometric = _photometric(page)
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


def _photometric(page: Any) -> int:
    """Tag 262. Where a file lacks it, larger is brighter or the first three are colours, as for libtiff; tifffile takes it for WhiteIsZero."""
    if page.tags.get(262) is not None or int(page.compression) in {2, 3, 4}:
        return int(page.photometric)
    return 2 if int(page.samplesperpixel) - len(page.extrasamples) >= 3 else 1


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
                warnings.append(TRANSPARENT)
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


def _tiff_tags(page: Any, tif: Any, file: MendedFile) -> Source:
    raw: dict[int, bytes] = {}
    for code in MAKER_TAGS:
        tag = page.tags.get(code)
        if tag is not None:
            raw[code] = file.bytes_at(tag.valueoffset, min(tag.valuebytecount, _LARGEST_TAG))

    def text(code: int) -> str:
        return _text(page.tags.valueof(code, default=""))

    def ratio(code: int) -> float | None:
        value = page.tags.valueof(code, default=None)
        if isinstance(value, tuple) and len(value) == 2 and value[1]:
            return float(value[0]) / float(value[1])
        return None

    description = text(270)
    if not description and (tif.is_imagej or tif.is_ome):  # they describe the whole file on its first page
        description = _text(tif.pages.first.description)
    return Source(
        page.imagewidth, page.imagelength, raw, make=text(271), model=text(272), description=description,
        x_resolution=ratio(282), y_resolution=ratio(283), is_ome=bool(tif.is_ome),
    )  # fmt: skip


def _text(value: object) -> str:
    """A text tag; tifffile leaves it as bytes where it knows no encoding for all of them."""
    text = text_of(value) if isinstance(value, bytes) else value
    return without_nuls(text).strip() if isinstance(text, str) else ""
