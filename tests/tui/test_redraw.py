"""What is sent to the terminal: the cells that differ, and in the end the right picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import CompositorUpdate
from textual.app import RenderableType
from textual.screen import Screen
from textual.strip import Strip

from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.tui.redraw import ShownCells, sent
from segment_duo.tui.screens.ask import TypeLine
from tests.terminal_replay import Replay
from tests.tui_fakes import disc
from tests.tui_pilot import Ui, colours, running

__all__ = ["colours"]
CONSOLE = Console(force_terminal=True, color_system="truecolor", width=200)
STYLES = [None, Style(), Style(color="red"), Style(bgcolor="blue"), Style(color="red", bgcolor="blue", bold=True)]
WIDTH = 12


class Wire:
    """What the app sends, counted and replayed."""

    def __init__(self, ui: Ui, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ui = ui
        self.terminal = Replay(*ui.app.size)
        self.bytes = 0
        monkeypatch.setattr(ui.app, "_display", self._display)
        ui.screen.refresh()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, CompositorUpdate):
            text = renderable.render_segments(CONSOLE)
            self.bytes += len(text.encode())
            self.terminal.feed(text)
        self.ui.app.post_display_hook()

    async def _quiet(self) -> None:
        """All that was asked for has been sent."""
        await self.ui.painted()
        screen = self.ui.app.screen
        await self.ui.until(
            lambda: (
                not (screen._dirty_widgets or screen._repaint_required or screen._layout_required or screen._callbacks)
            )
        )

    async def cost(self, *keys: str) -> int:
        before = self.bytes
        await self.ui.press(*keys)
        await self._quiet()
        return self.bytes - before

    async def assert_shown(self) -> None:
        """The terminal shows what a whole redraw would show."""
        await self._quiet()
        whole = Replay(*self.ui.app.size)
        update = self.ui.app.screen._compositor.render_full_update()
        for y, line in enumerate(update.strips):
            whole.feed(f"\x1b[{y + 1};1H" + "".join(strip.render(CONSOLE) for strip in line))
        differing = [
            (x, y, a, b)
            for y, (left, right) in enumerate(zip(self.terminal.rows, whole.rows, strict=True))
            for x, (a, b) in enumerate(zip(left, right, strict=True))
            if a != b
        ]
        assert not differing, (len(differing), differing[:9])


LINES = st.lists(
    st.tuples(st.sampled_from(["a", " ", "   ", "ab", "▀", "字", "字a字", "e\u0301"]), st.sampled_from(STYLES))
)


def line(parts: list[tuple[str, Style | None]]) -> Strip:
    return Strip([Segment(text, style) for text, style in parts]).adjust_cell_length(WIDTH)


@given(st.lists(st.tuples(LINES, st.integers(0, WIDTH), st.integers(0, WIDTH)), max_size=6), LINES)
def test_spans_leave_what_a_whole_redraw_leaves(
    changes: list[tuple[list[tuple[str, Style | None]], int, int]], before: list[tuple[str, Style | None]]
) -> None:
    shown, terminal = ShownCells(), Replay(WIDTH + 2, 1)
    first = line(before)
    shown.renew([[Strip([Segment("> ")]), first]], 0)
    terminal.feed("\x1b[1;1H> " + first.render(CONSOLE))
    for parts, a, b in changes:
        new, (start, end) = line(parts), sorted((a, b))
        # Only the span may differ from what was there, as with a widget that refreshes it.
        cells = [*first.crop(0, start), *new.crop(start, end), *first.crop(end, WIDTH)]
        first = Strip(cells).adjust_cell_length(WIDTH)
        terminal.feed(sent(shown.changes(first, 2, 0, 2 + start, 2 + end), CONSOLE))
        assert terminal.rows == Replay(WIDTH + 2, 1).feed("\x1b[1;1H> " + first.render(CONSOLE)).rows


def test_only_what_differs_is_sent() -> None:
    shown, red = ShownCells(), Style(color="red")
    shown.renew([[Strip([Segment("x 639  grey 81", red)])]], 3)
    changed = shown.changes(Strip([Segment("x 640  grey 81", red)]), 0, 3, 0, 14)
    assert sent(changed, CONSOLE) == "\x1b[4;4H\x1b[31m40\x1b[0m"
    assert shown.changes(Strip([Segment("x 640  grey 81", red)]), 0, 3, 0, 14) == []
    # A space has no colour of its own.
    assert shown.changes(Strip([Segment("x 640", red), Segment("  "), Segment("grey 81", red)]), 0, 3, 0, 14) == []


def test_a_row_of_which_nothing_is_known_is_sent() -> None:
    shown = ShownCells()
    assert sent(shown.changes(Strip([Segment("abcd")]), 5, 0, 6, 8), CONSOLE) == "\x1b[1;7Hbc"
    # The two between were sent; a jump over them would cost more.
    assert sent(shown.changes(Strip([Segment("abcd")]), 5, 0, 5, 9), CONSOLE) == "\x1b[1;6Habcd"


async def test_moves_and_strokes_send_the_cells_that_they_touch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, size=(160, 50)) as ui:
        wire = Wire(ui, monkeypatch)
        await wire.cost("z", "z")  # no loupe
        await wire.cost("right")
        assert 0 < await wire.cost("right") < 900
        assert 0 < await wire.cost("down") < 900
        await wire.cost("B", "space")
        await wire.cost("shift+right")
        assert 0 < await wire.cost("space") < 900
        assert await wire.cost("space") == 0  # there is nothing to add
        await wire.cost("enter", "down")
        assert 0 < await wire.cost("down") < 1500
        await wire.assert_shown()


@pytest.mark.parametrize("method", [Method.HALFCELL, Method.OCTANT, Method.KITTY])
async def test_the_terminal_shows_what_a_whole_redraw_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    async with running(tmp_path, terminal=Terminal(method)) as ui:
        ui.work.doc.loaded([disc(160, 240, 60 + 40 * i, 80, 15, id=i) for i in range(3)], "0")
        ui.work.show_document()
        await ui.painted()
        wire = Wire(ui, monkeypatch)
        for keys in (
            ("right", "right", "down", "shift+right", "z", "up"),
            ("n", "t", "n", "t", "d", "u"),
            ("plus", "plus", "right", "shift+down", "H", "0"),
            ("e", "space", "enter", "down", "down", "right", "enter", "escape"),
            ("h", "h", "i", "c", "number_sign", "X", "right", "X"),
            ("f1",), ("escape",), ("right", "F", "left", "F", "tab"),
        ):  # fmt: skip
            await wire.cost(*keys)
            await wire.assert_shown()
        await ui.press("l")
        await ui.dialog(TypeLine)
        await wire.assert_shown()
        await ui.press("字", "x", "y", "enter")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert "字xy" in ui.text()
        await wire.assert_shown()
        for keys in (("n",), ("n", "right"), ("N", "left"), ("V", "V"), ("u",)):
            await wire.cost(*keys)
            await wire.assert_shown()
        await ui.pilot.resize_terminal(90, 30)
        wire.terminal = Replay(90, 30)
        ui.screen.refresh()
        await wire.cost("right")
        await wire.assert_shown()


async def test_an_open_dialog_sends_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, size=(160, 50)) as ui:
        await ui.press("g")
        await ui.dialog(TypeLine)
        wire = Wire(ui, monkeypatch)
        ui.app.screen.refresh()
        await wire.cost("1")
        asked: list[int] = []
        status = ui.session.engine_status
        monkeypatch.setattr(ui.session, "engine_status", lambda: (asked.append(1), status())[1])
        ui.screen.engine.ask_status()
        assert 0 < await wire.cost("2") < 400
        assert not asked
        await wire.assert_shown()
        await ui.press("escape")
        await ui.until(lambda: ui.app.screen is ui.screen)
        ui.screen.engine.ask_status()
        await ui.until(lambda: asked)
