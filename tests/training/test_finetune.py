"""Fine-tuning: what it sees of a picture, how it scores a model, and whole runs on the real nano model."""

from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segment_duo.errors import AlreadyExists, InputError, UsageError
from segment_duo.masks.rle import decode, encode, encode_crop
from segment_duo.models.known import NANO_DIR
from segment_duo.models.registry import resolve_model
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.training.clicks import coverage
from segment_duo.training.finetune import FineTuning, fine_tune
from segment_duo.training.nano.scenes import generate
from segment_duo.training.options import BaseModel, FineTuneOptions, TrainingProgress
from segment_duo.training.selection import better
from segment_duo.training.validation import (
    Checked,
    Found,
    Scores,
    at_thresholds,
    choose_thresholds,
    find_all,
    measure,
    overlap_matrix,
    works_at_several_scales,
)
from segment_duo.training.views import LabelledPicture, ObjectMask, View, Window, coverages, draw_window, shade, whole
from tests.cli_shell import Shell
from tests.engine_fixtures import Home

OWN = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.4, "box_nms_thresh": 0.15}
BASE = BaseModel(
    "nano", str(NANO_DIR / "nano.yaml"), str(NANO_DIR / "nano.pt"), "0" * 64, {**OWN, "points_per_side": 5}
)
QUICK = FineTuneOptions(steps=4, check_every=2, prompts=4)


@pytest.fixture(scope="module")
def nano():  # type: ignore[no-untyped-def]
    return build_model(NANO_DIR / "nano.yaml", NANO_DIR / "nano.pt")


def picture(seed: int, size: tuple[int, int] = (192, 192)) -> LabelledPicture:
    scene = generate(seed, size, "discs")
    image = np.repeat(scene.image[:, :, None], 3, axis=2)
    return LabelledPicture.of(image, scene.masks, f"{seed}.png", hashlib.sha256(scene.image.tobytes()).hexdigest())


def pictures(count: int) -> list[LabelledPicture]:
    return [picture(seed) for seed in range(count)]


# -- views ------------------------------------------------------------------------------------------------------------


