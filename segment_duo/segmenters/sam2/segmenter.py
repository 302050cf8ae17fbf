"""SAM-shaped models as segmenters, and SAM 2.1 among them: the family that nano, the official checkpoints, trained and custom models belong to.

Imports torch when it loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import (
    AutomaticRun,
    DeviceMemoryFull,
    EmbedCrop,
    LoadRequest,
    OnProgress,
    Prediction,
    PromptArrays,
    Segmenter,
    SegmenterInfo,
    never,
    no_progress,
    unchecked,
)
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.segmenters.sam2.catalogue import CAPABILITIES
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.segmenters.sam2.prompting import PromptPredictor
from segment_duo.segmenters.tracking import Tracker

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


ENCODER_BATCH = 4
"""Images at a time on a CUDA device. A guess, for there was none to measure with; where they do not fit, they go one by one."""


class SamSegmenter(Segmenter):
    """One SAM-shaped model on one device.

    Args:
        parameters: their number.
    """

    def __init__(self, predictor: PromptPredictor, info: SegmenterInfo, parameters: int = 0) -> None:
        self.info = info
        self.predictor = predictor
        self.parameters = parameters

    def embed(self, pixels: npt.NDArray[np.uint8]) -> Sam2Embedding:
        return self.predictor.embed(pixels)

    @property
    def embed_batch(self) -> int:
        return ENCODER_BATCH if self.predictor.device.type == "cuda" else 1

    def embed_many(self, images: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Sam2Embedding]:
        if not isinstance(self.predictor, Predictor):  # the graph of an exported model takes one image
            return [self.embed(pixels) for pixels in images]
        return self.predictor.embed_many(images)

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Sam2Embedding:
        return Sam2Embedding.from_arrays(arrays, self.predictor.device)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        return self.predictor.canvas(height, width)

    def predict(
        self,
        embedding: Sam2Embedding,
        prompts: Sequence[PromptArrays],
        *,
        preview_max_side: int | None = None,
        check: Callable[[], None] = unchecked,
    ) -> list[Prediction]:
        return self.predictor.reassociated.predict(embedding, prompts, preview_max_side=preview_max_side, check=check)

    def automatic(
        self,
        pixels: npt.NDArray[np.uint8],
        parameters: AutoParameters,
        *,
        embedding: Sam2Embedding | None = None,
        embed_crop: EmbedCrop | None = None,
        on_progress: OnProgress = no_progress,
        should_cancel: Callable[[], bool] = never,
        candidates: Any = None,
    ) -> AutomaticRun:
        return AutomaticMaskGenerator(self.predictor, parameters).generate(
            pixels,
            embedding=embedding,
            embed_crop=embed_crop,
            on_progress=on_progress,
            should_cancel=should_cancel,
            candidates=candidates,
        )

    def tracker(self, frames: int, *, fast: bool = False) -> Tracker:
        if not isinstance(self.predictor, Predictor):  # an exported model has no memory
            return super().tracker(frames, fast=fast)
        from segment_duo.segmenters.sam2.tracker import Sam2Tracker

        return Sam2Tracker(self.predictor, frames, fast=fast)

    def release(self) -> None:
        self.predictor.release()


def load(request: LoadRequest) -> SamSegmenter:
    """Build the model and read its checkpoint.

    Raises:
        ModelError: its files are missing or damaged.
        DeviceMemoryFull: the device has no room for it.
    """
    try:
        model = build_model(request.config, request.checkpoint_path, torch.device(request.device), check=request.check)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryFull(str(error)) from None
    parameters = sum(tensor.numel() for tensor in model.parameters())
    info = SegmenterInfo(request.id, "", CAPABILITIES, input_size=int(model.image_size))
    return SamSegmenter(Predictor(model), info, parameters)
