"""Rulers above and beside the picture: image coordinates, and a mark at the cross-hair. Text only, so they cost next to nothing."""

from __future__ import annotations

from typing import Literal

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from segment_duo.terminal.viewport import Viewport

_STEPS = (1, 2, 5)


class Ruler(Widget, can_focus=False):
    """One ruler. ``side``: ``top`` shows x, ``left`` shows y."""

    DEFAULT_CSS = """
    Ruler { background: $surface; color: $text-muted; }
    Ruler.-top { height: 1; width: 1fr; padding-left: 1; }
    Ruler.-left { width: 1; height: 1fr; }
    """
    COMPONENT_CLASSES = {"ruler--mark"}  # noqa: RUF012 - Textual's convention
    DEFAULT_CSS += "Ruler .ruler--mark { color: $accent; text-style: bold; }"

    def __init__(self, side: Literal["top", "left"]) -> None:
        super().__init__(classes=f"-{side}", id=f"ruler-{side}")
        self._top = side == "top"
        self._view: Viewport | None = None
        self._at: tuple[int, int] | None = None

    def point_at(self, view: Viewport | None, at: tuple[int, int] | None) -> None:
        if (view, at) == (self._view, self._at):
            return
        before, same_view = self._mark_row(), view == self._view
        self._view, self._at = view, at
        if self._top or not same_view:
            self.refresh()
        elif before != self._mark_row():
            self.refresh(*(Region(0, row, 1, 1) for row in (before, self._mark_row()) if row is not None))

    def _mark_row(self) -> int | None:
        """Where the mark of a ruler at the side is."""
        return None if self._view is None or self._at is None else int(self._view.to_cell(*self._at)[1])

    def render_line(self, y: int) -> Strip:
        plain, mark = self.rich_style, self.get_component_rich_style("ruler--mark")
        view = self._view
        if view is None:
            return Strip.blank(self.size.width, plain)
        if self._top:
            return self._top_line(view, plain, mark)
        here = self._mark_row()
        first = view.to_image(0, y)[1]
        last = view.to_image(0, y + 1)[1]
        tick = _tick(view.scale * view.cell_height * 5)
        sign = "▶" if y == here else "╴" if int((first + 0.5) // tick) != int((last + 0.5) // tick) else " "
        return Strip([Segment(sign, mark if y == here else plain)], 1)

    def _top_line(self, view: Viewport, plain: Style, mark: Style) -> Strip:
        width = self.size.width
        here = None if self._at is None else int(view.to_cell(*self._at)[0])
        signs = numbers(view, here, width)
        if here is None or not 0 <= here < width:
            return Strip([Segment("".join(signs), plain)], width)
        parts = [Segment("".join(signs[:here]), plain), Segment("▼", mark), Segment("".join(signs[here + 1 :]), plain)]
        return Strip(parts, width)


def _tick(at_least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not below ``at_least``."""
    power = 1
    while True:
        for step in _STEPS:
            if step * power >= at_least:
                return step * power
        power *= 10


def numbers(view: Viewport, here: int | None, width: int) -> list[str]:
    """The signs of a ruler of x, one a cell. A number is shown whole or not at all: neither the next one nor the mark at column ``here`` cuts it."""
    signs = [" "] * width
    tick = _tick(view.scale * view.cell_width * 12)
    x0, _, x1, _ = view.visible()
    value, free = int(x0 // tick) * tick, 0
    while value <= x1:
        column = int(view.to_cell(value, 0)[0])
        text = f"╷{value}"
        if here is not None and column < here <= column + len(text):
            text = "╷"
        if column >= free and column + len(text) < width:
            free = column + len(text) + 1
            signs[column : column + len(text)] = text
        value += tick
    return signs
