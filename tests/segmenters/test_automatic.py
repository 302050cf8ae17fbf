"""Our generator beside stock's: every field of every record, exactly."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from segment_duo.errors import Cancelled, UsageError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.segments import cleaned
from segment_duo.types import Box
from tests.engine_stock import as_stock, comparable, loose, picture, small_model, small_predictor, stock_records


def both(p: AutoParameters, height: int, width: int, seed: int, trained: bool = True) -> int:
    """Compare a run with stock's; the number of masks."""
    pixels = picture(height, width, seed)
    theirs = [comparable(r) for r in stock_records(small_model(trained), pixels, p)]
    ours = [comparable(as_stock(m)) for m in AutomaticMaskGenerator(small_predictor(trained), p).generate(pixels).masks]
    assert ours == theirs
    return len(ours)


def changed(**fields: object) -> AutoParameters:
    return replace(loose(), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "size", "seed"),
    [
        ({"points_per_side": 9}, (240, 320), 0),
        ({}, (411, 203), 1),
        ({"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}, (200, 260), 2),
        ({"use_m2m": True, "points_per_side": 4}, (200, 260), 3),
        ({"multimask_output": False, "pred_iou_thresh": 0.05}, (200, 260), 4),
        ({"mask_threshold": 0.5, "stability_score_offset": 0.1}, (230, 230), 5),
        ({"points_per_batch": 5}, (200, 260), 6),
        ({"box_nms_thresh": 0.3}, (200, 260), 7),
    ],
)
def test_records_equal_stock(fields: dict[str, object], size: tuple[int, int], seed: int) -> None:
    assert both(changed(**fields), *size, seed) > 0


def test_records_equal_stock_with_random_weights() -> None:
    assert both(loose(False), 200, 260, 8, trained=False) > 0


def test_records_equal_stock_in_crops() -> None:
    both(changed(crop_n_layers=1, points_per_side=4, crop_n_points_downscale_factor=2), 260, 300, 9)


def test_records_equal_stock_on_a_custom_grid_with_a_last_batch_of_one() -> None:
    rng = np.random.default_rng(1)
    grid = tuple((float(x), float(y)) for x, y in rng.random((65, 2)))
    assert both(changed(point_grids=(grid,)), 200, 260, 10) > 0


def test_nothing_survives() -> None:
    assert both(changed(pred_iou_thresh=0.99999), 200, 260, 11) == 0


def test_masks_without_a_pixel_have_a_stability_of_nan() -> None:
    """Above all logits 0 / 0 is compared with the threshold: it passes only where the filter is off."""
    p = changed(
        points_per_side=3, mask_threshold=500.0, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    )
    assert both(p, 200, 260, 12) == 27
    assert both(changed(points_per_side=3, mask_threshold=500.0, pred_iou_thresh=0.0), 200, 260, 12) == 0


def test_other_thresholds_are_answered_without_the_decoder() -> None:
    pixels = picture(240, 320, 0)
    predictor = small_predictor()
    first = AutomaticMaskGenerator(predictor, loose()).generate(pixels)
    assert not first.reused
    assert first.points == 36
    stricter = changed(
        pred_iou_thresh=0.5,
        stability_score_thresh=0.6,
        mask_threshold=0.1,
        stability_score_offset=0.2,
        box_nms_thresh=0.5,
    )
    again = AutomaticMaskGenerator(predictor, stricter).generate(pixels, candidates=first.candidates)
    fresh = AutomaticMaskGenerator(predictor, stricter).generate(pixels)
    assert again.reused
    assert again.points == 0
    assert again.masks == fresh.masks
    assert again.masks != first.masks
    looser = changed(pred_iou_thresh=loose().pred_iou_thresh - 0.01)
    assert not AutomaticMaskGenerator(predictor, looser).generate(pixels, candidates=first.candidates).reused
    other_image = AutomaticMaskGenerator(predictor, loose()).generate(pixels[:200], candidates=first.candidates)
    assert not other_image.reused


def test_a_region_restricts_the_points_not_the_masks() -> None:
    region = Box(80, 60, 200, 180)
    run = AutomaticMaskGenerator(small_predictor(), changed(region=region, points_per_side=8)).generate(
        picture(240, 320, 0)
    )
    assert 0 < run.points < 64
    assert run.masks
    for mask in run.masks:
        x, y = mask.point_coords[0]
        assert region.x0 <= x < region.x1
        assert region.y0 <= y < region.y1


def test_progress_counts_points_and_cancelling_stops_between_chunks() -> None:
    pixels = picture(200, 260, 3)
    seen: list[tuple[str, int, int]] = []
    generator = AutomaticMaskGenerator(small_predictor(), changed(points_per_batch=12))
    generator.generate(pixels, on_progress=lambda *a: seen.append(a))
    assert seen == [("points", n, 36) for n in (0, 12, 24, 36)]
    asked = 0

    def after_a_while() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Cancelled):
        generator.generate(pixels, should_cancel=after_a_while)
    assert asked == 4


