"""What follows the memory attention on a frame, for several objects at once: mask decoder, object pointer, memory encoder.

The functions are those of ``SAM2Base`` (``_forward_sam_heads``, ``_use_mask_as_output``, ``_encode_new_memory``) with its unmodified weights. This
module must not know frames' numbers or what is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from torch import Tensor

from segment_duo.errors import ModelError
from segment_duo.segmenters.sam2.predictor import model_input
from segment_duo.segmenters.sam2.products import quickly

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sam2.modeling.sam2_base import SAM2Base


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """What the encoder makes of a frame.

    Attributes:
        coarse: float32 (1, C, h, w), without any memory.
        high_res: the two finer maps for the decoder, (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w).
        position: (T, C), positional encoding of the coarse map's T = h * w tokens.
        height, width: of the frame in pixels.
    """

    coarse: Tensor
    high_res: tuple[Tensor, ...]
    position: Tensor
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.coarse, *self.high_res))

    @property
    def tokens(self) -> Tensor:
        """The coarse map as (T, C)."""
        return self.coarse[0].flatten(1).T

    def repeated(self, count: int) -> list[Tensor] | None:
        """The finer maps for so many objects; None for a model without them."""
        return [feature.expand(count, -1, -1, -1) for feature in self.high_res] or None


@dataclass(frozen=True, eq=False)
class ObjectLogits:
    """B objects on a frame.

    Attributes:
        low_res: mask logits (B, 4h, 4w); -1024 everywhere where the object is not seen.
        pointers: (B, C).
        scores: (B,), occlusion logits.
    """

    low_res: Tensor
    pointers: Tensor
    scores: Tensor


class Heads:
    """Args:
    model: ``SAM2Base`` in evaluation mode.

    Raises:
        ModelError: it does not treat first frames or masks as SAM 2 and SAM 2.1 do.
    """

    def __init__(self, model: SAM2Base) -> None:
        self.model = model
        self._nothing: tuple[Tensor, Tensor] | None = None
        if not (
            model.directly_add_no_mem_embed
            and model.use_mask_input_as_output_without_sam
            and model.use_obj_ptrs_in_encoder
        ):
            raise ModelError(
                "this model's memory is not built as in SAM 2", "Follow objects with a SAM 2.1 model or nano."
            )

    @quickly
    def encode(self, pixels: npt.NDArray[np.uint8]) -> FrameFeatures:
        """Run the image encoder on uint8 (H, W, 3)."""
        model = self.model
        batch = model_input(pixels, model.image_size).to(model.device)
        _, features, positions, sizes = model._prepare_backbone_features(model.forward_image(batch))
        maps = [f.permute(1, 2, 0).view(1, -1, *size) for f, size in zip(features, sizes, strict=True)]
        return FrameFeatures(maps[-1], tuple(maps[:-1]), positions[-1][:, 0], pixels.shape[0], pixels.shape[1])

    @quickly
    def prompted(self, frame: FrameFeatures, coordinates: Tensor, labels: Tensor) -> ObjectLogits:
        """Objects by their points alone: (B, N, 2) in model-input pixels, (B, N)."""
        conditioned = frame.coarse + self.model.no_mem_embed.view(1, -1, 1, 1)
        return self._decode(frame, conditioned.expand(len(labels), -1, -1, -1), coordinates, labels, first=True)

    @quickly
    def corrected(
        self, frame: FrameFeatures, conditioned: Tensor, coordinates: Tensor, labels: Tensor, found: Tensor
    ) -> ObjectLogits:
        """Objects by points on frames they were followed to.

        Args:
            conditioned: (B, T, C) of the memory attention.
            found: low-res logits (B, 4h, 4w) that the points refine.
        """
        refined = found[:, None].clamp(-32.0, 32.0)
        return self._decode(frame, self._as_map(conditioned), coordinates, labels, refined, first=False)

    @quickly
    def followed(self, frame: FrameFeatures, conditioned: Tensor) -> ObjectLogits:
        """Objects without prompts, by the features (B, T, C) that the memory attention made for each."""
        model, decoder = self.model, self.model.sam_mask_decoder
        count = len(conditioned)
        if self._nothing is None:
            # What stock gives its decoder for an object without prompts: one point that is none, twice (the second is padding).
            point = torch.zeros(1, 1, 2, device=model.device)
            self._nothing = model.sam_prompt_encoder((point, -torch.ones(1, 1, device=model.device)), None, None)
        sparse, dense = self._nothing
        multimask_output = model._use_multimask(False, None)
        masks, ious, tokens, scores = decoder(
            image_embeddings=self._as_map(conditioned),
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse.expand(count, -1, -1),
            dense_prompt_embeddings=dense.expand(count, -1, -1, -1),
            multimask_output=multimask_output,
            repeat_image=False,
            high_res_features=frame.repeated(count),
        )
        rows = torch.arange(count, device=masks.device)
        best = ious.argmax(-1) if multimask_output else torch.zeros_like(rows)
        token = tokens[rows, best if tokens.shape[1] > 1 else torch.zeros_like(rows)]
        return self._outcome(masks[rows, best].float(), token, scores)

    @quickly
    def given(self, frame: FrameFeatures, masks: Tensor) -> ObjectLogits:
        """Objects whose masks are known: bool (B, H, W)."""
        model = self.model
        side = model.image_size
        sized = masks[:, None].float()
        if sized.shape[-2:] != (side, side):
            sized = F.interpolate(sized, (side, side), mode="bilinear", align_corners=False, antialias=True)
            sized = (sized >= 0.5).float()
        coarse = frame.coarse.expand(len(masks), -1, -1, -1)
        found = model._use_mask_as_output(coarse, frame.repeated(len(masks)), sized)
        return ObjectLogits(found[3][:, 0], found[5], found[6][:, 0])

    @quickly
    def remember(self, frame: FrameFeatures, outcome: ObjectLogits, *, prompted: bool) -> Tensor:
        """Memory features bfloat16 (B, T, M), rounded as stock stores them. ``prompted``: users' masks are remembered as they look, not as sure as
        they are."""
        encoder = self.model.memory_encoder
        # The frame's share of the sum is the same for all objects. Masks of the model's input size go one by one: they fit the cache.
        own = encoder.pix_feat_proj(frame.coarse)
        found = [self._remembered(own, low_res, prompted=prompted) for low_res in outcome.low_res]
        features = torch.cat(found)
        if self.model.no_obj_embed_spatial is not None:
            gone = (outcome.scores <= 0).float()[:, None, None, None]
            features += gone * self.model.no_obj_embed_spatial[..., None, None]
        return features.flatten(2).transpose(1, 2).to(torch.bfloat16)

    def _remembered(self, own: Tensor, low_res: Tensor, *, prompted: bool) -> Tensor:
        """The memory encoder's features (1, M, h, w) of a mask (4h, 4w), but for what tells that an object is gone."""
        model = self.model
        side = model.image_size
        masks = F.interpolate(low_res[None, None], (side, side), mode="bilinear", align_corners=False)
        masks = (masks > 0).float() if prompted else masks.sigmoid_()
        masks = masks.mul_(model.sigmoid_scale_for_mem_enc).add_(model.sigmoid_bias_for_mem_enc)
        encoder = model.memory_encoder
        fused = encoder.mask_downsampler(masks).add_(own)
        return encoder.out_proj(encoder.fuser(fused))  # type: ignore[no-any-return]

    def _outcome(self, low_res: Tensor, token: Tensor, scores: Tensor) -> ObjectLogits:
        """The end of ``_forward_sam_heads``: what is not seen has no mask and another pointer."""
        model = self.model
        pointers = model.obj_ptr_proj(token)
        if model.pred_obj_scores:
            seen = scores > 0
            low_res = torch.where(seen[:, None], low_res, NO_OBJ_SCORE)
            share = scores.sigmoid() if model.soft_no_obj_ptr else seen.float()
            pointers = (share * pointers if model.fixed_no_obj_ptr else pointers) + (1 - share) * model.no_obj_ptr
        return ObjectLogits(low_res, pointers, scores[:, 0])

    def _as_map(self, tokens: Tensor) -> Tensor:
        side = self.model.sam_image_embedding_size
        return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)

    def _decode(
        self,
        frame: FrameFeatures,
        conditioned: Tensor,
        coordinates: Tensor,
        labels: Tensor,
        found: Tensor | None = None,
        *,
        first: bool,
    ) -> ObjectLogits:
        model = self.model
        points = {"point_coords": coordinates, "point_labels": labels}
        decoded = model._forward_sam_heads(
            backbone_features=conditioned,
            point_inputs=points,
            mask_inputs=found,
            high_res_features=frame.repeated(len(conditioned)),
            multimask_output=model._use_multimask(first, points),
        )
        return ObjectLogits(decoded[3][:, 0], decoded[5], decoded[6][:, 0])
