"""The tracks an engine holds: what its models remember of objects that are followed, by the id that the client chose. No torch here.

Bounded in bytes, the longest unused dropped first. A client that wants one kept while it works holds it (``GET /v1/tracks/{id}``); when that
connection ends, the track goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.engine.protocol import TrackFrameRequest
from segment_duo.errors import TrackLost, UsageError
from segment_duo.lru import BoundedLru
from segment_duo.masks.cropped import CroppedMask
from segment_duo.results import TrackedMask
from segment_duo.segmenters.asking import PromptArrays
from segment_duo.segmenters.tracking import ObjectPrompt, TrackedObject, Tracker, TrackStep

if TYPE_CHECKING:
    from segment_duo.engine.loaded_models import HeldModel
    from segment_duo.segmenters.base import Segmenter


@dataclass(frozen=True, eq=False)
class _Held:
    tracker: Tracker
    segmenter: Segmenter
    frames: int


class Tracks:
    """Args:
    bound: bytes of all tracks together; the newest is kept whatever its size.
    """

    def __init__(self, bound: int) -> None:
        self._held: BoundedLru[str, _Held] = BoundedLru(bound)

    @property
    def used(self) -> int:
        return self._held.used

    def open(self, request: TrackFrameRequest, model: HeldModel) -> Tracker:
        """The track of a request, or a new one if it says so.

        Raises:
            TrackLost: it is not here, or was made with a model that was let go of since.
            UsageError: the sequence has another length than at the beginning.
        """
        if request.begin:
            held = _Held(model.segmenter.tracker(request.frames, fast=request.fast), model.segmenter, request.frames)
            self._held.put(request.track, held, held.tracker.nbytes)
            return held.tracker
        found = self._held.get(request.track)
        if found is None or found.segmenter is not model.segmenter:
            raise TrackLost(
                "the engine no longer remembers the objects of this track",
                "Begin again with the masks that were found.",
            )
        if found.frames != request.frames:
            raise UsageError(f"the track was begun with {found.frames} frames, now there are {request.frames}")
        return found.tracker

    def keep(self, track: str) -> None:
        """Count what a track takes now. One that was released meanwhile stays away."""
        held = self._held.get(track)
        if held is not None:
            self._held.put(track, held, held.tracker.nbytes)

    def release(self, track: str) -> int:
        """Forget a track; the bytes freed."""
        return self._held.drop(track)


def step_of(request: TrackFrameRequest) -> TrackStep:
    """The request as the tracker takes it.

    Raises:
        PromptError: a prompt without a place, or with two.
    """
    prompts = [
        ObjectPrompt(
            one.object_id,
            request.frame,
            None if one.prompt is None else PromptArrays.of(one.prompt),
            None if one.mask is None else CroppedMask.of_rle(one.mask),
            one.correction,
        )
        for one in request.prompts
    ]
    known = {number: CroppedMask.of_rle(rle) for number, rle in request.known.items()}
    return TrackStep(request.frame, prompts, request.follow, known, request.reverse)


def tracked_mask(found: TrackedObject, height: int, width: int) -> TrackedMask:
    """An answer of the tracker as it is sent."""
    return TrackedMask(found.id, found.mask.rle(height, width), found.score)
