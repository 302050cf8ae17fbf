"""A film in the terminal UI, in a real terminal over a real engine: point, follow, correct, follow again, leave, and open it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.models import known
from tests.tracking.films import growing, write_stack
from tests.tui.test_real import Terminal, terminal

__all__ = ["terminal"]
pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.skipif(not (known.NANO_DIR / "nano.pt").is_file(), reason="the nano weights are not here"),
    pytest.mark.timeout(600),
]


def go_to(terminal: Terminal, x: int, y: int) -> None:
    terminal.press("g")
    terminal.until("Go to")
    terminal.press(f"{x},{y}", "Enter")
    terminal.until(rf"x +{x}  y +{y} ")


def test_follow_correct_and_open_again(terminal: Terminal, tmp_path: Path) -> None:
    pictures, _ = growing(4)
    film = write_stack(tmp_path / "images" / "film.tif", pictures)
    terminal.start("tui", str(film), "--model", "nano")
    terminal.until("engine ready")
    terminal.until("frame 0 of 0–3 ")  # the bar, while the page is still a page
    terminal.press(".")
    terminal.until("frame 1 of 0–3  0.5 s │")
    go_to(terminal, 66, 34)
    terminal.press("Space")
    terminal.until("candidate 1 of")
    terminal.press("Enter")
    terminal.until("Mask 1 kept")
    terminal.press("F7")
    terminal.until("Follow 1 object as pointed at on frame 1")
    terminal.press("Down", "Down", "Enter")  # both ways
    terminal.until("Version 0: 1 object in 4 frames")

    terminal.press(".")
    terminal.until("frame 2 of 0–3  1 s │")
    go_to(terminal, 24, 30)
    terminal.press("Space")
    terminal.until("candidate 1 of")
    terminal.press("Enter")
    terminal.until("Mask 2 kept")
    terminal.press("F7")
    terminal.until("Follow 1 object as pointed at on frame 2")
    terminal.press("Enter")
    terminal.until("Version 1: 2 objects in 4 frames")
    terminal.press("q")
    terminal.until("EXIT=0")

    saved = (tmp_path / "images" / "masks").iterdir()
    assert sorted(file.name for file in saved) == ["film.pkl", "film_1.pkl"]
    with (
        SequenceSet.open(tmp_path / "images/masks/film.pkl") as first,
        SequenceSet.open(tmp_path / "images/masks/film_1.pkl") as second,
    ):
        assert second.head.provenance.parent == "0"
        for frame in range(4):
            before = {mask.id: mask.rle for mask in first.frame(frame).masks}
            after = {mask.id: mask.rle for mask in second.frame(frame).masks}
            assert before.keys() <= {1}
            assert {one: shape for one, shape in after.items() if one == 1} == before
        assert [mask.id for mask in second.frame(1).masks] == [1]
        assert 2 in {mask.id for mask in second.frame(2).masks}

    terminal.start("tui", str(film), "--model", "nano")
    terminal.until("Version 1: 2 objects on ")
    terminal.press(".", ".")
    terminal.until("frame 2 of 0–3  1 s │")
    terminal.press("q")
    terminal.until("EXIT=0")
