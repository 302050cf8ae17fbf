"""Films (MP4, AVI and what else FFmpeg reads) frame by frame through PyAV, which is an extra: ``segment-duo[video]``.

The packets are listed once, without decoding, so that every frame has a time; a frame is then found from the key frame before it. Going forward
one by one decodes each frame once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from segment_duo.errors import ImageError
from segment_duo.images.decoded import Decoded, check_page, check_size
from segment_duo.types import FrameAxes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FILM_SUFFIXES: frozenset[str] = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"})
"""Lower-case extensions, with the dot, of films."""

_GREY = {
    "gray": "gray",
    "gray8": "gray",
    "gray10le": "gray16le",
    "gray12le": "gray16le",
    "gray16le": "gray16le",
    "gray16be": "gray16le",
}


def is_film_name(name: str) -> bool:
    """Whether a file of this name is a film that we open."""
    return PurePosixPath(name).suffix.lower() in FILM_SUFFIXES


class FilmFile:
    """The frames of the first picture stream of a film.

    Args:
        file: an open binary file; it stays open when the film is closed.
        name: for messages.
        max_pixels: larger frames are refused before any is decoded.

    Raises:
        ImageError: PyAV is not installed, or there are no pictures in the file.
        av.FFmpegError: a broken file.
    """

    def __init__(self, file: BinaryIO, name: str, max_pixels: int) -> None:
        av = _pyav(name)
        self._name = name
        file.seek(0)
        self._container: Any = av.open(file)
        streams = self._container.streams.video
        if not streams:
            raise ImageError(f"{name}: this film has no pictures")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        check_size(name, self._stream.width, self._stream.height, 3, max_pixels)
        times = [packet.pts for packet in self._container.demux(self._stream) if packet.size]
        self._times: list[int] | None = sorted(times) if None not in times and len(set(times)) == len(times) else None
        self._count = len(times)
        if self._count == 0:
            raise ImageError(f"{name}: this film has no frames")
        self._position = 0
        self._frames: Iterator[Any] = iter(())
        self._rewind()

    @property
    def axes(self) -> FrameAxes:
        """Frames along T, with the film's own rate."""
        rate = self._stream.average_rate
        return FrameAxes("T", (("T", self._count),), float(1 / rate) if rate else None)

    def decode(self, number: int) -> Decoded:
        """Frame ``number``, counted from 0. Not for several threads at once."""
        check_page(self._name, number, self._count)
        frame = self._find(number)
        if frame is None:
            raise ImageError(f"{self._name}: truncated film, frame {number} cannot be decoded", "copy the file again")
        samples, channels = _samples(frame)
        return Decoded(samples, None, self._container.format.name, str(samples.dtype), channels, self._count)

    def close(self) -> None:
        self._container.close()

    def _rewind(self) -> None:
        self._container.seek(self._times[0] if self._times else 0, stream=self._stream)
        self._frames, self._position = self._container.decode(self._stream), 0

    def _find(self, number: int) -> Any:
        """Go on where the last call ended if the frame lies near ahead, else begin at the key frame before it."""
        if self._times is None:
            if number < self._position:
                self._rewind()
            return self._skip_to(number)
        ahead = self._position <= number <= self._position + _NEAR
        # A container seeks by the order of decoding; with frames that refer to later ones that can be a little too late.
        for start in (number, max(0, number - _NEAR), max(0, number - 16 * _NEAR), 0):
            if not ahead:
                self._container.seek(self._times[start], stream=self._stream, backward=True)
                self._frames = self._container.decode(self._stream)
            ahead = False
            found = self._until(self._times[number])
            if found is not None:
                self._position = number + 1
                return found
        return None

    def _until(self, wanted: int) -> Any:
        for frame in self._frames:
            if frame.pts is not None and frame.pts >= wanted:
                return frame if frame.pts == wanted else None
        return None

    def _skip_to(self, number: int) -> Any:
        for frame in self._frames:
            self._position += 1
            if self._position == number + 1:
                return frame
        return None


_NEAR = 16
"""Frames to decode on the way rather than seek; key frames are usually 12 to 250 apart."""


def _samples(frame: Any) -> tuple[npt.NDArray[Any], int]:
    import numpy as np

    grey = _GREY.get(frame.format.name)
    samples: npt.NDArray[np.generic] = np.ascontiguousarray(frame.to_ndarray(format=grey or "rgb24"))
    return samples, 1 if grey else 3


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError:
        raise ImageError(
            f"{name}: reading films needs PyAV, which is not installed",
            "Install it with: pip install 'segment-duo[video]' (or uv sync --extra video), or export the frames as images.",
        ) from None
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's messages would tear a terminal UI's screen
    return av
