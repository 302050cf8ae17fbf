"""Following objects through a sequence with the engine's help: which frame is done when, and what happens when the engine forgets.

    frames (read one ahead) ──> passes: prompted frames first, then forward, backward or both ──> engine.track, one frame a call
                                    └─ the masks of the last frames are kept here: with them a lost track is begun again

No frame is kept, and no result except those last ones. This module must not know of stores, saved sets or front ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.engine.protocol import TrackEvent, TrackFrameRequest, TrackPrompt, image_id
from segment_duo.errors import Cancelled, EngineFailed, PromptError, TrackLost, UsageError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.prompts import check_prompts
from segment_duo.segmenters.asking import OnProgress, no_progress
from segment_duo.segmenters.tracking import (
    LOOKS_BACK,
    Direction,
    Frames,
    Known,
    Newcomers,
    ObjectPrompt,
    TrackedFrame,
    TrackedObject,
)
from segment_duo.types import Box, Point, Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.engine.api import Engine
    from segment_duo.models.choice import ModelChoice
    from segment_duo.types import ImageData

MOST_LOSSES = 5
"""So often a track may be lost within :data:`LOOKS_BACK` frames, before it is given up: an engine that dies of every frame is not asked for ever."""


@dataclass(frozen=True)
class _Pass:
    """Frames in their order; ``begins``: the frame each object comes in."""

    order: range
    begins: dict[int, int]
    reverse: bool

    def active(self, frame: int) -> set[int]:
        """Objects that have come in."""
        return {number for number, begin in self.begins.items() if (frame <= begin if self.reverse else frame >= begin)}


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame that was read."""

    number: int
    pixels: npt.NDArray[np.uint8]
    image_id: str


