"""Lists, folders and disks that are against a batch, and two tasks that do the same."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from segment_duo.batch import Request
from segment_duo.batches import manifest
from segment_duo.batches.ledger import Description, Ledger
from segment_duo.batches.manifest import Manifest, Record, claim
from segment_duo.batches.shards import Shard
from segment_duo.batches.stopping import Stopping
from segment_duo.batches.summary import summarize
from segment_duo.cli.each import run_batch
from segment_duo.errors import OutOfSpace, StoreError
from segment_duo.types import ModelIdentity
from tests.engine_fixtures import wait_for

from .toy import HOLD, ToyShell


def test_two_tasks_of_the_same_shard_do_not_meet(toy: ToyShell) -> None:
    for number in range(6):
        toy.draw(f"{number}.png", HOLD)
    mine = [number for number in range(6) if Shard(1, 2).has(str(toy.folder / f"images/{number}.png"))]
    asked = ("auto", "images", "--manifest", "m", "--shard")
    running = toy.start(*asked, "1/2")
    (holder,) = wait_for(toy.holders, 90)
    second = toy.run(*asked, "1/2")
    assert (second.code, second.stdout) == (6, ""), second.stderr
    assert f"another task is doing this part of the batch: shard-1-of-2 in '{toy.folder / 'm'}'" in second.stderr
    assert f"process {holder} on " in second.stderr
    assert len(toy.run(*asked, "1/2", "--dry-run").ok().lines) == len(mine)
    toy.go_on()
    toy.run(*asked, "2/2").ok()
    out, err = running.communicate(timeout=90)
    assert (running.returncode, len(out.splitlines())) == (0, len(mine)), err
    assert toy.sets() == [f"{number}.pkl" for number in range(6)]
    assert (summarize(toy.folder / "m").done, summarize(toy.folder / "m").repeated) == (6, 0)


def test_a_killed_task_leaves_its_part_to_the_next(toy: ToyShell) -> None:
    toy.draw("a.png", HOLD)
    running = toy.start("auto", "images", "--manifest", "m")
    wait_for(toy.holders, 90)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=90)
    toy.go_on()
    toy.run("auto", "images", "--manifest", "m").ok()
    assert toy.sets() == ["a.pkl"]


def test_a_part_is_free_again_when_it_is_given_back(tmp_path: Path) -> None:
    first = claim(tmp_path, "all")
    with pytest.raises(StoreError, match="another task"):
        claim(tmp_path, "all")
    os.close(claim(tmp_path, "shard-1-of-2"))
    os.close(first)
    os.close(claim(tmp_path, "all"))


def test_lists_with_all_that_names_can_hold(toy: ToyShell) -> None:
    names = [" a b.png", "new\nline.png", "ü.png", "#1.png", "-x.png"]
    for name in names:
        toy.draw(name)
    folder = os.fsencode(toy.folder / "images")
    (toy.folder / "list").write_bytes(
        b"\n".join(
            [
                b"images/ a b.png",
                b"images/*line.png",
                b"./images/ a b.png",
                b"images/\xfc.png",
                b"images/\xc3\xbc.png\r",
            ]
        )
        + b"\n\n# images/none.png\nimages/#1.png\nimages/-x.png\nimages/-x.png\nnowhere/\nnowhere\n"
    )
    shutil.copyfile(folder + b"/\xc3\xbc.png", folder + b"/\xfc.png")
    asked = ("auto", "--from-file", "list", "--manifest", "m")
    codes = [toy.run(*asked, "--shard", f"{index}/2") for index in (1, 2)]
    assert toy.sets() == sorted(f"{name[:-4]}.pkl" for name in names)
    assert (summarize(toy.folder / "m").done, summarize(toy.folder / "m").repeated) == (5, 0)
    said = "".join(done.stderr for done in codes)
    # One of the tasks fails for a line that cannot be meant, not both.
    assert said.count("the name is not UTF-8") == 1
    assert said.count("2 of 10 lines are not images, left out: nowhere/, nowhere") == 2
    assert {done.code for done in codes} <= {0, 7, 8}


def test_an_empty_list_is_told(toy: ToyShell) -> None:
    (toy.folder / "list").write_text("# nothing yet\n\n")
    done = toy.run("auto", "--from-file", "list", "--manifest", "m").ok()
    assert "list: an empty list, nothing to do" in done.stderr
    assert "done\t0 of 0" in toy.run("batch", "status", "m").ok().stdout


def ledger(folder: Path) -> Ledger:
    what = Description("auto", ModelIdentity("toy", "0" * 64), Request().record(), "")
    found = Ledger(folder, what, None, Stopping())
    found.open(images=2, given=2)
    return found


def test_a_full_disk_ends_the_batch_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ledger(tmp_path)
    tried = []

    def work(name: str) -> None:
        tried.append(name)
        task.note(Record(name))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(manifest.os, "write", full)
        with pytest.raises(OutOfSpace, match="manifest"):
            run_batch(["a", "b"], work, as_json=False)
    assert tried == ["a"]
    task.close("failed")
    assert [task.state for task in summarize(tmp_path).tasks] == ["failed"]


def test_a_manifest_that_vanishes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_SYNC_SECONDS", -1.0)
    folder = tmp_path / "m"
    task = Manifest(folder, "all", {"batch": "b"})
    task.note(Record("a"))
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="it was removed"):
        task.note(Record("b"))


def test_images_that_vanish_fail_and_are_tried_again(toy: ToyShell) -> None:
    toy.draw("a.png", HOLD)
    lost = toy.draw("b.png")
    running = toy.start("auto", "images", "--manifest", "m")
    wait_for(toy.holders, 90)
    kept = lost.read_bytes()
    lost.unlink()
    toy.go_on()
    _, err = running.communicate(timeout=90)
    assert (running.returncode, "b.png" in err) == (8, True), err
    assert summarize(toy.folder / "m").by_error() == {"not-found": 1}
    lost.write_bytes(kept)
    toy.run("auto", "images", "--manifest", "m").ok()
    assert summarize(toy.folder / "m").done == 2
