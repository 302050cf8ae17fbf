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
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.nested import without_nested
from segment_duo.segmenters.sam2.scales import ScaledCandidates, is_scaled, merge_scales
from segment_duo.segmenters.sam2.segments import Segment
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
        ({"scale": "both", "tile": 300}, (700, 600), False),
        ({"scale": "both", "crop_n_layers": 1}, (700, 600), False),
    ],
)
def test_two_scales_are_for_pictures_larger_than_the_models_input(
    fields: dict[str, object], size: tuple[int, int], scaled: bool
) -> None:
    parameters = dataclasses.replace(AutoParameters(), **fields)  # type: ignore[arg-type]
    assert is_scaled(parameters, *size, 512) is scaled


def test_a_run_at_both_scales_says_so_and_its_candidates_answer_the_next() -> None:
    predictor = small_predictor()
    side = predictor.model.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (side + 60, side * 3 // 2, 3), dtype=np.uint8)
    parameters = AutoParameters(
        points_per_side=4, scale="both", pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=0.9
    )
    phases: list[str] = []
    first = AutomaticMaskGenerator(predictor, parameters).generate(
        pixels, on_progress=lambda phase, _done, _total: phases.append(phase)
    )
    assert {"points", "tiles"} <= set(phases)
    assert any("native size" in note for note in first.notes)
    assert isinstance(first.candidates, ScaledCandidates)
    assert all(decode(mask.rle).shape == pixels.shape[:2] for mask in first.masks)
    again = AutomaticMaskGenerator(predictor, parameters).generate(pixels, candidates=first.candidates)
    assert again.reused
    assert [mask.rle for mask in again.masks] == [mask.rle for mask in first.masks]
    whole = AutomaticMaskGenerator(predictor, dataclasses.replace(parameters, scale="whole"))
    assert not whole.generate(pixels, candidates=first.candidates).reused


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="whole or both"):
        AutomaticMaskGenerator(small_predictor(), AutoParameters(scale="half"))  # type: ignore[arg-type]
