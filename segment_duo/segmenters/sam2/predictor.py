"""The model behind one object: pixels to an embedding, prompts to masks. Same numbers as ``SAM2ImagePredictor``, to the bit.

    pixels --embed--> Sam2Embedding --predict--> Prediction (candidates best first, masks at image size inside their rectangles, low-res logits)

Prompts of several objects go through the decoder in one batch. Nothing here caches embeddings (``engine.cache``), knows stores, or runs
automatic generation (``automatic``). torch: only the engine's process imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.lru import BoundedLru
from segment_duo.segmenters.allocator import trim
from segment_duo.segmenters.base import PromptArrays, unchecked
from segment_duo.segmenters.sam2.catalogue import IMAGE_MEAN, IMAGE_STD
from segment_duo.segmenters.sam2.decoder import DecoderOutput, PreparedImage, PromptDecoder, Wanted, select_masks
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.machine import screening_precision
from segment_duo.segmenters.sam2.prompting import PointMasks, PromptPredictor
from segment_duo.segmenters.sam2.reassociated import ReassociatedDecoder

if TYPE_CHECKING:
    import numpy.typing as npt
    from sam2.modeling.sam2_base import SAM2Base


PREPARED_IMAGES = 4
"""Images whose shared decoder projections stay in memory, beside their embeddings (14 MiB each with an official model)."""


class Predictor(PromptPredictor):
    """Embeds images and answers prompts with one model.

    Args:
        model: ``SAM2Base`` in evaluation mode, on its device.
        half: the decoder computes in this dtype: under autocast on an accelerator, on a CPU for the image tokens. None keeps float32.
        reassociate: use :class:`~segment_duo.segmenters.sam2.reassociated.ReassociatedDecoder`.
    """

    def __init__(self, model: SAM2Base, *, half: torch.dtype | None = None, reassociate: bool = False) -> None:
        self.model = model
        self.device = torch.device(model.device)
        self.half = half
        self.autocast = None if reassociate and self.device.type == "cpu" else half
        lowered = half if self.autocast is None else None
        self.decoder = ReassociatedDecoder(model, lowered) if reassociate else PromptDecoder(model)
        self._prepared: BoundedLru[tuple[int, bool], tuple[Sam2Embedding, PreparedImage]] = BoundedLru(PREPARED_IMAGES)

    @cached_property
    def reassociated(self) -> Predictor:
        """The same model in float32 with its products in another order: within some 1e-6 of this one's numbers, in half of its time.

        Embeddings always come from the exact predictor, so that cached ones are exact.
        """
        return Predictor(self.model, reassociate=True)

    @cached_property
    def screening(self) -> Predictor | None:
        """The same model in lower precision, for a first pass over many prompts; None where that would not pay."""
        size = self.model.sam_prompt_encoder.image_embedding_size
        half = screening_precision(self.device, self.decoder.decoder.transformer_dim * size[0] * size[1])
        return None if half is None else Predictor(self.model, half=half, reassociate=True)

    # -- images -------------------------------------------------------------------------------------------------------

    def embed(self, pixels: npt.NDArray[np.uint8]) -> Sam2Embedding:
        """Run the image encoder.

        Args:
            pixels: uint8 (H, W, 3), RGB.
        """
        return self.embed_many([pixels])[0]

    @torch.inference_mode()
    def embed_many(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Sam2Embedding]:
        """Run the image encoder on several images in one batch; one by one where the device's memory does not hold them together."""
        for pixels in images:
            if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
                raise ValueError(f"pixels must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")
        try:
            found = self._encode(images)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
            found = [one for pixels in images for one in self._encode([pixels])]
        if self.device.type == "cpu":
            trim()  # the encoder's freed memory is in pieces that the decoder cannot use: up to a gigabyte beside its own
        return found

    def _encode(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Sam2Embedding]:
        model, count = self.model, len(images)
        batch = torch.cat([model_input(pixels, model.image_size) for pixels in images]).to(self.device)
        with self.precision():
            _, feats, _, sizes = model._prepare_backbone_features(model.forward_image(batch))
            if model.directly_add_no_mem_embed:
                feats[-1] = feats[-1] + model.no_mem_embed
        maps = [f.permute(1, 2, 0).view(count, -1, *size).float() for f, size in zip(feats, sizes, strict=True)]
        found = []
        for number, pixels in enumerate(images):
            # A slice would keep the whole batch in memory for as long as the embedding of one image is kept.
            *high_res, image = (m if count == 1 else m[number : number + 1].clone() for m in maps)
            found.append(Sam2Embedding(image, tuple(high_res), pixels.shape[0], pixels.shape[1]))
        return found

    def prepare(self, embedding: Sam2Embedding, batch: int) -> PreparedImage:
        """The decoder's projections of an image, kept for the last few images."""
        key = (id(embedding), batch == 1)
        held = self._prepared.get(key)
        if held is None:
            held = (embedding, self.decoder.prepare(embedding, batch, self.precision()))
            self._prepared.put(key, held, 1)
        return held[1]

    def release(self, embedding: Sam2Embedding | None = None) -> None:
        """Forget the projections of one image, or of all."""
        for key, held, *_ in self._prepared.items():
            if embedding is None or held[0] is embedding:
                self._prepared.drop(key)
        for name in ("reassociated", "screening"):
            derived = self.__dict__.get(name)
            if derived is not None:
                derived.release(embedding)

    # -- prompts ------------------------------------------------------------------------------------------------------

    def coordinates(self, points: Tensor, height: int, width: int) -> Tensor:
        """Image pixels to the model's input pixels; float32 (..., 2)."""
        scaled = points.clone()
        scaled[..., 0] = scaled[..., 0] / width
        scaled[..., 1] = scaled[..., 1] / height
        return scaled * self.image_size

    @property
    def image_size(self) -> int:
        """Pixels a side of the model's input."""
        size: int = self.model.image_size
        return size

    @property
    def low_size(self) -> tuple[int, int]:
        """Height and width of the low-res logits."""
        rows, cols = self.decoder.prompts.mask_input_size
        return int(rows), int(cols)

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

        def wanted(iou: Tensor) -> Tensor:
            # With single-mask output an unstable mask falls back to the best of the three: any of the four may be chosen.
            assert least_iou is not None
            return ((iou[:, 1:] if multimask_output else iou) > least_iou).any(1)

        decoded = self._decode(embedding, points, mask_input, None if least_iou is None else wanted, check)
        masks, iou = select_masks(
            self.decoder.decoder, decoded.masks, decoded.iou[decoded.rows], multimask_output=multimask_output
        )
        return PointMasks(decoded.rows, masks, iou)

    def predicted_iou(
        self, embedding: Sam2Embedding, points: Tensor, *, check: Callable[[], None] = unchecked
    ) -> Tensor:
        """See :class:`~segment_duo.segmenters.sam2.prompting.PointModel`; no mask is up-scaled."""

        def none(iou: Tensor) -> Tensor:
            return torch.zeros(len(iou), dtype=torch.bool, device=iou.device)

        return self._decode(embedding, points, None, none, check).iou

    def _decode(
        self,
        embedding: Sam2Embedding,
        points: Tensor,
        mask_input: Tensor | None,
        wanted: Wanted | None,
        check: Callable[[], None],
    ) -> DecoderOutput:
        """Decode points (N, 2) in image pixels, each a prompt of its own."""
        coords = self.coordinates(points, embedding.height, embedding.width)[:, None, :]
        labels = torch.ones(coords.shape[:2], dtype=torch.int, device=coords.device)
        sparse = self.decoder.embed_prompts(coords, labels)
        image = self.prepare(embedding, len(points))
        with self.precision():
            return self.decoder.decode(image, sparse, mask_input=mask_input, wanted=wanted, check=check)

    def _decode_group(
        self, embedding: Sam2Embedding, group: Sequence[PromptArrays], check: Callable[[], None] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        coords, labels = self.prompt_tensors(group, embedding.height, embedding.width)
        mask_input = self._mask_inputs(group, self.low_size)
        sparse = self.decoder.embed_prompts(coords, labels)
        image = self.prepare(embedding, len(group))
        with self.precision():
            decoded = self.decoder.decode(image, sparse, mask_input=mask_input, check=check)
        masks, ious = [], []
        for i, prompt in enumerate(group):
            m, s = select_masks(
                self.decoder.decoder,
                decoded.masks[i : i + 1],
                decoded.iou[i : i + 1],
                multimask_output=prompt.wants_multimask,
            )
            masks.append(m[0])
            ious.append(s[0])
        return masks, ious

    def precision(self) -> torch.autocast:
        """Context in which the model runs."""
        return torch.autocast(
            self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )


def model_input(pixels: npt.NDArray[np.uint8], resolution: int) -> Tensor:
    """float32 (1, 3, resolution, resolution): the operations of ``SAM2Transforms``, in their order.

    Without torchvision on purpose: its import takes as long as the encoder of a small model.
    """
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    # Resize of torchvision hands a picture of the right size on untouched.
    batch = scaled[None]
    if batch.shape[-2:] != (resolution, resolution):
        batch = F.interpolate(batch, (resolution, resolution), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return batch.sub_(mean).div_(std)
