"""Following the objects of a sequence, frame by frame, into a saved sequence set.

    frames ─> session.auto ─> conditions ─> Linker ──┐
    frames, prompts ─> session.track ────────────────┴─> SequenceWriter ─> the next version

One frame is in memory at a time, and each is on the disk before the next begins: a run that was killed goes on where it was when the same command is
given again. Nothing here prints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segment_duo import __version__
from segment_duo.errors import Cancelled, InputError, ServerError, StoreError
from segment_duo.frames import sequence_of
from segment_duo.images.frame_range import parse_frames
from segment_duo.images.sequences import FrameSequence, Reading
from segment_duo.library.sequences import SavedSequence, sequence_ref
from segment_duo.masks.cropped import CroppedMask
from segment_duo.masks.filters import MaskFilter
from segment_duo.masks.filters import apply as matching
from segment_duo.masks.formats.label_images import masks_of_labels
from segment_duo.masks.formats.sequence import Event, SeenFrame, SequenceHead, SequenceSet
from segment_duo.masks.formats.sequence_writer import SequenceWriter
from segment_duo.parameters import AutoParameters
from segment_duo.provenance import auto_origin, of_sequence, parameters_record, stamped
from segment_duo.provenance import origins as origins_of
from segment_duo.tracking.apart import apart
from segment_duo.tracking.link import Linker, LinkParameters
from segment_duo.types import FrameAxes, ImageIdentity, ImageRef, Mask, MaskSet, Origin, PixelSize

if TYPE_CHECKING:
    from segment_duo.session import Session
    from segment_duo.tracking.label_stack import LabelStack


@dataclass(frozen=True, slots=True)
class Opening:
    """Which frames of what, and how they are read.

    Attributes:
        frames: as ``--frames`` takes it.
        frame_seconds: time from a frame to the next one of the sequence; None takes what the file says.
        axis, at: of a hyperstack; see :class:`segment_duo.images.sequences.StackSequence`.
        banner, pixel_size: as :class:`segment_duo.images.sequences.Reading` takes them.
    """

    frames: str = "all"
    frame_seconds: float | None = None
    axis: str | None = None
    at: tuple[tuple[str, int], ...] = ()
    banner: str | int = "auto"
    pixel_size: PixelSize | None = None


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """Automatic masks of each frame, and how they are linked.

    Attributes:
        parameters, preset: of the automatic masks.
        conditions: masks that do not meet them are no objects.
        overlaps: keep masks that lie in one another, and the ground.
        link: see :class:`LinkParameters`.
    """

    parameters: AutoParameters
    preset: str = ""
    conditions: MaskFilter = field(default_factory=MaskFilter)
    overlaps: bool = False
    link: LinkParameters = field(default_factory=LinkParameters)

    def record(self) -> dict[str, Any]:
        """As the set's provenance has it."""
        return {
            "method": "link",
            "auto": parameters_record(self.parameters, self.preset),
            "conditions": self.conditions.parameters(),
            "overlaps": self.overlaps,
            "link": dataclasses.asdict(self.link),
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: ``done`` of ``total`` frames; ``frame`` is the one just written, ``masks`` how many objects it has, ``found`` they."""

    done: int
    total: int
    frame: int
    masks: int
    resumed: int = 0
    found: tuple[Mask, ...] = ()


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a run.

    Attributes:
        saved: the set.
        frames: how many there are, ``resumed`` of them from an earlier run.
        objects: how many different ones.
        events: how often each kind of event happened.
    """

    saved: SavedSequence
    frames: int
    resumed: int
    objects: int
    events: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


MOST_NOTES = 8
"""What the frames' masks had to say, of which a method may say something else in every frame, is kept up to so many sentences."""

OnFrame = Callable[[Progress], None]


@dataclass(frozen=True, eq=False)
class OpenSequence:
    """A sequence that is open, and what its sets are called after."""

    ref: ImageRef
    named: ImageRef
    frames: FrameSequence
    numbers: tuple[int, ...]
    axes: FrameAxes

    def head(
        self,
        origins: Sequence[Origin],
        parameters: dict[str, Any],
        *,
        operation: str = "track",
        parent: str | None = None,
        notices: Sequence[str] = (),
    ) -> SequenceHead:
        """What a set of these frames says of itself."""
        frames = self.frames
        image = ImageIdentity(str(self.named), frames.sha256, frames.width, frames.height)
        provenance = of_sequence(
            image, origins, banner=frames.banner, pixel_size=frames.pixel_size, operation=operation, parameters=parameters,
            parent=parent, notices=notices,
        )  # fmt: skip
        stretch = frames.frame(self.numbers[0]).facts.stretch
        return SequenceHead(stamped(provenance), self.axes, self.numbers, stretch, tuple(origins), str(self.ref))


def open_sequence(session: Session, ref: ImageRef, opening: Opening = Opening()) -> OpenSequence:
    """Open a stack, folder, pattern or film; close ``frames`` when done.

    Raises:
        NotFound, ImageError, UsageError: see :func:`segment_duo.frames.sequence_of` and :func:`parse_frames`.
    """
    reading = Reading(opening.banner, opening.pixel_size, max_pixels=session.config.max_pixels)
    frames = sequence_of(session.store(ref.store), ref, reading, axis=opening.axis, at=dict(opening.at))
    try:
        axes = frames.axes
        if opening.frame_seconds is not None:
            axes = dataclasses.replace(axes, frame_seconds=opening.frame_seconds)
        elif frames.frame_seconds is None:
            axes = dataclasses.replace(axes, frame_seconds=None)
        return OpenSequence(ref, sequence_ref(ref), frames, tuple(parse_frames(opening.frames, len(frames))), axes)
    except BaseException:
        frames.close()
        raise


def link(
    session: Session,
    sequence: OpenSequence,
    request: LinkRequest,
    *,
    suffix: str = "",
    restart: bool = False,
    must_resume: bool = False,
    since: float | None = None,
    notices: Sequence[str] = (),
    on_frame: OnFrame | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Followed:
    """Automatic masks of each frame, linked into tracks, saved.

    Args:
        suffix: the series of the saved set.
        restart: do not go on with what an earlier run of the same request left.
        must_resume: only go on.
        since: a run of the same request began then (seconds since the epoch) and may have saved the set before it died: look first.
        notices: sentences for whoever uses the set.
        on_frame: called after each frame.

    Raises:
        NotFound: there is nothing to go on with, but ``must_resume``.
        Cancelled: ``cancelled`` said so; what is done is kept, and the same call goes on from there.
    """
    origin = auto_origin(session.identity, request.parameters, request.preset)
    origin = dataclasses.replace(origin, operation="track", parameters=request.record())
    head = sequence.head([origin], request.record(), notices=notices)
    made = made_before(session, sequence, head, since, suffix)
    if made is not None:
        return made
    writer = session.sequences.writer(sequence.named, head, restart=restart, must_resume=must_resume)
    try:
        resumed = len(writer.done)
        if resumed:
            head, origin = writer.head, writer.head.origins[0]
        height, width = head.size
        linker = Linker(height, width, request.link)
        _replay(linker, writer, sequence.numbers)
        seen = set(head.provenance.notices)
        found: list[str] = list(notices)
        for number in sequence.numbers:
            if number in writer.done:
                continue
            if cancelled is not None and cancelled():
                raise Cancelled("cancelled; the same command goes on from here")
            image = session.open_frame(sequence.frames, sequence.ref, number)
            result = session.auto(image, request.parameters, preset=request.preset, cancelled=cancelled)
            if len(found) < MOST_NOTES:
                found += [note for note in result.notes if note not in seen]
                seen.update(result.notes)
            masks = [mask for mask in matching(MaskSet(result.masks, head.provenance), request.conditions) if mask.area]
            if not request.overlaps:
                masks = apart(masks, image.data.facts.cut_height, width)
            linked = linker.step(number, [CroppedMask.of_rle(mask.rle) for mask in masks])
            masks = [
                dataclasses.replace(mask, id=one, origin=origin) for mask, one in zip(masks, linked.ids, strict=True)
            ]
            masks.sort(key=lambda mask: mask.id)
            writer.append(number, masks, linked.events)
            if on_frame is not None:
                done, total = len(writer.done), len(sequence.numbers)
                on_frame(Progress(done, total, number, len(masks), resumed, tuple(masks)))
        writer.finish(found)
    finally:
        writer.close()
    return save(session, sequence.named, writer, resumed, suffix)


def _replay(linker: Linker, writer: SequenceWriter, numbers: Sequence[int]) -> None:
    """Bring a linker to where an earlier run was."""
    done = [number for number in numbers if number in writer.done]
    if not done:
        return
    with SequenceSet.open(writer.path) as known:
        linker.next_id = 1 + max((one for chunk in known.chunks for one in chunk.ids), default=0)
        for number in done[-linker.memory :]:
            masks = known.frame(number).masks
            linker.replay([CroppedMask.of_rle(mask.rle) for mask in masks], [mask.id for mask in masks])


def save(
    session: Session, named: ImageRef, writer: SequenceWriter, resumed: int, suffix: str, *, keep: bool = True
) -> Followed:
    """Give a set that is whole its name, after ``named``; ``resumed`` of its frames are an earlier run's.

    Args:
        keep: where it cannot be saved leave it for the same command, given again; else what it was made of is still there.
    """
    with SequenceSet.open(writer.path) as known:
        try:
            saved = session.sequences.adopt(named, writer.path, suffix=suffix)
        except (StoreError, ServerError) as error:
            if keep:
                error.hint = f"{error.hint} What was found is kept: the same command saves it.".strip()
            else:
                writer.path.unlink(missing_ok=True)
            raise
        return _followed(saved, known, resumed)


def _followed(saved: SavedSequence, known: SequenceSet, resumed: int) -> Followed:
    return Followed(saved, len(known.frames), resumed, len(known.lives()), counted(known.events()), known.notices)


def made_before(
    session: Session, sequence: OpenSequence, head: SequenceHead, since: float | None, suffix: str
) -> Followed | None:
    """What a run with the same head that began at ``since`` saved before it died, if it came to that."""
    saved = None if since is None else session.sequences.made(sequence.named, head, since, suffix=suffix)
    if saved is None:
        return None
    _, known = session.sequences.open(sequence.named, saved.version.name)
    with known:
        return _followed(saved, known, len(known.frames))


def save_edited(
    session: Session,
    sequence: OpenSequence,
    changes: Mapping[int, Sequence[Mask]],
    *,
    onto: str | None = None,
    suffix: str = "",
    into: Session | None = None,
    labels: Mapping[int, str] | None = None,
    gone: Collection[int] = (),
    since: int = 0,
) -> Followed:
    """Masks of single frames that were made or changed by hand, saved; all other frames are as in the version ``onto``, or empty without one.

    Args:
        changes: frame -> all its masks, whose ids are the objects'. Of masks that are in ``onto`` too the labels do not count.
        labels: object -> its label on all frames, for objects that got another one.
        gone: ids of objects that are left out, from the frame ``since`` on.
        into: the session whose place of saved sets takes it, if not this one's.
    """
    parent = None if onto is None else session.sequences.open(sequence.named, onto)[1]
    try:
        before = parent.head.origins if parent is not None else ()
        made = origins_of(mask for number in sorted(changes) for mask in changes[number])
        # Later runs are told of these masks, so that they hold.
        made.append(Origin("tui", None, {"masks": _reshaped(changes, parent)}, __version__))
        head = sequence.head(
            [*before, *(origin for origin in made if origin not in before)],
            {"frames": sorted(changes), "labels": dict(labels or {}), "gone": sorted(gone), "since": since},
            operation="tui",
            parent=onto,
        )
        # What an earlier run left may be of other masks on the same frames.
        writer = (into or session).sequences.writer(sequence.named, head, restart=True)
        try:
            for number in sequence.numbers:
                known = parent.frame(number) if parent is not None and number in parent else SeenFrame(number, ())
                masks = [mask for mask in changes.get(number, known.masks) if number < since or mask.id not in gone]
                named = {mask.id: mask.label for mask in known.masks} | dict(labels or {})
                writer.append(number, sorted(_labelled(masks, named), key=lambda mask: mask.id), known.events)
            writer.finish(parent.notices if parent is not None else ())
        finally:
            writer.close()
    finally:
        if parent is not None:
            parent.close()
    return save(into or session, sequence.named, writer, 0, suffix, keep=False)


def relabel(
    session: Session, named: ImageRef, found: SequenceSet, labels: Mapping[int, str], *, parent: str, suffix: str = ""
) -> Followed:
    """A sequence set with other labels of some objects as the next version; the frames themselves are not needed.

    Args:
        named: what its sets are called after.
        labels: object -> its label on all frames.
        parent: the version's name.
    """
    parameters = {"labels": {str(one): label for one, label in labels.items()}}
    provenance = dataclasses.replace(found.head.provenance, operation="label", parameters=parameters, parent=parent)
    head = dataclasses.replace(found.head, provenance=stamped(provenance))
    writer = session.sequences.writer(named, head, restart=True)
    try:
        for seen in found:
            writer.append(seen.frame, _labelled(seen.masks, labels), seen.events)
        writer.finish(found.notices)
    finally:
        writer.close()
    return save(session, named, writer, 0, suffix, keep=False)


def _labelled(masks: Iterable[Mask], labels: Mapping[int, str]) -> list[Mask]:
    return [dataclasses.replace(mask, label=labels.get(mask.id, mask.label)) for mask in masks]


def _reshaped(changes: Mapping[int, Sequence[Mask]], parent: SequenceSet | None) -> list[list[int]]:
    """[object, frame] of the masks that are new or have another shape than in the set they were changed from."""
    found = []
    for number in sorted(changes):
        known = parent.frame(number).masks if parent is not None and number in parent else ()
        shapes = {mask.id: mask.rle for mask in known}
        found += [[mask.id, number] for mask in changes[number] if shapes.get(mask.id) != mask.rle]
    return found


def counted(events: Iterable[Event]) -> dict[str, int]:
    """How often each kind of event happened."""
    found: dict[str, int] = {}
    for event in events:
        found[event.kind] = found.get(event.kind, 0) + 1
    return found


def import_labels(session: Session, sequence: OpenSequence, stack: LabelStack, *, suffix: str = "") -> Followed:
    """Label images of the frames become a sequence set; a value is an object.

    Raises:
        InputError: there are not as many label images as frames.
        MaskFileError: one has another size, or is none.
    """
    numbers = sequence.numbers
    if len(stack) != len(numbers):
        raise InputError(
            f"{stack.name} has {len(stack)} label images for {len(numbers)} frames of {sequence.ref}",
            "Choose the frames with --frames.",
        )
    parameters = {"file": stack.name, "format": stack.kind}
    origin = Origin("import", None, parameters, __version__)
    head = sequence.head([origin], parameters, operation="import")
    writer = session.sequences.writer(sequence.named, head)
    resumed = len(writer.done)
    try:
        size = head.size
        events: dict[int, list[Event]] = {}
        for event in stack.events():
            if event.frame < len(numbers):
                moved = dataclasses.replace(event, frame=numbers[event.frame])
                events.setdefault(moved.frame, []).append(moved)
        for position, number in enumerate(numbers):
            if number not in writer.done:
                masks = masks_of_labels(stack.frame(position, size))
                writer.append(
                    number, [dataclasses.replace(mask, origin=origin) for mask in masks], events.get(number, ())
                )
        writer.finish()
    finally:
        writer.close()
    return save(session, sequence.named, writer, resumed, suffix)
