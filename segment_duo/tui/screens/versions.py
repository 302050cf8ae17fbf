"""Choose a saved version of the image."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from rich.text import Text
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from segment_duo.text import safe
from segment_duo.tui.ports import ListedSetPort
from segment_duo.tui.screens.dialog import Dialog, line
from segment_duo.tui.wording import counted, middle_cut


class VersionPicker(Dialog[str]):
    """Newest first; returns the version's name."""

    DEFAULT_CSS = """
    VersionPicker > #box { width: 90; }
    VersionPicker OptionList { height: auto; max-height: 14; background: $surface; border: none; padding: 0; }
    VersionPicker OptionList:focus { border: none; }
    """

    def __init__(self, found: Sequence[ListedSetPort], current: str | None) -> None:
        super().__init__("Saved versions", "Enter loads · Esc goes back")
        self._found = sorted(found, key=lambda item: (item.version.modified, item.version.number), reverse=True)
        self._current = current

    def body(self) -> list[Widget]:
        if not self._found:
            return [line("There are none yet. s saves the masks as the first one.", classes="text")]
        return [OptionList(*(self._option(item) for item in self._found), id="versions", markup=False)]

    def on_mount(self) -> None:
        for choices in self.query(OptionList):
            self.set_focus(choices)
            names = [item.version.name for item in self._found]
            choices.highlighted = names.index(self._current) if self._current in names else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._found[event.option_index].version.name)

    def _option(self, item: ListedSetPort) -> Option:
        version = item.version
        when = datetime.datetime.fromtimestamp(version.modified).strftime("%Y-%m-%d %H:%M")
        text = Text(f"{middle_cut(safe(version.name), 12):<13}{when}  ", no_wrap=True)
        if item.peek is None:
            text.append(safe(item.notice), "italic")
            return Option(text)
        made = item.peek.provenance
        models = made.models or ((made.model.id,) if made.model else ())
        frames = item.peek.frames
        what = counted(item.peek.count, "mask" if frames is None else "object")
        if frames is not None:
            what += f", {counted(frames, 'frame')}"
        text.append(f"{what:>10}  ")
        text.append(safe(" ".join((made.operation, *models))).ljust(13))
        if version.name == self._current:
            text.append("  shown now", "bold")
        elif item.belongs is False and frames is None:
            text.append("  of another image", "italic")
        return Option(text)
