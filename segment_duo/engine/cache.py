"""Embeddings and candidates, kept in memory and (embeddings) on disk, each within a bound in bytes; the longest unused go first.

A file is written once: temporary name, fsync, rename. Its name says image, weights, preprocessing and crop; it carries a digest of its
arrays, so that a damaged file is a miss and goes away. Thread-safe. A disk that is full or read-only costs speed, never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segment_duo.durable import make_private_folders
from segment_duo.engine.reports import CacheUse
from segment_duo.lru import BoundedLru
from segment_duo.segmenters.base import EMBEDDINGS, Embedding, Reusable

if TYPE_CHECKING:
    import numpy.typing as npt

SUFFIX = ".safetensors"
ID_DIGITS = 40
"""How much of an image's id the name of its file holds."""
STALE_SECONDS = 3600.0
"""Age at which a temporary file can only be the leftover of a killed engine."""

Restore = Callable[[Mapping[str, "npt.NDArray[Any]"]], Embedding]
"""Makes an embedding of the arrays that were kept on disk: ``Segmenter.restore``."""

log = logging.getLogger("segduo.engine")


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """What an embedding depends on. ``crop``: XYXY in image pixels, None for the whole image; ``variant``: empty for exact float32 results."""

    image_id: str
    weights: str
    crop: tuple[int, int, int, int] | None = None
    variant: str = ""

    @property
    def file_name(self) -> str:
        parts = [self.image_id[:ID_DIGITS], self.weights[:20], f"p{EMBEDDINGS}"]
        parts += [self.variant] if self.variant else []
        parts += ["_".join(map(str, self.crop))] if self.crop else []
        return "-".join(parts) + SUFFIX


@dataclass(frozen=True, slots=True)
class _CandidatesKey:
    image_id: str
    weights: str


