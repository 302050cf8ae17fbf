"""From what the user typed to the images it means: files, folders, patterns, lists."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from segment_duo.cli.output import note, waiting
from segment_duo.errors import InputError, NotFound, SegduoError, UsageError
from segment_duo.stores.base import RENAME_HINT, has_magic, join_path
from segment_duo.stores.local import names_not_utf8
from segment_duo.text import is_utf8, safe
from segment_duo.types import Entry, ImageRef, StoreKind

if TYPE_CHECKING:
    from segment_duo.session import Session
    from segment_duo.stores.base import Store


def read_list(source: str) -> Iterator[str]:
    """Lines of a file, or of stdin for ``-``, one by one; empty lines and lines that begin with ``#`` do not count.

    A name that is not UTF-8 keeps its bytes as lone surrogates. Spaces around a line belong to it only where a file of that name is there.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    try:
        with contextlib.nullcontext(_stdin()) if source == "-" else Path(source).open("rb") as lines:
            for number, raw in enumerate(lines):
                if b"\0" in raw or (number == 0 and raw.startswith((b"\xff\xfe", b"\xfe\xff"))):
                    raise InputError(f"{'stdin' if source == '-' else source}: not a text file")
                line = os.fsdecode((raw if number else raw.removeprefix(b"\xef\xbb\xbf")).removesuffix(b"\n"))
                if line.strip() and not line.lstrip().startswith("#"):
                    yield _trimmed(line)
    except OSError as error:
        raise InputError(f"{source}: {error.strerror or error}") from None


def _stdin() -> Iterator[bytes]:
    binary = getattr(sys.stdin, "buffer", None)  # the text layer would stop at the first name that is not UTF-8
    lines = iter(binary if binary is not None else io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape")))
    while True:
        with waiting.during(lambda: "waiting for a list on stdin"):
            line = next(lines, None)
        if line is None:
            return
        yield line


def _trimmed(line: str) -> str:
    exact = line.removesuffix("\r")
    stripped = exact.strip()
    return exact if exact != stripped and os.path.lexists(exact) else stripped


@dataclass(frozen=True)
class Inputs:
    """The images meant and wanted, each once, in the order given; and what was given but means none, with the reason.

    ``given``: how many images were meant.
    """

    refs: list[ImageRef]
    failures: list[tuple[str, SegduoError]]
    given: int


def expand_inputs(
    session: Session,
    inputs: Sequence[str] | None,
    from_file: str | None,
    frames: str | None = None,
    wanted: Callable[[ImageRef | str], bool] = lambda _: True,
    *,
    sequences: bool = False,
) -> Inputs:
    """All images meant that are ``wanted``, and of what means none the texts that are; see :func:`stream_inputs`."""
    found: dict[ImageRef, None] = {}
    failures: list[tuple[str, SegduoError]] = []
    given = 0
    for item in stream_inputs(session, inputs, from_file, frames, sequences=sequences):
        if not isinstance(item, ImageRef):
            if wanted(item[0]):
                failures.append(item)
        else:
            given += 1
            if wanted(item):
                found[item] = None
    if given and not (found or failures):
        note(f"nothing to do: of the {'sequences' if sequences else 'images'} given ({given}) none is in this shard")
    return Inputs(list(found), failures, given)


def stream_inputs(
    session: Session,
    inputs: Sequence[str] | None,
    from_file: str | None,
    frames: str | None = None,
    *,
    sequences: bool = False,
) -> Iterator[ImageRef | tuple[str, SegduoError]]:
    """The images meant as they are read, possibly one twice, and between them what was given but means none, with the reason.

    With ``frames`` (``--frame``) these of each stack, film, folder or pattern that is given. With ``sequences`` each of these, films too, is
    one thing, and not looked into.

    A line of a list (``-``, ``--from-file``) means what it means as an argument, but for other files and for folders written with a ``/`` at
    the end: ``segduo ls -1`` prints both, and a listing that is piped on means its images. What is left out is told in one line on stderr; a
    list of which nothing is left is a failure. A single missing image is left to whoever opens it.

    Raises:
        UsageError: nothing was given.
    """
    given = [text for text in inputs or [] if text != "-"]
    sources = ["-"] if "-" in (inputs or []) else []
    if from_file is not None:
        sources.append(from_file)
    if not (given or sources):
        raise UsageError(
            f"no {'sequences' if sequences else 'images'} given",
            "Name files, folders or quoted patterns, or use --from-file FILE.",
        )
    for text in given:
        yield from _meant(session, text, frames, sequences)
    listings = Listings(session)
    for source in sources:
        dropped = _Dropped()
        for line in read_list(source):
            dropped.lines += 1
            try:
                usable = not is_utf8(line) or listings.is_input(line, films=sequences)
            except SegduoError as error:
                yield line, error
                continue
            if usable:
                yield from _meant(session, line, frames, sequences)
            else:
                dropped.add(line)
        name = "stdin" if source == "-" else source
        if not dropped.lines:
            note(f"{name}: an empty list, nothing to do")
        elif dropped.count == dropped.lines:
            yield name, NotFound(dropped.told(), dropped.hint())
        elif dropped.count:
            note(dropped.told())


def _meant(
    session: Session, text: str, frames: str | None, sequences: bool
) -> Iterator[ImageRef | tuple[str, SegduoError]]:
    failures: list[tuple[str, SegduoError]] = []
    try:
        _check_utf8(text)
        if sequences:
            yield session.reference(text)
        elif frames is None:
            yield from _expand(session, text, failures)
        else:
            yield from session.frames(session.reference(text), frames)
    except SegduoError as error:
        failures.append((text, error))
    yield from failures


@dataclass
class _Dropped:
    """Lines of a list that are left out: how many, and the first of them."""

    lines: int = 0
    count: int = 0
    first: list[str] = field(default_factory=list)
    folders: bool = False

    def add(self, line: str) -> None:
        self.count += 1
        self.folders = self.folders or line.endswith("/")
        if len(self.first) < 3:
            self.first.append(line)

    def told(self) -> str:
        names = ", ".join(safe(name, limit=80) for name in self.first)
        more = f" and {self.count - 3} more" if self.count > 3 else ""
        verb = "is not an image" if self.count == 1 else "are not images"
        return f"{self.count} of {self.lines} lines {verb}, left out: {names}{more}"

    def hint(self) -> str:
        if self.folders:
            return (
                "Folders of a list count when they are written without the / at the end that `segduo ls -1` gives them."
            )
        return _image_names()


def _image_names() -> str:
    from segment_duo.images import IMAGE_SUFFIXES

    return f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}."


