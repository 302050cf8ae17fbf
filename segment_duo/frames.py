"""From a reference to its frames: where a stack, a folder of images or a film lies, and which of them it is.

    sequence_of(store, ref) ─┬─> StackSequence    a TIFF file; one of this machine is read in place
                             ├─> FolderSequence   a folder, a pattern (``scan_*.tif``), or a single image
                             └─> FilmSequence     MP4, AVI ...

What frames are is :mod:`segment_duo.images.sequences`' business. This module must not decode, and must not know of masks or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from segment_duo.errors import ImageError, NotFound, SegduoError, UsageError
from segment_duo.images import IMAGE_SUFFIXES, sidecar_names
from segment_duo.images.decode import FILM, sniff
from segment_duo.images.film import is_film_name
from segment_duo.images.sequences import (
    AS_IS,
    FilmSequence,
    FolderSequence,
    FrameFile,
    FrameSequence,
    Reading,
    StackSequence,
)  # fmt: skip
from segment_duo.stores.base import Store, has_magic, split_path
from segment_duo.stores.local import LocalStore, names_not_utf8
from segment_duo.text import natural_order
from segment_duo.types import ImageRef

_HEAD = 4096
_LARGEST_SIDECAR = 1 << 20


def sequence_of(
    store: Store,
    ref: ImageRef,
    reading: Reading = AS_IS,
    *,
    axis: str | None = None,
    at: Mapping[str, int] | None = None,
) -> FrameSequence:
    """The sequence that ``ref`` means: a stack or film, a folder of images, or a pattern (``scan_*.tif``).

    A file of this machine is read in place; one on a server is fetched whole, once. A file with a single image is a sequence of one frame.

    Args:
        store: the store of ``ref``.
        ref: a file, a folder or a pattern.
        reading: how to read the frames.
        axis, at: for hyperstacks; see :class:`StackSequence`.

    Raises:
        NotFound: no such file, or no images there.
        ImageError: not a stack, film or image, or a damaged one.
        UsageError: ``axis`` or ``at`` do not fit.
    """
    entry = store.stat(ref.path)
    if entry is None and not has_magic(ref.path):
        raise NotFound(f"no such file or folder: '{ref}'")
    if entry is None or entry.is_folder:
        if axis is not None or at:
            raise UsageError(f"{ref}: only TIFF stacks have axes to choose from")
        found = store.list(ref.path) if entry is not None else store.glob(ref.path)
        if entry is None and not found:
            raise NotFound(
                f"nothing matches '{ref}'", "Upper and lower case differ; * stands for any signs, ? for one."
            )
        left_out = names_not_utf8(store, ref.path if entry is not None else ref.folder)
        return _folder(store, ref, [item.path for item in found if not item.is_folder], reading, left_out)
    file: Path | bytes = store.on_disk(ref.path) if isinstance(store, LocalStore) else store.read(ref.path)
    kind = sniff(_head(file, str(ref)))
    if kind != "TIFF" and (axis is not None or at):
        raise UsageError(f"{ref}: only TIFF stacks have axes to choose from")
    if kind == "TIFF":
        return StackSequence(file, ref.name, _beside(reading, store, ref.path), axis=axis, at=at)
    if kind == FILM or is_film_name(ref.path):
        return FilmSequence(file, ref.name, reading)
    return _folder(store, ref, [ref.path], reading)


def _beside(reading: Reading, store: Store, path: str) -> Reading:
    """With the maker's text files beside the image at ``path``, unless others were given."""
    return reading if reading.sidecars is not None else replace(reading, sidecars=partial(sidecars_beside, store, path))


def sidecars_beside(store: Store, path: str, tell: Callable[[str], None] = lambda _: None) -> dict[str, bytes]:
    """Maker's text files beside an image, by name; none, and a word to ``tell``, where the folder cannot be listed.

    Raises:
        SegduoError: one of them cannot be read.
    """
    folder, name = split_path(path)
    wanted = {candidate.casefold() for candidate in sidecar_names(name)}
    try:
        entries = store.list(folder) if wanted else []
    except SegduoError as error:
        tell(f"{ImageRef(store.kind, path)}: no look at the files beside it ({error.message})")
        return {}
    return {
        entry.name: store.read(entry.path, max_bytes=_LARGEST_SIDECAR)
        for entry in entries
        if entry.name.casefold() in wanted and not entry.is_folder and entry.size <= _LARGEST_SIDECAR
    }


def _head(file: Path | bytes, shown: str) -> bytes:
    if isinstance(file, bytes):
        return file[:_HEAD]
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise ImageError(f"{shown}: cannot be read ({error.strerror or error})") from None


def _folder(
    store: Store, ref: ImageRef, paths: Iterable[str], reading: Reading, left_out: Sequence[str] = ()
) -> FolderSequence:
    images = natural_order(
        path for path in paths if path == ref.path or PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
    )
    limit = reading.max_pixels * 16  # four channels of 32 bit
    files = [
        FrameFile(split_path(path)[1], str(ImageRef(ref.store, path)), partial(store.read, path, max_bytes=limit))
        for path in images
    ]
    if images:
        reading = _beside(reading, store, images[0])
    return FolderSequence(files, str(ref), reading, left_out=left_out)
