"""``--cluster`` with a real Dask scheduler and real worker processes: killed, poisoned, interrupted."""

from __future__ import annotations

import contextlib
import functools
import os
import signal

import pytest

from benchmarks.cluster.simulate import costless, paths
from segment_duo.batch import Request
from segment_duo.batches import cluster
from segment_duo.batches.hashes import HashSet
from segment_duo.batches.summary import summarize
from tests.engine_fixtures import wait_for

from .toy import HOLD, POISON, ToyShell

pytestmark = pytest.mark.timeout(900)  # worker processes start slowly on a loaded machine


def test_a_killed_worker_loses_nothing_and_a_poison_image_is_named(toy: ToyShell) -> None:
    for number in range(8):
        toy.draw(f"{number}.png")
    toy.draw("hold.png", HOLD)
    toy.draw("poison.png", POISON)
    running = toy.start("auto", "images", "images/0.png", "--cluster", "local:3", "--manifest", "m")
    (worker,) = wait_for(toy.holders, 280)
    os.kill(worker, signal.SIGKILL)
    toy.go_on()
    out, err = running.communicate(timeout=280)
    assert running.returncode == 8, err
    assert "poison.png: the process that worked on it died" in err
    names = [*(f"{number}.pkl" for number in range(8)), "hold.pkl"]
    assert toy.sets() == names
    assert sorted(line.rpartition("/")[2] for line in out.splitlines()) == names
    now = summarize(toy.folder / "m")
    assert (now.done, now.by_error(), now.repeated) == (9, {"process-died": 1}, 0)


def test_ctrl_c_cancels_all_and_the_next_run_goes_on(toy: ToyShell) -> None:
    toy.draw("0.png")
    for number in range(1, 6):
        toy.draw(f"{number}.png", HOLD)
    running = toy.start("auto", "images", "--cluster", "local:1", "--manifest", "m")
    (worker,) = wait_for(toy.holders, 280)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=280)
    assert running.returncode == 130, err
    wait_for(lambda: not alive(worker), 60)
    before = toy.sets()
    assert len(before) <= 1
    toy.go_on()
    toy.run("auto", "images", "--manifest", "m").ok()
    assert toy.sets() == [f"{number}.pkl" for number in range(6)]


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_scheduler_that_is_not_there_is_named(toy: ToyShell) -> None:
    toy.draw("0.png")
    wrong = toy.run("auto", "images", "--cluster", "local:none")
    assert (wrong.code, "local:4" in wrong.stderr) == (2, True)
    away = toy.run("auto", "images", "--cluster", "tcp://127.0.0.1:9")
    assert (away.code, "no Dask scheduler answers" in away.stderr) == (3, True), away.stderr


def test_the_scheduler_keeps_nothing_of_chunks_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "work", functools.partial(costless, 2 * cluster.CHUNK_SECONDS))
    monkeypatch.setattr(cluster, "TIDY_CHUNKS", 10)
    told = []
    with cluster.connected("local:1") as client:
        windows = cluster.Windows(
            client, Request(), lambda record, _: told.append(record.image), stopped=lambda: False, sent=lambda _: None
        )
        windows.run(paths(45, HashSet()))
        assert len(set(told)) == 45
        spans = client.cluster.scheduler.extensions["spans"].spans.values()
        (ours,) = [one for one in spans if one.name == ("segduo",)]
        assert [one for one in spans if one is not ours] == []
        # What came since the last time, and what was on its way then; all 45 if nothing were forgotten.
        assert len(ours._metadata["collections"]) < 20
        assert len(ours.groups) < 20
