"""``segduo info``: what it tells of scales and of stacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.cli_shell import Shell
from tests.images.test_sequences import LEVELS, film

STACK = np.zeros((5, 3, 2, 24, 32), np.uint16)


@pytest.fixture
def alone(tmp_path: Path) -> Shell:
    """A shell for a command that needs no engine."""
    return Shell(tmp_path, dict(os.environ) | {"SEGDUO_HOME": str(tmp_path / "home"), "NO_COLOR": "1"})


def rows(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in text.splitlines()}


def test_axes_and_frames_of_a_stack(alone: Shell) -> None:
    metadata = {"axes": "TZCYX", "unit": "um", "finterval": 0.2, "spacing": 0.3}
    tifffile.imwrite(alone.folder / "a.tif", STACK, imagej=True, resolution=(4, 4), metadata=metadata)
    shown = rows(alone.run("info", "a.tif").ok().stdout)
    assert shown["page"] == "0 of 30"
    assert shown["frames"] == "5 along T; T 5, Z 3, C 2; 0.2 s a frame; 300 nm between slices"
    [line] = alone.run("info", "a.tif", "--page", "29", "--json").ok().lines
    record = json.loads(line)
    assert record["frames"] == {
        "axis": "T",
        "sizes": [["T", 5], ["Z", 3], ["C", 2]],
        "frame_seconds": 0.2,
        "spacing_nm": pytest.approx(300),
    }
    assert (record["page"], record["pages"], record["pixel_size"]["x_nm"]) == (29, 30, 250)


def test_plain_pages_and_single_images(alone: Shell) -> None:
    tifffile.imwrite(alone.folder / "pages.tif", STACK[:, 0, 0])
    tifffile.imwrite(alone.folder / "one.tif", STACK[0, 0, 0])
    assert rows(alone.run("info", "pages.tif").ok().stdout)["frames"] == "5 along page"
    assert "frames" not in rows(alone.run("info", "one.tif").ok().stdout)
    assert json.loads(alone.run("info", "one.tif", "--json").ok().stdout)["frames"] is None


def test_lengths_are_shown_in_a_unit_that_fits(alone: Shell) -> None:
    tifffile.imwrite(alone.folder / "a.tif", np.zeros((20, 3942), np.uint8))
    shown = rows(alone.run("info", "a.tif", "--pixel-size", "50nm").ok().stdout)
    assert shown["pixel size"].endswith("field width 197.1 um")


def test_films_are_told_with_their_frames(alone: Shell) -> None:
    (alone.folder / "a.avi").write_bytes(film(LEVELS, "avi", "ffv1", "gray"))
    shown = rows(alone.run("info", "a.avi").ok().stdout)
    assert shown["size"].startswith("64 x 48 pixels")
    assert shown["frames"] == "20 along T; 0.1 s a frame"
    assert (shown["frame"], shown["embedding"]) == ("0", "not computed")  # what is computed and saved is its frames'
    record = json.loads(alone.run("info", "a.avi", "--json").ok().stdout)
    assert (record["pages"], record["frames"]["axis"], record["frame"]) == (20, "T", 0)
    (alone.folder / "b.mp4").write_bytes(b"nothing")
    broken = alone.run("info", "b.mp4")
    assert broken.code == 7
    assert "b.mp4" in broken.stderr
