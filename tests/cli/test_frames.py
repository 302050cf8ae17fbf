"""``IMAGE --frame``: a frame of a stack or film, or a file of a folder, is an image of its own in every command."""

from __future__ import annotations

import csv
import io
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
    planes = np.stack([np.stack([draw_discs(t).astype(np.uint16) * (t + 1), draw_discs(t) // 4]) for t in range(TIMES)])
    file = folder / name
    tifffile.imwrite(file, planes.astype(np.uint16), imagej=True, metadata={"axes": "TZYX", "finterval": 0.5})
    return file


def test_a_frame_is_the_same_picture_as_its_page(shell: Shell) -> None:
    hyperstack(shell.folder)
    by_frame = shell.run("embed", "film.tif", "--frame", "1:4:2", "--json").ok()
    frames = [line for line in map(__import__("json").loads, by_frame.lines)]
    assert [(one["image"].rsplit("/", 1)[-1], one["frame"]) for one in frames] == [("film.tif", 1), ("film.tif", 3)]
    pages = [shell.run("embed", "film.tif", "--page", 2 * time, "--json").ok().json for time in (1, 3)]
    assert [one["id"] for one in frames] == [one["id"] for one in pages]
    assert [one["computed"] for one in pages] == [False, False]
    assert "frame" not in pages[0]
