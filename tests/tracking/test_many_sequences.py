"""``segduo track`` over several sequences: shards, manifests, signals, kills."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
from functools import partial
from pathlib import Path

import psutil
import pytest

from segment_duo.batches.history import TRIES
from segment_duo.batches.shards import Shard
from segment_duo.batches.summary import BatchSummary, summarize
from segment_duo.masks.formats.sequence import SequenceSet
from tests.cli.test_json import agrees
from tests.cli_shell import Shell
from tests.engine_fixtures import wait_for
from tests.tracking.films import growing, write_stack

LINK = ("--link", "--model", "watershed", "--no-tables")
LONG = 40


def draw(shell: Shell, name: str, frames: int = 3, seed: int = 0) -> Path:
    file = shell.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return write_stack(file, growing(frames, seed)[0])


def sets(shell: Shell) -> list[str]:
    return sorted(file.name for file in shell.folder.glob("**/masks/*.pkl"))


def now(shell: Shell) -> BatchSummary:
    return summarize(shell.folder / "run")


def begun(shell: Shell, stem: str, running: subprocess.Popen[str]) -> bool:
    """Whether frames of this sequence were written, or the command has ended."""
    parts = list(shell.folder.glob(f"masks/.segduo-{stem}-*.part"))
    return running.poll() is not None or any(file.stat().st_size > 4000 for file in parts)


def frames_of(shell: Shell, name: str) -> list[int]:
    with SequenceSet.open(shell.folder / "masks" / name) as found:
        assert found.finished
        return [chunk.frame for chunk in found.chunks]


def test_several_sequences_are_followed_one_after_the_other_and_a_bad_one_stops_none(shell: Shell) -> None:
    for number in range(2):
        draw(shell, f"film {number}.tif", seed=number)
    for number, picture in enumerate(growing(3)[0]):
        shell.image(f"frames/scan_{number}.png", draw=lambda _, picture=picture: picture)
    (shell.folder / "bad.tif").write_text("no film")
    (shell.folder / "list.txt").write_text(
        "film 0.tif\nframes\nframes/scan_*.png\nfilm 1.tif\n# a remark\nfilm 0.tif\nnotes.txt\nmasks/\n"
    )
    done = shell.run("track", "bad.tif", "--from-file", "list.txt", *LINK, "--json")
    assert done.code == 8, done.stderr
    told = [json.loads(line) for line in done.lines]
    assert [line.get("error", "") for line in told] == ["image", "", "", "", ""]
    for line in told:
        if "error" not in line:
            agrees("track", line)
    assert [line["frames"] for line in told if "error" not in line] == [3, 3, 3, 3]
    assert "1 of 5 sequences failed, 4 done" in done.stderr
    assert "2 of 7 lines are not images, left out: notes.txt, masks/" in done.stderr
    assert sets(shell) == ["film 0.pkl", "film 1.pkl", "frames.pkl", "scan.pkl"]


def test_files_of_single_pictures_are_no_sequences_when_a_shell_has_spread_a_pattern(shell: Shell) -> None:
    for number in range(2):
        draw(shell, f"scan_{number}.tif", frames=1)
    done = shell.run("track", "scan_0.tif", "scan_1.tif", *LINK)
    assert (done.code, sets(shell)) == (7, [])
    assert "a single picture" in done.stderr
    assert "Quote the pattern" in done.stderr
    assert shell.run("track", "scan_0.tif", *LINK).ok().lines == [str(shell.folder / "masks/scan_0.pkl")]


@pytest.mark.parametrize(
    "more",
    [
        ("b.tif", "-p", "20,30"),
        ("b.tif", "--box", "1,2,30,40"),
        ("b.tif", "--points", "none.csv"),
        ("b.tif", "--from-set", "a.tif"),
        ("b.tif", "--auto", "--onto", "0", "-p", "20,30"),
        ("b.tif", "--link", "--resume"),
        ("b.tif", "--link", "--restart"),
        ("--manifest", "run", "-p", "20,30"),
        ("--shard", "1/2", "-p", "20,30"),
        ("--from-file", "list.txt", "-p", "20,30"),
    ],
)
def test_what_means_one_sequence_is_refused_for_several(shell: Shell, more: tuple[str, ...]) -> None:
    done = shell.run("track", "a.tif", *more)
    assert done.code == 2, done.stderr
    assert "are for one sequence" in done.stderr or "contradict each other" in done.stderr
    assert not (shell.folder / "run").exists()


def test_frames_that_one_of_several_does_not_have_are_its_own_failure(shell: Shell) -> None:
    draw(shell, "short.tif", 3)
    draw(shell, "long.tif", 6)
    done = shell.run("track", "short.tif", "long.tif", *LINK, "--frames", "4:")
    assert (done.code, sets(shell)) == (8, ["long.pkl"]), done.stderr
    alone = shell.run("track", "short.tif", *LINK, "--frames", "4:")
    assert (alone.code, "means no frame" in alone.stderr) == (2, True)


def test_shards_part_the_sequences_and_each_is_done_once(shell: Shell) -> None:
    files = [draw(shell, f"{number}.tif", 2, seed=number) for number in range(5)]
    shards = [Shard(index, 2) for index in (1, 2)]
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "1"}
    for shard in shards:
        asked = ("track", *(file.name for file in files), *LINK, "--shard", "auto", "--manifest", "run")
        done = shell.run(*asked, **array, SLURM_ARRAY_TASK_ID=str(shard.index - 1)).ok()
        assert [Path(line).stem for line in done.lines] == [file.stem for file in files if shard.has(str(file))]
    found = now(shell)
    assert (found.command, found.given, found.done, found.left, found.repeated) == ("track", 5, 5, 0, 0)
    assert found.masks == 10
    assert sets(shell) == [f"{number}.pkl" for number in range(5)]
    again = shell.run("track", *(file.name for file in files), *LINK, "--manifest", "run").ok()
    assert (again.lines, "5 sequences were done by earlier runs" in again.stderr) == ([], True)
    status = shell.run("batch", "status", "run").ok().stdout
    assert "5 of 5, 10 objects" in status
    rows = list(csv.DictReader(io.StringIO(shell.run("batch", "merge", "run").ok().stdout)))
    assert sorted(Path(row["sequence"]).name for row in rows) == [file.name for file in files]
    assert {(row["objects"], row["frames"], row["unit"]) for row in rows} == {("2", "2", "nm")}
    other = shell.run("track", "0.tif", *LINK, "--max-gap", "1", "--manifest", "run")
    assert (other.code, "another batch" in other.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_keeps_the_frames_that_are_done_and_the_requeued_task_goes_on(shell: Shell, number: int) -> None:
    draw(shell, "a.tif")
    draw(shell, "b.tif", LONG)
    asked = ("track", "a.tif", "b.tif", *LINK, "--manifest", "run", "--json")
    running = shell.start(*asked)
    wait_for(partial(begun, shell, "b", running), 120)
    running.send_signal(number)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 11, err
    assert f"stopped by {signal.Signals(number).name}" in err
    assert [json.loads(line)["sequence"] for line in out.splitlines()] == [str(shell.folder / "a.tif")]
    found = now(shell)
    assert (found.done, found.left, [task.state for task in found.tasks]) == (1, 1, ["stopped"])
    last = shell.run(*asked).ok().json
    assert (last["sequence"], last["frames"]) == (str(shell.folder / "b.tif"), LONG)
    assert 0 < last["resumed"] < LONG
    assert frames_of(shell, "b.pkl") == list(range(LONG))
    assert (sets(shell), now(shell).repeated) == (["a.pkl", "b.pkl"], 0)


def killed(shell: Shell, *asked: str) -> None:
    running = shell.start(*asked)
    before = {file: file.stat().st_size for file in shell.folder.glob("masks/.segduo-*.part")}

    def grew() -> bool:
        parts = shell.folder.glob("masks/.segduo-*.part")
        return running.poll() is not None or any(file.stat().st_size > before.get(file, 4000) for file in parts)

    wait_for(grew, 120)
    assert running.poll() is None, running.communicate()
    psutil.Process(running.pid).kill()
    running.communicate()


def test_kills_between_frames_are_not_held_against_a_sequence(shell: Shell) -> None:
    draw(shell, "a.tif", LONG)
    asked = ("track", "a.tif", *LINK, "--manifest", "run")
    for _ in range(TRIES + 1):
        killed(shell, *asked)
    shell.run(*asked).ok()
    assert frames_of(shell, "a.pkl") == list(range(LONG))
    assert (now(shell).done, now(shell).by_error()) == (1, {})


def test_a_sequence_that_was_saved_before_the_task_died_is_not_done_again(shell: Shell) -> None:
    draw(shell, "a.tif")
    asked = ("track", "a.tif", *LINK, "--manifest", "run", "--json")
    first = shell.run(*asked).ok().json
    (file,) = (shell.folder / "run").glob("*.ndjson")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"image"' not in line and '"ended"' not in line))
    again = shell.run(*asked).ok().json
    assert (again["saved"], again["objects"], again["resumed"]) == (first["saved"], first["objects"], 3)
    assert (sets(shell), now(shell).done) == (["a.pkl"], 1)


def test_a_sequence_over_which_processes_die_before_a_frame_is_done_is_given_up(shell: Shell) -> None:
    draw(shell, "a.tif")
    draw(shell, "b.tif")
    asked = ("track", "a.tif", "b.tif", *LINK, "--manifest", "run")
    shell.run(*asked).ok()
    (file,) = (shell.folder / "run").glob("*.ndjson")
    lines = [line for line in file.read_text().splitlines(keepends=True) if "b.tif" not in line and "ended" not in line]
    for number in range(TRIES):
        begin = json.dumps({"begun": str(shell.folder / "b.tif"), "time": 2e9})
        (file.parent / f"9{number}.ndjson").write_text(f"{lines[0]}{begin}\n")
    file.write_text("".join(lines))
    (shell.folder / "masks/b.pkl").unlink()
    done = shell.run(*asked)
    assert done.code == 8, done.stderr
    assert "b.tif: the process that worked on it died, 2 times" in done.stderr
    assert (sets(shell), now(shell).by_error()) == (["a.pkl"], {"process-died": 1})


def test_memory_runs_go_on_too(shell: Shell) -> None:
    draw(shell, "a.tif", 12)
    draw(shell, "b.tif", 3)
    asked = ("track", "a.tif", "b.tif", "--auto", "--look-every", "0", "--points-per-side", "6", "--no-tables")
    running = shell.start(*asked, "--manifest", "run", "--json")
    wait_for(partial(begun, shell, "a", running), 240)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 11, err
    told = [json.loads(line) for line in shell.run(*asked, "--manifest", "run", "--json").ok().lines]
    assert [(line["method"], line["frames"], line["resumed"] > 0) for line in told] == [
        ("memory", 12, True),
        ("memory", 3, False),
    ]
    assert frames_of(shell, "a.pkl") == list(range(12))


def test_a_slurm_array_takes_it(shell: Shell) -> None:
    asked = ("batch", "submit", "--slurm", "--manifest", "run", "--array", "4", "--dry-run", "--")
    script = shell.run(*asked, "track", "--from-file", "films.txt", "--link").ok().stdout
    assert 'track --from-file films.txt --link --shard "$SLURM_ARRAY_TASK_ID/4" --manifest ' in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert shell.run(*asked, "info", "a.tif").code == 2


def test_the_help_shows_how(shell: Shell) -> None:
    text = " ".join(shell.run("track", "--help").ok().stdout.split())
    assert "segduo track --from-file films.txt --link --shard auto --manifest run1" in text
