"""The folder: images and folders, newest first, narrowed by typing; images with saved sets carry a mark.

Lists what it is given; reading folders is the workspace's business. Only the visible lines are made, so a folder of ten thousand images
costs no more than one of ten.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from segment_duo.text import safe
from segment_duo.tui.keys import bindings
from segment_duo.tui.wording import middle_cut


@dataclass(frozen=True, slots=True)
class Item:
    """One line. ``target``: what to open, as users type it. ``saved``: an image that has saved sets."""

    name: str
    target: str
    is_folder: bool
    modified: float = 0.0
    saved: bool = False
    note: str = ""


class FolderList(ScrollView, can_focus=True):
    """The lines. Printable keys narrow the list; the workspace's one-letter commands rest meanwhile."""

    BINDINGS = bindings("explorer")
    COMPONENT_CLASSES = {"folder-list--cursor", "folder-list--saved", "folder-list--dim", "folder-list--open"}  # noqa: RUF012
    DEFAULT_CSS = """
    FolderList { height: 1fr; background: $surface; scrollbar-size-vertical: 1; scrollbar-background: $surface; scrollbar-color: $border; }
    FolderList .folder-list--cursor { background: $primary 25%; }
    FolderList .folder-list--saved { color: $success; }
    FolderList .folder-list--dim { color: $secondary; }
    FolderList .folder-list--open { text-style: bold; color: $primary; }
    """

    class Chosen(Message):
        def __init__(self, item: Item) -> None:
            super().__init__()
            self.item = item

    class Cut(Message):
        """The name under the cursor is longer than its line."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    class Filtered(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(id="folder")
        self._all: tuple[Item, ...] = ()
        self.items: tuple[Item, ...] = ()
        self.filter = ""
        self.cursor = 0
        self.opened = ""
        self._hint = ""
        self.only_undone = False
        self.marks: dict[str, bool] = {}
        self._images: tuple[Item, ...] = ()
        self._place: dict[str, int] = {}
        self._done = 0

    def show(self, items: tuple[Item, ...], *, hint: str = "", at: str = "") -> None:
        """Show these lines. ``hint``: what to say when there are none. ``at``: the target to put the cursor on."""
        self._all, self._hint, self.filter = items, hint, ""
        self._images = tuple(item for item in items if not item.is_folder and item.target)
        self._place = {item.target: place for place, item in enumerate(self._images)}
        self._done = sum(map(self.is_done, self._images))
        self._narrow(at)

    def set_filter(self, text: str) -> None:
        self.filter = text
        self._narrow(self.items[self.cursor].target if self.items else "")
        self.post_message(self.Filtered(text))

    def position(self, target: str) -> tuple[int, int, int] | None:
        """Which image of the list this is (from 1), how many there are, how many are done; None when it is not in the list."""
        place = self._place.get(target)
        return None if place is None else (place + 1, len(self._images), self._done)

    def neighbour(self, target: str, by: int, *, undone: bool = False) -> str | None:
        """The next (1) or the previous (-1) image; from an image that is not in the list: the first or the last. ``undone``: what is not done."""
        place = self._place.get(target, -1 if by > 0 else len(self._images))
        rest = self._images[place + 1 :] if by > 0 else self._images[:place][::-1] if place > 0 else ()
        return next((item.target for item in rest if not (undone and self.is_done(item))), None)

    def is_done(self, item: Item) -> bool:
        """By the user's mark, or else by saved sets."""
        return self.marks.get(item.target, item.saved)

    def set_marks(self, marks: Mapping[str, bool]) -> None:
        """Target -> what the user says of it."""
        self.marks = dict(marks)
        self._done = sum(map(self.is_done, self._images))
        self.set_only_undone(self.only_undone)

    def _sign(self, item: Item) -> str:
        if item.is_folder:
            return "▸ "
        if item.target in self.marks:
            return "✓ " if self.marks[item.target] else "○ "
        return "● " if item.saved else "  "

    def set_only_undone(self, on: bool) -> None:
        self.only_undone = on
        self._narrow(self.items[self.cursor].target if self.items else "")

    def mark_open(self, target: str) -> None:
        self.opened = target
        self.refresh()

    def _narrow(self, at: str) -> None:
        wanted = self.filter.casefold()
        self.items = tuple(
            item
            for item in self._all
            if wanted in item.name.casefold()
            and not (self.only_undone and self.is_done(item) and item.target != self.opened)
        )
        # Folders come first; the cursor begins at the newest image.
        images = next((row for row, item in enumerate(self.items) if not item.is_folder), 0)
        self.cursor = next((row for row, item in enumerate(self.items) if item.target == at), images)
        self.virtual_size = Size(0, len(self.items))
        self._follow()
        self.refresh()

    def _follow(self) -> None:
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        row = y + self.scroll_offset.y
        base = self.rich_style
        if row >= len(self.items):
            text = ""
            if not self.items and y == 0:
                text = f" nothing named “{self.filter}” here" if self.filter else f" {self._hint}"
            dim = base + self.get_component_rich_style("folder-list--dim")
            return self._strip(Text(safe(text), style=dim), width)
        item = self.items[row]
        style = base
        if row == self.cursor and self.has_focus:
            style += self.get_component_rich_style("folder-list--cursor")
        if item.target == self.opened:
            style += _foreground(self.get_component_rich_style("folder-list--open"))
        right = item.note or (_age(item.modified) if item.modified else "")
        line = Text(style=style, no_wrap=True)
        line.append(
            self._sign(item),
            "" if not self.is_done(item) else _foreground(self.get_component_rich_style("folder-list--saved")),
        )
        room = max(4, width - 3 - len(right))
        name = Text(middle_cut(self._shown(item), room))
        name.truncate(room, overflow="ellipsis", pad=True)
        line.append_text(name)
        line.append(f" {right}", _foreground(self.get_component_rich_style("folder-list--dim")))
        return self._strip(line, width)

    @staticmethod
    def _shown(item: Item) -> str:
        return safe(item.name) + ("/" if item.is_folder and not item.note else "")

    def whole_name(self) -> str:
        """The name under the cursor when it does not fit its line, else an empty string."""
        if not self.items:
            return ""
        item = self.items[self.cursor]
        right = item.note or (_age(item.modified) if item.modified else "")
        room = self.scrollable_content_region.width - 3 - len(right)
        return item.name if cell_len(self._shown(item)) > room else ""

    def _strip(self, line: Text, width: int) -> Strip:
        # A Text without spans renders without its own style, so it is applied here.
        base = self.rich_style + line.style if isinstance(line.style, Style) else self.rich_style
        segments = [Segment(s.text, base + s.style if s.style else base) for s in line.render(self.app.console)]
        return Strip([s for s in segments if s.text and s.text != "\n"]).adjust_cell_length(width, base)

    def on_key(self, event: events.Key) -> None:
        page = max(1, self.scrollable_content_region.height - 1)
        steps = {
            "up": self.cursor - 1,
            "down": self.cursor + 1,
            "pageup": self.cursor - page,
            "pagedown": self.cursor + page,
        }
        steps |= {"home": 0, "end": len(self.items) - 1}
        if event.key in steps:
            self.cursor = min(max(steps[event.key], 0), max(0, len(self.items) - 1))
            self._follow()
            self.refresh()
            if self.whole_name():
                self.post_message(self.Cut(self.whole_name()))
        elif event.key == "backspace" and self.filter:
            self.set_filter(self.filter[:-1])
        elif event.is_printable and event.character and not (event.character == "?" and not self.filter):
            self.set_filter(self.filter + event.character)
        else:
            return
        event.stop()
        event.prevent_default()

    def choose(self) -> None:
        if self.items:
            self.post_message(self.Chosen(self.items[self.cursor]))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        row = -1 if offset is None else offset.y + self.scroll_offset.y
        if 0 <= row < len(self.items):
            self.cursor = row
            self.refresh()
            self.post_message(self.Chosen(self.items[row]))


