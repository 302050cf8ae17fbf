"""Files fetched from Drops, kept on disk, so that the same image is not fetched for every command.

An entry's key holds the server, the path, the size and the modification time: when the file changes on the server, the old entry is simply
never asked for again. Each entry begins with the SHA-256 of its content; one that does not match is a miss and is removed. The cache
is bounded in bytes, the least recently used entries go first. It is never needed: every failure of the disk reads as a miss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from segment_duo.durable import make_private_folders, remove_stale_temporaries, replace_file
from segment_duo.types import Entry

_MAGIC = b"segduo content 1\n"
_DIGEST_BYTES = 32
_SUFFIX = ".bin"


@dataclass(frozen=True, slots=True)
class ContentKey:
    """What tells one content from another: ``modified`` in seconds, as the server gives it."""

    address: str
    path: str
    size: int
    modified: float

    @classmethod
    def of(cls, address: str, entry: Entry) -> ContentKey:
        return cls(address, entry.path, entry.size, entry.modified)

    @property
    def file_name(self) -> str:
        # Length-prefixed parts, so that no two keys run together into one text.
        parts = (self.address, self.path, str(self.size), repr(self.modified))
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode("utf-8")).hexdigest() + _SUFFIX


class ContentCache:
    """A folder of fetched files, at most ``max_bytes`` large.

    Args:
        folder: made on first use, readable by the user alone, since the files came with a password.
        max_bytes: bound of all entries together; an entry that is larger by itself is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, key: ContentKey) -> bytes | None:
        """The content, or None when it is not there, damaged or unreadable."""
        file = self._folder / key.file_name
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        content = _checked(stored)
        if content is None or len(content) != key.size:
            _remove(file)
            return None
        with contextlib.suppress(OSError):  # the order of use is a convenience
            os.utime(file)
        return content

    def put(self, key: ContentKey, content: bytes) -> None:
        """Keep ``content`` when there is room for it; what was used longest ago makes room."""
        stored = _MAGIC + hashlib.sha256(content).digest() + content
        if len(stored) > self._max_bytes:
            return
        try:
            make_private_folders(self._folder)
            remove_stale_temporaries(self._folder)
            self._make_room(len(stored))
            replace_file(self._folder / key.file_name, stored)
        except OSError:
            return

    def size(self) -> int:
        """Bytes in use."""
        return sum(size for _, size, _ in self._files())

    def clear(self) -> int:
        """Remove every entry; returns the bytes that were freed."""
        freed = 0
        for _, size, file in self._files():
            _remove(file)
            freed += size
        return freed

    def _make_room(self, needed: int) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total + needed <= self._max_bytes:
                return
            _remove(file)
            total -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        try:
            with os.scandir(self._folder) as items:
                for item in items:
                    if item.name.endswith(_SUFFIX) and item.is_file(follow_symlinks=False):
                        facts = item.stat(follow_symlinks=False)
                        found.append((facts.st_mtime, facts.st_size, Path(item.path)))
        except OSError:
            return []
        return found


def _checked(stored: bytes) -> bytes | None:
    start = len(_MAGIC) + _DIGEST_BYTES
    if len(stored) < start or not stored.startswith(_MAGIC):
        return None
    content = stored[start:]
    return content if hashlib.sha256(content).digest() == stored[len(_MAGIC) : start] else None


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
