"""A film in memory for the tests of the terminal UI: discs that move, sets that are dicts, runs that go on when they are told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from segment_duo.errors import Cancelled, MaskFileError, SegduoError
from segment_duo.library.sequences import SavedSequence
from segment_duo.segmenters.tracking import Direction
from segment_duo.sequences import Followed, OnFrame, Progress
from segment_duo.tui.ports import FilmPort, SessionPort
from segment_duo.tui.timeline import SavedTracks
from segment_duo.types import ImageRef, Mask, Provenance, Version
from tests.tui_fakes import FakeImage, FakeListed, FakePeek, FakeSession, disc, micrograph, pictures

FRAMES = 6
STACK = "/pictures/particles.tif"


def moved(frame: int, number: int = 1, **fields: object) -> Mask:
    """Object ``number`` on a frame: it goes ten pixels to the right in each."""
    return disc(240, 320, 40.0 + 10 * frame, 40.0 * number, 12, id=number, source="prompt", **fields)


@dataclass
class FakeSet:
    """``masks`` by frame; ``asked`` as :class:`SavedTracks` has it."""

    masks: Mapping[int, tuple[Mask, ...]]
    asked: frozenset[tuple[int, int]] = frozenset()
    parent: str | None = None


@dataclass
class FakeFilms:
    """The films of one session, and their sets by the version's name, which outlive a film that is closed.

    ``gate``: what a run waits for before each frame but the first. ``fails``: an error that the next run ends with. ``looking``: what the look
    for the newest set waits for.
    """

    session: FakeSession
    sets: dict[str, FakeSet] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    fails: SegduoError | None = None
    looking: threading.Event = field(default_factory=threading.Event)
    runs: list[tuple[tuple[tuple[int, int], ...], Direction, str | None]] = field(default_factory=list)
    opened: int = 0

    def __post_init__(self) -> None:
        self.gate.set()
        self.looking.set()
        self.session.pages = FRAMES

    def __call__(self, ref: ImageRef) -> FilmPort:
        self.opened += 1
        return FakeFilm(self, ImageRef(ref.store, ref.path))

    def add(self, made: FakeSet) -> Version:
        """Save a set; versions of all kinds have one row of numbers, as on the disk."""
        number = len(self.session.saved.get(STACK, [])) + len(self.sets)
        version = Version(str(number), "", number, f"/masks/particles_{number}.pkl", 100, time.time())
        self.sets[version.name] = made
        count = len({mask.id for masks in made.masks.values() for mask in masks})
        self.session.more_listed.append(FakeListed(version, FakePeek(count, Provenance(operation="track"), FRAMES)))
        return version


@dataclass
class FakeFilm:
    films: FakeFilms
    ref: ImageRef
    shown: FakeSet | None = None
    count: int = FRAMES
    seconds: float | None = 0.5
    closed: bool = False
    of_files: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def named(self) -> ImageRef:
        return self.ref

    def label(self, frame: int) -> str:
        return ""

    def image(self, frame: int) -> FakeImage:
        image = self.films.session.open_image(self.ref, page=frame)
        return FakeImage(ImageRef(self.ref.store, self.ref.path, frame), image.data)

    def frame_of(self, page: int) -> int:
        return page

    def newest(self) -> str | None:
        assert self.films.looking.wait(60)
        return max(self.films.sets, default=None)

    def load(self, version: str) -> SavedTracks:
        found = self.films.sets.get(version)
        if found is None:
            raise MaskFileError(f"version {version} is damaged", "v shows the other versions.")
        self.shown = found
        lives: dict[int, tuple[int, int]] = {}
        for frame, masks in sorted(found.masks.items()):
            for mask in masks:
                lives[mask.id] = (lives.get(mask.id, (frame, 0))[0], frame)
        return SavedTracks(
            version, frozenset(frame for frame, masks in found.masks.items() if masks), lives, found.asked
        )

    def masks(self, frame: int) -> tuple[Mask, ...]:
        return self.shown.masks.get(frame, ()) if self.shown is not None else ()

    def follow(
        self,
        objects: Sequence[tuple[int, int, Mask]],
        direction: Direction,
        *,
        onto: str | None,
        on_frame: OnFrame,
        cancelled: Callable[[], bool],
        enough: Callable[[], bool],
    ) -> Followed:
        asked = tuple((one, frame) for one, frame, _ in objects)
        self.films.runs.append((asked, direction, onto))
        if self.films.fails is not None:
            raise self.films.fails
        parent = self.films.sets[onto].masks if onto is not None else {}
        found = dict(parent)
        first = min(frame for _, frame in asked)
        order = range(first, -1, -1) if direction == "backward" else range(first, FRAMES)
        for done, frame in enumerate(order, 1):
            while done > 1 and not self.films.gate.wait(0.01):
                if cancelled():
                    raise Cancelled("cancelled")
                if enough():
                    break
            if enough():
                break
            given = {one: mask for one, on, mask in objects if on == frame}
            masks = {mask.id: mask for mask in parent.get(frame, ())}
            masks |= {one: given.get(one, moved(frame, one)) for one, _ in asked}
            found[frame] = tuple(masks[one] for one in sorted(masks))
            on_frame(Progress(done, FRAMES, frame, len(masks), 0, found[frame]))
        known = self.films.sets[onto].asked if onto is not None else frozenset()
        return self._saved(FakeSet(found, known | {(frame, one) for one, frame in asked}, onto))

    def link(self, *, on_frame: OnFrame, cancelled: Callable[[], bool]) -> Followed:
        found = {}
        for frame in range(FRAMES):
            while frame and not self.films.gate.wait(0.01):
                if cancelled():
                    raise Cancelled("cancelled")
            found[frame] = (moved(frame, 1), moved(frame, 2))
            on_frame(Progress(frame + 1, FRAMES, frame, 2, 0, found[frame]))
        return self._saved(FakeSet(found))

    def save(
        self,
        changes: Mapping[int, Sequence[Mask]],
        *,
        onto: str | None,
        suffix: str = "",
        into: SessionPort | None = None,
        labels: Mapping[int, str] | None = None,
        gone: Collection[int] = (),
        since: int = 0,
    ) -> Followed:
        self.films.session.calls.append(("save frames", (sorted(changes), onto, suffix, into)))
        if self.films.fails is not None:
            raise self.films.fails
        parent = self.films.sets[onto] if onto is not None else FakeSet({})
        changed = {frame: tuple(masks) for frame, masks in changes.items()}
        masks = {
            frame: tuple(
                replace(mask, label=(labels or {}).get(mask.id, mask.label))
                for mask in found
                if frame < since or mask.id not in gone
            )
            for frame, found in {**parent.masks, **changed}.items()
        }
        return self._saved(FakeSet(masks, parent.asked, onto))

    def _saved(self, made: FakeSet) -> Followed:
        version = self.films.add(made)
        objects = {mask.id for masks in made.masks.values() for mask in masks}
        return Followed(SavedSequence(version.path, version), FRAMES, 0, len(objects))

    def close(self) -> None:
        self.closed = True


def stack() -> tuple[FakeSession, FakeFilms]:
    """A session whose image is a stack, with a model that follows objects."""
    session = pictures()
    session.images[STACK] = micrograph()
    session.model = type(session.model)(capabilities=session.model.capabilities | {"track"})
    return session, FakeFilms(session)
