"""What any segmenter answers, as the front ends get it: candidates of a prompt, all masks of an image."""

from __future__ import annotations

from dataclasses import dataclass

from segment_duo.types import Mask, ModelIdentity, Rle


@dataclass(frozen=True, slots=True)
class Candidate:
    """One mask for a prompt. ``logits``: the engine's handle of its low-res logits, for ``Prompt.mask_input``."""

    mask: Mask
    logits: str

    @property
    def predicted_iou(self) -> float | None:
        return self.mask.predicted_iou

    @property
    def stability_score(self) -> float | None:
        return self.mask.stability_score


@dataclass(frozen=True, slots=True)
class PredictedObject:
    """Answer to one prompt: candidates, best predicted IoU first.

    ``mask_input_lost``: the prompt named low-res logits that the engine no longer holds, and the mask was made from its points and box alone.
    """

    object_id: str
    candidates: tuple[Candidate, ...]
    mask_input_lost: bool = False

    @property
    def best(self) -> Candidate:
        return self.candidates[0]


@dataclass(frozen=True, slots=True)
class TrackedMask:
    """An object on one frame, as the engine sends it; see :class:`~segment_duo.segmenters.tracking.TrackedObject`."""

    id: int
    rle: Rle
    score: float


@dataclass(frozen=True, slots=True)
class AutoResult:
    """All masks of an ``auto`` run in the generator's order, ids 0, 1, 2, ...; ``notes`` name every approximation that was used."""

    masks: tuple[Mask, ...]
    notes: tuple[str, ...]
    seconds: float
    candidates_reused: bool
    model: ModelIdentity | None = None
