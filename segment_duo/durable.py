"""Write a file once or replace it whole, so that a crash, a full disk or a second writer never leaves half of one.

A file is written under a temporary name beside its place, flushed to the disk, and only then given its name, by a hard link: that fails when
the name is taken, so nothing is ever overwritten and no reader ever sees half a file. Where there are no hard links (FAT, some network
file systems) the name itself is created exclusively, and removed again if writing fails.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
import time
from pathlib import Path

_TEMPORARY_PREFIX = ".segduo-"


_TEMPORARY_SUFFIX = ".tmp"


_STALE_SECONDS = 24 * 3600.0
"""Only a killed process leaves a temporary file; no write takes a day, so an older one has no owner."""


_NO_LINKS = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
)


_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


def make_folders(folder: Path, *, mode: int = 0o777) -> None:
    """``mkdir -p`` whose new names survive a power loss; ``mode`` is narrowed by the umask. Raises ``OSError``."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(mode=mode, exist_ok=True)
        sync_folder(new.parent)


def make_private_folders(folder: Path) -> None:
    """``mkdir -p`` for the program's own folders: only the user may enter the new ones, whatever the umask. Raises ``OSError``.

    ``Path.mkdir(parents=True, mode=0o700)`` gives that mode to the last one alone.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(mode=0o700, exist_ok=True)


def create_file(target: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Create ``target`` with ``data``, complete and durable on return.

    Args:
        target: the file; its folder exists.
        data: what it shall hold; compared with what the file holds afterwards.
        mode: permission bits, narrowed by the process's umask.

    Raises:
        FileExistsError: the name is taken, be it by a link to nowhere.
        OSError: anything else; then no file of that name and no temporary file is left.
    """
    temporary = target.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
    try:
        _write_new(temporary, data, mode)
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_or_remove(target, data, mode)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        sync_folder(target.parent)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def replace_file(target: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write one of the program's own files (never a user's) so that readers see the old or the new content. Not flushed. Raises ``OSError``."""
    temporary = target.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable. File systems that cannot are left alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder`` more than a day ago."""
    limit = time.time() - _STALE_SECONDS
    try:
        with os.scandir(folder) as items:
            for item in items:
                if not (item.name.startswith(_TEMPORARY_PREFIX) and item.name.endswith(_TEMPORARY_SUFFIX)):
                    continue
                if item.is_file(follow_symlinks=False) and item.stat(follow_symlinks=False).st_mtime < limit:
                    Path(item.path).unlink(missing_ok=True)
    except OSError:
        return  # tidying must not turn a finished save into a failure


def _write_new(file: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        _sync_file(descriptor)
        if os.pread(descriptor, len(data) + 1, 0) != data:
            raise OSError(errno.EIO, "the file does not hold what was written")
    finally:
        os.close(descriptor)


def _write_or_remove(target: Path, data: bytes, mode: int) -> None:
    try:
        _write_new(target, data, mode)
    except FileExistsError:
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _sync_file(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone leaves the data in the drive's own cache there
        except OSError:
            os.fsync(descriptor)
    else:
        os.fsync(descriptor)
