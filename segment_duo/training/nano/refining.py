"""Train what nano makes of a previous mask and of further clicks, and nothing else.

    python -m segment_duo.training.nano corrections RUN --until +60 --base nano.pt --real emps --without NAMES
    python -m segment_duo.training.nano export-corrections RUN nano.pt

Trained are the convolutions that read a mask prompt, the embedding of an exclude click, and what makes a mask and its predicted IoU of the
single-mask token. The image encoder and the transformer are frozen, and so is what the three masks of a first click are made with: first
clicks, automatic masks and followed objects stay the same to the last bit.

A prompt is a first click or a box; its best mask is corrected several times, as users do, at the largest error. Every correction has the losses of
:mod:`segment_duo.training.objective`; masks that are corrected carry no gradient back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.engine.mask_prompt import CONFIDENCE
from segment_duo.training.clicks import corrections
from segment_duo.training.forward import DecodedMasks, Features, decode, encode, training_attention
from segment_duo.training.nano.batches import Batch
from segment_duo.training.nano.feed import Diet, Feed
from segment_duo.training.nano.part import PartTraining, Rates
from segment_duo.training.objective import mask_loss, overlap

EXCLUDE = "sam_prompt_encoder.point_embeddings.0.weight"
SCORES = "sam_mask_decoder.iou_prediction_head.layers.2"
"""The last layer of the head that predicts four IoUs; its first row alone is trained."""
TRAINED = ("sam_prompt_encoder.mask_downscaling", EXCLUDE, "sam_mask_decoder.output_hypernetworks_mlps.0", SCORES)


@dataclass(frozen=True, slots=True)
class CorrectionRecipe:
    """Numbers of a run. ``rounds``: corrections of a prompt; ``boxes``: share of steps that begin with a box; ``binary``: of rounds that correct a
    binary mask."""

    rates: Rates = field(default=Rates(lr=4e-4, matrix_lr=8e-4, weight_decay=0.01, ramp=40, ema=0.997))
    images: int = 3
    prompts: int = 16
    rounds: int = 6
    boxes: float = 0.15
    binary: float = 0.1


def correct(
    model: torch.nn.Module, batch: Batch, rng: np.random.Generator, recipe: CorrectionRecipe
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """The loss of each correction of a batch's objects, and the IoU reached before the first and after each."""
    with torch.no_grad():
        features = encode(model, batch.images, batch.offsets)
        objects = torch.nonzero(batch.present)[:, 0]
        owner, target = batch.owner[objects], batch.target[objects]
        if rng.random() < recipe.boxes:
            points = batch.boxes[objects].reshape(-1, 2, 2)
            labels = torch.tensor([[2, 3]]).expand(len(objects), -1)
        else:
            points = batch.clicks[objects][:, None]
            labels = torch.ones(len(objects), 1, dtype=torch.long)
        first = decode(model, features, owner, points, labels)
        logits = _answer(first, box=labels.shape[1] == 2)
    yield from _rounds(model, features, owner, target, points, labels, logits, rng, recipe)


def _rounds(
    model: torch.nn.Module,
    features: Features,
    owner: Tensor,
    target: Tensor,
    points: Tensor,
    labels: Tensor,
    logits: Tensor,
    rng: np.random.Generator,
    recipe: CorrectionRecipe,
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    stats = {"iou1": float(overlap(logits, target).mean())}
    for number in range(recipe.rounds):
        more, kinds = corrections(logits, target)
        points, labels = torch.cat([points, more], 1), torch.cat([labels, kinds], 1)
        if rng.random() < recipe.binary:
            logits = CONFIDENCE * (2 * (logits > 0).float() - 1)
        out = decode(model, features, owner, points, labels, logits)
        reached = overlap(out.logits[:, :1].detach(), target)
        scored = F.binary_cross_entropy_with_logits(out.iou_logit[:, :1], reached)
        loss = mask_loss(out.logits[:, :1], target).mean() + 0.3 * scored
        stats[f"iou{number + 2}"] = float(reached.mean())
        yield loss / recipe.rounds, stats
        stats = {}
        logits = out.logits.detach()[:, :1]


def _answer(out: DecodedMasks, *, box: bool) -> Tensor:
    """The mask that is shown: of a box the single one, of a click that of the highest predicted IoU. (P, 1, h, w)"""
    if box:
        return out.logits[:, :1]
    return out.logits[torch.arange(len(out.logits)), out.iou[:, 1:].argmax(1) + 1][:, None]


class CorrectionTraining(PartTraining):
    """A resumable run in a folder: ``corrections.pt``."""

    file = "corrections.pt"
    log = "corrections.txt"

    def __init__(self, folder: Path, recipe: CorrectionRecipe, until: float, base: Path) -> None:
        super().__init__(folder, recipe.rates, until, base, lambda name: name.startswith(TRAINED))
        self.recipe = recipe
        for name, parameter in self.trained.items():
            if name.startswith(SCORES):
                parameter.register_hook(_first_row)  # type: ignore[no-untyped-call]
        # Decay would reach the other rows of the scores, whose gradient is zero.
        assert all(min(p.shape) <= 8 for n, p in self.trained.items() if n.startswith(SCORES))

    def train(self, diet: Diet) -> None:
        """Train until the time is over, and save."""
        seed = self.step + 1
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        size = self.recipe.images, self.recipe.prompts, self.model.image_size
        feed = Feed(diet, seed, self.model.image_size, size)

        def losses(_progress: float) -> Iterator[tuple[Tensor, dict[str, float]]]:
            batch, *_ = feed.take(size)
            if batch.present.any():
                yield from correct(self.model, batch, rng, self.recipe)

        try:
            self.run(losses)
        finally:
            feed.executor.shutdown(cancel_futures=True)


def _first_row(gradient: Tensor) -> Tensor:
    kept = torch.zeros_like(gradient)
    kept[0] = gradient[0]
    return kept


def train_corrections(folder: Path, until: float, base: Path, diet: Diet, rate: float) -> None:
    """One process with one thread."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = CorrectionRecipe()
    rates = recipe.rates
    rates = replace(rates, lr=rates.lr * rate, matrix_lr=rates.matrix_lr * rate)
    with training_attention():
        CorrectionTraining(folder, replace(recipe, rates=rates), until, base).train(diet)