class EmbeddingCache:
    """See the module."""

    def __init__(self, memory_bytes: int, folder: Path, disk_bytes: int) -> None:
        """``disk_bytes`` 0 switches the disk off. The folder is made when it is first needed."""
        self._memory: BoundedLru[EmbeddingKey | _CandidatesKey, Any] = BoundedLru(memory_bytes)
        self._folder = folder
        self._disk_bound = disk_bytes
        self._disk_lock = threading.Lock()
        self._disk_known: tuple[float, CacheUse] | None = None

    # -- embeddings ---------------------------------------------------------------------------------------------------

    def get(self, key: EmbeddingKey, restore: Restore) -> Embedding | None:
        """The embedding from memory, else from disk (and then kept in memory), else None. ``restore``: makes it of its arrays."""
        held: Embedding | None = self._memory.get(key)
        if held is not None:
            return held
        loaded = self._read(key, restore)
        if loaded is not None:
            self._memory.put(key, loaded, loaded.nbytes)
        return loaded

    def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Keep an embedding in memory and on disk."""
        self._memory.put(key, embedding, embedding.nbytes)
        if self._disk_bound:
            try:
                self._write(key, embedding)
            except OSError as error:
                log.warning("the embedding cache on disk cannot be written: %s", error.strerror or error)

    def where(self, key: EmbeddingKey) -> Literal["memory", "disk"] | None:
        """Where the embedding is; looks at names only."""
        if key in self._memory:
            return "memory"
        return "disk" if self._disk_bound and (self._folder / key.file_name).exists() else None

    def size_of(self, key: EmbeddingKey) -> tuple[int, int] | None:
        """Height and width of an image whose embedding is in memory."""
        held: Embedding | None = self._memory.peek(key)
        return None if held is None else (held.height, held.width)

    # -- candidates ---------------------------------------------------------------------------------------------------

    def candidates(self, image_id: str, weights: str) -> Reusable | None:
        """What the last automatic run on an image left behind."""
        held: Reusable | None = self._memory.get(_CandidatesKey(image_id, weights))
        return held

    def put_candidates(self, image_id: str, weights: str, candidates: Reusable) -> None:
        self._memory.put(_CandidatesKey(image_id, weights), candidates, candidates.nbytes)

    def has_candidates(self, image_id: str, weights: str) -> bool:
        return _CandidatesKey(image_id, weights) in self._memory

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def held(self) -> Iterator[tuple[str, str, int, bool, float]]:
        """Image id, weights, bytes, whether these are candidates, and seconds since the last use, for everything in memory."""
        for key, _value, size, idle in self._memory.items():
            yield key.image_id, key.weights, size, isinstance(key, _CandidatesKey), idle

    def images_on_disk(self) -> set[str]:
        """The first :data:`ID_DIGITS` digits of the ids of all images with an embedding on disk."""
        return {file.name[:ID_DIGITS] for file, _ in self._files()}

    def release(self, image_id: str | None) -> tuple[int, int]:
        """Forget an image, or all; bytes freed in memory and on disk."""
        memory = 0
        for key, *_ in list(self._memory.items()):
            if image_id is None or key.image_id == image_id:
                memory += self._memory.drop(key)
        freed = 0
        prefix = "" if image_id is None else image_id[:ID_DIGITS]
        with self._disk_lock:
            for file, facts in self._files():
                if file.name.startswith(prefix):
                    file.unlink(missing_ok=True)
                    freed += facts.st_size
            self._disk_known = None
        return memory, freed

    def memory_use(self) -> CacheUse:
        return CacheUse(used=self._memory.used, bound=self._memory.bound, entries=len(self._memory))

    def disk_use(self) -> CacheUse:
        """Bytes and files on disk, at most some seconds old."""
        known = self._disk_known
        if known is None or time.monotonic() - known[0] > 5:
            sizes = [facts.st_size for _, facts in self._files()]
            known = (time.monotonic(), CacheUse(used=sum(sizes), bound=self._disk_bound, entries=len(sizes)))
            self._disk_known = known
        return known[1]

    # -- disk ---------------------------------------------------------------------------------------------------------

    def _read(self, key: EmbeddingKey, restore: Restore) -> Embedding | None:
        if not self._disk_bound:
            return None
        from safetensors import SafetensorError, safe_open

        file = self._folder / key.file_name
        try:
            with safe_open(file, framework="np") as stored:
                # Copied: the file is only mapped, and may go while the embedding lives.
                arrays = {name: stored.get_tensor(name).copy() for name in stored.keys()}  # noqa: SIM118 - not a mapping
                digest = (stored.metadata() or {}).get("digest")
            if digest != _digest(arrays):
                raise ValueError("its digest is another one")
            embedding = restore(arrays)
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("a damaged embedding was removed from the disk cache: %s", error)
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # the order of last use is that of modification times
        return embedding

    def _write(self, key: EmbeddingKey, embedding: Embedding) -> None:
        from safetensors.numpy import save

        file = self._folder / key.file_name
        if file.exists():
            return
        arrays = dict(embedding.to_arrays())
        if not arrays:
            return  # nothing worth keeping: making it again is as quick
        content = save(arrays, metadata={"digest": _digest(arrays)})
        if len(content) > self._disk_bound:
            return
        make_private_folders(self._folder)
        with self._disk_lock:
            self._make_room(len(content))
            descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(temporary).rename(file)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._disk_known = None

    def _make_room(self, size: int) -> None:
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        used = sum(facts.st_size for _, facts in files)
        for file, facts in files:
            if used + size <= self._disk_bound:
                break
            file.unlink(missing_ok=True)
            used -= facts.st_size
        for leftover in self._folder.glob(".writing-*"):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                    leftover.unlink()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        try:
            entries = list(os.scandir(self._folder))
        except OSError:
            return
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):
                    yield Path(entry.path), entry.stat()


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names and bytes: safetensors itself notices a cut file, but not a changed byte."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(array.data)
    return digest.hexdigest()
