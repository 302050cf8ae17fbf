"""Whether a saved set is an image's own: by what the set records, and only else by its name.

This module reads images as bytes, never their pixels, and must not know how sets are read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.errors import (
    NotFound,
    SegduoError,
)
from segment_duo.types import ImageFacts, ImageIdentity, ImageRef, Provenance, Version

if TYPE_CHECKING:
    from segment_duo.stores.base import Store


class Owner:
    """Tells whether sets are an image's own. Reads the image only if paths do not decide.

    A set is an image's when it names its path, or its bytes (a moved image), and its page. Sets that name nothing (the predecessor's) count
    by their name, unless the folder holds another image that the name fits better: ``a_1.pkl`` beside ``a_1.tif`` is not ``a.tif``'s.
    """

    def __init__(self, store: Store, ref: ImageRef, facts: ImageFacts | None = None, page: int | None = None) -> None:
        """``facts`` are the image's if it is open; else ``page`` may say which page alone counts."""
        self._store, self._ref = store, ref
        self._page = facts.page if facts else page
        self._sha256: str | None = facts.sha256 if facts else None
        self._neighbours: set[str] | None = None

    def has(self, version: Version, provenance: Provenance) -> bool:
        identity = provenance.image
        if identity is None or not identity.sha256:
            return version.name == "0" or f"{self._ref.stem}_{version.name}" not in self._stems()
        if self._page is not None and identity.page != self._page:
            return False
        return identity.path == str(self._ref) or identity.sha256 == self._content()

    def changed(self, identity: ImageIdentity) -> bool:
        """Whether the image's bytes are known and not those that a set of the same path was made from."""
        return bool(self._sha256) and identity.sha256 != self._sha256

    def _content(self) -> str:
        """SHA-256 of the image's bytes, as sets record it; an empty string when the image is not there (any more)."""
        if self._sha256 is None:
            try:
                self._sha256 = hashlib.sha256(self._store.read(self._ref.path)).hexdigest()
            except NotFound:
                self._sha256 = ""
        return self._sha256

    def _stems(self) -> set[str]:
        if self._neighbours is None:
            from segment_duo.images import IMAGE_SUFFIXES

            try:
                entries = self._store.list(self._ref.folder)
            except SegduoError:
                entries = []
            images = [ImageRef(self._ref.store, entry.path) for entry in entries if not entry.is_folder]
            self._neighbours = {image.stem for image in images if Path(image.name).suffix.lower() in IMAGE_SUFFIXES}
        return self._neighbours
