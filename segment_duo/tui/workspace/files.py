"""Opening images and their pages, folders of images as films, and their saved versions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

from segment_duo.errors import NotFound, SegduoError
from segment_duo.tui.errands import Errand
from segment_duo.tui.journal import Draft
from segment_duo.tui.ports import ListedSetPort, LoadedSetPort, OpenImagePort
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.tui.state import Document
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.tui.workspace.drafts import Drafts
from segment_duo.tui.workspace.engine_line import EngineLine
from segment_duo.tui.workspace.frames import Frames, OpenedFilm
from segment_duo.types import ImageRef, Mask

MUCH = 4
"""Times that an image is shrunk for the model, from which it is told."""


COUNTED = "(they count from 0)"
"""How the session ends what it tells of a stack's pages, which the bar of frames shows."""


class Files:
    """Args:
    unless_unsaved: does something that gives the document up, and asks before; gets what to do, and its name.
    ask_for_mask: asks the engine for the mask of the document's points.
    settle: ends what is being drawn, as done.
    let_go: gives up what is under way for the masks that are shown.
    frames: goes through the frames of a stack or film.
    """

    def __init__(
        self,
        desk: Desk,
        drafts: Drafts,
        engine: EngineLine,
        frames: Frames,
        *,
        unless_unsaved: Callable[[Callable[[], Any], str], None],
        ask_for_mask: Callable[[], None],
        settle: Callable[[], None],
        let_go: Callable[[], None],
    ) -> None:
        self.desk = desk
        self.drafts = drafts
        self.engine = engine
        self.frames = frames
        self._unless_unsaved = unless_unsaved
        self._ask_for_mask = ask_for_mask
        self._settle = settle
        self._let_go = let_go
        self._banner: Literal["auto", "off"] = "auto"

    def open_target(self, target: str, *, film: bool = False) -> None:
        """Open what the user typed or chose: an image, or with ``film`` what frames come from."""

        def work(_: Errand) -> ImageRef:
            return self.desk.session.reference(target)

        opened = self.open_film if film else self.open_image
        self._unless_unsaved(
            lambda: self.desk.errands.start("open", work, opened, what="Opening"), "open another image"
        )

    def open_film(self, ref: ImageRef, *, draft: Draft | None = None) -> None:
        """Read a folder of images, a pattern, a stack or a film, and show it as frames.

        Args:
            draft: unsaved work on its frames to bring back.
        """

        def work(_: Errand) -> OpenedFilm:
            return self.frames.read(ref, draft)

        def show(opened: OpenedFilm) -> None:
            self._begin_anew()
            self.frames.begin(opened)
            self._bring_forward(ref)
            if draft is not None:
                self.drafts.write(lambda: self.desk.journal.discard(draft))
            self._say_film(opened, draft is not None)

        self._start_opening(ref, work, show)

    def open_image(
        self,
        ref: ImageRef,
        *,
        draft: Draft | None = None,
        keep: bool = False,
        page: int = 0,
        version: str | None = None,
        as_page: bool = False,
    ) -> None:
        """Read an image and show it.

        Args:
            draft: unsaved work to bring back.
            keep: only the banner changes, the document stays.
            version: of its saved sets; None: the latest, if there is one.
            as_page: of a stack one page, with masks of its own, whatever was saved last.
        """
        banner = self._banner if keep else "auto"
        if draft is not None:
            page = draft.page

        def work(_: Errand) -> tuple[OpenImagePort, Any]:
            from segment_duo.images.view import Pyramid

            with self.desk.store_lock:
                image = self.desk.session.open_image(ref, page=page, banner=banner)
            return image, Pyramid(image.data.pixels)

        def show(result: tuple[OpenImagePort, Any]) -> None:
            self.desk.image, self.desk.pyramid = result
            self._banner = banner
            if not keep:
                self._begin_anew()
            self.desk.picture.show_image(self.desk.pyramid, keep_view=keep)
            self.desk.show_document()
            if not keep:
                self._bring_forward(ref)
            self._say_opened(keep)
            self.engine.embed()
            if keep:
                return
            as_page_only = as_page or draft is not None

            def load() -> None:
                if draft is None:
                    self._load(version)
                else:
                    self._bring_back(draft)

            self.frames.opened(self.desk.image, load, as_page=as_page_only)

        self._start_opening(ref, work, show, keep=keep)

    def _start_opening(
        self, ref: ImageRef, work: Callable[[Errand], Any], show: Callable[[Any], None], *, keep: bool = False
    ) -> None:
        """Read something in a thread, then show it in place of what is open; asks first if that was edited meanwhile."""
        begun_with = self.desk.doc.masks

        def done(result: Any) -> None:
            if not keep:
                self._settle()
            if keep or self.desk.doc.masks is begun_with:
                show(result)
            else:
                self._unless_unsaved(lambda: show(result), "open another image")

        self.desk.say(f"Reading {ref.name} …")
        self.desk.errands.stop("load")
        self.desk.errands.stop("ahead")
        self.desk.errands.stop("predict")
        self.desk.errands.start("open", work, done, what="Opening the image")

    def _begin_anew(self) -> None:
        """Give up all that is of the image before, with what was begun while this one was being read."""
        self._let_go()
        self.desk.doc = Document()
        self.desk.known_versions = None
        self.desk.measure_from = self.desk.cut_from = None

    def _bring_forward(self, ref: ImageRef) -> None:
        self.desk.canvas.remove_class("-empty")
        self.desk.explorer.list.mark_open(str(ref))
        self._make_room()
        self.desk.canvas.focus()

    def _bring_back(self, draft: Draft) -> None:
        """Unsaved work on top of the version it was begun with, so that undo leads back to that."""
        image = self.desk.image
        if image is None:
            return

        def restore() -> None:
            self.desk.doc.restored(draft.masks, draft.points, draft.version)
            self.drafts.write(lambda: self.desk.journal.discard(draft))
            if draft.sha256 and image.data.facts.sha256 != draft.sha256:
                self.desk.say(f"{image.ref.name} has changed since this work was begun; check the masks.", "warning")
            else:
                self.desk.say("Your unsaved work is back; s saves it, u goes back to what was saved before.", "good")
            self.desk.show_document()
            if self.desk.doc.pointing:
                self._ask_for_mask()

        def work(_: Errand) -> LoadedSetPort | None:
            with self.desk.store_lock, contextlib.suppress(SegduoError):
                return self.desk.session.sets.load(image.ref, draft.version, image.data.facts)
            return None

        def done(loaded: LoadedSetPort | None) -> None:
            if loaded is not None:
                self.desk.doc.loaded(fitting(loaded.mask_set.masks, image)[0], loaded.version.name)
            restore()

        if draft.version is None:
            restore()
        else:
            self.desk.errands.start("load", work, done, what="Loading the version", failed=lambda _: restore())

    def _make_room(self) -> None:
        """On a small screen the picture needs the explorer's place; o brings it back."""
        if self.desk.screen.size.width < 110:
            self.desk.explorer.add_class("-hidden")

    def _say_film(self, opened: OpenedFilm, brought_back: bool) -> None:
        film, facts = opened.film, opened.shown[0].data.facts
        if brought_back:
            self.desk.say("Your unsaved work is back; s saves it, F7 follows its objects, u takes it back.", "good")
        elif opened.trouble is not None:
            self.desk.report(opened.trouble)
        elif film.warnings and not (opened.tracks is not None and opened.tracks.notice):
            self.desk.say(f"{film.ref.name}: {'; '.join(film.warnings)}", "warning")
        elif opened.tracks is not None:
            self.frames.say_loaded()
        else:
            self.desk.say(
                f"{counted(film.count, 'frame')} of {facts.width} × {facts.height} px, {facts.dtype}. "
                "Comma and full stop step, Space points at an object, F7 follows."
            )

    def _say_opened(self, keep: bool) -> None:
        told = self.desk.message
        if self.desk.image is None or (told.tone == "warning" and not told.text.endswith(COUNTED)):
            return
        facts = self.desk.image.data.facts
        parts = [f"{facts.width} × {facts.height} px, {facts.dtype}"]
        if facts.banner.height:
            parts.append(f"info banner of {facts.banner.height} rows cut (b shows it)")
        elif keep:
            parts.append("nothing cut")
        if facts.pages > 1:
            parts.append(
                f"page {facts.page} of 0 to {facts.pages - 1}: PageDown and PageUp turn it, comma and full stop step through the frames"
            )
        parts += facts.warnings[:1]
        model = self.desk.model
        if model is not None and model.input_size and max(facts.width, facts.cut_height) >= MUCH * model.input_size:
            shrunk = max(facts.width, facts.cut_height) / model.input_size
            parts.append(f"{model.id} sees it shrunk {shrunk:.0f} times: zoom in to point at small objects")
        self.desk.say(
            ". ".join(parts)
            + (". Arrows move the cross-hair, Space points at an object, a finds all." if not keep else ".")
        )

    def action_banner(self) -> None:
        if self.desk.need_image() and self.desk.image is not None:
            self._banner = "off" if self.desk.image.data.facts.banner.height else "auto"
            self.open_image(self.desk.image.ref, keep=True, page=self.desk.image.data.facts.page)

    def action_page(self, by: int) -> None:
        """Another page of a stack; each has masks of its own."""
        image = self.desk.image
        if not self.desk.need_image() or image is None:
            return
        facts = image.data.facts
        page = facts.page + by
        if self.desk.film is not None:
            self.frames.step(by)
        elif facts.pages < 2:
            self.desk.say("This image has one page only.")
        elif not 0 <= page < facts.pages:
            self.desk.say(f"This is the {'last' if by > 0 else 'first'} of {facts.pages} pages.")
        else:
            self._unless_unsaved(lambda: self.open_image(image.ref, page=page, as_page=True), "turn the page")

    # Saved versions

    def _load(self, name: str | None) -> None:
        """Load a saved version into the document; None: the latest, if there is one."""
        image = self.desk.image
        if image is None:
            return

        def work(_: Errand) -> LoadedSetPort:
            with self.desk.store_lock:
                with contextlib.suppress(SegduoError):
                    self.desk.known_versions = {found.name for found in self.desk.session.sets.versions(image.ref)}
                return self.desk.session.sets.load(image.ref, name, image.data.facts)

        def done(loaded: LoadedSetPort) -> None:
            if name is None and (self.desk.doc.unsaved or self.desk.doc.pointing):
                return  # the user was quicker; v loads it
            masks, misfits = fitting(loaded.mask_set.masks, image)
            self.desk.doc.loaded(masks, loaded.version.name)
            text = f"Version {loaded.version.name}: {counted(len(masks), 'mask')}."
            if misfits:
                text += f" {counted(misfits, 'mask')} of another image size left out."
            if loaded.notice:
                text += f" Note: {loaded.notice}."
            self.desk.say(f"{text} v shows the other versions.", "warning" if misfits or loaded.notice else "info")
            self._let_go()
            self.desk.show_document()
            self.drafts.forget()

        def failed(error: SegduoError) -> None:
            if name is not None or not isinstance(error, NotFound):
                self.desk.report(error)

        self.desk.errands.start("load", work, done, what="Loading the version", failed=failed)

    def action_versions(self) -> None:
        image = self.desk.image
        if not self.desk.need_image() or image is None:
            return

        film = self.desk.film
        file = image.ref if film is None else film.named

        def work(_: Errand) -> Sequence[ListedSetPort]:
            with self.desk.store_lock:
                return self.desk.session.sets.listed(file, image.data.facts)

        def load(name: str, *, of_frames: bool) -> None:
            if of_frames or (film is not None and film.of_files):
                self.frames.load(name, self.frames.say_loaded)
            elif film is None:
                self._load(name)
            else:
                self.open_image(file, page=image.data.facts.page, version=name, as_page=True)

        def done(found: Sequence[ListedSetPort]) -> None:
            self.desk.known_versions = {item.version.name for item in found}
            of_frames = {item.version.name: item.peek is not None and item.peek.frames is not None for item in found}

            def take(name: str | None) -> None:
                if name is not None:
                    self._unless_unsaved(lambda: load(name, of_frames=of_frames[name]), "load another version")

            self.desk.ask(VersionPicker(found, self.desk.doc.version), take)

        self.desk.errands.start("versions", work, done, what="Listing the versions")


def fitting(masks: tuple[Mask, ...], image: OpenImagePort) -> tuple[tuple[Mask, ...], int]:
    """The masks that have the image's uncut size, and how many have not."""
    facts = image.data.facts
    good = tuple(mask for mask in masks if (mask.rle.width, mask.rle.height) == (facts.width, facts.height))
    return good, len(masks) - len(good)
