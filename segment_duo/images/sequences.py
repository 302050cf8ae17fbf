"""Stacks, folders of images and films as one thing: frames that are decoded one at a time, when asked for.

    FrameSequence ─┬─ StackSequence    TIFF stack, ImageJ hyperstack, OME-TIFF   (one file, never read whole)
                   ├─ FolderSequence   images in natural order                   (one file a frame)
                   └─ FilmSequence     MP4, AVI ... through PyAV                 (extra ``[video]``)

What holds for all frames is decided once: the banner and the pixel size from the first frame, the stretch to 8 bits from the percentiles of frames
sampled over the whole sequence, so that brightness means the same everywhere (unless each is read as an image of its own: ``common_stretch``).
No more than one frame is kept, and nothing is decoded ahead.

    with segment_duo.frames.sequence_of(store, ref) as sequence:      # or StackSequence(path, name), ...
        for number in parse_frames("10:200:2", len(sequence)):
            image = sequence.frame(number)      # ImageData, as read_image gives it

This module must not know of stores, masks, models or front ends.
"""

from __future__ import annotations

import hashlib
import io
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from segment_duo.errors import ImageError, NotFound, SegduoError, UsageError
from segment_duo.images.axes import page_of, page_order
from segment_duo.images.decode import IMAGE_SUFFIXES, decode, explained
from segment_duo.images.decoded import Decoded
from segment_duo.images.film import FilmFile
from segment_duo.images.read import (
    DEFAULT_MAX_PIXELS,
    Sidecars,
    choose_banner,
    choose_pixel_size,
    cut_and_stretch,
    facts_of_instrument,
    requested_banner,
    without_palette,
)  # fmt: skip
from segment_duo.images.stretch import Limits, limits_of
from segment_duo.types import Banner, FrameAxes, ImageData, ImageFacts, PixelSize

if TYPE_CHECKING:
    import numpy.typing as npt

SAMPLED_FRAMES = 16
"""Frames that the common stretch is taken from, evenly spaced, the first and the last among them."""

_SAMPLES_A_FRAME = 250_000
_LEAVE_OUT = "Leave the others out, for example by a pattern: 'scan_*.tif'."


@dataclass(frozen=True, slots=True)
class Reading:
    """How frames are read; the fields mean what they mean for :func:`segment_duo.images.read_image`."""

    banner: str | int = "auto"
    pixel_size: PixelSize | None = None
    sidecars: Sidecars | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    common_stretch: bool = True
    """One stretch for all frames; without it each has its own, as a single image has."""


AS_IS = Reading()
"""Nothing special: the banner found, the scale of the file."""


@dataclass(frozen=True, slots=True)
class FrameFile:
    """One image of a folder: its name, where it is as users type it, and how to get its bytes."""

    name: str
    path: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Common:
    """What the first frame decides for all of them."""

    width: int
    height: int
    facts: ImageFacts


