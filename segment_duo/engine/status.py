"""What the engine's status says of images and caches in memory, and what it says to people. Reads only; answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segment_duo.engine.cache import EmbeddingCache, EmbeddingKey
from segment_duo.engine.reports import CacheUse, EngineStatus, HeldImage
from segment_duo.lru import BoundedLru

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = BoundedLru[str, npt.NDArray[np.uint8]]


def held_images(pixels: Pixels, cache: EmbeddingCache, names: Mapping[str, str]) -> list[HeldImage]:
    """The images in memory, the last used one first. ``names``: model by the SHA-256 of its weights."""
    found: dict[str, dict[str, Any]] = {}

    def entry(image_id: str) -> dict[str, Any]:
        empty = {"id": image_id, "width": 0, "height": 0, "bytes": 0, "models": [], "candidates": False}
        return found.setdefault(image_id, {**empty, "idle_seconds": 1e9})

    for image_id, array, size, idle in pixels.items():
        held = entry(image_id)
        held["height"], held["width"] = array.shape[:2]
        held["bytes"] += size
        held["idle_seconds"] = min(held["idle_seconds"], idle)
    for image_id, weights, size, is_candidates, idle in cache.held():
        held = entry(image_id)
        held["bytes"] += size
        held["candidates"] |= is_candidates
        held["idle_seconds"] = min(held["idle_seconds"], idle)
        name = names.get(weights, weights[:12])
        if not is_candidates and name not in held["models"]:
            held["models"].append(name)
        if not held["width"] and (whole := cache.size_of(EmbeddingKey(image_id, weights))):
            held["height"], held["width"] = whole
    return sorted((HeldImage(**fields) for fields in found.values()), key=lambda image: image.idle_seconds)


def memory_use(bound: int, pixels: Pixels, cache: EmbeddingCache, logits: int) -> CacheUse:
    """Bytes of pixels, embeddings, candidates and ``logits`` together."""
    held = cache.memory_use()
    return CacheUse(used=held.used + pixels.used + logits, bound=bound, entries=held.entries + len(pixels))


def in_words(status: EngineStatus) -> str:
    """What the engine does, for somebody who waits for it."""
    parts = []
    if status.state == "starting":
        parts.append("it is being started")
    if status.running is not None:
        job = status.running
        parts.append(far(job.kind, job.phase, job.done, job.total, job.seconds))
    if status.queue:
        parts.append(f"{len(status.queue)} in the queue")
    if status.uploads:
        received, whole = sum(one.received for one in status.uploads), sum(one.bytes for one in status.uploads)
        parts.append(f"pixels on their way, {received / 2**20:.0f} of {whole / 2**20:.0f} MiB")
    return ", ".join(parts) or "nothing is asked of it yet"


def far(kind: str, phase: str, done: int, total: int, seconds: float) -> str:
    """How far a job is: ``auto: points 256 of 1024, for 12 s``."""
    count = f" {done} of {total}" if total else ""
    return f"{kind}: {phase}{count}, for {seconds:.0f} s"
