"""From what the user typed to the images it means: files, folders, patterns, lists."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from segment_duo.cli.output import note
from segment_duo.errors import InputError, NotFound, SegduoError, UsageError
from segment_duo.stores.base import has_magic
from segment_duo.stores.versions import LATEST, VersionRequest, split_version, version_hint
from segment_duo.types import Entry, ImageRef, MaskSet, StoreKind

if TYPE_CHECKING:
    from segment_duo.saved_sets import LoadedSet
    from segment_duo.session import Session


def read_list(source: str) -> list[str]:
    """Lines of a file, or of stdin for ``-``; empty lines and lines that begin with ``#`` do not count."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@dataclass(frozen=True)
class Inputs:
    """The images meant, each once, in the order given; and what was given but means none, with the reason."""

    refs: list[ImageRef]
    failures: list[tuple[str, SegduoError]]


def expand_inputs(session: Session, inputs: Sequence[str] | None, from_file: str | None) -> Inputs:
    """All images meant.

    Lists (``-``, ``--from-file``) may hold folders and other files, as ``segduo ls -1`` prints them; these do not count. A single missing
    file is left to whoever opens it.

    Raises:
        UsageError: nothing was given.
    """
    given: list[str] = []
    listed: list[str] = []
    for text in inputs or []:
        if text == "-":
            listed.extend(read_list("-"))
        else:
            given.append(text)
    if from_file is not None:
        listed.extend(read_list(from_file))
    if not (given or listed or "-" in (inputs or []) or from_file):
        raise UsageError("no images given", "Name files, folders or quoted patterns, or use --from-file FILE.")
    found: dict[ImageRef, None] = {}
    failures: list[tuple[str, SegduoError]] = []
    for text in [*given, *(line for line in listed if is_image_name(line) or has_magic(line))]:
        try:
            found.update(dict.fromkeys(_expand(session, text)))
        except SegduoError as error:
            failures.append((text, error))
    return Inputs(list(found), failures)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is one that we open."""
    from segment_duo.images import IMAGE_SUFFIXES

    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.endswith("/")


def _expand(session: Session, text: str) -> Iterator[ImageRef]:
    ref = session.reference(text)
    store = session.store(ref.store)
    if has_magic(ref.path) and store.stat(ref.path) is None:
        yield from _images(ref, store.glob(ref.path), f"no images match '{text}'")
        return
    if not is_image_name(text) or _is_local_folder(ref):
        entry = store.stat(ref.path)
        if entry is None:
            raise NotFound(f"{text}: no such file or folder", version_hint(ref.path))
        if entry.is_folder:
            entries = sorted(store.list(ref.path), key=lambda item: item.name)
            yield from _images(ref, entries, f"no images in folder '{text}'")
            return
    yield ref


def _is_local_folder(ref: ImageRef) -> bool:
    return ref.store is StoreKind.LOCAL and Path(ref.path).is_dir()


def _images(ref: ImageRef, entries: Sequence[Entry], message: str) -> Iterator[ImageRef]:
    from segment_duo.images import IMAGE_SUFFIXES

    refs = [ImageRef(ref.store, entry.path) for entry in entries if not entry.is_folder and is_image_name(entry.path)]
    if not refs:
        raise NotFound(message, f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
    yield from refs


def image_and_version(session: Session, text: str) -> tuple[ImageRef, str | None]:
    """``IMAGE@VERSION`` -> image and version name (None: the latest); a file that is really called so is taken as a file.

    Raises:
        UsageError: what stands behind the ``@`` of an image that is there cannot be a version's name.
    """
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


def load_set(session: Session, text: str) -> LoadedSet:
    """The set that ``IMAGE[@VERSION]`` means; says on stderr what keeps it from fitting the image exactly."""
    ref, version = image_and_version(session, text)
    loaded = session.sets.load(ref, version)
    if loaded.notice:
        note(loaded.notice)
    identity = loaded.mask_set.provenance.image
    if identity and identity.page:
        note(f"{ref}@{loaded.version.name} is of page {identity.page}")
    return loaded


def load_set_or_file(session: Session, text: str) -> MaskSet:
    """A set by image and version, or the file of a set itself."""
    if text.endswith(".pkl"):
        from segment_duo.masks.files import loads

        ref = session.reference(text)
        return loads(session.store(ref.store).read(ref.path), name=text)
    return load_set(session, text).mask_set


def expand_sets(
    session: Session, texts: Sequence[str]
) -> tuple[list[tuple[ImageRef, str | None]], list[tuple[str, SegduoError]]]:
    """What ``IMAGE[@VERSION]...`` means: (image, version or None) pairs; folders and patterns stand for the latest sets of their images."""
    found: list[tuple[ImageRef, str | None]] = []
    failures: list[tuple[str, SegduoError]] = []
    for text in texts:
        ref, version = image_and_version(session, text)
        if version is not None:
            found.append((ref, version))
            continue
        inputs = expand_inputs(session, [text], None)
        found.extend((item, None) for item in inputs.refs)
        failures.extend(inputs.failures)
    return found, failures
