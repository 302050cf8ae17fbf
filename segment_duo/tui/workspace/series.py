"""Getting through a series: the images of the list on the left, one after the other. Done is what the user says, or else what has
saved masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.timer import Timer

from segment_duo.errors import Cancelled, StoreError
from segment_duo.tui.done import DoneMarks
from segment_duo.tui.errands import Errand
from segment_duo.tui.workspace.desk import Desk

AHEAD_PAUSE = 1.0
"""Seconds after an image is ready before the next one is prepared: who looks at a mask first must not wait for it."""


class Series:
    """Args:
    marks: what the user says is done.
    open_image: opens an image, as users type it; asks about unsaved work.
    """

    def __init__(self, desk: Desk, marks: DoneMarks, open_image: Callable[[str], None]) -> None:
        self.desk = desk
        self._marks = marks
        self._open = open_image
        self.walking = False
        """Whether the user goes through a series, so that preparing the next image is worth its while."""
        self._timer: Timer | None = None

    def action_image(self, by: int) -> None:
        """The next (1) or the previous (-1) image of the list."""
        self._go(by, undone=False)

    def action_undone(self, by: int) -> None:
        """The next or the previous image that is not done."""
        self._go(by, undone=True)

    def action_only_undone(self) -> None:
        """List only images that are not done, or all."""
        folder = self.desk.explorer.list
        folder.set_only_undone(not folder.only_undone)
        self.desk.explorer.remove_class("-hidden")
        self.desk.say(
            "The list shows images that are not done; F4 shows all."
            if folder.only_undone
            else "The list shows all images."
        )

    def action_done(self) -> None:
        """Mark the image as done, or as not done."""
        image, images = self.desk.image, self.desk.explorer.list
        if not self.desk.need_image() or image is None:
            return
        target = str(image.ref)
        item = next((item for item in images.items if item.target == target), None)
        now = images.marks.get(target, item.saved if item else False)

        def work(_: Errand) -> dict[str, bool]:
            try:
                self._marks.write(target, not now)
            except OSError as error:
                raise StoreError(
                    f"the mark could not be kept: {error.strerror}", "Masks are saved as before."
                ) from None
            return self._marks.read()

        def done(marks: dict[str, bool]) -> None:
            images.set_marks(marks)
            more = "" if now else " } goes to the next that is not done."
            self.desk.say(f"{image.ref.name} is marked {'not done' if now else 'done'}; C changes it.{more}")
            self.desk.show_header()

        self.desk.errands.start("done", work, done, what="Marking the image")

    def _go(self, by: int, *, undone: bool) -> None:
        self.walking = True
        target = self._neighbour(by, undone=undone)
        if target is not None:
            self._open(target)
            return
        what = " that is not done" if undone else ""
        self.desk.say(f"There is no {'further' if by > 0 else 'earlier'} image{what} in the list.")

    def _neighbour(self, by: int, *, undone: bool) -> str | None:
        image = self.desk.image
        return self.desk.explorer.list.neighbour(str(image.ref) if image else "", by, undone=undone)

    def prepare_next(self) -> None:
        """Embed the next image in the background, a moment from now. Failures are told when it is opened."""
        self.stop()
        if self.walking:
            self._timer = self.desk.later(AHEAD_PAUSE, self._prepare)

    def stop(self) -> None:
        """The image changes: what was ahead is not any more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.desk.errands.stop("ahead")
        self.desk.ahead = ""

    def _prepare(self) -> None:
        target = self._neighbour(1, undone=False)
        if target is None:
            return
        desk = self.desk

        def work(errand: Errand) -> Any:
            with desk.store_lock:
                if errand.superseded():
                    raise Cancelled("superseded")
                image = desk.session.open_image(desk.session.reference(target))
            with desk.engine_lock:
                if errand.superseded():
                    raise Cancelled("superseded")
                return desk.session.embed(image)

        desk.ahead = target
        desk.errands.start("ahead", work, lambda _: None, what="Preparing the next image", failed=lambda _: None)
