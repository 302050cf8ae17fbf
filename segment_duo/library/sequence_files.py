"""The file of a saved set, of one image or of a sequence: what it is, without reading more of it than that takes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from segment_duo.errors import NotFound, StoreError
from segment_duo.stores.local import LocalStore
from segment_duo.types import ImageRef, StoreKind

if TYPE_CHECKING:
    from segment_duo.masks.formats.native import Peek
    from segment_duo.masks.formats.sequence import SequenceSet
    from segment_duo.stores.base import Store

SEQUENCE_HINT = (
    "`segduo masks export` takes it with the formats of sequences, `segduo measure --tracks` measures it, "
    "and `segduo masks show` lists its objects."
)


def open_sequence(store: Store, kind: StoreKind, path: str, *, max_pixels: int | None = None) -> SequenceSet | None:
    """The sequence set at ``path``, open; None when it is a set of one image. A file of this machine is not read whole.

    Raises:
        NotFound, MaskFileError, StoreError
    """
    from segment_duo.masks.formats.sequence import SequenceSet, holds_sequence

    shown = str(ImageRef(kind, path))
    if not isinstance(store, LocalStore):
        content = store.read(path)
        return SequenceSet(io.BytesIO(content), shown, max_pixels=max_pixels) if holds_sequence(content) else None
    try:
        with store.on_disk(path).open("rb") as file:
            if not holds_sequence(file.read(512)):
                return None
        return SequenceSet.open(store.on_disk(path), shown, max_pixels=max_pixels)
    except FileNotFoundError:
        raise NotFound(f"no such file: '{shown}'") from None
    except OSError as error:
        raise StoreError(f"{shown}: {error.strerror or error}") from None


def peek_file(store: Store, kind: StoreKind, path: str) -> Peek:
    """Number of masks (of objects in a sequence set) and provenance of a set's file, without decoding masks and without NumPy.

    Raises:
        MaskFileError: it is damaged, or no set.
    """
    from segment_duo.masks.formats.native import Peek, peek

    found = open_sequence(store, kind, path)
    if found is None:
        return peek(store.read(path), name=str(ImageRef(kind, path)))
    with found:
        return Peek(len(found.lives()), found.head.provenance, "segment_duo", len(found.frames))
