"""The model behind one object: pixels to an embedding, prompts to masks. Same numbers as ``SAM2ImagePredictor``, to the bit.

    pixels --embed--> Embedding --predict--> Prediction (candidates best first, masks at image size inside their rectangles, low-res logits)

Prompts of several objects go through the decoder in one batch. Nothing here caches embeddings (``engine.cache``), knows stores, or runs
automatic generation (``automatic``). torch: only the engine's process imports this module.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.errors import PromptError
from segment_duo.segmenters.allocator import trim
from segment_duo.segmenters.sam2.build import IMAGE_MEAN, IMAGE_STD
from segment_duo.segmenters.sam2.decoder import PreparedImage, PromptDecoder, ReassociatedDecoder, select_masks
from segment_duo.segmenters.sam2.upsample import FullSize, LowRes, Region, canvas_rle, cut_out
from segment_duo.types import Rle

if TYPE_CHECKING:
    import numpy.typing as npt
    from sam2.modeling.sam2_base import SAM2Base

PREPROCESSING = 1
"""Version of what happens to pixels before the encoder and to features after it; part of the key of cached embeddings."""

MASK_THRESHOLD = 0.0
STABILITY_OFFSET = 1.0
DECODER_BATCH = 64
PREPARED_IMAGES = 4
"""Images whose shared decoder projections stay in memory, beside their embeddings (14 MiB each with an official model)."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """What the image encoder makes of an image.

    Attributes:
        image_embed: float32 (1, C, h, w).
        high_res_feats: float32 (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w), or empty for a model without them.
        height, width: of the image in pixels.

    The memory layout of each tensor (plain or channels-last) is kept, also through :meth:`to_tensors`: results depend on it in the last bit.
    """

    image_embed: Tensor
    high_res_feats: tuple[Tensor, ...]
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.image_embed, *self.high_res_feats))

    def to_tensors(self) -> dict[str, Tensor]:
        """Contiguous CPU tensors under stable names, for ``safetensors``."""
        tensors = {"image_embed": self.image_embed}
        tensors |= {f"high_res_{i}": t for i, t in enumerate(self.high_res_feats)}
        layout = [int(not t.is_contiguous()) for t in tensors.values()]
        out = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        out["meta"] = torch.tensor([self.height, self.width, len(self.high_res_feats), *layout], dtype=torch.int64)
        return out

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Embedding:
        """Inverse of :meth:`to_tensors`.

        Raises:
            KeyError, ValueError: the tensors are not those of an embedding.
        """
        height, width, levels, *layout = tensors["meta"].tolist()
        names = ["image_embed", *(f"high_res_{i}" for i in range(levels))]
        if len(layout) != len(names) or any(tensors[n].dim() != 4 for n in names):
            raise ValueError("not the tensors of an embedding")
        formats = [torch.channels_last if last else torch.contiguous_format for last in layout]
        restored = [tensors[n].to(device).contiguous(memory_format=f) for n, f in zip(names, formats, strict=True)]
        return cls(restored[0], tuple(restored[1:]), height, width)


@dataclass(frozen=True, eq=False)
class PromptArrays:
    """What asks for one object, in image pixels.

    Attributes:
        points: float32 (N, 2), x and y; may be empty.
        labels: (N,), 1 include, 0 exclude.
        box: XYXY, or None.
        previous: low-res logits float32 (h, w) to refine, or None.
        multimask: three candidates or one; None follows SAM's advice (three for a single point without box or previous logits).
    """

    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    box: tuple[float, float, float, float] | None = None
    previous: npt.NDArray[np.float32] | None = None
    multimask: bool | None = None

    def __post_init__(self) -> None:
        if self.box is None and len(self.points) == 0:
            raise PromptError("a prompt needs a point or a box")
        if len(self.points) != len(self.labels):
            raise PromptError("a prompt needs one label per point")
        if not np.isfinite(self.points).all() or (self.box is not None and not np.isfinite(self.box).all()):
            raise PromptError("prompt coordinates must be finite numbers")

    @property
    def wants_multimask(self) -> bool:
        if self.multimask is not None:
            return self.multimask
        return len(self.points) == 1 and self.box is None and self.previous is None


@dataclass(frozen=True, eq=False)
class CandidateMask:
    """One mask for a prompt.

    Attributes:
        region: the mask inside its rectangle, at image size or at preview size.
        height, width: the size that ``region`` refers to.
        predicted_iou, stability_score: as in SAM records; stability is that of the full-size mask with offset 1 (None for a preview).
        low_res: float32 (h, w), clamped to +-32 as SAM does, for :attr:`PromptArrays.previous`.
    """

    region: Region
    height: int
    width: int
    predicted_iou: float
    stability_score: float | None
    low_res: npt.NDArray[np.float32]

    @property
    def rle(self) -> Rle:
        return canvas_rle(self.region, self.height, self.width)

    @property
    def area(self) -> int:
        return self.region.area

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """XYWH with stock's convention: width and height are differences of inclusive pixel indices."""
        rows, cols = self.region.pixels.shape
        if not rows:
            return (0.0, 0.0, 0.0, 0.0)
        return (float(self.region.left), float(self.region.top), float(cols - 1), float(rows - 1))

    def array(self) -> npt.NDArray[np.bool_]:
        """The whole mask, bool (height, width)."""
        full = np.zeros((self.height, self.width), dtype=bool)
        r = self.region
        full[r.top : r.top + r.pixels.shape[0], r.left : r.left + r.pixels.shape[1]] = r.pixels
        return full


Prediction = tuple[CandidateMask, ...]
"""Candidates for one prompt, best predicted IoU first."""