class Listings:
    """What is where, with one look into each folder on Drops: a list of a thousand names must not cost a thousand requests."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: dict[str, dict[str, Entry] | SegduoError] = {}

    def entry(self, ref: ImageRef) -> Entry | None:
        """The file or folder ``ref`` names; None if there is none."""
        store = self._session.store(ref.store)
        # What no listing of the server shows: entries of its root and hidden ones.
        if ref.store is StoreKind.LOCAL or ref.folder == "/" or "/." in ref.path:
            return store.stat(ref.path)
        if ref.folder not in self._seen:
            self._seen[ref.folder] = self._look(store, ref.folder)
        seen = self._seen[ref.folder]
        if isinstance(seen, SegduoError):
            raise seen
        return seen.get(ref.path)

    def _look(self, store: Store, folder: str) -> dict[str, Entry] | SegduoError:
        try:
            return {entry.path: entry for entry in store.list(folder)}
        except NotFound:
            return {}
        except SegduoError as error:  # a server that is away is waited for once, not once a line
            return error

    def is_input(self, line: str, *, films: bool = False) -> bool:
        """Whether a line of a list means images: one by its name (with ``films`` a film too), a folder, or a pattern."""
        from segment_duo.images.film import is_film_name

        if is_image_name(line):
            return True
        if line.endswith("/"):
            return False
        if films and is_film_name(line):
            return True
        entry = self.entry(self._session.reference(line))
        return entry.is_folder if entry is not None else has_magic(line)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is one that we open."""
    from segment_duo.images import IMAGE_SUFFIXES

    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.endswith("/")


