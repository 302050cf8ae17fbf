"""What the base knows, asked again while a model is adapted: its own answers on synthetic scenes, so that it keeps them.

base weights --base_answers--> scenes with prompts and answers --replay_loss--> how far the adapted model has moved from them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from segment_duo.training.forward import DecodedMasks, Features, decode
from segment_duo.training.views import LabelledPicture, View, whole

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

REPLAY_EVERY = 4
"""Every so many steps one is a replay of the base's answers."""

SCENES = 12
"""Synthetic scenes that are replayed."""

FeaturesOf = Callable[[npt.NDArray[np.uint8]], Features]
"""Encodes an input, uint8 (S, S, 3)."""


@dataclass(frozen=True, eq=False)
class BaseAnswers:
    """A scene and what the base says of it: prompts (P, 1, 2), logits float16 (P, 4, h, w), predicted IoU (P, 4).

    ``features`` are None when the encoder is trained; then ``pixels`` are encoded anew.
    """

    pixels: npt.NDArray[np.uint8]
    features: Features | None
    points: torch.Tensor
    logits: torch.Tensor
    iou: torch.Tensor


@torch.no_grad()
def base_answers(
    model: SAM2Base, rng: np.random.Generator, prompts: int, features_of: FeaturesOf, *, keep_features: bool
) -> BaseAnswers:
    """The answers of ``model``, which holds the base's weights, on a new scene: half of the prompts on objects, half anywhere."""
    side = int(model.image_size)
    picture = _scene(int(rng.integers(1, 100_000)), min(side, 512))
    view = View(picture, whole(picture), side)
    crops = [c for c in map(view.crop, rng.permutation(view.candidates)[: prompts // 2].tolist()) if c]
    clicks = [c.click(rng, 0.4) for c in crops]
    clicks += [(float(x), float(y)) for x, y in rng.integers(side, size=(prompts - len(clicks), 2))]
    pixels = view.pixels()
    features = features_of(pixels)
    points = torch.tensor(clicks, dtype=torch.float32, device=model.device)[:, None]
    out = _decode_first(model, features, points)
    return BaseAnswers(pixels, features if keep_features else None, points, out.logits.half(), out.iou)


def replay_loss(model: SAM2Base, scene: BaseAnswers, features_of: FeaturesOf) -> torch.Tensor:
    """How far the answers on a scene have moved from the base's: masks, and predicted IoU."""
    out = _decode_first(model, scene.features or features_of(scene.pixels), scene.points)
    wanted = scene.logits.float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(out.logits, wanted, reduction="none").sum((-2, -1))
    area = (wanted.sum((-2, -1)) + out.logits.detach().sigmoid().sum((-2, -1))) / 2
    return (entropy / (area + 16.0)).mean() + F.binary_cross_entropy_with_logits(out.iou_logit, scene.iou)


def _decode_first(model: SAM2Base, features: Features, points: torch.Tensor) -> DecodedMasks:
    owner = torch.zeros(len(points), dtype=torch.long, device=points.device)
    return decode(model, features, owner, points, torch.ones_like(owner)[:, None])


def _scene(seed: int, side: int) -> LabelledPicture:
    """A synthetic scene of the project's own generator."""
    from segment_duo.training.nano.scenes import generate

    scene = generate(seed, (side, side))
    image = np.repeat(np.asarray(scene.image, np.uint8)[:, :, None], 3, axis=2)
    return LabelledPicture.of(image, iter(scene.masks), f"scene {seed}", "")
