"""Training of what nano makes of further clicks: it learns from its own errors, and nothing else than corrections changes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.models.known import NANO_DIR
from segment_duo.training.forward import decode, encode
from segment_duo.training.nano.batches import make_batch, synthetic_views
from segment_duo.training.nano.feed import Diet
from segment_duo.training.nano.part import export_part
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.refining import (
    EXCLUDE,
    SCORES,
    TRAINED,
    CorrectionRecipe,
    CorrectionTraining,
    correct,
)

NANO_CHECKPOINT = NANO_DIR / "nano.pt"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrections") / "pool"
    Pool(folder, slots=3).fill(first_seed=5)
    return folder


@pytest.fixture
def training(tmp_path: Path) -> CorrectionTraining:
    return CorrectionTraining(tmp_path, CorrectionRecipe(images=1, prompts=6, rounds=2), time.time(), NANO_CHECKPOINT)


@pytest.mark.parametrize(("boxes", "binary"), [(0.0, 0.0), (1.0, 1.0)])
def test_corrections_reach_what_reads_them_and_nothing_else(
    training: CorrectionTraining, pool: Path, boxes: float, binary: float
) -> None:
    rng = np.random.default_rng(1)
    batch = make_batch(rng, synthetic_views(Pool(pool).draw), 1, 8, 512, 512)
    recipe = CorrectionRecipe(rounds=3, boxes=boxes, binary=binary)
    figures: dict[str, float] = {}
    for loss, stats in correct(training.model, batch, rng, recipe):
        loss.backward()
        assert torch.isfinite(loss)
        figures |= stats
    assert list(figures) == ["iou1", "iou2", "iou3", "iou4"]
    if not boxes:
        assert figures["iou4"] > figures["iou1"]
    reached = {n for n, p in training.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert reached <= set(training.trained)
    assert {n for n in training.trained if n not in reached} <= {
        EXCLUDE
    }  # unless something was too much, no click excluded it
    scores = dict(training.model.named_parameters())[f"{SCORES}.weight"].grad
    assert scores is not None
    assert scores[0].any()
    assert not scores[1:].any()


def test_a_run_goes_on_where_it_stopped_and_keeps_first_clicks(
    training: CorrectionTraining, pool: Path, tmp_path: Path
) -> None:
    training.train(Diet(pool))
    again = CorrectionTraining(tmp_path, training.recipe, time.time(), NANO_CHECKPOINT)
    assert again.step == training.step >= 1
    export_part(tmp_path / "corrections.pt", tmp_path / "nano.pt")
    before, after = (torch.load(file, weights_only=True)["model"] for file in (NANO_CHECKPOINT, tmp_path / "nano.pt"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(TRAINED) for name in changed)

    rng = np.random.default_rng(2)
    batch = make_batch(rng, synthetic_views(Pool(pool).draw), 1, 6, 512, 512)
    clicks, ones = batch.clicks[:, None], torch.ones(len(batch.owner), 1, dtype=torch.long)
    answers = []
    for weights in (before, after):
        training.model.load_state_dict({name: value.float() for name, value in weights.items()})
        with torch.no_grad():
            features = encode(training.model, batch.images, batch.offsets)
            first = decode(training.model, features, batch.owner, clicks, ones)
            more = decode(training.model, features, batch.owner, clicks, ones, first.logits[:, 1:2])
        answers.append((first.logits[:, 1:], first.iou[:, 1:], more.logits[:, :1]))
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])
    assert not torch.equal(answers[0][2], answers[1][2])
