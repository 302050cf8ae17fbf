"""One call from bytes to an :class:`ImageData`: decode, read the instrument's facts, cut the banner, stretch.

    bytes -> decode -> instruments -> banner -> cut -> stretch -> ImageData

The order matters: the banner's pure black and white must be gone before a percentile is taken, and cutting from the bottom keeps the
origin. Nothing here touches a file system or a network; sidecars are handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segment_duo.errors import ImageError, SegduoError, UsageError
from segment_duo.images.decode import decode
from segment_duo.images.decoded import Decoded
from segment_duo.images.instruments import read_instrument, usable_sidecars
from segment_duo.images.instruments.finding import Finding, Source
from segment_duo.images.pixel_size import LARGEST_PLAUSIBLE_NM, SMALLEST_PLAUSIBLE_NM
from segment_duo.lengths import describe_nm
from segment_duo.types import Banner, ImageData, ImageFacts, PixelSize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.images.stretch import Limits

DEFAULT_MAX_PIXELS = 400_000_000

Sidecars = Callable[[], Mapping[str, bytes]]
"""Gives the files next to an image, by name: they need a listing, so they are asked for only where they are wanted."""


def read_image(
    data: bytes,
    *,
    name: str,
    page: int = 0,
    banner: str | int = "auto",
    pixel_size: PixelSize | None = None,
    sidecars: Sidecars | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageData:
    """Decode ``data`` and gather what is known about it.

    Args:
        data: the whole file.
        name: the file's name, for messages and for telling which sidecars belong to it.
        page: page of a multi-page TIFF (or frame of an animated PNG or WebP), counted from 0.
        banner: ``auto`` (the tag's height if the pixels agree, else the pixels' own, else nothing), ``off``, or a number of rows to cut.
        pixel_size: replaces whatever the file says.
        sidecars: gives the contents of files next to the image, by name (see ``sidecar_names``); asked only when the image itself does not
            tell its scale.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        Pixels (uint8, (rows left, width, 3)), the original samples of the same rows, and the facts.

    Raises:
        ImageError: not an image, damaged, unsupported, too large, no such page, or a banner that leaves nothing.
        UsageError: ``banner`` is none of the three forms.
    """
    requested = requested_banner(banner)
    decoded = decode(data, name=name, page=page, max_pixels=max_pixels)
    try:
        finding = facts_of_instrument(decoded, data, name, page, {})
        if finding.pixel_size is None and sidecars is not None and (beside := sidecars()):
            finding = facts_of_instrument(decoded, data, name, page, beside)
        found, notes = choose_banner(decoded, requested, finding.banner_rows, name)
        size, size_notes = choose_pixel_size(finding.pixel_size, pixel_size, sideways=decoded.sideways)
        facts = ImageFacts(
            width=decoded.samples.shape[1],
            height=decoded.samples.shape[0],
            format=decoded.format,
            dtype=decoded.dtype,
            channels=decoded.channels,
            page=page,
            pages=decoded.pages,
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            banner=found,
            pixel_size=size,
            instrument=finding.instrument,
            warnings=(*decoded.warnings, *finding.warnings, *notes, *size_notes),
            frames=decoded.frames,
        )
        return cut_and_stretch(decoded, facts)
    except SegduoError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to prepare this image") from error
    except Exception as error:  # one strange file must not stop a batch
        raise ImageError(f"{name}: could not be prepared ({type(error).__name__}: {error})") from error


def read_array(
    samples: npt.NDArray[Any], *, name: str, banner: int = 0, pixel_size: PixelSize | None = None
) -> ImageData:
    """An image that is in memory already, prepared as one from a file.

    Args:
        samples: (height, width), (height, width, 3) or (height, width, 4), any depth; the fourth channel is dropped.
        banner: rows to cut from the bottom.

    Raises:
        ImageError: another shape, nothing in it, samples that are no real numbers, or a banner that leaves nothing.
    """
    import numpy as np

    array = np.asarray(samples)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or array.size == 0:
        raise ImageError(
            f"{name}: an array of shape {array.shape} is no image", "Give (height, width) or (height, width, 3)."
        )
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name}: samples of type {array.dtype} are no grey values")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    decoded = Decoded(
        array[:, :, :3] if array.ndim == 3 else array,
        None,
        "array",
        str(array.dtype),
        array.shape[2] if array.ndim == 3 else 1,
        1,
    )
    found, notes = choose_banner(decoded, banner, None, name)
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    facts = ImageFacts(
        width=array.shape[1],
        height=array.shape[0],
        format=decoded.format,
        dtype=decoded.dtype,
        channels=decoded.channels,
        page=0,
        pages=1,
        sha256=digest,
        bytes=0,
        banner=found,
        pixel_size=pixel_size,
        warnings=notes,
    )
    return cut_and_stretch(decoded, facts)


def cut_and_stretch(decoded: Decoded, facts: ImageFacts, limits: Limits | None = None) -> ImageData:
    """The rows above ``facts.banner`` as stored and as 8 bits; ``limits`` are those of a whole sequence."""
    from segment_duo.images.stretch import stretch_to_uint8

    original = without_palette(decoded.samples[: facts.cut_height], decoded.palette)
    stretched = stretch_to_uint8(original, limits=limits)
    facts = replace(
        facts,
        significant_bits=_significant_bits(original),
        stretch=stretched.description,
        warnings=(*facts.warnings, *_not_numbers(original)),
    )
    return ImageData(_three_channels(stretched.pixels), original, facts)


def facts_of_instrument(
    decoded: Decoded, data: bytes, name: str, page: int, sidecars: Mapping[str, bytes] | None
) -> Finding:
    height, width = decoded.samples.shape[:2]
    if decoded.sideways:
        width, height = height, width
    source = decoded.tags or Source(width, height, embedded_xml=_phenom_xml(data) if decoded.format == "JPEG" else b"")
    return read_instrument(replace(source, sidecars=usable_sidecars(name, sidecars), page=page))


def _phenom_xml(data: bytes) -> bytes:
    """Phenom writes its XML into JPEG files too."""
    start = data.find(b"<FeiImage")
    end = data.find(b"</FeiImage>", start)
    return data[start : end + len(b"</FeiImage>")] if 0 <= start < end else b""


# ---- banner


def requested_banner(banner: str | int) -> str | int:
    if isinstance(banner, str):
        text = banner.strip().lower()
        if text in {"auto", "off"}:
            return text
        if not (text.isascii() and text.isdigit()):
            raise UsageError(f"{banner!r} is not a banner setting", "give auto, off, or the number of rows to cut")
        banner = int(text)
    if banner < 0:
        raise UsageError(f"a banner cannot have {banner} rows", "give auto, off, or the number of rows to cut")
    return banner


def choose_banner(
    decoded: Decoded, requested: str | int, by_tag: int | None, name: str
) -> tuple[Banner, tuple[str, ...]]:
    height = len(decoded.samples)
    if isinstance(requested, int):
        if requested >= height:
            raise ImageError(
                f"{name}: a banner of {requested} rows leaves nothing of {height}", "give a smaller --banner"
            )
        return Banner(requested, "flag"), ()
    if requested == "off":
        return Banner(0, "off"), ()
    return _automatic_banner(decoded, by_tag)


def _automatic_banner(decoded: Decoded, by_tag: int | None) -> tuple[Banner, tuple[str, ...]]:
    from segment_duo.images.banner import banner_agrees, find_banner, grey_levels

    levels = grey_levels(decoded.samples, decoded.palette)
    if by_tag and banner_agrees(levels, by_tag):
        return Banner(by_tag, "tag"), ()
    rows = find_banner(levels)
    notes: tuple[str, ...] = ()
    if by_tag and rows != by_tag:
        seen = f"{rows} rows, which were cut" if rows else "none, so nothing was cut"
        notes = (f"the metadata speaks of a banner of {by_tag} rows, the pixels show {seen}; --banner N sets it",)
    return Banner(rows, "pixels" if rows else "none"), notes


# ---- pixels


def without_palette(samples: npt.NDArray[Any], palette: npt.NDArray[np.uint8] | None) -> npt.NDArray[Any]:
    """Look colours up; a palette whose used entries are all grey gives one channel (microscopes keep grey images this way)."""
    import numpy as np

    if palette is None:
        return np.ascontiguousarray(samples)
    used = palette[np.flatnonzero(np.bincount(samples.ravel(), minlength=len(palette)))]
    if bool((used == used[:, :1]).all()):
        palette = np.ascontiguousarray(palette[:, 0])
    colours: npt.NDArray[np.uint8] = palette[samples]
    return colours


def _three_channels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    import numpy as np

    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels)
    out = np.empty((*pixels.shape, 3), np.uint8)
    out[...] = pixels[..., None]
    return out


def _not_numbers(samples: npt.NDArray[Any]) -> tuple[str, ...]:
    import numpy as np

    if samples.dtype.kind != "f":
        return ()
    count = samples.size - int(np.count_nonzero(np.isfinite(samples)))
    many = f"{count} of {samples.size} samples are" if count > 1 else f"1 of {samples.size} samples is"
    return (f"{many} not finite (NaN is shown as the darkest, infinity as the end of the range)",) if count else ()


def _significant_bits(samples: npt.NDArray[Any]) -> int | None:
    """Bits that the sample of the largest magnitude needs (the sign not counted); None for floats."""
    if samples.dtype.kind == "b":
        return 1
    if samples.dtype.kind not in "iu" or samples.size == 0:
        return None
    return max(1, abs(int(samples.max())).bit_length(), abs(int(samples.min())).bit_length())


def choose_pixel_size(
    found: PixelSize | None, given: PixelSize | None, *, sideways: bool
) -> tuple[PixelSize | None, tuple[str, ...]]:
    size = given or found
    if size is None:
        return None, ()
    if sideways and given is None:
        size = replace(size, x_nm=size.y_nm, y_nm=size.x_nm)
    extremes = [n for n in (size.x_nm, size.y_nm) if not SMALLEST_PLAUSIBLE_NM <= n <= LARGEST_PLAUSIBLE_NM]
    if extremes:
        text = f"a pixel size of {describe_nm(extremes[0])} is implausible for an electron micrograph"
        return (size if given is not None else replace(size, trust="low")), (text,)
    return size, ()