class Explorer(Vertical):
    """Title, filter and list."""

    DEFAULT_CSS = """
    Explorer { width: 22%; min-width: 30; max-width: 64; height: 1fr; background: $surface; border-right: solid $border; }
    Explorer:focus-within { border-right: solid $primary; }
    Explorer.-hidden { display: none; }
    Explorer #folder-title { height: 1; padding: 0 1; color: $text-muted; }
    Explorer:focus-within #folder-title { color: $primary; text-style: bold; }
    Explorer #folder-filter { height: 1; padding: 0 1; color: $accent; }
    """

    def __init__(self) -> None:
        super().__init__(id="explorer")
        self.list = FolderList()

    def compose(self) -> ComposeResult:
        yield Static("", id="folder-title", markup=False)
        yield Static("", id="folder-filter", markup=False)
        yield self.list

    def on_mount(self) -> None:
        self._say_filter("")

    def show_title(self, text: str) -> None:
        room = max(12, self.size.width - 3) if self.size.width else 27
        name = safe(text)
        self.query_one("#folder-title", Static).update(Text(name if len(name) <= room else "…" + name[-(room - 1) :]))

    def on_folder_list_filtered(self, message: FolderList.Filtered) -> None:
        self._say_filter(message.text)

    def show(self, items: tuple[Item, ...], *, hint: str = "", at: str = "") -> None:
        self.list.show(items, hint=hint, at=at)
        self._say_filter("")

    def _say_filter(self, text: str) -> None:
        line = Text(f"filter: {safe(text)}▏") if text else Text("type to filter", "dim")
        self.query_one("#folder-filter", Static).update(line)


def _foreground(style: Style) -> Style:
    """Without the background, which is the line's."""
    return Style(color=style.color, bold=style.bold)


def _age(modified: float) -> str:
    """How long ago, in five characters or fewer."""
    seconds = max(0.0, time.time() - modified)
    for size, unit in ((60, "s"), (60, "min"), (24, "h"), (7, "d"), (52, "w")):
        if seconds < size:
            return f"{int(seconds)} {unit}"
        seconds /= size
    return f"{int(seconds)} y"
