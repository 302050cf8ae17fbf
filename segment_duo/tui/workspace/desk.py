"""What the parts of the workspace share: panes, the document, the session and its locks, and how the user is told of things.

It knows no part; the parts know it, and get what they need of each other as arguments from the screen.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer

from segment_duo.boxes import middle
from segment_duo.errors import SegduoError
from segment_duo.lengths import describe_nm
from segment_duo.masks.classes import classes_of, colours, counts
from segment_duo.terminal.compose import MaskCrops, Overlay
from segment_duo.terminal.graphics import Terminal
from segment_duo.tui.canvas.canvas import Canvas
from segment_duo.tui.canvas.picture_view import PictureView
from segment_duo.tui.closer import part_in_view, side_text
from segment_duo.tui.errands import Errands
from segment_duo.tui.explorer.explorer import Explorer
from segment_duo.tui.journal import Journal
from segment_duo.tui.listing import ORDERS
from segment_duo.tui.loupe.loupe import Loupe
from segment_duo.tui.masks.class_list import ClassList
from segment_duo.tui.masks.mask_list import MaskList
from segment_duo.tui.ports import ChosenModel, FilmPort, OpenImagePort, SessionPort
from segment_duo.tui.screens.dialog import Answer, Dialog
from segment_duo.tui.state import Document
from segment_duo.tui.status.lines import HeaderLine, MessageLine, StatusLine, Tone, short_path
from segment_duo.tui.timeline import Timeline
from segment_duo.types import Box, ImageRef, Mask, PixelSize

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

    films: Callable[[ImageRef], FilmPort] | None = None
    """Opens a stack or film as frames."""
    film: FilmPort | None = None
    """Set while frames are shown, and not a page with masks of its own."""
    timeline: Timeline | None = None
    """Of a stack or film; without a film the page that is shown, no more."""
    doing: str = ""
    """What goes on in the frames, for their bar."""

    def __init__(self, screen: Screen[None], session: SessionPort, journal: Journal, terminal: Terminal) -> None:
        self.screen = screen
        self.session = session
        self.journal = journal
        self.doc = Document()
        self.image: OpenImagePort | None = None
        self.pyramid: Pyramid | None = None
        self.engine_text = "engine: not asked yet"
        self.engine_lock = threading.Lock()
        self.store_lock = threading.Lock()
        self.elsewhere: Callable[[str], SessionPort] | None = None
        self.known_versions: set[str] | None = None
        """Names of the saved versions when the masks were loaded or last saved; None before that."""
        self.live: tuple[Mask, ...] = ()
        """Masks that are shown and are not there yet: a stroke that is being drawn, the parts of a split that is offered."""
        self.replaced: frozenset[int] = frozenset()
        """Ids of the masks whose place they take."""
        self.measure_from: tuple[int, int] | None = None
        """Where a distance is measured from."""
        self.scale_bar = True
        self.cut_from: tuple[int, int] | None = None
        self.tool_text = ""
        self.moved: Callable[[float, float], None] = lambda *_: None
        """Told of every move of the cross-hair by key."""
        self.overlay_on = True
        self.tint = 1.0
        self.model: ChosenModel | None = None
        """Known a moment after the start."""
        self.looks_closer = True
        """Whether the model is shown the part in view, where one has zoomed in."""
        self.ahead = ""
        """The image that is being prepared while another one is open; what the session tells of it is not for the user."""
        self._counted: tuple[Mask, ...] | None = None
        self._hit_crops = MaskCrops(64 * 2**20)
        self.classes = classes_of(getattr(getattr(session, "config", None), "classes", {}))
        self._inks = tuple(colours(self.classes).items())
        self.errands = Errands(screen, self.report)
        self.canvas = Canvas(terminal)
        self.explorer = Explorer()
        self.mask_list = MaskList()
        self.class_list = ClassList()
        self.loupe = Loupe()
        self.header = HeaderLine()
        self.status = StatusLine()
        self.message = MessageLine()

    def leave(self) -> None:
        """End the program, at once."""
        self.errands.stop_all()
        self.journal.close()
        self.screen.app.exit()

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
        self.picture.pixel_size = self.image.data.facts.pixel_size if self.image and self.scale_bar else None
        self.picture.show_overlay(
            Overlay(
                masks=self._drawn() if self.overlay_on else (),
                selected=doc.selected | {mask.id for mask in self.live if mask.id < -1},
                current=doc.current,
                candidate=candidate.mask if candidate and self.overlay_on else None,
                points=doc.present.points,
                box=doc.present.box,
                tint=self.tint,
                colours=self._inks,
                by_id=self.film is not None,
            ),
            self.cut_from or doc.corner or self.measure_from,
        )
        self.mask_list.show(
            doc.shown, doc.selected, doc.current, self._list_title(), doc.verdicts, self._inks,
            by_id=self.film is not None,
        )  # fmt: skip
        self._show_classes()
        self.show_frames()
        self.show_header()
        self.show_cross_hair()
        self.screen.refresh_bindings()

    def show_frames(self) -> None:
        """Bring the bar of frames up to date."""
        self.canvas.frame_bar.show(self.timeline, self.doing)

    @property
    def unsaved(self) -> bool:
        """Whether there is work that is on no disk, on this image or on any frame."""
        return self.timeline.unsaved if self.film is not None and self.timeline is not None else self.doc.unsaved

    @property
    def following(self) -> bool:
        """Whether a run goes on, which has been told what the masks are: they must not be edited meanwhile."""
        return self.errands.busy("track")

    def _show_classes(self) -> None:
        """Labels change with the masks only; a thousand are not counted at every key."""
        if self._counted is not self.doc.masks:
            self._counted = self.doc.masks
            self.class_list.show(self.classes, counts(self.doc.masks))

    def part_in_view(self, *points: tuple[float, float]) -> Box | None:
        """What the model is shown for this view; None for the whole image. ``points`` must lie in it."""
        view = self.picture.view
        if view is None or self.model is None or not self.looks_closer:
            return None
        return part_in_view(view, self.model.input_size, *points)

    def _drawn(self) -> tuple[Mask, ...]:
        if not (self.live or self.replaced):
            return self.doc.shown
        return (*(mask for mask in self.doc.shown if mask.id not in self.replaced), *self.live)

    def _list_title(self) -> str:
        doc = self.doc
        count = f"{len(doc.shown)} of {len(doc.masks)}" if doc.filter else f"{len(doc.masks)}"
        parts = [f"masks {count}"]
        if doc.selected:
            parts.append(f"{len(doc.selected)} selected")
        accepted, rejected, _ = doc.judged()
        if accepted or rejected:
            parts.append(f"{accepted}✓ {rejected}✗")
        if doc.filter:
            parts.append(str(doc.filter))
        if doc.order != ORDERS[0]:
            parts.append(doc.order)
        return " · ".join(parts)

    def show_header(self) -> None:
        path = short_path(str(self.image.ref)) if self.image else "no image"
        version = f"version {self.doc.version}" if self.doc.version is not None else ""
        place = self.explorer.list.position(str(self.image.ref)) if self.image else None
        series = f"{place[0]:,} of {place[1]:,}, {place[2]:,} done" if place and place[1] > 1 else ""
        self.header.show(path=path, version=version, unsaved=self.unsaved, engine=self.engine_text, series=series)

    def go_to(self, mask: Mask) -> None:
        """Bring the cross-hair, and so the keys, to a mask: to its middle, or else to a pixel of it near the middle."""
        x, y = middle(mask.bbox)
        at = (round(x), round(y))
        if not self._covers(mask, *at):
            at = self._nearest(mask, *at)
        if self.picture.move_cross_hair(*at):
            return  # the view's own message shows the rest
        self.show_cross_hair()

    def _nearest(self, mask: Mask, x: int, y: int) -> tuple[int, int]:
        import numpy as np

        left, top, bits = self._hit_crops.get(mask.rle)
        rows, columns = np.nonzero(bits)
        if not len(rows):
            return x, y
        nearest = int(np.argmin((columns + left - x) ** 2 + (rows + top - y) ** 2))
        return int(columns[nearest]) + left, int(rows[nearest]) + top

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
            mask=candidate.mask if candidate else self._in_hand(),
            points=doc.present.points,
        )
        self.status.show(self._status_text(at))

    def _in_hand(self) -> Mask | None:
        """What the tool works on, for the loupe."""
        if not self.tool_text:
            return None
        return self.live[0] if self.live else self.doc.mask(self.doc.current)

    def _status_text(self, at: tuple[int, int] | None) -> str:
        if self.image is None or at is None or self.picture.view is None:
            return ""
        x, y = at
        parts = [
            f"x {x:>4}  y {y:>4}",
            f"grey {_value(self.image, x, y)}",
            zoom_label(self.picture.view.magnification),
        ]
        facts = self.image.data.facts
        if self.film is not None and self.timeline is not None:
            parts.append(f"{self.timeline.text()}  {self.film.label(self.timeline.wanted)}".rstrip())
        elif facts.pages > 1:
            parts.append(f"page {facts.page} of 0–{facts.pages - 1}")
        size = facts.pixel_size
        if size is not None:
            parts[0] += f" ({describe_nm(x * size.x_nm)}, {describe_nm(y * size.y_nm)})"
            parts.append(f"{size.x_nm:.4g} nm/px")
        part = self.doc.present.part if self.doc.pointing else self.part_in_view(at)
        if part is not None:
            parts.append(f"model sees {side_text(part)}")
        if not self.overlay_on:
            parts.append("masks hidden")
        if self.picture.stretch:
            parts.append(f"contrast stretched {self.picture.stretch:g}–{100 - self.picture.stretch:g} %")
        if self.tool_text:
            parts.insert(1, self.tool_text)
        if self.measure_from is not None:
            parts.insert(1, distance(self.measure_from, at, facts.pixel_size))
        if self.cut_from is not None:
            parts.append("cut: go to the other end, k")
        if self.doc.refining is not None:
            parts.append(f"correcting mask {self.doc.refining.id}")
        if self.doc.corner is not None:
            parts.append("box: go to the opposite corner, r")
        candidate = self.doc.candidate
        if candidate is not None:
            score = f", IoU {candidate.predicted_iou:.2f}" if candidate.predicted_iou is not None else ""
            # Early, for a narrow terminal cuts the end.
            parts.insert(1, f"candidate {self.doc.candidate_index + 1} of {len(self.doc.candidates)}{score}")
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


def _value(image: OpenImagePort, x: int, y: int) -> str:
    value = image.data.original[y, x]
    if getattr(value, "ndim", 0):
        return "/".join(f"{float(each):g}" for each in value[:3])
    return f"{float(value):g}"


def distance(start: tuple[int, int], end: tuple[int, int], pixel_size: PixelSize | None) -> str:
    """From one pixel to another, in pixels and, where the size is known, in lengths."""
    right, down = end[0] - start[0], end[1] - start[1]
    text = f"distance {math.hypot(right, down):.1f} px"
    if pixel_size is None:
        return text
    return f"{text} = {describe_nm(math.hypot(right * pixel_size.x_nm, down * pixel_size.y_nm))}"


def zoom_label(magnification: float) -> str:
    """``16x`` enlarged, ``19.6 %`` reduced."""
    return f"{magnification:.3g}x" if magnification >= 1 else f"{100 * magnification:.3g} %"
