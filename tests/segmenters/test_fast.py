"""The fast mode: fewer prompts, written down, and off an accelerator nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segment_duo.segmenters.base import PromptArrays
from segment_duo.segmenters.sam2.adaptive import Coverage, half_precision, levels, notes
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.candidates import CropCandidates, GridCandidate
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.segmenters.sam2.upsample import FilterValues, LowRes
from tests.engine_stock import loose, picture, small_model, small_predictor


def test_levels_share_the_grid_from_coarse_to_fine() -> None:
    from sam2.utils.amg import build_point_grid

    grid = build_point_grid(8) * np.array([[300, 200]])
    parts = list(levels(grid))
    assert [len(p) for p in parts] == [4, 16, 44]
    assert {tuple(p) for part in parts for p in part} == {tuple(p) for p in grid}


def disc(x: float, y: float, radius: float, prompt: tuple[float, float], *, stability: float = 1.0) -> GridCandidate:
    """A candidate whose mask is a disc, on a 64 x 64 low-res grid of a crop of 128 x 128 pixels."""
    rows, cols = np.mgrid[:64, :64]
    logits = torch.from_numpy(radius - np.hypot(cols - x, rows - y)).float()
    measured = FilterValues(torch.tensor(stability), torch.zeros(4))
    return GridCandidate(LowRes(logits, 0, 0, 0.0, True), torch.tensor(0.9), torch.tensor(prompt), measured)


def test_only_small_stable_masks_that_two_prompts_agree_on_explain_a_point() -> None:
    parameters = replace(loose(), stability_score_thresh=0.5)
    asked = np.array([[40.0, 40.0], [100.0, 100.0]])

    def left(*batches: list[GridCandidate]) -> int:
        coverage = Coverage(parameters, CropCandidates((0, 0, 128, 128), 0, (64, 64)))
        for batch in batches:
            coverage.add(batch)
        return len(coverage.unexplained(asked))

    once, again = disc(20, 20, 8, (36.0, 36.0)), disc(20, 20, 8.2, (44.0, 44.0))
    assert left([once]) == 2
    assert left([once, again]) == left([once], [again]) == 1
    assert left([once, disc(20, 20, 8.2, (36.0, 36.0))]) == 2  # two masks of one prompt
    assert left([once, disc(20, 20, 4, (44.0, 44.0))]) == 2  # they disagree
    assert left([once, disc(20, 20, 8.2, (44.0, 44.0), stability=0.4)]) == 2
    assert left([disc(20, 20, 22, (36.0, 36.0)), disc(20, 20, 22, (44.0, 44.0))]) == 2  # a fifth of the image or more


def test_a_fast_run_says_what_it_changed() -> None:
    pixels = picture(240, 320, 0, count=5)
    p = replace(loose(), points_per_side=12, fast=True)
    run = AutomaticMaskGenerator(small_predictor(), p).generate(pixels)
    assert run.points <= 144
    assert run.notes == tuple(notes(run.points, 144, half_precision(torch.device("cpu"))))
    again = AutomaticMaskGenerator(small_predictor(), p).generate(pixels, candidates=run.candidates)
    assert again.reused
    assert again.masks == run.masks


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [({}, None), ({"avx2": True}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert small_predictor().fast().half == expected
    assert half_precision(torch.device("cuda")) == torch.bfloat16
    assert half_precision(torch.device("mps")) == torch.float16


def test_lower_precision_is_named() -> None:
    assert "bfloat16" in " ".join(notes(1, 2, torch.bfloat16))
    assert "float" not in " ".join(notes(1, 2, None))


@pytest.mark.parametrize("refining", [False, True])
def test_the_reassociated_decoder_computes_the_same_function(refining: bool) -> None:
    exact, fast = small_predictor(), Predictor(small_model(), reassociate=True)
    embedding = exact.embed(picture(200, 260))
    points = torch.tensor([[[100.0, 200.0]], [[300.0, 210.0]], [[20.0, 30.0]]])
    sparse = exact.decoder.embed_prompts(points, torch.ones(3, 1, dtype=torch.int))
    generator = torch.Generator().manual_seed(2)
    mask_input = (
        torch.randn(3, 1, *exact.decoder.prompts.mask_input_size, generator=generator) * 5 if refining else None
    )
    image = exact.prepare(embedding, 3)
    a = exact.decoder.decode(image, sparse, mask_input=mask_input)
    b = fast.decoder.decode(image, sparse, mask_input=mask_input)
    assert torch.allclose(a.iou, b.iou, atol=1e-4)
    assert torch.allclose(a.masks, b.masks, atol=1e-3)
    assert not torch.equal(a.masks, b.masks)


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
