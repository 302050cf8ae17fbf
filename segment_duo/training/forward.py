"""Run a SAM 2 model's encoder and decoder with gradients, many prompts an image, on whole inputs or on crops of the input frame.

A crop is trained as if it lay somewhere in the model's full input frame: its position encodings are cut from the frame's, so what is
learned at a quarter of the cost holds at full size. Nothing here knows about losses or data.

Shapes: I images, P prompts, S side of the crop in pixels (a multiple of 32 up to ``image_size``), E = S / 16, C = ``hidden_dim``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from segment_duo.segmenters.sam2.catalogue import IMAGE_MEAN, IMAGE_STD

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the decoder needs of a batch of images.

    Attributes:
        embedding: (I, C, E, E), with ``no_mem_embed`` added as the image predictor does.
        fine: (I, C / 8, 4E, 4E) and (I, C / 4, 2E, 2E), already through ``conv_s0`` and ``conv_s1``.
        pyramid: the neck's three levels before those convolutions, finest first; empty when features come from a cache.
        offsets: (I, 2) of int, x and y of each crop in the input frame, multiples of 32.
    """

    embedding: torch.Tensor
    fine: tuple[torch.Tensor, torch.Tensor]
    offsets: torch.Tensor
    pyramid: tuple[torch.Tensor, ...] = ()


@contextmanager
def training_attention() -> Iterator[None]:
    """Attention over at most 64 queries or keys as plain matrix products, which is what windows and prompt tokens have.

    On a CPU the backward pass of torch's fused kernel dominates there: a step of 8 crops and 80 prompts took 1.9 s with it and 1.25 s without
    (2 cores, bfloat16). ``sam2`` calls it through ``torch.nn.functional``, where it is replaced for the duration.
    """
    fused = F.scaled_dot_product_attention

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float = 0.0) -> torch.Tensor:
        if min(q.shape[-2], k.shape[-2]) > 64 or dropout_p:
            return fused(q, k, v, dropout_p=dropout_p)
        weights = ((q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1)
        mixed: torch.Tensor = weights.to(v.dtype) @ v
        return mixed

    F.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 (I, H, W, 3) to the encoder's float input (I, 3, H, W)."""
    mean = torch.tensor(IMAGE_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=images.device).view(1, 3, 1, 1)
    scaled: torch.Tensor = (images.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
    return scaled


def encode(model: SAM2Base, images: torch.Tensor, offsets: torch.Tensor) -> Features:
    """Encoder features of normalised ``images`` (I, 3, S, S) that lie at ``offsets`` in the input frame."""
    trunk = model.image_encoder.trunk
    x = trunk.patch_embed(images)
    frame = trunk._get_pos_embed((model.image_size // 4, model.image_size // 4))
    side = x.shape[1]
    x = x + torch.cat([frame[:, oy : oy + side, ox : ox + side] for ox, oy in (offsets // 4).tolist()])
    levels = []
    for i, block in enumerate(trunk.blocks):
        x = block(x)
        if i in trunk.stage_ends:
            levels.append(x.permute(0, 3, 1, 2))
    pyramid, _ = model.image_encoder.neck(levels)
    pyramid = tuple(pyramid[: len(pyramid) - model.image_encoder.scalp])
    decoder = model.sam_mask_decoder
    fine = (decoder.conv_s0(pyramid[0]), decoder.conv_s1(pyramid[1]))
    embedding = pyramid[2]
    if model.directly_add_no_mem_embed:
        embedding = embedding + model.no_mem_embed.view(1, -1, 1, 1)
    return Features(embedding, fine, offsets, pyramid)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMasks:
    """Decoder output: ``logits`` (P, 4, 4E, 4E), ``iou`` (P, 4) and its logit ``iou_logit``, ``presence`` (P, 1) object-score logit.

    Index 0 is the single-mask token, 1 to 3 are the three masks of an ambiguous prompt. ``tokens`` (P, 4, C): what the decoder made of them.
    """

    logits: torch.Tensor
    iou_logit: torch.Tensor
    presence: torch.Tensor
    tokens: torch.Tensor

    @property
    def iou(self) -> torch.Tensor:
        return self.iou_logit.sigmoid()


def decode(
    model: SAM2Base,
    features: Features,
    owner: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
    mask_input: torch.Tensor | None = None,
) -> DecodedMasks:
    """Decode P prompts.

    Args:
        owner: (P,) index of each prompt's image.
        points: (P, K, 2) x and y in crop pixels (centre of the first pixel 0, as the predictor gives them to the prompt encoder).
        labels: (P, K) 1 include, 0 exclude, 2 and 3 box corners. The padding point that ``sam2`` adds is added here too.
        mask_input: (P, 1, 4E, 4E) low-res logits to refine, or None.
    """
    prompt_encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    sparse = prompt_encoder._embed_points(points + features.offsets[owner][:, None, :], labels, pad=True)
    height, width = features.embedding.shape[-2:]
    if mask_input is None:
        dense = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(len(owner), -1, height, width)
    else:
        dense = prompt_encoder.mask_downscaling(mask_input.clamp(-32.0, 32.0))
    frame = prompt_encoder.get_dense_pe()
    corners = (features.offsets // 16).tolist()
    encodings = torch.cat([frame[:, :, oy : oy + height, ox : ox + width] for ox, oy in corners])

    # The decoder takes one position encoding for the whole batch; with crops at different places its transformer is called here.
    src = features.embedding[owner] + dense
    tokens = torch.cat(
        [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores
        else [decoder.iou_token.weight, decoder.mask_tokens.weight]
    )
    first = 1 if decoder.pred_obj_scores else 0
    tokens = torch.cat([tokens[None].expand(len(owner), -1, -1), sparse.to(tokens.dtype)], dim=1)
    hidden, src = decoder.transformer(src, encodings[owner], tokens)
    mask_tokens = hidden[:, first + 1 : first + 1 + decoder.num_mask_tokens]
    upscale1, norm, act1, upscale2, act2 = decoder.output_upscaling
    src = src.transpose(1, 2).reshape(len(owner), -1, height, width)
    up = act1(norm(upscale1(src) + features.fine[1][owner]))
    up = act2(upscale2(up) + features.fine[0][owner])
    hyper = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    logits = (hyper @ up.flatten(2)).view(len(owner), -1, *up.shape[-2:])
    iou_logit = _before_sigmoid(decoder.iou_prediction_head, hidden[:, first])
    presence = (
        decoder.pred_obj_score_head(hidden[:, 0])
        if decoder.pred_obj_scores
        else iou_logit.new_full((len(owner), 1), 10.0)
    )
    return DecodedMasks(logits.float(), iou_logit.float(), presence.float(), mask_tokens)


def _before_sigmoid(head: Any, x: torch.Tensor) -> torch.Tensor:
    """The IoU head without its last sigmoid; a head that has none (SAM 2.0) is brought to logits by the inverse."""
    layers = list(head.layers)
    for layer in layers[:-1]:
        x = F.relu(layer(x))
    x = layers[-1](x)
    return x if head.sigmoid_output else torch.logit(x.float().clamp(1e-4, 1 - 1e-4))
