"""The engine's caches: bounds in bytes, order of use, files that survive, and files that must not be trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.engine.cache import EmbeddingCache, EmbeddingKey
from segment_duo.engine.logits import LogitsStore
from segment_duo.lru import BoundedLru
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.candidates import Candidates
from segment_duo.segmenters.sam2.embedding import Sam2Embedding

MIB = 2**20


def embedding(seed: int = 0) -> Sam2Embedding:
    """1.3 KiB of features."""
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(torch.rand(1, 4, side, side, generator=generator) for side in (8, 4))
    return Sam2Embedding(torch.rand(1, 4, 2, 2, generator=generator), levels, 30, 40)


def key(number: int, **more: object) -> EmbeddingKey:
    return EmbeddingKey(f"{number}".ljust(64, "a"), "w" * 64, **more)  # type: ignore[arg-type]


def same(one: Sam2Embedding | None, other: Sam2Embedding) -> bool:
    if one is None or (one.height, one.width) != (other.height, other.width):
        return False
    pairs = zip((one.image_embed, *one.high_res_feats), (other.image_embed, *other.high_res_feats), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class TestDisk:
    def test_another_process_finds_what_one_wrote(self, tmp_path: Path) -> None:
        EmbeddingCache(MIB, tmp_path / "e", MIB).put(key(1), embedding())
        fresh = EmbeddingCache(MIB, tmp_path / "e", MIB)
        assert fresh.where(key(1)) == "disk"
        assert same(fresh.get(key(1), Sam2Embedding.from_arrays), embedding())
        assert fresh.where(key(1)) == "memory"
        assert stat.S_IMODE((tmp_path / "e").stat().st_mode) == 0o700

    def test_keys_keep_apart(self, tmp_path: Path) -> None:
        cache = EmbeddingCache(0, tmp_path, MIB)
        keys = [
            key(1),
            key(2),
            key(1, crop=(0, 0, 5, 5)),
            key(1, variant="bf16"),
            EmbeddingKey(key(1).image_id, "v" * 64),
        ]
        for number, one in enumerate(keys):
            cache.put(one, embedding(number))
        fresh = EmbeddingCache(MIB, tmp_path, MIB)
        assert all(
            same(fresh.get(one, Sam2Embedding.from_arrays), embedding(number)) for number, one in enumerate(keys)
        )

    @pytest.mark.parametrize("damage", ["cut", "byte", "empty", "text"])
    def test_a_damaged_file_is_a_miss_and_goes_away(self, tmp_path: Path, damage: str) -> None:
        EmbeddingCache(MIB, tmp_path, MIB).put(key(1), embedding())
        (file,) = tmp_path.iterdir()
        content = bytearray(file.read_bytes())
        if damage == "byte":
            content[-5] ^= 1
        file.write_bytes({"cut": content[:-7], "byte": content, "empty": b"", "text": b"<html>"}[damage])
        assert EmbeddingCache(MIB, tmp_path, MIB).get(key(1), Sam2Embedding.from_arrays) is None
        assert list(tmp_path.iterdir()) == []

    def test_bound_drops_the_longest_unused_files(self, tmp_path: Path) -> None:
        EmbeddingCache(MIB, tmp_path, MIB).put(key(0), embedding())
        size = next(tmp_path.iterdir()).stat().st_size
        cache = EmbeddingCache(0, tmp_path, 3 * size)
        for number in range(1, 3):
            cache.put(key(number), embedding())
        for number in range(3):
            os.utime(tmp_path / key(number).file_name, (1000 + number, 1000 + number))
        cache._memory.clear()
        cache.get(key(0), Sam2Embedding.from_arrays)  # now the most recently used one
        cache.put(key(3), embedding())
        assert [number for number in range(4) if (tmp_path / key(number).file_name).exists()] == [0, 2, 3]
        assert cache.disk_use().used <= cache.disk_use().bound

    def test_switched_off(self, tmp_path: Path) -> None:
        cache = EmbeddingCache(MIB, tmp_path / "e", 0)
        cache.put(key(1), embedding())
        assert not (tmp_path / "e").exists()
        assert cache.where(key(1)) == "memory"

    def test_a_disk_that_cannot_be_written_costs_only_time(self, tmp_path: Path) -> None:
        (tmp_path / "e").write_text("a file where the folder should be")
        cache = EmbeddingCache(MIB, tmp_path / "e", MIB)
        cache.put(key(1), embedding())
        assert same(cache.get(key(1), Sam2Embedding.from_arrays), embedding())

    def test_leftovers_of_a_killed_engine_are_removed(self, tmp_path: Path) -> None:
        old, new = tmp_path / ".writing-old", tmp_path / ".writing-new"
        old.write_bytes(b"x")
        new.write_bytes(b"x")
        os.utime(old, (1000, 1000))
        EmbeddingCache(MIB, tmp_path, MIB).put(key(1), embedding())
        assert (old.exists(), new.exists()) == (False, True)

    def test_release_of_one_and_of_all(self, tmp_path: Path) -> None:
        cache = EmbeddingCache(MIB, tmp_path, MIB)
        for number in (1, 2):
            cache.put(key(number), embedding())
            cache.put(key(number, crop=(0, 0, 9, 9)), embedding())
        cache.put_candidates(key(1).image_id, "w" * 64, Candidates(30, 40, AutoParameters(), -1.0))
        memory, disk = cache.release(key(1).image_id)
        assert memory >= 2 * embedding().nbytes
        assert disk > 0
        assert cache.candidates(key(1).image_id, "w" * 64) is None
        assert (cache.where(key(1)), cache.where(key(2))) == (None, "memory")
        cache.release(None)
        assert list(tmp_path.iterdir()) == []
        assert cache.memory_use().used == 0


class TestMemory:
    def test_bound_keeps_the_recently_used_and_always_the_newest(self) -> None:
        held: BoundedLru[str, int] = BoundedLru(100)
        held.put("a", 1, 40)
        held.put("b", 2, 40)
        assert held.get("a") == 1
        held.put("c", 3, 40)
        assert [name for name, *_ in held.items()] == ["a", "c"]
        held.put("huge", 4, 1000)
        assert [name for name, *_ in held.items()] == ["huge"]
        assert held.used == 1000
        held.put("huge", 5, 10)
        assert (held.get("huge"), held.used, len(held)) == (5, 10, 1)
        assert held.drop("nothing") == 0
        assert (held.drop("huge"), held.used) == (10, 0)

    def test_peeking_is_not_using(self) -> None:
        held: BoundedLru[str, int] = BoundedLru(2)
        held.put("a", 1, 1)
        held.put("b", 2, 1)
        assert held.peek("a") == 1
        held.put("c", 3, 1)
        assert held.get("a") is None

    def test_logits_belong_to_an_image_and_a_model(self) -> None:
        store = LogitsStore(4 * 16 * 2)
        logits = np.arange(16, dtype=np.float32)
        first = store.add("image/w", logits)
        assert np.array_equal(store.get("image/w", first), logits)
        assert store.get("other/w", first) is None
        assert store.get("image/w", "unknown") is None
        store.add("image/w", logits)
        store.add("image/w", logits)
        assert store.get("image/w", first) is None  # pushed out
        assert store.drop_image("image") == 2 * logits.nbytes
        assert store.used == 0
