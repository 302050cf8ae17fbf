"""The saved sequence sets of a stack, a folder of frames or a film: where they are while they grow, under which name they end, reading them.

    masks/.segduo-growth-3f9a....part     grows frame by frame; the same command finds it again by what it asks for, and goes on
    masks/growth_2.pkl                    the next version's name, given when it is whole

They share names and numbers with the mask sets of the same image (:mod:`segment_duo.library.versions`): ``growth.tif@2`` is one thing. On Drops
nothing can be appended to, so a set grows in a folder of this machine and is sent when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.durable import make_folders, make_private_folders, sync_folder
from segment_duo.errors import AlreadyExists, MaskFileError, NotFound, StoreError
from segment_duo.library.sequence_files import open_sequence
from segment_duo.library.versions import VersionRequest, save_version
from segment_duo.masks.formats.sequence import SequenceHead, SequenceSet
from segment_duo.masks.formats.sequence_writer import SequenceWriter
from segment_duo.provenance import made_since
from segment_duo.stores.base import has_magic, split_path
from segment_duo.stores.local import LocalStore
from segment_duo.types import ImageRef, StoreKind, Version

if TYPE_CHECKING:
    from segment_duo.library.library import SavedSets
    from segment_duo.paths import Paths
    from segment_duo.stores.base import Store

_HINT = "Make one with `segduo track`."


def sequence_ref(ref: ImageRef) -> ImageRef:
    """What the sets of a sequence are named after: a pattern (``scan_*.tif``) loses its wildcards (``scan_.tif``)."""
    if not has_magic(ref.path):
        return ref
    folder, name = split_path(ref.path)
    plain = re.sub(r"\[[^]]*\]|[*?]+", "", name).strip("_- ")
    head, dot, tail = plain.rpartition(".")
    plain = f"{head.rstrip('_- ')}{dot}{tail}" if head.strip("_- ") else f"frames{dot}{tail}"
    steps = [step for step in folder.split("/") if not has_magic(step)]
    return ImageRef(ref.store, f"{'/'.join(steps)}/{plain}")


@dataclass(frozen=True)
class SavedSequence:
    """Where a sequence set went: ``path`` as the user may type it."""

    path: str
    version: Version


class SequenceSets:
    """The sequence sets of one session."""

    def __init__(
        self, sets: SavedSets, store: Callable[[StoreKind], Store], paths: Paths, *, max_pixels: int | None = None
    ) -> None:
        self._sets, self._store, self._paths, self._max_pixels = sets, store, paths, max_pixels

    # -- writing ----------------------------------------------------------------------------------------------------------

    def writer(
        self, ref: ImageRef, head: SequenceHead, *, restart: bool = False, must_resume: bool = False
    ) -> SequenceWriter:
        """A set that grows: what an earlier run with the same head left, or a new one.

        Args:
            restart: forget what the earlier run left.
            must_resume: no new one.

        Raises:
            NotFound: no earlier run left anything, but ``must_resume``.
            StoreError: it cannot be written, or another run is writing it.
        """
        part = self._part(ref, head)
        if part.is_file() and (restart or part.stat().st_nlink > 1):  # a second name: it was whole, and has its own
            part.unlink()
        if part.is_file():
            try:
                return SequenceWriter.resume(part)
            except MaskFileError:  # killed before its head was whole
                part.unlink()
        if must_resume:
            raise NotFound(
                f"{ref}: no run with these options was broken off", "Without --resume the same command begins one."
            )
        return SequenceWriter.create(part, head)

    def _part(self, ref: ImageRef, head: SequenceHead) -> Path:
        kind, folder = self._sets.folder(ref)
        store = self._store(kind)
        name = f".segduo-{ref.stem[:60]}-{_key(ref, head)}.part"
        try:
            if isinstance(store, LocalStore):
                place = store.on_disk(folder)
                make_folders(place)
            else:
                place = self._paths.state_dir / "sequences"
                make_private_folders(place)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror or error}") from None
        return place / name

    def adopt(self, ref: ImageRef, part: Path, *, suffix: str = "") -> SavedSequence:
        """Give a finished set the next version's name.

        Raises:
            StoreError, DropsError: it could not; the file stays, and the same command tries again.
        """
        kind, folder = self._sets.folder(ref)
        store = self._store(kind)
        if isinstance(store, LocalStore):
            version = save_version(store, folder, ref.stem, suffix, b"", create=_named(store, part))
        else:
            version = save_version(store, folder, ref.stem, suffix, part.read_bytes())
        part.unlink(missing_ok=True)
        return self._saved(ref, version)

    def _saved(self, ref: ImageRef, version: Version) -> SavedSequence:
        kind, _ = self._sets.folder(ref)
        return SavedSequence(str(ImageRef(kind, version.path)), version)

    def on_disk(self, ref: ImageRef, version: Version) -> Path | None:
        """Where the file of a version is on this machine; None on a server."""
        kind, _ = self._sets.folder(ref)
        store = self._store(kind)
        return store.on_disk(version.path) if isinstance(store, LocalStore) else None

    def made(self, ref: ImageRef, head: SequenceHead, since: float, *, suffix: str = "") -> SavedSequence | None:
        """The whole set of a run with the same head that began at ``since`` (seconds since the epoch), if there is one."""
        for version in self._sets.versions(ref, suffix):
            try:
                found = self.read(ref, version)
            except MaskFileError:
                continue
            if found is None:
                continue
            with found:
                if (
                    found.finished
                    and _key(ref, found.head) == _key(ref, head)
                    and made_since(found.head.provenance.created, since)
                ):
                    return self._saved(ref, version)
        return None

    # -- reading ----------------------------------------------------------------------------------------------------------

    def open(self, ref: ImageRef, version: str | None = None) -> tuple[Version, SequenceSet]:
        """A saved sequence set: by its version's name, or else the latest.

        Raises:
            NotFound: there is none.
            MaskFileError: the version is a mask set, or damaged.
        """
        request = VersionRequest.parse(version)
        candidates = request.candidates(self._sets.versions(ref), str(ref))
        for candidate in candidates:
            found = self.read(ref, candidate)
            if found is not None:
                return candidate, found
        if request.name is not None:
            raise MaskFileError(f"{ref}@{request.name} is a set of one image, not of a sequence", _HINT)
        raise NotFound(f"{ref}: none of its saved sets is a sequence set", _HINT)

    def read(self, ref: ImageRef, version: Version) -> SequenceSet | None:
        """The sequence set of a version, open; None when it is a mask set."""
        kind, _ = self._sets.folder(ref)
        return open_sequence(self._store(kind), kind, version.path, max_pixels=self._max_pixels)


def _key(ref: ImageRef, head: SequenceHead) -> str:
    """Tells runs apart that ask for different things; when they were begun makes no difference."""
    asked: dict[str, Any] = {key: value for key, value in head.record().items() if key != "created"}
    return hashlib.sha256(json.dumps([str(ref), asked], sort_keys=True).encode()).hexdigest()[:16]


def _named(store: LocalStore, part: Path) -> Callable[[str, bytes], None]:
    """Gives a file that is there already its name; nothing is copied."""

    def create(path: str, _data: bytes) -> None:
        target = store.on_disk(path)
        try:
            os.link(part, target)
            sync_folder(target.parent)
        except FileExistsError:
            raise AlreadyExists(f"'{path}' already exists") from None
        except OSError:  # a file system without hard links
            store.create(path, part.read_bytes())

    return create
