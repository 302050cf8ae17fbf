"""Following objects through the frames: what is followed and which way, the run in the background, and its result as a new version.

    what was pointed at on any frame ──> Film.follow (a thread) ──> frame by frame into the timeline ──> the saved version is shown

While a run goes on one can look at every frame, and nothing can be edited. Escape ends it, and what was found till then is saved as well.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.timer import Timer

from segment_duo.errors import Cancelled, SegduoError
from segment_duo.results import ROUTINE_NOTE
from segment_duo.segmenters.base import Capability
from segment_duo.segmenters.tracking import Direction
from segment_duo.tui.errands import Errand
from segment_duo.tui.screens.ask import Choose
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.tui.workspace.engine_line import EngineLine
from segment_duo.tui.workspace.frames import Frames
from segment_duo.types import Mask

if TYPE_CHECKING:
    from segment_duo.sequences import Followed, Progress

LOOK_SECONDS = 0.2
"""From one look at what a run has found to the next."""
_WAYS: tuple[tuple[Direction, str], ...] = (
    ("forward", "Forward, to the last frame"),
    ("backward", "Backward, to the first frame"),
    ("both", "Both ways"),
)
_LINK = ("link", "Link automatic masks of all frames")

Objects = tuple[tuple[int, int, Mask], ...]


class Tracking:
    """Args:
    saved: called when a version was saved.
    """

    def __init__(self, desk: Desk, frames: Frames, engine: EngineLine, saved: Callable[[], None]) -> None:
        self.desk = desk
        self._frames = frames
        self._engine = engine
        self._saved = saved
        self._enough = threading.Event()
        self._arrived: deque[Progress] = deque()
        self._timer: Timer | None = None
        self._began = 0
        self._watching = False
        self._links = False

    def action_track(self) -> None:
        """Ask which way, then follow what was pointed at."""
        if self.desk.following:
            self.desk.say("Objects are being followed; Escape ends it.")
        elif self.desk.doc.pointing:
            self.desk.say("A mask is being made: Enter keeps it, Escape drops it; then follow.", "warning")
        elif self.desk.need_image():
            self._frames.enter(self._ask, carry=self._has_memory())

    def _has_memory(self) -> bool:
        return self.desk.model is None or Capability.TRACK in self.desk.model.capabilities

    def _ask(self) -> None:
        objects, what = self._objects()
        model = self.desk.model
        if model is None or self._has_memory():
            ways = _WAYS if objects else ()
            question = (
                f"Follow {what}." if objects else "There is nothing to follow yet: Space on an object, Enter keeps it."
            )
        else:
            ways = ()
            question = f"{model.id} has no memory to follow objects by (`segduo models ls` tells which models have)."
        question += " Automatic masks of each frame can be linked by overlap and motion; that is a set of its own."

        def answered(answer: str | None) -> None:
            if answer == "link":
                self._link()
            elif (way := next((way for way, _ in _WAYS if way == answer), None)) is not None:
                self._follow(objects, way)

        self.desk.ask(Choose("Follow objects", question, (*ways, _LINK, ("back", "Back")), stacked=True), answered)

    def _objects(self) -> tuple[Objects, str]:
        """What is followed, and in words: what is new or corrected; without any the selected masks of this frame, or all of them."""
        timeline, doc = self.desk.timeline, self.desk.doc
        asked = timeline.asked() if timeline is not None else ()
        if timeline is None or asked:
            frames = sorted({frame for _, frame, _ in asked})
            on = f"frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, frames[:6]))}{' …' if len(frames) > 6 else ''}"
            return asked, f"{counted(len({one for one, *_ in asked}), 'object')} as pointed at on {on}"
        masks = [mask for mask in doc.masks if mask.id in doc.selected] or list(doc.masks)
        chosen = "selected " if doc.selected else ""
        objects = tuple((mask.id, timeline.frame, mask) for mask in masks if mask.area)
        return (
            objects,
            f"the {chosen}{counted(len(objects), 'object')} of frame {timeline.frame}, though nothing was changed",
        )

    def _follow(self, objects: Objects, direction: Direction) -> None:
        film, timeline = self.desk.film, self.desk.timeline
        if film is None or timeline is None:
            return
        onto = timeline.version
        # A run is told of new shapes only; what was deleted or labelled goes into a version of its own first.
        before, labels = (timeline.changes() if timeline.otherwise_changed() else {}), timeline.labels()

        def work(errand: Errand) -> Followed:
            version = film.save(before, onto=onto, labels=labels).saved.version.name if before else onto
            with self.desk.engine_lock:
                return film.follow(
                    objects, direction, onto=version, on_frame=self._arrived.append, cancelled=errand.superseded, enough=self._enough.is_set
                )  # fmt: skip

        self._run(work, "Following objects", links=False)

    def _link(self) -> None:
        film, timeline = self.desk.film, self.desk.timeline
        if film is None or timeline is None:
            return
        # What is linked begins anew: what was done by hand is kept in a version of its own.
        changes, labels, onto = timeline.changes(), timeline.labels(), timeline.version

        def work(errand: Errand) -> Followed:
            if changes:
                film.save(changes, onto=onto, labels=labels)
            with self.desk.engine_lock:
                return film.link(
                    on_frame=self._arrived.append, cancelled=lambda: errand.superseded() or self._enough.is_set()
                )

        self._run(work, "Linking masks", links=True)

    def _run(self, work: Callable[[Errand], Followed], what: str, *, links: bool) -> None:
        timeline = self.desk.timeline
        if timeline is None:
            return
        self._frames.stop()
        self._enough.clear()
        self._arrived.clear()
        self._began, self._watching, self._links = timeline.frame, True, links
        self.desk.errands.stop("embed")
        self.desk.errands.start("track", work, self._done, what=what, failed=self._failed)
        self._timer = self.desk.every(LOOK_SECONDS, self._look)
        self._engine.says("following objects")
        self.desk.doing = "starting …"
        self.desk.say(f"{what} …  Esc ends it. Comma and full stop look at other frames meanwhile.")
        self.desk.show_document()

    def look_elsewhere(self) -> None:
        """The user goes to a frame: do not take him to the ones that arrive."""
        self._watching = False

    def cancel(self) -> None:
        """End the run; what was found till then is kept."""
        self._enough.set()
        self.desk.say("Ending the run; what was found is kept.")

    def _look(self) -> None:
        """Take over what has arrived since the last look."""
        timeline = self.desk.timeline
        if not self.desk.following or timeline is None:
            self._end()
            return
        latest: Progress | None = None
        changed = False
        while self._arrived:
            latest = self._arrived.popleft()
            changed |= timeline.took(latest.frame, latest.found)
        if latest is None:
            return
        self.desk.doing = f"{latest.done} of {latest.total} frames done"
        if self._watching and not self.desk.errands.busy("frame"):
            self._frames.show(latest.frame)
        elif changed:
            self.desk.show_document()
        else:
            self.desk.show_frames()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.desk.doing = ""
        self.desk.show_frames()

    def _done(self, followed: Followed) -> None:
        timeline = self.desk.timeline
        self._end()
        self._engine.says("ready")
        if timeline is None:
            return
        version = followed.saved.version.name
        happened = "".join(f", {count} {kind}" for kind, count in sorted(followed.events.items()))
        text = f"Version {version}: {counted(followed.objects, 'object')} in {counted(followed.frames, 'frame')}{happened}. "
        text += f"Saved: {short_path(followed.saved.path)}"
        told = [note for note in followed.notices if not note.startswith(ROUTINE_NOTE)]
        notes = f". Note: {told[0]}{f'; {len(told) - 1} more in the set' if len(told) > 1 else ''}" if told else ""

        def shown() -> None:
            self.desk.say(text + notes, "warning" if notes else "good")
            self._saved()

        self._frames.load(version, shown, at=self._began if self._watching else None)

    def _failed(self, error: SegduoError) -> None:
        timeline = self.desk.timeline
        self._end()
        self._engine.says("ready")
        if timeline is not None:
            timeline.drop_found()
            self._frames.show(self._began if self._watching else timeline.wanted)
        if isinstance(error, Cancelled):
            again = (
                "Linking again goes on from here." if self._links else "Nothing was found yet, and nothing was changed."
            )
            self.desk.say(f"Ended. {again}")
        else:
            self.desk.report(error)
