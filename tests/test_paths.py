"""Where the engine's socket, locks and log lie: one place for each machine, never on a network file system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from segment_duo.paths import MAX_SOCKET_BYTES, Paths, on_network

ROOT = Path(__file__).resolve().parents[1]


def paths(root: Path) -> Paths:
    return Paths(root / "config", root / "data", root / "cache", root / "state")


def on_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=name))


def test_machines_that_share_a_home_have_nothing_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    for host in ("node1.cluster.example", "node2.cluster.example"):
        on_host(monkeypatch, host)
        here = paths(tmp_path)
        places.append({here.socket, here.engine_lock, here.engine_log, here.lock("other")})
    assert places[0].isdisjoint(places[1])
    assert all("node1" in str(place) for place in places[0])


@pytest.mark.parametrize("name", ["", "../../etc", "büro 7", "x" * 200])
def test_odd_host_names_stay_inside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    on_host(monkeypatch, name)
    folder = paths(tmp_path).engine_dir
    assert folder.parent == tmp_path / "state" / "engine"
    assert folder.name not in {"", ".", ".."}


def test_a_long_path_gets_a_short_socket_of_this_user(tmp_path: Path) -> None:
    long = paths(tmp_path / ("x" * 100))
    assert len(os.fsencode(long.socket)) <= MAX_SOCKET_BYTES
    assert long.socket.parent == Path(f"/tmp/segduo-{os.getuid()}")
    assert long.socket != paths(tmp_path / ("y" * 100)).socket


def mounts(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(
        "".join(
            f"36 35 98:0 / {point} rw,noatime shared:1 - {kind} server:/x rw\n" for point, kind in map(str.split, lines)
        )
    )
    return file


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["/ ext4"], False),
        (["/ ext4", "/home nfs4"], True),
        (["/ nfs", "/home ext4"], False),
        (["/ ext4", "/home nfs4", "/home/me/own ext4"], True),
        (["/ ext4", "/home/me/.local lustre"], True),
        (["/ ext4", "/home/m nfs4"], False),  # begins alike, is another folder
        (["/ ext4", "/home nfs4", "/home xfs"], False),  # mounted over
    ],
)
def test_network_file_systems_are_told_by_the_mount_the_folder_lies_on(
    tmp_path: Path, lines: list[str], expected: bool
) -> None:
    assert on_network(Path("/home/me/.local/state"), mounts(tmp_path, *lines)) is expected


def test_unknown_mounts_count_as_local(tmp_path: Path) -> None:
    assert on_network(Path("/home/me"), tmp_path / "none") is False


def test_on_a_network_file_system_sockets_and_locks_are_below_tmp_and_the_log_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segment_duo.paths

    monkeypatch.setattr(segment_duo.paths, "on_network", lambda _folder: True)
    here = paths(tmp_path)
    socket = here.socket
    local = Path(f"/tmp/segduo-{os.getuid()}")
    assert {here.socket.parent, here.engine_lock.parent, here.lock("other").parent} == {local}
    assert tmp_path in here.engine_log.parents
    on_host(monkeypatch, "another")
    assert paths(tmp_path).socket != socket


SEGDUO = [sys.executable, "-m", "segment_duo.cli.main"]
BY_NAME = """import os
told = os.uname()
os.uname = lambda: os.uname_result((told[0], os.environ["NODE"], *told[2:]))
"""


def _can_rename_the_host() -> bool:
    try:
        return subprocess.run(["unshare", "--uts", "hostname", "probe"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize(
    "namespace",
    [
        False,  # where the kernel gives no process a host name of its own, commands and engines are told another
        pytest.param(
            True,
            marks=pytest.mark.skipif(not _can_rename_the_host(), reason="may not give a process another host name"),
        ),
    ],
)
def test_two_nodes_with_one_home_run_two_engines_and_take_nothing_from_each_other(
    tmp_path: Path, namespace: bool
) -> None:
    environment = {**os.environ, "SEGDUO_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    prefix = ["unshare", "--uts", "sh", "-c", 'hostname "$NODE" && exec "$@"', "sh"] if namespace else []
    if not namespace:
        (tmp_path / "sitecustomize.py").write_text(BY_NAME)
        environment["PYTHONPATH"] = f"{tmp_path}:{ROOT}"

    def on(node: str, *command: str) -> str:
        done = subprocess.run(
            [*prefix, *SEGDUO, *command], env={**environment, "NODE": node}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid(node: str) -> int:
        return int(json.loads(on(node, "engine", "status", "--json"))["pid"])

    try:
        for _ in range(2):
            for node in ("node1", "node2"):
                on(node, "engine", "start")
        first, second = pid("node1"), pid("node2")
        assert first != second
        on("node1", "engine", "stop")
        assert pid("node2") == second
    finally:
        for node in ("node1", "node2"):
            on(node, "engine", "stop")
    logs = sorted((tmp_path / "home" / "state" / "engine").glob("node*/engine.log"))
    assert [log.read_text().count("listens on") for log in logs] == [1, 1]
