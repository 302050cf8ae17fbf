"""Going through the frames of a stack or film, and the sequence set that is shown on them.

A stack opens as its pages, each with masks of its own, until one steps through its frames, or at once where the set that was saved last is a
sequence set. A folder of images that is opened as a film has no pages, and is one from the beginning. From then on
:attr:`Desk.film` and :attr:`Desk.timeline` say what is shown, and the document is that of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from textual.timer import Timer

from segment_duo.errors import InputError, SegduoError
from segment_duo.tui.errands import Errand
from segment_duo.tui.journal import Draft
from segment_duo.tui.ports import FilmPort, OpenImagePort
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.snapshot import Snapshot
from segment_duo.tui.timeline import SavedTracks, Timeline, numbered
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.tui.workspace.engine_line import EngineLine
from segment_duo.types import ImageRef, Mask

PLAY_SECONDS = 0.15
REST_SECONDS = 0.8
"""On a frame, before the engine looks at it: going through a film must not embed it."""

Then = Callable[[], Any]
Shown = tuple[OpenImagePort, Any, tuple[Mask, ...]]
"""A frame as it was read: the image, its pyramid, its masks in the sequence set."""


@dataclass(frozen=True)
class OpenedFilm:
    """A film that was read and is not shown yet.

    Attributes:
        frame, shown: the frame that it begins with.
        tracks: the sequence set that is shown; ``trouble``: why there is none.
        brought: frame -> unsaved masks, on top of the ``saved`` ones.
    """

    film: FilmPort
    frame: int
    shown: Shown
    tracks: SavedTracks | None = None
    trouble: SegduoError | None = None
    brought: Mapping[int, tuple[Mask, ...]] = field(default_factory=dict)
    saved: Mapping[int, tuple[Mask, ...]] = field(default_factory=dict)


class Frames:
    """Args:
    engine: looks at the frame one stays on.
    settle: ends what is being drawn, as done.
    let_go: gives up what is under way on the frame that is left.
    """

    def __init__(
        self, desk: Desk, engine: EngineLine, *, settle: Callable[[], None], let_go: Callable[[], None]
    ) -> None:
        self.desk = desk
        self._engine = engine
        self._settle_stroke = settle
        self._let_go = let_go
        self._arrived: Snapshot | None = None
        self._player: Timer | None = None
        self._rest: Timer | None = None

    # A stack or film is opened, and left

    def opened(self, image: OpenImagePort, otherwise: Then, *, as_page: bool = False) -> None:
        """An image was opened as a file of its own: show its newest set if that is one of frames, else do what is done with other images.

        ``as_page``: do that in any case.
        """
        films, count = self.desk.films, frame_count(image)
        self.leave()
        if films is None or count < 2:
            otherwise()
            return
        facts = image.data.facts
        at = min(facts.page, count - 1) if image.ref.frame is None else image.ref.frame
        self.desk.timeline = Timeline(count, frame=at, wanted=at)
        self.desk.show_frames()
        if as_page:
            otherwise()
            return

        def work(_: Errand) -> tuple[FilmPort, SavedTracks] | None:
            with self.desk.store_lock:
                film = films(image.ref)
                version = film.newest()
                if version is None:
                    film.close()
                    return None
                return film, film.load(version)

        def done(found: tuple[FilmPort, SavedTracks] | None) -> None:
            if found is None:
                otherwise()
                return
            film, tracks = found
            self._begin(film, at, tracks)
            self.say_loaded()

        def failed(error: SegduoError) -> None:
            otherwise()
            self.desk.report(error)

        self.desk.errands.start("film", work, done, what="Opening the frames", failed=failed)

    def enter(self, then: Then, *, carry: bool = False) -> None:
        """Go from the page that is open to its frames, then do something. Masks that are not saved come along as objects; ``carry``: all do."""
        image, films, timeline = self.desk.image, self.desk.films, self.desk.timeline
        if image is None or films is None or timeline is None:
            self.desk.say("Only stacks and films have frames.")
            return
        if self.desk.film is not None:
            then()
            return
        if self.desk.errands.busy("film"):
            self.desk.say("The frames are being opened …")
            return
        if self.desk.doc.pointing:
            self.desk.say("A mask is being made: Enter keeps it, Escape drops it; then go to the frames.", "warning")
            return
        doc, at = self.desk.doc, timeline.frame

        def work(_: Errand) -> tuple[FilmPort, int]:
            with self.desk.store_lock:
                film = films(image.ref)
                return film, at if image.ref.frame is not None else film.frame_of(image.data.facts.page)

        def done(found: tuple[FilmPort, int]) -> None:
            film, frame = found
            brought = doc.masks if carry or doc.unsaved else ()
            self._begin(film, frame, None, {frame: numbered(brought, 1)} if brought else {}, then=then)

        self.desk.errands.start("film", work, done, what="Opening the frames")

    def _begin(
        self,
        film: FilmPort,
        frame: int,
        tracks: SavedTracks | None,
        brought: Mapping[int, tuple[Mask, ...]] | None = None,
        then: Then = lambda: None,
    ) -> None:
        """From now on frames are shown. ``brought``: masks of frames that are not saved."""
        frame = min(frame, film.count - 1)
        self._take(film, frame, tracks, brought or {}, {})
        self.show(frame, then)

    def _take(
        self,
        film: FilmPort,
        frame: int,
        tracks: SavedTracks | None,
        brought: Mapping[int, tuple[Mask, ...]],
        saved: Mapping[int, tuple[Mask, ...]],
    ) -> None:
        self.desk.film = film
        self.desk.timeline = timeline = Timeline(film.count, film.seconds, frame, frame, tracks)
        timeline.restore(brought, saved)

    def read(self, ref: ImageRef, draft: Draft | None = None) -> OpenedFilm:
        """Read a stack, a film, a folder of images or a pattern, to be shown as frames from the beginning; in a thread.

        Args:
            draft: unsaved work on its frames, on top of the version that it was begun with; else the newest sequence set is taken.

        Raises:
            InputError: there is one image only.
            NotFound, ImageError: no images, or a first one that cannot be read.
        """
        films = self.desk.films
        if films is None:
            raise InputError("frames cannot be shown here", "Open the images one by one.")
        from segment_duo.images.view import Pyramid

        with self.desk.store_lock:
            film = films(ref)
            try:
                if film.count < 2:
                    raise InputError(
                        f"{ref}: a single image is no film", "Open the image itself: Enter on it in the list."
                    )
                tracks, trouble = None, None
                try:
                    version = film.newest() if draft is None else draft.version
                    tracks = None if version is None else film.load(version)
                except SegduoError as error:
                    trouble = error
                brought = {} if draft is None else dict(draft.frames)
                frame = min(brought, default=0)
                image = film.image(frame)
                shown = (image, Pyramid(image.data.pixels), film.masks(frame))
                return OpenedFilm(
                    film, frame, shown, tracks, trouble, brought, {one: film.masks(one) for one in brought}
                )
            except BaseException:
                film.close()
                raise

    def begin(self, opened: OpenedFilm) -> None:
        """Show a film in place of what is open."""
        self.leave()
        self._take(opened.film, opened.frame, opened.tracks, opened.brought, opened.saved)
        self._present(opened.frame, opened.shown, keep_view=False)

    def leave(self) -> None:
        """Another image is opened, or a page of this one."""
        self.stop()
        film, self.desk.film, self.desk.timeline = self.desk.film, None, None
        for group in ("film", "frame", "track"):
            if group == "track" and self.desk.errands.busy(group):
                film = None  # the run still reads it
            self.desk.errands.stop(group)
        if film is not None:
            film.close()
        self.desk.show_frames()

    # From frame to frame

    def step(self, by: int) -> None:
        """So many frames on, or back."""
        self.stop()
        self.enter(lambda: self._step(by))

    def _step(self, by: int) -> None:
        timeline = self.desk.timeline
        target = timeline.target(by) if timeline else None
        if target is not None:
            self.show(target)
        elif timeline is not None:
            self.desk.say(f"This is the {'last' if by > 0 else 'first'} of {timeline.count} frames.")

    def go(self, frame: int) -> None:
        self.stop()
        self.enter(lambda: self.show(frame))

    def action_frame_goto(self) -> None:
        """Ask for the number of a frame."""
        timeline = self.desk.timeline
        if timeline is None:
            self.desk.say("Only stacks and films have frames.")
            return
        last = timeline.count - 1

        def wrong(text: str) -> str:
            found = text.strip()
            return "" if found.isascii() and found.isdigit() and int(found) <= last else f"A number from 0 to {last}."

        def take(text: str | None) -> None:
            if text is not None:
                self.go(int(text))
                self.desk.canvas.focus()

        question = f"Its number; the frames are 0 to {last}."
        self.desk.ask(TypeLine("Go to the frame", question, value=str(timeline.wanted), check=wrong), take)

    def action_play(self) -> None:
        """Play from here, or stop."""
        if self._player is not None:
            self.stop()
            return

        def begin() -> None:
            timeline = self.desk.timeline
            if timeline is None:
                return
            self._player = self.desk.every(PLAY_SECONDS, self._tick)
            if timeline.target(1) is None:
                self.show(0)
            self.desk.show_document()

        self.enter(begin)

    @property
    def playing(self) -> bool:
        return self._player is not None

    def stop(self) -> None:
        """Stop playing."""
        if self._player is not None:
            self._player.stop()
            self._player = None
            self.desk.show_document()
            self._settle()

    def _tick(self) -> None:
        timeline = self.desk.timeline
        if timeline is None or self.desk.errands.busy("frame"):
            return
        target = timeline.target(1)
        if target is None or self._begun():
            self.stop()
        else:
            self.show(target)

    def _begun(self) -> bool:
        """Whether a tool was taken or a mask was pointed at on this frame since it came."""
        doc = self.desk.doc
        pointed = doc.pointing and doc.present is not self._arrived
        return bool(self.desk.tool_text or self.desk.cut_from or doc.corner or pointed)

    def show(self, frame: int, then: Then = lambda: None) -> None:
        """Read a frame and its masks, and show them."""
        desk, film, timeline = self.desk, self.desk.film, self.desk.timeline
        if film is None or timeline is None:
            return
        timeline.wanted = frame
        desk.show_frames()

        def work(_: Errand) -> Shown:
            from segment_duo.images.view import Pyramid

            with desk.store_lock:
                image, masks = film.image(frame), film.masks(frame)
            return image, Pyramid(image.data.pixels), masks

        def done(found: Shown) -> None:
            if self._rest is not None:
                self._rest.stop()
            if self.playing and self._begun():
                timeline.wanted = timeline.frame
                self.stop()
                desk.show_frames()
                return
            self._settle_stroke()
            self._let_go()
            self._present(frame, found, keep_view=True)
            then()

        def failed(error: SegduoError) -> None:
            timeline.wanted = timeline.frame
            self.stop()
            desk.show_frames()
            desk.report(error)

        desk.errands.start("frame", work, done, what="Reading the frame", failed=failed)

    def _present(self, frame: int, found: Shown, *, keep_view: bool) -> None:
        """The frame is on the screen from now on."""
        desk, timeline = self.desk, self.desk.timeline
        if timeline is None:
            return
        desk.errands.stop("embed")
        desk.image, desk.pyramid, masks = found
        desk.cut_from = None
        desk.doc = timeline.arrive(frame, masks)
        self._arrived = desk.doc.present
        desk.picture.show_image(desk.pyramid, keep_view=keep_view)
        desk.show_document()
        self._settle()

    def _settle(self) -> None:
        """Have the engine look at this frame if one stays on it."""
        if self._rest is not None:
            self._rest.stop()
        if not (self.playing or self.desk.errands.busy("track")):
            self._rest = self.desk.later(REST_SECONDS, self._engine.embed)

    # Its sets

    def load(self, version: str, then: Then = lambda: None, *, at: int | None = None) -> None:
        """Show a sequence set from now on, ``at`` this frame; edits of the one before are given up."""

        def read() -> None:
            film = self.desk.film
            if film is None:
                return

            def work(_: Errand) -> SavedTracks:
                with self.desk.store_lock:
                    return film.load(version)

            def done(tracks: SavedTracks) -> None:
                timeline = self.desk.timeline
                if timeline is not None:
                    timeline.loaded(tracks)
                    self.show(timeline.wanted if at is None else at, then)

            self.desk.errands.start("film", work, done, what="Loading the version")

        self.enter(read)

    def delete(self, here: Then) -> None:
        """Delete the selected masks; asks on which frames where their objects are on others too.

        Args:
            here: deletes them on the frame that is shown.
        """
        film, timeline, doc = self.desk.film, self.desk.timeline, self.desk.doc
        lives = timeline.tracks.lives if timeline is not None and timeline.tracks is not None else {}
        if (
            film is None
            or timeline is None
            or not any(one in lives and lives[one] != (timeline.frame,) * 2 for one in doc.selected)
        ):
            here()
            return
        gone, frame = doc.selected, timeline.frame

        def answered(answer: str | None) -> None:
            if answer == "here":
                here()
            elif answer is not None and answer != "back":
                self._save_without(film, timeline, gone, 0 if answer == "all" else frame)

        answers = (
            ("here", "On this frame; u takes it back"), ("on", "From this frame on, as a new version"),
            ("all", "On all frames, as a new version"), ("back", "Back"),
        )  # fmt: skip
        question = f"Delete {counted(len(gone), 'object')}: on which frames?"
        self.desk.ask(Choose("Delete", question, answers, stacked=True), answered)

    def _save_without(self, film: FilmPort, timeline: Timeline, gone: frozenset[int], since: int) -> None:
        changes, labels, onto = timeline.changes(), timeline.labels(), timeline.version

        def work(_: Errand) -> str:
            with self.desk.store_lock:
                return film.save(changes, onto=onto, labels=labels, gone=gone, since=since).saved.version.name

        def done(version: str) -> None:
            text = f"{counted(len(gone), 'object')} deleted from frame {since} on, in version {version}; v loads the one before."
            self.load(version, lambda: self.desk.say(text, "good"))

        self.desk.errands.start("save", work, done, what="Saving")

    def say_loaded(self) -> None:
        timeline = self.desk.timeline
        if timeline is None or timeline.tracks is None:
            return
        tracks = timeline.tracks
        text = f"Version {tracks.version}: {counted(len(tracks.lives), 'object')} on {counted(len(tracks.frames), 'frame')}."
        if tracks.notice:
            self.desk.say(f"{text} Note: {tracks.notice}.", "warning")
        else:
            self.desk.say(f"{text} Comma and full stop step, F6 plays, R corrects an object, F7 follows.")

    def edited_elsewhere(self) -> int | None:
        """Another frame, the last one that was edited."""
        return (
            self.desk.timeline.last_edited() if self.desk.film is not None and self.desk.timeline is not None else None
        )

    def undo_elsewhere(self) -> bool:
        """Without edits on this frame: show the frame that was edited last. Nothing is taken back that is not seen."""
        last = self.edited_elsewhere()
        if last is None or self.desk.doc.can_undo:
            return False
        self.show(last, lambda: self.desk.say(f"The last edit was on frame {last}: u takes it back."))
        return True


def frame_count(image: OpenImagePort) -> int:
    """How many frames the file of an image has, as far as the image tells."""
    facts = image.data.facts
    return facts.frames.count if facts.frames is not None else facts.pages
