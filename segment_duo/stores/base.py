"""What a store must do, and the rules about names that every store shares."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from segment_duo.errors import InputError, NotFound, UsageError
from segment_duo.types import Entry, StoreKind

# A class with a method called ``list`` cannot spell ``list[Entry]`` in its other annotations.
Entries: TypeAlias = list[Entry]

MAX_FOLDERS_PER_PATTERN = 2000
"""Folders one pattern may look into; ``**`` over a whole server would otherwise run for hours."""

RENAME_HINT = (
    "Rename it: its name is in another encoding than UTF-8, and a saved set could not say which image it is of."
)

_MAGIC = re.compile(r"[*?\[]")


class Store(Protocol):
    """A tree of folders and files. Paths are text, begin with ``/`` and use ``/``; they are the ``path`` of an :class:`ImageRef` or :class:`Entry`.

    Every method raises :class:`NotFound` for a missing path, :class:`InputError` where a folder stands for a file or a file for a folder, and
    the errors of its store otherwise (:class:`StoreError` 6, :class:`DropsError` 5).
    """

    @property
    def kind(self) -> StoreKind: ...

    @property
    def address(self) -> str:
        """Which server or folder this is, without credentials; two stores with one address hold the same files."""

    def list(self, folder: str, *, hidden: bool = False) -> Entries:
        """The folder's files and folders, newest first. Names that begin with a dot only with ``hidden``, and never from Drops."""

    def find(self, folder: str, names: Sequence[str], *, fresh: bool = True) -> Entries:
        """Those of ``names`` that the folder holds, in any order, hidden ones too; none when there is no such folder.

        A store looks for the names and not through the folder, if it can. ``fresh`` false: one that cannot may answer from an earlier listing, and
        miss what others have created since.
        """

    def stat(self, path: str) -> Entry | None:
        """The entry of one file or folder, or None when there is none."""

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The whole file; a file of more than ``max_bytes`` bytes is refused with :class:`InputError` before it is read."""

    def create(self, path: str, data: bytes) -> None:
        """Create a file that is complete and durable on return, or leave nothing. Missing folders are made.

        Raises:
            AlreadyExists: the name is taken; the file there is untouched.
            OutOfSpace: no room.
        """

    def glob(self, pattern: str) -> Entries:
        """Entries that match a shell pattern, sorted by path; see :func:`expand`."""


def has_magic(pattern: str) -> bool:
    """Whether ``pattern`` holds a wildcard (``*``, ``?``, ``[...]``)."""
    return _MAGIC.search(pattern) is not None


def newest_first(entries: Entries) -> Entries:
    """Sort by time, newest first; equal times by name, so that the order is the same on every call."""
    return sorted(entries, key=lambda entry: (-entry.modified, entry.name))


def usable_name(name: str) -> bool:
    """Whether a name from a server may become a path component.

    Empty names, ``.``, ``..`` (also between backslashes, which separate elsewhere), ``/``, NUL and text that is not valid Unicode (lone
    surrogates) are refused. Backslashes, control characters and markup are allowed: they are in real names, and are escaped where they are printed.
    """
    if name in ("", ".") or ".." in name.split("\\") or "/" in name or "\0" in name:
        return False
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def checked_path(path: str) -> str:
    """``path`` with doubled slashes, ``.`` steps and the trailing slash removed.

    Raises:
        UsageError: it is relative, or holds ``..``, NUL or text that is not valid Unicode.
    """
    if not path.startswith("/"):
        raise UsageError(f"'{path}' must begin with '/'")
    steps = [step for step in path.split("/") if step not in ("", ".")]
    for step in steps:
        if step == "..":
            raise UsageError(f"'/{path.lstrip('/')}' holds '..'", "Write the folder's full path.")
        if "\0" in step:
            raise UsageError(f"'{path}' holds a NUL character")
        try:
            step.encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(f"'{path}' is not valid Unicode", RENAME_HINT) from None
    return "/" + "/".join(steps)


def split_path(path: str) -> tuple[str, str]:
    """Folder and name of a checked path; the folder of ``/a`` is ``/``."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


def join_path(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def expand(store: Store, pattern: str) -> Entries:
    """Entries of ``store`` that match a shell pattern, sorted by path.

    ``*``, ``?`` and ``[...]`` match within one name, ``**`` as a whole step matches any number of folders (linked ones are not entered,
    they could lead in circles). Matching is done here, on listings, so that a pattern means the same on every store. Upper and lower
    case differ; names that begin with a dot match only a step without wildcards. A file whose name is the pattern itself counts too.

    Raises:
        UsageError: the pattern looks into more than ``MAX_FOLDERS_PER_PATTERN`` folders.
    """
    pattern = checked_path(pattern)
    if not has_magic(pattern):
        entry = store.stat(pattern)
        return [entry] if entry else []
    steps = pattern.strip("/").split("/")
    first = next(index for index, step in enumerate(steps) if has_magic(step))
    budget = _Budget(pattern)
    found = {entry.path: entry for entry in _walk(store, "/" + "/".join(steps[:first]), steps[first:], budget)}
    # `scan[1].tif` is a file name far more often than a character class, so the name itself counts as well.
    if pattern not in found and "[" in pattern and not has_magic("/".join(steps[:-1])):
        literal = store.stat(pattern)
        if literal:
            found[literal.path] = literal
    return sorted(found.values(), key=lambda entry: entry.path)


class _Budget:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.left = MAX_FOLDERS_PER_PATTERN

    def spend(self) -> None:
        if self.left == 0:
            raise UsageError(
                f"the pattern '{self.pattern}' looks into more than {MAX_FOLDERS_PER_PATTERN} folders",
                "Begin it with a longer folder, or write fewer '**'.",
            )
        self.left -= 1


def _walk(store: Store, folder: str, steps: list[str], budget: _Budget) -> Iterator[Entry]:
    step, rest = steps[0], steps[1:]
    if not has_magic(step):
        path = join_path(folder, step)
        if rest:
            yield from _walk(store, path, rest, budget)
        else:
            entry = store.stat(path)
            if entry:
                yield entry
        return
    budget.spend()
    try:
        entries = store.list(folder)
    except (NotFound, InputError):
        return
    if step == "**":
        yield from _walk_below(store, folder, entries, steps, budget)
        return
    matcher = re.compile(fnmatch.translate(step))
    for entry in entries:
        if matcher.match(entry.name) and not rest:
            yield entry
        elif matcher.match(entry.name) and entry.is_folder:
            yield from _walk(store, entry.path, rest, budget)


def _walk_below(store: Store, folder: str, entries: Entries, steps: list[str], budget: _Budget) -> Iterator[Entry]:
    """What ``**`` and the steps after it match in ``folder``, whose listing is ``entries``, and below."""
    rest = steps[1:]
    if rest:
        yield from _walk(store, folder, rest, budget)
    for entry in entries:
        if not rest:
            yield entry
        if entry.is_folder and not entry.is_link:
            yield from _walk(store, entry.path, steps, budget)
