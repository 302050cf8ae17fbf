"""The fast mode: fewer prompts, written down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from segment_duo.segmenters.sam2.adaptive import Coverage, levels, note
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.candidates import GridCandidate
from segment_duo.segmenters.sam2.upsample import FilterValues, LowRes
from tests.engine_stock import loose, picture, small_predictor


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
        coverage = Coverage(parameters, (64, 64), (128, 128))
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
    p = replace(loose(), exact=False, points_per_side=12, fast=True)
    run = AutomaticMaskGenerator(small_predictor(), p).generate(pixels)
    assert run.points <= 144
    assert run.notes[0] == note(run.points, 144)
    again = AutomaticMaskGenerator(small_predictor(), p).generate(pixels, candidates=run.candidates)
    assert again.reused
    assert again.masks == run.masks
