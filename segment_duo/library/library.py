"""The saved mask sets: which there are of an image, reading and writing them, and whether one really belongs to the image.

Sets are found by the image's name, for that needs one listing; whether a set is the image's own is decided by what it records
(:class:`Owner`). This module opens no image and asks no engine: :class:`segment_duo.session.Session` does, and owns one of these.
"""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.durable import create_file
from segment_duo.errors import (
    DropsRefused,
    DropsUnavailable,
    InputError,
    MaskFileError,
    NotFound,
    S3Refused,
    S3Unavailable,
    SegduoError,
    ServerError,
    StoreError,
    UsageError,
)
from segment_duo.library import versions as version_names
from segment_duo.library.ownership import Owner
from segment_duo.library.sequence_files import SEQUENCE_HINT, peek_file
from segment_duo.library.spool import Delivered, Failed, Spool
from segment_duo.library.versions import VersionRequest
from segment_duo.provenance import stamped
from segment_duo.stores.base import split_path
from segment_duo.stores.locate import parse_reference
from segment_duo.types import ImageFacts, ImageRef, Mask, MaskSet, Provenance, StoreKind, Version

if TYPE_CHECKING:
    from segment_duo.config import Config
    from segment_duo.masks.formats.native import Peek
    from segment_duo.paths import Paths
    from segment_duo.stores.base import Store


_CUTS = ("keep", "rm-mask", "filter")
"""Operations that leave fewer masks on purpose."""


@dataclass(frozen=True)
class LoadedSet:
    """A saved set and how well it fits the image asked for.

    ``notice`` is empty when the set names exactly this image; ``belongs`` is False when it names another. ``others``: what else bears the
    image's name, newest first, when this is the latest and was not asked for by name.
    """

    version: Version
    mask_set: MaskSet
    notice: str = ""
    belongs: bool = True
    others: tuple[Version, ...] = ()


@dataclass(frozen=True)
class ListedSet:
    """A saved set that bears an image's name, as far as a look at its file tells.

    ``belongs`` is False when it is another image's, or another page's, and None when the file cannot be read; ``notice`` says why.
    ``peek`` is what the file says without decoding its masks; ``path`` is what the user may type.
    """

    version: Version
    path: str
    belongs: bool | None
    notice: str = ""
    peek: Peek | None = None


@dataclass(frozen=True)
class Saved:
    """Where a set went. ``spooled`` holds the local copy when the server did not take it, for ``reason``; ``path`` is what the user may type."""

    path: str
    version: Version | None
    mask_set: MaskSet
    spooled: Path | None = None
    reason: str = ""


