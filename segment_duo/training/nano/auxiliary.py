"""Dense predictions that help the encoder while nano is trained, and are thrown away: object, border, distance to the middle, size.

They give it a gradient from each pixel instead of one from each prompt. This module must not know of prompts or of a run.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from segment_duo.training.clicks import STRIDE
from segment_duo.training.forward import Features


class Auxiliary(nn.Module):
    """Dense per-pixel predictions from the neck's three levels at stride 4, and from the embedding alone."""

    CHANNELS = 5  # object, border, dx, dy, log size

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(width, self.CHANNELS * 16, 1)
        self.middle = nn.Conv2d(width, self.CHANNELS * 4, 1)
        self.fine = nn.Conv2d(width, self.CHANNELS, 1)
        for head in (self.coarse, self.middle, self.fine):
            nn.init.zeros_(
                head.weight
            )  # at first they learn from the features and do not disturb them: a given base stays as good as it is

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        fine, middle, coarse = features.pyramid
        alone = F.pixel_shuffle(self.coarse(coarse), 4)
        return alone, alone + F.pixel_shuffle(self.middle(middle), 2) + self.fine(fine)


def dense_targets(labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (I, 5, S / 4, S / 4) of :class:`Auxiliary` and the object coverage used as weight of the last three."""
    out = []
    for truth in labels:
        inside = truth > 0
        border = np.zeros(truth.shape, bool)
        border[:-1] |= truth[1:] != truth[:-1]
        border[:, :-1] |= truth[:, 1:] != truth[:, :-1]
        areas = np.maximum(np.bincount(truth.ravel()), 1)
        y, x = np.mgrid[0 : truth.shape[0], 0 : truth.shape[1]].astype(np.float32)
        mean_x = np.bincount(truth.ravel(), x.ravel()) / areas
        mean_y = np.bincount(truth.ravel(), y.ravel()) / areas
        dx, dy = (mean_x[truth] - x) / 24, (mean_y[truth] - y) / 24
        size = np.log(np.sqrt(areas) / 24)[truth]
        out.append(np.stack([inside, border, dx * inside, dy * inside, size * inside]).astype(np.float32))
    targets = F.avg_pool2d(torch.from_numpy(np.stack(out)), STRIDE)
    return targets, targets[:, :1]


def auxiliary_loss(prediction: torch.Tensor, targets: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    prediction = prediction.float()
    object_loss = F.binary_cross_entropy_with_logits(prediction[:, 0], targets[:, 0])
    border_loss = F.binary_cross_entropy_with_logits(prediction[:, 1], targets[:, 1], pos_weight=torch.tensor(4.0))
    whole = (inside > 0.99).float()
    shape = F.smooth_l1_loss(prediction[:, 2:] * whole, targets[:, 2:] * whole, reduction="sum", beta=0.5)
    return object_loss + 2 * border_loss + 0.5 * shape / (3 * whole.sum()).clamp(min=1)
