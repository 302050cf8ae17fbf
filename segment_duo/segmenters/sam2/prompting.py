"""What every model that answers points has in common, whatever computes it: prompts in batches, masks at image size.

    PointModel        what automatic generation asks of a model
    PromptPredictor   prompts of several objects -> batches -> decoder -> candidates, best first

The exact SAM 2 decoder is one of them (``predictor``), ONNX pairs and models of ``transformers`` are others (``segmenters.layout``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segment_duo.errors import PromptError
from segment_duo.segmenters.base import CandidateMask, Prediction, PromptArrays, unchecked
from segment_duo.segmenters.sam2.upsample import LowRes, Upsampler, cut_out

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding

MASK_THRESHOLD = 0.0
STABILITY_OFFSET = 1.0
DECODER_BATCH = 64


@dataclass(frozen=True, eq=False)
class PointMasks:
    """What a model answers to points.

    Attributes:
        rows: int64 (M,), the points that can have a survivor, ascending; the others were not up-scaled.
        masks: float32 (M, K, h, w), low-res logits.
        iou: float32 (M, K), predicted IoU.
    """

    rows: Tensor
    masks: Tensor
    iou: Tensor


class PointModel(ABC):
    """What automatic generation asks of a model.

    Attributes:
        device: where its tensors are.
        half: the dtype of its decoder where that is not float32, for the notes of a run.
    """

    device: torch.device
    half: torch.dtype | None = None

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Pixels a side of the model's input."""

    @property
    @abstractmethod
    def low_size(self) -> tuple[int, int]:
        """Height and width of the low-res logits."""

    @property
    def reassociated(self) -> PointModel:
        """The same model with rounding differences of its own, in less time, if there is such a one."""
        return self

    @property
    def screening(self) -> PointModel | None:
        """The same model in lower precision, to judge many points by, if that pays."""
        return None

    def predicted_iou(
        self, embedding: Sam2Embedding, points: Tensor, *, check: Callable[[], None] = unchecked
    ) -> Tensor:
        """Predicted IoU, float32 (N, K), of all candidates of points (N, 2)."""
        return self.decode_points(embedding, points, multimask_output=True, check=check).iou

    @abstractmethod
    def embed(self, pixels: npt.NDArray[np.uint8]) -> Sam2Embedding:
        """Run the image encoder on uint8 (H, W, 3), RGB."""

    @abstractmethod
    def upsampler(self, low: tuple[int, int], height: int, width: int) -> Upsampler:
        """Up-sampler of low-res masks to an image of this size."""

    @abstractmethod
    def decode_points(
        self,
        embedding: Sam2Embedding,
        points: Tensor,
        *,
        multimask_output: bool,
        mask_input: Tensor | None = None,
        least_iou: float | None = None,
        check: Callable[[], None] = unchecked,
    ) -> PointMasks:
        """One object for each of float32 points (N, 2) in pixels of the embedded image.

        Args:
            multimask_output: three candidates a point, or one.
            mask_input: low-res logits (N, 1, h, w) to refine.
            least_iou: points none of whose candidates is predicted to be better need no masks.
            check: called between pieces of work; raises to cancel.
        """


