"""Tasks of a batch as real processes: signals, kills, going on, and what the folder says of it all."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from segment_duo.batches.stopping import interrupts_noted
from segment_duo.batches.summary import summarize
from tests.cli.test_json import agrees
from tests.engine_fixtures import wait_for

from .toy import HOLD, POISON, ToyShell


def test_a_signal_ends_the_task_after_the_image_in_hand_and_the_next_run_goes_on(toy: ToyShell) -> None:
    for name, kind in {"a.png": 10, "b.png": HOLD, "c.png": 10}.items():
        toy.draw(name, kind)
    running = toy.start("auto", "images", "--manifest", "m")
    wait_for(toy.holders, 90)
    running.send_signal(signal.SIGUSR1)
    toy.go_on()
    out, err = running.communicate(timeout=90)
    assert running.returncode == 11, err
    assert len(out.splitlines()) == 2
    assert "stopped by SIGUSR1" in err
    now = summarize(toy.folder / "m")
    assert (now.done, now.left, [task.state for task in now.tasks]) == (2, 1, ["stopped"])
    again = toy.run("auto", "images", "--manifest", "m").ok()
    assert [Path(line).name for line in again.lines] == ["c.pkl"]
    assert "2 images were done by earlier runs" in again.stderr
    assert toy.sets() == ["a.pkl", "b.pkl", "c.pkl"]


def test_a_killed_task_loses_nothing_repeats_nothing_and_a_poison_image_is_named(toy: ToyShell) -> None:
    toy.draw("a.png")
    toy.draw("b.png", POISON)
    toy.draw("c.png")
    for _ in range(2):
        assert toy.run("auto", "images", "--manifest", "m").code == -signal.SIGKILL
    # As if the task had been killed between saving a set and saying so.
    (file,) = [
        file
        for file in (toy.folder / "m").iterdir()
        if '"images/a.png"' not in file.read_text() and "a.pkl" in file.read_text()
    ]
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"image"' not in line))
    last = toy.run("auto", "images", "--manifest", "m", "--json")
    assert last.code == 8
    assert "b.png: the process that worked on it died, 2 times" in last.stderr
    now = summarize(toy.folder / "m")
    assert (now.done, now.by_error(), now.left, now.repeated) == (2, {"process-died": 1}, 0, 0)
    assert toy.sets() == ["a.pkl", "c.pkl"]
    assert toy.run("batch", "status", "m", "--failed").ok().lines == [str(toy.folder / "images/b.png")]
    told = toy.run("batch", "status", "m", "--json").ok().json
    agrees("batch status", told)
    assert (told["done"], told["failed"]) == (2, 1)
    rows = toy.run("batch", "merge", "m").ok().lines
    assert [row.split(",")[0].rpartition("/")[2] for row in sorted(rows)] == ["a.png", "c.png", "image"]
    other = toy.run("auto", "images", "--manifest", "m", "--suffix", "other")
    assert (other.code, "another batch" in other.stderr) == (2, True)


def test_a_shard_without_an_image_says_so(toy: ToyShell) -> None:
    toy.draw("a.png")
    told = [toy.run("auto", "images", "--shard", f"{number}/2").ok().stderr for number in (1, 2)]
    assert sorted("of the images given (1) none is in this shard" in text for text in told) == [False, True]


def test_ctrl_c_that_a_callback_swallowed_is_raised_again() -> None:
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    try:
        with interrupts_noted() as check:
            check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                check()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, found)
