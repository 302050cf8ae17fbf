"""The spool: kept through crashes, delivered once, never removed before the store has it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segment_duo.errors import ConfigError, DropsUnavailable, OutOfSpace, StoreError, UsageError
from segment_duo.library import spool as spool_module
from segment_duo.library.spool import Delivered, Failed, Spool
from segment_duo.stores.base import Store
from segment_duo.stores.drops import DropsStore
from segment_duo.stores.local import LocalStore
from segment_duo.stores.transport import Patience
from segment_duo.types import StoreKind
from tests.drops_server import DropsServer

AWAY = DropsUnavailable("Drops does not answer")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DropsServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with DropsServer(tmp_path / "drops") as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "state/spool")


def opener(server: DropsServer) -> Callable[[StoreKind], Store]:
    def open_store(kind: StoreKind) -> Store:
        assert kind is StoreKind.DROPS
        patience = Patience(read_seconds=2, first_pause=0.001, attempts=2)
        return DropsStore(server.url, server.username, server.password, patience=patience)

    return open_store


def add(spool: Spool, data: bytes, *, stem: str = "a", suffix: str = "", address: str = "") -> Path:
    return spool.add(StoreKind.DROPS, "/masks", stem, suffix, data, AWAY, address=address)


def test_sets_are_delivered_in_order_and_then_removed(spool: Spool, server: DropsServer, tmp_path: Path) -> None:
    paths = [add(spool, f"set {index}".encode()) for index in range(3)]
    paths.append(add(spool, b"grains", suffix="grain"))
    assert paths[0].read_bytes() == b"set 0"
    assert [item.path for item in spool.pending()] == paths
    item = spool.pending()[0]
    assert (item.kind, item.folder, item.stem, item.suffix, item.size) == (StoreKind.DROPS, "/masks", "a", "", 5)
    assert item.error == "Drops does not answer"
    assert time.time() - item.created < 60
    results = spool.push(opener(server))
    assert [result.version.path for result in results if isinstance(result, Delivered)] == [
        "/masks/a.pkl", "/masks/a_1.pkl", "/masks/a_2.pkl", "/masks/a_grain.pkl",
    ]  # fmt: skip
    assert server.files()["/masks/a_2.pkl"] == b"set 2"
    assert spool.pending() == []
    assert [path.name for path in (tmp_path / "state/spool").iterdir()] == [".lock"]
    assert spool.push(opener(server)) == []


def test_nothing_is_made_where_nothing_waits(tmp_path: Path, server: DropsServer) -> None:
    assert Spool(tmp_path / "none").push(opener(server)) == []
    assert Spool(tmp_path / "none").pending() == []
    assert not (tmp_path / "none").exists()


def test_only_the_user_can_read_what_waits(spool: Spool, tmp_path: Path) -> None:
    path = add(spool, b"set")
    assert (tmp_path / "state/spool").stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0


def test_a_set_is_kept_once(spool: Spool) -> None:
    assert add(spool, b"set") == add(spool, b"set")
    assert len({add(spool, b"set", stem="b"), add(spool, b"set", suffix="x"), add(spool, b"other")}) == 3
    assert len(spool.pending()) == 4
    with pytest.raises(UsageError):
        add(spool, b"set", suffix="grain_1")


def test_a_server_that_is_still_away_is_asked_once_and_everything_waits_on(spool: Spool, server: DropsServer) -> None:
    for index in range(3):
        add(spool, f"set {index}".encode())
    server.faults.status = 503
    results = spool.push(opener(server))
    assert [type(result) for result in results] == [Failed] * 3
    assert len(server.requests) == 2  # one request and its retry, not three times that
    assert len(spool.pending()) == 3
    server.faults.clear()
    assert [type(result) for result in spool.push(opener(server))] == [Delivered] * 3


def test_a_delivery_that_cannot_be_read_back_keeps_the_set(spool: Spool, server: DropsServer) -> None:
    path = add(spool, b"a mask set")
    server.faults.truncate_stored, server.faults.times, server.faults.routes = 4, 1, ("/upload/",)
    (result,) = spool.push(opener(server))
    assert isinstance(result, Failed)
    assert path.read_bytes() == b"a mask set"
    (result,) = spool.push(opener(server))
    assert isinstance(result, Delivered)
    assert server.files() == {"/masks/a.pkl": b"a ma", "/masks/a_1.pkl": b"a mask set"}


def test_a_delivery_killed_before_the_set_was_removed_is_not_repeated(spool: Spool, server: DropsServer) -> None:
    server.put("/masks/a.pkl", b"something else")
    server.put("/masks/a_1.pkl", b"same size, no!")
    server.put("/masks/a_2.pkl", b"the set itself")
    add(spool, b"the set itself")
    (result,) = spool.push(opener(server))
    assert isinstance(result, Delivered)
    assert (result.found, result.version.name) == (True, "2")
    assert server.uploads() == []
    assert spool.pending() == []


@pytest.mark.parametrize("moment", ["create_file", "sync_folder"])
def test_a_killed_add_leaves_a_whole_item_or_none(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "spool"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from segment_duo.library import spool; from segment_duo.types import StoreKind\n"
        f"real, calls = spool.{moment}, []\n"
        "def kill(*args, **kwargs):\n"
        "    calls.append(1)\n"
        "    if len(calls) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args, **kwargs)\n"
        f"spool.{moment} = kill\n"
        f"spool.Spool(Path({str(folder)!r})).add(StoreKind.DROPS, '/masks', 'a', '', b'set', 'away')"
    )
    for call in (1, 2):
        done = subprocess.run([sys.executable, "-c", program, str(call)], check=False, capture_output=True, text=True)
        # There is one folder to sync: the second run is not killed, and keeps the same set once.
        assert done.returncode == (0 if (moment, call) == ("sync_folder", 2) else -signal.SIGKILL), done.stderr
        for item in Spool(folder).pending():
            assert item.path.read_bytes() == b"set"
        assert Spool(folder).damaged() == []
    assert len(Spool(folder).pending()) == (1 if moment == "sync_folder" else 0)


def test_leftovers_of_killed_processes_are_swept(spool: Spool, server: DropsServer, tmp_path: Path) -> None:
    folder = tmp_path / "state/spool"
    add(spool, b"set")
    for name in (".done-1", ".new-old", ".new-young"):
        (folder / name).mkdir()
        (folder / name / "set.pkl").write_bytes(b"x")
    os.utime(folder / ".new-old", (time.time() - 90_000,) * 2)
    spool.push(opener(server))
    assert sorted(path.name for path in folder.iterdir()) == [".lock", ".new-young"]


def test_a_damaged_set_is_neither_delivered_nor_removed(spool: Spool, server: DropsServer) -> None:
    damaged = add(spool, b"first")
    add(spool, b"second")
    damaged.write_bytes(b"fir")
    results = spool.push(opener(server))
    assert [type(result) for result in results] == [Failed, Delivered]
    assert damaged.exists()
    assert list(server.files().values()) == [b"second"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"format": 2}', b"[" * 100_000, b'{"format": 1, "kind": "ftp"}']
)
def test_an_unreadable_description_hinders_nobody(spool: Spool, server: DropsServer, content: bytes) -> None:
    broken = add(spool, b"first")
    add(spool, b"second")
    (broken.parent / "item.json").write_bytes(content)
    assert [item.size for item in spool.pending()] == [6]
    assert spool.damaged() == [broken.parent]
    assert len(spool.push(opener(server))) == 1
    assert broken.read_bytes() == b"first"


def test_a_set_goes_only_to_the_server_it_was_made_for(spool: Spool, server: DropsServer) -> None:
    add(spool, b"other lab", address="https://drops.example.org")
    add(spool, b"ours", address=server.url)
    failed, delivered = spool.push(opener(server))
    assert isinstance(failed, Failed)
    assert "https://drops.example.org" in str(failed.error)
    assert isinstance(delivered, Delivered)
    assert list(server.files().values()) == [b"ours"]


def test_one_process_delivers_at_a_time(spool: Spool, server: DropsServer, tmp_path: Path) -> None:
    add(spool, b"set")
    with (tmp_path / "state/spool/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert spool.push(opener(server), wait=False) == []
        assert server.requests == []
    assert len(spool.push(opener(server), wait=False)) == 1


def test_a_store_that_cannot_be_opened(spool: Spool) -> None:
    add(spool, b"set")

    def no_store(kind: StoreKind) -> Store:
        raise ConfigError("no address of the Drops file server")

    (result,) = spool.push(no_store)
    assert isinstance(result, Failed)
    assert isinstance(result.error, ConfigError)
    assert len(spool.pending()) == 1


def test_no_room_for_the_spool(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module, "create_file", full)
    with pytest.raises(OutOfSpace, match="no room to keep"):
        add(spool, b"set")
    assert list((tmp_path / "state/spool").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot use the spool"):
        add(Spool(tmp_path / "file"), b"set")
    with pytest.raises(StoreError):
        Spool(tmp_path / "file").pending()


def test_sets_of_other_stores_do_not_wait_for_drops(spool: Spool, server: DropsServer, tmp_path: Path) -> None:
    add(spool, b"remote")
    spool.add(StoreKind.LOCAL, f"{tmp_path}/masks", "a", "", b"local", "disk full")
    server.stop()
    remote = opener(server)
    results = spool.push(lambda kind: LocalStore() if kind is StoreKind.LOCAL else remote(kind))
    assert [type(result) for result in results] == [Failed, Delivered]
    assert (tmp_path / "masks/a.pkl").read_bytes() == b"local"


def test_the_description_is_plain_json(spool: Spool) -> None:
    path = add(spool, b"set", stem="grün\x1b")
    fields = json.loads((path.parent / "item.json").read_bytes())
    assert fields["stem"] == "grün\x1b"
    assert fields["sha256"] == hashlib.sha256(b"set").hexdigest()
