"""Going through the frames of a stack or film: which one is shown, what was edited on which, what is to be followed, how far a run is.

    saved set ─> masks of a frame ─> Document of that frame ─> edits ─┬─> what the next run follows, by frame and object
    a run ─────> frames as they come ──┘                              └─> what a save writes

On each frame a mask's id is the object's. Every frame has a document of its own, so that undo goes back through what was done on it; documents
without edits are forgotten when their frame is left. Pure data: no Textual, no engine, no disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from segment_duo.tui.state import Document
from segment_duo.types import Mask

MOST_FOUND = 2000
"""Frames of a run whose masks are kept until the set is read: of a long film the earlier ones are shown again when the run has ended."""


@dataclass(frozen=True, slots=True)
class SavedTracks:
    """What is known of a saved sequence set without decoding its masks.

    Attributes:
        version: its name.
        frames: numbers of the frames that have masks.
        lives: object -> first and last frame it is seen on.
        asked: (frame, object) of everything that was said of the objects by points or masks.
        notice: what is odd about it.
    """

    version: str
    frames: frozenset[int] = frozenset()
    lives: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    asked: frozenset[tuple[int, int]] = frozenset()
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One column of the frame bar.

    Attributes:
        first, last: its frames.
        here: the frame that is shown is among them.
        filled: one of them has masks.
        new: the masks come from the run that is going on.
        asked: an object was pointed at on one of them; ``open``: and the next run will be told.
    """

    first: int
    last: int
    here: bool = False
    filled: bool = False
    new: bool = False
    asked: bool = False
    open: bool = False