def blobs(seed: int, height: int, width: int) -> list[np.ndarray]:
    """Overlapping ellipses and specks, bool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = []
    for _ in range(6):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(1, height / 3), rng.uniform(1, width / 3)
        out.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
    return [m for m in out if m.any()]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 90), st.integers(20, 90))
def test_an_object_keeps_its_pixels_and_loses_the_banner_s(seed: int, height: int, width: int) -> None:
    for mask in blobs(seed, height, width):
        for rows in (None, height // 2):
            o = ObjectMask.of_rle(encode(mask), rows)
            expected = mask if rows is None else mask[:rows]
            if o is None:
                assert not expected.any()
                continue
            back = np.zeros_like(expected)
            back[o.top : o.top + o.height, o.left : o.left + o.width] = o.pixels
            assert (back == expected).all()
            assert o.area == expected.sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_a_view_shows_objects_where_its_pixels_do(seed: int) -> None:
    """Crops and coverages are those of the whole mask, cut, resampled and turned."""
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(40, 120, 2))
    masks = blobs(seed, height, width)
    image = np.zeros((height, width, 3), np.uint8)
    one = LabelledPicture.of(image, masks, "", "")
    side = 64
    window = draw_window(rng, one, side)
    view = View(one, window, side)
    x0, y0, x1, y1 = window.box
    rows = y0 + ((np.arange(side) + 0.5) * (y1 - y0) / side).astype(int)
    columns = x0 + ((np.arange(side) + 0.5) * (x1 - x0) / side).astype(int)
    shown = []
    for i, mask in enumerate(masks):
        full = mask[rows[:, None], columns[None]]
        full = full.T if window.transposed else full
        full = full[:, ::-1] if window.mirrored_x else full
        full = full[::-1] if window.mirrored_y else full
        crop = view.crop(i)
        if crop is None:
            assert full.sum() < 16
            continue
        back = np.zeros((side, side), bool)
        back[crop.y : crop.y + crop.pixels.shape[0], crop.x : crop.x + crop.pixels.shape[1]] = crop.pixels
        assert (back == full).all()
        for middle in (0.0, 1.0):
            x, y = crop.click(rng, middle)
            assert full[int(y), int(x)]
        shown.append((crop, full))
    if shown:
        pooled = coverage(np.stack([full for _, full in shown])).numpy()
        np.testing.assert_allclose(coverages([crop for crop, _ in shown], side), pooled)


@pytest.mark.parametrize("turns", [(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)])
def test_pixels_and_background_clicks_are_turned_alike(turns: tuple[bool, bool, bool]) -> None:
    mask = np.zeros((64, 96), bool)
    mask[5:30, 50:90] = True
    one = LabelledPicture.of(np.repeat(mask[:, :, None], 3, 2).astype(np.uint8) * 255, [mask], "", "")
    view = View(one, Window((32, 0, 96, 64), *turns), 64)
    crop = view.crop(0)
    assert crop is not None
    shown = view.pixels()[:, :, 0] > 127
    assert shown[crop.y : crop.y + crop.pixels.shape[0], crop.x : crop.x + crop.pixels.shape[1]].all()
    assert shown.sum() == crop.pixels.sum() == 25 * 40
    clicks = view.background(np.random.default_rng(0), 30)
    assert len(clicks) == 30
    assert not any(shown[int(y), int(x)] for x, y in clicks)
    assert View(replace(one, complete=False), whole(one), 64).background(np.random.default_rng(0), 5) == []


def test_windows_are_whole_pictures_and_parts_down_to_half_the_input() -> None:
    rng = np.random.default_rng(0)
    large = picture(3, (700, 1024))
    windows = [draw_window(rng, large, 512) for _ in range(200)]
    whole_ones = [w for w in windows if w.box == (0, 0, 1024, 700)]
    assert 70 < len(whole_ones) < 130
    sides = [w.box[2] - w.box[0] for w in windows if w.box != (0, 0, 1024, 700)]
    assert min(sides) < 400
    assert min(sides) > 150
    assert all(View(large, w, 512).candidates.size for w in windows)


def test_shading_keeps_what_is_bright_bright() -> None:
    image = np.zeros((64, 64, 3), np.uint8) + 60
    image[20:40, 20:40] = 180
    for seed in range(20):
        out = shade(np.random.default_rng(seed), image)
        assert out.dtype == np.uint8
        assert out[25:35, 25:35].mean() > out[:10].mean() + 20


def test_twelve_hundred_objects_take_a_few_megabytes() -> None:
    """One bit a pixel of their rectangles, and distance maps of single rectangles: no array of the picture's size for each."""
    rng = np.random.default_rng(0)
    height, width, count = 712, 1024, 1200

    square = np.ones((14, 14), bool)
    places = [(int(rng.integers(width - 14)), int(rng.integers(height - 14))) for _ in range(count)]
    codes = [encode_crop(square, x, y, height, width) for x, y in places]
    tracemalloc.start()
    try:
        objects = [o for o in map(ObjectMask.of_rle, codes) if o is not None]
        one = LabelledPicture(np.zeros((height, width, 3), np.uint8), objects, "", "")
        view = View(one, draw_window(rng, one, 512), 512)
        crops = [c for c in map(view.crop, view.candidates[:16].tolist()) if c is not None]
        for crop in crops:
            crop.click(rng, 1.0)
        view.background(rng, 4)
        coverages(crops, 512)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(one.objects) == count
    assert peak < 30e6


# -- validation -------------------------------------------------------------------------------------------------------


def test_overlaps_are_those_of_whole_masks() -> None:
    truths, found = blobs(1, 60, 80), blobs(2, 60, 80)
    one = LabelledPicture.of(np.zeros((60, 80, 3), np.uint8), truths, "", "")
    objects = [o for o in map(ObjectMask.of, found) if o is not None]
    expected = [[(a & b).sum() / (a | b).sum() for b in truths] for a in found]
    np.testing.assert_allclose(overlap_matrix(objects, one), expected, rtol=1e-6)