class SavedSets:
    """The saved sets of one session. Its methods may be called from several threads."""

    def __init__(
        self,
        config: Config,
        paths: Paths,
        store: Callable[[StoreKind], Store],
        *,
        out: str | None = None,
        tell: Callable[[str], None],
    ) -> None:
        """Args:
        config: where sets go, and how they are written.
        paths: the user's folders; the spool is among them.
        store: opens a store.
        out: a folder for saved sets instead of the configured place (``--out``).
        tell: receives one-line messages for the user.
        """
        self.spool = Spool(paths.spool_dir)
        self._config = config
        self._store = store
        self._out = out
        self._tell = tell

    def folder(self, ref: ImageRef) -> tuple[StoreKind, str]:
        """Where the sets of this image go."""
        if self._out is not None:
            out = parse_reference(self._out)
            return out.store, out.path
        return version_names.masks_folder(ref, self._config)

    def check_out(self) -> None:
        """Refuse an ``--out`` that can never hold a set, before anything is computed; see :meth:`check_destination`."""
        if self._out is not None:
            self._check_folder(*self.folder(ImageRef(StoreKind.LOCAL, "/")))

    def check_destination(self, refs: Sequence[ImageRef]) -> None:
        """Refuse folders that can never hold the sets of these images. One that a store does not answer for is left to :meth:`save`.

        Raises:
            InputError: a file where a folder should be, or a name that Drops does not serve.
        """
        for kind, folder in dict.fromkeys(map(self.folder, refs)):
            self._check_folder(kind, folder)

    def _check_folder(self, kind: StoreKind, folder: str) -> None:
        shown = ImageRef(kind, folder)
        try:
            store = self._store(kind)
            if kind is StoreKind.DROPS and "/." in folder and not self._config.use_local_files:
                raise InputError(
                    f"'{shown}': Drops neither lists nor serves names that begin with a dot", "Choose another folder."
                )
            while folder != "/":
                entry = store.stat(folder)
                if entry is not None and not entry.is_folder:
                    raise InputError(
                        f"'{ImageRef(kind, folder)}' is a file, so no sets can be saved in '{shown}'",
                        "Name a folder with --out, masks_root or local_masks_dir.",
                    )
                if entry is not None:
                    return
                folder = split_path(folder)[0]
        except (ServerError, StoreError):
            return  # away, or not allowed to look

    def versions(self, ref: ImageRef, suffix: str | None = None) -> list[Version]:
        """The saved sets that bear this image's name, newest first; with ``suffix`` those of one series, quickly even in a full folder."""
        kind, folder = self.folder(ref)
        if suffix is not None:
            return version_names.list_series(self._store(kind), folder, ref.stem, suffix)
        return version_names.list_versions(self._store(kind), folder, ref.stem)

    def chosen(self, ref: ImageRef, request: VersionRequest) -> list[Version]:
        """The saved sets that bear this image's name and may be meant, newest first.

        Raises:
            NotFound: there is none; the message tells whether it is the image that is missing.
        """
        versions = self.versions(ref)
        if not versions and self._store(ref.store).stat(ref.path) is None:
            raise NotFound(f"no such file: '{ref}'")
        return request.candidates(versions, str(ref))

    def listed(self, ref: ImageRef, facts: ImageFacts | None = None, version: str | None = None) -> list[ListedSet]:
        """The saved sets that bear this image's name, newest first, and which of them are its own. Reads each set's file.

        Args:
            facts: the image's when it is open; without them every page's sets are its own, and a change of its bytes is not noticed.
            version: only this one.

        Raises:
            NotFound: there is no such set.
        """
        request = VersionRequest.parse(version)
        owner = self._owner(ref, facts)
        found = []
        for item in self.versions(ref) if request.name is None else self.chosen(ref, request):
            path = self._shown(ref, item)
            try:
                peek = self.peek(ref, item)
            except MaskFileError as error:
                found.append(ListedSet(item, path, None, f"damaged: {error.message}"))
                continue
            belongs, notice = self._judged(item, peek.provenance, owner)
            found.append(ListedSet(item, path, belongs, notice, peek))
        return found

    def load(self, ref: ImageRef, version: str | None = None, facts: ImageFacts | None = None) -> LoadedSet:
        """Load one saved set: by version name, or else the latest that belongs to this image.

        Damaged sets are passed over with a message when the latest is wanted.

        Args:
            version: ``0``, ``2``, ``grain_1``; None or ``latest`` for the latest.
            facts: the image's when it is open; they save reading it again to tell images (and pages) of the same name apart.

        Raises:
            NotFound: no such set.
            MaskFileError: the file is damaged or not a mask set.
        """
        request = VersionRequest.parse(version)
        candidates = self.chosen(ref, request)
        owner = self._owner(ref, facts)
        if request.name is not None:
            return self._fit(candidates[0], self.read(ref, candidates[0]), owner)
        unread: list[MaskFileError] = []
        for candidate in candidates:
            try:
                peek = self.peek(ref, candidate)
                if peek.frames is None and owner.has(candidate, peek.provenance):
                    others = tuple(other for other in candidates if other is not candidate)
                    return dataclasses.replace(self._fit(candidate, self.read(ref, candidate), owner), others=others)
            except MaskFileError as error:
                self._tell(f"passed over: {error.message}")
                unread.append(error)
        if len(unread) == len(candidates):
            # Naming a version would only end here again.
            raise MaskFileError(
                f"{ref}: none of its {len(unread)} saved sets can be read; the latest: {unread[0].message}"
                if len(unread) > 1
                else f"{ref}: its only saved set cannot be read: {unread[0].message}",
                unread[0].hint or "Make a new one with `segduo auto` or `segduo point`; nothing is overwritten.",
            )
        raise NotFound(
            f"{ref}: none of the saved sets of this name belongs to this image",
            "`segduo masks ls` shows them; IMAGE@VERSION loads one all the same.",
        )

    def read(self, ref: ImageRef, version: Version) -> MaskSet:
        """Read and check the file of a version."""
        from segment_duo.masks.formats.native import loads
        from segment_duo.masks.formats.sequence import holds_sequence

        kind, _ = self.folder(ref)
        content = self._store(kind).read(version.path)
        if holds_sequence(content):
            raise MaskFileError(
                f"{self._shown(ref, version)} is a sequence set: it holds masks of many frames", SEQUENCE_HINT
            )
        return loads(
            content,
            name=self._shown(ref, version),
            max_pixels=self._config.max_pixels,
        )

    def peek(self, ref: ImageRef, version: Version) -> Peek:
        """Number of masks and provenance of a version, without decoding masks (and without NumPy)."""
        kind, _ = self.folder(ref)
        return peek_file(self._store(kind), kind, version.path)

    def _shown(self, ref: ImageRef, version: Version) -> str:
        return str(ImageRef(self.folder(ref)[0], version.path))

    def refit(self, ref: ImageRef, loaded: LoadedSet, facts: ImageFacts) -> LoadedSet:
        """Say again how well a loaded set fits its image, now that the image is open."""
        fitted = self._fit(loaded.version, loaded.mask_set, self._owner(ref, facts))
        return dataclasses.replace(fitted, others=loaded.others)

    def latest(self, ref: ImageRef, facts: ImageFacts | None = None) -> ListedSet | None:
        """The set that :meth:`load` takes when none is named, as far as a look tells; None when there is none."""
        return self._first(ref, self.versions(ref), self._owner(ref, facts), lambda _: True)

    def latest_by_page(self, ref: ImageRef) -> dict[int, Version]:
        """The latest set of each page that has one; of all saved sets each file is read once. Damaged ones are passed over with a message."""
        owner = self._owner(ref)
        found: dict[int, Version] = {}
        for version in self.versions(ref):
            try:
                peek = self.peek(ref, version)
            except MaskFileError as error:
                self._tell(f"passed over: {error.message}")
                continue
            if peek.frames is not None:
                continue
            known = peek.provenance
            page = known.image.page if known.image is not None else 0
            if page not in found and owner.has(version, known):
                found[page] = version
        return found

    def larger(self, ref: ImageRef, loaded: LoadedSet) -> ListedSet | None:
        """The newest other set of the image with more than twice the masks of the latest: what somebody who named none may have meant.

        None as well when the latest is what is left of the other on purpose. Reads few files: those with more bytes, five at most.
        """
        known, count = loaded.mask_set.provenance, len(loaded.mask_set.masks)
        if known.operation in _CUTS:
            return None
        heavier = [other for other in loaded.others if other.size > loaded.version.size and other.name != known.parent]
        return self._first(ref, heavier[:5], self._owner(ref), lambda peek: peek.count > 2 * count)

    def _first(
        self, ref: ImageRef, versions: Sequence[Version], owner: Owner, wanted: Callable[[Peek], bool]
    ) -> ListedSet | None:
        for version in versions:
            try:
                peek = self.peek(ref, version)
            except MaskFileError:
                continue
            if peek.frames is None and wanted(peek) and owner.has(version, peek.provenance):
                return ListedSet(version, self._shown(ref, version), True, "", peek)
        return None

    def _owner(self, ref: ImageRef, facts: ImageFacts | None = None, page: int | None = None) -> Owner:
        return Owner(self._store(ref.store), ref, facts, page)

    def _fit(self, version: Version, mask_set: MaskSet, owner: Owner) -> LoadedSet:
        belongs, notice = self._judged(version, mask_set.provenance, owner)
        return LoadedSet(version, mask_set, notice, belongs)

    @staticmethod
    def _judged(version: Version, provenance: Provenance, owner: Owner) -> tuple[bool, str]:
        """Whether a set is the image's own, and the notice about it."""
        identity = provenance.image
        belongs = owner.has(version, provenance)
        notice = ""
        if identity is None or not identity.sha256:
            notice = f"set {version.name} does not say which image it belongs to"
            notice += "; it was taken by its name" if belongs else ", and its name fits another image better"
        elif not belongs:
            notice = f"set {version.name} was made for {identity.path}, page {identity.page}"
        elif owner.changed(identity):
            notice = f"the image has changed since set {version.name} was made"
        return belongs, notice

    def has_sets(self, ref: ImageRef, *, suffix: str = "", page: int | None = 0) -> bool:
        """Whether a set with this suffix exists for this page (None: any) of this image, saved or waiting in the spool.

        Identity counts, not only the name.
        """
        owner = self._owner(ref, page=page)
        for version in self.versions(ref, suffix):
            try:
                peek = self.peek(ref, version)
                if peek.frames is None and owner.has(version, peek.provenance):
                    if peek.generation != "segment_duo":
                        # A look does not tell whether the masks of another program's file can be read; one that cannot is no set.
                        self.read(ref, version)
                    return True
            except MaskFileError as error:
                self._tell(f"passed over: {error.message}")
        place = (*self.folder(ref), ref.stem, suffix)
        return any((item.kind, item.folder, item.stem, item.suffix) == place for item in self.spool.pending())

    def stems(self, folder: ImageRef) -> set[str]:
        """Stems of the files in this folder that may have saved sets, from two listings (the explorer's marks)."""
        kind, masks = self.folder(ImageRef(folder.store, f"{folder.path.rstrip('/')}/any"))
        try:
            saved = self._store(kind).list(masks)
        except NotFound:
            return set()
        names = (
            ImageRef(folder.store, entry.path)
            for entry in self._store(folder.store).list(folder.path)
            if not entry.is_folder
        )
        return version_names.stems_with_sets(saved, (name.stem for name in names))

    def save(self, ref: ImageRef, masks: Sequence[Mask], provenance: Provenance, *, suffix: str = "") -> Saved:
        """Save masks as a new version; nothing is ever overwritten. When Drops is away or refuses, the set is kept in the spool.

        The provenance gets the time and the program's version, the masks get ids where they lack them.

        Raises:
            InputError, UsageError, DropsRefused: the place can never take a set (a file where a folder should be, a server that takes none of its
                size). One for Drops is kept on this machine all the same; the hint tells where.
            StoreError: a local folder cannot be written.
            ServerError: neither the server nor the spool took the set; the hint tells in which file it is.
        """
        from segment_duo.masks.formats.native import dumps
        from segment_duo.masks.ids import unique_ids

        mask_set = MaskSet(unique_ids(tuple(masks)), stamped(provenance))
        content = dumps(mask_set, legacy=self._config.legacy_segmentation)
        kind, folder = self.folder(ref)
        store = self._store(kind)
        try:
            version = version_names.save_version(store, folder, ref.stem, suffix, content)
        except (ServerError, StoreError, InputError, UsageError) as error:
            if kind is StoreKind.LOCAL:
                raise
            refusal = self._refusal(kind, folder, error)
            try:
                kept = self.spool.add(
                    kind, folder, ref.stem, suffix, content, error, address=store.address, aside=refusal is not None
                )
            except StoreError as full:
                raise _without_spool(ref, content, refusal or error, full) from None
            if refusal is not None:
                # No later delivery could succeed; what was computed is worth keeping nevertheless.
                hint = f"The masks are kept in {kept}: `segduo masks import IMAGE` reads that file."
                raise type(refusal)(refusal.message, f"{hint}\n{refusal.hint}".strip()) from None
            return Saved(str(kept), None, mask_set, kept, error.message)
        return Saved(str(ImageRef(kind, version.path)), version, mask_set)

    def _refusal(self, kind: StoreKind, folder: str, error: SegduoError) -> SegduoError | None:
        """The reason why this folder can never take a set, or None when what failed may work later."""
        if isinstance(error, InputError | UsageError | DropsRefused | S3Refused):
            return error
        if isinstance(error, DropsUnavailable | S3Unavailable):
            return None
        try:
            self._check_folder(kind, folder)
        except InputError as refusal:
            return refusal
        return None

    def deliver_spool(self, *, wait: bool = False) -> list[Delivered | Failed]:
        """Send what is waiting in the spool, oldest first; without ``wait`` nothing while another process does."""
        return self.spool.push(self._store, wait=wait) if self.spool.pending() else []


def _without_spool(ref: ImageRef, content: bytes, error: SegduoError, full: StoreError) -> SegduoError:
    """``error``, with the set in a file of the current folder or the temporary one: masks that cost an hour must not end with the command."""
    for folder in (Path.cwd, lambda: Path(tempfile.gettempdir())):
        for name in (f"{ref.stem}-not-saved.pkl", f"{ref.stem}-not-saved-{secrets.token_hex(3)}.pkl"):
            try:
                file = folder() / name
                create_file(file, content)
            except OSError:
                continue
            hint = f"The masks are in {file} instead: `segduo masks import IMAGE FILE` saves them from there."
            return type(error)(f"{error.message}; {full.message}", f"{hint}\n{error.hint}".strip())
    hint = "The masks are lost. Free some space, or set SEGDUO_HOME and TMPDIR to folders with room, and run it again."
    return type(error)(f"{error.message}; {full.message}", hint)
