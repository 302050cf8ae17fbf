"""A session at the keyboard, in a real terminal: correct a set with known faults, label, save, go on. `docs/tui.md` has its figures.

The faults are those that automatic masks make, put into the truth of `examples/particles.tif`: an ellipse in three pieces, two particles in one
mask, a spur. No engine takes part, so the session is the same with any weights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from scipy import ndimage

from segment_duo.config import load_config
from segment_duo.masks.rle import decode
from segment_duo.paths import Paths
from segment_duo.session import Session
from tests.tui.test_real import Terminal, terminal, without_engine

__all__ = ["terminal"]
pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.timeout(600),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
ELLIPSE, PAIR, SPURRED = 1, (16, 30), 5

Bits = npt.NDArray[np.bool_]


def faulty(truth: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """The truth with the three faults; new pieces have new values."""
    labels = truth.copy()
    _, columns = np.nonzero(truth == ELLIPSE)
    for number, (low, high) in enumerate([(0.33, 0.345), (0.66, 0.675)]):
        first, last = (int(columns.min() + share * np.ptp(columns)) for share in (low, high))
        labels[:, first:last][truth[:, first:last] == ELLIPSE] = 0
        labels[:, last:][truth[:, last:] == ELLIPSE] = 200 + number
    both = np.isin(truth, PAIR)
    joined = ndimage.binary_closing(both, iterations=3)
    labels[(joined | both) & ((truth == 0) | both)] = PAIR[0]
    row = int(np.nonzero(truth == SPURRED)[0].mean())
    edge = int(np.nonzero((truth == SPURRED)[row])[0].max())
    labels[row - 4 : row + 4, edge - 2 : edge + 50][labels[row - 4 : row + 4, edge - 2 : edge + 50] == 0] = SPURRED
    return labels


def middle(bits: Bits) -> str:
    """A pixel inside, as g takes it."""
    depth = ndimage.distance_transform_edt(bits)
    y, x = np.unravel_index(int(depth.argmax()), bits.shape)
    return f"{x},{y}"


def overlap(a: Bits, b: Bits) -> float:
    return float((a & b).sum() / (a | b).sum())


class Keyboard:
    """Types into a terminal and counts the keys."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.keys = 0

    def press(self, *keys: str, until: str) -> None:
        self.terminal.press(*keys)
        self.keys += len(keys)
        self.terminal.until(until)

    def go(self, at: str) -> None:
        x, y = at.split(",")
        self.press("g", until="Go to")
        self.press(*at, "Enter", until=rf"x +{x}  y +{y}\b")

    def take(self, at: str, selected: int = 1) -> None:
        """Make the mask at a pixel the current one, and select it."""
        self.go(at)
        self.press("Enter", until=f"{selected} selected")


def test_correct_label_save_and_go_on(terminal: Terminal, tmp_path: Path) -> None:
    terminal._size = (160, 50)
    without_engine(terminal, tmp_path)
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("particles.tif", "grains.png"):
        shutil.copy(EXAMPLES / name, folder)
    truth = tifffile.imread(EXAMPLES / "particles_labels.tif")
    broken = faulty(truth)
    tifffile.imwrite(tmp_path / "faulty.tif", broken)
    home = Path(terminal._environment["SEGDUO_HOME"])
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('[classes.precipitate]\n[classes.pore]\nkey = "2"\n')
    imported = [
        sys.executable,
        "-m",
        "segment_duo.cli.main",
        "masks",
        "import",
        "particles.tif",
        str(tmp_path / "faulty.tif"),
    ]
    environment = {**terminal._environment, "PATH": "/usr/bin:/bin"}
    subprocess.run(imported, cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    pieces = [middle(broken == value) for value in (ELLIPSE, 200, 201)]
    # Each step as a user takes it: what is typed, and what the screen then says.
    terminal.start("tui", str(folder / "particles.tif"), str(folder / "grains.png"))
    terminal.until("2 of 2, 1 done")
    user = Keyboard(terminal)
    user.press("[", until=r"─masks \d\d")  # the queue began with the image that has no masks
    began = time.monotonic()
    for number, at in enumerate(pieces, 1):
        user.take(at, number)
    user.press("j", until="merged")
    user.press("G", "M", until="smoothed")
    user.press("T", until=r"─masks \d+─")
    user.take(middle(broken == PAIR[0]))
    user.press("W", until="in 2 parts")
    user.press("Enter", until="is now 2 masks")
    user.press("T", until=r"─masks \d+─")
    user.take(middle(truth == SPURRED))
    row = int(np.nonzero(truth == SPURRED)[0].mean())
    edge = int(np.nonzero((truth == SPURRED)[row])[0].max())
    user.press("E", until="eraser 8 px")
    user.press(".", ".", ".", until="eraser 24 px")
    for right in (13, 30, 46):
        user.go(f"{edge + right},{row}")
        user.press("Space", until=r"px\. u takes the stroke back")
    user.press("Escape", until="Back to pointing")
    user.press("2", until="pore: mask")
    user.press("T", until=r"─masks \d+─")
    user.take(pieces[0])
    user.press("1", until="precipitate: mask")
    user.press("s", until="Saved [0-9]+ masks")
    user.press("]", until="grains")
    seconds = time.monotonic() - began
    user.press("q", until="EXIT=0")
    session = Session(load_config({}, paths=Paths(home / "config", home / "data", home / "cache", home / "state")))
    masks = session.sets.load(session.reference(str(folder / "particles.tif"))).mask_set.masks
    found = [decode(mask.rle) for mask in masks]
    concerned = (ELLIPSE, *PAIR, SPURRED)
    before = [max(overlap(broken == value, truth == number) for value in np.unique(broken)[1:]) for number in concerned]
    after = [max(overlap(bits, truth == number) for bits in found) for number in concerned]
    assert len(masks) == len(np.unique(truth)) - 1
    assert sorted(mask.label for mask in masks if mask.label) == ["pore", "precipitate"]
    assert min(before) < 0.4
    assert min(after) > 0.94
    assert user.keys < 150
    sys.stderr.write(f"{user.keys} keys, {seconds:.0f} s, IoU before {before} after {after}\n")
