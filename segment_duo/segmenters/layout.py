"""How SAM-shaped models want their input, and prompts answered by those whose decoder is a closed box: an ONNX file, a model of ``transformers``.

    sam1   the long side to 1,024 pixels, the rest of the square padded (right, below) with zeros after normalisation
    sam2   squeezed to a square

The exact SAM 2 decoder (``sam2.predictor``) needs none of this. torch: only the engine's process imports this module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.segmenters.base import PromptArrays, unchecked
from segment_duo.segmenters.sam2.catalogue import IMAGE_MEAN, IMAGE_STD
from segment_duo.segmenters.sam2.prompting import PointMasks, PromptPredictor

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding

LayoutName = Literal["sam1", "sam2"]


@dataclass(frozen=True)
class Layout:
    """Where an image lies in the model's input.

    Attributes:
        name: ``sam1`` or ``sam2``, see the module.
        size: pixels a side of the input.
        mean, std: what the input is normalised with, per channel of RGB in [0, 1].
    """

    name: LayoutName
    size: int = 1024
    mean: tuple[float, ...] = IMAGE_MEAN
    std: tuple[float, ...] = IMAGE_STD

    def shrunk(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image in the input."""
        if self.name == "sam2":
            return self.size, self.size
        ratio = self.size / max(height, width)
        return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the whole input in pixels of the image."""
        return (height, width) if self.name == "sam2" else (max(height, width),) * 2

    def model_input(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """float32 (1, 3, size, size) of pixels uint8 (H, W, 3)."""
        rows, cols = self.shrunk(*pixels.shape[:2])
        batch = torch.tensor(pixels).permute(2, 0, 1)[None].float().div_(255)
        if batch.shape[-2:] != (rows, cols):
            batch = F.interpolate(batch, (rows, cols), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        batch = (batch - mean) / std
        return F.pad(batch, (0, self.size - cols, 0, self.size - rows))

    def coordinates(self, points: Tensor, height: int, width: int) -> Tensor:
        """Image pixels to input pixels; float32 (..., 2)."""
        rows, cols = self.shrunk(height, width)
        return points * torch.tensor([cols / width, rows / height], dtype=points.dtype, device=points.device)


class LayoutPredictor(PromptPredictor):
    """Answers prompts with an encoder and a decoder that are given from outside.

    Args:
        layout: how the input is made.
        low_size: height and width of the decoder's low-res logits.
        device: where its tensors are.
        most: prompts that the decoder takes at once.
    """

    def __init__(self, layout: Layout, low_size: tuple[int, int], device: torch.device, most: int) -> None:
        self.layout = layout
        self._low_size = low_size
        self.device = device
        self.most = most

    @abstractmethod
    def encode(self, batch: Tensor, height: int, width: int) -> Sam2Embedding:
        """The embedding of an image of this size from its input, float32 (1, 3, size, size)."""

    @abstractmethod
    def decode(
        self,
        embedding: Sam2Embedding,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        *,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Low-res logits float32 (B, K, h, w) and predicted IoU (B, K) of at most ``most`` prompts.

        Args:
            coords: float32 (B, N, 2), in pixels of the input.
            labels: int32 (B, N): 1 include, 0 exclude, 2 and 3 a box's corners, which come first.
            mask_input: low-res logits float32 (B, 1, h, w) to refine, or None.
            multimask_output: all candidates for an ambiguous prompt, or the single best mask.
        """

    @property
    def image_size(self) -> int:
        return self.layout.size

    @property
    def low_size(self) -> tuple[int, int]:
        return self._low_size

    def coordinates(self, points: Tensor, height: int, width: int) -> Tensor:
        return self.layout.coordinates(points, height, width)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        return self.layout.canvas(height, width)

    @torch.inference_mode()
    def embed(self, pixels: npt.NDArray[np.uint8]) -> Sam2Embedding:
        """Run the image encoder on uint8 (H, W, 3)."""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")
        return self.encode(self.layout.model_input(pixels).to(self.device), pixels.shape[0], pixels.shape[1])

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
        """See :class:`~segment_duo.segmenters.sam2.prompting.PointModel`."""
        coords = self.coordinates(points, embedding.height, embedding.width)[:, None, :]
        labels = torch.ones(coords.shape[:2], dtype=torch.int32, device=coords.device)
        masks, iou = self._decode_all(embedding, coords, labels, mask_input, multimask_output, check)
        rows = torch.arange(len(points), device=iou.device)
        if least_iou is not None:
            rows = (iou > least_iou).any(1).nonzero().flatten()
        return PointMasks(rows, masks[rows], iou[rows])

    def _decode_group(
        self, embedding: Sam2Embedding, group: Sequence[PromptArrays], check: Callable[[], None] | None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        coords, labels = self.prompt_tensors(group, embedding.height, embedding.width)
        mask_input = self._mask_inputs(group, self.low_size)
        masks: list[Tensor] = [torch.empty(0)] * len(group)
        ious: list[Tensor] = [torch.empty(0)] * len(group)
        for multimask_output in (True, False):
            rows = [i for i, prompt in enumerate(group) if prompt.wants_multimask is multimask_output]
            if not rows:
                continue
            refined = None if mask_input is None else mask_input[rows]
            found = self._decode_all(
                embedding, coords[rows], labels[rows], refined, multimask_output, check or unchecked
            )
            for row, mask, iou in zip(rows, *found, strict=True):
                masks[row], ious[row] = mask, iou
        return masks, ious

    def _decode_all(
        self,
        embedding: Sam2Embedding,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        multimask_output: bool,
        check: Callable[[], None],
    ) -> tuple[Tensor, Tensor]:
        masks, ious = [], []
        for start in range(0, len(coords), self.most):
            check()
            part = slice(start, start + self.most)
            refined = None if mask_input is None else mask_input[part]
            mask, iou = self.decode(embedding, coords[part], labels[part], refined, multimask_output=multimask_output)
            masks.append(mask)
            ious.append(iou)
        return torch.cat(masks), torch.cat(ious)
