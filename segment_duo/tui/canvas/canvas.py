"""The picture pane: rulers, picture and the bar of frames as one focusable thing with the keys for pointing."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from segment_duo.terminal.graphics import Terminal
from segment_duo.tui.canvas.frame_bar import FrameBar
from segment_duo.tui.canvas.picture_view import PictureView
from segment_duo.tui.canvas.ruler import Ruler
from segment_duo.tui.keys import bindings

EMPTY = """\
[b]No image yet[/b]

[b]↑ ↓ Enter[/b]  open an image of the list; typing narrows it
[b]Ctrl+O[/b]     type a path, also /drops/...
[b]Space[/b]      on an object makes its mask, [b]Enter[/b] keeps it
[b]a[/b]          finds all objects, [b]s[/b] saves
[b]F1[/b]         all keys; here and in every dialog
"""


class Canvas(Vertical, can_focus=True):
    """Focus target of the picture. Its actions are the workspace's."""

    BINDINGS = bindings("canvas")
    DEFAULT_CSS = """
    Canvas { width: 1fr; height: 1fr; }
    Canvas #empty { width: 1fr; height: 1fr; content-align: center middle; color: $text-muted; background: $background; }
    Canvas #picture-row { height: 1fr; }
    Canvas.-empty #picture-row, Canvas.-empty #ruler-top { display: none; }
    Canvas #empty { display: none; }
    Canvas.-empty #empty { display: block; }
    """

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(id="canvas", classes="-empty")
        self.picture = PictureView(terminal, id="picture")
        self.frame_bar = FrameBar()

    def compose(self) -> ComposeResult:
        yield Static(EMPTY, id="empty")
        yield Ruler("top")
        with Horizontal(id="picture-row"):
            yield Ruler("left")
            yield self.picture
        yield self.frame_bar

    def update_rulers(self) -> None:
        for ruler in self.query(Ruler):
            ruler.point_at(self.picture.view, self.picture.cross_hair)
