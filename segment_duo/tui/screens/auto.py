"""Automatic masks: which preset and parameters, then how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from rich.text import Text
from textual.containers import Grid, Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Button, Input, Label, ProgressBar, Select

from segment_duo.parameters import AutoParameters, AutoScale
from segment_duo.text import safe
from segment_duo.tui.screens.dialog import Dialog, line
from segment_duo.tui.screens.field import Field
from segment_duo.tui.state import Addition
from segment_duo.types import Box

if TYPE_CHECKING:
    from segment_duo.engine.protocol import AutoEvent

PRESETS: Mapping[str, str] = {
    "default": "default: upstream's settings, fitted to the model",
    "web": "web: as on the old web page",
    "fine": "fine: small objects, slower",
    "coarse": "coarse: large objects, quick",
}
ADDITIONS: Mapping[Addition, str] = {
    "replace-auto": "replace earlier automatic masks",
    "add": "add to all masks",
    "replace-all": "replace all masks",
}
SCALES: Mapping[str, str] = {
    "whole": "one scale: the picture as a whole",
    "both": "both scales: also windows of the model's own size",
    "all": "all scales: those, and from farther away for large objects",
}
PLACES: Mapping[str, str] = {
    "box": "in the box that is drawn",
    "all": "in the whole image",
    "view": "in this view, and the model sees nothing else",
}
Kind = Literal["integer", "number"]
FIELDS: tuple[tuple[str, str, Kind, float, float, str], ...] = (
    ("points_per_side", "points a side", "integer", 1, 256, "Points of the grid along a side: more find smaller objects."),
    ("pred_iou_thresh", "predicted IoU ≥", "number", 0, 1, "Keep masks that the model rates at least this good."),
    ("stability_score_thresh", "stability ≥", "number", 0, 1, "Keep masks whose edge is at least this sure."),
    ("box_nms_thresh", "overlap (NMS) ≤", "number", 0, 1, "Of two masks that overlap more, keep the better one."),
    ("crop_n_layers", "crop layers", "integer", 0, 4, "Search enlarged crops as well: 1 takes 5 times as long."),
    ("min_mask_region_area", "remove below, px", "integer", 0, 10_000_000, "Fill smaller holes, remove smaller specks."),
    ("tile", "tile, px", "integer", 0, 100_000, "Search tiles of this size, for small objects in a large image; 0: no tiles."),
    ("halo", "halo, px", "integer", 0, 10_000, "How far tiles overlap: more than the largest object."),
)  # fmt: skip
"""Field of :class:`AutoParameters`, label, kind, least and greatest value, what it is for."""
_MEANINGS = {name: meaning for name, *_, meaning in FIELDS} | {
    "scale": "Windows find small objects in a picture that the model shrinks.",
    "where": "Which part of the image is searched.",
    "text": "Words for the object that is looked for; the model takes them.",
    "preset": "A preset fills in the fields below.",
    "addition": "What becomes of the masks that are there.",
    "find": "Starts the search; Escape cancels it.",
    "cancel": "Back to the image.",
}


@dataclass(frozen=True, slots=True)
class AutoChoice:
    parameters: AutoParameters
    addition: Addition
    preset: str
    part: Box | None = None
    """What the model is shown of the image; None for all of it."""


class AutoDialog(Dialog[AutoChoice]):
    """Preset, the parameters that matter most, and what becomes of the masks that are there."""

    DEFAULT_CSS = """
    AutoDialog > #box { width: 72; }
    AutoDialog Select { margin-bottom: 0; }
    AutoDialog SelectCurrent { background: $surface; }
    AutoDialog Grid { grid-size: 4; grid-columns: 17 1fr 17 1fr; grid-rows: 1; grid-gutter: 0 1; height: auto; margin: 1 0; }
    AutoDialog Grid Label { height: 1; color: $text-muted; text-align: right; width: 100%; }
    AutoDialog Grid Input { border: none; height: 1; padding: 0 1; background: $surface; }
    AutoDialog Grid Input:focus { border: none; background: $primary 25%; }
    """

    def __init__(
        self,
        presets: Mapping[str, AutoParameters],
        *,
        has_masks: bool,
        box: Box | None,
        view: Box | None = None,
        advice: str = "",
        takes_text: bool = False,
    ) -> None:
        """Args:
        has_masks: ask what becomes of them.
        box: the one that is drawn.
        view: the part of the image that is shown; None when it is all.
        advice: what to say of the image's scale.
        takes_text: ask for words to look for; the model takes them.
        """
        super().__init__("Find all objects", "Enter starts · Tab goes on · F1 helps · Esc goes back")
        self._presets = presets
        self._has_masks = has_masks
        self._places = {"box": box, "view": view}
        self._advice = advice
        self._takes_text = takes_text
        self._wrong = line("", classes="wrong", id="wrong")
        self._meaning = line("", classes="hint", id="meaning")
        self._filled_from = next(iter(presets))

    def body(self) -> list[Widget]:
        first = self._filled_from
        cells: list[Widget] = []
        for name, label, kind, *_ in FIELDS:
            value = getattr(self._presets[first], name)
            cells += [Label(label), Field(f"{value:g}", type=kind, id=name, select_on_focus=True)]
        widgets: list[Widget] = [
            Select(
                [(text, name) for name, text in PRESETS.items() if name in self._presets],
                value=first,
                allow_blank=False,
                id="preset",
            ),
            Grid(*cells),
            Select(
                [(text, name) for name, text in SCALES.items()],
                value=self._presets[first].scale,
                allow_blank=False,
                id="scale",
            ),
        ]
        if self._takes_text:
            widgets.insert(0, Field(placeholder="what to look for, such as: particle", id="text"))
        if self._has_masks:
            widgets.append(
                Select(
                    [(text, name) for name, text in ADDITIONS.items()],
                    value="replace-auto",
                    allow_blank=False,
                    id="addition",
                )
            )
        places = [(text, name) for name, text in PLACES.items() if name == "all" or self._places[name] is not None]
        if len(places) > 1:
            widgets.append(Select(places, value=places[0][1], allow_blank=False, id="where"))
        if self._advice:
            widgets.append(line(self._advice, classes="hint"))
        widgets += [
            self._meaning,
            self._wrong,
            Horizontal(Button("Find", variant="primary", id="find"), Button("Cancel", id="cancel"), classes="buttons"),
        ]
        return widgets

    HELP = (
        "Points on a grid are tried one by one; what the model rates well enough becomes a mask. A preset fills the fields; each field says "
        "below what it is for while it has the focus. Nothing is lost: u takes all new masks back."
    )

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#find", Button))

    def on_descendant_focus(self) -> None:
        name = (self.focused.id if self.focused else None) or ""
        self._meaning.update(Text(_MEANINGS.get(name, "")))

    def on_select_changed(self, event: Select.Changed) -> None:
        # A new Select reports its first value too, maybe after the user has typed into the fields.
        if event.select.id == "preset" and str(event.value) in self._presets and event.value != self._filled_from:
            self._filled_from = str(event.value)
            parameters = self._presets[self._filled_from]
            for name, *_ in FIELDS:
                self.query_one(f"#{name}", Input).value = f"{getattr(parameters, name):g}"
            self.query_one("#scale", Select).value = parameters.scale

    def on_input_submitted(self) -> None:
        self._start()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "find":
            self._start()
        else:
            self.dismiss(None)

    def _start(self) -> None:
        preset = str(self.query_one("#preset", Select).value)
        values: dict[str, float | int | str | None] = {}
        for name, label, kind, least, greatest, _ in FIELDS:
            text = self.query_one(f"#{name}", Input).value
            try:
                value = int(text) if kind == "integer" else float(text)
            except ValueError:
                value = float("nan")
            if not least <= value <= greatest:
                self._wrong.update(Text(f"{label}: between {least:g} and {greatest:g}, please."))
                self.query_one(f"#{name}", Input).focus()
                return
            values[name] = value
        where = "all"
        for select in self.query("#where").results(Select):
            where = str(select.value)
        for words in self.query("#text").results(Input):
            values["text"] = words.value.strip() or None
        scale = cast(AutoScale, self.query_one("#scale", Select).value)
        region = self._places["box"] if where == "box" else None
        parameters = replace(self._presets[preset], **values, scale=scale, region=region)  # type: ignore[arg-type]
        addition: Addition = "add"
        for select in self.query("#addition").results(Select):
            addition = cast(Addition, select.value)
        self.dismiss(AutoChoice(parameters, addition, preset, self._places["view"] if where == "view" else None))


class AutoProgress(Dialog[bool]):
    """How far the engine is; returns False when the user cancels. The workspace closes it when the masks are there."""

    class Cancel(Message):
        """The user wants no more of it."""

    def __init__(self) -> None:
        super().__init__("Finding all objects", "Esc cancels")
        self._bar = ProgressBar(total=None, show_eta=False, id="bar")
        self._phase = line("asking the engine …", classes="hint", id="phase")

    DEFAULT_CSS = """
    AutoProgress ProgressBar { width: 100%; margin-bottom: 1; }
    AutoProgress Bar { width: 1fr; }
    """

    def body(self) -> list[Widget]:
        return [self._bar, self._phase, Horizontal(Button("Cancel", id="cancel"), classes="buttons")]

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Button))

    def progress(self, event: AutoEvent, masks: int) -> None:
        if event.event == "queued":
            text = f"waiting: {event.position} jobs are before this one"
        else:
            if event.total:
                self._bar.update(total=event.total, progress=event.done)
            text = f"{event.phase or 'working'}  {event.done} of {event.total}" if event.total else event.phase
            text += f" · {masks} masks so far" if masks else ""
        self._phase.update(Text(safe(text)))

    def on_button_pressed(self) -> None:
        self.dismiss(False)

    def action_leave(self) -> None:
        self.dismiss(False)