class Following:
    """One run over a sequence; :meth:`frames` gives its results as they come.

    Args:
        engine, model: who computes, and with what.
        frames: the sequence; read in another thread, one frame ahead.
        prompts: where the objects are.
        direction, start, end, known, newcomers, fast: as in :meth:`segment_duo.session.Session.track`.
        tell: takes one-line messages for the user.

    Raises:
        PromptError: no prompts, or one on a frame that is not there.
        UsageError: an empty stretch of frames, or ``known`` with ``both``.
    """

    def __init__(
        self,
        engine: Engine,
        model: ModelChoice,
        frames: Frames,
        prompts: Sequence[ObjectPrompt],
        *,
        direction: Direction = "forward",
        start: int | None = None,
        end: int | None = None,
        known: Known | None = None,
        newcomers: Newcomers | None = None,
        fast: bool = False,
        on_progress: OnProgress = no_progress,
        cancelled: Callable[[], bool] | None = None,
        tell: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self._engine = engine
        self._model = model
        self._frames = frames
        self._count = len(frames)
        self._start, self._end = start or 0, self._count if end is None else end
        self._known = known
        self._newcomers = newcomers
        self._fast = fast
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._tell = tell
        self._prompts = tuple(prompts)
        self._direction = direction
        self._check()
        self._settled: dict[tuple[int, int], TrackedObject] = {}
        self._last: dict[int, dict[int, CroppedMask]] = {}
        self._looks_back = LOOKS_BACK
        self._track = ""
        self._held = ExitStack()
        self._reader = ThreadPoolExecutor(1, "frames")
        self._done = 0
        self._fresh = True

    def frames(self) -> Iterator[TrackedFrame]:
        """The results, frame by frame."""
        passes = self._passes()
        total = sum(len(one.order) for one in passes)
        try:
            for one in passes:
                self._last = {}
                if not self._track:  # a pass backward goes on with what the one forward left
                    self._begin(one)
                yield from self._run(one, total)
        finally:
            self._held.close()
            self._reader.shutdown(wait=False, cancel_futures=True)

    def _check(self) -> None:
        if not self._prompts and self._newcomers is None:
            raise PromptError("nothing to follow", "Say where an object is on at least one frame.")
        for prompt in self._prompts:
            if prompt.frame >= self._count:
                raise PromptError(
                    f"object {prompt.object_id}: there is no frame {prompt.frame}; there are {self._count}, 0 to {self._count - 1}"
                )
        if not 0 <= self._start < self._end <= self._count:
            raise UsageError(
                f"frames {self._start} to {self._end}: there are {self._count}",
                "Frames count from 0; the end is not one of them.",
            )
        if self._newcomers is not None and self._direction != "forward":
            raise UsageError("new objects are looked for going forward only", "Leave out the direction.")
        if self._known is not None and self._direction == "both":
            raise UsageError("results that are known go with one direction", "Follow forward, then backward.")

    # -- what comes when ----------------------------------------------------------------------------------------------

    def _passes(self) -> list[_Pass]:
        # Objects that have nothing but corrections are followed from the edge on: they are known there.
        if not self._prompts:
            return [_Pass(range(self._start, self._end), {}, False)]
        first, last = self._begins(min, self._start), self._begins(max, self._end - 1)
        back = last if self._direction == "backward" else first
        passes = []
        if self._direction != "backward":
            # Without known results the frames before ``start`` are computed too, for what follows depends on them.
            begin = min(first.values()) if self._known is None else max(self._start, min(first.values()))
            passes.append(_Pass(range(begin, self._end), first, False))
        if self._direction != "forward":
            begin = max(back.values()) if self._known is None else min(self._end - 1, max(back.values()))
            after_forward = self._direction == "both"
            begins = {number: frame - after_forward for number, frame in back.items()}
            passes.append(_Pass(range(begin - after_forward, self._start - 1, -1), begins, True))
        return passes

    def _begins(self, pick: Callable[[list[int]], int], edge: int) -> dict[int, int]:
        """The frame each object begins on: one of its prompts', or the ``edge``."""
        found = {prompt.object_id: edge for prompt in self._prompts}
        for ident in found:
            frames = [prompt.frame for prompt in self._prompts if prompt.object_id == ident and not prompt.correction]
            found[ident] = pick(frames) if frames else edge
        return found

    def _run(self, one: _Pass, total: int) -> Iterator[TrackedFrame]:
        ahead: Future[_Frame] | None = None
        losses: list[int] = []
        for number in one.order:
            corrections = [prompt for prompt in self._prompts if prompt.correction and prompt.frame == number]
            active = one.active(number)
            settled = {ident for ident in active if (ident, number) in self._settled}
            corrected = {prompt.object_id for prompt in corrections} - settled
            follow = sorted(active - settled - corrected)
            found: tuple[TrackedObject, ...] = ()
            notes: tuple[str, ...] = ()
            if self._cancelled is not None and self._cancelled():
                raise Cancelled("stopped on request")
            if follow or corrected:
                frame = ahead.result() if ahead is not None else self._read(number)
                ahead = self._reader.submit(self._read, number + one.order.step) if number != one.order[-1] else None
                wanted = [prompt for prompt in corrections if prompt.object_id in corrected]
                lost = False
                while True:
                    try:
                        if lost:
                            notes = (self._again(one, number),)
                        found = self._step(frame, wanted, follow, {}, reverse=one.reverse)
                        break
                    except TrackLost:
                        lost = True
                        losses = [at for at in losses if abs(at - number) < LOOKS_BACK] + [number]
                        if len(losses) > MOST_LOSSES:
                            raise EngineFailed(
                                f"the engine lost the objects {len(losses)} times up to frame {number}",
                                "`segduo engine logs` tells why; a smaller model or fewer objects need less memory.",
                            ) from None
                for tracked in found:
                    if tracked.id in corrected:
                        self._settled[tracked.id, number] = tracked
            elif ahead is not None:
                ahead = None
            here = {tracked.id: tracked for tracked in found}
            here |= {ident: self._settled[ident, number] for ident in settled}
            here |= self._come_in(one, number, here)
            self._remember(number, here, one.reverse)
            self._done += 1
            self._on_progress("frames", self._done, total)
            if self._start <= number < self._end and here:
                yield TrackedFrame(number, tuple(here[ident] for ident in sorted(here)), notes)

    def _come_in(self, one: _Pass, number: int, here: Mapping[int, TrackedObject]) -> dict[int, TrackedObject]:
        """Objects that are followed from this frame on, or that are another mask from it on."""
        if self._newcomers is None:
            return {}
        new = self._newcomers(number, {ident: tracked.mask for ident, tracked in here.items()})
        if new:
            self._prompts += tuple(new)
            one.begins.update({prompt.object_id: number for prompt in new if prompt.object_id not in one.begins})
            self._condition(new, one.reverse)
        return {prompt.object_id: self._settled[prompt.object_id, number] for prompt in new}

    def _remember(self, number: int, here: Mapping[int, TrackedObject], reverse: bool) -> None:
        self._last[number] = {ident: tracked.mask for ident, tracked in here.items()}
        gone = number + self._looks_back if reverse else number - self._looks_back
        self._last.pop(gone, None)

    # -- the engine's memory ------------------------------------------------------------------------------------------

    def _begin(self, one: _Pass) -> None:
        """A new track: the prompts that need no memory, then what is known of the frames before the first."""
        self._hold()
        first = one.order[0] if len(one.order) else self._start
        before = range(first + LOOKS_BACK, first, -1) if one.reverse else range(first - LOOKS_BACK, first)
        history = {number: self._known_on(number, one) for number in before if 0 <= number < self._count}
        alone = [prompt for prompt in self._prompts if not prompt.correction]
        self._condition([*alone, *self._stand_ins(history)], one.reverse)
        self._replay(history, one.reverse)

    def _known_on(self, number: int, one: _Pass) -> dict[int, CroppedMask]:
        if self._known is None:
            return {}
        begun = one.active(number) | self._only_corrected()
        return {ident: mask for ident, mask in self._known(number).items() if ident in begun}

    def _only_corrected(self) -> set[int]:
        alone = {prompt.object_id for prompt in self._prompts if not prompt.correction}
        return {prompt.object_id for prompt in self._prompts} - alone

    def _stand_ins(self, history: Mapping[int, Mapping[int, CroppedMask]]) -> list[ObjectPrompt]:
        """For objects that have nothing but corrections: the earliest mask that is known of each."""
        missing = self._only_corrected()
        found = []
        for number, masks in history.items():
            for ident in sorted(missing & masks.keys()):
                if masks[ident].pixels.size:
                    found.append(ObjectPrompt(ident, number, mask=masks[ident]))
                    missing.discard(ident)
        if missing:
            raise PromptError(
                f"object {min(missing)} has nothing but corrections, and no mask is known that they could correct",
                "Give its first prompt too, or the results of the run before.",
            )
        return found

    def _again(self, one: _Pass, number: int) -> str:
        """Begin a lost track again, from the masks of the last frames; says so."""
        note = f"frame {number}: the engine lost its memory of the objects; it was made anew from the masks of the last {len(self._last)} frames"
        self._tell(note)
        self._hold()
        alone = [prompt for prompt in self._prompts if not prompt.correction]
        done = {prompt.object_id for prompt in alone}
        corrected = [
            ObjectPrompt(ident, frame, mask=tracked.mask)
            for (ident, frame), tracked in self._settled.items()
            if not any(prompt.object_id == ident and prompt.frame == frame for prompt in alone)
        ]
        done |= {prompt.object_id for prompt in corrected}
        stand_ins = [
            ObjectPrompt(ident, frame, mask=mask)
            for frame, masks in list(self._last.items())[:1]
            for ident, mask in masks.items()
            if ident not in done
        ]
        self._condition([*alone, *corrected, *stand_ins], one.reverse)
        self._replay(self._last, one.reverse)
        return note

    def _hold(self) -> None:
        self._held.close()
        self._track = secrets.token_hex(16)
        self._held.enter_context(self._engine.hold_track(self._track))
        self._fresh = True

    def _condition(self, prompts: Sequence[ObjectPrompt], reverse: bool) -> None:
        """Send prompts that need no memory, frame by frame."""
        for number in sorted({prompt.frame for prompt in prompts}):
            here = [prompt for prompt in prompts if prompt.frame == number]
            for tracked in self._step(self._read(number, here), here, (), {}, reverse=reverse):
                self._settled[tracked.id, number] = tracked

    def _replay(self, history: Mapping[int, Mapping[int, CroppedMask]], reverse: bool) -> None:
        for number, masks in history.items():
            known = {ident: mask for ident, mask in masks.items() if (ident, number) not in self._settled}
            if known:
                self._step(self._read(number), (), (), known, reverse=reverse)

    def _step(
        self,
        frame: _Frame,
        prompts: Sequence[ObjectPrompt],
        follow: Collection[int],
        known: Mapping[int, CroppedMask],
        *,
        reverse: bool,
    ) -> tuple[TrackedObject, ...]:
        height, width = frame.pixels.shape[:2]
        request = TrackFrameRequest(
            model=self._engine.model_request(self._model),
            track=self._track,
            frames=self._count,
            frame=frame.number,
            begin=self._fresh,
            fast=self._fast,
            reverse=reverse,
            prompts=[_sent(prompt, height, width) for prompt in prompts],
            follow=list(follow),
            known={ident: mask.rle(height, width) for ident, mask in known.items()},
        )
        self._engine.ensure_image(frame.pixels, image_id=frame.image_id, model=self._model, embed=False)

        def tell(event: TrackEvent) -> None:
            if event.phase:
                self._on_progress(event.phase, event.done, event.total)

        answer = self._engine.track(frame.image_id, request, on_event=tell, cancelled=self._cancelled)
        self._fresh = False
        self._looks_back = max(answer.looks_back, 1)
        return tuple(TrackedObject(one.id, CroppedMask.of_rle(one.rle), one.score) for one in answer.objects)

    def _read(self, number: int, prompts: Sequence[ObjectPrompt] = ()) -> _Frame:
        data = self._frames.frame(number)
        _check_on(data, prompts)
        return _Frame(number, data.pixels, image_id(data.pixels))


def _check_on(data: ImageData, prompts: Sequence[ObjectPrompt]) -> None:
    facts = data.facts
    asked = [_prompt(prompt) for prompt in prompts if prompt.prompt is not None]
    check_prompts(asked, width=facts.width, height=facts.height, banner=facts.banner.height)


def _sent(prompt: ObjectPrompt, height: int, width: int) -> TrackPrompt:
    if prompt.mask is None:
        return TrackPrompt(object_id=prompt.object_id, prompt=_prompt(prompt), correction=prompt.correction)
    rows, cols = prompt.mask.pixels.shape
    if prompt.mask.top + rows > height or prompt.mask.left + cols > width:
        raise PromptError(
            f"the mask of object {prompt.object_id} reaches out of frame {prompt.frame} ({width} x {height})"
        )
    return TrackPrompt(object_id=prompt.object_id, mask=prompt.mask.rle(height, width), correction=prompt.correction)


def _prompt(prompt: ObjectPrompt) -> Prompt:
    arrays = prompt.prompt
    assert arrays is not None
    points = tuple(
        Point(float(x), float(y), 1 if label else 0)
        for (x, y), label in zip(arrays.points.tolist(), arrays.labels.tolist(), strict=True)
    )
    return Prompt(points=points, box=arrays.box and Box(*arrays.box), object_id=str(prompt.object_id))
