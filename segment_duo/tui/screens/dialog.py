"""What all dialogs share: a box in the middle, a title, Escape to leave."""

from __future__ import annotations

from typing import Generic, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from segment_duo.text import safe
from segment_duo.tui.redraw import draw_by_cells

Answer = TypeVar("Answer")
DIALOG_KEYS = "Tab and Shift+Tab go from field to field, Enter takes the answer, Escape goes back and changes nothing."


class Dialog(ModalScreen[Answer | None], Generic[Answer]):
    """Base of the dialogs. Subclasses fill :meth:`body`, and set the focus by ``set_focus``: ``Widget.focus`` comes later, after keys typed ahead."""

    BINDINGS = [  # noqa: RUF012 - Textual's convention
        ("escape", "leave", "Back"),
        ("f1", "help", "Help"),
        # At once, so that what is typed next goes to the next field.
        Binding("tab", "app.focus_next", priority=True),
        Binding("shift+tab", "app.focus_previous", priority=True),
    ]
    HELP = ""
    """What F1 shows in this dialog; empty: only the keys that all dialogs have."""
    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 60%; }
    Dialog > #box {
        width: 64; max-width: 96%; height: auto; max-height: 96%; padding: 1 2; background: $panel; border: round $primary;
        border-title-color: $primary; border-title-style: bold; border-subtitle-color: $text-muted; overflow-y: auto;
    }
    Dialog .text { height: auto; margin-bottom: 1; }
    Dialog .hint { height: auto; color: $text-muted; }
    Dialog .wrong { height: auto; color: $error; }
    Dialog Input { background: $surface; border: tall $border; }
    Dialog Input:focus { border: tall $primary; }
    Dialog .buttons { height: auto; align-horizontal: right; margin-top: 1; }
    Dialog .buttons Button { margin-left: 2; min-width: 12; }
    """

    def __init__(self, title: str, subtitle: str = "Esc goes back") -> None:
        super().__init__()
        draw_by_cells(self)
        self._title = title
        self._subtitle = subtitle

    def body(self) -> list[Widget]:
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        box = Vertical(*self.body(), id="box")
        box.border_title = self._title
        box.border_subtitle = self._subtitle
        yield box

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_help(self) -> None:
        self.app.push_screen(DialogHelp(self._title, self.HELP))


class DialogHelp(Dialog[None]):
    """What F1 shows in a dialog."""

    def __init__(self, title: str, text: str) -> None:
        super().__init__(f"Help: {title}")
        self._text = text

    def body(self) -> list[Widget]:
        return [line(text) for text in (self._text, DIALOG_KEYS) if text]

    def action_help(self) -> None:
        self.dismiss(None)


def line(text: str, *, classes: str = "text", id: str | None = None) -> Static:  # noqa: A002 - Textual's own name
    """A line that is never read as markup."""
    return Static(Text(safe(text)), classes=classes, id=id, markup=False)
