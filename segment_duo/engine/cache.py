"""Embeddings and candidates, kept in memory and (embeddings) on disk, each within a bound in bytes; the longest unused go first.

A file is written once: temporary name, fsync, rename. Its name says image, weights, preprocessing and crop; it carries a digest of its
tensors, so that a damaged file is a miss and goes away. Thread-safe. A disk that is full or read-only costs speed, never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segment_duo.engine.lru import BoundedLru
from segment_duo.engine.protocol import CacheUse

if TYPE_CHECKING:
    import torch

    from segment_duo.segmenters.sam2.candidates import Candidates
    from segment_duo.segmenters.sam2.predictor import Embedding

PREPROCESSING = 1
"""The predictor's version of what happens to pixels before the encoder, repeated here because asking where an embedding is must not load torch."""
SUFFIX = ".safetensors"
ID_DIGITS = 40
"""How much of an image's id the name of its file holds."""
STALE_SECONDS = 3600.0
"""Age at which a temporary file can only be the leftover of a killed engine."""

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
        parts = [self.image_id[:ID_DIGITS], self.weights[:20], f"p{PREPROCESSING}"]
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
        self._memory: BoundedLru[EmbeddingKey | _CandidatesKey, Embedding | Candidates] = BoundedLru(memory_bytes)
        self._folder = folder
        self._disk_bound = disk_bytes
        self._disk_lock = threading.Lock()
        self._disk_known: tuple[float, CacheUse] | None = None

    # -- embeddings ---------------------------------------------------------------------------------------------------

    def get(self, key: EmbeddingKey, device: torch.device) -> Embedding | None:
        """The embedding from memory, else from disk (and then kept in memory), else None."""
        from segment_duo.segmenters.sam2.predictor import Embedding

        held = self._memory.get(key)
        if isinstance(held, Embedding):
            return held
        loaded = self._read(key, device)
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
        from segment_duo.segmenters.sam2.predictor import Embedding

        held = self._memory.peek(key)
        return (held.height, held.width) if isinstance(held, Embedding) else None

    # -- candidates ---------------------------------------------------------------------------------------------------

    def candidates(self, image_id: str, weights: str) -> Candidates | None:
        """The raw candidates of the last automatic run on an image."""
        from segment_duo.segmenters.sam2.candidates import Candidates

        held = self._memory.get(_CandidatesKey(image_id, weights))
        return held if isinstance(held, Candidates) else None

    def put_candidates(self, image_id: str, weights: str, candidates: Candidates) -> None:
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

    def _read(self, key: EmbeddingKey, device: torch.device) -> Embedding | None:
        if not self._disk_bound:
            return None
        from safetensors import SafetensorError, safe_open

        from segment_duo.segmenters.sam2.predictor import Embedding

        file = self._folder / key.file_name
        try:
            with safe_open(file, framework="pt", device="cpu") as stored:
                # Copied: the file is only mapped, and may go while the embedding lives.
                tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118 - not a mapping
                digest = (stored.metadata() or {}).get("digest")
            if digest != _digest(tensors.items()):
                raise ValueError("its digest is another one")
            embedding = Embedding.from_tensors(tensors, device)
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
        from safetensors.torch import save

        file = self._folder / key.file_name
        if file.exists():
            return
        tensors = embedding.to_tensors()
        content = save(tensors, metadata={"digest": _digest(tensors.items())})
        if len(content) > self._disk_bound:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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


def _digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over names and bytes: safetensors itself notices a cut file, but not a changed byte."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
