"""``IMAGE --frame``: a frame of a stack or film, or a file of a folder, is an image of its own in every command."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segment_duo.errors import UsageError
from segment_duo.library.versions import frame_of_series, frame_series
from tests.cli_shell import Shell, draw_discs

FEW = ("--points-per-side", "6", "--pred-iou-thresh", "0.05", "--stability-score-thresh", "0.05")
TIMES = 4


def hyperstack(folder: Path, name: str = "film.tif") -> Path:
    """T 4, Z 2, 16 bits: brighter with time, and Z 1 is dark."""
    planes = np.stack([[draw_discs(t).astype(np.uint16) * (t + 1), draw_discs(t).astype(np.uint16) // 4] for t in range(TIMES)])  # fmt: skip
    file = folder / name
    tifffile.imwrite(file, planes, imagej=True, metadata={"axes": "TZYX", "finterval": 0.5})
    return file


def test_every_command_takes_one_frame_or_several(shell: Shell) -> None:
    hyperstack(shell.folder)
    # A frame is the same picture as its page (each time has two depths), so nothing is computed twice.
    embedded = [json.loads(line) for line in shell.run("embed", "film.tif", "--frame", "1:4:2", "--json").ok().lines]
    assert [(Path(one["image"]).name, one["frame"]) for one in embedded] == [("film.tif", 1), ("film.tif", 3)]
    page = shell.run("embed", "film.tif", "--page", 6, "--json").ok().json
    assert (page["id"], page["computed"], "frame" in page) == (embedded[1]["id"], False, False)

    some = shell.run("auto", "film.tif", "--frame", ":3:2", *FEW).ok()
    masks = shell.folder / "masks"
    assert some.lines == [str(masks / "film_frame0.pkl"), str(masks / "film_frame2.pkl")]
    rest = shell.run("auto", "film.tif", "--frame", "all", "--skip-existing", "--json", *FEW).ok()
    assert [(one["frame"], one["version"]) for one in map(json.loads, rest.lines)] == [(1, "frame1"), (3, "frame3")]
    assert shell.run("auto", "film.tif", "--frame", "all", "--skip-existing", "--dry-run").ok().lines == []

    added = shell.run("point", "film.tif", "--frame", 3, "-p", "30,30", "--append", "--json").ok().json
    assert (added["frame"], added["version"], added["new"]) == (3, "frame3_1", 1)
    kept = shell.run("masks", "keep", "film.tif@frame3", "0", "--suffix", "best", "--json").ok().json
    assert kept["version"] == "best_frame3"
    listed = {one["version"]: one["page"] for one in shell.run("masks", "ls", "film.tif", "--json").ok().json}
    assert listed == {"frame0": 0, "frame1": 2, "frame2": 4, "frame3": 6, "frame3_1": 6, "best_frame3": 6}

    known = shell.run("info", "film.tif", "--frame", "-1", "--json").ok().json
    assert (known["frame"], known["page"], known["frames"]["axis"], known["embedding"]) == (3, 6, "T", "memory")
    assert {one["name"] for one in known["sets"] if one["belongs"]} == {"frame3", "frame3_1", "best_frame3"}
    shown = shell.run("show", "film.tif", "--frame", 2, "--masks", "--graphics", "halfcell").ok()
    assert "film.tif@frame2: " in shown.stderr

    table = shell.run("measure", "film.tif", "--frame", "0:3").ok()
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert list(dict.fromkeys(Path(row["image"]).name for row in rows)) == [f"film.tif@frame{n}" for n in range(3)]
    brightness = [max(float(row["intensity_mean"]) for row in rows if row["image"].endswith(str(n))) for n in range(3)]
    assert brightness == sorted(brightness)
    assert brightness[2] > 2 * brightness[0]  # of its own plane, and of the depth 0


def test_frames_without_sets_are_told_and_a_set_with_page_is_still_found(shell: Shell) -> None:
    hyperstack(shell.folder)
    assert shell.run("auto", "film.tif", "--page", 4, *FEW).ok().lines == [str(shell.folder / "masks/film.pkl")]
    one = shell.run("measure", "film.tif", "--frame", 2, "--summary").ok()
    assert one.lines[0].endswith("film.tif@0")
    several = shell.run("measure", "film.tif", "--frame", "all", "--summary").ok()
    assert several.lines[0].endswith("film.tif@0")
    assert "3 of 4 frames have no saved masks" in several.stderr
    none = shell.run("measure", "film.tif", "--frame", ":2")
    assert (none.code, "none of these 2 frames" in none.stderr) == (7, True)


def test_in_a_folder_the_file_counts(shell: Shell) -> None:
    for number in (1, 2, 10):
        shell.image(f"series/img{number}.png", seed=number)
    for given in ("series", "series/img*.png"):
        listed = shell.run("auto", given, "--frame", "1:", "--dry-run", "--json").ok().lines
        found = [json.loads(line) for line in listed]
        assert [Path(one["image"]).name for one in found] == ["img2.png", "img10.png"]
        assert not any("frame" in one for one in found)
    saved = shell.run("point", "series", "--frame", 2, "-p", "30,30").ok().lines
    assert saved == [str(shell.folder / "series/masks/img10.pkl")]


def test_a_film_is_a_stack(shell: Shell) -> None:
    av = pytest.importorskip("av")
    with av.open(str(shell.folder / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 180, 124, "yuv420p"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_discs(number), format="gray")))
        container.mux(stream.encode())
    saved = shell.run("point", "film.mp4", "--frame", 2, "-p", "30,30").ok()
    assert saved.lines == [str(shell.folder / "masks/film_frame2.pkl")]
    row = next(csv.DictReader(io.StringIO(shell.run("measure", "film.mp4@frame2").ok().stdout)))
    assert float(row["intensity_mean"]) > 60
    first = shell.run("info", "film.mp4", "--json").ok()
    assert (first.json["page"], first.json["frames"]["sizes"]) == (0, [["T", 3]])
    assert "frame 0 of 3" in first.stderr


def test_what_cannot_be_meant_is_said(shell: Shell) -> None:
    hyperstack(shell.folder)
    shell.image("one.png")
    for arguments, code, message in (
        (("auto", "film.tif", "--frame", "4"), 2, "there is no frame 4"),
        (("auto", "film.tif", "--frame", "a"), 2, "'a' is not a range of frames"),
        (("point", "film.tif", "--frame", "1", "--page", "1", "-p", "1,1"), 2, "--frame and --page both"),
        (("show", "one.png", "--frame", "1"), 2, "there is no frame 1"),
        (("measure", "film.tif@0", "--frame", "1"), 2, "a set knows its frame"),
        (("auto", "none.tif", "--frame", "1"), 7, "no such file"),
    ):
        done = shell.run(*arguments)
        assert (done.code, message in done.stderr) == (code, True), done.stderr
    assert shell.run("auto", "one.png", "--frame", "all", "--dry-run").ok().lines == [str(shell.folder / "one.png")]


def test_the_series_of_a_frame() -> None:
    for suffix, frame, series in (("", None, ""), ("a", None, "a"), ("", 0, "frame0"), ("a", 12, "a_frame12")):
        assert frame_series(suffix, frame) == series
        assert frame_series(series, frame) == series
        assert frame_of_series(series) == frame
    assert frame_of_series("myframe3") is None
    with pytest.raises(UsageError, match="more than 64 characters"):
        frame_series("a" * 60, 3)
