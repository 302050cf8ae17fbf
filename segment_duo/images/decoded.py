"""What the decoders share: their result, the checks on size and page, and the orientation tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segment_duo.errors import ImageError
from segment_duo.images.instruments.finding import Source
from segment_duo.types import FrameAxes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TRANSPARENT = "transparency is ignored; the colours beneath are used"
MOST_BYTES_A_PIXEL = 16
"""Four channels of 32 bit; a file with more bytes than that for the largest image allowed is not read."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One page of a file.

    Attributes:
        samples: (height, width) or (height, width, 3), upright, brighter is larger, alpha removed. Palette indices when ``palette`` is given.
        palette: uint8 (entries, 3), or None.
        format: ``PNG``, ``JPEG``, ``BMP``, ``WebP``, ``TIFF`` or ``BigTIFF``.
        dtype: NumPy's name of the samples as stored.
        channels: samples per pixel as stored, alpha included.
        tags: what a TIFF page has for the instrument readers.
        sideways: the orientation tag swapped width and height.
        frames: how the pages of a stack are arranged.
    """

    samples: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None
    format: str
    dtype: str
    channels: int
    pages: int
    tags: Source | None = None
    sideways: bool = False
    frames: FrameAxes | None = None
    warnings: tuple[str, ...] = ()


def check_size(name: str, width: int, height: int, bytes_per_pixel: float, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: damaged file, its size is {width} x {height} pixels")
    hint = f"--max-pixels {width * height} opens it, if the memory suffices"
    if width * height > max_pixels:
        message = f"{name}: {width} x {height} = {width * height} pixels, more than the limit of {max_pixels}"
        raise ImageError(message, hint)
    if width * height * bytes_per_pixel > max_pixels * MOST_BYTES_A_PIXEL:
        size = width * height * bytes_per_pixel / 2**20
        hint = f"--max-pixels {int(-(-width * height * bytes_per_pixel // MOST_BYTES_A_PIXEL))} opens it, if the memory suffices"
        raise ImageError(
            f"{name}: {size:.0f} MiB when decoded, more than {MOST_BYTES_A_PIXEL} x {max_pixels} bytes", hint
        )


def too_short(name: str, kind: str, width: int, height: int, length: int) -> ImageError:
    """For a header that promises more than the file's bytes can hold, told before memory and time are spent on filling it up."""
    text = f"{name}: damaged or truncated {kind} file, its {length} bytes cannot hold the {width} x {height} pixels it claims"
    return ImageError(text, "copy the file again, or export it anew from the program that made it")


def check_page(name: str, page: int, pages: int) -> None:
    if not 0 <= page < pages:
        what = "one page, number 0" if pages == 1 else f"{pages} pages, 0 to {pages - 1}"
        raise ImageError(f"{name}: there is no page {page}; the file has {what}", "choose another one with --page")


def upright(samples: npt.NDArray[Any], orientation: int) -> tuple[npt.NDArray[Any], bool]:
    """Undo the EXIF/TIFF orientation 1..8 (TIFF 6.0, tag 274); the second value says whether width and height were swapped."""
    import numpy as np

    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    if orientation not in {2, 3, 4, 5, 6, 7, 8}:
        return samples, False
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    return np.ascontiguousarray(np.flip(samples, flips.get(orientation, ()))), orientation >= 5
