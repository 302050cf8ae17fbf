"""The main screen: panes side by side, what works now, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from segment_duo.segmenters.base import Capability
from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.tui.canvas.frame_bar import FrameBar
from segment_duo.tui.canvas.picture_view import PictureView
from segment_duo.tui.done import DoneMarks
from segment_duo.tui.errands import ErrandFinished
from segment_duo.tui.explorer.explorer import FolderList
from segment_duo.tui.journal import Draft, Journal
from segment_duo.tui.keys import bindings
from segment_duo.tui.masks.mask_list import MaskList
from segment_duo.tui.ports import FilmPort, SessionPort
from segment_duo.tui.redraw import draw_by_cells
from segment_duo.tui.status.keys_line import KeysLine
from segment_duo.tui.workspace.correcting import Correcting
from segment_duo.tui.workspace.desk import Desk, Told
from segment_duo.tui.workspace.drafts import Drafts
from segment_duo.tui.workspace.editing import Editing
from segment_duo.tui.workspace.engine_line import EngineLine
from segment_duo.tui.workspace.files import Files
from segment_duo.tui.workspace.folders import Folders
from segment_duo.tui.workspace.frames import Frames
from segment_duo.tui.workspace.labelling import Labelling
from segment_duo.tui.workspace.review import Review
from segment_duo.tui.workspace.saving import Saving
from segment_duo.tui.workspace.series import Series
from segment_duo.tui.workspace.tracking import Tracking
from segment_duo.tui.workspace.viewing import Viewing
from segment_duo.types import ImageRef

STATUS_SECONDS = 5.0
_NEEDS_IMAGE = {
    "point", "accept", "corner", "drop", "auto", "goto", "zoom", "fit", "one_to_one", "pan", "contrast", "window", "banner",
    "brush", "new_mask", "versions", "move", "loupe", "overlay", "tint", "page", "done", "ids", "cells", "scale_bar", "closer", "measure",
}  # fmt: skip
_ASKS: Mapping[str, frozenset[str]] = {
    "point": frozenset({Capability.POINTS}),
    "corner": frozenset({Capability.BOX, Capability.AUTOMATIC}),
    "auto": frozenset({Capability.AUTOMATIC}),
}
"""Keys that ask the model, and what it must be able to do for them: one of these."""
_NEEDS_MASKS = {
    "save", "save_as", "save_elsewhere", "zoom_mask", "step", "tick", "tick_all", "delete", "label", "classify", "filter",
    "sort", "judge", "delete_rejected", "refine", "merge", "cut", "split", "subtract", "no_overlap", "fill_holes", "smooth", "grow",
}  # fmt: skip


_EDITS = {
    "point", "accept", "corner", "auto", "undo", "redo", "brush", "new_mask", "save", "save_as", "save_elsewhere", "versions", "delete", "label",
    "classify", "delete_rejected", "refine", "merge", "cut", "split", "subtract", "no_overlap", "fill_holes", "smooth", "grow",
}  # fmt: skip
"""What must wait while objects are followed."""
_FRAMES = {"play", "track"}
"""What can be done with frames while one types, too."""


class Workspace(Screen[None]):
    """The main screen. What it can do is in its parts; here they are put together, and their actions become the screen's."""

    BINDINGS = bindings("workspace", "anywhere")
    DEFAULT_CSS = """
    Workspace { layout: vertical; background: $background; }
    Workspace #panes { height: 1fr; }
    Workspace #side { width: 32; height: 1fr; border-left: solid $border; background: $surface; }
    Workspace.-narrow #side { width: 24; }
    Workspace.-narrow Explorer { width: 26; }
    Workspace.-low Loupe { height: 8; }
    Workspace.-tiny #side { display: none; }
    Workspace.-full #side, Workspace.-full Explorer { display: none; }
    """

    def __init__(
        self,
        session: SessionPort,
        journal: Journal,
        terminal: Terminal,
        *,
        start_path: str | None = None,
        start_film: bool = False,
        queue: Sequence[ImageRef] = (),
        elsewhere: Callable[[str], SessionPort] | None = None,
        films: Callable[[ImageRef], FilmPort] | None = None,
    ) -> None:
        super().__init__()
        if terminal.method is not Method.SIXEL:
            draw_by_cells(self)
        self.start_path, self.start_film = start_path, start_film
        self.queue = tuple(queue)
        self.desk = desk = Desk(self, session, journal, terminal)
        desk.elsewhere = elsewhere
        desk.films = films
        marks = DoneMarks(journal.folder.parent / "done.ndjson")
        desk.explorer.list.set_marks(marks.read())
        self.series = Series(desk, marks, self._open_target)
        self.engine = EngineLine(desk, self.series.prepare_next)
        self.drafts = Drafts(desk)
        self.viewing = Viewing(desk)
        self.editing = Editing(desk, self._keep)
        self.correcting = Correcting(desk, self.editing.edited, self.drafts.keep)
        self.drafts.in_hand = self.correcting.in_hand
        self.folders = Folders(desk, self._open_target, self._open_film)
        self.saving = Saving(
            desk,
            self.drafts,
            listed=self.folders.action_reload,
            accept=self.editing.accept,
            settle=self.correcting.settle,
        )
        self.frames = Frames(desk, self.engine, settle=self.correcting.settle, let_go=self._let_go)
        self.tracking = Tracking(desk, self.frames, self.engine, self._tracked)
        self.files = Files(
            desk,
            self.drafts,
            self.engine,
            self.frames,
            unless_unsaved=self.saving.unless_unsaved,
            ask_for_mask=self.editing.ask_for_mask,
            settle=self.correcting.settle,
            let_go=self._let_go,
        )
        self.review = Review(desk, self.editing.edited)
        self.labelling = Labelling(desk, self.editing.edited)
        for part in (
            self.review,
            self.labelling,
            self.viewing,
            self.editing,
            self.correcting,
            self.series,
            self.folders,
            self.saving,
            self.frames,
            self.tracking,
            self.files,
        ):
            self._adopt(part)

    def _open_target(self, target: str) -> None:
        self.files.open_target(target)

    def _open_film(self, target: str) -> None:
        self.files.open_target(target, film=True)

    def _let_go(self) -> None:
        self.editing.unask()
        self.correcting.leave(quietly=True)

    def _keep(self) -> None:
        """After every edit."""
        if self.desk.film is not None and self.desk.timeline is not None:
            self.desk.timeline.edited()
        self.drafts.keep()

    def _tracked(self) -> None:
        """A run was saved, and with it all that was unsaved."""
        self.drafts.forget()
        self.folders.action_reload()

    def _adopt(self, part: object) -> None:
        """Textual looks actions up on the screen by their name."""
        for name in dir(part):
            if name.startswith("action_"):
                assert not hasattr(self, name), name
                setattr(self, name, getattr(part, name))

    def compose(self) -> ComposeResult:
        yield self.desk.header
        with Horizontal(id="panes"):
            yield self.desk.explorer
            yield self.desk.canvas
            with Vertical(id="side"):
                yield self.desk.mask_list
                yield self.desk.class_list
                yield self.desk.loupe
        yield self.desk.status
        yield self.desk.message
        yield KeysLine()

    def on_mount(self) -> None:
        self.desk.explorer.list.focus()
        config = getattr(self.desk.session, "config", None)
        if self.queue:
            self.series.walking = True
            self.folders.start_queue(self.queue)
        else:
            start = self.start_path or getattr(config, "start_folder", None) or "."
            self.folders.start_at(start, film=self.start_film)
        self.desk.show_document()
        self.engine.ask_model()
        self.set_interval(STATUS_SECONDS, self.engine.ask_status)
        self.call_after_refresh(self.drafts.offer, self._bring_back)

    def _bring_back(self, draft: Draft) -> None:
        self.folders.follow(draft.ref)
        if draft.frames:
            self.files.open_film(draft.ref, draft=draft)
        else:
            self.files.open_image(draft.ref, draft=draft)

    # What the panes say

    def on_errand_finished(self, message: ErrandFinished) -> None:
        self.desk.errands.finish(message)

    def on_told(self, message: Told) -> None:
        if not (self.desk.ahead and message.text.startswith(f"{self.desk.ahead}: ")):
            self.desk.say(message.text, "warning")

    def on_folder_list_chosen(self, message: FolderList.Chosen) -> None:
        self.folders.chosen(message.item)

    def on_folder_list_cut(self, message: FolderList.Cut) -> None:
        self.desk.say(message.name)

    def on_mask_list_chosen(self, message: MaskList.Chosen) -> None:
        self.editing.chosen(message)

    def on_picture_view_clicked(self, message: PictureView.Clicked) -> None:
        self.editing.clicked(message)

    def on_frame_bar_chosen(self, message: FrameBar.Chosen) -> None:
        if self.check_action("frame", ()):
            self.tracking.look_elsewhere()
            self.frames.go(message.frame)

    def on_picture_view_viewed(self) -> None:
        self.viewing.viewed()

    def on_picture_view_failed(self, message: PictureView.Failed) -> None:
        self.viewing.failed(message.error)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 100, "-narrow")
        self.set_class(event.size.width < 60, "-tiny")
        self.set_class(event.size.height < 30, "-low")

    # Which keys work now

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # In the explorer letters narrow the list, so the one-letter commands rest.
        typing = isinstance(self.focused, FolderList)
        doc, tool = self.desk.doc, self.correcting.tool
        if (action in _EDITS and self.desk.following) or not (tool or self._model_can(action)):
            return False
        if action == "film":
            return self.desk.films is not None
        if action == "back":
            return bool(self.desk.explorer.list.filter) or self.desk.image is not None
        if action in _FRAMES:
            return self.desk.timeline is not None and not tool
        now = self._now()
        if action == "point" and parameters in (("0",), (0,)):
            now["point"] &= doc.pointing or doc.refining is not None or bool(tool)
        return now[action] and not typing if action in now else True

    def _now(self) -> dict[str, bool]:
        """Which of the actions that need something have it; all of them rest while one types."""
        desk, doc, tool = self.desk, self.desk.doc, self.correcting.tool
        shown = desk.image is not None
        now = dict.fromkeys(_NEEDS_IMAGE, shown)
        now |= dict.fromkeys(_NEEDS_MASKS, bool(doc.masks) or desk.unsaved)
        asked = doc.pointing or doc.corner is not None or doc.present.refines is not None
        goes_on = self.frames.playing or desk.following
        return now | {
            "next_candidate": doc.pointing,
            "undo": doc.can_undo or self.frames.edited_elsewhere() is not None,
            "redo": doc.can_redo,
            "drop": bool(asked or tool or desk.cut_from or goes_on),
            "size": bool(tool),
            "frame": desk.timeline is not None and not tool,
            "frame_goto": desk.timeline is not None and not tool,
            # A sequence is cut once, for all its frames.
            "banner": shown and desk.film is None,
        }

    def _model_can(self, action: str) -> bool:
        """Whether the model can what the key asks of it; a box also says where automatic masks are wanted."""
        model, asked = self.desk.model, _ASKS.get(action)
        return model is None or asked is None or bool(asked & model.capabilities)

    def on_descendant_focus(self) -> None:
        self.refresh_bindings()

    # Keys that mean another thing while a tool is in the hand

    def action_point(self, label: Literal[0, 1]) -> None:
        if self.correcting.tool:
            self.correcting.stamp(label)
        else:
            self.editing.point(label)

    def action_accept(self) -> None:
        if self.correcting.tool:
            self.correcting.enter()
        else:
            self.editing.accept()

    def action_drop(self) -> None:
        if self.desk.cut_from is not None:
            self.desk.cut_from = None
            self.desk.show_document()
        elif self.correcting.tool:
            self.correcting.drop()
        elif self.frames.playing:
            self.frames.stop()
        elif self.desk.following:
            self.tracking.cancel()
        else:
            self.editing.drop()

    def action_frame(self, by: int) -> None:
        self.tracking.look_elsewhere()
        self.frames.step(by)

    def action_delete(self) -> None:
        self.frames.delete(self.editing.delete)

    def action_undo(self) -> None:
        if not self.frames.undo_elsewhere():
            self.editing.undo()

    def on_picture_view_stroked(self, message: PictureView.Stroked) -> None:
        self.correcting.stroked(message)

    @property
    def footer_titles(self) -> Mapping[str, str]:
        """What keys mean instead while a tool is in the hand, by the command's id."""
        tool = self.correcting.tool
        if tool == "split":
            return {"accept": "Take the parts", "drop": "Leave it whole", "include": "", "exclude": ""}
        if tool:
            return {"include": "Dot", "exclude": "The other way", "accept": "Pen down, up", "drop": "End"}
        if self.frames.playing:
            return {"accept": "", "drop": "Stop"}
        if self.desk.following:
            return {"accept": "", "drop": "Stop following"}
        return {}

    # The way out

    def action_leave(self) -> None:
        self.saving.unless_unsaved(self.desk.leave, "quit")

    def action_help(self) -> None:
        from segment_duo.tui.screens.help import HelpScreen

        terminal = self.desk.picture.terminal
        keymap: dict[str, str] = dict(getattr(self.app, "keymap", {}))
        classes = {one.key: one.name for one in self.desk.classes}
        first = "Making a mask"
        if self.correcting.tool:
            first = "Correcting masks"
        elif isinstance(self.focused, FolderList):
            first = "Folders"
        elif isinstance(self.focused, MaskList):
            first = "The masks"
        self.app.push_screen(HelpScreen(keymap, f"{terminal.method} ({terminal.reason})", first, classes))

    def action_other_theme(self) -> None:
        self.app.theme = "segduo-light" if self.app.theme == "segduo-dark" else "segduo-dark"
        self.desk.header.refresh()
