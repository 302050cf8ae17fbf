"""The sequence set: masks of the frames of a stack or film in one file, written frame by frame and read frame by frame.

    pickle 1            dict: what, of which frames, by which model          written once, first
    pickle, pickle      dict: the frame's number, ids, events, bytes, CRC;   list of records as in a mask set, ``id`` is the object's
    ...                 appended and flushed to the disk frame by frame
    last pickle         dict with ``end``: how many frames                   absent in a file whose writing was broken off

Plain builtins only, read through :mod:`segment_duo.masks.load_masks`, which also stands for itself. ``docs/storage-format.md`` describes the
fields. A frame may be there twice (it was corrected): the last one counts. Nothing here knows where files lie or what they are called.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, cast

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.native import read_masks
from segment_duo.masks.formats.provenance_record import origin_record, provenance_record, read_fields, read_origin
from segment_duo.masks.load_masks import (
    SEQUENCE_FORMAT,
    SEQUENCE_VERSION,
    Chunk,
    DamagedMaskFile,
    chunks_by_frame,
    read_chunks,
    read_frame,
    read_header,
)  # fmt: skip
from segment_duo.types import FrameAxes, Mask, Origin, Provenance

EventKind = Literal["split", "merge", "lost", "returned"]
_KINDS = ("split", "merge", "lost", "returned")
_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to objects between a frame and the one before.

    ``split``: ``sources`` (one) became ``targets``, of which the first keeps its id; ``merge``: ``sources`` became the one of ``targets``;
    ``lost``: the objects are not seen any more; ``returned``: they are seen again after a gap.
    """

    frame: int
    kind: EventKind
    sources: tuple[int, ...]
    targets: tuple[int, ...] = ()

    def record(self) -> dict[str, Any]:
        """As the file and ``--json`` have it."""
        return {"frame": self.frame, "event": self.kind, "from": list(self.sources), "to": list(self.targets)}


@dataclass(frozen=True, slots=True)
class SequenceHead:
    """What a sequence set says of itself before the first frame.

    Attributes:
        provenance: as of a mask set; ``image`` names the stack, film or folder.
        axes: of the sequence; ``frame_seconds`` is what was in force, given or read.
        frames: numbers of the frames that were to be done, in this order.
        stretch: how samples became 8 bits, the same for all frames.
        origins: of the masks; a record names one by its number.
        source: what to open again to get the frames, as it can be typed.
    """

    provenance: Provenance
    axes: FrameAxes
    frames: tuple[int, ...]
    stretch: str = ""
    origins: tuple[Origin, ...] = ()
    source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame, uncut."""
        image = self.provenance.image
        assert image is not None  # made and read with it only
        return image.height, image.width

    def record(self) -> dict[str, Any]:
        return {
            **provenance_record(self.provenance),
            "format": SEQUENCE_FORMAT,
            "format_version": SEQUENCE_VERSION,
            "origins": [origin_record(origin) for origin in self.origins],
            "sequence": {
                "source": str(self.source),
                "axis": str(self.axes.axis),
                "sizes": [[str(axis), int(size)] for axis, size in self.axes.sizes],
                "frame_seconds": _number(self.axes.frame_seconds),
                "spacing_nm": _number(self.axes.spacing_nm),
                "stretch": str(self.stretch),
                "frames": _packed(self.frames),
            },
        }


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _packed(frames: Sequence[int]) -> list[int] | dict[str, int]:
    """Frames as start, stop and step where they are evenly spaced: ten thousand numbers are much to read."""
    if len(frames) > 1:
        step = frames[1] - frames[0]
        even = range(frames[0], frames[-1] + (1 if step > 0 else -1), step) if step else range(0)
        if tuple(even) == tuple(frames):
            return {"start": even.start, "stop": even.stop, "step": even.step}
    return [int(frame) for frame in frames]


def _unpacked(value: Any) -> tuple[int, ...]:
    if isinstance(value, dict):
        found = range(int(value["start"]), int(value["stop"]), int(value["step"]))
        if len(found) > 100_000_000:
            raise DamagedMaskFile("lists more frames than a film has")
        return tuple(found)
    return tuple(int(frame) for frame in value)


def _read_head(value: dict[str, Any]) -> SequenceHead:
    try:
        provenance = read_fields(value)
        if provenance.image is None:
            raise DamagedMaskFile("does not say which frames it is of")
        known = value["sequence"]
        return SequenceHead(
            provenance=provenance,
            axes=FrameAxes(
                str(known["axis"]),
                tuple((str(axis), int(size)) for axis, size in known["sizes"]),
                _number(known.get("frame_seconds")),
                _number(known.get("spacing_nm")),
            ),
            frames=_unpacked(known["frames"]),
            stretch=str(known.get("stretch", "")),
            origins=tuple(read_origin(one) for one in value.get("origins") or ()),
            source=str(known.get("source", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DamagedMaskFile):
            raise
        raise DamagedMaskFile(f"its head is damaged ({type(error).__name__}: {str(error)[:80]})") from None


def _read_event(value: Any, frame: int) -> Event:
    if not isinstance(value, dict) or value.get("event") not in _KINDS:
        raise DamagedMaskFile(f"holds a damaged event in frame {frame}")
    return Event(
        frame,
        cast(EventKind, value["event"]),
        tuple(int(one) for one in value.get("from", ())),
        tuple(int(one) for one in value.get("to", ())),
    )


def events_of(chunk: Chunk) -> tuple[Event, ...]:
    """What happened at a frame. Raises DamagedMaskFile."""
    return tuple(_read_event(one, chunk.frame) for one in chunk.events)


def holds_sequence(data: bytes) -> bool:
    """Whether a file that begins so is a sequence set; ``data`` is its beginning or all of it."""
    return SEQUENCE_FORMAT.encode() in data[:_HEAD_BYTES]


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """One frame of a sequence set: masks of the uncut frame, whose ``id`` is the object's in all frames."""

    frame: int
    masks: tuple[Mask, ...]
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """When an object was seen: first and last frame, in how many, and where it came from and went."""

    id: int
    first: int
    last: int
    frames: int
    parent: int | None = None
    merged_into: int | None = None