@pytest.mark.parametrize("containment", [1.0, 0.3])
def test_what_the_checks_count_is_what_the_generator_gives(nano, containment: float) -> None:  # type: ignore[no-untyped-def]
    """Thresholds applied to what was let through give the masks that ``auto`` gives with them."""
    one = picture(5)
    defaults = {"points_per_side": 8, "containment_thresh": containment}
    found = find_all(nano, Checked(one, np.arange(len(one.objects))), defaults)
    for thresholds in (OWN, {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.6, "box_nms_thresh": 0.5}):
        run = AutomaticMaskGenerator(Predictor(nano), AutoParameters(**defaults, **thresholds)).generate(one.image)
        masks = [decode(m.rle) for m in run.masks]
        truths = [np.zeros(one.image.shape[:2], bool) for _ in one.objects]
        for truth, o in zip(truths, one.objects, strict=True):
            truth[o.top : o.top + o.height, o.left : o.left + o.width] = o.pixels
        hit = {
            j
            for m in masks
            if (j := int(np.argmax([(m & t).sum() / (m | t).sum() for t in truths]))) is not None
            and (m & truths[j]).sum() / (m | truths[j]).sum() >= 0.5
        }
        result = at_thresholds([found], thresholds)
        assert measure(nano, [Checked(one, np.arange(len(one.objects)))], defaults, [thresholds]) == [result]
        assert len(masks) > 3
        assert result.precision == pytest.approx(len(hit) / len(masks))
        assert result.recall == pytest.approx(len(hit) / len(truths))


def test_a_picture_larger_than_the_input_is_checked_at_both_scales(nano) -> None:  # type: ignore[no-untyped-def]
    one = picture(4, (400, 660))
    checked = [Checked(one, np.arange(len(one.objects)))]
    defaults = {"points_per_side": 8, "scale": "both"}
    assert works_at_several_scales(nano, checked, defaults)
    assert not works_at_several_scales(nano, checked, {})
    assert not works_at_several_scales(nano, [Checked(picture(5), np.arange(1))], defaults)
    strict = {**OWN, "pred_iou_thresh": 0.7}
    results = measure(nano, checked, defaults, [strict, OWN])
    assert [r.thresholds for r in results] == [strict, OWN]
    run = AutomaticMaskGenerator(Predictor(nano), AutoParameters(**defaults, **strict)).generate(one.image)
    assert any("native size" in note for note in run.notes)
    hits = results[0].precision * len(run.masks)
    assert hits == pytest.approx(round(hits))
    assert results[0].recall == pytest.approx(hits / len(one.objects))


def found_masks(scores: list[float], real: list[float], stability: list[float] | None = None) -> Found:
    """Masks far from each other; each has this IoU with an object of its own."""
    n = len(scores)
    left = np.arange(n, dtype=np.float32) * 100
    boxes = np.stack([left, 0 * left, left + 50, 0 * left + 50], axis=1)
    stable = np.array(stability or [0.9] * n, np.float32)
    overlaps = np.diag(np.array(real, np.float32))
    apart = [frozenset[int]()] * n
    return Found(np.array(scores, np.float32), stable, boxes, overlaps, np.ones(n, bool), np.ones(n, bool), apart)


def test_thresholds_are_chosen_that_tell_good_masks_from_bad() -> None:
    found = found_masks([0.9, 0.42, 0.41, 0.3, 0.28, 0.27], [0.8, 0.8, 0.8, 0.1, 0.1, 0.1])
    own = at_thresholds([found], OWN)
    assert (own.precision, own.recall) == (1.0, pytest.approx(1 / 6))
    best = choose_thresholds([found], own, OWN)
    assert (best.precision, best.recall) == (1.0, 0.5)
    assert 0.3 <= best.thresholds["pred_iou_thresh"] <= 0.4


def test_a_mask_in_a_better_one_counts_only_where_the_better_one_fails_a_threshold() -> None:
    found = found_masks([0.9, 0.6, 0.8], [0.8, 0.8, 0.8], stability=[0.5, 0.9, 0.9])
    found = replace(found, nested=[frozenset({1}), frozenset({0}), frozenset()])
    assert at_thresholds([found], {**OWN, "stability_score_thresh": 0.4}).recall == pytest.approx(2 / 3)
    both = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}
    assert at_thresholds([found], both).recall == pytest.approx(2 / 3)  # the better one is not there
    alone = at_thresholds([replace(found, nested=[frozenset[int]()] * 3)], {**both, "stability_score_thresh": 0.4})
    assert alone.recall == 1.0


