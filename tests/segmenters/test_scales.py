"""Two scales of one picture: what is kept of both, and that the default stays stock's single pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from segment_duo.errors import UsageError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.masks.rle import decode
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.scales import ScaledCandidates, is_scaled, merge_scales
from segment_duo.segmenters.sam2.segments import Segment, inclusive_box
from segment_duo.types import AutoParameters
from tests.engine_stock import small_predictor

WINDOW = 512


def segment(x0: int, y0: int, x1: int, y1: int, iou: float = 0.9) -> Segment:
    """A rectangle."""
    mask = CroppedMask(np.ones((y1 - y0, x1 - x0), dtype=bool), x0, y0)
    return Segment(mask, inclusive_box(mask), iou, 0.95, (0.0, 0.0), (0, 0, 2000, 2000))


def rectangles(segments: list[Segment]) -> set[tuple[int, int, int, int]]:
    found = set()
    for one in segments:
        rows, cols = one.mask.pixels.shape
        found.add((one.mask.left, one.mask.top, one.mask.left + cols, one.mask.top + rows))
    return found


def test_a_small_object_of_both_is_the_native_one_and_a_large_one_the_whole_pictures() -> None:
    small, finer = segment(10, 10, 50, 50), segment(11, 10, 50, 51)
    large, cut = segment(100, 100, 600, 600), segment(110, 110, 590, 600)
    kept, split = merge_scales([small, large], [finer, cut], WINDOW)
    assert rectangles(kept) == rectangles([finer, large])
    assert split == 0


def test_a_pile_taken_for_one_object_gives_way_to_what_fills_it() -> None:
    pile = segment(0, 0, 120, 60)
    grains = [segment(0, 0, 55, 60), segment(60, 0, 118, 60)]
    kept, split = merge_scales([pile], grains, WINDOW)
    assert rectangles(kept) == rectangles(grains)
    assert split == 1
    # One grain alone says nothing about the rest of it.
    assert len(merge_scales([pile], grains[:1], WINDOW)[0]) in (1, 2)


def test_what_only_one_scale_found_stays_and_part_of_something_larger_goes() -> None:
    plate, part = segment(0, 0, 1500, 1500), segment(100, 100, 500, 560)
    speck = segment(1700, 1700, 1710, 1712)
    kept, _ = merge_scales([plate], [part, speck], WINDOW)
    assert rectangles(kept) == rectangles([plate, speck])
    assert rectangles(merge_scales([], [speck], WINDOW)[0]) == rectangles([speck])
    assert rectangles(merge_scales([plate], [], WINDOW)[0]) == rectangles([plate])


@pytest.mark.parametrize(
    ("fields", "size", "scaled"),
    [
        ({}, (600, 600), False),
        ({"scale": "both"}, (600, 600), True),
        ({"scale": "both"}, (512, 400), False),
        ({"scale": "both", "tile": 300}, (600, 600), False),
        ({"scale": "both", "crop_n_layers": 1}, (600, 600), False),
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
    pixels = np.random.default_rng(0).integers(0, 255, (side + 60, side + 90, 3), dtype=np.uint8)
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
