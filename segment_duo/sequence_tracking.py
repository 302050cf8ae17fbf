"""Following the objects of prompts through a sequence with the model's memory, into a saved sequence set; corrections onto a saved one.

    prompts, masks of a set ─> session.track ─> SequenceWriter ─> the next version
    corrections of a version ─> session.track from the first corrected frame on; everything else is copied

Nothing here prints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segment_duo import __version__
from segment_duo.errors import Cancelled, PromptError, UsageError
from segment_duo.frame_prompts import FramePrompt, together
from segment_duo.masks.cropped import CroppedMask
from segment_duo.masks.filters import MaskFilter
from segment_duo.masks.filters import apply as matching
from segment_duo.masks.formats.sequence import Event, SequenceSet
from segment_duo.masks.formats.sequence_writer import SequenceWriter
from segment_duo.parameters import AutoParameters
from segment_duo.provenance import parameters_record
from segment_duo.sequences import Followed, OnFrame, OpenSequence, Progress, made_before, save
from segment_duo.tracking.apart import apart, shrunk, uncovered
from segment_duo.tracking.asked import earlier_masks, earlier_prompts
from segment_duo.types import ImageData, Mask, MaskSet, Origin, Prompt

if TYPE_CHECKING:
    from segment_duo.segmenters.tracking import Direction, ObjectPrompt, TrackedFrame
    from segment_duo.session import Session


FAST_NOTICE = (
    "fast: what was remembered of followed frames was pooled, 2 x 2 to 1; masks differ somewhat from the exact ones"
)


@dataclass(frozen=True, slots=True)
class AutomaticObjects:
    """Automatic masks become objects: those of the first frame, and later on those that lie in no object that is followed.

    Attributes:
        parameters, preset: of the automatic masks.
        every: frames from one look for new objects to the next; 0 for none after the first. A look takes as long as automatic masks do.
        conditions: masks that do not meet them are no objects.
        overlaps: take masks that lie in one another, and the ground, too.
    """

    parameters: AutoParameters
    preset: str
    every: int
    conditions: MaskFilter = field(default_factory=MaskFilter)
    overlaps: bool = False

    def record(self) -> dict[str, Any]:
        """As the set's provenance has it."""
        return {
            "auto": parameters_record(self.parameters, self.preset),
            "conditions": self.conditions.parameters(),
            "overlaps": self.overlaps,
            "look_every": self.every,
        }

    def find(
        self, session: Session, sequence: OpenSequence, frame: int, cancelled: Callable[[], bool] | None = None
    ) -> list[Mask]:
        """The automatic masks of a frame that may be objects."""
        image = session.open_frame(sequence.frames, sequence.ref, frame)
        result = session.auto(image, self.parameters, preset=self.preset, cancelled=cancelled)
        provenance = sequence.head([], {}).provenance
        masks = [mask for mask in matching(MaskSet(result.masks, provenance), self.conditions) if mask.area]
        return masks if self.overlaps else apart(masks, image.data.facts.cut_height, sequence.frames.width)


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """Which objects are followed.

    Attributes:
        prompts: points and boxes.
        masks: objects by their pixels: (object, frame, mask of the uncut frame).
        direction: forward from an object's first prompt, backward from its last, or both.
        source: where ``masks`` come from, for the set's provenance.
        automatic: objects that automatic masks find, beside those; None for none.
        fast: approximate where that is quicker.
    """

    prompts: tuple[FramePrompt, ...] = ()
    masks: tuple[tuple[int, int, Mask], ...] = ()
    direction: Direction = "forward"
    source: str = ""
    automatic: AutomaticObjects | None = None
    fast: bool = False

    def record(self) -> dict[str, Any]:
        """As the set's provenance has it."""
        return {
            "method": "memory",
            "direction": self.direction,
            "prompts": [prompt.record() for prompt in self.prompts],
            "masks": [[one, frame] for one, frame, _ in self.masks],
            "source": self.source,
            **({"fast": True} if self.fast else {}),
            **(self.automatic.record() if self.automatic else {}),
        }


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The frames that are to be done, counted from 0, as the tracker wants them."""

    sequence: OpenSequence

    def __len__(self) -> int:
        return len(self.sequence.numbers)

    def frame(self, number: int) -> ImageData:
        return self.sequence.frames.frame(self.sequence.numbers[number])


def follow(
    session: Session,
    sequence: OpenSequence,
    request: TrackRequest,
    *,
    onto: str | None = None,
    suffix: str = "",
    restart: bool = False,
    must_resume: bool = False,
    since: float | None = None,
    on_frame: OnFrame | None = None,
    cancelled: Callable[[], bool] | None = None,
    enough: Callable[[], bool] | None = None,
) -> Followed:
    """Follow the objects of ``request`` and save them.

    Args:
        onto: a saved version that the prompts correct, or add objects to; frames before the first prompt, and other objects, stay as they are.
        suffix, restart, must_resume, since, on_frame: as of :func:`segment_duo.sequences.link`.
        enough: ends the run as well, but what was found till then is saved, with the other frames as they were before.

    Raises:
        UsageError: the model cannot follow objects; a prompt is on a frame that is not among the chosen ones.
        PromptError: nothing to follow.
        Cancelled: ``cancelled`` said so, and the same call goes on from there; or ``enough`` did before anything was found.
    """
    from segment_duo.segmenters.base import Capability

    session.model.require(Capability.TRACK)
    if not (request.prompts or request.masks or request.automatic):
        raise PromptError("nothing to follow", "Give -p x,y,label,object@frame, --points FILE, --from-set or --auto.")
    request = dataclasses.replace(request, prompts=tuple(together(request.prompts)))
    parent: SequenceSet | None = None
    if onto is not None:
        _, parent = session.sequences.open(sequence.named, onto)
        if parent.head.frames != sequence.numbers:
            parent.close()
            raise UsageError("the version to correct holds other frames", "Give the same --frames as for that version.")
    origin = Origin("track", session.identity, request.record(), __version__)
    origins = [origin, *(one for one in (parent.head.origins if parent else ()) if one != origin)]
    head = sequence.head(origins, request.record(), parent=onto)
    made = made_before(session, sequence, head, since, suffix) if onto is None else None
    if made is not None:
        return made
    writer = session.sequences.writer(sequence.named, head, restart=restart, must_resume=must_resume)
    try:
        run = _Run(session, sequence, request, writer, parent, on_frame, cancelled, enough)
        resumed = run.go()
    finally:
        writer.close()
        if parent is not None:
            parent.close()
    return save(session, sequence.named, writer, resumed, suffix)


class _Run:
    """One run: passes over the frames, each written when it is found."""

    def __init__(
        self,
        session: Session,
        sequence: OpenSequence,
        request: TrackRequest,
        writer: SequenceWriter,
        parent: SequenceSet | None,
        on_frame: OnFrame | None,
        cancelled: Callable[[], bool] | None,
        enough: Callable[[], bool] | None,
    ) -> None:
        self._session, self._sequence, self._request = session, sequence, request
        self._writer, self._parent = writer, parent
        self._on_frame, self._cancelled, self._enough = on_frame, cancelled, enough
        self._place = {number: position for position, number in enumerate(sequence.numbers)}
        corrected = {one for one, _ in self._anchors()}
        now = set(self._anchors())
        self._earlier = earlier_prompts(parent, corrected, now) if parent is not None else []
        self._earlier_masks = earlier_masks(parent, corrected, now) if parent is not None else []
        self._prompts = self._object_prompts()
        self._ids = {prompt.object_id for prompt in self._prompts}
        before = parent.labels(self._ids) if parent is not None else {}
        self._labels = before | {one: mask.label for one, _, mask in request.masks if mask.label}
        self._origin = writer.head.origins[0]
        self._notices = [FAST_NOTICE] if request.fast else []
        self._resumed = len(writer.done)
        self._looked: dict[int, CroppedMask] = {}  # the objects on the frame looked at last
        if request.automatic is not None:
            if self._resumed:
                self._take(self._found_before())
            else:
                self._come_in(0, request.automatic.find(session, sequence, sequence.numbers[0], cancelled))

    def go(self) -> int:
        """Do what is left; returns how many frames an earlier run had done."""
        asked = self._request.direction
        frames = [self._place[frame] for _, frame in self._anchors()]
        if self._request.automatic is not None:
            frames.append(0)
        first, last = min(frames), max(frames)
        apart_passes = first == last or self._parent is not None
        if asked == "both" and self._resumed and not apart_passes:
            # Which of the two passes a frame came from is not known then.
            self._writer.done.clear()
            self._resumed = 0
        try:
            if asked in ("forward", "both"):
                self._pass(range(first, len(self._sequence.numbers)), reverse=False)
            if asked in ("backward", "both"):
                begin = last if asked == "backward" else (first - 1 if apart_passes else last)
                self._pass(range(begin, -1, -1), reverse=True, again=asked == "both" and not apart_passes)
        except Cancelled:
            if self._enough is None or not self._enough() or not self._writer.done:
                raise
            self._notices.append(f"stopped after {len(self._writer.done)} of {len(self._sequence.numbers)} frames")
        for number in self._sequence.numbers:
            if number not in self._writer.done:
                self._write(number, {}, ())
        self._writer.finish(self._notices)
        return self._resumed

    def _anchors(self) -> list[tuple[int, int]]:
        """(object, frame) of everything that was asked for now."""
        return [(one.object_id, one.frame) for one in self._request.prompts] + [
            (one, frame) for one, frame, _ in self._request.masks
        ]

    def _object_prompts(self) -> list[ObjectPrompt]:
        import numpy as np

        from segment_duo.segmenters.asking import PromptArrays
        from segment_duo.segmenters.tracking import ObjectPrompt

        begun = {life.id: life.first for life in self._parent.lives()} if self._parent else {}
        found = []
        asked = [*self._earlier, *self._request.prompts]
        masks = [*self._earlier_masks, *self._request.masks]
        places = [(prompt.object_id, prompt.frame) for prompt in asked] + [(one, frame) for one, frame, _ in masks]
        for one in sorted({one for one, _ in places} & begun.keys()):
            first = min(frame for other, frame in places if other == one)
            if self._parent is not None and begun[one] < first:
                # It began otherwise than by a prompt that is known: as a mask of a set, or an import.
                mask = next(mask for mask in self._parent.frame(begun[one]).masks if mask.id == one)
                found.append(ObjectPrompt(one, self._place[begun[one]], mask=self._above_banner(mask)))
        for prompt in asked:
            if prompt.frame not in self._place:
                raise PromptError(f"frame {prompt.frame} is not among the frames that are followed")
            arrays = PromptArrays(
                np.array([[point.x, point.y] for point in prompt.points], np.float32).reshape(-1, 2),
                np.array([point.label for point in prompt.points], np.int64),
                None if prompt.box is None else dataclasses.astuple(prompt.box),
            )
            later = prompt.frame > begun.get(prompt.object_id, math.inf)
            if len(prompt.points) + (prompt.box is not None) > 1 and not later and self._session.model.learns_in_turn:
                found.append(ObjectPrompt(prompt.object_id, self._place[prompt.frame], mask=self._pointed_at(prompt)))
                continue
            found.append(ObjectPrompt(prompt.object_id, self._place[prompt.frame], arrays, correction=later))
        for one, frame, mask in masks:
            if frame not in self._place:
                raise PromptError(f"frame {frame} is not among the frames that are followed")
            found.append(ObjectPrompt(one, self._place[frame], mask=self._above_banner(mask)))
        return found

    def _pointed_at(self, prompt: FramePrompt) -> CroppedMask:
        """The object's mask on the prompt's frame, from its points in turn: a small model and its tracker do worse with all at once."""
        image = self._session.open_frame(self._sequence.frames, self._sequence.ref, prompt.frame)
        (answer,) = self._session.predict_at_scale(image, [Prompt(prompt.points, prompt.box)])
        return self._above_banner(answer.best.mask)

    def _come_in(self, position: int, masks: Sequence[Mask]) -> list[ObjectPrompt]:
        """Masks of a frame become objects, with ids that no other has."""
        from segment_duo.segmenters.tracking import ObjectPrompt

        first = max(self._ids, default=0) + 1
        return self._take(
            [ObjectPrompt(one, position, mask=self._above_banner(mask)) for one, mask in enumerate(masks, first)]
        )

    def _take(self, prompts: list[ObjectPrompt]) -> list[ObjectPrompt]:
        self._prompts += prompts
        self._ids |= {prompt.object_id for prompt in prompts}
        return prompts

    def _found_before(self) -> list[ObjectPrompt]:
        """The objects that automatic masks found in what an earlier run wrote: each by its first mask."""
        from segment_duo.segmenters.tracking import ObjectPrompt

        with SequenceSet.open(self._writer.path) as known:
            begun = [(life.id, life.first) for life in known.lives() if life.id not in self._ids]
            masks = [next(mask for mask in known.frame(first).masks if mask.id == one) for one, first in begun]
        return [
            ObjectPrompt(one, self._place[first], mask=self._above_banner(mask))
            for (one, first), mask in zip(begun, masks, strict=True)
        ]

    def _look(self, position: int, here: Mapping[int, CroppedMask]) -> list[ObjectPrompt]:
        """New objects, and objects that took such a one for a part of themselves, on the frames that are looked at for them."""
        from segment_duo.segmenters.tracking import ObjectPrompt

        automatic = self._request.automatic
        assert automatic is not None
        self._looked = self._looked or dict(here)
        if not position or position % automatic.every:
            return []
        frames = self._sequence.frames
        masks = automatic.find(self._session, self._sequence, self._sequence.numbers[position], self._cancelled)
        corrected = shrunk(masks, here, self._looked)
        self._looked = {**here, **corrected}
        new = self._come_in(
            position, uncovered(masks, list(self._looked.values()), frames.height - frames.banner.height, frames.width)
        )
        self._looked |= {prompt.object_id: prompt.mask for prompt in new if prompt.mask is not None}
        for one in sorted(corrected):
            self._notices.append(
                f"frame {self._sequence.numbers[position]}: object {one} had taken what came beside it for a part of itself, and is without it again"
            )
        return [*new, *(ObjectPrompt(one, position, mask=mask) for one, mask in corrected.items())]

    def _above_banner(self, mask: Mask) -> CroppedMask:
        """The mask's pixels that the model sees."""
        pixels = CroppedMask.of_rle(mask.rle)
        rows = max(0, self._sequence.frames.height - self._sequence.frames.banner.height - pixels.top)
        return CroppedMask(pixels.pixels[:rows], pixels.left, pixels.top)

    def _pass(self, order: range, *, reverse: bool, again: bool = False) -> None:
        """Go through positions in one direction; those that an earlier run did are left out."""
        numbers = self._sequence.numbers
        left = [position for position in order if again or numbers[position] not in self._writer.done]
        if not left:
            return
        resumes = len(left) < len(order)
        known = self._known if resumes or self._parent is not None else None
        before: set[int] = set()
        gone: set[int] = set()
        automatic = self._request.automatic
        looks = automatic is not None and automatic.every and self._request.direction == "forward"
        frames = self._session.track(
            _Chosen(self._sequence),
            self._prompts,
            direction="backward" if reverse else "forward",
            known=known,
            newcomers=self._look if looks else None,
            fast=self._request.fast,
            cancelled=self._stopped,
            start=None if reverse else left[0],
            end=left[0] + 1 if reverse else None,
        )
        for tracked in frames:
            if tracked.frame not in left and not again:
                continue
            seen = {one.id for one in tracked.objects if one.seen}
            events = [] if reverse else self._happened(numbers[tracked.frame], seen, before, gone)
            before, gone = seen, (gone | (before - seen)) - seen
            self._notices += [note for note in tracked.notes if note not in self._notices]
            self._write(
                numbers[tracked.frame], self._masks(tracked), tuple(events), {one.id for one in tracked.objects}
            )

    def _stopped(self) -> bool:
        return any(asked is not None and asked() for asked in (self._cancelled, self._enough))

    @staticmethod
    def _happened(frame: int, seen: set[int], before: set[int], gone: set[int]) -> Iterator[Event]:
        if lost := before - seen:
            yield Event(frame, "lost", tuple(sorted(lost)))
        if back := seen & gone:
            yield Event(frame, "returned", tuple(sorted(back)))

    def _masks(self, tracked: TrackedFrame) -> dict[int, Mask]:
        from segment_duo.masks.rle import bounding_box

        height, width = self._writer.head.size
        found = {}
        for one in tracked.objects:
            if one.seen and one.mask.area:
                rle = one.mask.rle(height, width)
                found[one.id] = Mask(
                    rle, one.mask.area, bounding_box(rle),
                    id=one.id, label=self._labels.get(one.id, ""), source="prompt", origin=self._origin,
                )  # fmt: skip
        return found

    def _write(
        self, number: int, found: Mapping[int, Mask], events: Sequence[Event], answered: Collection[int] = ()
    ) -> None:
        """A frame with what was found now, and what is known of other objects: from this run, else from the version that is corrected."""
        masks: dict[int, Mask] = {}
        if number in self._writer.done:
            masks = {mask.id: mask for mask in self._writer.frame(number).masks}
        elif self._parent is not None and number in self._parent:
            masks = {mask.id: mask for mask in self._parent.frame(number).masks}
        masks = {one: mask for one, mask in masks.items() if one not in answered} | dict(found)
        ordered = [masks[one] for one in sorted(masks)]
        self._writer.append(number, ordered, events)
        if self._on_frame is not None:
            done, total = len(self._writer.done), len(self._sequence.numbers)
            self._on_frame(Progress(done, total, number, len(masks), self._resumed, tuple(ordered)))

    def _known(self, position: int) -> dict[int, CroppedMask]:
        """Results of this run or of the version that is corrected, for the objects that are followed now."""
        import numpy as np

        number = self._sequence.numbers[position]
        masks: tuple[Mask, ...] = ()
        if number in self._writer.done:
            masks = self._writer.frame(number).masks
        elif self._parent is not None and number in self._parent:
            masks = self._parent.frame(number).masks
        else:
            return {}
        empty = CroppedMask(np.zeros((0, 0), bool), 0, 0)
        seen = {mask.id: self._above_banner(mask) for mask in masks}
        return {one: seen.get(one, empty) for one in self._ids}
