"""Folders, opening images, saved versions, saving, and the unsaved work of earlier sessions."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from textual.timer import Timer

from segment_duo.errors import NotFound, SegduoError
from segment_duo.tui.explorer.explorer import FolderList, Item
from segment_duo.tui.jobs import Job
from segment_duo.tui.journal import Draft
from segment_duo.tui.ports import LoadedSet, OpenImage, Saved
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.tui.state import Document
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.workspace.editing import Editing
from segment_duo.types import ImageRef, Mask, StoreKind, Version

PLACES = ""
"""The pseudo-folder that lists where one can go."""
DRAFT_PAUSE = 0.3
"""Seconds after an edit before the journal is written, so that a series of edits is one write."""


class Files(Editing):
    folder = PLACES
    _banner: Literal["auto", "off"] = "auto"
    _draft_timer: Timer | None = None

    # Folders

    def start_at(self, text: str) -> None:
        """Open what was named on the command line: a folder or an image."""

        def work(_: Job) -> tuple[str, bool]:
            ref = self.session.reference(text)
            return str(ref), is_folder(ref)

        def done(found: tuple[str, bool]) -> None:
            target, folder = found
            if folder:
                self.show_folder(target, focus=True)
            else:
                self.show_folder(parent_of(target), at=target)
                self.open_target(target)

        self.jobs.start("start", work, done, what="Opening")

    def show_folder(self, target: str, *, at: str = "", focus: bool = False) -> None:
        """List a folder in the explorer; "" lists the places."""
        if target == PLACES:
            self._show_places()
            return

        def work(_: Job) -> tuple[Item, ...]:
            with self.store_lock:
                ref = self.session.reference(target)
                entries = self.session.list_folder(target)
                saved = self.session.sets.stems(ref)
            return folder_items(ref, entries, saved)

        def done(items: tuple[Item, ...]) -> None:
            self.folder = target
            self.explorer.show_title(short_path(target))
            images = sum(not item.is_folder for item in items)
            self.explorer.show(items, hint="no images here", at=at)
            if not self.image:
                self.say(
                    f"{images} image{'s' * (images != 1)} here. Enter opens, typing narrows the list, F1 shows all keys."
                )

        def failed(error: SegduoError) -> None:
            self.report(error)
            if not self.explorer.list.items:
                self._show_places()

        if focus:
            self.explorer.remove_class("-hidden")
            self.explorer.list.focus()
        self.jobs.start("folder", work, done, what="Reading the folder", failed=failed)

    def _show_places(self) -> None:
        self.folder = PLACES
        config = getattr(self.session, "config", None)
        items = [
            Item("working folder", str(Path.cwd()), True, note="local"),
            Item("home", str(Path.home()), True, note="local"),
        ]
        start = getattr(config, "start_folder", None)
        if start:
            items.insert(0, Item(start, start, True, note="start"))
        self.explorer.show_title("places")
        self.explorer.show(tuple(items))
        self.say("Ctrl+O types a path; those on Drops begin with /drops/.")

    def on_folder_list_chosen(self, message: FolderList.Chosen) -> None:
        if message.item.is_folder:
            self.show_folder(message.item.target)
        else:
            self.open_target(message.item.target)

    def action_choose(self) -> None:
        self.explorer.list.choose()

    def action_up(self) -> None:
        if self.folder != PLACES:
            self.show_folder(parent_of(self.folder), at=self.folder)

    def action_reload(self) -> None:
        items = self.explorer.list.items
        at = items[self.explorer.list.cursor].target if items else ""
        self.show_folder(self.folder, at=at)

    def action_back(self) -> None:
        if self.explorer.list.filter:
            self.explorer.list.set_filter("")
        elif self.image is not None:
            self.canvas.focus()

    def action_explorer(self) -> None:
        hidden = self.explorer.has_class("-hidden")
        if hidden or self.focused is not self.explorer.list:
            self.explorer.remove_class("-hidden")
            self.explorer.list.focus()
        else:
            self.explorer.add_class("-hidden")
            self.canvas.focus()

    def action_open_path(self) -> None:
        on_drops = self.folder.startswith("/drops")
        question = "A folder or an image; /drops/... is on the server."

        def take(text: str | None) -> None:
            if text and text.strip():
                self.start_at(drops_path(text.strip(), on_drops))

        value = str(self.image.ref) if self.image else (self.folder or str(Path.cwd()))
        self.app.push_screen(TypeLine("Open a path", question, value=value), take)

    # Images

    def open_target(self, target: str) -> None:
        def work(_: Job) -> ImageRef:
            return self.session.reference(target)

        self.unless_unsaved(
            lambda: self.jobs.start("open", work, self.open_image, what="Opening"), "open another image"
        )

    def open_image(self, ref: ImageRef, *, draft: Draft | None = None, keep: bool = False) -> None:
        """Read an image and show it. ``keep``: only the banner changes, the document stays. ``draft``: unsaved work to bring back."""
        banner = self._banner if keep else "auto"

        def work(_: Job) -> tuple[OpenImage, Any]:
            from segment_duo.images.view import Pyramid

            with self.store_lock:
                image = self.session.open_image(ref, banner=banner)
            return image, Pyramid(image.data.pixels)

        def done(result: tuple[OpenImage, Any]) -> None:
            self.image, self.pyramid = result
            self._banner = banner
            if not keep:
                self._new_document(ref, draft)
            self.canvas.remove_class("-empty")
            self.picture.show_image(self.pyramid, keep_view=keep)
            self.show_document()
            if not keep:
                self.explorer.list.mark_open(str(ref))
                self._make_room()
                self.canvas.focus()
            self._say_opened(keep)
            self._embed()
            if draft is None and not keep:
                self._load(None)

        self.say(f"Reading {ref.name} …")
        self.jobs.stop("load")
        self.jobs.stop("predict")
        self.jobs.start("open", work, done, what="Opening the image")

    def _new_document(self, ref: ImageRef, draft: Draft | None) -> None:
        self.doc = Document()
        if draft is None:
            return
        self.doc.loaded(draft.masks, draft.version, saved=False)
        self.doc.present = dataclasses.replace(self.doc.present, points=draft.points)
        self._write_draft(lambda: self.journal.discard(draft))
        image = self.image
        if image is not None and draft.sha256 and image.data.facts.sha256 != draft.sha256:
            self.say(f"{ref.name} has changed since this work was begun; check the masks.", "warning")
        if self.doc.pointing:
            self.ask_for_mask()

    def _make_room(self) -> None:
        """On a small screen the picture needs the explorer's place; o brings it back."""
        if self.size.width < 110:
            self.explorer.add_class("-hidden")

    def _say_opened(self, keep: bool) -> None:
        if self.image is None or self.message.tone == "warning":
            return
        facts = self.image.data.facts
        parts = [f"{facts.width} × {facts.height} px, {facts.dtype}"]
        if facts.banner.height:
            parts.append(f"info banner of {facts.banner.height} rows cut (b shows it)")
        elif keep:
            parts.append("nothing cut")
        parts += facts.warnings[:1]
        self.say(
            ". ".join(parts)
            + (". Arrows move the cross-hair, Space points at an object, a finds all." if not keep else ".")
        )

    def _embed(self) -> None:
        image = self.image
        if image is None:
            return

        def work(job: Job) -> Any:
            with self.engine_lock:
                return None if job.superseded() else self.session.embed(image)

        def done(_: Any) -> None:
            self._engine_says("ready")

        def failed(error: SegduoError) -> None:
            self._engine_says("not available")
            self.report(error)

        self._engine_says("looking at the image …")
        self.jobs.start("embed", work, done, what="Preparing the image", failed=failed)

    def _engine_says(self, state: str) -> None:
        self._engine_state = state
        self.show_engine()

    _engine_state = "not asked yet"

    def show_engine(self) -> None:
        raise NotImplementedError

    def action_banner(self) -> None:
        if self.need_image() and self.image is not None:
            self._banner = "off" if self.image.data.facts.banner.height else "auto"
            self.open_image(self.image.ref, keep=True)

    # Saved versions

    def _load(self, name: str | None) -> None:
        """Load a saved version into the document; None: the latest, if there is one."""
        image = self.image
        if image is None:
            return

        def work(_: Job) -> LoadedSet:
            with self.store_lock:
                return self.session.sets.load(image.ref, name, image.data.facts)

        def done(loaded: LoadedSet) -> None:
            if name is None and (self.doc.unsaved or self.doc.pointing):
                return  # the user was quicker; v loads it
            masks, misfits = fitting(loaded.mask_set.masks, image)
            self.doc.loaded(masks, loaded.version.name)
            text = f"Version {loaded.version.name}: {len(masks)} masks."
            if misfits:
                text += f" {misfits} masks of another image size were left out."
            if loaded.notice:
                text += f" Note: {loaded.notice}."
            self.say(f"{text} v shows the other versions.", "warning" if misfits or loaded.notice else "info")
            self.jobs.stop("predict")
            self.show_document()
            self._forget_draft()

        def failed(error: SegduoError) -> None:
            if name is not None or not isinstance(error, NotFound):
                self.report(error)

        self.jobs.start("load", work, done, what="Loading the version", failed=failed)

    def action_versions(self) -> None:
        image = self.image
        if not self.need_image() or image is None:
            return

        def work(_: Job) -> list[Version]:
            with self.store_lock:
                return self.session.sets.versions(image.ref)

        def take(name: str | None) -> None:
            if name is not None:
                self.unless_unsaved(lambda: self._load(name), "load another version")

        def done(versions: list[Version]) -> None:
            self.app.push_screen(VersionPicker(versions, self.doc.version), take)

        self.jobs.start("versions", work, done, what="Listing the versions")

    # Saving

    def action_save(self) -> None:
        self.save("")

    def action_save_as(self) -> None:
        if not self.need_image():
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

        stem = self.image.ref.stem if self.image else ""
        self.app.push_screen(
            TypeLine("Save with suffix", f"Saved as {stem}_SUFFIX", check=wrong, placeholder="grains"), take
        )

    def save(self, suffix: str, then: Callable[[], None] | None = None) -> None:
        """Save all masks as a new version, then go on with ``then``."""
        image, masks, parent = self.image, self.doc.masks, self.doc.version
        if not self.need_image() or image is None:
            return
        if not masks and not self.doc.unsaved:
            more = " Enter keeps the one that is shown." if self.doc.candidate else ""
            self.say(f"There are no masks to save yet.{more}")
            return
        if self.jobs.busy("save"):
            return
        parameters = self._parameters()

        def work(_: Job) -> Saved:
            with self.store_lock:
                return self.session.save(
                    image, masks, operation="tui", parameters=parameters, suffix=suffix, parent=parent
                )

        def done(saved: Saved) -> None:
            if self.image is not None and self.image.ref == image.ref:
                self.doc.saved_as(masks, saved.version.name if saved.version else parent)
                self.show_document()
                if not self.doc.unsaved:
                    self._forget_draft()
            if saved.spooled is not None:
                self.say(
                    "Drops is away: kept on this machine. `segduo masks push`, or the next save, delivers it.",
                    "warning",
                )
            else:
                self.say(f"Saved {len(masks)} masks: {short_path(saved.path)}", "good")
                self.action_reload()
            if then is not None:
                then()

        def failed(error: SegduoError) -> None:
            hint = error.hint or "The masks are kept here; try again with s, or S for another name."
            self.say(f"Not saved: {error.message.rstrip('.')}. {hint}", "error")

        self.say("Saving …")
        self.jobs.start("save", work, done, what="Saving", failed=failed)

    def _parameters(self) -> dict[str, Any]:
        choice = self.generated_with
        if choice is None or not any(mask.source == "auto" for mask in self.doc.masks):
            return {}
        values = {
            field.name: getattr(choice.parameters, field.name)
            for field in dataclasses.fields(choice.parameters)
            if field.name not in ("point_grids", "region")
        }
        region = choice.parameters.region
        return {"preset": choice.preset, **values, "region": list(dataclasses.astuple(region)) if region else None}

    # Unsaved work

    def unless_unsaved(self, go_on: Callable[[], Any], what: str) -> None:
        """Do something that gives the document up; asks first when there is unsaved work."""
        if not self.doc.unsaved:
            self._forget_draft()
            go_on()
            return

        def answered(answer: str | None) -> None:
            if answer == "save":
                self.save("", then=go_on)
            elif answer == "discard":
                self._forget_draft()
                go_on()

        count = len(self.doc.masks)
        question = f"The {count} masks are not saved. Save them as a new version before you {what}?"
        answers = (("save", "Save"), ("discard", "Discard"), ("stay", "Stay"))
        self.app.push_screen(Choose("Unsaved work", question, answers), answered)

    def keep_draft(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
        self._draft_timer = self.set_timer(DRAFT_PAUSE, self._write_draft)

    def _write_draft(self, then: Callable[[], None] = lambda: None) -> None:
        """Write the journal; ``then``: what to do once the work is on disk."""
        image, doc = self.image, self.doc
        if image is None:
            return
        if not doc.unsaved and not doc.present.points:
            self._forget_draft()
            return
        draft = Draft(image.ref, image.data.facts.sha256, doc.version, doc.masks, doc.present.points)

        def failed(error: SegduoError) -> None:
            self.say(f"The crash journal cannot be written ({error.message}); save often.", "warning")

        self.jobs.start(
            "journal",
            lambda job: self.journal.write(draft, job.superseded),
            lambda _: then(),
            what="Writing the journal",
            failed=failed,
        )

    def _forget_draft(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        self.jobs.stop("journal")
        if self.image is not None:
            with contextlib.suppress(OSError):
                self.journal.forget(self.image.ref)

    def offer_drafts(self) -> None:
        """Ask about the newest work that a crash or a lost connection left behind."""
        drafts = self.journal.left_behind()
        if not drafts:
            return
        draft = drafts[0]

        def answered(answer: str | None) -> None:
            if answer == "restore":
                self.explorer_follows(draft.ref)
                self.open_image(draft.ref, draft=draft)
            elif answer == "discard":
                self.journal.discard(draft)
                self.offer_drafts()

        import datetime

        when = datetime.datetime.fromtimestamp(draft.written).strftime("%Y-%m-%d %H:%M")
        points = f" and {len(draft.points)} points" if draft.points else ""
        question = f"{short_path(str(draft.ref))}: {len(draft.masks)} masks{points} from {when} were never saved. Bring them back?"
        answers = (("restore", "Bring back"), ("discard", "Discard"), ("later", "Later"))
        self.app.push_screen(Choose("Unsaved work was found", question, answers), answered)

    def explorer_follows(self, ref: ImageRef) -> None:
        self.show_folder(parent_of(str(ref)), at=str(ref))


def is_folder(ref: ImageRef) -> bool:
    """Local paths are looked up; on Drops a name without an image's ending is taken for a folder."""
    if ref.store is StoreKind.LOCAL and os.path.lexists(ref.path):
        return Path(ref.path).is_dir()
    from segment_duo.images import IMAGE_SUFFIXES

    return not any(ref.name.lower().endswith(suffix) for suffix in IMAGE_SUFFIXES)


def parent_of(target: str) -> str:
    """The folder above, as users type it; :data:`PLACES` above the root and above Drops' first folders, for that root cannot be listed."""
    path = target.rstrip("/")
    head = path.rpartition("/")[0]
    if not path or head == "/drops" or path == "/drops":
        return PLACES
    return head or "/"


def drops_path(text: str, on_drops: bool) -> str:
    """``/labdaq`` typed while a folder on Drops is shown means ``/drops/labdaq``, unless there is such a local path."""
    if on_drops and text.startswith("/") and not text.startswith("/drops") and not os.path.lexists(text):
        return "/drops" + text
    return text


def folder_items(ref: ImageRef, entries: list[Any], saved: set[str]) -> tuple[Item, ...]:
    """Entries of a folder -> lines: folders and images only, each group in the given order (newest first)."""
    from segment_duo.images import IMAGE_SUFFIXES

    folders, images = [], []
    for entry in entries:
        own = ImageRef(ref.store, entry.path)
        if entry.is_folder:
            if not entry.name.startswith("."):
                folders.append(Item(entry.name, str(own), True, entry.modified))
        elif any(entry.name.lower().endswith(suffix) for suffix in IMAGE_SUFFIXES):
            images.append(Item(entry.name, str(own), False, entry.modified, own.stem in saved))
    return (*images, *folders)


def fitting(masks: tuple[Mask, ...], image: OpenImage) -> tuple[tuple[Mask, ...], int]:
    """The masks that have the image's uncut size, and how many have not."""
    facts = image.data.facts
    good = tuple(mask for mask in masks if (mask.rle.width, mask.rle.height) == (facts.width, facts.height))
    return good, len(masks) - len(good)
