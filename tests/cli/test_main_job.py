"""The main job as a user does it: the real program, the real engine, the nano model, real files."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from tests.cli_shell import DISCS, Shell, draw_discs
from tests.conftest import REPOSITORY

QUICK = ("--points-per-side", "8", "--pred-iou-thresh", "0.1", "--stability-score-thresh", "0.1")


def test_auto_saves_versions_and_never_overwrites(shell: Shell) -> None:
    shell.image("particles.png")
    first = shell.run("auto", "particles.png", *QUICK).ok()
    content = Path(first.lines[0]).read_bytes()
    second = shell.run("auto", "particles.png", *QUICK).ok()
    assert [Path(first.lines[0]).name, Path(second.lines[0]).name] == ["particles.pkl", "particles_1.pkl"]
    assert Path(first.lines[0]).read_bytes() == content


def test_a_click_on_a_small_disc_is_answered_from_the_part_around_it_unless_the_whole_is_asked_for(
    shell: Shell,
) -> None:
    def small_disc(_seed: int) -> np.ndarray:
        y, x = np.mgrid[:700, :900]
        return np.where((x - 620) ** 2 + (y - 300) ** 2 <= 9**2, 190, 70).astype(np.uint8)

    shell.image("wide.png", draw=small_disc)

    def seen(*options: str) -> list[float]:
        (record,) = (
            shell.run("point", "wide.png", "-p", "620,300", "--no-save", "--json", *options).ok().json["records"]
        )
        return list(record["crop_box"])

    left, top, width, height = seen()
    assert width == height < 400
    assert left < 620 < left + width
    assert top < 300 < top + height
    assert seen("--scale", "whole") == [0, 0, 900, 700]
    assert "the model sees no object there" in shell.run("point", "wide.png", "-p", "100,600").ok().stderr


def test_a_bare_python_reads_the_set(shell: Shell) -> None:
    shell.image("particles.png")
    shell.run("auto", "particles.png", *QUICK).ok()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import pickle; print(*pickle.load(open('masks/particles.pkl', 'rb'))[0])"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
    )
    records = pickle.loads((shell.folder / "masks/particles.pkl").read_bytes())
    for record in records:
        # pycocotools counts pixels; SAM, and so the record, the last less the first.
        x, y, width, height = mask_utils.toBbox(record["segmentation"])
        assert record["bbox"] == [x, y, width - 1, height - 1]
    assert {"segmentation", "area", "bbox", "predicted_iou", "stability_score", "crop_box"} <= set(
        done.stdout.split()
    ), done.stderr


def test_a_point_on_a_disc_gives_the_disc(shell: Shell) -> None:
    shell.image("particles.png")
    rows = [f"{x},{y},1,{index}" for index, (x, y, _) in enumerate(DISCS)]
    (shell.folder / "clicks.csv").write_text("x,y,label,object\n" + "\n".join(rows))
    shell.run("point", "particles.png", "--points", "clicks.csv").ok()
    masks = pickle.loads((shell.folder / "masks/particles.pkl").read_bytes())
    y, x = np.mgrid[:124, :180]
    for mask, (centre_x, centre_y, radius) in zip(masks, DISCS, strict=True):
        disc = (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2
        found = mask_utils.decode(mask["segmentation"]).astype(bool)
        assert (found & disc).sum() / (found | disc).sum() > 0.6


def test_append_keep_and_remove_make_new_versions(shell: Shell) -> None:
    shell.image("a.png")
    shell.run("point", "a.png", "-p", "30,30").ok()
    shell.run("point", "a.png", "-p", "90,34", "--append", "--label", "big").ok()
    shell.run("point", "a.png", "-p", "40,92", "--onto", "0").ok()
    assert len(shell.run("masks", "show", "a.png@0", "--json").ok().json["records"]) == 1
    appended = shell.run("masks", "show", "a.png@1", "--json").ok().json
    assert [mask["label"] for mask in appended["records"]] == ["", "big"]
    assert appended["provenance"]["parent"] == "0"
    assert len(shell.run("masks", "show", "a.png@2", "--json").ok().json["records"]) == 2
    shell.run("masks", "keep", "a.png@1", "1", "--suffix", "best").ok()
    shell.run("masks", "rm-mask", "a.png@1", "1").ok()
    assert [m["id"] for m in shell.run("masks", "show", "a.png@best", "--json").ok().json["records"]] == [1]
    assert [m["id"] for m in shell.run("masks", "show", "a.png@3", "--json").ok().json["records"]] == [0]
    listed = [row["version"] for row in shell.run("masks", "ls", "a.png", "--json").ok().json]
    assert sorted(listed) == ["0", "1", "2", "3", "best"]
    unknown = shell.run("masks", "keep", "a.png", "77")
    assert (unknown.code, "no mask 77" in unknown.stderr) == (7, True)


def test_filter_makes_a_new_version_of_what_passes(shell: Shell) -> None:
    shell.image("a.png")
    shell.run("point", "a.png", "-p", "30,30").ok()
    shell.run("point", "a.png", "-p", "90,34", "--append").ok()

    def left(*conditions: str) -> int:
        return shell.run("masks", "filter", "a.png@1", *conditions, "--dry-run", "--json").ok().json["masks"]

    assert left("--inside", "0,0,60,60") == 1
    assert left("--inside", "28,0,160,120") == 2  # a little less than half of the first disc lies left of it
    assert left("--inside", "30,0,160,120", "--inside-share", "0.9") == 1
    assert shell.run("masks", "filter", "a.png@1", "--inside-share", "0.9").code == 2
    shell.run("masks", "filter", "a.png@1", "--inside", "0,0,60,60", "--suffix", "left").ok()
    assert [m["id"] for m in shell.run("masks", "show", "a.png@left", "--json").ok().json["records"]] == [0]


def test_each_box_is_an_object_and_points_with_several_boxes_are_refused(shell: Shell) -> None:
    shell.image("a.png")
    boxes = ("--box", "12,12,48,48", "--box", "68,12,112,56")
    records = shell.run("point", "a.png", *boxes, "--no-save", "--json").ok().json["records"]
    assert [record["bbox"][0] > 50 for record in records] == [False, True]
    unclear = shell.run("point", "a.png", *boxes, "-p", "30,30")
    assert (unclear.code, unclear.stdout) == (2, "")
    assert "which box the points belong to" in unclear.stderr


def test_multimask_keeps_all_three_candidates(shell: Shell) -> None:
    shell.image("a.png")
    done = shell.run("point", "a.png", "-p", "30,30", "--multimask", "--no-save", "--json").ok()
    scores = [record["predicted_iou"] for record in done.json["records"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert not (shell.folder / "masks").exists()


def test_changed_thresholds_do_not_decode_again(shell: Shell) -> None:
    shell.image("a.png", seed=7003)
    first = shell.run("auto", "a.png", *QUICK, "--json").ok().json
    again = shell.run("auto", "a.png", *QUICK, "--json", "--pred-iou-thresh", "0.95").ok().json
    assert (first["candidates_reused"], again["candidates_reused"]) == (False, True)
    assert again["masks"] <= first["masks"]


def test_embeddings_are_found_again(shell: Shell) -> None:
    shell.image("a.png", seed=7004)
    assert "\tcomputed\t" in shell.run("embed", "a.png").ok().stdout
    assert "\tcached\t" in shell.run("embed", "a.png").ok().stdout
    assert shell.run("info", "a.png", "--json").ok().json["embedding"] == "memory"
    shell.run("engine", "release", "a.png").ok()
    assert shell.run("info", "a.png", "--json").ok().json["embedding"] is None


def test_a_folder_with_a_corrupt_image(shell: Shell) -> None:
    for index in range(19):
        shell.image(f"scans/{index:02}.png", seed=index)
    (shell.folder / "scans" / "broken.png").write_bytes((shell.folder / "scans" / "00.png").read_bytes()[:300])
    done = shell.run("auto", "scans", "--points-per-side", "4")
    assert done.code == 8
    assert len(done.lines) == 19
    assert "broken.png" in done.stderr
    again = shell.run("auto", "scans", "--points-per-side", "4", "--skip-existing")
    assert again.code == 8
    assert again.lines == []
    assert len(list((shell.folder / "scans" / "masks").iterdir())) == 19


def test_killed_in_the_middle_nothing_is_lost_and_nothing_done_twice(shell: Shell) -> None:
    for index in range(8):
        shell.image(f"scans/{index:02}.png", seed=100 + index)
    process = shell.start("auto", "scans", "--points-per-side", "6", "--skip-existing")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shell.run("auto", "scans", "--points-per-side", "6", "--skip-existing").ok()
    saved = sorted(file.name for file in (shell.folder / "scans" / "masks").iterdir())
    assert saved == [f"{index:02}.pkl" for index in range(8)]


def test_ndjson_has_a_line_for_each_image_failed_ones_too(shell: Shell) -> None:
    shell.image("a.png")
    (shell.folder / "b.png").write_text("<html>not found</html>")
    done = shell.run("auto", "a.png", "b.png", "--json", "--points-per-side", "4")
    records = [json.loads(line) for line in done.lines]
    assert done.code == 8
    assert [Path(record["image"]).name for record in records] == ["a.png", "b.png"]
    assert records[0]["saved"].endswith("masks/a.pkl")
    assert records[1]["error"] == "image"


def test_lists_from_stdin_patterns_and_dry_run(shell: Shell) -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        shell.image(name)
    assert len(shell.run("auto", "*.png", "--dry-run").ok().lines) == 2
    listed = shell.run("ls", "-1").ok().stdout
    assert sorted(Path(line).name for line in shell.run("auto", "-", "--dry-run", text=listed).ok().lines) == [
        "a.png", "b.png", "c.jpg",
    ]  # fmt: skip
    nothing = shell.run("auto", "*.tif", "--dry-run")
    assert (nothing.code, "no images match" in nothing.stderr) == (7, True)


def test_two_images_of_one_name_are_not_mixed_up(shell: Shell) -> None:
    shell.image("one/a.png", seed=1)
    shell.image("two/a.png", seed=2)
    out = ("--out", shell.folder / "all", "--points-per-side", "4")
    shell.run("auto", "one/a.png", *out).ok()
    assert shell.run("masks", "show", "two/a.png", "--out", shell.folder / "all").code == 7
    shell.run("auto", "two/a.png", *out, "--skip-existing").ok()
    assert sorted(file.name for file in (shell.folder / "all").iterdir()) == ["a.pkl", "a_1.pkl"]
    shown = shell.run("masks", "show", "one/a.png", "--out", shell.folder / "all", "--json").ok().json
    assert shown["version"] == "0"
    # A moved image is known by its content.
    (shell.folder / "three").mkdir()
    (shell.folder / "one" / "a.png").rename(shell.folder / "three" / "a.png")
    shown = shell.run("masks", "show", "three/a.png", "--out", shell.folder / "all", "--json").ok().json
    assert shown["version"] == "0"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["point", "a.png", "-p", "500,5"], 7, "outside the image"),
        (["point", "a.png", "-p", "5,nan"], 7, "not a finite number"),
        (["point", "a.png", "-p", "5,5,9"], 7, "unknown label"),
        (["point", "a.png"], 2, "no prompt given"),
        (["point", "a.png", "--points", "-"], 7, "holds no points"),
        (["point", "missing.png", "-p", "5,5"], 7, "missing.png"),
        (["auto", "a.png", "--preset", "fien"], 2, "Did you mean 'fine'?"),
        (["auto", "a.png", "--no-save"], 2, "Add --json"),
        (["auto"], 2, "no images given"),
        (["auto", "a.png", "--points-per-side", "0"], 2, "points-per-side"),
        (["auto", "a.png", "--model", "sam2.1-lrage"], 2, "sam2.1-large"),
        (["auto", "a.png", "--banner", "half"], 2, "not a banner setting"),
        (["masks", "show", "a.png"], 7, "no saved masks"),
        (["masks", "export", "a.png", "-f", "xml", "-t", "x"], 2, "There are"),
        (["ls", "/drops"], 2, "no address of the Drops"),
        (["auto", "/drops/labdaq/a.tif"], 2, "no address of the Drops"),
        (["engine", "status", "--socket", "/nowhere.sock"], 3, "no engine"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_mistakes_have_a_message_and_an_exit_code(
    shell: Shell, arguments: list[str], code: int, complaint: str
) -> None:
    shell.image("a.png")
    done = shell.run(*arguments, text="")
    assert done.code == code, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_closed_pipe_ends_quietly(shell: Shell) -> None:
    for index in range(300):
        (shell.folder / f"{index:03}{'x' * 200}.txt").touch()
    command = " ".join(shell.command("ls", "-1")) + " | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=shell.folder, env=shell.environment, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_interrupt_ends_with_130_and_frees_the_engine(shell: Shell) -> None:
    file = shell.folder / "big.png"
    Image.fromarray(np.tile(draw_discs(9), (8, 8))).save(file)
    process = shell.start("auto", "big.png", "--points-per-side", "64", "--crop-n-layers", "1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        running = shell.run("engine", "status", "--json").ok().json["running"]
        if running and running["kind"] == "auto" and running["done"] > 0:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    deadline = time.monotonic() + 15
    while shell.run("engine", "status", "--json").ok().json["running"]:
        assert time.monotonic() < deadline, "the engine still works for a client that went away"
        time.sleep(0.2)


def test_nothing_but_data_on_stdout_and_no_colour_in_a_pipe(shell: Shell) -> None:
    shell.image("a.png")
    done = shell.run("auto", "a.png", *QUICK, NO_COLOR="", FORCE_COLOR="").ok()
    assert len(done.lines) == 1
    assert "\x1b" not in done.stdout + done.stderr


def test_names_that_would_confuse_a_terminal(shell: Shell) -> None:
    shell.image("[red]a\x1b[31m.png")
    done = shell.run("auto", "[[]red*", "--points-per-side", "4").ok()
    assert Path(done.lines[0]).is_file()  # a path alone on its line has its exact bytes in a pipe
    assert "\\x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr + shell.run("ls").ok().stdout


@pytest.mark.skipif(not (REPOSITORY / "examples" / "particles.tif").exists(), reason="a checkout without examples")
def test_the_example_of_the_readme(shell: Shell) -> None:
    example = REPOSITORY / "examples" / "particles.tif"
    done = shell.run("auto", example, "--out", shell.folder / "masks", "--json").ok().json
    truth = REPOSITORY / "examples" / "particles_labels.tif"
    score = shell.run("score", example, truth, "--out", shell.folder / "masks", "--json").ok().json
    assert done["masks"] > 10
    assert score["recall"] > 0.6, os.linesep + json.dumps(score)
    assert score["precision"] > 0.25, json.dumps(score)


def test_a_set_is_scored_by_its_file_as_well(shell: Shell) -> None:
    shell.image("a.png")
    labels(shell, "truth.png", DISCS)
    labels(shell, "found.png", DISCS[:3])
    shell.run("masks", "import", "a.png", "found.png").ok()
    by_image = shell.run("score", "a.png", "truth.png", "--json").ok().json
    assert (by_image["true_positives"], by_image["false_negatives"], by_image["mean_iou"]) == (3, 1, 0.75)
    assert shell.run("score", "masks/a.pkl", "truth.png", "--json").ok().json == by_image
    labels(shell, "elsewhere.png", [(5, 5, 4)])
    told = shell.run("score", "a.png", "elsewhere.png").ok().stdout.split()
    assert told[told.index("matched_iou") + 1] == "-"  # nothing matches, so there is no mean
    missing = shell.run("score", "masks/b.pkl", "truth.png")
    assert (missing.code, "b.pkl" in missing.stderr) == (7, True)


def labels(shell: Shell, name: str, discs: Sequence[tuple[int, int, int]]) -> None:
    """Write a label image of discs, of the size of the shell's images."""
    y, x = np.mgrid[:124, :180]
    picture = np.zeros((124, 180), np.uint8)
    for number, (centre_x, centre_y, radius) in enumerate(discs, 1):
        picture[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2] = number
    Image.fromarray(picture).save(shell.folder / name)


