"""References: what a user types, and the store it leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from segment_duo.config import Config
from segment_duo.errors import ConfigError, DropsDenied, UsageError
from segment_duo.paths import Paths
from segment_duo.stores.drops import DropsStore
from segment_duo.stores.local import LocalStore
from segment_duo.stores.locate import open_store, parse_reference
from segment_duo.types import ImageRef, StoreKind


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/drops/labdaq/a.tif", "/labdaq/a.tif"),
        ("/drops//labdaq/./a.tif", "/labdaq/a.tif"),
        ("/drops/labdaq/", "/labdaq"),
        ("/drops", "/"),
        ("/drops/", "/"),
        ("drops:/labdaq/a.tif", "/labdaq/a.tif"),
        ("drops:labdaq/a.tif", "/labdaq/a.tif"),
        ("drops:/drops/labdaq/a.tif", "/labdaq/a.tif"),
        ("drops:", "/"),
        ("/drops/drops/a.tif", "/drops/a.tif"),
        ("/drops/labdaq/*.tif", "/labdaq/*.tif"),
    ],
)
def test_drops(text: str, path: str, tmp_path: Path) -> None:
    reference = parse_reference(text, cwd=tmp_path)
    assert reference == ImageRef(StoreKind.DROPS, path)
    if path != "/":
        assert parse_reference(str(reference), cwd=tmp_path) == reference


def test_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def path(text: str) -> str:
        reference = parse_reference(text, cwd=tmp_path)
        assert reference.store is StoreKind.LOCAL
        return reference.path

    assert path("a.tif") == path("./a.tif") == path(f"{tmp_path}/a.tif") == f"{tmp_path}/a.tif"
    assert path("./drops:a.tif") == f"{tmp_path}/drops:a.tif"
    assert path("~/a.tif") == f"{tmp_path}/home/a.tif"
    assert path("/dropsy/a.tif") == "/dropsy/a.tif"
    assert path("folder/") == f"{tmp_path}/folder"
    assert path(".") == str(tmp_path)
    assert path("..") == str(tmp_path.parent)
    assert path("*.tif") == f"{tmp_path}/*.tif"


def test_going_up_out_of_a_linked_folder_leads_where_the_kernel_goes(tmp_path: Path) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "real/a.tif").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real/sub")
    assert parse_reference("link/../a.tif", cwd=tmp_path).path == f"{tmp_path}/real/a.tif"


@pytest.mark.parametrize("text", ["", " ", "a\0b", "/drops/../etc", "drops:/a/../b"])
def test_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        parse_reference(text, cwd=tmp_path)


def test_stores(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "config", tmp_path / "data", tmp_path / "cache", tmp_path / "state")
    assert isinstance(open_store(StoreKind.LOCAL, Config(), paths), LocalStore)
    with pytest.raises(ConfigError, match="no address"):
        open_store(StoreKind.DROPS, Config(), paths)
    with pytest.raises(ConfigError, match="local_root"):
        open_store(StoreKind.DROPS, Config(use_local_files=True), paths)
    with pytest.raises(DropsDenied):
        open_store(StoreKind.DROPS, Config(drops_url="https://drops.example.org/"), paths)
    mounted = open_store(StoreKind.DROPS, Config(use_local_files=True, local_root=str(tmp_path)), paths)
    assert (mounted.kind, mounted.address) == (StoreKind.DROPS, f"file://{tmp_path}")
    config = Config.model_validate(
        {"drops_url": "https://drops.example.org/", "drops_username": "ann", "drops_password": "secret"}
    )
    store = open_store(StoreKind.DROPS, config, paths)
    assert isinstance(store, DropsStore)
    assert (store.kind, store.address) == (StoreKind.DROPS, "https://drops.example.org")
    assert not paths.cache_dir.exists()