class Predictor:
    """Embeds images and answers prompts with one model.

    Args:
        model: ``SAM2Base`` in evaluation mode, on its device.
        half: the decoder computes in this dtype (fast mode): under autocast on an accelerator, on a CPU for the image tokens. None keeps float32.
        reassociate: use :class:`~segment_duo.segmenters.sam2.decoder.ReassociatedDecoder` (fast mode).
    """

    def __init__(self, model: SAM2Base, *, half: torch.dtype | None = None, reassociate: bool = False) -> None:
        self.model = model
        self.device = torch.device(model.device)
        self.half = half
        self.autocast = None if reassociate and self.device.type == "cpu" else half
        lowered = half if self.autocast is None else None
        self.decoder = ReassociatedDecoder(model, lowered) if reassociate else PromptDecoder(model)
        self._prepared: OrderedDict[tuple[int, bool], tuple[Embedding, PreparedImage]] = OrderedDict()

    def fast(self) -> Predictor:
        """The same model with a reassociated decoder, in half precision where the device gains from it.

        Embeddings always come from the exact predictor, so that cached ones are exact.
        """
        from segment_duo.segmenters.sam2.adaptive import half_precision

        return Predictor(self.model, half=half_precision(self.device), reassociate=True)

    # -- images -------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def embed(self, pixels: npt.NDArray[np.uint8]) -> Embedding:
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

    def _encode(self, pixels: npt.NDArray[np.uint8]) -> Embedding:
        model = self.model
        batch = _model_input(pixels, model.image_size).to(self.device)
        with self.precision():
            _, feats, _, sizes = model._prepare_backbone_features(model.forward_image(batch))
            if model.directly_add_no_mem_embed:
                feats[-1] = feats[-1] + model.no_mem_embed
        maps = [f.permute(1, 2, 0).view(1, -1, *size) for f, size in zip(feats, sizes, strict=True)]
        return Embedding(maps[-1].float(), tuple(m.float() for m in maps[:-1]), pixels.shape[0], pixels.shape[1])

    def prepare(self, embedding: Embedding, batch: int) -> PreparedImage:
        """The decoder's projections of an image, kept for the last few images."""
        key = (id(embedding), batch == 1)
        held = self._prepared.pop(key, None)
        if held is None:
            held = (embedding, self.decoder.prepare(embedding, batch, self.precision()))
        self._prepared[key] = held
        while len(self._prepared) > PREPARED_IMAGES:
            self._prepared.popitem(last=False)
        return held[1]

    def release(self, embedding: Embedding | None = None) -> None:
        """Forget the projections of one image, or of all."""
        for key in [k for k, held in self._prepared.items() if embedding is None or held[0] is embedding]:
            del self._prepared[key]

    # -- prompts ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def predict(
        self,
        embedding: Embedding,
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

    def full_size(self, low: tuple[int, int], height: int, width: int) -> FullSize:
        """Up-sampler of low-res masks to an image of this size."""
        return FullSize(low, (height, width), self.device)

    def _decode_group(
        self, embedding: Embedding, group: Sequence[PromptArrays], check: Callable[[], None] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        coords, labels = self._prompt_tensors(embedding, group)
        previous = None
        if group[0].previous is not None:
            stacked = np.stack([np.asarray(p.previous, dtype=np.float32) for p in group])
            previous = torch.from_numpy(stacked)[:, None].to(self.device)
            expected = self.decoder.prompts.mask_input_size
            if tuple(previous.shape[-2:]) != tuple(expected):
                raise PromptError(
                    f"previous logits must be {expected[0]} x {expected[1]}, not {previous.shape[-2]} x {previous.shape[-1]}"
                )
        sparse = self.decoder.embed_prompts(coords, labels)
        image = self.prepare(embedding, len(group))
        with self.precision():
            decoded = self.decoder.decode(image, sparse, mask_input=previous, check=check)
        masks, ious = [], []
        for i, prompt in enumerate(group):
            m, s = select_masks(
                self.decoder.decoder, decoded.masks[i : i + 1], decoded.iou[i : i + 1], multimask=prompt.wants_multimask
            )
            masks.append(m[0])
            ious.append(s[0])
        return masks, ious

    def _prompt_tensors(self, embedding: Embedding, group: Sequence[PromptArrays]) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 2) in model-input pixels and labels (B, N); box corners come first, as SAM wants them."""
        points = np.stack([np.asarray(p.points, dtype=np.float32).reshape(-1, 2) for p in group])
        labels = np.stack([np.asarray(p.labels).reshape(-1) for p in group])
        if group[0].box is not None:
            corners = np.array([p.box for p in group], dtype=np.float32).reshape(-1, 2, 2)
            points = np.concatenate([corners, points], axis=1)
            labels = np.concatenate([np.tile([[2, 3]], (len(group), 1)), labels], axis=1)
        coords = self.coordinates(torch.from_numpy(points).to(self.device), embedding.height, embedding.width)
        return coords, torch.from_numpy(labels.astype(np.int32)).to(self.device)

    def _finish(self, embedding: Embedding, low_res: Tensor, iou: Tensor, preview: int | None) -> Prediction:
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
                    region=up.binary(cuts[i], MASK_THRESHOLD),
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
        groups.setdefault((len(p.points), p.box is not None, p.previous is not None), []).append(i)
    return [g[i : i + DECODER_BATCH] for g in groups.values() for i in range(0, len(g), DECODER_BATCH)]


def _model_input(pixels: npt.NDArray[np.uint8], resolution: int) -> Tensor:
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
