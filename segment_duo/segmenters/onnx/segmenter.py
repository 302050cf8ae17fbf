"""A pair as a segmenter. Prompts, automatic masks, tiles and scales are those of every SAM-shaped model; this says how the pair computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segment_duo.errors import ModelError
from segment_duo.segmenters.added import checked_files, read_card
from segment_duo.segmenters.base import LoadRequest
from segment_duo.segmenters.layout import Layout, LayoutPredictor
from segment_duo.segmenters.onnx import DECODER, ENCODER, Signature
from segment_duo.segmenters.onnx.contents import external_files
from segment_duo.segmenters.onnx.pair import Pair
from segment_duo.segmenters.sam2.catalogue import IMAGE_MEAN, IMAGE_STD
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.segmenter import SamSegmenter

BATCH = 8
"""Prompts at once, where a pair takes several: 32 MiB for each tensor of image tokens of an official model."""


class OnnxPredictor(LayoutPredictor):
    """Embeds images and answers prompts with a pair, on the CPU."""

    def __init__(self, pair: Pair) -> None:
        s = pair.signature
        super().__init__(layout_of(s), s.low_size, torch.device("cpu"), BATCH if s.batched else 1)
        self.pair = pair

    def encode(self, batch: Tensor, height: int, width: int) -> Sam2Embedding:
        s = self.pair.signature
        if not s.fixed and s.channels_last:  # it pads by itself
            rows, cols = self.layout.shrunk(height, width)
            batch = batch[..., :rows, :cols]
        first, *others = (torch.from_numpy(array) for array in self.pair.encode(batch.numpy()))
        return Sam2Embedding(first, tuple(others), height, width)

    def decode(
        self,
        embedding: Sam2Embedding,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        *,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        if self.layout.name == "sam1" and not bool((labels == 2).any()):
            # SAM 1's exports leave it to the caller to say that there is no box; SAM 2's add this point themselves.
            coords = torch.cat([coords, coords.new_zeros(len(coords), 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], dim=1)
        features = [tensor.numpy() for tensor in (embedding.image_embed, *embedding.high_res_feats)]
        refined = None if mask_input is None else mask_input.numpy()
        masks, iou = (
            torch.from_numpy(np.ascontiguousarray(array))
            for array in self.pair.decode(features, coords.numpy(), labels.numpy(), refined)
        )
        return chosen(masks, iou, multimask_output=multimask_output)


def chosen(masks: Tensor, iou: Tensor, *, multimask_output: bool) -> tuple[Tensor, Tensor]:
    """Of logits (B, K, h, w) and predicted IoU (B, K) the three candidates, or the single one.

    Four masks are the single one and three candidates, as SAM's decoder has them; of three the best is taken for the single one.
    """
    count = iou.shape[1]
    if count == 4:
        return (masks[:, 1:], iou[:, 1:]) if multimask_output else (masks[:, :1], iou[:, :1])
    if multimask_output or count == 1:
        return masks, iou
    rows, best = torch.arange(len(iou)), iou.argmax(dim=1)
    return masks[rows, best][:, None], iou[rows, best][:, None]


def layout_of(signature: Signature) -> Layout:
    """Where an image lies in the pair's input, and what its values are."""
    mean, std = {
        "normalised": (IMAGE_MEAN, IMAGE_STD),
        "unit": ((0.0,) * 3, (1.0,) * 3),
        "raw": ((0.0,) * 3, (1 / 255,) * 3),
    }[signature.preparation]
    return Layout(signature.layout, signature.size, mean, std)


def load(request: LoadRequest) -> SamSegmenter:
    """Check the files against what was recorded of them, and load them.

    Raises:
        ModelError: a file is missing, was changed, asks for what is not allowed, or onnxruntime is not installed.
    """
    place = Path(request.config)
    card = read_card(place)
    if card is None:
        raise ModelError(f"{place} holds no model any more", "Add it again: segduo models add")
    signature = Signature.model_validate(card.run)
    checked_files(card, place)
    request.check()
    encoder, decoder = place / ENCODER, place / DECODER
    for file in (encoder, decoder):
        external_files(file)
    pair = Pair(encoder, decoder, signature, request.threads, request.id)
    request.check()
    return SamSegmenter(OnnxPredictor(pair), card.info(request.id, place))
