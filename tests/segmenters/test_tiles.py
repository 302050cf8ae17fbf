"""Tiles: windows share the image, and merging gives every object once and whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from segment_duo.boxes import ends
from segment_duo.errors import Cancelled, UsageError
from segment_duo.masks.cropped import CroppedMask, trim
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.advice import scale_advice, tile_advice
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.segments import Segment, record
from segment_duo.segmenters.sam2.tiles import Piece, Tile, merge, windows
from tests.engine_stock import loose, picture, small_predictor

HEIGHT, WIDTH, TILE, HALO = 900, 1100, 300, 60


def test_cores_share_the_image_and_windows_reach_over_them() -> None:
    plan = windows(HEIGHT, WIDTH, TILE, HALO)
    seen = np.zeros((HEIGHT, WIDTH), dtype=int)
    for w in plan:
        x0, y0, x1, y1 = w.core
        seen[y0:y1, x0:x1] += 1
        assert x1 - x0 <= TILE
        assert y1 - y0 <= TILE
        assert w.box == (max(x0 - HALO, 0), max(y0 - HALO, 0), min(x1 + HALO, WIDTH), min(y1 + HALO, HEIGHT))
    assert (seen == 1).all()


def test_advice_comes_above_four_times_the_models_input() -> None:
    assert tile_advice(4096, 3000) is None
    assert tile_advice(3000, 4097) == 2048
    assert scale_advice(1024, 700, 512)
    assert not scale_advice(1000, 700, 512)
    assert not scale_advice(4000, 4000, 1024)  # an official model: one pass, as stock
    assert not scale_advice(4000, 4000, 0)


def disc(cy: float, cx: float, radius: float) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((y - cy) ** 2 + (x - cx) ** 2 < radius**2)


def objects() -> list[npt.NDArray[np.bool_]]:
    """Small ones everywhere, on seams and corners of tiles; two that are larger than the overlap; one longer than a tile."""
    rng = np.random.default_rng(3)
    truth = [disc(300, 275, 18), disc(300, 550, 25), disc(600, 825, 12), disc(150, 275, 30), disc(450, 300, 8)]
    truth += [disc(600, 275, 110), disc(300, 830, 90)]
    bar = np.zeros((HEIGHT, WIDTH), dtype=bool)
    bar[760:800, 100:1000] = True
    truth.append(bar)
    taken = np.logical_or.reduce(truth)
    for _ in range(300):
        new = disc(rng.uniform(10, HEIGHT - 10), rng.uniform(10, WIDTH - 10), rng.uniform(4, 16))
        if not (ndimage.binary_dilation(new, iterations=4) & taken).any():
            truth.append(new)
            taken |= new
    return truth


def seen_through(window: Tile, mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> CroppedMask | None:
    """What a model would return for an object: its part in the window, with an outline that is off by a pixel at random."""
    x0, y0, x1, y1 = window.core
    if not mask[y0:y1, x0:x1].any():
        return None
    change = int(rng.integers(-1, 2))
    if change:
        mask = ndimage.binary_dilation(mask) if change > 0 else ndimage.binary_erosion(mask)
    x0, y0, x1, y1 = window.box
    region = trim(CroppedMask(mask[y0:y1, x0:x1], x0, y0))
    return region if region.pixels.size else None


def pieces_of(truth: list[npt.NDArray[np.bool_]]) -> list[Piece]:
    rng = np.random.default_rng(5)
    out = []
    for window in windows(HEIGHT, WIDTH, TILE, HALO):
        for mask in truth:
            region = seen_through(window, mask, rng)
            if region is not None:
                segment = Segment(region, ends(region.box), float(rng.uniform(0.8, 1)), 0.97, (0.0, 0.0), window.box)
                out.append(Piece.of(segment, window, HEIGHT, WIDTH))
    return out


def test_every_object_is_found_once_and_whole() -> None:
    truth = objects()
    pieces = pieces_of(truth)
    assert len(pieces) > len(truth) + 30  # the windows do overlap
    found, dropped = merge(pieces)
    assert dropped == 0
    assert len(found) == len(truth)
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for i, mask in enumerate(truth):
        labels[mask] = i + 1
    matched = set()
    for segment in found:
        full = np.zeros((HEIGHT, WIDTH), dtype=bool)
        r = segment.mask
        full[r.top : r.top + r.pixels.shape[0], r.left : r.left + r.pixels.shape[1]] = r.pixels
        best = int(np.bincount(labels[full]).argmax()) - 1
        iou = (full & truth[best]).sum() / (full | truth[best]).sum()
        area = truth[best].sum()
        assert iou > (0.95 if area > 20_000 else 0.5 if area < 300 else 0.75), (best, iou, area)
        matched.add(best)
    assert len(matched) == len(truth)


def test_a_fragment_without_continuation_is_dropped_and_counted() -> None:
    window = windows(HEIGHT, WIDTH, TILE, HALO)[0]
    cut = CroppedMask(np.ones((40, 100), dtype=bool), window.box[2] - 100, 50)
    alone = Piece.of(Segment(cut, ends(cut.box), 0.9, 0.95, (0.0, 0.0), window.box), window, HEIGHT, WIDTH)
    assert alone.sides == "r"
    assert merge([alone]) == ([], 1)


def test_nested_masks_of_one_window_are_not_duplicates() -> None:
    window = windows(HEIGHT, WIDTH, TILE, HALO)[0]
    shell = CroppedMask(np.ones((60, 60), dtype=bool), 50, 50)
    core = CroppedMask(np.ones((50, 50), dtype=bool), 55, 55)
    pieces = [
        Piece.of(Segment(r, ends(r.box), 0.9, 0.95, (0.0, 0.0), window.box), window, HEIGHT, WIDTH)
        for r in (shell, core)
    ]
    assert len(merge(pieces)[0]) == 2


def test_pixels_survive_packing() -> None:
    rng = np.random.default_rng(0)
    window = windows(HEIGHT, WIDTH, TILE, HALO)[5]
    pixels = rng.random((37, 53)) > 0.5
    piece = Piece.of(
        Segment(CroppedMask(pixels, 300, 280), (0, 0, 0, 0), 1.0, 1.0, (0.0, 0.0), window.box), window, HEIGHT, WIDTH
    )
    assert np.array_equal(piece.pixels, pixels)
    inside = piece.within((290, 270, 330, 300))
    assert np.array_equal(inside[10:, 10:], pixels[:20, :30])
    assert not inside[:10].any()
    assert not inside[:, :10].any()


def test_a_tiled_run_reports_tiles_reuses_candidates_and_can_be_cancelled() -> None:
    pixels = picture(300, 420, seed=4)
    p = replace(loose(), points_per_side=4, tile=210, halo=32)
    seen: list[tuple[str, int, int]] = []
    generator = AutomaticMaskGenerator(small_predictor(), p)
    run = generator.generate(pixels, on_progress=lambda *a: seen.append(a))
    assert seen == [("tiles", i, 4) for i in range(5)]
    assert any("4 tiles" in note for note in run.notes)
    assert run.points == 64
    assert all(m.rle.height == 300 and m.rle.width == 420 for m in run.masks)
    again = generator.generate(pixels, candidates=run.candidates)
    assert again.reused
    assert again.points == 0
    assert again.masks == run.masks
    with pytest.raises(Cancelled):
        generator.generate(pixels, should_cancel=lambda: True)


def test_tiles_and_crops_exclude_each_other() -> None:
    with pytest.raises(UsageError):
        AutomaticMaskGenerator(small_predictor(), AutoParameters(tile=256, crop_n_layers=1))


def test_a_record_on_a_large_canvas_never_makes_the_canvas() -> None:
    region = CroppedMask(np.ones((3, 2), dtype=bool), 39_998, 49_997)
    segment = Segment(region, ends(region.box), 0.9, 0.9, (39_999.0, 49_999.0), (0, 0, 40_000, 50_000))
    mask = record(segment, 0, 50_000, 40_000)  # 2,000 megapixels
    assert mask.area == 6
    assert mask.bbox == (39_998.0, 49_997.0, 1.0, 2.0)
