"""Asks which masks to show: by size, score and label."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button, Label

from segment_duo.tui.listing import SizeFilter
from segment_duo.tui.screens.dialog import Dialog, line
from segment_duo.tui.screens.field import Field
from segment_duo.tui.wording import counted
from segment_duo.types import Mask


class SizeFilterDialog(Dialog[SizeFilter]):
    """Empty fields mean no bound."""

    DEFAULT_CSS = """
    SizeFilterDialog .pair { height: 1; margin-bottom: 1; }
    SizeFilterDialog .pair Label { width: 12; }
    SizeFilterDialog .pair Input { width: 1fr; border: none; height: 1; padding: 0 1; }
    SizeFilterDialog .pair Input:focus { border: none; background: $primary 25%; }
    """

    def __init__(self, now: SizeFilter, masks: Sequence[Mask]) -> None:
        super().__init__("Show only some masks", "Enter applies · Esc goes back")
        self._smallest = Field(_text(now.smallest), type="integer", placeholder="no bound", id="smallest")
        self._largest = Field(_text(now.largest), type="integer", placeholder="no bound", id="largest")
        self._iou = Field(_text(now.iou_most), type="number", placeholder="no bound", id="iou")
        self._label = Field(now.label, placeholder="any", id="label")
        self._masks = tuple(masks)
        self._count = line("", classes="hint")

    def body(self) -> list[Widget]:
        areas = [mask.area for mask in self._masks]
        span = f"{min(areas):,} to {max(areas):,} px" if areas else "none yet"
        return [
            line(f"Area in pixels; the masks here have {span}.", classes="text"),
            Horizontal(Label("at least"), self._smallest, classes="pair"),
            Horizontal(Label("at most"), self._largest, classes="pair"),
            Horizontal(Label("IoU at most"), self._iou, classes="pair"),
            Horizontal(Label("label has"), self._label, classes="pair"),
            self._count,
            Horizontal(Button("Apply", variant="primary", id="apply"), Button("Show all", id="all"), classes="buttons"),
        ]

    def on_mount(self) -> None:
        self.set_focus(self._smallest)
        self.on_input_changed()

    def on_input_changed(self) -> None:
        bounds = self._bounds()
        shown = sum(map(bounds.accepts, self._masks))
        self._count.update(Text(f"{shown} of {counted(len(self._masks), 'mask')}"))

    def on_input_submitted(self) -> None:
        self.dismiss(self._bounds())

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(self._bounds() if event.button.id == "apply" else SizeFilter())

    def _bounds(self) -> SizeFilter:
        iou = _number(self._iou.value)
        return SizeFilter(_whole(self._smallest.value), _whole(self._largest.value), iou, self._label.value.strip())


def _text(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}" if isinstance(bound, float) else str(bound)


def _whole(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
