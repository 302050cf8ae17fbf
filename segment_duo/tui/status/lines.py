"""One-line displays. All text goes through :func:`segment_duo.text.safe` and is never read as markup."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import Static

from segment_duo.text import safe

Tone = Literal["info", "good", "warning", "error"]
_SIGNS: dict[Tone, str] = {"info": "", "good": "✓ ", "warning": "! ", "error": "✗ "}


def short_path(path: str) -> str:
    """With ``~`` for the home folder, for display only."""
    home = str(Path.home())
    return "~" + path[len(home) :] if home != "/" and (path == home or path.startswith(home + "/")) else path


class HeaderLine(Static):
    """Path, version, unsaved marker; model, device, engine state."""

    DEFAULT_CSS = """
    HeaderLine { height: 1; padding: 0 1; background: $panel; color: $foreground; }
    """

    def __init__(self) -> None:
        super().__init__(id="header")
        self._left: tuple[str, str, bool] = ("", "", False)
        self._right = ""

    def show(self, *, path: str, version: str, unsaved: bool, engine: str, series: str = "") -> None:
        """``series``: which of how many images this is."""
        wanted = (path, f"{series}  {version}".strip(), unsaved)
        if (wanted, engine) != (self._left, self._right):
            self._left, self._right = wanted, engine
            self.refresh()

    def on_resize(self) -> None:
        self.refresh()

    def render(self) -> Text:
        width = max(10, self.content_size.width)
        path, version, unsaved = self._left
        tail = Text()
        if version:
            tail.append(f"  {safe(version)}", "dim")
        if unsaved:
            tail.append("  ● unsaved", f"bold {self.app.theme_variables['warning']}")
        right = Text(safe(self._right), "dim", no_wrap=True)
        space = width - len("segduo  ") - tail.cell_len - 2
        right.truncate(max(0, space - 12), overflow="ellipsis")
        name = safe(path)
        room = max(4, space - right.cell_len)
        if cell_len(name) > room:
            while cell_len(name) >= room:
                name = name[1:]
            name = f"…{name}"
        line = Text.assemble(
            ("segduo  ", f"bold {self.app.theme_variables['primary']}"), (name, "bold"), tail, no_wrap=True
        )
        line.append(" " * max(1, width - line.cell_len - right.cell_len))
        line.append_text(right)
        line.truncate(width)
        return line


class StatusLine(Static):
    """Position, grey value, zoom, what is under the cross-hair."""

    DEFAULT_CSS = """
    StatusLine { height: 1; padding: 0 1; background: $panel; color: $foreground; }
    """

    def __init__(self) -> None:
        super().__init__("", id="status", markup=False)
        self.text = ""

    def show(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self.update(Text(safe(text), no_wrap=True, overflow="ellipsis"))


class MessageLine(Static):
    """What happened last, and the next step. Stays until the next message."""

    DEFAULT_CSS = """
    MessageLine { height: 1; padding: 0 1; background: $surface; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    MessageLine.-good { color: $success; }
    MessageLine.-warning { color: $warning; height: auto; max-height: 3; text-wrap: wrap; }
    MessageLine.-error { color: $error; text-style: bold; height: auto; max-height: 3; text-wrap: wrap; }
    """

    def __init__(self) -> None:
        super().__init__("", id="message", markup=False)
        self.text = ""
        self.tone: Tone = "info"

    def show(self, text: str, tone: Tone = "info") -> None:
        self.text, self.tone = text, tone
        for each in _SIGNS:
            self.set_class(each == tone, f"-{each}")
        # Textual re-reads nothing: a Text is shown as it is, whatever brackets a file name has.
        # One line ends in an ellipsis; warnings and errors wrap.
        wraps = tone in ("warning", "error")
        self.update(Text(_SIGNS[tone] + safe(text), no_wrap=not wraps, overflow="fold" if wraps else "ellipsis"))