def _check_utf8(text: str) -> None:
    if not is_utf8(text):
        raise InputError(f"'{text}': the name is not UTF-8", RENAME_HINT)


def _unnamed(store: Store, paths: Iterable[str], failures: list[tuple[str, SegduoError]]) -> bool:
    """Count images whose names are not UTF-8 as failures, for a folder's other images are done; returns whether there were any."""
    before = len(failures)
    for path in paths:
        if is_image_name(path):
            shown = str(ImageRef(store.kind, path))
            failures.append((shown, InputError(f"{shown}: the name is not UTF-8", RENAME_HINT)))
    return len(failures) > before


def _not_utf8(store: Store, pattern: str) -> Iterator[str]:
    """Paths that ``pattern`` matches but whose last name is not UTF-8."""
    folder, _, step = pattern.rpartition("/")
    parents = [entry.path for entry in store.glob(folder) if entry.is_folder] if has_magic(folder) else [folder or "/"]
    first, deep, _ = f"{folder}/".partition("/**/")
    for parent in dict.fromkeys([*parents, *([first or "/"] if deep and not has_magic(first) else [])]):
        yield from _joined(parent, (name for name in names_not_utf8(store, parent) if fnmatch.fnmatchcase(name, step)))


def _joined(folder: str, names: Iterable[str]) -> Iterator[str]:
    return (join_path(folder, name) for name in names)


def _expand(session: Session, text: str, failures: list[tuple[str, SegduoError]]) -> Iterator[ImageRef]:
    ref = session.reference(text)
    store = session.store(ref.store)
    if has_magic(ref.path) and store.stat(ref.path) is None:
        unnamed = _unnamed(store, _not_utf8(store, ref.path), failures)
        yield from _images(ref, store.glob(ref.path), "" if unnamed else f"no images match '{text}'")
        return
    if not is_image_name(text) or _is_local_folder(ref):
        entry = store.stat(ref.path)
        if entry is None:
            raise NotFound(f"{text}: no such file or folder", session.missing_hint(ref))
        if entry.is_folder:
            entries = sorted(store.list(ref.path), key=lambda item: item.name)
            unnamed = _unnamed(store, _joined(ref.path, names_not_utf8(store, ref.path)), failures)
            yield from _images(ref, entries, "" if unnamed else f"no images in folder '{text}'")
            return
    yield ref


def _is_local_folder(ref: ImageRef) -> bool:
    return ref.store is StoreKind.LOCAL and Path(ref.path).is_dir()


def _images(ref: ImageRef, entries: Sequence[Entry], message: str) -> Iterator[ImageRef]:
    refs = [ImageRef(ref.store, entry.path) for entry in entries if not entry.is_folder and is_image_name(entry.path)]
    if message and not refs:
        raise NotFound(message, _image_names())
    yield from refs


def frame_of(session: Session, ref: ImageRef, frame: int | None) -> ImageRef:
    """With ``frame`` (``--frame``) that one of the stack, film, folder or pattern that ``ref`` is; without, ``ref``."""
    return ref if frame is None else session.frames(ref, str(frame))[0]


def image_and_version(session: Session, text: str) -> tuple[ImageRef, str | None]:
    """``IMAGE@VERSION`` -> image and version name (None: the latest); a file that is really called so is taken as a file.

    Raises:
        UsageError: what stands behind the ``@`` of an image that is there cannot be a version's name.
    """
    from segment_duo.library.versions import LATEST, VersionRequest, split_version

    head, request = split_version(text)
    whole = session.reference(text)
    before, at, tail = text.rpartition("@")
    if not (at and before) or session.store(whole.store).stat(whole.path) is not None:
        return whole, None
    if head != text:
        return session.reference(head), request.name or LATEST
    if "/" not in tail and not is_image_name(tail) and not has_magic(text):
        image = session.reference(before)
        entry = session.store(image.store).stat(image.path)
        if entry is not None and not entry.is_folder:
            VersionRequest.parse(tail)
            return image, LATEST  # nothing stands behind the @
    return whole, None
