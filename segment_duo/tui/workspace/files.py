"""Opening images, saved versions, saving."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from segment_duo.errors import NotFound, SegduoError
from segment_duo.tui.jobs import Job
from segment_duo.tui.journal import Draft
from segment_duo.tui.ports import LoadedSet, OpenImage, Saved
from segment_duo.tui.screens.ask import TypeLine
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.tui.state import Document
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.workspace.desk import Desk
from segment_duo.tui.workspace.drafts import Drafts
from segment_duo.tui.workspace.engine_line import EngineLine
from segment_duo.types import ImageRef, Mask, Version


class Files:
    """Args:
    listed: called when the folder's marks may have changed.
    ask_for_mask: asks the engine for the mask of the document's points.
    """

    def __init__(
        self,
        desk: Desk,
        drafts: Drafts,
        engine: EngineLine,
        *,
        listed: Callable[[], None],
        ask_for_mask: Callable[[], None],
    ) -> None:
        self.desk = desk
        self.drafts = drafts
        self.engine = engine
        self._listed = listed
        self._ask_for_mask = ask_for_mask
        self._banner: Literal["auto", "off"] = "auto"

    def open_target(self, target: str) -> None:
        def work(_: Job) -> ImageRef:
            return self.desk.session.reference(target)

        self.unless_unsaved(
            lambda: self.desk.jobs.start("open", work, self.open_image, what="Opening"), "open another image"
        )

    def open_image(self, ref: ImageRef, *, draft: Draft | None = None, keep: bool = False) -> None:
        """Read an image and show it. ``keep``: only the banner changes, the document stays. ``draft``: unsaved work to bring back."""
        banner = self._banner if keep else "auto"

        def work(_: Job) -> tuple[OpenImage, Any]:
            from segment_duo.images.view import Pyramid

            with self.desk.store_lock:
                image = self.desk.session.open_image(ref, banner=banner)
            return image, Pyramid(image.data.pixels)

        def done(result: tuple[OpenImage, Any]) -> None:
            self.desk.image, self.desk.pyramid = result
            self._banner = banner
            if not keep:
                self._new_document(ref, draft)
            self.desk.canvas.remove_class("-empty")
            self.desk.picture.show_image(self.desk.pyramid, keep_view=keep)
            self.desk.show_document()
            if not keep:
                self.desk.explorer.list.mark_open(str(ref))
                self._make_room()
                self.desk.canvas.focus()
            self._say_opened(keep)
            self.engine.embed()
            if draft is None and not keep:
                self._load(None)

        self.desk.say(f"Reading {ref.name} …")
        self.desk.jobs.stop("load")
        self.desk.jobs.stop("predict")
        self.desk.jobs.start("open", work, done, what="Opening the image")

    def unless_unsaved(self, go_on: Callable[[], Any], what: str) -> None:
        """Do something that gives the document up; asks first when there is unsaved work."""
        self.drafts.unless_unsaved(go_on, what, lambda then: self.save("", then))

    def _new_document(self, ref: ImageRef, draft: Draft | None) -> None:
        self.desk.doc = Document()
        if draft is None:
            return
        self.desk.doc.loaded(draft.masks, draft.version, saved=False)
        self.desk.doc.present = dataclasses.replace(self.desk.doc.present, points=draft.points)
        self.drafts.write(lambda: self.desk.journal.discard(draft))
        image = self.desk.image
        if image is not None and draft.sha256 and image.data.facts.sha256 != draft.sha256:
            self.desk.say(f"{ref.name} has changed since this work was begun; check the masks.", "warning")
        if self.desk.doc.pointing:
            self._ask_for_mask()

    def _make_room(self) -> None:
        """On a small screen the picture needs the explorer's place; o brings it back."""
        if self.desk.screen.size.width < 110:
            self.desk.explorer.add_class("-hidden")

    def _say_opened(self, keep: bool) -> None:
        if self.desk.image is None or self.desk.message.tone == "warning":
            return
        facts = self.desk.image.data.facts
        parts = [f"{facts.width} × {facts.height} px, {facts.dtype}"]
        if facts.banner.height:
            parts.append(f"info banner of {facts.banner.height} rows cut (b shows it)")
        elif keep:
            parts.append("nothing cut")
        parts += facts.warnings[:1]
        self.desk.say(
            ". ".join(parts)
            + (". Arrows move the cross-hair, Space points at an object, a finds all." if not keep else ".")
        )

    def action_banner(self) -> None:
        if self.desk.need_image() and self.desk.image is not None:
            self._banner = "off" if self.desk.image.data.facts.banner.height else "auto"
            self.open_image(self.desk.image.ref, keep=True)

    # Saved versions

    def _load(self, name: str | None) -> None:
        """Load a saved version into the document; None: the latest, if there is one."""
        image = self.desk.image
        if image is None:
            return

        def work(_: Job) -> LoadedSet:
            with self.desk.store_lock:
                return self.desk.session.sets.load(image.ref, name, image.data.facts)

        def done(loaded: LoadedSet) -> None:
            if name is None and (self.desk.doc.unsaved or self.desk.doc.pointing):
                return  # the user was quicker; v loads it
            masks, misfits = fitting(loaded.mask_set.masks, image)
            self.desk.doc.loaded(masks, loaded.version.name)
            text = f"Version {loaded.version.name}: {len(masks)} masks."
            if misfits:
                text += f" {misfits} masks of another image size were left out."
            if loaded.notice:
                text += f" Note: {loaded.notice}."
            self.desk.say(f"{text} v shows the other versions.", "warning" if misfits or loaded.notice else "info")
            self.desk.jobs.stop("predict")
            self.desk.show_document()
            self.drafts.forget()

        def failed(error: SegduoError) -> None:
            if name is not None or not isinstance(error, NotFound):
                self.desk.report(error)

        self.desk.jobs.start("load", work, done, what="Loading the version", failed=failed)

    def action_versions(self) -> None:
        image = self.desk.image
        if not self.desk.need_image() or image is None:
            return

        def work(_: Job) -> list[Version]:
            with self.desk.store_lock:
                return self.desk.session.sets.versions(image.ref)

        def take(name: str | None) -> None:
            if name is not None:
                self.unless_unsaved(lambda: self._load(name), "load another version")

        def done(versions: list[Version]) -> None:
            self.desk.ask(VersionPicker(versions, self.desk.doc.version), take)

        self.desk.jobs.start("versions", work, done, what="Listing the versions")

    # Saving

    def action_save(self) -> None:
        self.save("")

    def action_save_as(self) -> None:
        if not self.desk.need_image():
            return

        def wrong(text: str) -> str:
            if not text.strip():
                return "Type a word, for example grains."
            if any(not (char.isalnum() or char in "-_") for char in text.strip()):
                return "Letters, digits, - and _ only, please."
            return ""

        def take(text: str | None) -> None:
            if text:
                self.save(text.strip())

        stem = self.desk.image.ref.stem if self.desk.image else ""
        self.desk.ask(TypeLine("Save with suffix", f"Saved as {stem}_SUFFIX", check=wrong, placeholder="grains"), take)

    def save(self, suffix: str, then: Callable[[], None] | None = None) -> None:
        """Save all masks as a new version, then go on with ``then``."""
        image, masks, parent = self.desk.image, self.desk.doc.masks, self.desk.doc.version
        if not self.desk.need_image() or image is None:
            return
        if not masks and not self.desk.doc.unsaved:
            more = " Enter keeps the one that is shown." if self.desk.doc.candidate else ""
            self.desk.say(f"There are no masks to save yet.{more}")
            return
        if self.desk.jobs.busy("save"):
            return

        def work(_: Job) -> Saved:
            with self.desk.store_lock:
                return self.desk.session.save(image, masks, operation="tui", suffix=suffix, parent=parent)

        def done(saved: Saved) -> None:
            if self.desk.image is not None and self.desk.image.ref == image.ref:
                self.desk.doc.saved_as(masks, saved.version.name if saved.version else parent)
                self.desk.show_document()
                if not self.desk.doc.unsaved:
                    self.drafts.forget()
            if saved.spooled is not None:
                self.desk.say(
                    "Drops is away: kept on this machine. `segduo masks push`, or the next save, delivers it.",
                    "warning",
                )
            else:
                self.desk.say(f"Saved {len(masks)} masks: {short_path(saved.path)}", "good")
                self._listed()
            if then is not None:
                then()

        def failed(error: SegduoError) -> None:
            hint = error.hint or "The masks are kept here; try again with s, or S for another name."
            self.desk.say(f"Not saved: {error.message.rstrip('.')}. {hint}", "error")

        self.desk.say("Saving …")
        self.desk.jobs.start("save", work, done, what="Saving", failed=failed)


def fitting(masks: tuple[Mask, ...], image: OpenImage) -> tuple[tuple[Mask, ...], int]:
    """The masks that have the image's uncut size, and how many have not."""
    facts = image.data.facts
    good = tuple(mask for mask in masks if (mask.rle.width, mask.rle.height) == (facts.width, facts.height))
    return good, len(masks) - len(good)
