"""A model of ``transformers`` as a segmenter. Prompts, automatic masks, tiles and scales are those of every SAM-shaped model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segment_duo.errors import ModelError
from segment_duo.segmenters.added import checked_files, read_card
from segment_duo.segmenters.base import DeviceMemoryFull, LoadRequest
from segment_duo.segmenters.hf import KINDS
from segment_duo.segmenters.layout import Layout, LayoutPredictor
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.segmenter import SamSegmenter

BATCH = 64
"""Prompts at once, as stock's generator has them."""


class TransformersPredictor(LayoutPredictor):
    """Embeds images and answers prompts with one model.

    Args:
        model: of a class in :data:`~segment_duo.segmenters.hf.KINDS`, in evaluation mode, on its device.
        layout: how its input is made.
    """

    def __init__(self, model: Any, layout: Layout) -> None:
        super().__init__(layout, _low_size(model), torch.device(model.device), BATCH)
        self.model = model

    def encode(self, batch: Tensor, height: int, width: int) -> Sam2Embedding:
        found = self.model.get_image_embeddings(batch)
        if isinstance(found, Tensor):  # sam
            return Sam2Embedding(found, (), height, width)
        if isinstance(found, tuple):  # sam_hq: the embedding, and those of its layers
            return Sam2Embedding(found[0], tuple(found[1]), height, width)
        return Sam2Embedding(found[-1], tuple(found[:-1]), height, width)

    def decode(
        self,
        embedding: Sam2Embedding,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        *,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        if mask_input is not None and len(coords) > 1:  # its mask input is that of an image, not of a prompt
            parts = [
                self.decode(
                    embedding,
                    coords[i : i + 1],
                    labels[i : i + 1],
                    mask_input[i : i + 1],
                    multimask_output=multimask_output,
                )
                for i in range(len(coords))
            ]
            masks, scores = zip(*parts, strict=True)
            return torch.cat(masks), torch.cat(scores)
        boxes = None
        if bool((labels[:, :1] == 2).all()):
            boxes, coords, labels = coords[:, :2].reshape(1, -1, 4), coords[:, 2:], labels[:, 2:]
        found = self.model(
            **self._features(embedding),
            input_points=coords[None] if coords.shape[1] else None,
            input_labels=labels[None] if labels.shape[1] else None,
            input_boxes=boxes,
            input_masks=mask_input,
            multimask_output=multimask_output,
        )
        return found.pred_masks[0].float(), found.iou_scores[0].float()

    def _features(self, embedding: Sam2Embedding) -> dict[str, Any]:
        image, more = embedding.image_embed, list(embedding.high_res_feats)
        if self.layout.name == "sam2":
            return {"image_embeddings": [*more, image]}
        return {"image_embeddings": image} | ({"intermediate_embeddings": more} if more else {})


def _low_size(model: Any) -> tuple[int, int]:
    """Height and width of a model's low-res logits: four times its image embedding."""
    rows, cols = model.prompt_encoder.image_embedding_size
    return 4 * int(rows), 4 * int(cols)


def load(request: LoadRequest) -> SamSegmenter:
    """Load a model from its folder. No network is asked, no code but that of ``transformers`` runs.

    Raises:
        ModelError: ``transformers`` is not installed or too old, a file is missing or was changed, or the weights do not fit the config.
        DeviceMemoryFull: the device has no room for it.
    """
    place = Path(request.config)
    card = read_card(place)
    kind = str(card.run.get("kind")) if card is not None else ""
    if card is None or kind not in KINDS:
        raise ModelError(f"{place} holds no model any more", "Add it again: segduo models add")
    checked_files(card, place)
    request.check()
    name, arrangement = KINDS[kind]
    model = _from_folder(_class(name, request.id), card.folder)
    request.check()
    try:
        model = model.to(request.device).eval()
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryFull(str(error)) from None
    layout = Layout("sam1" if arrangement == "sam1" else "sam2", card.input_size, card.run["mean"], card.run["std"])
    count = sum(tensor.numel() for tensor in model.parameters())
    return SamSegmenter(TransformersPredictor(model, layout), card.info(request.id, place), count)


def _class(name: str, model: str) -> Any:
    """A class of ``transformers``, which asks nothing of the network from then on."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported: even a folder makes it ask for what is newer
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    try:
        import transformers
    except ImportError:
        raise ModelError(
            f"the model '{model}' needs transformers, which is not installed here",
            "Install it: pip install 'segment-duo[hf]'",
        ) from None
    found = getattr(transformers, name, None)
    if found is None:
        raise ModelError(
            f"transformers {transformers.__version__} has no {name}", "A newer one may: pip install -U transformers"
        )
    return found


def _from_folder(kind: Any, folder: str) -> Any:
    try:
        model, told = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # it raises nearly anything on files that are not what they should be
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} cannot be loaded: {text}", "Fetch the model again.") from None
    missing = sorted(told.get("missing_keys") or ())
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first",
            "Config and weights must be of one model.",
        )
    return model
