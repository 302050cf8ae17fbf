"""Initial values of nano's weights, and the batch of the warm-up that comes before any image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

from segment_duo.training.forward import Features
from segment_duo.training.nano.pool import Pool


def prepare(model: SAM2Base) -> None:
    """Initial values that let a small decoder find a click at once.

    The random frequencies of the position encoding (a buffer of the checkpoint) are spread from 0.5 to 10 cycles an image, where
    ``sam2``'s own normal draw tells places apart only beyond a sixth of the image; query and key projections between tokens and image begin
    equal, so that a click attends to its own place. In the encoder windows get sinusoidal positions instead of zeros, and queries equal to
    keys there make attention local and by likeness from the first step (Trockman and Kolter 2023, mimetic initialization).
    """
    encoding = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    count = encoding.shape[1]
    frequency = torch.exp(torch.linspace(math.log(0.5), math.log(10.0), count))
    angle = torch.arange(count) * 2.399963  # golden angle: directions spread evenly at every scale
    encoding.copy_(torch.stack([frequency * angle.cos(), frequency * angle.sin()]))
    transformer = model.sam_mask_decoder.transformer
    crossings = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossings += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossings:
        attention.q_proj.weight.copy_(1.5 * attention.q_proj.weight)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
    trunk = model.image_encoder.trunk
    trunk.pos_embed_window.copy_(0.5 * _waves(*trunk.pos_embed_window.shape[1:3]))
    trunk.pos_embed.copy_(0.1 * torch.randn_like(trunk.pos_embed))
    for block in trunk.blocks:
        weight = block.attn.qkv.weight
        width = weight.shape[0] // 3
        weight[:width].mul_(1.7)
        weight[width : 2 * width].copy_(weight[:width])


def whiten(model: SAM2Base, pool: Pool, rng: np.random.Generator, floor: float = 0.05) -> None:
    """Set the patch embedding to the whitened principal components of grey 7 x 7 patches of the training scenes.

    Neighbouring pixels are nearly equal: random filters see little besides the mean grey value, and borders, the small components, are
    learned last. ``floor`` (variance of normalised grey values) keeps noise from being amplified.
    """
    patches = []
    for _ in range(150):
        image, _labels = pool.draw(rng)
        grey = (image / 255.0 - 0.45) / 0.226
        for y, x in rng.integers(0, grey.shape[0] - 7, (200, 2)):
            patches.append(grey[y : y + 7, x : x + 7].ravel())
    stacked = np.stack(patches)
    values, vectors = np.linalg.eigh(stacked.T @ stacked / len(stacked))
    components = (vectors / np.sqrt(values + floor)).T[::-1]
    projection = model.image_encoder.trunk.patch_embed.proj
    filters = torch.from_numpy(components[: projection.weight.shape[0]].copy()).float().view(-1, 1, 7, 7) / 3
    with torch.no_grad():
        projection.weight.copy_(filters.expand(-1, 3, -1, -1))
        projection.bias.zero_()


def _waves(channels: int, side: int) -> torch.Tensor:
    """Sines and cosines over a window, shape (1, channels, side, side), half a cycle a window to one in three tokens."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frequency = torch.exp(torch.linspace(math.log(math.pi / side), math.log(math.pi * 0.6), channels // 4))
    return torch.stack([wave(axis * f) for axis in (y, x) for f in frequency for wave in (torch.sin, torch.cos)])[None]


def warmup_batch(
    rng: np.random.Generator, model: SAM2Base, prompts: int, side: int
) -> tuple[Features, torch.Tensor, torch.Tensor]:
    """Random features of one crop, clicks on it, and discs of random radius about them as coverages."""
    e, c = side // 16, model.hidden_dim
    free = (model.image_size - side) // 32 + 1
    features = Features(
        embedding=torch.randn(1, c, e, e) * 0.3,
        fine=(torch.randn(1, c // 8, 4 * e, 4 * e) * 0.3, torch.randn(1, c // 4, 2 * e, 2 * e) * 0.3),
        offsets=torch.tensor([[32 * int(rng.integers(free)), 32 * int(rng.integers(free))]]),
    )
    clicks = torch.from_numpy(rng.uniform(0, side - 1, (prompts, 1, 2))).float()
    y, x = torch.meshgrid(torch.arange(4 * e), torch.arange(4 * e), indexing="ij")
    distance = torch.hypot(x * 4 + 1.5 - clicks[:, :, :1], y * 4 + 1.5 - clicks[:, :, 1:])
    return features, clicks, ((24.0 - distance) / 4 + 0.5).clamp(0, 1)[:, None]
