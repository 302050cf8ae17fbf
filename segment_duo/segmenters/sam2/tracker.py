"""Follows objects through frames with an unmodified SAM 2 model: the propagation of ``SAM2VideoPredictor``, one frame a call.

    pixels ──> encoder, once a frame ──> conditioning (memory attention, objects in batches) ──> heads (decoder, pointers) ──> masks
                     prompts ────────────────────────────────────────────────────────────────────┘       └──> memory encoder ──> memory

What differs from stock, on purpose: only memories that can still be seen are kept; objects may start on any frame; a corrected frame becomes a
conditioned one, as with stock's ``add_all_frames_to_correct_as_cond``, or the next pass would lose the correction. Holes are not filled (stock
does so only with its CUDA extension) and masks may overlap. Equality with stock is tested in ``tests/segmenters/test_tracker.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from segment_duo.errors import PromptError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.asking import OnProgress, no_progress, unchecked
from segment_duo.segmenters.sam2.conditioning import MemoryConditioner, SharedFrame, pooled
from segment_duo.segmenters.sam2.heads import FrameFeatures, Heads, ObjectLogits
from segment_duo.segmenters.sam2.memory import Memory, ObjectMemory, Reach, Seen
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.segmenters.sam2.prompting import MASK_THRESHOLD
from segment_duo.segmenters.sam2.upsample import cut_out
from segment_duo.segmenters.tracking import ObjectPrompt, TrackedObject, Tracker, TrackStep

if TYPE_CHECKING:
    import numpy.typing as npt

T = TypeVar("T")

OBJECTS_AT_ONCE = 8
"""Objects that go through the model together; more need more memory and are no faster."""


class Sam2Tracker(Tracker):
    """Args:
    predictor: of the model.
    frames: how many frames the sequence has; the model encodes distances relative to it in sequences shorter than its memory.
    fast: memories of frames that were followed are pooled, 2 x 2 tokens to one; prompted and corrected frames stay whole.
    """

    def __init__(self, predictor: Predictor, frames: int, *, fast: bool = False) -> None:
        self.fast = fast
        self.predictor = predictor
        self.model = predictor.model
        self.reach = Reach.of(self.model, frames)
        self.looks_back = self.reach.pointers_back
        self.heads = Heads(self.model)
        self.conditioner = MemoryConditioner(self.model, self.reach.pointers)
        self._objects: dict[int, ObjectMemory] = {}
        self._size: tuple[int, int] | None = None
        self._last: tuple[npt.NDArray[np.uint8], FrameFeatures] | None = None

    @property
    def nbytes(self) -> int:
        last = 0 if self._last is None else self._last[0].nbytes + self._last[1].nbytes
        return last + sum(memory.nbytes for memory in self._objects.values())

    @torch.inference_mode()
    def step(
        self,
        pixels: npt.NDArray[np.uint8],
        step: TrackStep,
        *,
        on_progress: OnProgress = no_progress,
        check: Callable[[], None] = unchecked,
    ) -> tuple[TrackedObject, ...]:
        self._check(pixels, step)
        on_progress("encoder", 0, 0)
        frame = self._features(pixels)
        check()
        work = _Step(self, frame, step, check)
        total = len(step.prompts) + len(step.follow) + len(step.known)
        for done in work.parts():
            on_progress("objects", done, total)
            check()
        # Only now: what is cancelled half-way leaves no trace.
        work.commit(self._objects, self.reach)
        self._size = pixels.shape[:2]
        return work.answers()

    def _features(self, pixels: npt.NDArray[np.uint8]) -> FrameFeatures:
        """The encoder's features; those of the last frame are kept, for it is often the next one too."""
        if self._last is None or not np.array_equal(self._last[0], pixels):
            self._last = (pixels, self.heads.encode(pixels))
        return self._last[1]

    def memory_of(self, number: int) -> ObjectMemory:
        return self._objects[number]

    def _check(self, pixels: npt.NDArray[np.uint8], step: TrackStep) -> None:
        height, width = pixels.shape[:2]
        if self._size is not None and self._size != (height, width):
            raise PromptError(
                f"frame {step.frame} is {width} x {height} pixels, those before are {self._size[1]} x {self._size[0]}",
                "Frames of a sequence have one size.",
            )
        alone = {prompt.object_id for prompt in step.prompts if not _refines(prompt)}
        wanted = {*step.follow, *step.known, *(prompt.object_id for prompt in step.prompts)}
        for number in sorted(wanted - alone - self._objects.keys()):
            raise PromptError(f"object {number} is not known on frame {step.frame}", "Prompt it before it is followed.")
        masks = {**{prompt.object_id: prompt.mask for prompt in step.prompts}, **step.known}
        for number, mask in masks.items():
            if mask is not None and not _inside(mask, height, width):
                raise PromptError(f"the mask of object {number} reaches out of frame {step.frame} ({width} x {height})")


