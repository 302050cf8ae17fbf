"""``segduo track`` from end to end, with the method without weights as the model: quick, and the masks are known."""

from __future__ import annotations

import csv
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.tracking.label_stack import LabelStack
from segment_duo.training.nano.films import growth
from tests.cli.test_json import agrees
from tests.cli_shell import Shell
from tests.conftest import REPOSITORY
from tests.engine_fixtures import wait_for
from tests.tracking.films import growing, write_stack

WATERSHED = ("--link", "--model", "watershed")


def stack(shell: Shell, frames: int, name: str = "film.tif") -> np.ndarray:
    pictures, truth = growing(frames)
    write_stack(shell.folder / name, pictures)
    return truth


def test_a_stack_becomes_a_set_a_label_stack_and_a_table(shell: Shell) -> None:
    truth = stack(shell, 6)
    done = shell.run("track", "film.tif", *WATERSHED).ok()
    saved, labels, table = (Path(line) for line in done.lines)
    assert [path.name for path in (saved, labels, table)] == ["film.pkl", "film_labels.tif", "film_tracks.csv"]
    assert "2 objects in 6 frames" in done.stderr
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 12
    for row in rows:
        at = truth[int(row["frame"])]
        value = at[round(float(row["centroid_y_px"])), round(float(row["centroid_x_px"]))]
        diameter = 2 * np.sqrt((at == value).sum() / np.pi) * 4
        assert float(row["equivalent_diameter_nm"]) == pytest.approx(diameter, rel=0.05)
        assert float(row["time_s"]) == 0.5 * int(row["frame"])
    with LabelStack(labels) as found:
        assert len({tuple(np.unique(one)) for one in found}) == 1

    np.save(shell.folder / "truth.npy", truth)
    write_stack(shell.folder / "truth.tif", truth)
    score = shell.run("score", "film.tif@0", "truth.tif", "--json").ok().json
    agrees("score of a sequence", score)
    assert (score["complete"], score["id_switches"], score["objects"]) == (2, 0, 2)
    assert score["j_and_f"] > 0.95


def test_every_command_that_takes_sets_knows_sequence_sets(shell: Shell) -> None:
    stack(shell, 5)
    one = (
        shell.run("track", "film.tif", *WATERSHED, "--frames", "1:5", "--frame-time", "2s", "--no-tables", "--json")
        .ok()
        .json
    )
    agrees("track", one)
    assert (one["frames"], one["objects"], one["tables"], one["method"]) == (4, 2, [], "link")
    listed = shell.run("masks", "ls", "film.tif", "--json").ok().json
    agrees("masks ls", listed)
    assert [(row["version"], row["masks"], row["frames"]) for row in listed] == [("0", 2, 4)]
    shown = shell.run("masks", "show", "film.tif", "--json").ok().json
    agrees("masks show of a sequence", shown)
    assert [life["frames"] for life in shown["objects"]] == [4, 4]
    measured = shell.run("measure", "masks/film.pkl", "--tracks", "--json").ok().json
    agrees("measure --tracks", measured)
    assert measured["summary"]["time_unit"] == "s"
    assert measured["rows"][-1]["time_s"] == 8.0
    shell.run("measure", "film.tif", "--tracks", "--plot", "plot.svg").ok()
    assert (shell.folder / "plot.svg").read_text().startswith("<?xml")
    shell.run("masks", "export", "film.tif", "-f", "ctc", "-t", "01_RES").ok()
    shell.run("masks", "export", "film.tif", "-f", "film", "-t", "look.gif").ok()
    imported = shell.run("masks", "import", "film.tif", "01_RES", "-f", "ctc", "--frames", "1:5", "--json").ok().json
    agrees("masks import of a sequence", imported)
    assert (imported["frames"], imported["objects"], imported["version"]) == (4, 2, "1")
    refused = shell.run("masks", "import", "film.tif", "01_RES", "-f", "ctc")
    assert refused.code == 7
    assert "4 label images for 5 frames" in refused.stderr
    asked = shell.run("masks", "label", "film.tif@0", "2", "rod", "--dry-run", "--json").ok().json
    agrees("masks label of a sequence --dry-run", asked)
    assert asked == {"changed": 1, "objects": 2}
    labelled = shell.run("masks", "label", "masks/film.pkl", "2", "rod", "--suffix", "named", "--json").ok().json
    agrees("masks label of a sequence", labelled)
    assert (labelled["changed"], labelled["objects"], labelled["version"]) == (1, 2, "named")
    rows = shell.run("measure", "film.tif@named", "--tracks", "--json").ok().json["rows"]
    assert {(row["id"], row["label"]) for row in rows} == {(1, ""), (2, "rod")}
    assert len(rows) == len(measured["rows"])
    again = shell.run("masks", "label", "masks/film_named.pkl", "--all", "rod", "--dry-run", "--json").ok().json
    assert again == {"changed": 1, "objects": 2}  # object 2 has that label
    missing = shell.run("masks", "label", "film.tif@0", "7", "rod")
    assert (missing.code, "has no object 7" in missing.stderr) == (7, True)
    assert shell.run("masks", "label", "film.tif@0", "rod", "--min-area", "5").code == 2
    # A sequence set is never taken for one of an image.
    plain = shell.run("measure", "film.tif@0")
    assert plain.code == 7
    assert "is a sequence set" in plain.stderr
    shell.run("auto", "film.tif", "--model", "watershed", "--skip-existing").ok()
    assert shell.run("measure", "film.tif", "--summary").ok().stdout.startswith(str(shell.folder / "film.tif@2"))


