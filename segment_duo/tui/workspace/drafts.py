"""Unsaved work: kept in the journal after every edit, asked about before it is given up, offered again after a crash."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from typing import Any

from textual.timer import Timer

from segment_duo.errors import SegduoError
from segment_duo.tui.journal import Draft
from segment_duo.tui.screens.ask import Choose
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.workspace.desk import Desk

DRAFT_PAUSE = 0.3
"""Seconds after an edit before the journal is written, so that a series of edits is one write."""


class Drafts:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._draft_timer: Timer | None = None

    def unless_unsaved(self, go_on: Callable[[], Any], what: str, save: Callable[[Callable[[], Any]], None]) -> None:
        """Do something that gives the document up; asks first when there is unsaved work.

        Args:
            what: the thing, for the question ("quit").
            save: saves the document and then calls its argument.
        """
        if not self.desk.doc.unsaved:
            self.forget()
            go_on()
            return

        def answered(answer: str | None) -> None:
            if answer == "save":
                save(go_on)
            elif answer == "discard":
                self.forget()
                go_on()

        count = len(self.desk.doc.masks)
        question = f"The {count} masks are not saved. Save them as a new version before you {what}?"
        answers = (("save", "Save"), ("discard", "Discard"), ("stay", "Stay"))
        self.desk.ask(Choose("Unsaved work", question, answers), answered)

    def keep(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
        self._draft_timer = self.desk.later(DRAFT_PAUSE, self.write)

    def write(self, then: Callable[[], None] = lambda: None) -> None:
        """Write the journal; ``then``: what to do once the work is on disk."""
        image, doc = self.desk.image, self.desk.doc
        if image is None:
            return
        if not doc.unsaved and not doc.present.points:
            self.forget()
            return
        draft = Draft(image.ref, image.data.facts.sha256, doc.version, doc.masks, doc.present.points)

        def failed(error: SegduoError) -> None:
            self.desk.say(f"The crash journal cannot be written ({error.message}); save often.", "warning")

        self.desk.jobs.start(
            "journal",
            lambda job: self.desk.journal.write(draft, job.superseded),
            lambda _: then(),
            what="Writing the journal",
            failed=failed,
        )

    def forget(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        self.desk.jobs.stop("journal")
        if self.desk.image is not None:
            with contextlib.suppress(OSError):
                self.desk.journal.forget(self.desk.image.ref)

    def offer(self, bring_back: Callable[[Draft], None]) -> None:
        """Ask about the newest work that a crash or a lost connection left behind."""
        drafts = self.desk.journal.left_behind()
        if not drafts:
            return
        draft = drafts[0]

        def answered(answer: str | None) -> None:
            if answer == "restore":
                bring_back(draft)
            elif answer == "discard":
                self.desk.journal.discard(draft)
                self.offer(bring_back)

        when = datetime.datetime.fromtimestamp(draft.written).strftime("%Y-%m-%d %H:%M")
        points = f" and {len(draft.points)} points" if draft.points else ""
        question = f"{short_path(str(draft.ref))}: {len(draft.masks)} masks{points} from {when} were never saved. Bring them back?"
        answers = (("restore", "Bring back"), ("discard", "Discard"), ("later", "Later"))
        self.desk.ask(Choose("Unsaved work was found", question, answers), answered)
