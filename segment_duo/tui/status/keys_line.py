"""The footer: the keys that work now, the most useful first, as many as fit. A click does what the key does."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text
from textual import events
from textual.app import RenderResult
from textual.widgets import Static

from segment_duo.tui.explorer.explorer import FolderList
from segment_duo.tui.keys import COMMANDS, Command, footer_key, target
from segment_duo.tui.masks.mask_list import MaskList

_ALWAYS = ("undo", "help", "quit", "quit-anyway")


class KeysLine(Static):
    DEFAULT_CSS = """
    KeysLine { height: 1; padding: 0 1; background: $panel; }
    """

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._spans: list[tuple[int, int, Command]] = []
        self._shown: list[tuple[Command, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self._renew())

    def _pointing(self) -> bool:
        return bool(self.screen.check_action("drop", ()))

    def commands(self) -> list[Command]:
        """What works now, in the table's order."""
        focused = self.screen.focused
        explorer, masks = isinstance(focused, FolderList), isinstance(focused, MaskList)
        here = "explorer" if explorer else "masks" if masks else "canvas"
        found = []
        for command in COMMANDS:
            works = command.place in ("anywhere", here) or (command.place == "workspace" and not explorer)
            if command.id == "accept" and not self._pointing():
                continue
            # q narrows the list there; Ctrl+Q works everywhere.
            shown = command.footer or (explorer and command.id == "quit-anyway")
            name, _, argument = command.action.partition("(")
            if works and shown and self.screen.check_action(name, (argument.rstrip(")"),)):
                found.append(command)
        return found

    def _renew(self) -> None:
        if self._named() != self._shown:
            self.refresh()

    def _named(self) -> list[tuple[Command, str]]:
        instead: Mapping[str, str] = getattr(self.screen, "footer_titles", {})
        return [(command, instead.get(command.id, command.title)) for command in self.commands()]

    def render(self) -> RenderResult:
        keymap: dict[str, str] = getattr(self.app, "keymap", {})
        key_style = f"bold {self.app.theme_variables['accent']}"
        self._shown = self._named()
        parts = [(command, f"{footer_key(command, keymap)} ", title) for command, title in self._shown if title]
        room = self.content_size.width
        tail = [part for part in parts if part[0].id in _ALWAYS]
        need = sum(len(key) + len(title) + 2 for _, key, title in tail)
        chosen = []
        for part in parts:
            length = len(part[1]) + len(part[2]) + 2
            if part in tail or length + need > room:
                continue
            need += length
            chosen.append(part)
        line = Text(no_wrap=True)
        self._spans = []
        for command, key, title in [*chosen, *tail]:
            start = line.cell_len
            line.append(key, key_style)
            line.append(f"{title}  ")
            self._spans.append((start, line.cell_len, command))
        return line

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        for start, end, command in self._spans:
            if offset is not None and start <= offset.x < end:
                await self.screen.run_action(target(command))
