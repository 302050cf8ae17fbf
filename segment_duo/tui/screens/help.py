"""All keys, made from the table of commands and the user's own bindings."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from segment_duo.tui.keys import help_rows
from segment_duo.tui.screens.dialog import Dialog

INTRODUCTION = (
    "Move the cross-hair to an object, press Space: the mask appears. More points refine it (Space includes, x excludes), Enter keeps it. "
    "a finds all objects at once. s saves. "
    "With a mouse: click moves the cross-hair, Shift+click adds a point (right button: exclude), drag pans, the wheel zooms."
)


class HelpScreen(Dialog[None]):
    DEFAULT_CSS = """
    HelpScreen > #box { width: 84; height: 90%; }
    HelpScreen VerticalScroll { height: 1fr; }
    """
    BINDINGS = [("f1,question_mark,q", "leave", "Back")]  # noqa: RUF012 - Textual's convention

    def __init__(self, keymap: Mapping[str, str], picture: str, first: str, classes: Mapping[str, str]) -> None:
        """``picture``: how pictures are shown here, for the last line; ``first``: the group of the pane in focus; ``classes``: key -> name."""
        super().__init__("Help", "↑ ↓ scroll · Esc goes back")
        self._first = first
        self._named = classes
        self._keymap = keymap
        self._picture = picture

    def body(self) -> list[Widget]:
        text = Text(INTRODUCTION + "\n")
        for group, rows in sorted(help_rows(self._keymap, self._named), key=lambda item: item[0] != self._first):
            text.append(f"\n{group}\n", "bold")
            for keys, meaning in rows:
                text.append(f"  {keys:<18}", self.app.theme_variables["accent"])
                text.append(f" {meaning}\n")
        text.append(f"\nPictures here: {self._picture}. Keys can be changed in config.toml, table [keys].\n", "dim")
        return [VerticalScroll(Static(text, markup=False), can_focus=True, id="help")]

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#help"))
