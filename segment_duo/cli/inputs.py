"""From what the user typed to the images it means: files, folders, patterns, lists."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.errors import InputError, NotFound, UsageError
from segment_duo.stores.base import has_magic
from segment_duo.stores.versions import LATEST, split_version
from segment_duo.types import Entry, ImageRef

if TYPE_CHECKING:
    from segment_duo.session import Session


def read_list(source: str) -> list[str]:
    """Lines of a file, or of stdin for ``-``; empty lines and lines that begin with ``#`` do not count."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def expand_inputs(session: Session, inputs: Sequence[str] | None, from_file: str | None) -> list[ImageRef]:
    """All images meant, in the order given, each once.

    Raises:
        UsageError: nothing was given.
        NotFound: a folder or pattern without images. A single missing file is left to whoever opens it, so that a batch goes on.
    """
    texts: list[str] = []
    for text in inputs or []:
        texts.extend(read_list("-") if text == "-" else [text])
    if from_file is not None:
        texts.extend(read_list(from_file))
    if not texts:
        raise UsageError("no images given", "Name files, folders or quoted patterns, or use --from-file FILE.")
    found: dict[ImageRef, None] = {}
    for text in texts:
        found.update(dict.fromkeys(_expand(session, text)))
    return list(found)


def _expand(session: Session, text: str) -> Iterator[ImageRef]:
    ref = session.reference(text)
    store = session.store(ref.store)
    if has_magic(ref.path) and store.stat(ref.path) is None:
        yield from _images(ref, store.glob(ref.path), f"no images match '{text}'")
        return
    if text.endswith("/") or (ref.name and "." not in ref.name) or _is_local_folder(ref):
        entry = store.stat(ref.path)
        if entry is None:
            raise NotFound(f"{text}: no such file or folder")
        if entry.is_folder:
            entries = sorted(store.list(ref.path), key=lambda item: item.name)
            yield from _images(ref, entries, f"no images in folder '{text}'")
            return
    yield ref


def _is_local_folder(ref: ImageRef) -> bool:
    return ref.store == "local" and Path(ref.path).is_dir()


def _images(ref: ImageRef, entries: Sequence[Entry], message: str) -> Iterator[ImageRef]:
    from segment_duo.images import IMAGE_SUFFIXES

    refs = [ImageRef(ref.store, entry.path) for entry in entries if not entry.is_folder]
    refs = [item for item in refs if Path(item.name).suffix.lower() in IMAGE_SUFFIXES]
    if not refs:
        raise NotFound(message, f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
    yield from refs


def image_and_version(session: Session, text: str) -> tuple[ImageRef, str | None]:
    """``IMAGE@VERSION`` -> image and version name (None: the latest); a file that is really called so is taken as a file."""
    head, request = split_version(text)
    whole = session.reference(text)
    if head == text or session.store(whole.store).stat(whole.path) is not None:
        return whole, None
    return session.reference(head), request.name or LATEST
