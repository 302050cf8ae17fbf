"""Asks which sizes of masks to show."""

from __future__ import annotations

from rich.text import Text
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button, Input, Label

from segment_duo.tui.screens.dialog import Dialog, line
from segment_duo.tui.state import SizeFilter
from segment_duo.tui.wording import counted


class SizeFilterDialog(Dialog[SizeFilter]):
    """Two bounds of the area; empty fields mean no bound."""

    DEFAULT_CSS = """
    SizeFilterDialog .pair { height: 3; }
    SizeFilterDialog .pair Label { width: 12; padding: 1 0; }
    SizeFilterDialog .pair Input { width: 1fr; }
    """

    def __init__(self, now: SizeFilter, areas: tuple[int, ...]) -> None:
        super().__init__("Show masks by size", "Enter applies · Esc goes back")
        self._smallest = Input(_text(now.smallest), type="integer", placeholder="no bound", id="smallest")
        self._largest = Input(_text(now.largest), type="integer", placeholder="no bound", id="largest")
        self._areas = areas
        self._count = line("", classes="hint")

    def body(self) -> list[Widget]:
        span = f"{min(self._areas):,} to {max(self._areas):,} px" if self._areas else "none yet"
        return [
            line(f"Area in pixels; the masks here have {span}.", classes="text"),
            Horizontal(Label("at least"), self._smallest, classes="pair"),
            Horizontal(Label("at most"), self._largest, classes="pair"),
            self._count,
            Horizontal(Button("Apply", variant="primary", id="apply"), Button("Show all", id="all"), classes="buttons"),
        ]

    def on_mount(self) -> None:
        self.set_focus(self._smallest)
        self.on_input_changed()

    def on_input_changed(self) -> None:
        bounds = self._bounds()
        low = 0 if bounds.smallest is None else bounds.smallest
        high = float("inf") if bounds.largest is None else bounds.largest
        shown = sum(low <= area <= high for area in self._areas)
        self._count.update(Text(f"{shown} of {counted(len(self._areas), 'mask')}"))

    def on_input_submitted(self) -> None:
        self.dismiss(self._bounds())

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(self._bounds() if event.button.id == "apply" else SizeFilter())

    def _bounds(self) -> SizeFilter:
        return SizeFilter(_number(self._smallest.value), _number(self._largest.value))


def _text(bound: int | None) -> str:
    return "" if bound is None else str(bound)


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