def test_embeddings_of_crops_go_through_the_cache() -> None:
    pixels = picture(200, 260, 3)
    held: dict[tuple[int, int, int, int], object] = {}
    computed = []

    def cache(box, compute):  # type: ignore[no-untyped-def]
        if box not in held:
            held[box] = compute()
            computed.append(box)
        return held[box]

    generator = AutomaticMaskGenerator(small_predictor(), changed(crop_n_layers=1, points_per_side=2))
    first = generator.generate(pixels, embed_crop=cache)
    second = generator.generate(pixels, embed_crop=cache)
    assert len(computed) == 5
    assert first.masks == second.masks


def test_small_regions_are_removed_from_final_masks() -> None:
    run = GridRun(small_predictor(), changed(min_mask_region_area=30), picture(200, 260, 0))
    plain = GridRun(small_predictor(), loose(), picture(200, 260, 0))
    candidates = run.decode_all()
    cleaned, untouched = run.select(candidates), plain.select(candidates)
    assert len(cleaned) <= len(untouched)
    assert any("30 pixels" in note for note in run.notes)
    assert sum(s.mask.area for s in cleaned) > 0


def test_holes_are_filled_and_specks_dropped() -> None:
    pixels = np.zeros((40, 40), dtype=bool)
    pixels[5:30, 5:30] = True
    pixels[10:12, 10:12] = False  # a hole of 4
    pixels[15:21, 15:21] = False  # a hole of 36
    pixels[35:37, 35:37] = True  # a speck of 4
    result = cleaned(CroppedMask(pixels, 7, 3), 10)
    expected = pixels.copy()
    expected[10:12, 10:12] = True
    expected[35:37, 35:37] = False
    assert (result.left, result.top) == (12, 8)
    assert np.array_equal(result.pixels, expected[5:30, 5:30])
    assert cleaned(result, 10) is result
    only_speck = CroppedMask(np.ones((2, 2), dtype=bool), 0, 0)
    assert cleaned(only_speck, 10) is only_speck  # the largest island always stays


@pytest.mark.parametrize(
    "fields",
    [
        {"points_per_side": 0},
        {"crop_n_layers": -1},
        {"tile": -5},
        {"pred_iou_thresh": float("nan")},
        {"min_mask_region_area": -1},
        {"point_grids": ((),), "crop_n_layers": 1},
    ],
)
def test_parameters_that_cannot_be(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        AutomaticMaskGenerator(small_predictor(), AutoParameters(**fields))  # type: ignore[arg-type]


def test_records_hold_json_values_only() -> None:
    run = AutomaticMaskGenerator(small_predictor(), loose()).generate(picture(200, 260, 0))
    assert run.masks
    json.dumps([as_stock(m) for m in run.masks])
    assert [m.id for m in run.masks] == list(range(len(run.masks)))


def test_no_deprecation_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_predictor().embed(picture(64, 64))