def test_thresholds_stay_where_little_is_to_be_gained() -> None:
    found = found_masks([0.9] * 99 + [0.48], [0.8] * 100)
    assert choose_thresholds([found], None, OWN).thresholds == OWN
    assert choose_thresholds([], None, OWN).thresholds == OWN


def test_thresholds_that_one_picture_prefers_by_chance_are_not_taken() -> None:
    """Of 30 objects one more is found at 0.4, and one at another overlap: that is no reason to leave the model's own."""
    found = found_masks([0.9] * 29 + [0.45], [0.8] * 30)
    assert choose_thresholds([found], None, OWN).thresholds == OWN
    # With a third of them below the threshold it is one, and the nearest one that has them is taken.
    found = found_masks([0.9] * 20 + [0.45] * 10, [0.8] * 30)
    best = choose_thresholds([found], None, OWN)
    assert best.recall == 1.0
    assert best.thresholds == {**OWN, "pred_iou_thresh": 0.4}


def test_a_trade_of_precision_for_recall_is_not_made_for_little() -> None:
    """0.2 finds five objects more than 0.4 and five wrong masks: a better F1 by a hair must not cost precision."""
    found = found_masks([0.9] * 20 + [0.45] * 10 + [0.25] * 10, [0.9] * 35 + [0.0] * 5)
    own = at_thresholds([found], OWN)
    best = choose_thresholds([found], own, OWN)
    assert best.precision >= own.precision - 0.02
    assert best.recall > own.recall


def test_only_objects_kept_apart_count(nano) -> None:  # type: ignore[no-untyped-def]
    found = found_masks([0.9, 0.9, 0.9, 0.9], [0.8, 0.8, 0.8, 0.0])
    apart = replace(found, counted=np.array([True, False, False, False]))
    result = at_thresholds([apart], OWN)
    assert (result.precision, result.recall) == (0.5, 1.0)  # the wrong mask counts, those of objects trained on do not
    strip = replace(apart, inside=np.array([True, True, True, False]))
    assert at_thresholds([strip], OWN).precision == 1.0
    one = picture(5)
    half = Checked(one, np.flatnonzero(one.boxes[:, 0] >= 96), (96, 0, 192, 192))
    seen = find_all(nano, half, {"points_per_side": 6})
    middles = (seen.boxes[seen.inside, 0] + seen.boxes[seen.inside, 2]) / 2
    assert len(middles)
    assert (middles >= 96).all()


def scores(click: float, precision: float, recall: float) -> Scores:
    return Scores(click, click, precision, recall, 0.3, OWN)


def test_a_state_that_loses_clicks_or_automatic_masks_is_nobetter() -> None:
    base = scores(0.5, 0.6, 0.6)
    assert better(scores(0.6, 0.6, 0.6), base, base, 0.01)
    assert better(scores(0.5, 0.7, 0.7), base, base, 0.01)
    assert better(scores(0.5, 0.55, 0.9), base, base, 0.01)
    assert not better(scores(0.9, 0.55, 0.55), base, base, 0.01)
    assert not better(scores(0.45, 0.95, 0.95), base, base, 0.01)
    assert not better(scores(0.505, 0.6, 0.6), base, base, 0.01)


