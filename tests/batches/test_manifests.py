"""Shards, manifests and what is read from them."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_duo.batches.hashes import HashSet, path_hash
from segment_duo.batches.history import read_history
from segment_duo.batches.manifest import Manifest, Record, files, read
from segment_duo.batches.shards import Shard
from segment_duo.batches.summary import made, summarize
from segment_duo.errors import ImageError, InputError, NotFound, OutOfSpace, SegduoError, UsageError

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "2",
    "SLURM_ARRAY_TASK_MAX": "5",
}


@given(st.lists(st.text(min_size=1), unique=True, max_size=40), st.integers(1, 9))
def test_every_image_is_of_one_shard_whatever_else_is_in_the_list(paths: list[str], count: int) -> None:
    shards = [Shard(index, count) for index in range(1, count + 1)]
    assert all(sum(shard.has(path) for shard in shards) == 1 for path in paths)


def test_a_path_has_the_same_shard_on_every_machine() -> None:
    assert path_hash("/data/a.tif") == 8708009822188449632
    assert [path for path in "abcdefgh" if Shard(2, 3).has(path)] == ["g", "h"]


def test_shards_are_about_equal() -> None:
    sizes = [0] * 8
    for number in range(8000):
        sizes[path_hash(f"/data/{number:05}.tif") % 8] += 1
    assert min(sizes) > 900


@pytest.mark.parametrize(
    ("changes", "shard"),
    [
        ({}, "4/4"),
        ({"SLURM_ARRAY_TASK_ID": "2"}, "1/4"),
        ({"SLURM_ARRAY_TASK_MAX": "8", "SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_STEP": "2"}, "4/4"),
        ({"SLURM_ARRAY_TASK_MAX": "8"}, None),  # an array such as 2,3,5,8
        ({"SLURM_ARRAY_TASK_ID": "9"}, None),
        ({"SLURM_ARRAY_TASK_COUNT": "x"}, None),
    ],
)
def test_auto_is_the_task_of_the_array(changes: dict[str, str], shard: str | None) -> None:
    if shard is not None:
        assert str(Shard.parse("auto", ARRAY | changes)) == shard
        return
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse("auto", ARRAY | changes)


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3", "1/99999999"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_auto_outside_an_array_is_refused() -> None:
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_ID is not set"):
        Shard.parse("auto", {})


@given(st.lists(st.integers(1, 40) | st.integers(1, 2**64 - 1), max_size=2000))
def test_the_compact_set_is_a_set(numbers: list[int]) -> None:
    compact, plain = HashSet(), set[int]()
    for number in numbers:
        assert compact.add(number) == (number not in plain)
        plain.add(number)
    assert (len(compact), set(compact)) == (len(plain), plain)
    assert not any(number in compact for number in range(41, 60) if number not in plain)


def begin(folder: Path, *, shard: str | None = None, batch: str = "b", **header: object) -> Manifest:
    return Manifest(folder, "all", {"batch": batch, "command": "auto", "model": "toy", "shard": shard, **header})


def failed(image: str, error: SegduoError) -> Record:
    return Record(image, "failed", error=error.slug, message=error.message)


def test_what_was_done_is_left_out_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    first = begin(tmp_path)
    for name in ("a", "b"):
        first.begin(name)
        first.note(Record(name, set=f"{name}.pkl"))
    first.begin("c")
    first.note(failed("c", ImageError("damaged")))
    first.begin("d")  # and the process is killed
    history = read_history(tmp_path, "b")
    assert [path_hash(name) in history.settled for name in "abcd"] == [True, True, False, False]
    assert [(name, doubt.deaths) for name, doubt in history.doubts.items()] == [("d", 1)]


def test_an_image_over_which_two_processes_died_is_known_and_one_given_up_on_purpose_is_not(tmp_path: Path) -> None:
    for number in range(2):
        task = begin(tmp_path)
        task.begin("poison")
        task.begin("interrupted")
        task.drop("interrupted")
        task.begin(f"sent {number}", sent=True)
    doubts = read_history(tmp_path, "b").doubts
    assert {name: doubt.deaths for name, doubt in doubts.items()} == {
        "poison": 2,
        "interrupted": 0,
        "sent 0": 0,
        "sent 1": 0,
    }


def test_other_shards_of_the_same_division_are_not_read(tmp_path: Path) -> None:
    for shard in ("1/3", "2/3", "2/2"):
        begin(tmp_path, shard=shard).note(Record(f"of {shard}"))
    settled = read_history(tmp_path, "b", Shard(1, 3)).settled
    assert [path_hash(f"of {shard}") in settled for shard in ("1/3", "2/3", "2/2")] == [True, False, True]


def test_the_manifests_of_another_batch_are_refused(tmp_path: Path) -> None:
    begin(tmp_path, batch="other").close("done")
    with pytest.raises(UsageError, match="another batch"):
        read_history(tmp_path, "b")


def test_a_line_is_whole_or_absent_wherever_the_file_was_cut(tmp_path: Path) -> None:
    task = begin(tmp_path)
    for name in ("ä\n b", "b"):
        task.begin(name)
        task.note(Record(name, set=f"{name}.pkl", masks=3))
    task.close("done")
    whole = task.path.read_bytes()
    lines = list(read(task.path))
    assert [line.get("image") for line in lines if "image" in line] == ["ä\n b", "b"]
    for cut in random.Random(3).sample(range(len(whole)), 60):
        task.path.write_bytes(whole[:cut])
        found = list(read(task.path))
        assert found == lines[: len(found)]
        assert len(found) == whole[:cut].count(b"\n")


def test_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.ndjson").write_text('{"some": "thing"}\n')
    with pytest.raises(InputError, match="no manifest"):
        read_history(tmp_path, "b")
    (tmp_path / "data.ndjson").write_text('{"manifest": 99}\n')
    with pytest.raises(InputError, match="newer"):
        summarize(tmp_path)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = begin(tmp_path)
    task.note(Record("a"))
    before = task.path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(OutOfSpace, match="manifest"):
        task.note(Record("b"))
    assert task.path.read_bytes() == before


def test_the_status_counts_each_image_once(tmp_path: Path) -> None:
    first = begin(tmp_path, shard="1/2", images=3, given=6)
    first.note(Record("a", set="a.pkl", version="0", masks=2))
    first.note(failed("b", ImageError("damaged")))
    first.note(failed("c", NotFound("not there")))
    first.close("stopped")
    second = begin(tmp_path, shard="1/2", images=3, given=6, array="12", task="1")
    second.note(Record("b", set="b.pkl", version="1", masks=3))
    second.note(Record("a", set="a_1.pkl", version="1", masks=2))
    second.note(Record("e", "skipped"))
    second.begin("d")
    found = summarize(tmp_path)
    assert (found.given, found.done, found.skipped, found.masks, found.left) == (6, 2, 1, 5, 2)
    assert (found.repeated, list(found.failures), found.by_error()) == (1, ["c"], {"not-found": 1})
    assert [(task.state, task.done, task.in_hand, task.job) for task in found.tasks] == [
        ("stopped", 1, "", ""),
        ("running", 3, "d", "12_1"),
    ]
    assert found.rate is not None
    assert found.seconds_left == pytest.approx(found.left / found.rate)
    assert summarize(tmp_path, now=2e9 + 1e8).tasks[1].state == "silent"
    assert sorted(made(tmp_path)) == [("a", "a_1.pkl", "1"), ("b", "b.pkl", "1")]


def test_files_are_read_in_the_order_they_were_begun(tmp_path: Path) -> None:
    begun = [begin(tmp_path, number=number).path for number in range(3)]
    assert sorted(files(tmp_path)) == sorted(begun)
    assert files(tmp_path / "nowhere") == []
    assert json.loads(begun[0].read_text())["number"] == 0
