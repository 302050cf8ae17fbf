"""Two scales of one picture: what is kept of both, and that the default stays stock's single pass."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from segment_duo.boxes import ends
from segment_duo.errors import UsageError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.masks.rle import decode
from segment_duo.parameters import AutoParameters, AutoScale
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.farther import brought_back, farther, mirrored
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.nested import without_nested
from segment_duo.segmenters.sam2.scales import ScaledCandidates, is_scaled, merge_scales
from segment_duo.segmenters.sam2.segments import Segment
from segment_duo.types import Box
from tests.engine_stock import small_predictor


def segment(x0: int, y0: int, x1: int, y1: int, iou: float = 0.9) -> Segment:
    """A rectangle."""
    mask = CroppedMask(np.ones((y1 - y0, x1 - x0), dtype=bool), x0, y0)
    return Segment(mask, ends(mask.box), iou, 0.95, (0.0, 0.0), (0, 0, 2000, 2000))


def rectangles(segments: list[Segment]) -> set[tuple[int, int, int, int]]:
    found = set()
    for one in segments:
        rows, cols = one.mask.pixels.shape
        found.add((one.mask.left, one.mask.top, one.mask.left + cols, one.mask.top + rows))
    return found


def test_of_one_object_seen_at_both_scales_the_native_mask_stays_unless_the_other_is_clearly_better() -> None:
    coarse, fine = segment(10, 10, 50, 50), segment(11, 10, 50, 51)
    assert rectangles(merge_scales([coarse], [fine], 0.5)) == rectangles([fine])
    sure = segment(10, 10, 50, 50, iou=0.96)
    assert rectangles(merge_scales([sure], [fine], 0.5)) == rectangles([sure])


def test_a_pile_taken_for_one_object_gives_way_to_what_fills_it() -> None:
    pile = segment(0, 0, 120, 60, iou=0.8)
    grains = [segment(0, 0, 55, 60), segment(60, 0, 118, 60)]
    assert rectangles(merge_scales([pile], grains, 0.5)) == rectangles(grains)


def test_what_only_one_scale_found_stays_and_parts_of_something_larger_go() -> None:
    plate, part = segment(0, 0, 1500, 1500), segment(100, 100, 500, 560, iou=0.7)
    speck = segment(1700, 1700, 1710, 1712)
    assert rectangles(merge_scales([plate], [part, speck], 0.5)) == rectangles([plate, speck])
    assert rectangles(merge_scales([], [speck], 0.5)) == rectangles([speck])
    assert rectangles(merge_scales([plate], [], 0.5)) == rectangles([plate])


def test_nested_masks_stay_as_long_as_nobody_asks() -> None:
    grain, precipitate, beside = segment(0, 0, 100, 100), segment(20, 20, 40, 40, iou=0.8), segment(90, 0, 190, 100)
    together = [grain, precipitate, beside]
    assert without_nested(together, 1.0) == together
    assert without_nested(together, 0.5) == [grain, beside]  # a tenth in common is a neighbour
    assert without_nested(together, 0.05) == [grain]
    assert without_nested([precipitate, grain], 0.5, np.array([1.0, 0.5])) == [precipitate]
    empty = replace(grain, mask=CroppedMask(np.zeros((0, 0), dtype=bool), 0, 0))
    assert without_nested([empty, beside], 0.5) == [beside]


@pytest.mark.parametrize(
    ("fields", "size", "scaled"),
    [
        ({}, (600, 600), False),
        ({"scale": "both"}, (660, 600), True),
        ({"scale": "both"}, (640, 640), False),
        ({"scale": "both"}, (512, 400), False),
        ({"scale": "all"}, (512, 400), True),
        ({"scale": "all", "tile": 300}, (700, 600), False),
        ({"scale": "both", "tile": 300}, (700, 600), False),
        ({"scale": "both", "crop_n_layers": 1}, (700, 600), False),
    ],
)
def test_windows_are_for_pictures_larger_than_the_models_input(
    fields: dict[str, object], size: tuple[int, int], scaled: bool
) -> None:
    parameters = dataclasses.replace(AutoParameters(), **fields)  # type: ignore[arg-type]
    assert is_scaled(parameters, *size, 512) is scaled


@pytest.mark.parametrize("scale", ["both", "all"])
def test_a_run_at_several_scales_says_so_and_its_candidates_answer_the_next(scale: AutoScale) -> None:
    predictor = small_predictor()
    side = predictor.model.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (side + 60, side * 3 // 2, 3), dtype=np.uint8)
    parameters = AutoParameters(
        points_per_side=4, scale=scale, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=0.9
    )
    phases: list[str] = []
    first = AutomaticMaskGenerator(predictor, parameters).generate(
        pixels, on_progress=lambda phase, _done, _total: phases.append(phase)
    )
    assert {"points", "tiles"} <= set(phases)
    assert any("native size" in note for note in first.notes)
    assert any("farther away" in note for note in first.notes) is (scale == "all")
    assert isinstance(first.candidates, ScaledCandidates)
    assert all(decode(mask.rle).shape == pixels.shape[:2] for mask in first.masks)
    again = AutomaticMaskGenerator(predictor, parameters).generate(pixels, candidates=first.candidates)
    assert again.reused
    assert [mask.rle for mask in again.masks] == [mask.rle for mask in first.masks]
    whole = AutomaticMaskGenerator(predictor, dataclasses.replace(parameters, scale="whole"))
    assert not whole.generate(pixels, candidates=first.candidates).reused


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="whole, both or all"):
        AutomaticMaskGenerator(small_predictor(), AutoParameters(scale="half"))  # type: ignore[arg-type]


def test_a_picture_lies_in_the_middle_of_its_mirrored_frame() -> None:
    pixels = np.arange(5 * 8 * 3, dtype=np.uint8).reshape(5, 8, 3)
    frame = mirrored(pixels, 512)
    assert frame.shape == (10, 16, 3)
    assert np.array_equal(frame[2:7, 4:12], pixels)
    assert np.array_equal(frame[1, 4:12], pixels[0])
    assert np.array_equal(frame[2:7, 3], pixels[:, 0])
    large = np.full((300, 900, 3), 77, np.uint8)
    assert mirrored(large, 64).shape == (42, 128, 3)
    assert (mirrored(large, 64) == 77).all()
    assert mirrored(np.zeros((1, 2, 3), np.uint8), 512).shape == (2, 4, 3)


def test_masks_from_farther_away_come_back_cut_off_at_the_pictures_edge_and_small_ones_do_not_count() -> None:
    run = GridRun(small_predictor(), AutoParameters(points_per_side=4, scale="all"), np.zeros((60, 100, 3), np.uint8))
    wide, frame = farther(run)
    assert (wide.height, wide.width) == (120, 200)
    points = wide.crop_points((0, 0, 200, 120), wide.grids()[0]) - np.array([[frame.left, frame.top]])
    assert len(points) == 4
    assert ((points >= 0) & (points < np.array([[100, 60]]))).all()
    over, small, outside = segment(40, 20, 90, 70), segment(60, 40, 66, 46), segment(0, 0, 30, 20)
    found = brought_back([over, small, outside], frame, run, least=10)
    assert rectangles(found) == {(0, 0, 40, 40)}
    assert found[0].box == (0.0, 0.0, 39.0, 39.0)
    assert found[0].crop_box == (0, 0, 100, 60)
    part = run.with_parameters(dataclasses.replace(run.parameters, region=Box(50, 0, 100, 60)))
    wide, frame = farther(part)
    points = wide.crop_points((0, 0, 200, 120), wide.grids()[0]) - np.array([[frame.left, frame.top]])
    assert len(points) == 2
    assert (points[:, 0] >= 50).all()


def test_a_large_object_seen_from_farther_away_takes_the_place_of_its_pieces() -> None:
    pieces = [segment(0, 0, 250, 480, iou=0.82), segment(250, 0, 480, 480, iou=0.81)]
    ball = segment(0, 0, 490, 490, iou=0.8)
    assert rectangles(merge_scales(pieces, [], 0.5, [ball])) == rectangles([ball])
    assert rectangles(merge_scales(pieces, [], 0.5)) == rectangles(pieces)