class SequenceSet:
    """A sequence set that is open for reading; masks are decoded frame by frame, when asked for.

    Attributes:
        head: see :class:`SequenceHead`.
        finished: False for a file whose writing was broken off.
        notices: sentences for whoever uses the set.
    """

    def __init__(self, file: BinaryIO, name: str, *, max_pixels: int | None = None) -> None:
        """Args:
        file: at its beginning; closed by :meth:`close`.
        name: how the user calls it.

        Raises:
            MaskFileError: it is no sequence set, or damaged beyond a broken end.
        """
        self._file, self._name, self._max_pixels = file, name, max_pixels
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self.finished = False
        self.notices: tuple[str, ...] = ()
        found: list[Chunk] = []
        with _explained(name):
            self.head = _read_head(read_header(file, size))
            ends = [file.tell()]
            try:
                for item in read_chunks(file, size):
                    if isinstance(item, dict):
                        self.finished = True
                        self.notices = tuple(str(one) for one in item.get("notices") or ())
                    else:
                        found.append(item)
                        ends.append(item.offset + item.size)
            except DamagedMaskFile:
                if self.finished:
                    raise
        self._last, self._ends = found[-1] if found else None, ends
        self.chunks = chunks_by_frame(found)
        self._by_frame = {chunk.frame: chunk for chunk in self.chunks}

    @classmethod
    def open(cls, path: Path, name: str = "", *, max_pixels: int | None = None) -> Self:
        """The file at ``path``. Raises OSError as well."""
        file = path.open("rb")
        try:
            return cls(file, name or str(path), max_pixels=max_pixels)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def frames(self) -> list[int]:
        """Numbers of the frames that are there, ascending."""
        return [chunk.frame for chunk in self.chunks]

    def __contains__(self, number: object) -> bool:
        return number in self._by_frame

    def whole_bytes(self) -> int:
        """Where the last frame ends that can be read; of a file whose writing was broken off, what is behind it is to be cut off.

        After a power loss the last frame may have its length but not its content.
        """
        if self._last is not None:
            try:
                read_frame(self._file, self._last)
            except DamagedMaskFile:
                return self._ends[-2]
        return self._ends[-1]

    def frame(self, number: int) -> SeenFrame:
        """Masks and events of one frame.

        Raises:
            MaskFileError: it is not in the set, or damaged.
        """
        chunk = self._by_frame.get(number)
        if chunk is None:
            raise MaskFileError(f"{self._name}: holds no frame {number}", f"It holds {len(self.chunks)} frames.")
        with _explained(self._name):
            records = read_frame(self._file, chunk)
            masks = read_masks(records, self.head.origins, size=self.head.size, max_pixels=self._max_pixels)
            if [mask.id for mask in masks] != chunk.ids:
                raise DamagedMaskFile(f"frame {number} lists other objects than it holds")
            return SeenFrame(number, masks, events_of(chunk))

    def __iter__(self) -> Iterator[SeenFrame]:
        return (self.frame(number) for number in self.frames)

    def events(self) -> list[Event]:
        """All events in the order of the frames, without decoding masks."""
        with _explained(self._name):
            return [event for chunk in self.chunks for event in events_of(chunk)]

    def lives(self) -> list[Life]:
        """Each object's life by its id, without decoding masks."""
        return lives(((chunk.frame, chunk.ids) for chunk in self.chunks), self.events())

    def labels(self, ids: Collection[int]) -> dict[int, str]:
        """The label of each of these objects that is here; an object has one on all its frames."""
        begun: dict[int, set[int]] = {}
        for life in self.lives():
            if life.id in ids:
                begun.setdefault(life.first, set()).add(life.id)
        seen = ((wanted, self.frame(first).masks) for first, wanted in begun.items())
        return {mask.id: mask.label for wanted, masks in seen for mask in masks if mask.id in wanted}


def lives(frames: Iterable[tuple[int, Iterable[int]]], events: Iterable[Event] = ()) -> list[Life]:
    """The lives of objects from the ids of each frame, ascending, and what happened."""
    found: dict[int, Life] = {}
    for frame, ids in frames:
        for one in ids:
            known = found.get(one)
            found[one] = replace(known, last=frame, frames=known.frames + 1) if known else Life(one, frame, frame, 1)
    for event in events:
        if event.kind == "split":
            for target in event.targets:
                if target in found and target not in event.sources and found[target].parent is None:
                    found[target] = replace(found[target], parent=event.sources[0])
        elif event.kind == "merge":
            for source in event.sources:
                # One that is seen again later has not merged for good.
                if source in found and source not in event.targets and found[source].last < event.frame:
                    found[source] = replace(found[source], merged_into=event.targets[0])
    return [found[one] for one in sorted(found)]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Damage becomes an error that names the file."""
    try:
        yield
    except DamagedMaskFile as error:
        said = str(error)
        joint = " " if said.partition(" ")[0] in ("holds", "is", "lists", "says", "uses") else ": "
        raise MaskFileError(f"{name}{joint}{said}") from None