class _Step:
    """One frame's work: outcomes are gathered, and remembered when all of them are there."""

    def __init__(self, tracker: Sam2Tracker, frame: FrameFeatures, step: TrackStep, check: Callable[[], None]) -> None:
        self._tracker = tracker
        self._heads = tracker.heads
        self._frame = frame
        self._step = step
        self._check = check
        self._shared: SharedFrame | None = None
        self._masks: dict[int, TrackedObject] = {}
        self._conditioned: dict[int, Memory] = {}
        self._followed: dict[int, Memory] = {}

    def parts(self) -> Iterator[int]:
        """Do the work; yields how many objects are done."""
        step = self._step
        done = 0
        for part in _parts([prompt for prompt in step.prompts if prompt.mask is not None]):
            masks = [prompt.mask for prompt in part if prompt.mask is not None]
            outcome = self._heads.given(self._frame, self._whole(masks))
            self._keep([prompt.object_id for prompt in part], outcome, prompted=True, masks=masks)
            yield (done := done + len(part))
        for part in self._alike(
            [prompt for prompt in step.prompts if prompt.prompt is not None and not _refines(prompt)]
        ):
            outcome = self._heads.prompted(self._frame, *self._points(part))
            self._keep([prompt.object_id for prompt in part], outcome, prompted=True)
            yield (done := done + len(part))
        corrections = {prompt.object_id: prompt for prompt in step.prompts if _refines(prompt)}
        settled = self._masks.keys() | corrections.keys() | step.known.keys()
        for ids in self._groups([number for number in step.follow if number not in settled]):
            outcome = self._heads.followed(self._frame, self._condition(ids))
            self._keep(ids, outcome, prompted=False)
            yield (done := done + len(ids))
        for part in self._alike(list(corrections.values())):
            for ids in self._groups([prompt.object_id for prompt in part]):
                conditioned = self._condition(ids)
                found = self._heads.followed(self._frame, conditioned)
                points = self._points([corrections[number] for number in ids])
                outcome = self._heads.corrected(self._frame, conditioned, *points, found.low_res)
                self._keep(ids, outcome, prompted=True)
                yield (done := done + len(ids))
        for ids in _parts(sorted(step.known)):
            outcome = self._heads.given(self._frame, self._whole([step.known[number] for number in ids]))
            self._remember(ids, outcome, self._followed, prompted=False)
            yield (done := done + len(ids))

    def commit(self, objects: dict[int, ObjectMemory], reach: Reach) -> None:
        frame = self._step.frame
        for number, memory in self._conditioned.items():
            objects.setdefault(number, ObjectMemory()).condition(frame, memory)
        for number, memory in self._followed.items():
            if frame not in objects[number].conditioned:
                objects[number].follow(frame, memory, reach)

    def answers(self) -> tuple[TrackedObject, ...]:
        return tuple(self._masks[number] for number in sorted(self._masks))

    def _condition(self, ids: Sequence[int]) -> Tensor:
        tracker = self._tracker
        if self._shared is None:
            self._shared = tracker.conditioner.frame(self._frame.tokens, self._frame.position)
        return tracker.conditioner.objects(self._shared, [self._seen(number) for number in ids], self._check)

    def _seen(self, number: int) -> Seen:
        tracker = self._tracker
        return tracker.memory_of(number).seen_from(self._step.frame, tracker.reach, reverse=self._step.reverse)

    def _groups(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """Objects that fit one batch: they see equally many memories."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for number in ids:
            groups.setdefault(self._seen(number).kind, []).append(number)
        for group in groups.values():
            yield from _parts(group)

    def _alike(self, prompts: Sequence[ObjectPrompt]) -> Iterator[list[ObjectPrompt]]:
        """Prompts that fit one batch: they have equally many points."""
        groups: dict[tuple[int, bool], list[ObjectPrompt]] = {}
        for prompt in prompts:
            asked = prompt.prompt
            assert asked is not None
            groups.setdefault((len(asked.points), asked.box is not None), []).append(prompt)
        for group in groups.values():
            yield from _parts(group)

    def _points(self, prompts: Sequence[ObjectPrompt]) -> tuple[Tensor, Tensor]:
        asked = [prompt.prompt for prompt in prompts if prompt.prompt is not None]
        return self._tracker.predictor.prompt_tensors(asked, self._frame.height, self._frame.width)

    def _whole(self, masks: Sequence[CroppedMask]) -> Tensor:
        full = np.zeros((len(masks), self._frame.height, self._frame.width), dtype=bool)
        for canvas, mask in zip(full, masks, strict=True):
            rows, cols = mask.pixels.shape
            canvas[mask.top : mask.top + rows, mask.left : mask.left + cols] = mask.pixels
        return torch.from_numpy(full).to(self._tracker.predictor.device)

    def _keep(
        self, ids: Sequence[int], outcome: ObjectLogits, *, prompted: bool, masks: Sequence[CroppedMask] | None = None
    ) -> None:
        """Make the answers, and remember. ``masks``: those that are known already."""
        self._remember(ids, outcome, self._conditioned if prompted else self._followed, prompted=prompted)
        low = outcome.low_res
        if masks is None:
            up = self._tracker.predictor.upsampler(
                (int(low.shape[-2]), int(low.shape[-1])), self._frame.height, self._frame.width
            )
            masks = [up.binary(cut, MASK_THRESHOLD) for cut in cut_out(low, MASK_THRESHOLD)]
        for number, mask, score in zip(ids, masks, outcome.scores.tolist(), strict=True):
            self._masks[number] = TrackedObject(number, mask, score)

    def _remember(self, ids: Sequence[int], outcome: ObjectLogits, into: dict[int, Memory], *, prompted: bool) -> None:
        features = self._heads.remember(self._frame, outcome, prompted=prompted)
        if self._tracker.fast and not prompted:
            features = pooled(features)
        for number, feature, pointer in zip(ids, features, outcome.pointers, strict=True):
            # Copies: a view would keep the whole batch alive.
            into[number] = Memory(feature.clone(), pointer.clone())


def _refines(prompt: ObjectPrompt) -> bool:
    """Whether the object is followed first. A mask that is given needs no finding."""
    return prompt.correction and prompt.mask is None


def _inside(mask: CroppedMask, height: int, width: int) -> bool:
    rows, cols = mask.pixels.shape
    return not mask.pixels.size or (
        mask.left >= 0 and mask.top >= 0 and mask.left + cols <= width and mask.top + rows <= height
    )


def _parts(items: Sequence[T]) -> Iterator[list[T]]:
    """A list in batches of :data:`OBJECTS_AT_ONCE`."""
    for start in range(0, len(items), OBJECTS_AT_ONCE):
        yield list(items[start : start + OBJECTS_AT_ONCE])
