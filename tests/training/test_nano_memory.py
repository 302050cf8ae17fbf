"""Training of nano's memory: clips, what is chosen of them, and that nothing else than the memory changes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.models.known import NANO_DIR
from segment_duo.training.forward import encode, normalize
from segment_duo.training.nano.augment import Cutout
from segment_duo.training.nano.clips import SIDE, Clip, clip, clips_of
from segment_duo.training.nano.memory import (
    ClipDiet,
    MemoryRecipe,
    MemoryTraining,
    choose,
    export_memory,
    follow,
)
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.weights import MEMORY

NANO_CHECKPOINT = NANO_DIR / "nano.pt"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "pool"
    Pool(folder, slots=3).fill(first_seed=5)
    return folder


@pytest.fixture
def training(pool: Path, tmp_path: Path) -> MemoryTraining:
    return MemoryTraining(tmp_path, MemoryRecipe(clips=1, followed=4), time.time() + 1, NANO_CHECKPOINT)


def _discs() -> Clip:
    """Two frames: a disc that stays, one that vanishes, a speck, and a slab over half of the picture."""
    labels = np.zeros((2, SIDE, SIDE), np.int32)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels[:, :260] = 4
    labels[:, (y - 400) ** 2 + (x - 100) ** 2 < 20**2] = 1
    labels[0, (y - 400) ** 2 + (x - 300) ** 2 < 20**2] = 2
    labels[:, 450:454, 450:454] = 3
    return Clip(np.zeros((2, SIDE, SIDE, 3), np.uint8), labels)


def test_objects_to_follow_are_neither_specks_nor_half_of_the_picture() -> None:
    task = choose(np.random.default_rng(0), _discs(), most=9)
    assert task is not None
    middles = sorted(tuple(int(v) for v in np.argwhere(mask).mean(0).round()) for mask in task.masks)
    assert middles == [(400, 100), (400, 300)]
    assert sorted(task.seen.T.tolist()) == [[True, False], [True, True]]
    for mask, (cx, cy) in zip(task.masks, task.clicks.tolist(), strict=True):
        assert mask[int(cy), int(cx)]


def test_nothing_to_follow_is_told() -> None:
    empty = Clip(np.zeros((2, SIDE, SIDE, 3), np.uint8), np.zeros((2, SIDE, SIDE), np.int32))
    assert choose(np.random.default_rng(0), empty, most=3) is None


def test_labels_move_with_the_picture() -> None:
    """Bright discs on black stay bright under their labels in every frame, whatever the camera does."""
    grey = np.zeros((SIDE, SIDE), np.float32)
    labels = np.zeros((SIDE, SIDE), np.int32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number, (cy, cx) in enumerate([(150, 200), (260, 260), (330, 180)], 1):
        inside = (y - cy) ** 2 + (x - cx) ** 2 < 30**2
        grey[inside], labels[inside] = 1.0, number
    contrasts, moved = [], 0
    for seed in range(8):
        film = clip(np.random.default_rng(seed), grey, labels, [], 4)
        for frame, truth in zip(film.frames[..., 0].astype(float), film.labels, strict=True):
            # Exposure may invert: the sign is the clip's.
            contrasts.append(abs(frame[truth > 0].mean() - frame[truth == 0].mean()) / (frame.std() + 1e-9))
        moved += not np.array_equal(film.labels[0], film.labels[-1])
        assert set(np.unique(film.labels)) <= {0, 1, 2, 3}
    assert min(contrasts) > 1.0
    assert moved >= 5


def test_movers_lie_over_the_picture_under_numbers_of_their_own() -> None:
    y, x = np.mgrid[:40, :40]
    piece = Cutout(np.ones((40, 40), np.float32), (y - 20) ** 2 + (x - 20) ** 2 < 15**2)
    grey, labels = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.int32)
    numbers = set()
    for seed in range(6):
        numbers |= set(np.unique(clip(np.random.default_rng(seed), grey, labels, [piece], 3).labels).tolist())
    assert len(numbers) > 3  # background and several movers


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_reaches_the_memory_and_nothing_else(training: MemoryTraining, pool: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    training._begin(ClipDiet(pool), rng)
    draw = clips_of(Pool(pool), None, 0.0)
    task = None
    while task is None:
        task = choose(rng, draw(rng, 3), 2)
    loss, stats = follow(training.model, training.probe, task, rng, by_truth=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert stats["occlusion"] > 0
    reached = {n for n, p in training.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert {n.split(".")[0] for n in reached} >= {"memory_attention", "memory_encoder", "maskmem_tpos_enc"}
    assert all(n.startswith(MEMORY) or "pred_obj_score_head" in n for n in reached)


def test_the_memory_begins_as_one_that_changes_little(training: MemoryTraining, pool: Path) -> None:
    """Through the last normalisation alone features come out much as they went in."""
    rng = np.random.default_rng(0)
    training._begin(ClipDiet(pool), rng)
    model = training.model
    frames = torch.from_numpy(clips_of(Pool(pool), None, 0.0)(rng, 1).frames)
    with torch.no_grad():
        embedding = encode(model, normalize(frames), torch.zeros(1, 2, dtype=torch.long)).embedding
        positions = model.image_encoder.neck.position_encoding(embedding).flatten(2)[0].T
        wanted = embedding.flatten(2)[0].T
        found = model.memory_attention.norm(wanted - model.no_mem_embed[0] + 0.1 * positions)
    error = (found - wanted).pow(2).mean() / wanted.var()
    assert error < 0.5


def test_a_run_goes_on_where_it_stopped_and_keeps_what_images_need(pool: Path, tmp_path: Path) -> None:
    recipe = MemoryRecipe(clips=1, followed=4)
    first = MemoryTraining(tmp_path, recipe, time.time(), NANO_CHECKPOINT, afresh=True)
    assert first.begins
    first.train(ClipDiet(pool))
    again = MemoryTraining(tmp_path, recipe, time.time(), NANO_CHECKPOINT)
    assert again.step == first.step >= 1
    assert again.afresh
    assert not again.begins

    export_memory(tmp_path, tmp_path / "nano.pt")
    before = torch.load(NANO_CHECKPOINT, weights_only=True)["model"]
    after = torch.load(tmp_path / "nano.pt", weights_only=True)["model"]
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(MEMORY) or "pred_obj_score_head" in name for name in changed)


def test_the_memory_of_the_base_is_gone_on_from_past_its_first_lessons(pool: Path, tmp_path: Path) -> None:
    run = MemoryTraining(
        tmp_path, MemoryRecipe(clips=1, followed=4, lr=0.0, matrix_lr=0.0), time.time(), NANO_CHECKPOINT
    )
    run.train(ClipDiet(pool))
    export_memory(tmp_path, tmp_path / "nano.pt")
    before = torch.load(NANO_CHECKPOINT, weights_only=True)["model"]
    after = torch.load(tmp_path / "nano.pt", weights_only=True)["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (run._lesson(0.0), run._lesson(0.9)) == (0.6, 0.9)
