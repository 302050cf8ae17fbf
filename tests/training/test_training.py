"""Training steps, losses and nano's own training, on the real nano model. Fine-tuning: ``test_finetune.py``."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.models.known import NANO_DIR
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.training.clicks import corrections, coverage, first_click, loose_box
from segment_duo.training.forward import decode, encode, training_attention
from segment_duo.training.nano.auxiliary import Auxiliary, dense_targets
from segment_duo.training.nano.batches import make_batch, object_depth, synthetic_views
from segment_duo.training.nano.feed import Diet
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.run import NanoTraining, Recipe, export, joint_loss
from segment_duo.training.nano.scenes import generate
from segment_duo.training.objective import mask_loss, overlap
from tests.engine_stock import make_predictor


@pytest.fixture(scope="module")
def nano():  # type: ignore[no-untyped-def]
    return build_model(NANO_DIR / "nano.yaml", NANO_DIR / "nano.pt")


@pytest.mark.parametrize("clicks", [1, 3])
def test_forward_equals_the_stock_predictor(nano, clicks: int) -> None:  # type: ignore[no-untyped-def]
    predictor = make_predictor(nano)
    image = np.repeat(generate(1, (512, 512)).image[:, :, None], 3, axis=2)
    predictor.set_image(image)
    points = np.array([[100.0, 200.0], [300.0, 50.0], [20.0, 30.0]])[:clicks]
    labels = np.array([1, 0, 1])[:clicks]
    with torch.no_grad():
        batch = predictor._transforms(image)[None]
        features = encode(nano, batch, torch.zeros(1, 2, dtype=torch.long))
        out = decode(
            nano,
            features,
            torch.zeros(1, dtype=torch.long),
            torch.from_numpy(points)[None].float(),
            torch.from_numpy(labels)[None],
        )
    _, scores, low = predictor.predict(points, labels, multimask_output=True)
    np.testing.assert_allclose(out.logits[0, 1:].clamp(-32, 32).numpy(), low, atol=2e-3)
    np.testing.assert_allclose(out.iou[0, 1:].numpy(), scores, atol=1e-4)


def test_a_crop_decodes_where_it_lies_in_the_frame(nano) -> None:  # type: ignore[no-untyped-def]
    """Position encodings of a crop are those of its place: the same pixels at two places give different embeddings."""
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    with torch.no_grad():
        features = encode(nano, images, torch.tensor([[0, 0], [256, 128]]))
    assert features.embedding.shape == (2, 128, 16, 16)
    assert features.fine[0].shape == (2, 16, 64, 64)
    assert not torch.allclose(features.embedding[0], features.embedding[1])


def test_attention_for_training_gives_the_same_result_and_is_taken_back() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 16, generator=generator) for _ in range(3))
    fused = torch.nn.functional.scaled_dot_product_attention
    expected = fused(q, k, v)
    with training_attention():
        assert torch.nn.functional.scaled_dot_product_attention is not fused
        torch.testing.assert_close(torch.nn.functional.scaled_dot_product_attention(q, k, v), expected)
    assert torch.nn.functional.scaled_dot_product_attention is fused


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_mask_loss_prefers_the_right_mask(balance: float) -> None:
    target = torch.zeros(1, 1, 32, 32)
    target[..., 8:16, 8:16] = 1
    right = (target * 2 - 1) * 6
    shifted, empty, full = torch.roll(right, 3, -1), torch.full_like(right, -6), torch.full_like(right, 6)
    losses = mask_loss(torch.cat([right, shifted, empty, full], dim=1), target, balance)[0]
    assert losses.argmin() == 0
    assert losses[0] < losses[1]
    assert losses[1] < min(losses[2], losses[3])


def test_overlap_counts_pixels() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    logits = torch.stack([target[0, 0], 1 - target[0, 0], torch.ones(8, 8)])[None] - 0.5
    assert overlap(logits, target)[0].tolist() == [1.0, 0.0, 0.5]
    assert overlap(torch.full((1, 1, 4, 4), -1.0), torch.zeros(1, 1, 4, 4)).item() == 0.0


def test_corrections_click_into_the_error() -> None:
    target = torch.zeros(2, 1, 64, 64)
    target[:, :, 20:40, 20:40] = 1
    logits = torch.full((2, 1, 64, 64), -5.0)  # first: nothing found; second: far too much
    logits[1, :, 10:60, 10:60] = 5.0
    points, labels = corrections(logits, target)
    assert labels[:, 0].tolist() == [1, 0]
    assert points[0, 0].min() >= 80
    assert points[0, 0].max() < 160
    x, y = (points[1, 0] / 4).long().tolist()
    assert logits[1, 0, y, x] > 0
    assert target[1, 0, y, x] == 0


def test_first_prompts_lie_where_they_should() -> None:
    rng = np.random.default_rng(0)
    labels = generate(4, (256, 256), "discs").labels
    depth = object_depth(labels)
    mask = labels == 1
    x, y = first_click(rng, mask, depth, middle=1.0)
    assert depth[int(y), int(x)] == depth[mask].max()
    x, y = first_click(rng, mask, depth, middle=0.0)
    assert mask[int(y), int(x)]
    x0, y0, x1, y1 = loose_box(rng, mask, 0.0)
    ys, xs = np.nonzero(mask)
    assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max(), ys.max())


def test_a_batch_has_prompts_on_its_objects() -> None:
    scene = generate(6, (300, 300), "discs")
    rng = np.random.default_rng(1)
    batch = make_batch(
        rng, synthetic_views(lambda _rng: (scene.image, scene.labels)), images=2, prompts=6, side=128, frame=512
    )
    assert batch.images.shape == (2, 3, 128, 128)
    assert len(batch.owner) == 12
    assert batch.target.shape == (12, 1, 32, 32)
    assert bool((batch.offsets % 32 == 0).all())
    assert int(batch.offsets.max()) <= 384
    for owner, (x, y), present in zip(batch.owner, batch.clicks, batch.present, strict=True):
        assert (batch.labels[owner, int(y), int(x)] > 0) == bool(present)


def test_three_steps_of_joint_training_lower_the_loss(nano) -> None:  # type: ignore[no-untyped-def]
    model = build_model(NANO_DIR / "nano.yaml", NANO_DIR / "nano.pt").train()
    torch.manual_seed(0)
    auxiliary = Auxiliary(model.hidden_dim)
    scene = generate(6, (300, 300), "discs")
    batch = make_batch(
        np.random.default_rng(1), synthetic_views(lambda _rng: (scene.image, scene.labels)), 1, 6, 128, 512
    )
    sample = (batch, *dense_targets(batch.labels))
    optimizer = torch.optim.AdamW([*model.parameters(), *auxiliary.parameters()], lr=3e-4)
    losses = []
    for _ in range(4):
        loss, stats = joint_loss(model, auxiliary, sample, np.random.default_rng(2), balance=0.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert 0 <= stats["iou1"] <= 1


def test_a_run_goes_on_from_given_weights_and_resumes(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool", slots=2)
    pool.fill(first_seed=3)
    recipe = Recipe(images=1, prompts=4, frame_images=1, frame_prompts=4)
    with training_attention():
        run = NanoTraining(tmp_path, recipe, time.time() + 10, NANO_DIR / "nano.pt")
        before = run.step
        run.train(Diet(pool.folder))
    assert run.step > before
    resumed = NanoTraining(tmp_path, recipe, time.time(), None)
    assert resumed.step == run.step
    export(tmp_path, tmp_path / "out.pt")
    build_model(NANO_DIR / "nano.yaml", tmp_path / "out.pt")


def average_between_two(rank: int, folder: str) -> None:
    """Runs in each of two processes: gradients and progress of 1 and 3 become 2 in both."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2)
    run = NanoTraining(Path(folder), Recipe(), 0.0, NANO_DIR / "nano.pt", rank, processes=2)
    first, second = run.trained[:2]
    first.grad = torch.full_like(first, 1.0 + 2 * rank)
    if rank:
        second.grad = torch.ones_like(second)  # the other process did not use this weight
    assert run._agree(1.0 + 2 * rank) == 2.0
    assert first.grad is not None
    assert second.grad is not None
    assert bool((first.grad == 2.0).all())
    assert bool((second.grad == 0.5).all())
    Path(folder, f"done-{rank}").touch()
    torch.distributed.destroy_process_group()


def test_processes_that_train_together_average_their_gradients(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(average_between_two, (str(tmp_path),), nprocs=2)
    assert sorted(p.name for p in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def test_frames_replace_crops_in_the_course_of_a_run(tmp_path: Path) -> None:
    recipe = Recipe(frames_only=0.25)
    run = NanoTraining(tmp_path, recipe, 0.0)
    crop, frame = (recipe.images, recipe.prompts, 256), (recipe.frame_images, recipe.frame_prompts, 512)
    assert run._size(0.0, 0.0) == crop
    assert [run._size(0.375, chance) for chance in (0.49, 0.51)] == [frame, crop]
    assert run._size(0.75, 0.999) == frame


def test_coverage_is_the_share_of_each_low_res_pixel() -> None:
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :4, :2] = True
    assert coverage(mask)[0, 0].tolist() == [[0.5, 0.0], [0.0, 0.0]]
