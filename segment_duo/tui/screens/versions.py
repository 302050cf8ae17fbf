"""Choose a saved version of the image."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from rich.text import Text
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from segment_duo.text import safe
from segment_duo.tui.screens.dialog import Dialog, line
from segment_duo.types import Version


class VersionPicker(Dialog[str]):
    """Newest first; returns the version's name."""

    DEFAULT_CSS = """
    VersionPicker > #box { width: 74; }
    VersionPicker OptionList { height: auto; max-height: 14; background: $surface; border: none; padding: 0; }
    VersionPicker OptionList:focus { border: none; }
    """

    def __init__(self, versions: Sequence[Version], current: str | None) -> None:
        super().__init__("Saved versions", "Enter loads · Esc goes back")
        self._versions = sorted(versions, key=lambda version: (version.modified, version.number), reverse=True)
        self._current = current

    def body(self) -> list[Widget]:
        if not self._versions:
            return [line("There are none yet. s saves the masks as the first one.", classes="text")]
        return [OptionList(*(self._option(version) for version in self._versions), id="versions", markup=False)]

    def on_mount(self) -> None:
        for choices in self.query(OptionList):
            self.set_focus(choices)
            names = [version.name for version in self._versions]
            choices.highlighted = names.index(self._current) if self._current in names else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._versions[event.option_index].name)

    def _option(self, version: Version) -> Option:
        when = datetime.datetime.fromtimestamp(version.modified).strftime("%Y-%m-%d %H:%M")
        text = Text(
            f"{safe(version.name, limit=20):<21} {when}  {max(1, round(version.size / 1024)):>6,} kB", no_wrap=True
        )
        if version.name == self._current:
            text.append("   shown now", "dim")
        return Option(text)
