"""Mask sets that could not be delivered, kept on this machine until their store answers again.

    spool/
      .lock                                    held while somebody delivers
      00001764000000000000000-1f3a.../         one set; the names sort by age
          item.json                            where it goes, its size and SHA-256, why it is here
          set.pkl                              the very bytes that will be stored; loads by itself
      .new-...  .done-...                      being added, being removed
    set-aside/                                 beside it, the same folders: sets that no delivery is tried of

An item appears by one rename of a folder whose files are on the disk, and disappears by one rename after its store has read the set back.
So a process may be killed at any moment: what was added is delivered, and nothing is delivered twice, for each delivery
first looks whether the store already holds these bytes.

A set whose place can never take it (a file where its folder should be, a name that the store refuses) would wait for ever. It is set aside:
out of the way of the deliveries, and kept, since only its owner may throw masks away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segment_duo.durable import create_file, make_folders, make_private_folders, sync_folder
from segment_duo.errors import OutOfSpace, SegduoError, ServerError, StoreError
from segment_duo.library.versions import check_suffix, list_versions, save_version
from segment_duo.stores.base import Store
from segment_duo.types import StoreKind, Version

_FORMAT = 1
_ITEM, _SET, _LOCK = "item.json", "set.pkl", ".lock"
_NEW, _DONE = ".new-", ".done-"
_ID_LENGTH = 8
_ABANDONED_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class SpoolItem:
    """A set that waits.

    Attributes:
        path: the file with the set's bytes.
        kind, folder, stem, suffix: where it goes, as given to :func:`save_version`.
        address: the store's address when the set was made, empty when unknown; it is delivered nowhere else.
        size, sha256: of the bytes.
        created: seconds since the epoch.
        error: why it could not be delivered.
    """

    path: Path
    kind: StoreKind
    folder: str
    stem: str
    suffix: str
    address: str
    size: int
    sha256: str
    created: float
    error: str

    @property
    def id(self) -> str:
        """What the user calls it by: the first characters of the random part of its folder's name."""
        return self.path.parent.name.rpartition("-")[2][:_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The set is in its store and was read back. ``found``: an earlier, interrupted delivery had stored it."""

    item: SpoolItem
    version: Version
    found: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The set still waits."""

    item: SpoolItem
    error: SegduoError


class Spool:
    """The folder of waiting sets.

    Args:
        folder: made on first use, readable by the user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = folder.with_name("set-aside")

    def add(
        self,
        kind: StoreKind,
        folder: str,
        stem: str,
        suffix: str,
        data: bytes,
        error: SegduoError | str,
        *,
        address: str = "",
        aside: bool = False,
    ) -> Path:
        """Keep a set; on return it survives a crash and a power loss. The same set for the same place is kept once.

        With ``aside`` it is kept, but never delivered: its place cannot take it.

        Returns:
            The file that holds ``data``.

        Raises:
            OutOfSpace, StoreError: it could not be kept.
        """
        digest = hashlib.sha256(data).hexdigest()
        place = (kind, folder, stem, check_suffix(suffix), address, digest)
        created = time.time_ns()
        try:
            make_private_folders(self._folder)
            for item in self.pending():
                if (item.kind, item.folder, item.stem, item.suffix, item.address, item.sha256) == place:
                    return item.path
            name = f"{created:023d}-{secrets.token_hex(8)}"
            parent = self._aside if aside else self._folder
            parent.mkdir(exist_ok=True, mode=0o700)
            new = self._folder / (_NEW + name)
            final = parent / name
            item = SpoolItem(
                final / _SET, kind, folder, stem, place[3], address, len(data), digest, created / 1e9, str(error)[:1000]
            )
            try:
                make_folders(new, mode=0o700)
                create_file(new / _SET, data, mode=0o600)
                create_file(new / _ITEM, _to_json(item), mode=0o600)
                new.rename(final)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            sync_folder(parent)
        except OSError as problem:
            raise _explained(problem, self._folder) from None
        return item.path

    def set_aside(self, item: SpoolItem) -> Path:
        """Move a waiting set out of the way of the deliveries; nothing is deleted. Returns the set's file in its new place.

        Raises:
            StoreError: it could not be moved.
        """
        source = item.path.parent
        try:
            with self._locked(True):
                self._aside.mkdir(exist_ok=True, mode=0o700)
                source.rename(self._aside / source.name)
                sync_folder(self._aside)
                sync_folder(self._folder)
        except OSError as problem:
            raise _explained(problem, self._folder) from None
        return self._aside / source.name / item.path.name

    def pending(self) -> list[SpoolItem]:
        """The waiting sets, oldest first. What is damaged is left alone and not listed; :meth:`damaged` counts it."""
        return [item for item in map(_load, self._item_folders()) if item]

    def damaged(self) -> list[Path]:
        """Folders of sets whose description cannot be read any more; the bytes may still be of use to somebody."""
        return [folder for folder in self._item_folders() if _load(folder) is None]

    def push(self, open_store: Callable[[StoreKind], Store], *, wait: bool = True) -> list[Delivered | Failed]:
        """Deliver the waiting sets, oldest first; each is removed once its store has read it back.

        After a store turned out to be away, its other sets are not tried. With ``wait`` false nothing happens while another process delivers.

        Raises:
            StoreError: the spool itself cannot be used.
        """
        if not self._item_folders():
            return []
        results: list[Delivered | Failed] = []
        away: dict[StoreKind, SegduoError] = {}
        with self._locked(wait) as locked:
            if not locked:
                return []
            self._sweep()
            for item in self.pending():
                try:
                    if item.kind in away:
                        raise away[item.kind]
                    delivered = _deliver(item, open_store(item.kind))
                except SegduoError as error:
                    if isinstance(error, ServerError):
                        away[item.kind] = error
                    results.append(Failed(item, error))
                    continue
                self._remove(item)
                results.append(delivered)
        return results

    def _item_folders(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if not path.name.startswith(".") and path.is_dir())
        except FileNotFoundError:
            return []
        except OSError as problem:
            raise _explained(problem, self._folder) from None

    @contextlib.contextmanager
    def _locked(self, wait: bool) -> Iterator[bool]:
        import fcntl

        try:
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise _explained(problem, self._folder) from None
        try:
            try:
                # The kernel drops the lock when its holder dies, so a killed delivery never blocks the next one.
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as problem:
                raise _explained(problem, self._folder) from None
            yield True
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what killed processes left behind: items that were delivered, and items that were never finished."""
        for path in self._folder.glob(f"{_DONE}*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob(f"{_NEW}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)

    def _remove(self, item: SpoolItem) -> None:
        folder = item.path.parent
        done = self._folder / (_DONE + folder.name)
        try:
            folder.rename(done)
            sync_folder(self._folder)
        except OSError as problem:
            raise _explained(problem, self._folder) from None
        shutil.rmtree(done, ignore_errors=True)


def _deliver(item: SpoolItem, store: Store) -> Delivered:
    if item.address and store.address != item.address:
        raise StoreError(
            f"'{item.stem}' was made for {item.address}, but the setting is {store.address} now",
            f"Set the address back, or take the set from {item.path}.",
        )
    try:
        data = item.path.read_bytes()
    except OSError as problem:
        raise _explained(problem, item.path) from None
    if hashlib.sha256(data).hexdigest() != item.sha256:
        raise StoreError(f"the spooled set {item.path} is damaged", "It is left where it is.")
    for version in list_versions(store, item.folder, item.stem):
        if (version.suffix, version.size) == (item.suffix, item.size) and store.read(version.path) == data:
            return Delivered(item, version, found=True)
    return Delivered(item, save_version(store, item.folder, item.stem, item.suffix, data))


def _to_json(item: SpoolItem) -> bytes:
    fields = asdict(item)
    del fields["path"]
    return json.dumps({"format": _FORMAT, **fields}, indent=1).encode("ascii")


def _load(folder: Path) -> SpoolItem | None:
    try:
        fields: dict[str, Any] = json.loads((folder / _ITEM).read_bytes())
        if fields.pop("format") != _FORMAT:
            return None
        return SpoolItem(path=folder / _SET, **{**fields, "kind": StoreKind(fields["kind"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _explained(problem: OSError, place: Path) -> StoreError:
    import errno

    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"no room to keep the masks in '{place}'", "Free some space on this machine.")
    return StoreError(f"cannot use the spool '{place}': {problem.strerror or problem}")
