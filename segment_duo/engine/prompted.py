"""Prompts of the wire as arrays for a segmenter, and its candidates as objects for the wire. torch is not needed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segment_duo.boxes import whole
from segment_duo.engine.answers import storable
from segment_duo.engine.logits import LogitsStore
from segment_duo.engine.mask_prompt import mask_logits
from segment_duo.engine.protocol import PredictRequest
from segment_duo.prompts import check_places
from segment_duo.results import Candidate
from segment_duo.segmenters.base import Embedding, PromptArrays, Segmenter
from segment_duo.types import Mask, Prompt

if TYPE_CHECKING:
    from segment_duo.segmenters.base import CandidateMask


def prompt_arrays(
    request: PredictRequest, logits: LogitsStore, scope: str, embedding: Embedding, segmenter: Segmenter
) -> tuple[list[PromptArrays], list[bool]]:
    """The prompts of a request as a segmenter takes them, and of each whether the logits it refers to are gone.

    Args:
        scope: the image and the model that ``logits`` are kept for.

    Raises:
        PromptError: a prompt has no place, or is not on the image.
    """
    check_places(request.prompts, width=embedding.width, height=embedding.height)
    arrays, lost = [], []
    for prompt in request.prompts:
        mask_input = logits.get(scope, prompt.mask_input) if prompt.mask_input else None
        lost.append(prompt.mask_input is not None and mask_input is None)
        if mask_input is None and prompt.mask is not None:
            height, width = embedding.height, embedding.width
            canvas = segmenter.canvas(height, width)
            mask_input = mask_logits(prompt.mask, height, width, segmenter.info.input_size, canvas)
        arrays.append(PromptArrays.of(prompt, mask_input, request.multimask_output))
    return arrays, lost


def candidate(found: CandidateMask, prompt: Prompt, number: int, logits: LogitsStore, scope: str) -> Candidate:
    """A segmenter's answer as the wire takes it; its low-res logits are kept in ``logits``."""
    mask = Mask(
        rle=found.rle,
        area=found.area,
        bbox=found.bbox,
        id=number,
        predicted_iou=found.predicted_iou,
        stability_score=found.stability_score,
        point_coords=tuple((point.x, point.y) for point in prompt.points),
        point_labels=tuple(point.label for point in prompt.points),
        crop_box=whole(found.height, found.width),
        source="prompt",
    )
    handle = "" if found.low_res is None else logits.add(scope, found.low_res)
    return Candidate(storable(mask), handle)
