"""A file of which parts are read as if they were other bytes: what was decompressed elsewhere is appended in memory.

So a page can be pointed at mended data while the file itself, be it of many gigabytes, stays where it is.
"""

from __future__ import annotations

import io
import threading
from typing import Any, BinaryIO


class MendedFile(io.RawIOBase):
    """The bytes of ``file``, and behind them those that were appended. Reads only what is asked for; closing leaves ``file`` open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        """Bytes of the file itself."""
        self._appended = bytearray()
        self._position = 0
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size + len(self._appended)}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            part = self._part(self._position, len(view) - done)
            if not part:
                break
            view[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def _part(self, start: int, length: int) -> bytes:
        if start >= self.size:
            return bytes(self._appended[start - self.size : start - self.size + length])
        with self._lock:
            self._file.seek(start)
            return self._file.read(min(length, self.size - start))

    def bytes_at(self, offset: int, count: int) -> bytes:
        """At most ``count`` bytes from ``offset``, without moving."""
        return self._part(offset, count) if count > 0 else b""

    def append(self, data: bytes) -> int:
        """Put ``data`` behind the rest; returns where it begins."""
        self._appended += data
        return self.size + len(self._appended) - len(data)

    def forget(self) -> None:
        """Drop what was appended."""
        self._appended.clear()
