"""How mask sets are named, found, ordered and numbered.

    particles.pkl  particles_1.pkl  particles_2.pkl      the plain series: versions 0, 1, 2
    particles_grain.pkl  particles_grain_1.pkl           the series of the suffix "grain": versions grain, grain_1
    film_frame3.pkl      film_grain_frame3_1.pkl         of frame 3 alone: versions frame3, grain_frame3_1

The names are the predecessor's, and they are **ambiguous**: ``a_1.pkl`` is version 1 of ``a.tif`` or version 0 of ``a_1.tif``, and
``a_grain.pkl`` is version "grain" of ``a.tif`` or version 0 of ``a_grain.tif``. A name alone cannot tell. So :func:`list_versions`
returns every file that *may* be a version of the image, and whoever loads one compares the identity inside (path and SHA-256) with
the image. Saving takes no harm, because a name that is taken is skipped, whoever took it. Within one image names are unique:
a suffix may not look like a number (``grain_1`` is refused, it is version 1 of ``grain``).
"""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.errors import AlreadyExists, NotFound, StoreError, UsageError
from segment_duo.stores.base import Store, join_path, split_path
from segment_duo.stores.locate import drops_path
from segment_duo.types import Entry, ImageRef, StoreKind, Version

if TYPE_CHECKING:
    from segment_duo.config import Config

EXTENSION = ".pkl"
LATEST = "latest"
MAX_SUFFIX_LENGTH = 64
MAX_ATTEMPTS = 1000
"""Names tried before saving gives up; every one would have to be taken by another writer between our listing and our attempt."""

