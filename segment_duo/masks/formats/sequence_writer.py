"""Writing a sequence set frame by frame, each flushed to the disk, and going on after the writing was broken off.

What a sequence set is: :mod:`segment_duo.masks.formats.sequence`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from segment_duo.durable import sync_folder
from segment_duo.errors import AlreadyExists, OutOfSpace, StoreError
from segment_duo.masks.formats.native import PICKLE_PROTOCOL, read_masks, to_record
from segment_duo.masks.formats.sequence import Event, SeenFrame, SequenceHead, SequenceSet, events_of
from segment_duo.masks.load_masks import Chunk, decoded_frame
from segment_duo.types import Mask


@dataclass(slots=True)
class SequenceWriter:
    """A sequence set that is being written. What :meth:`append` returned from is on the disk, whatever happens next.

    Only one process writes a file at a time; another is refused.
    """

    path: Path
    head: SequenceHead
    done: set[int]
    _descriptor: int
    _origins: dict[int, int] = field(default_factory=dict)
    _chunks: dict[int, Chunk] = field(default_factory=dict)

    @classmethod
    def create(cls, path: Path, head: SequenceHead) -> Self:
        """Begin a file at ``path``, whose folder exists.

        Raises:
            AlreadyExists: the name is taken.
            StoreError: it cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise AlreadyExists(f"{path} exists already") from None
        except OSError as error:
            raise _store_error(path, error) from None
        writer = cls(path, head, set(), descriptor)
        _lock(descriptor, path)
        try:
            writer._write(pickle.dumps(head.record(), PICKLE_PROTOCOL))
            sync_folder(path.parent)
        except BaseException as error:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise _store_error(path, error) if isinstance(error, OSError) else error from None
        return writer

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Go on with a file whose writing was broken off: half a frame at its end is cut off.

        Raises:
            MaskFileError: it is not such a file.
            StoreError: somebody else writes it, or it cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _store_error(path, error) from None
        try:
            _lock(descriptor, path)
            with SequenceSet.open(path) as found:
                os.ftruncate(descriptor, found.whole_bytes())
            os.fsync(descriptor)
            with SequenceSet.open(path) as found:
                writer = cls(path, found.head, set(found.frames), descriptor)
                writer._chunks = {chunk.frame: chunk for chunk in found.chunks}
            os.lseek(descriptor, 0, os.SEEK_END)
        except OSError as error:
            os.close(descriptor)
            raise _store_error(path, error) from None
        except BaseException:
            os.close(descriptor)
            raise
        return writer

    def append(self, frame: int, masks: Sequence[Mask], events: Sequence[Event] = ()) -> None:
        """Write one frame and flush it to the disk.

        Args:
            masks: of the uncut frame, ``id`` is the object's; their origins are among the head's.

        Raises:
            OutOfSpace, StoreError: it could not be written; what was written before stays.
        """
        records = [to_record(mask) | {"origin": self._origin(mask)} for mask in masks]
        payload = pickle.dumps(records, PICKLE_PROTOCOL)
        index = {
            "frame": int(frame),
            "bytes": len(payload),
            "crc32": zlib.crc32(payload),
            "ids": ",".join(str(int(mask.id)) for mask in masks),
            "events": [event.record() for event in events],
        }
        head = pickle.dumps(index, PICKLE_PROTOCOL)
        start = self._append(head + payload)
        self._chunks[frame] = Chunk(index, start + len(head))
        self.done.add(frame)

    def frame(self, number: int) -> SeenFrame:
        """What was written of a frame, at last. Raises KeyError where nothing was."""
        chunk = self._chunks[number]
        records = decoded_frame(os.pread(self._descriptor, chunk.size, chunk.offset), chunk)
        masks = read_masks(records, self.head.origins, size=self.head.size)
        return SeenFrame(number, masks, events_of(chunk))

    def _origin(self, mask: Mask) -> int | None:
        if mask.origin is None:
            return None
        if id(mask.origin) not in self._origins:
            known = self.head.origins
            self._origins[id(mask.origin)] = known.index(mask.origin) if mask.origin in known else -1
        number = self._origins[id(mask.origin)]
        return None if number < 0 else number

    def finish(self, notices: Sequence[str] = ()) -> None:
        """Write the end and close the file."""
        self._append(pickle.dumps({"end": len(self.done), "notices": [str(one) for one in notices]}, PICKLE_PROTOCOL))
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, data: bytes) -> int:
        start = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            self._write(data)
        except OSError as error:
            os.ftruncate(self._descriptor, start)
            raise _store_error(self.path, error) from None
        return start

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fsync(self._descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"another run is writing {path}", "Wait for it, or stop it; what it did is kept.") from None
    except OSError:
        return  # a file system without locks


def _store_error(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"no space left to write {path}", "Free some space and run the same command: it goes on.")
    return StoreError(f"{path} could not be written: {error.strerror or error}")
