"""Folders of this machine, and a mounted folder that stands for Drops.

A file is written under a temporary name beside its place, flushed to the disk, and only then given its name, by a hard link: that fails when
the name is taken, so nothing is ever overwritten and no reader ever sees half a file. Where there are no hard links (FAT, some network
file systems) the name itself is created exclusively, and removed again if writing fails.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from segment_duo.durable import (
    create_file,
    make_folders,
    remove_stale_temporaries,
)
from segment_duo.errors import AlreadyExists, InputError, NotFound, OutOfSpace, SegduoError, StoreError
from segment_duo.stores.base import Entries, Store, checked_path, expand, join_path, newest_first, split_path
from segment_duo.text import is_utf8
from segment_duo.types import Entry, StoreKind

_LEAST_READ = 1 << 16
"""Bytes asked for at once of a file that does not tell its size, or has grown since."""

_MOST_TIDIED = 1000
"""Folders whose tidying is remembered."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class LocalStore:
    """Files of this machine.

    Args:
        root: the folder that the store's ``/`` means; None for the machine's own. The paths callers see never contain it.
        kind: ``DROPS`` for a mounted folder that stands for the file server.
    """

    def __init__(self, root: Path | None = None, kind: StoreKind = StoreKind.LOCAL) -> None:
        self._root = root
        self._kind = kind
        self._tidied: set[Path] = set()

    def __repr__(self) -> str:
        return f"LocalStore({self.address!r}, {self._kind.value})"

    @property
    def kind(self) -> StoreKind:
        return self._kind

    @property
    def address(self) -> str:
        return f"file://{self._root or '/'}"

    def list(self, folder: str, *, hidden: bool = False) -> Entries:
        folder = checked_path(folder)
        entries = []
        try:
            with os.scandir(self.on_disk(folder)) as items:
                for item in items:
                    if not is_utf8(item.name) or (item.name.startswith(".") and not hidden):
                        continue
                    try:
                        facts = item.stat()
                    except OSError:  # a link to nowhere is still shown
                        facts = item.stat(follow_symlinks=False)
                    entries.append(_entry(join_path(folder, item.name), facts, is_link=item.is_symlink()))
        except NotADirectoryError:
            raise InputError(f"'{self._shown(folder)}' is a file, not a folder") from None
        except OSError as error:
            raise self._explained(error, "list", folder) from None
        return newest_first(entries)

    def find(self, folder: str, names: Sequence[str], *, fresh: bool = True) -> Entries:  # noqa: ARG002 - never from memory
        folder = checked_path(folder)
        place = self.on_disk(folder)
        try:
            if not stat_module.S_ISDIR(place.stat().st_mode):
                raise NotADirectoryError
            return [entry for name in names if (entry := _named(place, folder, name))]
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise InputError(f"'{self._shown(folder)}' is a file, not a folder") from None
        except OSError as error:
            raise self._explained(error, "look into", folder) from None

    def stat(self, path: str) -> Entry | None:
        path = checked_path(path)
        try:
            return _entry(path, self.on_disk(path).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explained(error, "look at", path) from None

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        path = checked_path(path)
        try:
            # Without O_NONBLOCK opening a named pipe would wait for a writer that never comes.
            descriptor = os.open(self.on_disk(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                facts = os.fstat(descriptor)
                if stat_module.S_ISDIR(facts.st_mode):
                    raise InputError(f"'{self._shown(path)}' is a folder, not a file")
                if not stat_module.S_ISREG(facts.st_mode):
                    raise InputError(f"'{self._shown(path)}' is not a regular file")
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    if max_bytes is None:
                        return file.read()
                    data = _read_at_most(file, max_bytes + 1, facts.st_size) if facts.st_size <= max_bytes else b""
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._explained(error, "read", path) from None
        if facts.st_size > max_bytes or len(data) > max_bytes:
            raise too_large(self._shown(path), facts.st_size, max_bytes)
        return data

    def create(self, path: str, data: bytes) -> None:
        path = checked_path(path)
        target = self.on_disk(path)
        if self._root is not None and not self._root.is_dir():
            raise self._not_mounted()  # else the set would land on this machine's disk, below the empty mount point
        try:
            make_folders(target.parent)
            create_file(target, data)
        except FileExistsError:
            raise AlreadyExists(f"'{self._shown(path)}' already exists") from None
        except OSError as error:
            raise self._explained(error, "write", path) from None
        self._tidy(target.parent)

    def glob(self, pattern: str) -> Entries:
        return expand(self, pattern)

    def _tidy(self, folder: Path) -> None:
        """Once a folder: looking through one that holds a set of each image of a batch must not be done for each image."""
        if folder in self._tidied:
            return
        if len(self._tidied) >= _MOST_TIDIED:
            self._tidied.clear()
        self._tidied.add(folder)
        remove_stale_temporaries(folder)

    def _not_mounted(self) -> StoreError:
        return StoreError(
            f"the folder that stands for /drops is not there: '{self._root}'",
            "Mount it, or set use_local_files to false.",
        )

    def on_disk(self, path: str) -> Path:
        """Where a checked path is on this machine."""
        return Path(path) if self._root is None else self._root / path.lstrip("/")

    def _shown(self, path: str) -> str:
        return f"/drops{path}" if self._kind is StoreKind.DROPS else path

    def _explained(self, error: OSError, verb: str, path: str) -> SegduoError:
        shown = self._shown(path)
        if error.errno in _NO_ROOM:
            return OutOfSpace(
                f"no room to {verb} '{shown}': {error.strerror}", "Free some space, or choose another folder."
            )
        if isinstance(error, FileNotFoundError | NotADirectoryError) and verb in ("read", "list"):
            if self._root is not None and not self._root.is_dir():
                return self._not_mounted()
            return NotFound(f"no such {'folder' if verb == 'list' else 'file'}: '{shown}'")
        if error.errno in (errno.EACCES, errno.EPERM):
            return StoreError(f"not allowed to {verb} '{shown}'", f"Check the permissions of '{split_path(path)[0]}'.")
        if error.errno == errno.EROFS:
            return StoreError(f"cannot {verb} '{shown}': the file system is read-only", "Choose another folder.")
        return StoreError(f"cannot {verb} '{shown}': {error.strerror or error}")


def too_large(shown: str, size: int | None, limit: int) -> InputError:
    """Only images are read with a limit, and theirs comes from the largest number of pixels. ``size`` None: not known."""
    has = f"{size} bytes, more" if size is not None else "more bytes"
    return InputError(
        f"'{shown}' has {has} than the limit of {limit}",
        "Is it the right file? --max-pixels N (or the setting max_pixels) allows larger ones.",
    )


def _read_at_most(file: BinaryIO, limit: int, expected: int) -> bytes:
    """At most ``limit`` bytes. ``read`` reserves as much memory as it is asked for, so it is asked for what is expected, not for the limit."""
    step = max(expected + 1, _LEAST_READ)
    parts = []
    while limit > 0 and (part := file.read(min(limit, step))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _entry(path: str, facts: os.stat_result, *, is_link: bool = False) -> Entry:
    is_folder = stat_module.S_ISDIR(facts.st_mode)
    return Entry(split_path(path)[1], path, is_folder, 0 if is_folder else facts.st_size, facts.st_mtime, is_link)


def _named(place: Path, folder: str, name: str) -> Entry | None:
    """The entry ``name`` of a folder, which is at ``place``, as a listing would give it."""
    file = f"{place}/{name}"
    try:
        facts = os.lstat(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise
    is_link = stat_module.S_ISLNK(facts.st_mode)
    if is_link:
        with suppress(OSError):  # a link to nowhere is there as well
            facts = Path(file).stat()
    return _entry(join_path(folder, name), facts, is_link=is_link)


def names_not_utf8(store: Store, folder: str) -> list[str]:
    """Names in ``folder`` that :meth:`LocalStore.list` leaves out because their bytes are not UTF-8, sorted; hidden ones do not count.

    Lone surrogates stand for the bytes (``os.fsdecode``). None where the folder cannot be read, and never on a server.
    """
    if not isinstance(store, LocalStore):
        return []
    try:
        names = [item.name for item in store.on_disk(checked_path(folder)).iterdir()]
    except OSError:
        return []
    return sorted(name for name in names if not (is_utf8(name) or name.startswith(".")))