_MAX_GAP = 100
"""A number this far above the one below it is another image's name (``scan_2024.tif`` beside ``scan.tif``) and not counted on."""

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NUMBERED = re.compile(r"(?P<suffix>.+)_(?P<number>[1-9][0-9]{0,8})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VersionRequest:
    """Which version somebody asks for: what stands behind the ``@``. ``name`` None means the latest."""

    name: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> VersionRequest:
        """``None``, empty and ``latest`` mean the latest; otherwise the name of a version (``0``, ``2``, ``grain``, ``grain_1``),
        with or without ``@``.

        Raises:
            UsageError: the text cannot be a version's name.
        """
        text = (text or "").removeprefix("@")
        if text in ("", LATEST):
            return cls(None)
        if not is_version_name(text):
            raise UsageError(
                f"'{text}' is not the name of a version", "Versions are called 0, 1, 2, ... or grain, grain_1, ..."
            )
        return cls(text)

    def candidates(self, versions: Sequence[Version], image: str) -> list[Version]:
        """The versions that may be meant, the best first, in the order of ``versions``.

        Args:
            image: what to call the image whose versions these are.

        Raises:
            NotFound: there is none; the hint names those there are.
        """
        wanted = None if self.name is None else unicodedata.normalize("NFC", self.name)
        found = [version for version in versions if wanted in (None, version.name)]
        if found:
            return found
        if not versions:
            raise NotFound(f"{image}: no saved masks", "Make some with `segduo auto` or `segduo point`.")
        names = ", ".join(version.name for version in versions[:20])
        raise NotFound(f"{image}: no version '{self.name}'", f"Saved versions, newest first: {names}")


def split_version(text: str) -> tuple[str, VersionRequest]:
    """``image.tif@grain_1`` -> (``image.tif``, that version). Text whose last ``@`` is not followed by a version's name has none.

    A file may really be called ``a@2``: callers who can look try the whole text as a file first.
    """
    head, at, tail = text.rpartition("@")
    if at and head and (tail == LATEST or is_version_name(tail)):
        return head, VersionRequest.parse(tail)
    return text, VersionRequest()


def version_hint(path: str) -> str:
    """The next step for somebody whose image is not there and whose path ends in a version; empty otherwise."""
    if split_version(path)[0] == path:
        return ""
    return "Only sets have versions; give the image without @. (`segduo point` adds to a set with --onto VERSION.)"


def is_version_name(name: str) -> bool:
    """Whether ``name`` is one that :func:`version_name` makes."""
    return name == "0" or _parse_body(name) is not None


def version_name(suffix: str, number: int) -> str:
    if not suffix:
        return str(number)
    return f"{suffix}_{number}" if number else suffix


def check_suffix(suffix: str) -> str:
    """``suffix`` in Unicode's composed form, when it can be one.

    Letters and digits of any script, ``-`` and ``_``; at most 64 characters; no ``_`` or ``-`` at the ends; its last part is not a number.

    Raises:
        UsageError: it cannot.
    """
    suffix = unicodedata.normalize("NFC", suffix)
    if not suffix or _is_suffix(suffix):
        return suffix
    if _NUMBERED.fullmatch("_" + suffix) or suffix.rpartition("_")[2].isdigit():
        reason = "ends in a number, which is what versions end in"
    elif suffix == LATEST:
        reason = "is reserved for the newest version"
    elif len(suffix) > MAX_SUFFIX_LENGTH:
        reason = f"has more than {MAX_SUFFIX_LENGTH} characters"
    else:
        reason = "may hold letters, digits, '-' and '_' only, and must begin and end with a letter or digit"
    raise UsageError(f"the suffix '{suffix}' {reason}", "Choose a word, for instance grain or large-pores.")


def frame_series(suffix: str, frame: int | None) -> str:
    """The series of a frame's sets: ``frame3``, or ``grain_frame3`` with a suffix; ``suffix`` itself where no frame was chosen.

    Raises:
        UsageError: ``suffix`` is bad, or too long with the frame behind it.
    """
    own = "" if frame is None else f"frame{frame}"
    if not own or suffix == own or suffix.endswith(f"_{own}"):
        return check_suffix(suffix)
    return check_suffix(f"{suffix}_{own}" if suffix else own)


def frame_of_series(suffix: str) -> int | None:
    """The frame whose sets this series holds; None where it names none. The inverse of :func:`frame_series`."""
    found = re.fullmatch(r"(?:.*_)?frame(0|[1-9][0-9]{0,8})", suffix, re.DOTALL)
    return int(found[1]) if found else None


def version_file_name(stem: str, suffix: str = "", number: int = 0) -> str:
    """``(particles, grain, 2)`` -> ``particles_grain_2.pkl``. Raises UsageError for a bad suffix."""
    if number < 0:
        raise ValueError("version numbers begin at 0")
    parts = [stem, check_suffix(suffix), str(number) if number else ""]
    return "_".join(part for part in parts if part) + EXTENSION


def parse_version_name(file_name: str, stem: str) -> tuple[str, int] | None:
    """Suffix and number when ``file_name`` may be a version of an image with this stem, else None.

    The inverse of :func:`version_file_name`: names it cannot make (``particles_01.pkl``, ``particles_.pkl``) give None. Names are
    compared in Unicode's composed form, because macOS may store them decomposed.
    """
    name = unicodedata.normalize("NFC", file_name)
    stem = unicodedata.normalize("NFC", stem)
    if not name.endswith(EXTENSION) or not name.startswith(stem):
        return None
    rest = name[len(stem) : -len(EXTENSION)]
    if len(name) < len(stem) + len(EXTENSION):
        return None
    if not rest:
        return "", 0
    return _parse_body(rest[1:]) if rest[0] == "_" else None


def _parse_body(body: str) -> tuple[str, int] | None:
    if _NUMBER.fullmatch(body):
        return "", int(body)
    numbered = _NUMBERED.fullmatch(body)
    if numbered:
        suffix, number = numbered["suffix"], int(numbered["number"])
        return (suffix, number) if _is_suffix(suffix) else None
    return (body, 0) if _is_suffix(body) else None


def _is_suffix(text: str) -> bool:
    if not text or len(text) > MAX_SUFFIX_LENGTH or text == LATEST:
        return False
    if not all(char.isalnum() or unicodedata.category(char).startswith("M") or char in "-_" for char in text):
        return False
    return text[0] not in "-_" and text[-1] not in "-_" and not text.rpartition("_")[2].isdigit()


def masks_folder(ref: ImageRef, config: Config) -> tuple[StoreKind, str]:
    """Where the sets of an image go: the store and its folder.

    Drops: ``masks_root``, written with or without ``/drops`` in front; without that setting the folder ``masks`` beside the image.
    Object stores: ``masks/`` beside the image. Local: ``local_masks_dir``, a folder beside the image unless it is absolute (or begins with ``~``).
    """
    if ref.store is StoreKind.DROPS:
        root = config.masks_root
        return StoreKind.DROPS, drops_path(root) if root else join_path(ref.folder, "masks")
    if ref.store is StoreKind.S3:
        return StoreKind.S3, join_path(ref.folder, "masks")
    place = ref.folder / Path(config.local_masks_dir).expanduser()
    return StoreKind.LOCAL, os.path.realpath(place) if ".." in place.parts else str(place)


def list_versions(store: Store, folder: str, stem: str) -> list[Version]:
    """Every file in ``folder`` that may be a version of an image with this stem, newest first; none when there is no such folder.

    Newest means the time of the file, but within one series a higher number is never older than a lower one: numbers are given in order,
    whereas times can be lost when files are copied.
    """
    try:
        entries = store.list(folder, hidden=stem.startswith("."))
    except NotFound:
        return []
    return order_versions(entries, stem)


def order_versions(entries: Iterable[Entry], stem: str) -> list[Version]:
    """The same from a listing that is already at hand."""
    versions = []
    for entry in entries:
        parsed = None if entry.is_folder else parse_version_name(entry.name, stem)
        if parsed:
            suffix, number = parsed
            versions.append(
                Version(version_name(suffix, number), suffix, number, entry.path, entry.size, entry.modified)
            )
    versions.sort(key=lambda version: version.number)
    newest: dict[str, float] = {}
    ranked = []
    for version in versions:
        newest[version.suffix] = max(newest.get(version.suffix, version.modified), version.modified)
        ranked.append((newest[version.suffix], version.number, version.name, version))
    ranked.sort(key=lambda rank: rank[:3], reverse=True)
    return [version for *_, version in ranked]


def list_series(store: Store, folder: str, stem: str, suffix: str, *, fresh: bool = True) -> list[Version]:
    """The same of one series, up to a gap of more than 100 numbers, asking for their names: what else the folder holds does not matter.

    ``fresh``: see :meth:`Store.find`. Raises UsageError for a bad suffix.
    """
    body = version_file_name(stem, suffix).removesuffix(EXTENSION)
    spellings = {
        body,
        unicodedata.normalize("NFC", body),
        unicodedata.normalize("NFD", body),
    }  # macOS may store names decomposed
    found: list[Version] = []
    while True:
        expected = found[0].number + 1 if found else 0
        ends = [f"_{number}" if number else "" for number in range(expected, expected + _MAX_GAP + 1)]
        entries: list[Entry] = []
        for spelling in spellings:
            entries += store.find(folder, [f"{spelling}{end}{EXTENSION}" for end in ends], fresh=fresh)
            fresh = False  # once is enough
        if not (above := order_versions(entries, stem)):
            return found
        found = above + found


def stems_with_sets(entries: Iterable[Entry], stems: Iterable[str]) -> set[str]:
    """Which of ``stems`` may have a saved set among ``entries`` (the listing of a masks folder); one pass over both."""
    by_composed: dict[str, list[str]] = {}
    for stem in stems:
        by_composed.setdefault(unicodedata.normalize("NFC", stem), []).append(stem)
    found: set[str] = set()
    for entry in entries:
        name = unicodedata.normalize("NFC", entry.name)
        if entry.is_folder or not name.endswith(EXTENSION):
            continue
        head = name.removesuffix(EXTENSION)
        cut = len(head)
        while cut > 0:
            candidate = head[:cut]
            if candidate in by_composed and parse_version_name(name, candidate):
                found.update(by_composed[candidate])
            cut = head.rfind("_", 0, cut)
    return found


def save_version(
    store: Store,
    folder: str,
    stem: str,
    suffix: str,
    data: bytes,
    *,
    create: Callable[[str, bytes], None] | None = None,
) -> Version:
    """Store ``data`` as the next version of its series; the number is taken by exclusive creation, so two writers never share one.

    Args:
        store, folder: where; the folder is made when missing.
        stem: the image's, ``suffix``: empty for the plain series.
        create: instead of the store's own; raises AlreadyExists when the name is taken.

    Raises:
        UsageError: a bad suffix.
        StoreError, ServerError: the store's own; nothing was saved.
    """
    suffix = check_suffix(suffix)
    # Numbers that the listing of a slow server lacks by now are found to be taken below.
    last = next(iter(list_series(store, folder, stem, suffix, fresh=False)), None)
    number = last.number + 1 if last else 0
    for attempt in range(number, number + MAX_ATTEMPTS):
        path = join_path(folder, version_file_name(stem, suffix, attempt))
        try:
            (create or store.create)(path, data)
        except AlreadyExists:
            continue
        return Version(version_name(suffix, attempt), suffix, attempt, path, len(data), time.time())
    raise StoreError(
        f"no free version number for '{stem}' in '{folder}' after {MAX_ATTEMPTS} attempts",
        f"Look at '{split_path(path)[1]}' and the names before it.",
    )
