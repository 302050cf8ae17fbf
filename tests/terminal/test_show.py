"""`segduo show` and the printing of pictures without a UI."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from segment_duo.cli import show, tui
from segment_duo.config import load_config
from segment_duo.errors import NotFound, UsageError
from segment_duo.session import Session
from segment_duo.terminal.still import RAMP, render_still
from tests.tui_fakes import disc, micrograph


@pytest.fixture
def image(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGDUO_HOME", str(empty_home / "segduo"))
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    path = empty_home / "discs.png"
    Image.fromarray(micrograph(80, 160)).save(path)
    return path


def run(*arguments: str) -> str:
    app = typer.Typer()
    show.register(app, panel="Look")
    tui.register(app, panel="Look")
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_pipe_gets_characters(image: Path) -> None:
    lines = run("show", str(image), "--width", "40").splitlines()
    assert len(lines) == 10
    assert max(len(line) for line in lines) <= 40
    assert set("".join(lines)) <= set(RAMP)
    # A bright disc is at column 10 (x 40), ground at column 20 (x 80).
    assert RAMP.index(lines[5][10]) > RAMP.index(lines[5][20])


def test_asked_for_graphics_are_given_in_a_pipe_too(image: Path) -> None:
    half = run("show", str(image), "-w", "40", "--graphics", "halfcell")
    assert re.search("\x1b\\[38;2;\\d+;\\d+;\\d+;48;2;\\d+;\\d+;\\d+m▀", half)
    assert half.count("\n") == 10
    kitty = run("show", str(image), "-w", "40", "--graphics", "kitty")
    assert kitty.startswith("\x1b_Ga=t,f=100")
    assert "\U0010eeee" in kitty
    sixel = run("show", str(image), "-w", "40", "--graphics", "sixel")
    assert sixel.startswith("\x1bP")


def test_no_color_wins(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("show", str(image), "-w", "40", "--graphics", "halfcell")


def test_masks_are_drawn(image: Path) -> None:
    with pytest.raises(NotFound):
        run("show", str(image), "--masks")
    session = Session(load_config({}))
    opened = session.open_image(session.reference(str(image)))
    session.save(opened, [disc(80, 160, 40, 40, 20)], operation="test")
    plain = run("show", str(image), "-w", "40", "-g", "halfcell")
    assert "0;200;140" not in plain
    green = "48;2;0;200;140"
    assert green in run("show", str(image), "--masks", "-w", "40", "-g", "halfcell")
    assert green in run("show", f"{image}@0", "-w", "40", "-g", "halfcell")


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3)])
def test_odd_shapes(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    text = render_still(np.full((*shape, 3), 200, np.uint8), ())
    assert 1 <= text.count("\n") <= 22


def test_tui_needs_a_terminal(image: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run("tui", str(image))
    assert "segduo auto" in caught.value.hint


def test_help_says_which_terminal_gives_which_picture(image: Path) -> None:
    text = run("tui", "--help")
    assert all(name in text for name in ("kitty", "sixel", "half cells", "--graphics"))
