"""Unsaved work: kept in the journal after every edit, offered again after a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable

from textual.timer import Timer

from segment_duo.errors import SegduoError
from segment_duo.tui.journal import Draft
from segment_duo.tui.screens.ask import Choose
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.types import Mask

DRAFT_PAUSE = 0.3
"""Seconds after an edit before the journal is written, so that a series of edits is one write."""


class Drafts:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._draft_timer: Timer | None = None
        self.in_hand: Callable[[], tuple[Mask, ...] | None] = lambda: None
        """The masks with what is being drawn, if something is; a terminal may be closed in the middle of a stroke."""

    def keep(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
        self._draft_timer = self.desk.later(DRAFT_PAUSE, self.write)

    def write(self, then: Callable[[], None] = lambda: None) -> None:
        """Write the journal; ``then``: what to do once the work is on disk."""
        image, doc = self.desk.image, self.desk.doc
        if image is None:
            return
        in_hand = self.in_hand()
        points = () if self.desk.film is not None else doc.present.points
        if not self.desk.unsaved and not points and in_hand is None:
            self.forget()
            return
        facts = image.data.facts
        if self.desk.film is not None and self.desk.timeline is not None:
            timeline = self.desk.timeline
            ref = dataclasses.replace(image.ref, frame=None)
            changed = timeline.changes()
            if in_hand is not None:
                changed[timeline.frame] = in_hand
            frames = tuple(sorted(changed.items()))
            draft = Draft(ref, facts.sha256, timeline.version, (), page=facts.page, frames=frames)
        else:
            draft = Draft(image.ref, facts.sha256, doc.version, in_hand or doc.masks, points, page=facts.page)

        def failed(error: SegduoError) -> None:
            if self.desk.message.tone == "error":
                return  # a save that failed says the same, and more
            self.desk.say(
                f"The draft cannot be written ({error.message}). Save often, or elsewhere: Ctrl+S.", "warning"
            )

        self.desk.errands.start(
            "journal",
            lambda errand: self.desk.journal.write(draft, errand.superseded),
            lambda _: then(),
            what="Writing the journal",
            failed=failed,
        )

    def forget(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        self.desk.errands.stop("journal")
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
        what = counted(len(draft.masks), "mask")
        if draft.frames:
            masks = sum(len(masks) for _, masks in draft.frames)
            what = f"{counted(masks, 'mask')} on {counted(len(draft.frames), 'frame')}"
        if draft.points:
            what += f" and {counted(len(draft.points), 'point')}"
        more = f" ({len(drafts) - 1} more after it)" if len(drafts) > 1 else ""
        question = f"{short_path(str(draft.ref))}: {what} from {when}, never saved{more}. Open it?"
        # The focus is on what changes nothing: an Enter that was typed ahead must not open another image.
        answers = (("later", "Later"), ("restore", "Bring back"), ("discard", "Discard"))
        self.desk.ask(Choose("Unsaved work was found", question, answers), answered)