@dataclass
class Timeline:
    """The frames of one stack or film, counted from 0.

    ``frame`` is the one that is shown, ``wanted`` the one that is being read; ``seconds`` from one frame to the next, None where nobody says.
    """

    count: int
    seconds: float | None = None
    frame: int = 0
    wanted: int = 0
    tracks: SavedTracks | None = None
    current: int | None = None
    """The object that the list's cursor was on, kept over frames where it is not seen."""
    _documents: dict[int, Document] = field(default_factory=dict)
    _found: dict[int, tuple[Mask, ...]] = field(default_factory=dict)
    _edited: list[int] = field(default_factory=list)

    # Which frame

    def target(self, by: int) -> int | None:
        """The frame that is ``by`` frames on, or the last one there is in that direction; None when one stands on it."""
        found = min(max(self.wanted + by, 0), self.count - 1)
        return None if found == self.wanted else found

    def arrive(self, frame: int, masks: tuple[Mask, ...]) -> Document:
        """Show a frame: its document, with the edits that were made on it.

        Args:
            masks: of the saved set on this frame; objects that were labelled on another frame have that label here too.
        """
        labels = self.labels()
        masks = tuple(dataclasses.replace(mask, label=labels.get(mask.id, mask.label)) for mask in masks)
        before = self._documents.get(self.frame)
        self._leave()
        doc = self._documents.get(frame)
        if doc is None:
            doc = self._documents[frame] = Document()
            self._fill(doc, self._found.get(frame, masks))
        if before is not None and before is not doc:
            doc.order = before.order
            doc.set_filter(before.filter)
            doc.tick(before.selected & {mask.id for mask in doc.masks}, True)
        if self.current is not None:
            doc.current = self.current if doc.mask(self.current) is not None else None
        doc.least_id = self.next_id
        self.frame = self.wanted = frame
        return doc

    def _leave(self) -> None:
        doc = self._documents.get(self.frame)
        if doc is None:
            return
        if doc.current is not None:
            self.current = doc.current
        if not touched(doc):
            del self._documents[self.frame]

    def _fill(self, doc: Document, masks: tuple[Mask, ...]) -> None:
        bounds, current, selected = doc.filter, doc.current, doc.selected
        doc.loaded(masks, self.version)
        doc.set_filter(bounds)
        doc.tick(selected & {mask.id for mask in masks}, True)
        if doc.mask(current) is not None:
            doc.current = current

    # Edits

    @property
    def version(self) -> str | None:
        return self.tracks.version if self.tracks else None

    @property
    def next_id(self) -> int:
        """A number that no object has; they count from 1."""
        known = [*(self.tracks.lives if self.tracks else ())]
        known += [mask.id for doc in self._documents.values() for mask in doc.masks]
        known += [mask.id for masks in self._found.values() for mask in masks]
        return 1 + max(known, default=0)

    def edited(self) -> None:
        """Something was edited on the frame that is shown."""
        self._edited = [frame for frame in self._edited if frame != self.frame] + [self.frame]

    def last_edited(self) -> int | None:
        """Another frame than the shown one whose edits can be taken back: the one that was edited last."""
        frames = (frame for frame in reversed(self._edited) if frame != self.frame)
        return next((frame for frame in frames if (doc := self._documents.get(frame)) and doc.can_undo), None)

    @property
    def unsaved(self) -> bool:
        return any(doc.unsaved for doc in self._documents.values())

    def changes(self) -> dict[int, tuple[Mask, ...]]:
        """The frames that differ from the saved set, with all their masks."""
        return {frame: doc.masks for frame, doc in sorted(self._documents.items()) if doc.unsaved}

    def labels(self) -> dict[int, str]:
        """Objects whose label was changed, on whichever frame, with the new one: a label is the object's, on all its frames.

        An object that was labelled differently on two frames has the label of the one that was edited last.
        """
        found: dict[int, str] = {}
        for frame in self._edited:
            doc = self._documents.get(frame)
            if doc is not None and doc.unsaved:
                saved = {mask.id: mask.label for mask in doc.saved}
                found |= {mask.id: mask.label for mask in doc.masks if mask.label != saved.get(mask.id, "")}
        return found

    def asked(self) -> tuple[tuple[int, int, Mask], ...]:
        """What the next run follows: (object, frame, mask), for each mask that is new on its frame or has another shape than in the saved set."""
        found = []
        for frame, masks in self.changes().items():
            saved = {mask.id: mask.rle for mask in self._documents[frame].saved}
            found += [(mask.id, frame, mask) for mask in masks if mask.area and saved.get(mask.id) != mask.rle]
        return tuple(found)

    def otherwise_changed(self) -> bool:
        """Whether something changed that no run is told of: a mask was deleted, or labelled."""
        for frame, masks in self.changes().items():
            now = {mask.id: mask for mask in masks if mask.area}
            for mask in self._documents[frame].saved:
                there = now.get(mask.id)
                if there is None or there.label != mask.label or (there.rle == mask.rle and there != mask):
                    return True
        return False

    def restore(self, changes: Mapping[int, tuple[Mask, ...]], saved: Mapping[int, tuple[Mask, ...]]) -> None:
        """Bring unsaved work back on top of the saved masks of those frames; undo leads to them."""
        for frame, masks in changes.items():
            doc = self._documents[frame] = Document()
            self._fill(doc, saved.get(frame, ()))
            doc.restored(masks, (), self.version)
            self._edited.append(frame)

    # A run, and what it leaves

    def took(self, frame: int, masks: tuple[Mask, ...]) -> bool:
        """Keep what a run found on a frame; True when that is on the screen, and now another."""
        self._found.pop(frame, None)
        self._found[frame] = masks
        while len(self._found) > MOST_FOUND:
            del self._found[next(iter(self._found))]
        doc = self._documents.get(frame)
        if doc is None or touched(doc):
            return False
        self._fill(doc, masks)
        return True

    def drop_found(self) -> None:
        """The run came to nothing."""
        self._found.clear()

    def saved_as(self, tracks: SavedTracks, changes: Mapping[int, tuple[Mask, ...]]) -> None:
        """``changes`` are in a version now; edits made while they were being saved stay unsaved, and the way back stays."""
        self.tracks = tracks
        for frame, doc in self._documents.items():
            doc.saved_as(changes.get(frame, doc.saved), tracks.version)

    def loaded(self, tracks: SavedTracks) -> None:
        """Another version is what is edited from now on. Edits are given up, so the frame has to :meth:`arrive` again."""
        self._leave()
        self.tracks = tracks
        self._documents.clear()
        self._found.clear()
        self._edited.clear()

    # What the frame bar shows

    def bar(self, width: int) -> list[Place]:
        """The frames as so many columns, from left to right."""
        if width < 1:
            return []
        seen = self.tracks.frames if self.tracks else frozenset()
        told = {frame for frame, _ in self.tracks.asked} if self.tracks else set()
        new = {frame for frame, masks in self._found.items() if masks}
        here = {frame for frame, doc in self._documents.items() if doc.masks}
        opened = {frame for _, frame, _ in self.asked()}
        found = []
        for column in range(width):
            first = column * self.count // width
            last = max(first, (column + 1) * self.count // width - 1)
            frames = range(first, last + 1)
            found.append(
                Place(
                    first,
                    last,
                    here=self.wanted in frames,
                    filled=any(frame in seen or frame in new or frame in here for frame in frames),
                    new=any(frame in new for frame in frames),
                    asked=any(frame in told or frame in opened for frame in frames),
                    open=any(frame in opened for frame in frames),
                )
            )
        return found

    def text(self) -> str:
        """Which frame this is, and when it was taken."""
        when = "" if self.seconds is None else f"  {self.wanted * self.seconds:.4g} s"
        return f"frame {self.wanted} of 0–{self.count - 1}{when}"


def touched(doc: Document) -> bool:
    """Whether a document holds something that its frame's saved masks do not."""
    return doc.unsaved or doc.can_undo or doc.can_redo or doc.pointing


def numbered(masks: Iterable[Mask], first: int) -> tuple[Mask, ...]:
    """Masks of a single image as objects to follow, with ids from ``first`` on."""
    return tuple(dataclasses.replace(mask, id=number) for number, mask in enumerate(masks, first))
