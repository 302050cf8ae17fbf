"""Losses of promptable segmentation: mask, predicted IoU, object presence.

Masks follow SAM (Kirillov et al. 2023): pixel loss plus dice, best of three for an ambiguous prompt, predicted IoU regressed against
the IoU reached. Two things differ. Targets are coverages in [0, 1] (area averages at the logits' resolution), which places
borders between low-res pixels. The pixel loss is cross-entropy over the mean of object and mask area, so that a 10-pixel
particle counts as much as a grain, and a mask that spills far over does not outweigh all others; early in a run from
scratch it is blended with a class-balanced one, which does not collapse to empty masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from segment_duo.training.forward import DecodedMasks


def mask_loss(logits: torch.Tensor, target: torch.Tensor, balance: float = 0.0) -> torch.Tensor:
    """Per-mask loss, shape (P, M), of ``logits`` (P, M, h, w) against coverages ``target`` (P, 1, h, w).

    ``balance`` in [0, 1]: share of class-balanced cross-entropy; the rest is cross-entropy over the mean of object and mask area.
    """
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    area = target.sum((-2, -1))
    by_area = 2 * entropy.sum((-2, -1)) / (area + probability.detach().sum((-2, -1)) + 16.0)
    positive = (entropy * target).sum((-2, -1)) / (area + 1e-3)
    negative = (entropy * (1 - target)).sum((-2, -1)) / ((1 - target).sum((-2, -1)) + 1e-3)
    dice = 1 - (2 * (probability * target).sum((-2, -1)) + 1) / ((probability + target).sum((-2, -1)) + 1)
    return balance * (positive + negative) + (1 - balance) * by_area + dice


def overlap(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU of the thresholded ``logits`` (P, M, h, w) with ``target`` >= 0.5, shape (P, M); 0 where both are empty."""
    predicted = logits > 0
    truth = (target >= 0.5).expand_as(predicted)
    union = (predicted | truth).sum((-2, -1))
    return (predicted & truth).sum((-2, -1)) / union.clamp(min=1)


def prompt_loss(
    out: DecodedMasks, target: torch.Tensor, present: torch.Tensor, balance: float = 0.0, single: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss over prompts, and the IoU (P, 4) that each of the four masks reached.

    Args:
        target: (P, 1, h, w) coverages; all zero for a click on background.
        present: (P,) bool; where False only predicted IoU (0) and presence are trained.
        single: weight of the single-mask token beside the best of three.
    """
    losses = mask_loss(out.logits, target, balance)
    reached = overlap(out.logits.detach(), target) * present[:, None]
    best = losses[:, 1:].min(dim=1).values
    # A small share for the other two keeps them from dying when one wins every prompt.
    mask = best + 0.05 * losses[:, 1:].mean(dim=1) + single * losses[:, 0]
    weight = present.float()
    mask = (mask * weight).sum() / weight.sum().clamp(min=1)
    iou = F.binary_cross_entropy_with_logits(out.iou_logit, reached.clamp(0, 1))
    presence = F.binary_cross_entropy_with_logits(out.presence[:, 0], weight)
    return mask + iou + 0.1 * presence, reached
