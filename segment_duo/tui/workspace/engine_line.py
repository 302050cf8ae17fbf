"""What the header says of the engine: the model, its device, whether it is ready; and the embedding of the image that is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segment_duo.errors import SegduoError
from segment_duo.tui.errands import Errand
from segment_duo.tui.ports import ChosenModel
from segment_duo.tui.workspace.desk import Desk
from segment_duo.waiting import STILL_WAITING

if TYPE_CHECKING:
    from segment_duo.engine.reports import EngineStatus


class EngineLine:
    """Args:
    ready: called when the image that is open is embedded.
    """

    def __init__(self, desk: Desk, ready: Callable[[], None]) -> None:
        self.desk = desk
        self._ready = ready
        self._state = "not asked yet"
        self._model_name = ""
        self._device = ""

    def embed(self) -> None:
        image = self.desk.image
        if image is None:
            return

        def work(errand: Errand) -> Any:
            with self.desk.engine_lock:
                return None if errand.superseded() else self.desk.session.embed(image)

        def done(_: Any) -> None:
            self.says("ready")
            if self.desk.message.text.startswith(STILL_WAITING):
                self.desk.say("The model has seen the image: Space points at an object, a finds all.")
            self._ready()

        def failed(error: SegduoError) -> None:
            self.says("not available")
            self.desk.report(error)

        self.says("looking at the image …")
        self.desk.errands.start("embed", work, done, what="Preparing the image", failed=failed)

    def says(self, state: str) -> None:
        self._state = state
        self.show()

    def ask_model(self) -> None:
        def done(model: ChosenModel) -> None:
            self.desk.model = model
            self._model_name = model.id
            self.show()
            self.desk.show_cross_hair()

        self.desk.errands.start("model", lambda _: self.desk.session.model, done, what="Choosing the model")

    def ask_status(self) -> None:
        if not self.desk.screen.is_active:
            return  # under a dialog any change has Textual draw the whole screen, 160 KB at 160 x 50
        if self.desk.errands.busy("status") or not self.desk.engine_lock.acquire(blocking=False):
            return
        self.desk.engine_lock.release()

        def work(_: Errand) -> EngineStatus | None:
            with self.desk.engine_lock:
                return self.desk.session.engine_status()

        def done(status: EngineStatus | None) -> None:
            if status is None:
                self.says("off (starts when needed)")
                return
            self._device = status.device
            self.says("busy" if status.running else "ready")

        def failed(_: SegduoError) -> None:
            self.says("not answering")

        self.desk.errands.start("status", work, done, what="Asking the engine", failed=failed)

    def show(self) -> None:
        parts = [self._model_name, self._device, f"engine {self._state}"]
        self.desk.engine_text = " · ".join(part for part in parts if part)
        self.desk.show_header()