class PromptPredictor(PointModel):
    """Answers prompts with one model. What the model is, is left to those who derive from it."""

    @property
    def reassociated(self) -> PromptPredictor:
        return self

    @abstractmethod
    def coordinates(self, points: Tensor, height: int, width: int) -> Tensor:
        """Image pixels to the model's input pixels; float32 (..., 2)."""

    @abstractmethod
    def _decode_group(
        self, embedding: Sam2Embedding, group: Sequence[PromptArrays], check: Callable[[], None] | None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """For each prompt of a group its low-res logits float32 (K, h, w) and predicted IoU (K,)."""

    def release(self, embedding: Sam2Embedding | None = None) -> None:
        """Forget what was prepared for one image, or for all."""

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Height and width, in pixels of an image of this size, of what the model sees: more than the image where it is padded."""
        return height, width

    def upsampler(self, low: tuple[int, int], height: int, width: int) -> Upsampler:
        """Up-sampler of low-res masks to an image of this size."""
        return Upsampler(low, (height, width), self.device, self.canvas(height, width))

    @torch.inference_mode()
    def predict(
        self,
        embedding: Sam2Embedding,
        prompts: Sequence[PromptArrays],
        *,
        preview_max_side: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Prediction]:
        """Masks for prompts, in their order.

        Prompts with equally many points share a decoder batch. ``preview_max_side`` makes masks whose longer side has at most so many pixels.
        ``check`` is called between steps; it raises to cancel.
        """
        answers: list[Prediction | None] = [None] * len(prompts)
        for indices in _groups(prompts):
            group = [prompts[i] for i in indices]
            masks, ious = self._decode_group(embedding, group, check)
            for i, low_res, iou in zip(indices, masks, ious, strict=True):
                answers[i] = self._finish(embedding, low_res, iou, preview_max_side)
        return [a for a in answers if a is not None]

    def prompt_tensors(self, group: Sequence[PromptArrays], height: int, width: int) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 2) in model-input pixels and labels (B, N) of prompts of equally many points; box corners come first."""
        points = np.stack([np.asarray(p.points, dtype=np.float32).reshape(-1, 2) for p in group])
        labels = np.stack([np.asarray(p.labels).reshape(-1) for p in group])
        if group[0].box is not None:
            corners = np.array([p.box for p in group], dtype=np.float32).reshape(-1, 2, 2)
            points = np.concatenate([corners, points], axis=1)
            labels = np.concatenate([np.tile([[2, 3]], (len(group), 1)), labels], axis=1)
        coords = self.coordinates(torch.from_numpy(points).to(self.device), height, width)
        return coords, torch.from_numpy(labels.astype(np.int32)).to(self.device)

    def _mask_inputs(self, group: Sequence[PromptArrays], expected: tuple[int, int]) -> Tensor | None:
        """Low-res logits to refine, float32 (B, 1, h, w), if the prompts of a group have any."""
        if group[0].mask_input is None:
            return None
        stacked = np.stack([np.asarray(p.mask_input, dtype=np.float32) for p in group])
        if stacked.shape[-2:] != expected:
            given = " x ".join(str(side) for side in stacked.shape[-2:])
            raise PromptError(f"mask input must be {expected[0]} x {expected[1]}, not {given}")
        return torch.from_numpy(stacked)[:, None].to(self.device)

    def _finish(self, embedding: Sam2Embedding, low_res: Tensor, iou: Tensor, preview: int | None) -> Prediction:
        """Order candidates by predicted IoU and up-sample them."""
        height, width = preview_size(embedding.height, embedding.width, preview)
        up = self.upsampler((int(low_res.shape[-2]), int(low_res.shape[-1])), height, width)
        level = MASK_THRESHOLD - STABILITY_OFFSET
        cuts: list[LowRes] = cut_out(low_res, level)
        out = []
        for i in torch.argsort(iou, descending=True, stable=True).tolist():
            stability = None
            if preview is None:
                stability = float(up.measure(cuts[i], MASK_THRESHOLD, STABILITY_OFFSET).stability)
            out.append(
                CandidateMask(
                    mask=up.binary(cuts[i], MASK_THRESHOLD),
                    height=height,
                    width=width,
                    predicted_iou=float(iou[i]),
                    stability_score=stability,
                    low_res=low_res[i].clamp(-32.0, 32.0).float().cpu().numpy(),
                )
            )
        return tuple(out)


def preview_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """Size with the same aspect whose longer side is at most ``max_side``; the size itself where that is larger or None."""
    if max_side is None or max(height, width) <= max_side:
        return height, width
    ratio = max_side / max(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _groups(prompts: Sequence[PromptArrays]) -> Iterable[list[int]]:
    """Indices of prompts that fit one decoder batch: padding with further points would change what the decoder sees."""
    groups: dict[tuple[int, bool, bool], list[int]] = {}
    for i, p in enumerate(prompts):
        groups.setdefault((len(p.points), p.box is not None, p.mask_input is not None), []).append(i)
    return [g[i : i + DECODER_BATCH] for g in groups.values() for i in range(0, len(g), DECODER_BATCH)]
