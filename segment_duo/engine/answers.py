"""What segmenters of other packages answer, looked at before it is believed: a wrong size would spoil a saved set, a crash the engine."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segment_duo.engine.protocol import ImageMissing
from segment_duo.errors import EngineFailed, SegduoError
from segment_duo.models.choice import ModelChoice
from segment_duo.segmenters.base import AutomaticRun, CandidateMask, Embedding, Prediction
from segment_duo.segmenters.plugins import BUILT_IN
from segment_duo.text import safe
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger("segduo.engine")


@contextmanager
def foreign(choice: ModelChoice) -> Iterator[None]:
    """Around calls of a segmenter: what a plug-in raises, were it SystemExit, is a failure of this one job, with the plug-in's name."""
    if choice.family in BUILT_IN:
        yield
        return
    try:
        yield
    except (SegduoError, ImageMissing, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        log.exception("the plug-in %s failed", safe(choice.family))
        raise EngineFailed(
            f"the plug-in '{choice.family}' failed: {type(error).__name__}: {error}",
            "`segduo engine logs` shows where it happened.",
        ) from None


def check_predictions(
    choice: ModelChoice, answers: Sequence[Prediction], count: int, embedding: Embedding, preview: int | None
) -> None:
    """Raise EngineFailed unless there is an answer for each prompt, and each mask has the image's size (or a preview's)."""
    if len(answers) != count:
        raise _wrong(choice, f"{len(answers)} answers to {count} prompts")
    for candidate in (one for answer in answers for one in answer):
        if not isinstance(candidate, CandidateMask):
            raise _wrong(choice, f"a {type(candidate).__name__} instead of a CandidateMask")
        whole = (candidate.height, candidate.width) == (embedding.height, embedding.width)
        if not whole and (preview is None or max(candidate.height, candidate.width) > preview):
            raise _wrong(
                choice,
                f"a mask of {candidate.width} x {candidate.height} pixels for an image of {embedding.width} x {embedding.height}",
            )


def check_run(choice: ModelChoice, run: Any, pixels: npt.NDArray[np.uint8]) -> None:
    """Raise EngineFailed unless these are masks of this image."""
    if not isinstance(run, AutomaticRun):
        raise _wrong(choice, f"a {type(run).__name__} instead of an AutomaticRun")
    height, width = pixels.shape[:2]
    for mask in run.masks:
        if (mask.rle.height, mask.rle.width) != (height, width):
            raise _wrong(
                choice, f"a mask of {mask.rle.width} x {mask.rle.height} pixels for an image of {width} x {height}"
            )


def storable(mask: Mask) -> Mask:
    """With None where sam2 gives NaN (the stability of an empty mask, 0 / 0): JSON has no NaN, and both ways to the engine answer alike."""
    stability = mask.stability_score
    return replace(mask, stability_score=None) if stability is not None and math.isnan(stability) else mask


def _wrong(choice: ModelChoice, what: str) -> EngineFailed:
    return EngineFailed(f"the model '{choice.id}' gave {what}", "That is a fault of the plug-in; tell its author.")
