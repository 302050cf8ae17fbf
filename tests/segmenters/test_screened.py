"""Screened runs: what is answered with is float32, and what margins rule out is not kept by exact runs either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import PromptArrays
from segment_duo.segmenters.sam2 import screened
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.candidates import Margins
from segment_duo.segmenters.sam2.machine import (
    SCREENING,
    half_precision,
    image_chunk_bytes,
    screening_precision,
)
from segment_duo.segmenters.sam2.nms import suppress
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.types import Mask
from tests.engine_stock import loose, picture, small_model, small_predictor


def close(mask: Mask, others: tuple[Mask, ...]) -> bool:
    """Whether a mask with these very scores (but for rounding) is among others."""
    return any(
        abs(m.area - mask.area) <= 2
        and abs((m.predicted_iou or 0) - (mask.predicted_iou or 0)) < 1e-4
        and abs((m.stability_score or 0) - (mask.stability_score or 0)) < 5e-3
        for m in others
    )


@pytest.fixture
def asked() -> AutoParameters:
    return replace(loose(), exact=False, points_per_side=12, box_nms_thresh=0.5)


@pytest.mark.parametrize(
    ("precision", "fields"),
    [
        ("float32", {}),
        ("bfloat16", {}),
        ("bfloat16", {"tile": 320, "halo": 40, "points_per_side": 10}),
        ("bfloat16", {"crop_n_layers": 1, "crop_n_points_downscale_factor": 4, "points_per_side": 10}),
    ],
)
def test_a_screened_run_keeps_the_masks_of_the_exact_one(
    monkeypatch: pytest.MonkeyPatch, asked: AutoParameters, precision: str, fields: dict[str, int]
) -> None:
    monkeypatch.setenv(SCREENING, precision)
    pixels = picture(240, 330, 3)
    asked = replace(asked, **fields)  # type: ignore[arg-type]
    predictor = Predictor(small_model())
    run = AutomaticMaskGenerator(predictor, asked).generate(pixels)
    exact = AutomaticMaskGenerator(predictor, replace(asked, exact=True)).generate(pixels)
    assert len(exact.masks) > 3
    found = [close(m, run.masks) for m in exact.masks]
    new = [not close(m, exact.masks) for m in run.masks]
    assert sum(found) >= 0.95 * len(found)
    assert sum(new) <= 0.05 * len(new)
    assert not exact.notes or not any("screened" in note for note in exact.notes)
    assert any("margins" in note for note in run.notes) == (precision == "bfloat16")


def test_other_thresholds_are_answered_by_the_same_screen(
    monkeypatch: pytest.MonkeyPatch, asked: AutoParameters
) -> None:
    monkeypatch.setenv(SCREENING, "bfloat16")
    pixels = picture(240, 320, 3)
    predictor = Predictor(small_model())
    embedding = predictor.embed(pixels)
    first = AutomaticMaskGenerator(predictor, asked).generate(pixels, embedding=embedding)
    stricter = replace(asked, pred_iou_thresh=asked.pred_iou_thresh + 0.02, box_nms_thresh=0.9)
    again = AutomaticMaskGenerator(predictor, stricter).generate(
        pixels, embedding=embedding, candidates=first.candidates
    )
    exact = AutomaticMaskGenerator(predictor, replace(stricter, exact=True)).generate(pixels, embedding=embedding)
    assert again.reused
    assert again.points == 0
    assert sum(close(m, again.masks) for m in exact.masks) >= 0.95 * len(exact.masks)
    few = replace(asked, points_per_side=3)
    for mine, theirs in ((few, replace(few, exact=True)), (replace(few, exact=True), few)):
        made = AutomaticMaskGenerator(predictor, mine).generate(pixels, embedding=embedding)
        other = AutomaticMaskGenerator(predictor, theirs)
        assert not other.generate(pixels, embedding=embedding, candidates=made.candidates).reused


def test_what_nms_may_keep_holds_whatever_it_keeps_within_the_margins() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (120, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(15, 40, (120, 2))], axis=1)
    scores = rng.uniform(0, 1, 120)
    margins = Margins(predicted_iou=0.02, overlap=0.0)
    certain = rng.random(120) < 0.7
    may = screened.undecided(boxes, scores, certain, 0.4, margins)
    assert 10 < may.sum() < 110
    for _ in range(30):
        there = certain | (rng.random(120) < 0.5)
        moved = scores + rng.uniform(-0.02, 0.02, 120)
        index = np.flatnonzero(there)
        kept = index[suppress(torch.from_numpy(boxes[index]), torch.from_numpy(moved[index]).float(), 0.4)]
        assert may[kept].all()


def test_without_margins_nms_is_decided() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], dtype=float)
    certain = np.ones(3, dtype=bool)
    sharp = screened.undecided(boxes, np.array([0.8, 0.9, 0.7]), certain, 0.5, Margins(0.0))
    assert sharp.tolist() == [False, True, True]
    tie = screened.undecided(boxes, np.array([0.8, 0.9, 0.7]), certain, 0.5, Margins(0.06))
    assert tie.all()
    unsure = screened.undecided(boxes, np.array([0.8, 0.9, 0.7]), ~certain, 0.5, Margins(0.0))
    assert unsure.all()


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [({}, None), ({"avx2": True}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], expected: torch.dtype | None
) -> None:
    cpu, official, nano = torch.device("cpu"), 2**20, 2**17
    monkeypatch.delenv(SCREENING, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert screening_precision(cpu, official) == expected
    assert screening_precision(cpu, nano) is None
    assert half_precision(torch.device("cuda")) == torch.bfloat16
    assert half_precision(torch.device("mps")) == torch.float16
    monkeypatch.setenv(SCREENING, "float32")
    assert screening_precision(cpu, official) is None
    monkeypatch.setenv(SCREENING, "bfloat16")
    assert screening_precision(cpu, nano) == torch.bfloat16


def test_chunks_are_as_large_as_the_smallest_second_level_cache_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 5}, raising=False)
    assert image_chunk_bytes(tmp_path) == 4 * 2**20
    for cpu, kib in ((0, 6144), (1, 4096), (7, 64)):
        for index, (level, size) in enumerate(((1, 48), (2, kib), (3, 300 * 1024))):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            (folder / "level").write_text(f"{level}\n")
            (folder / "size").write_text(f"{size}K\n")
    assert image_chunk_bytes(tmp_path) == 8 * 2**20


def test_lower_precision_is_named() -> None:
    assert "bfloat16" in " ".join(screened.notes(1, 2, Margins(0.1), torch.bfloat16))
    assert "bfloat16" not in " ".join(screened.notes(0, 2, None, torch.bfloat16))


@pytest.mark.parametrize("refining", [False, True])
def test_the_reassociated_decoder_computes_the_same_function(refining: bool) -> None:
    exact, other = small_predictor(), Predictor(small_model(), reassociate=True)
    embedding = exact.embed(picture(200, 260))
    points = torch.tensor([[[100.0, 200.0]], [[300.0, 210.0]], [[20.0, 30.0]]])
    sparse = exact.decoder.embed_prompts(points, torch.ones(3, 1, dtype=torch.int))
    generator = torch.Generator().manual_seed(2)
    mask_input = (
        torch.randn(3, 1, *exact.decoder.prompts.mask_input_size, generator=generator) * 5 if refining else None
    )
    a = exact.decoder.decode(exact.prepare(embedding, 3), sparse, mask_input=mask_input)
    image = other.prepare(embedding, 3)
    b = other.decoder.decode(image, sparse, mask_input=mask_input)
    assert torch.allclose(a.iou, b.iou, atol=1e-4)
    assert torch.allclose(a.masks, b.masks, atol=1e-3)
    assert not torch.equal(a.masks, b.masks)
    some = other.decoder.decode(image, sparse, mask_input=mask_input, wanted=lambda iou: torch.arange(len(iou)) != 1)
    assert some.rows.tolist() == [0, 2]
    assert torch.equal(some.masks, b.masks[[0, 2]])


@pytest.mark.parametrize("reassociate", [False, True])
def test_a_click_gives_the_same_mask_every_time(reassociate: bool) -> None:
    """What the prompts of an image share must not change: a single prompt has its very shape."""
    exact, other = small_predictor(), Predictor(small_model(), reassociate=reassociate)
    embedding = exact.embed(picture(200, 260))
    asked = PromptArrays(np.array([[60, 90.0]], np.float32), np.array([1]))
    first, second, third = (other.predict(embedding, [asked])[0] for _ in range(3))
    stock = exact.predict(embedding, [asked])[0]
    for a, b, c, d in zip(first, second, third, stock, strict=True):
        assert np.array_equal(a.low_res, b.low_res)
        assert np.array_equal(a.low_res, c.low_res)
        assert np.allclose(a.low_res, d.low_res, atol=1e-3)


@pytest.mark.parametrize("reassociate", [False, True])
def test_the_decoder_runs_in_half_precision(reassociate: bool) -> None:
    """By autocast, as on an accelerator, and with image tokens in bfloat16, as on a CPU: close to exact, and not exact."""
    exact = small_predictor()
    half = Predictor(small_model(), half=torch.bfloat16, reassociate=reassociate)
    assert half.autocast == (None if reassociate else torch.bfloat16)
    embedding = exact.embed(picture(200, 260))
    asked = [PromptArrays(np.array([[x, 90.0]], np.float32), np.array([1])) for x in (60, 100, 140)]
    for a, b in zip(exact.predict(embedding, asked), half.predict(embedding, asked), strict=True):
        assert b[0].low_res.dtype == np.float32
        assert abs(a[0].predicted_iou - b[0].predicted_iou) < 0.05
        assert a[0].predicted_iou != b[0].predicted_iou
