"""A task's manifest: one file of NDJSON, written by one process, only ever appended to.

    {"manifest": 1, "batch": "...", "command": "auto", "shard": "3/8", ...}     first: which batch and task
    {"begun": "/data/a.tif", "time": 1764180000.1}                               before an image (``sent``: to a cluster)
    {"image": "/data/a.tif", "outcome": "done", "set": "/data/masks/a.pkl", ...} after it
    {"dropped": "/data/b.tif"}                                                   begun, but not to be held against it: Ctrl-C, or a frame done
    {"ended": "done", "time": ...}                                               last, unless the process was killed

Tasks never share a file, for appends of several machines to one file of a network file system get lost. A line is written by one call, so that a
process that is killed leaves it whole or not at all; a machine that loses its power may tear the last one, and readers pass that over. What was
written is on the disk a second later at most: a lost line costs one image done again, found by :func:`segment_duo.batch.segment_one`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from segment_duo.batch import Outcome
from segment_duo.durable import make_folders, sync_folder
from segment_duo.errors import InputError, OutOfSpace, SegduoError, StoreError, error_from_slug

FORMAT = 1
SUFFIX = ".ndjson"
_SYNC_SECONDS = 1.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
HASH_DIGITS = 12

Ended = Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Record:
    """What became of an image, without its masks. The fields of a manifest's line, but for ``notes``; those that are empty are left out there.

    Attributes:
        set: path of the saved set; of the local copy when it is ``spooled`` for the ``reason``.
        seconds: the engine's work.
        masks: their number, of a sequence that of its objects; None for an embedding alone.
        hash: first digits of the SHA-256 of the model's weights.
        id: the engine's name for the pixels, for an embedding alone.
        error: slug of what failed; see :mod:`segment_duo.errors`.
    """

    image: str
    outcome: Literal["done", "skipped", "failed"] = "done"
    set: str = ""
    version: str | None = None
    seconds: float = 0.0
    masks: int | None = None
    model: str = ""
    hash: str = ""
    id: str = ""
    computed: bool = True
    spooled: bool = False
    reason: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""
    message: str = ""
    hint: str = ""

    @classmethod
    def of(cls, outcome: Outcome, *, automatic: bool) -> Record:
        """``automatic``: masks were asked for, not the embedding alone."""
        saved, error = outcome.saved, outcome.error
        return cls(
            str(outcome.ref),
            outcome.state,
            saved.path if saved else "",
            saved.version.name if saved and saved.version else None,
            round(outcome.seconds, 3),
            len(outcome.masks) if automatic and (saved or outcome.image_id) else None,
            outcome.model,
            outcome.model_sha256[:HASH_DIGITS],
            "" if automatic else outcome.image_id,
            outcome.computed,
            saved is not None and saved.spooled is not None,
            saved.reason if saved else "",
            outcome.notes,
            error.slug if error else "",
            error.message if error else "",
            error.hint if error else "",
        )

    @classmethod
    def failed(cls, image: str, error: SegduoError) -> Record:
        return cls(image, "failed", error=error.slug, message=error.message, hint=error.hint)

    def line(self) -> dict[str, Any]:
        """JSON values for a manifest."""
        line = {name: value for name, value in asdict(self).items() if value not in ("", None, False)}
        del line["notes"]  # the set has them
        if self.computed:
            del line["computed"]
        else:
            line["computed"] = False
        return line

    @property
    def problem(self) -> SegduoError | None:
        return error_from_slug(self.error, self.message, self.hint) if self.error else None


class Manifest:
    """A new file of the folder, open for this process alone."""

    def __init__(self, folder: Path, name: str, header: Mapping[str, Any]) -> None:
        """Args:
        folder: made if need be.
        name: how the file's name begins, such as ``shard-3-of-8``.
        header: JSON values that say which batch and task this is.

        Raises:
            StoreError: the folder cannot be written.
        """
        self._synced = 0.0
        now = time.time()
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}.{int(now % 1 * 1e6):06}"
        self.path = (
            folder
            / f"{stamp}-{name}-{os.uname().nodename.partition('.')[0]}-{os.getpid()}-{secrets.token_hex(3)}{SUFFIX}"
        )
        try:
            make_folders(folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
            sync_folder(folder)
        except OSError as error:
            raise _unwritable(f"a manifest in '{folder}'", error) from None
        self._length = 0
        self._write({"manifest": FORMAT, **header, "time": now})

    def begin(self, image: str, *, sent: bool = False) -> None:
        """An image is in hand, or ``sent`` to a cluster."""
        self._write({"sent" if sent else "begun": image, "time": round(time.time(), 3)})

    def note(self, record: Record) -> None:
        self._write({**record.line(), "time": round(time.time(), 3)})

    def drop(self, image: str) -> None:
        """An image that was begun is given up on purpose, or a sequence got on: no death is held against it."""
        self._write({"dropped": image})

    def close(self, ended: Ended) -> None:
        with contextlib.suppress(StoreError):  # what counts is noted already
            self._write({"ended": ended, "time": time.time()})
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                os.ftruncate(self._descriptor, self._length)
                raise OSError(errno.ENOSPC, "no room for a line")
            self._length += written
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()
                if not os.fstat(self._descriptor).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, "it was removed")
        except OSError as error:
            raise _unwritable(f"the manifest '{self.path}'", error) from None


def claim(folder: Path, name: str) -> int:
    """Be the only process that does this part of a batch, until the descriptor that is returned is closed or the process ends, however it ends.

    A file system without locks lets everybody pass.

    Args:
        folder: of the manifests; made if need be.
        name: of the part, as of :class:`Manifest`.

    Raises:
        StoreError: another process does it, or the folder cannot be written.
    """
    file = folder / f".{name}.lock"
    try:
        make_folders(folder)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unwritable(f"a manifest in '{folder}'", error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace")
        os.close(descriptor)
        raise StoreError(
            f"another task is doing this part of the batch: {name} in '{folder}' ({holder})",
            f"Wait for it, or give each task a shard of its own. If it died with its machine, remove {file}.",
        ) from None
    except OSError:
        return descriptor
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
    return descriptor


def _unwritable(what: str, error: OSError) -> StoreError:
    full = error.errno in _NO_ROOM
    hint = "Free some space; the same command goes on with what is left." if full else ""
    found = (OutOfSpace if full else StoreError)(f"cannot write {what}: {error.strerror or error}", hint)
    found.ends_batch = True
    return found


def files(folder: Path) -> list[Path]:
    """The manifests of a folder in the order in which they were begun; none when there is no such folder. Raises StoreError."""
    try:
        return sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIX) and file.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read '{folder}': {error.strerror or error}") from None


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a manifest, the header first; a torn or damaged line is passed over.

    Raises:
        StoreError: it cannot be read.
        InputError: it is no manifest, or one of a newer version.
    """
    try:
        with file.open("rb") as lines:
            header = _header(lines, file)
            if header is None:
                return
            yield header
            for line in lines:
                parsed = _parsed(line)
                if parsed is not None:
                    yield parsed
    except OSError as error:
        raise StoreError(f"cannot read '{file}': {error.strerror or error}") from None


def _header(lines: IO[bytes], file: Path) -> dict[str, Any] | None:
    """The first line, or None when the process died over it."""
    first = lines.readline()
    header = _parsed(first)
    if header is None and not first.endswith(b"\n"):
        return None
    if header is None or "manifest" not in header:
        raise InputError(f"'{file}' is no manifest", "Give --manifest a folder of its own.")
    if header["manifest"] != FORMAT:
        raise InputError(f"'{file}' is a manifest of a newer version", "Update segduo on this machine.")
    return header


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
