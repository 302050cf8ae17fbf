"""What the parts of the workspace share: panes, the document, the session and its locks, and how the user is told of things.

It knows no part; the parts know it, and get what they need of each other as arguments from the screen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer

from segment_duo.errors import SegduoError
from segment_duo.terminal.compose import MaskCrops, Overlay
from segment_duo.terminal.graphics import Terminal
from segment_duo.tui.canvas.canvas import Canvas
from segment_duo.tui.canvas.picture_view import PictureView
from segment_duo.tui.explorer.explorer import Explorer
from segment_duo.tui.jobs import Jobs
from segment_duo.tui.journal import Journal
from segment_duo.tui.loupe.loupe import Loupe
from segment_duo.tui.masks.mask_list import MaskList
from segment_duo.tui.ports import OpenImage, SessionPort
from segment_duo.tui.screens.dialog import Answer, Dialog
from segment_duo.tui.state import Document
from segment_duo.tui.status.lines import HeaderLine, MessageLine, StatusLine, Tone, short_path
from segment_duo.types import Mask

if TYPE_CHECKING:
    from segment_duo.images.view import Pyramid


class Told(Message):
    """A line for the user, posted from any thread."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Desk:
    """Panes and shared state.

    The session serves one caller at a time: calls of the engine hold ``engine_lock``, calls of stores ``store_lock``, so that listing a
    folder never waits for the model.
    """

    def __init__(self, screen: Screen[None], session: SessionPort, journal: Journal, terminal: Terminal) -> None:
        self.screen = screen
        self.session = session
        self.journal = journal
        self.doc = Document()
        self.image: OpenImage | None = None
        self.pyramid: Pyramid | None = None
        self.engine_text = "engine: not asked yet"
        self.engine_lock = threading.Lock()
        self.store_lock = threading.Lock()
        self._hit_crops = MaskCrops(64 * 2**20)
        self.jobs = Jobs(screen, self.report)
        self.canvas = Canvas(terminal)
        self.explorer = Explorer()
        self.mask_list = MaskList()
        self.loupe = Loupe()
        self.header = HeaderLine()
        self.status = StatusLine()
        self.message = MessageLine()

    @property
    def picture(self) -> PictureView:
        return self.canvas.picture

    def ask(self, dialog: Dialog[Answer], take: Callable[[Answer | None], None]) -> None:
        """Show a dialog; ``take`` gets its answer, None when the user went back."""
        self.screen.app.push_screen(dialog, take)

    def later(self, seconds: float, do: Callable[[], None]) -> Timer:
        return self.screen.set_timer(seconds, do)

    def every(self, seconds: float, do: Callable[[], None]) -> Timer:
        return self.screen.set_interval(seconds, do)

    # Talking to the user

    def say(self, text: str, tone: Tone = "info") -> None:
        self.message.show(text, tone)

    def report(self, error: SegduoError) -> None:
        """An error becomes a message with the next step. Nothing is lost by it."""
        self.say(f"{error.message.rstrip('.')}. {error.hint}".strip(), "error")

    def need_image(self) -> bool:
        if self.image is None:
            self.say("Open an image first: choose one in the list on the left and press Enter.")
            return False
        return True

    # Showing the state

    def show_document(self) -> None:
        """Bring every pane up to date with the document."""
        doc = self.doc
        candidate = doc.candidate
        self.picture.show_overlay(
            Overlay(
                masks=doc.shown,
                ticked=doc.ticked,
                current=doc.current,
                candidate=candidate.mask if candidate else None,
                points=doc.present.points,
                box=doc.present.box,
            ),
            doc.corner,
        )
        self.mask_list.show(doc.shown, doc.ticked, doc.current, self._list_title())
        self.show_header()
        self.show_cross_hair()
        self.screen.refresh_bindings()

    def _list_title(self) -> str:
        doc = self.doc
        count = f"{len(doc.shown)} of {len(doc.masks)}" if doc.filter else f"{len(doc.masks)}"
        parts = [f"masks {count}"]
        if doc.ticked:
            parts.append(f"{len(doc.ticked)} selected")
        if doc.filter:
            parts.append(str(doc.filter))
        return " · ".join(parts)

    def show_header(self) -> None:
        path = short_path(str(self.image.ref)) if self.image else "no image"
        version = f"version {self.doc.version}" if self.doc.version is not None else ""
        self.header.show(path=path, version=version, unsaved=self.doc.unsaved, engine=self.engine_text)

    def show_cross_hair(self) -> None:
        """Everything that follows the cross-hair. None of it is picture data."""
        self.canvas.update_rulers()
        picture, doc = self.picture, self.doc
        at = picture.cross_hair
        candidate = doc.candidate
        self.loupe.look_at(
            self.pyramid,
            at,
            stretch=picture.stretch,
            mask=candidate.mask if candidate else None,
            points=doc.present.points,
        )
        self.status.show(self._status_text(at))

    def _status_text(self, at: tuple[int, int] | None) -> str:
        if self.image is None or at is None or self.picture.view is None:
            return ""
        x, y = at
        parts = [
            f"x {x:>4}  y {y:>4}",
            f"grey {_value(self.image, x, y)}",
            f"{_percent(self.picture.view.magnification)}",
        ]
        size = self.image.data.facts.pixel_size
        if size is not None:
            parts.append(f"{size.x_nm:.4g} nm/px")
        if self.picture.stretch:
            parts.append("contrast stretched")
        if self.doc.corner is not None:
            parts.append("box: go to the opposite corner, r")
        candidate = self.doc.candidate
        if candidate is not None:
            score = f", IoU {candidate.predicted_iou:.2f}" if candidate.predicted_iou is not None else ""
            parts.append(f"candidate {self.doc.candidate_index + 1} of {len(self.doc.candidates)}{score}")
        elif not self.doc.pointing:
            here = self.mask_at(x, y)
            if here is not None:
                label = self.doc.mask(here)
                parts.append(f"mask {here}{f' “{label.label}”' if label and label.label else ''}")
        return " │ ".join(parts)

    def mask_at(self, x: int, y: int) -> int | None:
        """Id of the smallest shown mask that covers a pixel."""
        found = None
        for mask in self.doc.shown:
            left, top, width, height = mask.bbox
            near = left - 1 <= x <= left + width and top - 1 <= y <= top + height
            if near and (found is None or mask.area < found.area) and self._covers(mask, x, y):
                found = mask
        return found.id if found else None

    def _covers(self, mask: Mask, x: int, y: int) -> bool:
        left, top, bits = self._hit_crops.get(mask.rle)
        row, column = y - top, x - left
        return bool(0 <= row < bits.shape[0] and 0 <= column < bits.shape[1] and bits[row, column])


def _value(image: OpenImage, x: int, y: int) -> str:
    value = image.data.original[y, x]
    if getattr(value, "ndim", 0):
        return "/".join(f"{float(each):g}" for each in value[:3])
    return f"{float(value):g}"


def _percent(magnification: float) -> str:
    return f"{100 * magnification:.3g} %"