class FrameSequence(ABC):
    """Frames of one size, decoded when asked for. Several threads may ask; they are served one after the other.

    Attributes:
        name: for messages.
        axes: which axes there are and which one the frames run along; frame time and slice distance where the file tells.
    """

    name: str
    axes: FrameAxes

    def __init__(self, name: str, reading: Reading) -> None:
        self.name = name
        self._reading = reading
        self._banner = requested_banner(reading.banner)
        self._lock = threading.RLock()
        self._open = ExitStack()
        self._bytes = 0
        # Not cached_property: up to Python 3.11 it has a lock of its own, which two threads could take in another order than ours.
        self._known: _Common | None = None
        self._stretch: tuple[Limits | None] | None = None
        self._digest = ""

    def __len__(self) -> int:
        return self.axes.count

    def __iter__(self) -> Iterator[ImageData]:
        return (self.frame(number) for number in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames cannot be read afterwards."""
        self._open.close()

    @property
    def _first_name(self) -> str:
        """The name that sidecars belong to."""
        return self.name

    @property
    def width(self) -> int:
        """Pixels of a frame, banner included; decodes the first frame."""
        return self._common.width

    @property
    def height(self) -> int:
        return self._common.height

    @property
    def banner(self) -> Banner:
        return self._common.facts.banner

    @property
    def pixel_size(self) -> PixelSize | None:
        return self._common.facts.pixel_size

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the first frame, its scale or its banner."""
        return self._common.facts.warnings

    @property
    def frame_seconds(self) -> float | None:
        """Time from one frame to the next; None where the frames do not run along time or the file does not tell."""
        return self.axes.frame_seconds if self.axes.axis in {"T", "page"} else None

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, or of the list of names in a folder. Computed once, in pieces."""
        with self._lock:
            self._digest = self._digest or self._hashed()
            return self._digest

    @abstractmethod
    def _hashed(self) -> str: ...

    @abstractmethod
    def label(self, number: int) -> str:
        """What to call a frame: its file's name, or ``T 3, Z 0``."""

    def page(self, number: int) -> int:
        """The frame as ``--page`` counts it in its own file."""
        return number

    @abstractmethod
    def _decode(self, number: int) -> tuple[Decoded, bytes]:
        """The samples of one frame, and the file's bytes where one file is one frame (else empty)."""

    def frame(self, number: int) -> ImageData:
        """Decode frame ``number``, counted from 0 along ``axes.axis``; only that one (the first call also samples the sequence for a common stretch).

        Returns:
            As :func:`segment_duo.images.read_image`; ``facts.stretch`` tells the common limits, ``facts.page`` the page in its file.

        Raises:
            ImageError: no such frame, a damaged one, or one of another size than the first.
        """
        with self._lock:
            self._check(number)
            limits = self._limits if self._reading.common_stretch else None
            decoded, content = self._decode(number)
            self._check_like_first(decoded, number)
            sha256 = hashlib.sha256(content).hexdigest() if content else self.sha256
        first = self._common.facts
        facts = replace(
            first, format=decoded.format, dtype=decoded.dtype, channels=decoded.channels, page=self.page(number),
            pages=decoded.pages, sha256=sha256, bytes=len(content) or self._bytes, warnings=decoded.warnings, frames=self.axes,
        )  # fmt: skip
        with explained(f"{self.name}, {self.label(number)}", "image"):
            return cut_and_stretch(decoded, facts, limits)

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self):
            raise ImageError(f"{self.name}: there is no frame {number}; there are {len(self)}, 0 to {len(self) - 1}")

    def _check_like_first(self, decoded: Decoded, number: int) -> None:
        height, width = decoded.samples.shape[:2]
        if (width, height) != (self._common.width, self._common.height):
            there = f"{self._common.width} x {self._common.height}"
            raise ImageError(
                f"{self.name}: frame {number} ({self.label(number)}) is {width} x {height} pixels, the first is {there}",
                f"Frames of a sequence have one size. {_LEAVE_OUT}",
            )
        if decoded.dtype != self._common.facts.dtype:
            raise ImageError(
                f"{self.name}: frame {number} ({self.label(number)}) is {decoded.dtype}, the first is {self._common.facts.dtype}",
                f"Frames of a sequence have one depth, so that brightness means the same in all. {_LEAVE_OUT}",
            )

    @property
    def _common(self) -> _Common:
        with self._lock:
            if self._known is None:
                self._known = self._look()
            return self._known

    def _look(self) -> _Common:
        decoded, content = self._decode(0)
        name = self._first_name
        finding = facts_of_instrument(decoded, content, name, 0, {})
        if finding.pixel_size is None and self._reading.sidecars is not None and (beside := self._reading.sidecars()):
            finding = facts_of_instrument(decoded, content, name, 0, beside)
        banner, notes = choose_banner(decoded, self._banner, finding.banner_rows, self.name)
        size, more = choose_pixel_size(finding.pixel_size, self._reading.pixel_size, sideways=decoded.sideways)
        height, width = decoded.samples.shape[:2]
        facts = ImageFacts(
            width, height, decoded.format, decoded.dtype, decoded.channels, page=0, pages=decoded.pages, sha256="", bytes=0,
            banner=banner, pixel_size=size, instrument=finding.instrument,
            warnings=(*decoded.warnings, *finding.warnings, *notes, *more), frames=self.axes,
        )  # fmt: skip
        return _Common(width, height, facts)

    @property
    def _limits(self) -> Limits | None:
        """One stretch for all frames; None where none is needed (8 bits, black and white)."""
        with self._lock:
            if self._stretch is None:
                self._stretch = (self._sampled(),)
            return self._stretch[0]

    def _sampled(self) -> Limits | None:
        parts: list[npt.NDArray[Any]] = []
        for number in _spread(len(self), SAMPLED_FRAMES):
            try:
                decoded, _ = self._decode(number)
                self._check_like_first(decoded, number)
            except ImageError:  # one bad frame is told when it is asked for
                continue
            samples = without_palette(decoded.samples[: self._common.facts.cut_height], decoded.palette)
            if samples.dtype.kind == "b" or samples.dtype == "uint8":
                return None
            flat = samples.reshape(-1)
            parts.append(flat[:: max(1, -(-flat.size // _SAMPLES_A_FRAME))].copy())
        return limits_of(parts, f"{len(parts)} of {len(self)} frames")


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count`` numbers, evenly spaced, or all of them."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(index * (count - 1) / (wanted - 1)) for index in range(wanted)})


class _OneFile(FrameSequence):
    """A sequence in one file, on this disk or in memory."""

    def __init__(self, file: Path | bytes, name: str, reading: Reading) -> None:
        super().__init__(name, reading)
        try:
            self._file: BinaryIO = io.BytesIO(file) if isinstance(file, bytes) else file.open("rb")
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from None
        self._open.callback(self._file.close)
        self._bytes = self._file.seek(0, io.SEEK_END)

    def _hashed(self) -> str:
        digest = hashlib.sha256()
        position = self._file.tell()
        self._file.seek(0)
        while part := self._file.read(1 << 20):
            digest.update(part)
        self._file.seek(position)
        return digest.hexdigest()


class StackSequence(_OneFile):
    """Planes of a TIFF file.

    Args:
        file: where the file is on this machine, or its bytes.
        name: for messages.
        reading: how to read the frames.
        axis: ``T``, ``Z``, ``C`` or ``page``; None takes time, else depth, else channels, else the pages as they are.
        at: where to stay on the other axes; 0 where not given.

    Raises:
        ImageError: not a TIFF file, or a damaged one.
        UsageError: the stack has no such axis or place.
    """

    def __init__(
        self,
        file: Path | bytes,
        name: str,
        reading: Reading = AS_IS,
        *,
        axis: str | None = None,
        at: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(file, name, reading)
        from segment_duo.images.tiff import TiffStack

        try:
            with explained(name, "TIFF"):
                self._stack = self._open.enter_context(TiffStack(self._file, name, reading.max_pixels))
                found = self._stack.axes
                self._order = page_order(self._stack.tif, found)
            self.axes, self._at = _placed(found, axis, at, name)
        except SegduoError:
            self.close()
            raise

    def page(self, number: int) -> int:
        return self._order[page_of(self.axes, {**self._at, self.axes.axis: number})]

    def label(self, number: int) -> str:
        others = "".join(f", {axis} {self._at.get(axis, 0)}" for axis, _ in self.axes.sizes if axis != self.axes.axis)
        return f"{self.axes.axis} {number}{others}"

    def _decode(self, number: int) -> tuple[Decoded, bytes]:
        with explained(f"{self.name}, {self.label(number)}", "TIFF"):
            return self._stack.decode(self.page(number)), b""


def _placed(
    found: FrameAxes, axis: str | None, at: Mapping[str, int] | None, name: str
) -> tuple[FrameAxes, dict[str, int]]:
    sizes = dict(found.sizes)
    has = ", ".join(f"{key} {size}" for key, size in found.sizes)
    if axis is not None and axis not in sizes:
        raise UsageError(f"{name}: there is no axis {axis!r}", f"It has: {has}.")
    place = {key: value for key, value in (at or {}).items() if key != (axis or found.axis)}
    for key, value in place.items():
        if not 0 <= value < sizes.get(key, 0):
            raise UsageError(f"{name}: there is no {key} {value}", f"It has: {has}, counted from 0.")
    return found.along(axis) if axis is not None else found, place


class FilmSequence(_OneFile):
    """Frames of a film; needs the extra ``[video]``. Arguments and errors as :class:`StackSequence`."""

    def __init__(self, file: Path | bytes, name: str, reading: Reading = AS_IS) -> None:
        super().__init__(file, name, reading)
        try:
            with explained(name, "film"):
                self._film = FilmFile(self._file, name, reading.max_pixels)
                self._open.callback(self._film.close)
        except SegduoError:
            self.close()
            raise
        self.axes = self._film.axes

    def label(self, number: int) -> str:
        seconds = self.axes.frame_seconds
        return f"frame {number}" if seconds is None else f"frame {number}, {number * seconds:.4g} s"

    def _decode(self, number: int) -> tuple[Decoded, bytes]:
        with explained(f"{self.name}, frame {number}", "film"):
            return self._film.decode(number), b""


class FolderSequence(FrameSequence):
    """Images of one size, one file a frame, in the order given; see :func:`natural_order`.

    Args:
        files: the frames.
        name: for messages.
        reading: how to read the frames.
        left_out: names that no frame can have, told in ``warnings``.

    Raises:
        NotFound: no files.
    """

    def __init__(
        self, files: Sequence[FrameFile], name: str, reading: Reading = AS_IS, *, left_out: Sequence[str] = ()
    ) -> None:
        super().__init__(name, reading)
        self._left_out = tuple(left_out)
        if not files:
            raise NotFound(f"{name}: no images", f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
        self._files = list(files)
        self.axes = FrameAxes("file", (("file", len(self._files)),))

    @property
    def _first_name(self) -> str:
        return self._files[0].name

    @property
    def left_out(self) -> str:
        """What to tell of files that no frame can have; empty when there are none."""
        count = len(self._left_out)
        names = ", ".join(self._left_out[:3])
        return f"{count} {'name is' if count == 1 else 'names are'} not UTF-8, left out: {names}" if count else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*super().warnings, *((self.left_out,) if self._left_out else ()))

    def _hashed(self) -> str:
        return self.names_sha256(len(self._files))

    def names_sha256(self, count: int) -> str:
        """SHA-256 of the list of the first ``count`` names: ``sha256`` of the folder before later files came to it."""
        names = "\0".join(file.path for file in self._files[:count])
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def file(self, number: int) -> FrameFile:
        self._check(number)
        return self._files[number]

    def page(self, number: int) -> int:
        del number  # each is the only one of its file
        return 0

    def label(self, number: int) -> str:
        return self._files[number].name

    def _decode(self, number: int) -> tuple[Decoded, bytes]:
        file = self._files[number]
        content = file.read()
        return decode(content, name=file.name, page=0, max_pixels=self._reading.max_pixels), content
