"""The model behind one object: pixels to an embedding, prompts to masks. Same numbers as ``SAM2ImagePredictor``, to the bit.

    pixels --embed--> Embedding --predict--> Prediction (candidates best first, masks at image size inside their rectangles, low-res logits)

Prompts of several objects go through the decoder in one batch. Nothing here caches embeddings (``engine.cache``), knows stores, or runs
automatic generation (``automatic``). torch: only the engine's process imports this module.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.errors import PromptError
from segment_duo.segmenters.allocator import trim
from segment_duo.segmenters.base import CandidateMask, Prediction, PromptArrays
from segment_duo.segmenters.sam2.adaptive import half_precision
from segment_duo.segmenters.sam2.build import IMAGE_MEAN, IMAGE_STD
from segment_duo.segmenters.sam2.decoder import PreparedImage, PromptDecoder, select_masks
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.reassociated import ReassociatedDecoder
from segment_duo.segmenters.sam2.upsample import LowRes, Upsampler, cut_out

if TYPE_CHECKING:
    import numpy.typing as npt
    from sam2.modeling.sam2_base import SAM2Base


MASK_THRESHOLD = 0.0
STABILITY_OFFSET = 1.0
DECODER_BATCH = 64
PREPARED_IMAGES = 4
"""Images whose shared decoder projections stay in memory, beside their embeddings (14 MiB each with an official model)."""


class Predictor:
    """Embeds images and answers prompts with one model.

    Args:
        model: ``SAM2Base`` in evaluation mode, on its device.
        half: the decoder computes in this dtype (fast mode): under autocast on an accelerator, on a CPU for the image tokens. None keeps float32.
        reassociate: use :class:`~segment_duo.segmenters.sam2.reassociated.ReassociatedDecoder` (fast mode).
    """

    def __init__(self, model: SAM2Base, *, half: torch.dtype | None = None, reassociate: bool = False) -> None:
        self.model = model
        self.device = torch.device(model.device)
        self.half = half
        self.autocast = None if reassociate and self.device.type == "cpu" else half
        lowered = half if self.autocast is None else None
        self.decoder = ReassociatedDecoder(model, lowered) if reassociate else PromptDecoder(model)
        self._prepared: OrderedDict[tuple[int, bool], tuple[Sam2Embedding, PreparedImage]] = OrderedDict()

    def fast(self) -> Predictor:
        """The same model with a reassociated decoder, in half precision where the device gains from it.

        Embeddings always come from the exact predictor, so that cached ones are exact.
        """
        return Predictor(self.model, half=half_precision(self.device), reassociate=True)

    # -- images -------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def embed(self, pixels: npt.NDArray[np.uint8]) -> Sam2Embedding:
        """Run the image encoder.

        Args:
            pixels: uint8 (H, W, 3), RGB.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")
        embedding = self._encode(pixels)
        if self.device.type == "cpu":
            trim()  # the encoder's freed memory is in pieces that the decoder cannot use: up to a gigabyte beside its own
        return embedding

    def _encode(self, pixels: npt.NDArray[np.uint8]) -> Sam2Embedding:
        model = self.model
        batch = model_input(pixels, model.image_size).to(self.device)
        with self.precision():
            _, feats, _, sizes = model._prepare_backbone_features(model.forward_image(batch))
            if model.directly_add_no_mem_embed:
                feats[-1] = feats[-1] + model.no_mem_embed
        maps = [f.permute(1, 2, 0).view(1, -1, *size) for f, size in zip(feats, sizes, strict=True)]
        return Sam2Embedding(maps[-1].float(), tuple(m.float() for m in maps[:-1]), pixels.shape[0], pixels.shape[1])

    def prepare(self, embedding: Sam2Embedding, batch: int) -> PreparedImage:
        """The decoder's projections of an image, kept for the last few images."""
        key = (id(embedding), batch == 1)
        held = self._prepared.pop(key, None)
        if held is None:
            held = (embedding, self.decoder.prepare(embedding, batch, self.precision()))
        self._prepared[key] = held
        while len(self._prepared) > PREPARED_IMAGES:
            self._prepared.popitem(last=False)
        return held[1]

    def release(self, embedding: Sam2Embedding | None = None) -> None:
        """Forget the projections of one image, or of all."""
        for key in [k for k, held in self._prepared.items() if embedding is None or held[0] is embedding]:
            del self._prepared[key]

    # -- prompts ------------------------------------------------------------------------------------------------------

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

    def coordinates(self, points: Tensor, height: int, width: int) -> Tensor:
        """Image pixels to the model's input pixels; float32 (..., 2)."""
        scaled = points.clone()
        scaled[..., 0] = scaled[..., 0] / width
        scaled[..., 1] = scaled[..., 1] / height
        size: int = self.model.image_size
        return scaled * size

    def full_size(self, low: tuple[int, int], height: int, width: int) -> Upsampler:
        """Up-sampler of low-res masks to an image of this size."""
        return Upsampler(low, (height, width), self.device)

    def _decode_group(
        self, embedding: Sam2Embedding, group: Sequence[PromptArrays], check: Callable[[], None] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        coords, labels = self.prompt_tensors(group, embedding.height, embedding.width)
        mask_input = None
        if group[0].mask_input is not None:
            stacked = np.stack([np.asarray(p.mask_input, dtype=np.float32) for p in group])
            mask_input = torch.from_numpy(stacked)[:, None].to(self.device)
            expected = self.decoder.prompts.mask_input_size
            if tuple(mask_input.shape[-2:]) != tuple(expected):
                raise PromptError(
                    f"mask input must be {expected[0]} x {expected[1]}, not {mask_input.shape[-2]} x {mask_input.shape[-1]}"
                )
        sparse = self.decoder.embed_prompts(coords, labels)
        image = self.prepare(embedding, len(group))
        with self.precision():
            decoded = self.decoder.decode(image, sparse, mask_input=mask_input, check=check)
        masks, ious = [], []
        for i, prompt in enumerate(group):
            m, s = select_masks(
                self.decoder.decoder, decoded.masks[i : i + 1], decoded.iou[i : i + 1], multimask=prompt.wants_multimask
            )
            masks.append(m[0])
            ious.append(s[0])
        return masks, ious

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

    def _finish(self, embedding: Sam2Embedding, low_res: Tensor, iou: Tensor, preview: int | None) -> Prediction:
        """Order candidates by predicted IoU and up-sample them."""
        height, width = preview_size(embedding.height, embedding.width, preview)
        up = self.full_size((int(low_res.shape[-2]), int(low_res.shape[-1])), height, width)
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

    def precision(self) -> torch.autocast:
        """Context in which the model runs."""
        return torch.autocast(
            self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )


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
