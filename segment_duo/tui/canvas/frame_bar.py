"""The bar under the picture of a stack or film: which frame this is, which have masks, on which one pointed at objects. A click goes there."""

from __future__ import annotations

from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from segment_duo.tui.timeline import Place, Timeline

_LEAST = 8
"""Columns that the bar needs to be of any use; without them the text stands alone."""


class FrameBar(Widget, can_focus=False):
    """One line: the frame in words, the frames from left to right, and what goes on."""

    COMPONENT_CLASSES = {f"frame-bar--{name}" for name in ("empty", "filled", "new", "asked", "open")}  # noqa: RUF012 - Textual's convention
    DEFAULT_CSS = """
    FrameBar { display: none; height: 1; width: 1fr; background: $surface; color: $foreground; }
    FrameBar.-on { display: block; }
    FrameBar .frame-bar--empty { color: $border; }
    FrameBar .frame-bar--filled { color: $primary; }
    FrameBar .frame-bar--new { color: $success; }
    FrameBar .frame-bar--asked { color: $accent; }
    FrameBar .frame-bar--open { color: $warning; text-style: bold; }
    """

    class Chosen(Message):
        """A frame was clicked."""

        def __init__(self, frame: int) -> None:
            super().__init__()
            self.frame = frame

    def __init__(self) -> None:
        super().__init__(id="frame-bar")
        self._timeline: Timeline | None = None
        self._doing = ""
        self._first = 0
        self._places: list[Place] = []

    def show(self, timeline: Timeline | None, doing: str = "") -> None:
        """Show where one is; ``doing``: what goes on, in a few words. None hides the bar."""
        self._timeline, self._doing = timeline, doing
        self.set_class(timeline is not None, "-on")
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, plain = self.size.width, self.rich_style
        if self._timeline is None or y:
            return Strip.blank(width, plain)
        head = f" {self._timeline.text()}  "
        tail = f"  {self._doing} " if self._doing else " "
        room = width - len(head) - len(tail)
        self._first = len(head)
        self._places = self._timeline.bar(room) if room >= _LEAST else []
        signs = [
            (sign(place, before), self._ink(place))
            for before, place in zip([None, *self._places], self._places, strict=False)
        ]
        parts = [Segment(head, plain)]
        for ink, group in groupby(signs, key=lambda item: item[1]):
            parts.append(Segment("".join(text for text, _ in group), ink))
        parts.append(Segment(tail, plain + self.get_component_rich_style("frame-bar--new", partial=True)))
        return Strip(parts).adjust_cell_length(width, plain)

    def _ink(self, place: Place) -> Style:
        name = (
            "open"
            if place.open
            else "asked"
            if place.asked
            else "new"
            if place.new
            else "filled"
            if place.filled
            else "empty"
        )
        ink = self.rich_style + self.get_component_rich_style(f"frame-bar--{name}", partial=True)
        return ink + Style(reverse=True) if place.here else ink

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        column = -1 if offset is None else offset.x - self._first
        if 0 <= column < len(self._places):
            self.post_message(self.Chosen(self._places[column].first))


def sign(place: Place, before: Place | None) -> str:
    """The sign of a column; a frame over several columns has its mark in the first of them. Shapes tell what colours tell."""
    if place.asked and (before is None or before.first != place.first):
        return "◆"
    return "━" if place.filled else "─"
