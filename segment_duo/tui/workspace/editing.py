"""Editing: points, boxes and candidates; the masks of the list; automatic masks. Every edit goes through the document, and so has a way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from segment_duo.boxes import ends
from segment_duo.errors import Cancelled, SegduoError
from segment_duo.parameters import AutoParameters
from segment_duo.results import ROUTINE_NOTE
from segment_duo.segmenters.advice import sees_nothing
from segment_duo.segmenters.base import Capability
from segment_duo.terminal.viewport import Viewport
from segment_duo.tui.canvas.picture_view import PictureView
from segment_duo.tui.closer import side_text
from segment_duo.tui.errands import Errand
from segment_duo.tui.listing import SizeFilter
from segment_duo.tui.masks.mask_list import MaskList
from segment_duo.tui.ports import ChosenModel
from segment_duo.tui.screens.auto import PRESETS, AutoChoice, AutoDialog, AutoProgress
from segment_duo.tui.screens.size_filter import SizeFilterDialog
from segment_duo.tui.state import Document
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.types import Box, Point

if TYPE_CHECKING:
    from segment_duo.closer import PromptScale
    from segment_duo.engine.protocol import AutoEvent
    from segment_duo.results import AutoResult, PredictedObject


class Editing:
    """Args:
    keep: called after every edit, so that it gets into the journal.
    """

    def __init__(self, desk: Desk, keep: Callable[[], None]) -> None:
        self.desk = desk
        self._keep = keep
        self._accept_when_ready = False

    @property
    def doc(self) -> Document:
        return self.desk.doc

    def edited(self) -> None:
        """Call after every change of the document: panes, preview, journal."""
        self.desk.show_document()
        self._keep()

    # Points and candidates

    def point(self, label: Literal[0, 1]) -> None:
        if not self.desk.need_image() or self.desk.picture.cross_hair is None:
            return
        x, y = self.desk.picture.cross_hair
        if not label and not self.doc.pointing and self.doc.refining is None:
            self.desk.say("Begin with an include point (Space); exclude points correct a mask that is shown.")
            return
        self.doc.add_point(Point(float(x), float(y), label), self._part((x, y)))
        self.edited()
        self.ask_for_mask()

    def _part(self, *points: tuple[float, float]) -> Box | None:
        """What the model is shown for a prompt with these points: it holds the earlier ones and the mask that is corrected as well."""
        mask = self.doc.refining
        if mask is not None:
            left, top, right, bottom = ends(mask.bbox)
            points = (*points, (left, top), (right, bottom))
        return self.desk.part_in_view(*points, *((point.x, point.y) for point in self.doc.present.points))

    def action_corner(self) -> None:
        if not self.desk.need_image() or self.desk.picture.cross_hair is None:
            return
        x, y = self.desk.picture.cross_hair
        if self.doc.corner is None:
            self.doc.corner = (x, y)
            self.desk.say("First corner. Move the cross-hair to the opposite corner and press r again; Esc gives up.")
            self.desk.show_document()
            return
        x0, y0 = self.doc.corner
        if x0 == x or y0 == y:
            self.desk.say("The box has no area yet: move to the opposite corner, then r.", "warning")
            return
        self.doc.set_box(Box(min(x0, x), min(y0, y), max(x0, x), max(y0, y)), self._part((x0, y0), (x, y)))
        self.edited()
        self.ask_for_mask()

    def unask(self) -> None:
        """No mask is wanted any more."""
        self.desk.errands.stop("predict")
        self._accept_when_ready = False

    def drop(self) -> None:
        self.unask()
        if self.doc.corner is not None and not self.doc.pointing:
            self.doc.corner = None
            self.desk.show_document()
        elif self.doc.drop_prompt():
            self.desk.say("Dropped; u brings it back.")
            self.edited()

    def ask_for_mask(self, *, multimask: bool | None = None, then_next: bool = False) -> None:
        """Ask the engine for the mask of the present points; an earlier question is superseded."""
        takes_masks = self.desk.model is not None and Capability.MASK_INPUT in self.desk.model.capabilities
        prompt, image, part = self.doc.prompt(as_mask=takes_masks), self.desk.image, self.doc.present.part
        if prompt is None or image is None:
            self.desk.errands.stop("predict")
            return

        def work(errand: Errand) -> list[PredictedObject]:
            with self.desk.engine_lock:
                if errand.superseded():
                    raise Cancelled("superseded")
                session = self.desk.session
                if part is None and prompt.mask_input is None and prompt.mask is None:
                    scale: PromptScale | None = None if self.desk.looks_closer else "whole"
                    return session.predict_at_scale(image, [prompt], scale, multimask_output=multimask)
                return session.predict(image, [prompt], multimask_output=multimask, part=part)

        def done(objects: list[PredictedObject]) -> None:
            self.doc.offer(objects[0].candidates if objects else ())
            if then_next:
                self.doc.next_candidate()
            self._say_candidate()
            self.desk.show_document()
            if self._accept_when_ready:
                self._accept_when_ready = False
                self.accept()

        def failed(error: SegduoError) -> None:
            self._accept_when_ready = False
            if not isinstance(error, Cancelled):
                self.desk.report(error)

        closer = f" It looks at {side_text(part)} around the view." if part is not None else ""
        self.desk.say(f"Asking the engine for the mask …{closer}")
        self.desk.errands.start("predict", work, done, what="Making the mask", failed=failed)

    def _say_candidate(self) -> None:
        candidate = self.doc.candidate
        if candidate is None:
            self.desk.say("The engine found nothing here; try another point.", "warning")
            return
        if candidate.mask.area == 0:
            self.desk.say("The mask is empty; try another point, or m for another candidate.", "warning")
            return
        if sees_nothing(candidate.mask.predicted_iou):
            self.desk.say("The model sees no object here; try another point, or Enter keeps the mask.", "warning")
            return
        more = "m shows another, " if len(self.doc.candidates) > 1 else ""
        self.desk.say(f"{candidate.mask.area:,} px. Enter keeps it, {more}Space and x correct it, Esc drops it.")

    def action_next_candidate(self) -> None:
        if not self.doc.pointing:
            self.desk.say("Candidates come with a point: Space on an object.")
        elif self.doc.next_candidate():
            self._say_candidate()
            self.desk.show_document()
        else:
            self.ask_for_mask(multimask=True, then_next=True)

    def accept(self) -> None:
        if not self.desk.need_image():
            return
        if not self.doc.pointing:
            if self.doc.refining is None:
                self._tick_under_cross_hair()
            else:
                self.desk.say("Space adds to the mask, x takes away; Escape leaves it as it is.")
            return
        if self.doc.candidate is None:
            if self.desk.errands.busy("predict"):
                self._accept_when_ready = True
            else:
                self._accept_when_ready = True
                self.ask_for_mask()
            return
        if self.doc.candidate.mask.area == 0:
            self.desk.say("An empty mask is not kept; try another point.", "warning")
            return
        mask = self.doc.accept()
        if mask is not None:
            follows = "F7 follows it through the frames" if self.desk.film is not None else "s saves"
            self.desk.say(f"Mask {mask.id} kept: {mask.area:,} px. {follows}, u takes it back.", "good")
        self.edited()

    def _tick_under_cross_hair(self) -> None:
        at = self.desk.picture.cross_hair
        found = self.desk.mask_at(*at) if at else None
        if found is None:
            self.desk.say("Space sets a point here; Enter then keeps the mask.")
            return
        self.doc.current = found
        self.doc.tick([found])
        self.desk.show_document()

    # The masks of the list

    def action_step(self, by: int) -> None:
        found = self.doc.mask(self.doc.step(by))
        if found is None:
            self.desk.say("No masks yet: Space points at an object, a finds all.")
            return
        self.desk.go_to(found)
        self.desk.show_document()

    def action_tick(self) -> None:
        if self.doc.current is not None:
            self.doc.tick([self.doc.current])
            self.desk.show_document()

    def action_tick_all(self, how: Literal["all", "none", "invert"]) -> None:
        self.doc.tick_shown(how)
        self.desk.show_document()

    def delete(self) -> None:
        if not self.doc.selected:
            self.desk.say(
                "Nothing is selected. Space in the list (or t) selects the current mask, A all; then d deletes.",
                "warning",
            )
            return
        count = self.doc.delete(self.doc.selected)
        self.desk.say(f"{counted(count, 'mask')} deleted; u brings {'them' if count > 1 else 'it'} back.")
        self.edited()

    def action_filter(self) -> None:
        def take(bounds: SizeFilter | None) -> None:
            if bounds is not None:
                self.doc.set_filter(bounds)
                self.desk.say(
                    f"Showing {len(self.doc.shown)} of {counted(len(self.doc.masks), 'mask')}. A selects them; f changes the filter."
                    if bounds
                    else "All masks are shown."
                )
                self.desk.show_document()

        self.desk.ask(SizeFilterDialog(self.doc.filter, self.doc.masks), take)

    def undo(self) -> None:
        self._travel(self.doc.undo(), "Taken back", "Nothing to take back.")

    def action_redo(self) -> None:
        self._travel(self.doc.redo(), "Done again", "Nothing to do again.")

    def _travel(self, name: str | None, did: str, nothing: str) -> None:
        self.unask()
        if name is None:
            self.desk.say(nothing)
            self.desk.show_document()
            return
        self.desk.say(f"{did}: {name}.")
        self.edited()
        if self.doc.pointing:
            self.ask_for_mask()

    def chosen(self, message: MaskList.Chosen) -> None:
        self.doc.current = message.mask_id
        if message.toggle:
            self.doc.tick([message.mask_id])
        found = self.doc.mask(message.mask_id)
        if found is not None:
            self.desk.go_to(found)
        self.desk.show_document()

    # The mouse

    def clicked(self, message: PictureView.Clicked) -> None:
        self.desk.canvas.focus()
        self.desk.picture.move_cross_hair(message.x, message.y)
        self.desk.show_cross_hair()
        if message.shift and not self.desk.following:
            self.point(1 if message.button == 1 else 0)

    # Automatic masks

    def action_auto(self) -> None:
        if not self.desk.need_image():
            return

        def load(_: Errand) -> dict[str, AutoParameters]:
            return {name: self.desk.session.auto_defaults(name) for name in PRESETS}

        def ask(presets: dict[str, AutoParameters]) -> None:
            view = self.desk.picture.view
            size = self.desk.pyramid.size if self.desk.pyramid else (0, 0)
            dialog = AutoDialog(
                presets,
                has_masks=bool(self.doc.masks),
                box=self.doc.present.box,
                view=visible_box(view) if view else None,
                advice=advice(size, self.desk.model, next(iter(presets.values()))),
                takes_text=self.desk.model is not None and Capability.TEXT in self.desk.model.capabilities,
            )
            self.desk.ask(dialog, self._run_auto)

        self.desk.errands.start("presets", load, ask, what="Reading the model's presets")

    def _run_auto(self, choice: AutoChoice | None) -> None:
        image = self.desk.image
        if choice is None or image is None:
            return
        doc = self.doc
        dialog = AutoProgress()
        latest: dict[str, Any] = {"masks": 0}

        def on_event(event: AutoEvent) -> None:
            latest["masks"] += event.event == "mask"
            latest["event"] = event

        def show_progress() -> None:
            if "event" in latest and dialog.is_attached:
                dialog.progress(latest["event"], latest["masks"])

        def work(errand: Errand) -> AutoResult:
            with self.desk.engine_lock:
                return self.desk.session.auto(
                    image,
                    choice.parameters,
                    preset=choice.preset,
                    part=choice.part,
                    on_event=on_event,
                    cancelled=errand.superseded,
                )

        def close() -> None:
            timer.stop()
            if dialog.is_attached:
                dialog.dismiss(True)

        def done(result: AutoResult) -> None:
            close()
            if self.doc is doc:
                self._take_generated(choice, result)
            else:
                self.desk.say("Another image was opened meanwhile; its masks were not looked for.", "warning")

        def failed(error: SegduoError) -> None:
            close()
            if not isinstance(error, Cancelled):
                self.desk.report(error)

        def closed(finished: bool | None) -> None:
            if not finished:
                timer.stop()
                self.desk.errands.stop("auto")
                self.desk.say("Cancelled; nothing was changed.")

        timer = self.desk.every(0.15, show_progress)
        self.desk.ask(dialog, closed)
        self.desk.errands.start("auto", work, done, what="Finding all objects", failed=failed)

    def _take_generated(self, choice: AutoChoice, result: AutoResult) -> None:
        if not result.masks:
            self.desk.say(
                "No object passed the thresholds. Lower “predicted IoU” or “stability”, or try the preset fine.",
                "warning",
            )
            return
        removed = self.doc.add_generated(result.masks, choice.addition)
        text = f"{counted(len(result.masks), 'mask')} in {result.seconds:.1f} s"
        if removed:
            text += f", {removed} earlier ones replaced"
        told = [line for line in result.notes if not line.startswith(ROUTINE_NOTE)]
        notes = f" Note: {'; '.join(told)}" if told else ""
        self.desk.say(f"{text}. s saves, Tab goes to the list, u takes them back.{notes}", "good")
        self.edited()


def advice(size: tuple[int, int], model: ChosenModel | None, first: AutoParameters) -> str:
    """What to say of the scale of an image of this width and height in pixels, as the command line does; empty for nothing.

    ``first`` is what the dialog begins with.
    """
    from segment_duo.segmenters.advice import scale_advice, tile_advice

    if model is None or not model.input_size:
        return ""
    if tile := tile_advice(*size):
        return f"A large image: tiles of {tile:,} px find small objects in it."
    if first.scale == "whole" and scale_advice(*size, model.input_size):
        return f"{model.id} shrinks this image to {model.input_size:,} px; if small objects are missed, look at both scales."
    return ""


def visible_box(view: Viewport) -> Box | None:
    """The part of the image that is shown, in whole pixels; None when that is all of it."""
    x0, y0, x1, y1 = view.visible()
    box = Box(int(x0), int(y0), min(round(x1), view.image_width) - 1, min(round(y1), view.image_height) - 1)
    whole = box == Box(0, 0, view.image_width - 1, view.image_height - 1)
    return None if whole or box.x1 <= box.x0 or box.y1 <= box.y0 else box
