"""The program's own folders are for the user alone, whatever the umask and however deep they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment_duo.durable import make_private_folders
from segment_duo.library.spool import Spool
from segment_duo.stores.cache import ContentCache, ContentKey
from segment_duo.types import StoreKind


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def open_folders(root: Path) -> list[Path]:
    return [path for path in [root, *root.rglob("*")] if path.is_dir() and path.stat().st_mode & 0o077]


def test_new_folders_are_private_and_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    make_private_folders(shared / "a" / "b")
    make_private_folders(shared / "a" / "b")
    assert open_folders(shared) == [shared]


def test_spool_and_cache_make_private_folders(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "own" / "state" / "spool")
    spool.add(StoreKind.DROPS, "/masks", "a", "", b"set", "away")
    spool.add(StoreKind.DROPS, "/masks", "b", "", b"set", "refused", aside=True)
    cache = ContentCache(tmp_path / "own" / "cache" / "drops", 1000)
    cache.put(ContentKey("x", "/a", 3, 0.0), b"abc")
    assert cache.size() > 0
    assert open_folders(tmp_path / "own") == []
