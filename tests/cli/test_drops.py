"""The main job on the lab's file server: a real HTTP server with Drops' quirks, the real program and engine."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.cli_shell import Shell, draw_discs
from tests.drops_server import DropsServer

QUICK = ("--points-per-side", "6", "--pred-iou-thresh", "0.1", "--stability-score-thresh", "0.1")


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_discs(seed)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def drops(tmp_path: Path) -> Iterator[DropsServer]:
    with DropsServer(tmp_path / "drops") as server:
        server.put("/labdaq/a.png", png(1), modified=1_700_000_000)
        server.put("/labdaq/b c%20.png", png(2), modified=1_700_000_100)
        server.put("/labdaq/größe.png", png(3), modified=1_700_000_200)
        server.put("/labdaq/notes.txt", b"hello", modified=1_700_000_300)
        yield server


@pytest.fixture
def lab(shell: Shell, drops: DropsServer, tmp_path: Path) -> Shell:
    """A shell that knows the server, with a home of its own for caches and spool but the shared engine."""
    shell.environment |= drops.environment | {"SEGDUO_MASKS_ROOT": "/people/ann/masks"}
    return shell


def sets(drops: DropsServer) -> list[str]:
    return sorted(path for path in drops.files() if path.startswith("/people/"))


def test_listing_is_newest_first_with_paths_users_know(lab: Shell) -> None:
    done = lab.run("ls", "/drops/labdaq", "-1").ok()
    assert done.lines == [
        "/drops/labdaq/notes.txt", "/drops/labdaq/größe.png", "/drops/labdaq/b c%20.png", "/drops/labdaq/a.png",
    ]  # fmt: skip
    assert lab.run("ls", "drops:/labdaq", "-1").ok().lines == done.lines


def test_a_pattern_on_drops_saves_under_masks_root(lab: Shell, drops: DropsServer) -> None:
    done = lab.run("auto", "/drops/labdaq/*.png", *QUICK).ok()
    assert sorted(done.lines) == [
        "/drops/people/ann/masks/a.pkl", "/drops/people/ann/masks/b c%20.pkl", "/drops/people/ann/masks/größe.pkl",
    ]  # fmt: skip
    assert sets(drops) == [line.removeprefix("/drops") for line in sorted(done.lines)]
    records = pickle.loads(drops.files()["/people/ann/masks/a.pkl"])
    assert records[0]["segmentation"]["size"] == [124, 180]
    lab.run("auto", "/drops/labdaq/a.png", *QUICK).ok()
    assert "/people/ann/masks/a_1.pkl" in sets(drops)
    assert all("clobber" not in request.body for request in drops.uploads())
    assert len(lab.run("masks", "show", "/drops/labdaq/a.png@0", "--json").ok().json["records"]) == len(records)


def test_server_away_while_saving(lab: Shell, drops: DropsServer) -> None:
    drops.faults.routes, drops.faults.status = ("/upload/",), 503
    done = lab.run("auto", "/drops/labdaq/a.png", *QUICK)
    assert done.code == 10
    assert Path(done.lines[0]).is_file()
    assert sets(drops) == []
    drops.faults.clear()
    lab.run("masks", "push").ok()
    assert sets(drops) == ["/people/ann/masks/a.pkl"]
    lab.run("masks", "push").ok()
    assert sets(drops) == ["/people/ann/masks/a.pkl"]


def test_the_next_run_delivers_first(lab: Shell, drops: DropsServer) -> None:
    drops.faults.routes, drops.faults.status = ("/upload/",), 503
    assert lab.run("point", "/drops/labdaq/a.png", "-p", "30,30").code == 10
    drops.faults.clear()
    done = lab.run("point", "/drops/labdaq/a.png", "-p", "90,34").ok()
    assert "delivered from the spool: /drops/people/ann/masks/a.pkl" in done.stderr
    assert done.lines == ["/drops/people/ann/masks/a_1.pkl"]


def test_a_truncated_upload_is_noticed(lab: Shell, drops: DropsServer) -> None:
    drops.faults.routes, drops.faults.truncate_stored = ("/upload/",), 100
    done = lab.run("point", "/drops/labdaq/a.png", "-p", "30,30")
    assert done.code in (5, 10)
    assert done.stderr.strip()
    drops.faults.clear()
    lab.run("masks", "push")
    complete = [path for path, data in drops.files().items() if path.startswith("/people/") and len(data) > 100]
    assert done.code == 5 or len(complete) == 1


def test_dead_server_wrong_password_and_missing_file(lab: Shell, drops: DropsServer) -> None:
    wrong = lab.run("ls", "/drops/labdaq", SEGDUO_DROPS_PASSWORD="guess")
    assert wrong.code == 5
    assert "guess" not in wrong.stderr
    missing = lab.run("auto", "/drops/labdaq/zz.png")
    assert missing.code == 7
    drops.stop()
    dead = lab.run("ls", "/drops/labdaq")
    assert dead.code == 5
    assert dead.stdout == ""


def test_hostile_listing_is_harmless(lab: Shell, drops: DropsServer) -> None:
    drops.faults.routes = ("/list/",)
    entry = {"is_dir": False, "size": 3, "mtime": "2026-01-02T03:04:05.000Z", "mtimeMs": 1767323045000}
    names = ["/labdaq/\x1b[2Jx.png", "//labdaq/../../etc/passwd", "/labdaq/..", "/labdaq/[red]y.png", "/labdaq/"]
    drops.faults.listing = [entry | {"name": name} for name in names]
    done = lab.run("ls", "/drops/labdaq", "-1").ok()
    assert "/drops/labdaq/\x1b[2Jx.png" in done.lines  # for the next program of a pipe
    table = lab.run("ls", "/drops/labdaq").ok().stdout
    assert "\x1b" not in table
    assert "\\x1b[2Jx.png" in table
    assert "/drops/labdaq/[red]y.png" in done.lines
    assert not any(".." in line for line in done.lines)


def test_use_local_files_reads_the_mounted_folder(shell: Shell, drops: DropsServer) -> None:
    done = shell.run(
        "auto", "/drops/labdaq/a.png", *QUICK,
        SEGDUO_USE_LOCAL_FILES="true", SEGDUO_LOCAL_ROOT=str(drops.root), SEGDUO_MASKS_ROOT="/masks",
    ).ok()  # fmt: skip
    assert done.lines == ["/drops/masks/a.pkl"]
    assert (drops.root / "masks" / "a.pkl").is_file()


def test_a_servers_path_without_drops_in_front_is_hinted_at(lab: Shell) -> None:
    for command in (("ls", "/labdaq/x"), ("info", "/labdaq/a.png"), ("auto", "/labdaq/x", "--dry-run")):
        done = lab.run(*command)
        assert (done.code, done.stdout) == (7, "")
        assert f"On Drops it is /drops{command[1]}: paths there begin with /drops." in done.stderr
    assert "On Drops" not in lab.run("ls", "/tmp/not-there").stderr