def test_folders_and_patterns(shell: Shell) -> None:
    pictures, _ = growing(3)
    for number, picture in enumerate(pictures):
        shell.image(f"frames/scan_{number}.png", draw=lambda _, picture=picture: picture)
    done = shell.run("track", "frames/scan_*.png", *WATERSHED, "--no-tables").ok()
    assert done.lines == [str(shell.folder / "frames/masks/scan.pkl")]
    assert "0\t2\t3" in shell.run("masks", "ls", "frames/scan_*.png").ok().stdout
    shell.run("track", "frames", *WATERSHED, "--no-tables").ok()
    assert (shell.folder / "masks/frames.pkl").is_file()


def test_what_cannot_be_is_refused_before_anything_is_computed(shell: Shell, forgetful: str) -> None:
    stack(shell, 3)
    for arguments, code, said in (
        (("film.tif",), 2, "nothing says what to follow"),
        (("film.tif", "-m", forgetful, "-p", "20,30"), 2, "follows no objects"),
        (("film.tif", "--link", "-p", "20,30"), 2, "not prompts"),
        (("film.tif", "--link", "--look-every", "3"), 2, "for --auto by memory"),
        (("film.tif", "-p", "20,30", "--look-every", "3"), 2, "for --auto by memory"),
        (("film.tif", *WATERSHED, "--frames", "9"), 2, "no frame 9"),
        (("film.tif", *WATERSHED, "--frame-time", "fast"), 2, "is not a time"),
        (("film.tif", *WATERSHED, "--resume"), 7, "broken off"),
        (("none.tif", *WATERSHED), 7, "no such file"),
    ):
        done = shell.run("track", *arguments)
        assert (done.code, said in done.stderr) == (code, True), done.stderr
    assert not list((shell.folder / "masks").glob("*.pkl"))


def test_auto_with_a_model_that_follows_nothing_links_and_says_so(shell: Shell, forgetful: str) -> None:
    stack(shell, 2)
    done = shell.run(
        "track", "film.tif", "-m", forgetful, "--auto", "--points-per-side", "6", "--no-tables", "--json"
    ).ok()
    assert "forgetful cannot follow objects by itself" in done.stderr
    assert done.json["method"] == "link"
    assert any("forgetful cannot follow" in one for one in done.json["notes"])


def test_auto_with_a_small_model_links_unless_it_is_asked_to_look_for_new_objects(shell: Shell) -> None:
    stack(shell, 2)
    command = ("track", "film.tif", "--auto", "--points-per-side", "6", "--no-tables", "--json")
    linked = shell.run(*command).ok()
    assert "nano is small: the masks of each frame are linked" in linked.stderr
    assert linked.json["method"] == "link"
    assert shell.run(*command, "--look-every", "0").ok().json["method"] == "memory"


def test_killed_at_any_moment_it_goes_on_and_nothing_is_lost_or_twice(shell: Shell) -> None:
    frames = 24
    stack(shell, frames, "long.tif")
    shell.run("track", "long.tif", *WATERSHED, "--no-tables", "--suffix", "whole").ok()

    def written() -> list[int]:
        parts = list((shell.folder / "masks").glob(".segduo-long-*.part"))
        if not parts:
            return []
        try:
            with SequenceSet.open(parts[0]) as found:
                return found.frames
        except MaskFileError:  # its head is not whole yet
            return []

    def reached(running: subprocess.Popen[str], moment: int) -> bool:
        return len(written()) >= moment or running.poll() is not None

    for moment in (1, 6, 14):
        running = shell.start("track", "long.tif", *WATERSHED, "--no-tables")
        wait_for(partial(reached, running, moment), 120)
        assert running.poll() is None, running.communicate()
        psutil.Process(running.pid).kill()
        running.wait(30)
        assert written() == list(range(len(written())))
        assert not (shell.folder / "masks/long.pkl").exists()
    last = shell.run("track", "long.tif", *WATERSHED, "--no-tables", "--resume", "--json").ok().json
    assert last["frames"] == frames
    assert last["resumed"] >= 14
    with SequenceSet.open(shell.folder / "masks/long.pkl") as found, SequenceSet.open(shell.folder / "masks/long_whole.pkl") as whole:  # fmt: skip
        assert found.finished
        assert [chunk.frame for chunk in found.chunks] == list(range(frames))
        assert all(found.frame(n) == whole.frame(n) for n in range(frames))
    assert not list((shell.folder / "masks").glob(".segduo-*"))


def test_the_example_is_the_generators(tmp_path: Path) -> None:
    import tifffile

    film = growth()
    assert (tifffile.imread(REPOSITORY / "examples/growth.tif") == film.frames).all()
    assert (REPOSITORY / "examples/growth.tif").stat().st_size < 300_000
    diameters = [2 * np.sqrt((labels == 11).sum() / np.pi) for labels in film.labels]
    assert diameters[-1] > 1.3 * diameters[0]