# -- whole runs -------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_writes_a_model_that_loads_and_a_card(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(progress: TrainingProgress) -> None:
        if progress.phase == "train" and progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        fine_tune(BASE, pictures(3), tmp_path, "mine", QUICK, kill)
    assert (tmp_path / ".mine.partial" / "state.pt").exists()
    seen: list[TrainingProgress] = []
    result = fine_tune(BASE, pictures(3), tmp_path, "mine", QUICK, seen.append)
    assert [p.step for p in seen if p.phase == "train"] == [3, 4]
    assert {p.phase for p in seen} == {"prepare", "train", "validate"}
    assert next(p for p in seen if p.phase == "train").before == result.before
    assert result.steps == 4
    assert result.folder == tmp_path / "mine"
    assert sorted(p.name for p in result.folder.iterdir()) == ["card.json", "model.pt", "model.yaml"]
    assert not (tmp_path / ".mine.partial").exists()
    build_model(result.folder / "model.yaml", result.folder / "model.pt")
    card = json.loads((result.folder / "card.json").read_text())
    assert card["base"] == {"id": "nano", "sha256": "0" * 64, "auto_defaults": dict(BASE.auto_defaults)}
    assert sorted(d["name"] for d in card["data"]) == ["0.png", "1.png", "2.png"]
    assert sorted(d["role"] for d in card["data"]) == ["training", "training", "validation"]
    assert set(card["licence"]) == {"weights", "data", "note"}
    assert card["auto_defaults"] == {**BASE.auto_defaults, **result.after.thresholds}
    assert card["scores"]["before"] == result.before.record()
    assert card["scores"]["after"] == result.after.record()
    assert card["scores"]["gained"] == result.gained
    with pytest.raises(AlreadyExists):
        fine_tune(BASE, pictures(1), tmp_path, "mine", QUICK)


def test_where_nothing_is_gained_the_base_is_kept(tmp_path: Path) -> None:
    """A rate that wrecks the model: the result is the base, with its own thresholds, and says so."""
    result = fine_tune(BASE, pictures(3), tmp_path, "mine", replace(QUICK, steps=1, check_every=1, lr=5.0))
    assert not result.gained
    assert result.after == result.before
    base, written = (build_model(BASE.config, p).state_dict() for p in (BASE.checkpoint, result.folder / "model.pt"))
    assert all(torch.equal(base[name], written[name]) for name in base)
    card = json.loads((result.folder / "card.json").read_text())
    assert card["auto_defaults"] == dict(BASE.auto_defaults)
    assert card["scores"]["gained"] is False


def test_control_c_keeps_the_best_so_far(tmp_path: Path) -> None:
    def stop(progress: TrainingProgress) -> None:
        if progress.phase == "train" and progress.step == 1:
            raise KeyboardInterrupt

    result = fine_tune(BASE, pictures(3), tmp_path, "mine", replace(QUICK, steps=50), stop)
    assert result.ended == "stopped by the user"
    assert result.steps == 1
    build_model(result.folder / "model.yaml", result.folder / "model.pt")


@pytest.mark.parametrize("full", [False, True])
def test_full_training_changes_the_encoder_and_decoder_only_does_not(tmp_path: Path, full: bool) -> None:
    before = build_model(BASE.config, BASE.checkpoint).state_dict()
    model = build_model(BASE.config, BASE.checkpoint)
    run = FineTuning(model, BASE, pictures(1), replace(QUICK, full=full, lr=1e-3), tmp_path)
    run._step()
    run._step()
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert any(n.startswith("sam_mask_decoder.") for n in changed)
    assert any(n.startswith("image_encoder.") for n in changed) == full


def test_finetune_lowers_its_loss(tmp_path: Path) -> None:
    model = build_model(BASE.config, BASE.checkpoint)
    run = FineTuning(model, BASE, pictures(1), replace(QUICK, steps=99, lr=1e-3), tmp_path)
    seen = run.draws.view(0)
    run.draws.view = lambda step: seen  # the same view throughout, other prompts
    losses = []
    for _ in range(16):
        run._step()
        losses.append(run.loss)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_the_base_s_answers_on_scenes_are_kept(tmp_path: Path) -> None:
    """The replay pulls weights that have moved back to the base's answers."""
    run = FineTuning(build_model(BASE.config, BASE.checkpoint), BASE, pictures(1), replace(QUICK, lr=1e-3), tmp_path)
    run._ask_base()
    assert run.scenes
    run.scenes = run.scenes[:1]
    at_base = float(run._replay().detach())
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in run.trained:
            parameter.add_(torch.randn_like(parameter) * 0.1 * parameter.std())
    moved = run._replay()
    assert float(moved.detach()) > at_base
    moved.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in run.trained:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad * 1e-3)
    assert float(run._replay().detach()) < float(moved.detach())


