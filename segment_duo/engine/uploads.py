"""Pixels on their way into the engine. A client that stalls (a dead ``ssh -L``, a suspended machine) holds what it sent, and not for long.

Each upload has a limit for a silence and one for the whole, its buffer grows with what comes, and the status shows it. One that
does not move neither makes the engine busy nor keeps it from leaving when it is idle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segment_duo.engine import protocol
from segment_duo.engine.reports import RunningUpload
from segment_duo.errors import EngineBusy, EngineFailed, ImageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MOVING_SECONDS = 2.0
"""An upload without a byte for so long does not count as work."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """``silence``: longest time without a byte. The whole may take ``seconds`` and its size divided by ``slowest_rate`` (bytes a second).

    ``parallel``: uploads at a time; one more waits somewhat longer than a silence may last, by when one that stands still has ended.
    """

    silence: float = 20.0
    seconds: float = 60.0
    slowest_rate: float = 50_000.0
    parallel: int = 16


@dataclass(slots=True)
class _Upload:
    image_id: str
    expected: int
    received: int = 0
    started: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)


class Uploads:
    """All uploads of an engine. Lives in its event loop."""

    def __init__(self, max_pixels: int, limits: UploadLimits | None = None) -> None:
        self._max_pixels = max_pixels
        self._limits = limits or UploadLimits()
        self._places = asyncio.Semaphore(self._limits.parallel)
        self._running: list[_Upload] = []
        self._last_moved = 0.0

    @property
    def open(self) -> int:
        """Uploads that are being received now."""
        return len(self._running)

    @property
    def moving(self) -> bool:
        """Whether bytes are coming in, as opposed to uploads that stand still."""
        return bool(self._running) and time.monotonic() - self._last_moved < _MOVING_SECONDS

    @property
    def last_moved(self) -> float:
        """When the last byte came, on the monotonic clock."""
        return self._last_moved

    def state(self) -> list[RunningUpload]:
        now = time.monotonic()
        return [
            RunningUpload(
                image=upload.image_id,
                received=upload.received,
                bytes=upload.expected,
                seconds=now - upload.started,
                silent_seconds=now - upload.moved,
            )
            for upload in self._running
        ]

    async def receive(
        self, image_id: str, shape: str, announced: str | None, body: AsyncIterator[bytes]
    ) -> npt.NDArray[np.uint8]:
        """The pixels of a request's ``body``: uint8, shape (H, W, 3).

        Args:
            image_id: what they should be; it is checked.
            shape, announced: the request's headers.
            body: its chunks as they come.

        Raises:
            ImageError: not the announced pixels, or too many.
            EngineFailed: they stopped coming, or come too slowly.
            EngineBusy: too many uploads.
        """
        import numpy as np

        height, width, channels = self._checked_shape(shape, announced)
        buffer = await self._read(_Upload(image_id, height * width * channels), shape, body)
        pixels = np.frombuffer(buffer, dtype=np.uint8).reshape(height, width, channels)
        if channels == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if await asyncio.to_thread(protocol.image_id, pixels) != image_id:
            raise ImageError("the pixels do not match the image's id", "They were damaged on the way; try again.")
        return pixels

    def _checked_shape(self, shape: str, announced: str | None) -> tuple[int, int, int]:
        try:
            height, width, channels = protocol.parse_shape(shape)
        except ValueError as error:
            raise ImageError(f"{protocol.SHAPE_HEADER}: {error}", "Send H,W,3 or H,W,1.") from None
        if height * width > self._max_pixels:
            raise ImageError(
                f"{width} x {height} pixels are more than the running engine takes: it was started with max_pixels = {self._max_pixels}",
                "Set max_pixels in config.toml (or SEGDUO_MAX_PIXELS) on the engine's machine, then `segduo engine stop` there.",
            )
        expected = height * width * channels
        if announced is not None and announced != str(expected):
            raise ImageError(f"{announced} bytes announced, {expected} needed for {shape}")
        return height, width, channels

    async def _read(self, upload: _Upload, shape: str, body: AsyncIterator[bytes]) -> bytearray:
        try:
            await asyncio.wait_for(self._places.acquire(), 1.5 * self._limits.silence)
        except TimeoutError:
            raise EngineBusy("too many images are being uploaded", "Try again in a moment.") from None
        self._running.append(upload)
        buffer = bytearray()
        try:
            while True:
                chunk = await self._next(upload, body)
                if chunk is None:
                    break
                if len(buffer) + len(chunk) > upload.expected:
                    raise ImageError(f"more than the {upload.expected} bytes of {shape} were sent")
                buffer += chunk
                upload.received = len(buffer)
                upload.moved = self._last_moved = time.monotonic()
        finally:
            self._running.remove(upload)
            self._places.release()
        if len(buffer) != upload.expected:
            raise ImageError(f"the upload ended after {len(buffer)} of {upload.expected} bytes", "Try again.")
        return buffer

    async def _next(self, upload: _Upload, body: AsyncIterator[bytes]) -> bytes | None:
        limits = self._limits
        left = upload.started + limits.seconds + upload.received / limits.slowest_rate - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(left, limits.silence))):
                return await anext(body, None)
        except TimeoutError:
            how = "stopped" if left > limits.silence else "came too slowly"
            raise EngineFailed(
                f"the pixels {how}: {upload.received} of {upload.expected} bytes in {time.monotonic() - upload.started:.0f} s",
                "Is the connection to the engine (ssh -L) still up? Then run the command again.",
            ) from None