def test_info_marks_sets_that_only_bear_the_name(shell: Shell) -> None:
    everything = {"SEGDUO_LOCAL_MASKS_DIR": str(shell.folder / "all")}
    labels(shell, "labels.png", DISCS)
    for seed, name in enumerate(("one/a.png", "two/a.png")):
        shell.image(name, seed=seed)
        shell.run("masks", "import", name, "labels.png", **everything).ok()
    (shell.folder / "all" / "a_2.pkl").write_bytes(b"cut off")
    found = shell.run("info", "one/a.png", "--json", **everything).ok().json["sets"]
    assert {row["name"]: row["belongs"] for row in found} == {"0": True, "1": False, "2": None}
    assert {row["name"]: bool(row["notice"]) for row in found} == {"0": False, "1": True, "2": True}
    shown = shell.run("info", "one/a.png", **everything).ok()
    marks = {line.split()[-1].rpartition("/")[2]: line[:12].strip() for line in shown.lines if line.endswith(".pkl")}
    assert marks == {"a.pkl": "saved set", "a_1.pkl": "not its own", "a_2.pkl": "damaged set"}
    assert f"set 1 was made for {shell.folder / 'two' / 'a.png'}, page 0" in shown.stdout
    # A moved image keeps its sets: its content counts.
    (shell.folder / "three").mkdir()
    (shell.folder / "one" / "a.png").rename(shell.folder / "three" / "a.png")
    moved = shell.run("info", "three/a.png", "--json", **everything).ok().json["sets"]
    assert {row["name"]: row["belongs"] for row in moved} == {"0": True, "1": False, "2": None}
