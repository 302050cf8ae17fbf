"""Saving, here or elsewhere, and the questions before unsaved work is given up. Nothing is overwritten, and nothing is lost without a question."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segment_duo.errors import InputError, SegduoError
from segment_duo.tui.errands import Errand
from segment_duo.tui.ports import SavedPort, SessionPort
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.timeline import SavedTracks
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.tui.workspace.drafts import Drafts
from segment_duo.types import ImageRef, StoreKind

Then = Callable[[], Any]


class Saving:
    """Args:
    listed: called when the folder's marks may have changed.
    accept: keeps the mask that is shown.
    settle: ends what is being drawn, as done.
    """

    def __init__(
        self,
        desk: Desk,
        drafts: Drafts,
        *,
        listed: Callable[[], None],
        accept: Callable[[], None],
        settle: Callable[[], None],
    ) -> None:
        self.desk = desk
        self.drafts = drafts
        self._listed = listed
        self._accept = accept
        self._settle = settle

    def action_save(self) -> None:
        """Save as the next version. Asks when that would leave something out, or save nothing new."""
        doc = self.desk.doc
        if not self.desk.need_image():
            return
        self._settle()
        timeline = self.desk.timeline if self.desk.film is not None else None
        if doc.candidate is not None and doc.candidate.mask.area:
            self._ask_about_candidate()
        elif timeline is not None and not timeline.unsaved:
            since = f" since version {timeline.version}" if timeline.version is not None else ""
            self.desk.say(f"Nothing has changed on any frame{since}. F7 follows objects, and saves what it finds.")
        elif timeline is not None:
            self.save()
        elif not doc.masks and not doc.unsaved:
            self.desk.say("There are no masks to save yet.")
        elif not doc.masks:
            self._ask_whether("No masks are left. Save an empty set as a new version?", "Save the empty set")
        elif not doc.unsaved:
            since = f" since version {doc.version}" if doc.version is not None else ""
            self._ask_whether(f"Nothing has changed{since}. Save the same masks as a new version?", "Save a copy")
        else:
            self.save()

    def _ask_about_candidate(self) -> None:
        def answered(answer: str | None) -> None:
            if answer == "keep":
                self._accept()
            if answer in ("keep", "without"):
                self.save()

        answers = (("keep", "Keep it and save"), ("without", "Save without it"), ("back", "Back"))
        self.desk.ask(Choose("Save", "The mask that is shown is not kept yet.", answers), answered)

    def _ask_whether(self, question: str, yes: str) -> None:
        def answered(answer: str | None) -> None:
            if answer == "save":
                self.save()

        self.desk.ask(Choose("Save", question, (("back", "Back"), ("save", yes))), answered)

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

        named = self.desk.film.named if self.desk.film is not None else self.desk.image.ref if self.desk.image else None
        stem = named.stem if named is not None else ""
        self.desk.ask(TypeLine("Save with suffix", f"Saved as {stem}_SUFFIX", check=wrong, placeholder="grains"), take)

    def action_save_elsewhere(self, then: Then | None = None) -> None:
        """Ask for a folder, check that it can be written, and save there."""
        if not self.desk.need_image():
            return
        elsewhere = self.desk.elsewhere
        if elsewhere is None:
            self.desk.say("Another folder cannot be chosen here.", "warning")
            return

        def take(text: str | None) -> None:
            if text and text.strip():
                check(str(Path(text.strip()).expanduser()))

        def check(folder: str) -> None:
            def work(_: Errand) -> SessionPort:
                session = elsewhere(folder)
                session.sets.check_out()
                check_writable(session.reference(folder))
                return session

            def failed(error: SegduoError) -> None:
                ask(folder, f"{error.message.rstrip('.')}. Choose another folder.")

            self.desk.errands.start(
                "elsewhere",
                work,
                lambda session: self.save(then=then, session=session),
                what="Checking the folder",
                failed=failed,
            )

        def ask(value: str, question: str) -> None:
            self.desk.ask(TypeLine("Save elsewhere", question, value=value), take)

        ask(str(Path.home() / "masks"), "A folder for the set, local or on Drops (/drops/...); it is made if need be.")

    def save(self, suffix: str = "", then: Then | None = None, session: SessionPort | None = None) -> None:
        """Save all masks as a new version.

        Args:
            then: what to do once they are saved.
            session: saves in another folder.
        """
        if self.desk.film is not None:
            self._save_frames(suffix, then, session)
            return
        image, masks, parent = self.desk.image, self.desk.doc.masks, self.desk.doc.version
        if not self.desk.need_image() or image is None or self.desk.errands.busy("save"):
            return
        used = session or self.desk.session

        def work(_: Errand) -> tuple[SavedPort, set[str]]:
            with self.desk.store_lock:
                others: set[str] = set()
                if session is None and self.desk.known_versions is not None:
                    with contextlib.suppress(SegduoError):
                        names = {found.name for found in used.sets.versions(image.ref)}
                        others = names - self.desk.known_versions
                        self.desk.known_versions = names
                return used.save(image, masks, operation="tui", suffix=suffix, parent=parent), others

        def done(result: tuple[SavedPort, set[str]]) -> None:
            saved, others = result
            if saved.version is not None and session is None:
                self.desk.known_versions = (self.desk.known_versions or set()) | {saved.version.name}
            if self.desk.image is not None and self.desk.image.ref == image.ref:
                own = saved.version.name if saved.version and session is None else parent
                self.desk.doc.saved_as(masks, own)
                self.desk.show_document()
                if not self.desk.doc.unsaved:
                    self.drafts.forget()
            self._say_saved(saved, len(masks), others)
            if saved.spooled is None:
                self._listed()
            if then is not None:
                then()

        self.desk.say("Saving …")
        self.desk.errands.start("save", work, done, what="Saving", failed=lambda error: self._say_failed(error, then))

    def _say_failed(self, error: SegduoError, then: Then | None) -> None:
        hint = error.hint or "The masks are kept here."
        text = f"Not saved: {error.message.rstrip('.')}. {hint} Ctrl+S saves in another folder."
        self.desk.say(text, "error")
        if then is not None:
            self._ask_before(then, "go on", text)

    def _save_frames(self, suffix: str, then: Then | None, session: SessionPort | None) -> None:
        """Save what was changed on any frame, and all else of the version it was changed from, as a new version."""
        film, timeline = self.desk.film, self.desk.timeline
        if film is None or timeline is None or self.desk.errands.busy("save"):
            return
        changes, labels, onto = timeline.changes(), timeline.labels(), timeline.version

        def work(_: Errand) -> tuple[str, SavedTracks | None]:
            with self.desk.store_lock:
                saved = film.save(changes, onto=onto, suffix=suffix, into=session, labels=labels).saved
                return saved.path, film.load(saved.version.name) if session is None else None

        def done(result: tuple[str, SavedTracks | None]) -> None:
            path, tracks = result
            if tracks is not None and self.desk.timeline is timeline:
                timeline.saved_as(tracks, changes)
                self.desk.doc.version = tracks.version
                self.desk.show_document()
                if not timeline.unsaved:
                    self.drafts.forget()
            self.desk.say(f"Saved {counted(len(changes), 'changed frame')}: {short_path(path)}", "good")
            self._listed()
            if then is not None:
                self.drafts.forget()
                then()

        self.desk.say("Saving …")
        self.desk.errands.start("save", work, done, what="Saving", failed=lambda error: self._say_failed(error, then))

    def _say_saved(self, saved: SavedPort, count: int, others: set[str]) -> None:
        if saved.spooled is not None:
            self.desk.say("Drops is away: kept on this machine. The next save delivers it.", "warning")
            return
        text = f"Saved {counted(count, 'mask')}: {short_path(saved.path)}"
        if others:
            text += f". Somebody else has saved version {', '.join(sorted(others))} since you loaded; v shows it"
        self.desk.say(text, "warning" if others else "good")

    # Before unsaved work is given up

    def unless_unsaved(self, go_on: Then, what: str) -> None:
        """Do something that gives the document up; asks first when there is unsaved work, a stroke that is being drawn included."""
        self._settle()
        if not self.desk.unsaved:
            self.drafts.forget()
            go_on()
        elif self.desk.film is not None and self.desk.timeline is not None:
            frames = counted(len(self.desk.timeline.changes()), "frame")
            self._ask_before(go_on, what, f"What was changed on {frames} is not saved.")
        else:
            count = len(self.desk.doc.masks)
            are = "mask is" if count == 1 else "masks are"
            self._ask_before(go_on, what, f"{count:,} {are} not saved.")

    def _ask_before(self, go_on: Then, what: str, why: str) -> None:
        def answered(answer: str | None) -> None:
            if answer == "save":
                self.save("", go_on)
            elif answer == "elsewhere":
                self.action_save_elsewhere(go_on)
            elif answer == "draft":
                self.drafts.write(go_on)
            elif answer == "discard":
                self.drafts.forget()
                go_on()

        answers = [("save", "Save as a new version"), ("elsewhere", "Save elsewhere ...")]
        if go_on == self.desk.leave:
            answers.append(("draft", "Quit, keep the draft"))
        answers += [("discard", "Discard"), ("stay", "Stay")]
        self.desk.ask(Choose("Unsaved work", f"{why} What now, before you {what}?", answers, stacked=True), answered)


def check_writable(ref: ImageRef) -> None:
    """Refuse a local folder that cannot be written; one that is not there yet is judged by the folder above.

    Raises:
        InputError: it cannot.
    """
    if ref.store is not StoreKind.LOCAL:
        return
    folder = Path(ref.path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"'{folder}' cannot be written", "Choose another folder.")