def test_objects_kept_apart_in_one_picture_are_never_prompted(tmp_path: Path) -> None:
    one = picture(3, (192, 256))
    run = FineTuning(build_model(BASE.config, BASE.checkpoint), BASE, [one], replace(QUICK, val_split=0.4), tmp_path)
    (checked,) = run.checked
    assert checked.strip is not None
    assert 0 < len(checked.objects) < len(one.objects)
    view = View(one, whole(one), run.side)
    clicks = [c for _ in range(30) for c in run.draws.clicks(view)[1]]
    assert clicks
    apart = np.zeros((run.side, run.side), bool)
    for crop in filter(None, map(view.crop, checked.objects.tolist())):
        apart[crop.y : crop.y + crop.pixels.shape[0], crop.x : crop.x + crop.pixels.shape[1]] |= crop.pixels
    assert not any(apart[int(y), int(x)] for x, y in clicks)


def test_the_picture_kept_apart_has_as_many_objects_as_most(tmp_path: Path) -> None:
    few = replace(picture(1), objects=picture(1).objects[:1], name="few")
    run = FineTuning(build_model(BASE.config, BASE.checkpoint), BASE, [few, *pictures(4)], QUICK, tmp_path)
    assert [c.picture.name for c in run.checked] != ["few"]
    assert len(run.training) == 4


def test_finetune_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(InputError, match="no mask"):
        fine_tune(BASE, [LabelledPicture(image, [], "a", "0")], tmp_path, "mine")
    speck = np.zeros((2000, 2000), bool)
    speck[5, 5] = True
    with pytest.raises(InputError, match="too small"):
        fine_tune(BASE, [LabelledPicture.of(np.zeros((2000, 2000, 3), np.uint8), [speck], "a", "0")], tmp_path, "mine")
    for name in ("../mine", ".mine", "", "a/b"):
        with pytest.raises(UsageError, match="cannot be the name"):
            fine_tune(BASE, pictures(1), tmp_path, name)
    with pytest.raises(UsageError):
        FineTuneOptions(steps=0)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(home: Home, tmp_path: Path) -> tuple[Shell, Home]:
    """A shell with a home of its own, where a model with a coarse grid makes checks quick."""
    folder = home.paths.models_dir / "quick"
    folder.mkdir(parents=True)
    shutil.copy(NANO_DIR / "nano.yaml", folder / "model.yaml")
    shutil.copy(NANO_DIR / "nano.pt", folder / "model.pt")
    (folder / "card.json").write_text(json.dumps({"base": {"id": "nano"}, "auto_defaults": dict(BASE.auto_defaults)}))
    work = tmp_path / "work"
    work.mkdir()
    return Shell(work, home.environment | {"SEGDUO_DEVICE": "cpu", "NO_COLOR": "1"}), home


def label_image(shell: Shell, keep: int | None = None) -> None:
    """The four discs' labels as a saved set of ``a.png``, or the first ``keep`` of them."""
    from tests.cli_shell import DISCS

    y, x = np.mgrid[:124, :180]
    labels = np.zeros((124, 180), np.uint8)
    for number, (cx, cy, radius) in enumerate(DISCS[:keep], start=1):
        labels[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = number
    Image.fromarray(labels).save(shell.folder / "labels.png")
    shell.run("masks", "import", "a.png", "labels.png").ok()


def test_train_refuses_a_stray_set_and_trains_on_the_whole_one(own: tuple[Shell, Home]) -> None:
    shell, home = own
    shell.image("a.png")
    label_image(shell)
    label_image(shell, keep=1)
    arguments = ("train", "a.png", "--name", "mine", "--base", "quick", "--steps", "1")
    refused = shell.run(*arguments)
    assert refused.code == 7
    assert "holds 1 masks" in refused.stderr
    assert "--version" in refused.stderr
    assert not (home.paths.models_dir / "mine").exists()
    done = shell.run(*arguments, "--version", "0", "--json").ok()
    record = done.json
    assert set(record["before"]) == {"one_click", "three_clicks", "precision", "recall", "f1", "f75"}
    card = json.loads((home.paths.models_dir / "mine" / "card.json").read_text())
    assert card["data"][0]["masks"] == 4
    from segment_duo.config import Config

    chosen: Mapping[str, object] = resolve_model(Config(), home.paths, "mine").auto_defaults
    assert {k: chosen[k] for k in OWN} == record["thresholds"]
