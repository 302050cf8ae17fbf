"""The content cache: bounded, and never believed without a check."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segment_duo.stores.cache import ContentCache, ContentKey

OVERHEAD = 17 + 32


def key(name: str, size: int = 100, modified: float = 1.5, address: str = "https://x") -> ContentKey:
    return ContentKey(address, f"/labdaq/{name}", size, modified)


def test_a_content_comes_back_for_its_own_key_only(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "cache", 10_000)
    assert cache.get(key("a")) is None
    cache.put(key("a"), b"a" * 100)
    assert cache.get(key("a")) == b"a" * 100
    for other in (key("b"), key("a", modified=2.5), key("a", address="https://y")):
        assert cache.get(other) is None
    assert key("a").file_name != ContentKey("https://x/", "labdaq/a", 100, 1.5).file_name


def test_what_was_not_used_longest_makes_room(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, 3 * (100 + OVERHEAD))
    for index, name in enumerate("abc"):
        cache.put(key(name), name.encode() * 100)
        os.utime(tmp_path / key(name).file_name, (1000 + index,) * 2)
    assert cache.get(key("a")) is not None
    cache.put(key("d"), b"d" * 100)
    assert [cache.get(key(name)) is not None for name in "abcd"] == [True, False, True, True]
    assert cache.size() <= 3 * (100 + OVERHEAD)
    cache.put(key("huge"), b"x" * 1000)
    assert cache.get(key("huge")) is None
    assert cache.get(key("a")) is not None
    assert cache.clear() == 3 * (100 + OVERHEAD)
    assert cache.size() == 0


@pytest.mark.parametrize("damage", [b"", b"short", b"segduo content 1\n" + b"0" * 40, b"x" * 149])
def test_a_damaged_entry_is_a_miss_and_goes(tmp_path: Path, damage: bytes) -> None:
    cache = ContentCache(tmp_path, 10_000)
    cache.put(key("a"), b"a" * 100)
    file = tmp_path / key("a").file_name
    file.write_bytes(damage)
    assert cache.get(key("a")) is None
    assert not file.exists()


def test_an_entry_of_another_length_than_listed_is_a_miss(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, 10_000)
    cache.put(key("a"), b"a" * 99)
    assert cache.get(key("a")) is None


def test_a_disk_that_fails_costs_nothing_but_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    cache = ContentCache(tmp_path / "file", 10_000)
    cache.put(key("a"), b"a" * 100)
    assert cache.get(key("a")) is None
    assert cache.size() == 0

    def full(*args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    cache = ContentCache(tmp_path / "cache", 10_000)
    monkeypatch.setattr(Path, "replace", full)
    cache.put(key("a"), b"a" * 100)
    assert list((tmp_path / "cache").iterdir()) == []
