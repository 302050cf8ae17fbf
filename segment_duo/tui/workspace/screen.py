"""The main screen: panes side by side, what works now, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from segment_duo.errors import SegduoError
from segment_duo.tui.explorer.explorer import FolderList
from segment_duo.tui.jobs import Job
from segment_duo.tui.keys import bindings
from segment_duo.tui.status.keys_line import KeysLine
from segment_duo.tui.workspace.files import Files

if TYPE_CHECKING:
    from segment_duo.engine.protocol import EngineStatus

STATUS_SECONDS = 5.0
_NEEDS_IMAGE = {
    "point", "accept", "corner", "drop", "auto", "goto", "zoom", "fit", "one_to_one", "pan", "contrast", "banner",
    "versions", "move", "loupe",
}  # fmt: skip
_NEEDS_MASKS = {"save", "save_as", "step", "tick", "tick_all", "delete", "label", "filter"}


class Workspace(Files):
    BINDINGS = bindings("workspace", "anywhere")
    DEFAULT_CSS = """
    Workspace { layout: vertical; background: $background; }
    Workspace #panes { height: 1fr; }
    Workspace #side { width: 32; height: 1fr; border-left: solid $border; background: $surface; }
    Workspace.-narrow #side { width: 24; }
    Workspace.-narrow Explorer { width: 26; }
    Workspace.-low Loupe { height: 8; }
    Workspace.-tiny #side { display: none; }
    """
    start_path: str | None = None
    _model_name = ""
    _device = ""

    def compose(self) -> ComposeResult:
        yield self.header
        with Horizontal(id="panes"):
            yield self.explorer
            yield self.canvas
            with Vertical(id="side"):
                yield self.mask_list
                yield self.loupe
        yield self.status
        yield self.message
        yield KeysLine()

    def on_mount(self) -> None:
        self.explorer.list.focus()
        config = getattr(self.session, "config", None)
        self.start_at(self.start_path or getattr(config, "start_folder", None) or ".")
        self.show_document()
        self._ask_model()
        self.set_interval(STATUS_SECONDS, self._ask_status)
        self.call_after_refresh(self.offer_drafts)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 100, "-narrow")
        self.set_class(event.size.width < 60, "-tiny")
        self.set_class(event.size.height < 30, "-low")

    # Which keys work now

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # In the explorer letters narrow the list, so the one-letter commands rest.
        typing = isinstance(self.focused, FolderList)
        if action == "back":
            return bool(self.explorer.list.filter) or self.image is not None
        if action == "point" and parameters in (("0",), (0,)):
            return self.image is not None and not typing and self.doc.pointing
        if action == "drop":
            return self.doc.pointing or self.doc.corner is not None
        now = {"next_candidate": self.doc.pointing, "undo": self.doc.can_undo, "redo": self.doc.can_redo}
        now |= dict.fromkeys(_NEEDS_IMAGE, self.image is not None) | dict.fromkeys(
            _NEEDS_MASKS, bool(self.doc.masks) or self.doc.unsaved
        )
        return now[action] and not typing if action in now else True

    def on_descendant_focus(self) -> None:
        self.refresh_bindings()

    # The engine's state in the header

    def _ask_model(self) -> None:
        def done(name: str) -> None:
            self._model_name = name
            self.show_engine()

        self.jobs.start("model", lambda _: self.session.model.id, done, what="Choosing the model")

    def _ask_status(self) -> None:
        if self.jobs.busy("status") or not self.engine_lock.acquire(blocking=False):
            return
        self.engine_lock.release()

        def work(_: Job) -> EngineStatus | None:
            with self.engine_lock:
                return self.session.engine_status()

        def done(status: EngineStatus | None) -> None:
            if status is None:
                self._engine_says("off (starts when needed)")
                return
            self._device = status.device
            self._engine_says("busy" if status.running else "ready")

        def failed(_: SegduoError) -> None:
            self._engine_says("not answering")

        self.jobs.start("status", work, done, what="Asking the engine", failed=failed)

    def show_engine(self) -> None:
        parts = [self._model_name, self._device, f"engine {self._engine_state}"]
        self.engine_text = " · ".join(part for part in parts if part)
        self.show_header()

    # The way out

    def action_leave(self) -> None:
        self.unless_unsaved(self._quit, "quit")

    def _quit(self) -> None:
        self.jobs.stop_all()
        self.journal.close()
        self.app.exit()

    def action_help(self) -> None:
        from segment_duo.tui.screens.help import HelpScreen

        terminal = self.picture.terminal
        keymap: dict[str, str] = dict(getattr(self.app, "keymap", {}))
        self.app.push_screen(HelpScreen(keymap, f"{terminal.method} ({terminal.reason})"))

    def action_other_theme(self) -> None:
        self.app.theme = "segduo-light" if self.app.theme == "segduo-dark" else "segduo-dark"
        self.header.refresh()
