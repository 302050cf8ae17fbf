"""Pairs of ONNX files made of torch modules: a random one in SAM 1's layout, and nano in SAM 2's. The modules stay, to compare with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from segment_duo.segmenters.layout import Layout, LayoutPredictor
from segment_duo.segmenters.onnx.segmenter import chosen
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from tests.engine_stock import small_model

SIDE = 128
LOW = SIDE // 4
CHANNELS = 32


class Encoder(nn.Module):
    """float32 (1, 3, 128, 128) -> (1, 32, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, CHANNELS, 16, 16), nn.GELU(), nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.layers(image)
        return 3 * found


class Decoder(nn.Module):
    """SAM 1's decoder: prompts as its own export wants them, four masks, low-res logits."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = PromptEncoder(CHANNELS, (SIDE // 16, SIDE // 16), (SIDE, SIDE), 4)
        self.masks = MaskDecoder(transformer_dim=CHANNELS, transformer=TwoWayTransformer(2, CHANNELS, 2, 64))

    def forward(
        self, features: Tensor, coords: Tensor, labels: Tensor, mask_input: Tensor, has_mask_input: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        low, iou = decode(self.prompts, self.masks, features, [], coords, labels, mask_input, has_mask_input)
        full = nn.functional.interpolate(low, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return full + 0 * size.sum(), iou, low


class NanoEncoder(nn.Module):
    """Nano's encoder: the image embedding and two high-res features."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small_model()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, feats, _, sizes = self.model._prepare_backbone_features(self.model.forward_image(image))
        feats[-1] = feats[-1] + self.model.no_mem_embed
        fine, middle, last = (f.permute(1, 2, 0).reshape(1, -1, *size) for f, size in zip(feats, sizes, strict=True))
        return fine, middle, last


class NanoDecoder(nn.Module):
    """Nano's decoder with the point that stands for no box inside, as SAM 2's exports have it."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts, self.masks = small_model().sam_prompt_encoder, small_model().sam_mask_decoder

    def forward(
        self,
        embed: Tensor,
        fine: Tensor,
        middle: Tensor,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has: Tensor,
    ) -> tuple[Tensor, Tensor]:
        coords = torch.cat([coords, torch.zeros_like(coords[:, :1])], dim=1)
        labels = torch.cat([labels, -torch.ones_like(labels[:, :1])], dim=1)
        return decode(self.prompts, self.masks, embed, [fine, middle], coords, labels, mask_input, has)


def decode(
    prompts: Any,
    decoder: Any,
    features: Tensor,
    high_res: list[Tensor],
    coords: Tensor,
    labels: Tensor,
    mask_input: Tensor,
    has: Tensor,
) -> tuple[Tensor, Tensor]:
    sparse = prompts._embed_points(coords, labels, pad=False)
    none = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense = has * prompts.mask_downscaling(mask_input) + (1 - has) * none
    masks, iou, _, _ = decoder.predict_masks(
        image_embeddings=features,
        image_pe=prompts.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=True,
        high_res_features=high_res,
    )
    return masks, iou


class TorchPredictor(LayoutPredictor):
    """The random model in torch, prompts handed to it as an ONNX pair of SAM 1 gets them."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__(Layout("sam1", SIDE), (LOW, LOW), torch.device("cpu"), 8)
        self.encoder, self.decoder = encoder, decoder

    def encode(self, batch: Tensor, height: int, width: int) -> Sam2Embedding:
        return Sam2Embedding(self.encoder(batch), (), height, width)

    def decode(
        self,
        embedding: Sam2Embedding,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        *,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        if not bool((labels == 2).any()):
            coords = torch.cat([coords, coords.new_zeros(len(coords), 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], dim=1)
        given = torch.zeros(len(coords), 1, LOW, LOW) if mask_input is None else mask_input
        has = torch.tensor([float(mask_input is not None)])
        _, iou, low = self.decoder(embedding.image_embed, coords, labels.float(), given, has, torch.zeros(2))
        return chosen(low, iou, multimask_output=multimask_output)


def random_sam1(folder: Path, *, batched: bool = True) -> tuple[Path, Path, TorchPredictor]:
    """A pair in SAM 1's layout, and the same weights in torch."""
    torch.manual_seed(5)
    encoder, decoder = Encoder().eval(), Decoder().eval()
    with torch.no_grad():
        for mlp in decoder.masks.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 20
    some = 3
    prompts = (torch.rand(some, 2, 2) * SIDE, torch.tensor([[1.0, -1.0]]).expand(some, -1).contiguous())
    example: tuple[Tensor, ...] = (
        torch.rand(1, CHANNELS, 8, 8),
        *prompts,
        torch.rand(some, 1, LOW, LOW),
        torch.zeros(1),
        torch.zeros(2),
    )
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
    axes: dict[str, dict[int, str]] = {"point_coords": {1: "points"}, "point_labels": {1: "points"}}
    if batched:
        axes = {name: {0: "prompts", 1: "points"} for name in axes} | {"mask_input": {0: "prompts"}}
    else:
        example = (example[0], *(one[:1] for one in example[1:4]), *example[4:])
    export(encoder, (torch.rand(1, 3, SIDE, SIDE),), folder / "encoder.onnx", ["image"], ["output"], {})
    export(decoder, example, folder / "decoder.onnx", names, ["masks", "iou_predictions", "low_res_masks"], axes)
    return folder / "encoder.onnx", folder / "decoder.onnx", TorchPredictor(encoder, decoder)


def nano_sam2(folder: Path) -> tuple[Path, Path]:
    """Nano as a pair in SAM 2's layout."""
    side = small_model().image_size
    encoder, decoder = NanoEncoder().eval(), NanoDecoder().eval()
    with torch.no_grad():
        fine, middle, last = encoder(torch.rand(1, 3, side, side))
    some = 3
    example = (
        last, fine, middle, torch.rand(some, 1, 2) * side, torch.ones(some, 1), torch.rand(some, 1, side // 4, side // 4), torch.zeros(1),
    )  # fmt: skip
    features = ["high_res_feats_0", "high_res_feats_1", "image_embed"]
    names = ["image_embed", *features[:2], "point_coords", "point_labels", "mask_input", "has_mask_input"]
    axes: dict[str, dict[int, str]] = {name: {0: "prompts", 1: "points"} for name in names[3:5]}
    export(encoder, (torch.rand(1, 3, side, side),), folder / "encoder.onnx", ["image"], features, {})
    export(
        decoder,
        example,
        folder / "decoder.onnx",
        names,
        ["masks", "iou_predictions"],
        axes | {"mask_input": {0: "prompts"}},
    )
    return folder / "encoder.onnx", folder / "decoder.onnx"


def export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    file: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            str(file),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
