"""Corrections of masks: each against a plain computation on the whole array."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segment_duo.errors import MaskFileError, UsageError
from segment_duo.masks import edit, rle
from segment_duo.types import Mask, Rle

HEIGHT, WIDTH = 40, 56
arrays = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def disc(x: float, y: float, r: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    yy, xx = np.mgrid[:height, :width]
    return np.asarray((xx - x) ** 2 + (yy - y) ** 2 <= r * r)


def decoded(codes: list[Rle]) -> list[np.ndarray]:
    return [rle.decode(code) for code in codes]


def mask_of(array: np.ndarray, **fields: object) -> Mask:
    code = rle.encode(array)
    return Mask(code, rle.area(code), rle.bounding_box(code), **fields)  # type: ignore[arg-type]


# --- runs -------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sets_of_pixels(data: st.DataObject) -> None:
    a = data.draw(arrays)
    b, c = data.draw(hnp.arrays(bool, a.shape)), data.draw(hnp.arrays(bool, a.shape))
    one, two, three = (rle.encode(array) for array in (a, b, c))
    assert rle.union([one, two, three]) == rle.encode(a | b | c)
    assert rle.union([one]) == one
    assert rle.combine(one, two, "and") == rle.encode(a & b)
    assert rle.combine(one, two, "or") == rle.encode(a | b)
    assert rle.combine(one, two, "minus") == rle.encode(a & ~b)
    assert rle.combine(one, two, "xor") == rle.encode(a ^ b)
    assert edit.subtract(one, [two, three]) == rle.encode(a & ~b & ~c)
    assert edit.subtract(one, []) == one


@settings(max_examples=40, deadline=None)
@given(arrays, st.integers(0, 5))
def test_cut_out(array: np.ndarray, margin: int) -> None:
    crop, x, y = rle.cut_out(rle.encode(array), margin)
    back = np.zeros_like(array)
    back[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    np.testing.assert_array_equal(back, array)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(MaskFileError, match="cannot be compared"):
        edit.merge([rle.empty(2, 3), rle.empty(3, 2)])


# --- one mask ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(arrays)
def test_fill_holes(array: np.ndarray) -> None:
    assert edit.fill_holes(rle.encode(array)) == rle.encode(ndimage.binary_fill_holes(array))


def test_fill_holes_up_to_a_size() -> None:
    ring = disc(25, 20, 15) & ~disc(20, 20, 3) & ~disc(31, 20, 1)
    filled = rle.decode(edit.fill_holes(rle.encode(ring), largest=5))
    np.testing.assert_array_equal(filled, disc(25, 20, 15) & ~disc(20, 20, 3))


@settings(max_examples=40, deadline=None)
@given(arrays)
def test_grow_and_shrink_by_a_pixel(array: np.ndarray) -> None:
    assert edit.grow(rle.encode(array)) == rle.encode(ndimage.binary_dilation(array))
    assert edit.shrink(rle.encode(array)) == rle.encode(ndimage.binary_erosion(array, border_value=1))


def test_grow_and_shrink_by_more_are_round() -> None:
    code = rle.encode(disc(25, 20, 8))
    assert edit.grow(code, 4) == rle.encode(ndimage.distance_transform_edt(~disc(25, 20, 8)) <= 4)
    assert abs(rle.area(edit.grow(code, 4)) - math.pi * 144) < 30
    assert abs(rle.area(edit.shrink(code, 4)) - math.pi * 16) < 25
    assert rle.area(edit.shrink(code, 20)) == 0


def test_smooth_removes_spurs_and_keeps_the_body() -> None:
    body = disc(25, 20, 12)
    spur = body.copy()
    spur[20, 36:46] = True
    spur[4:20, 25] = True
    smooth = rle.decode(edit.smooth(rle.encode(spur)))
    assert not smooth[20, 40:].any()
    assert np.count_nonzero(smooth ^ body) < 0.03 * body.sum()


def test_smooth_leaves_straight_edges_and_the_images_border() -> None:
    half = np.zeros((HEIGHT, WIDTH), bool)
    half[:, :20] = True
    assert edit.smooth(rle.encode(half)) == rle.encode(half)


@pytest.mark.parametrize("act", [edit.fill_holes, edit.smooth, edit.grow, edit.shrink])
def test_an_empty_mask_stays_empty(act: object) -> None:
    assert act(rle.empty(5, 7)) == rle.empty(5, 7)  # type: ignore[operator]


# --- splitting --------------------------------------------------------------------------------------------------------------


def test_a_line_cuts_without_losing_a_pixel() -> None:
    whole = disc(25, 20, 14)
    for path in ([(25.3, 2), (25.3, 38)], [(5, 3.2), (46, 36.9)], [(8, 20), (25, 24), (45, 17)]):
        parts = decoded(edit.split_by_line(rle.encode(whole), path))
        assert len(parts) == 2
        np.testing.assert_array_equal(parts[0] | parts[1], whole)
        assert not (parts[0] & parts[1]).any()
        assert parts[0].sum() >= parts[1].sum() > 0.3 * whole.sum()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 60), st.floats(-5, 45)), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_any_line_keeps_every_pixel(path: list[tuple[float, float]], seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = ndimage.gaussian_filter(random.standard_normal((HEIGHT, WIDTH)), 3) > 0
    parts = decoded(edit.split_by_line(rle.encode(whole), path))
    np.testing.assert_array_equal(np.sum(parts, axis=0), whole)


def test_a_line_that_does_not_cross_cuts_nothing() -> None:
    code = rle.encode(disc(25, 20, 14))
    assert edit.split_by_line(code, [(25, 0), (25, 20)]) == [code]
    assert edit.split_by_line(code, [(0, 0), (50, 0)]) == [code]
    assert edit.split_by_line(code, [(25, 0)]) == [code]
    assert edit.split_by_line(rle.empty(9, 9), [(0, 0), (9, 9)]) == [rle.empty(9, 9)]


def test_pieces_that_are_not_cut_stay_whole() -> None:
    whole = disc(20, 20, 10) | disc(50, 5, 3)
    parts = decoded(edit.split_by_line(rle.encode(whole), [(20, 0), (20, 39)]))
    assert len(parts) == 2
    right = next(part for part in parts if part[20, 25])
    assert (right & disc(50, 5, 3)).sum() == disc(50, 5, 3).sum()


def test_watershed_parts_touching_discs() -> None:
    whole = disc(16, 20, 10) | disc(33, 20, 10) | disc(47, 20, 6)
    parts = decoded(edit.split_by_watershed(rle.encode(whole)))
    np.testing.assert_array_equal(np.sum(parts, axis=0), whole)
    assert len(parts) == 3
    centres = sorted(float(ndimage.center_of_mass(part)[1]) for part in parts)
    assert centres == pytest.approx([16, 33, 47], abs=1.5)


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_watershed_leaves_one_grain_alone(angle: int) -> None:
    yy, xx = np.mgrid[:120, :120] - 60.0
    turn = math.radians(angle)
    u, v = xx * math.cos(turn) + yy * math.sin(turn), yy * math.cos(turn) - xx * math.sin(turn)
    rough = np.random.default_rng(angle).random((120, 120)) < 0.1
    ellipse = (u / 50) ** 2 + (v / 20) ** 2 <= 1
    rim = ellipse & ~ndimage.binary_erosion(ellipse)
    assert len(edit.split_by_watershed(rle.encode(ellipse & ~(rim & rough)))) == 1


@settings(max_examples=30, deadline=None)
@given(arrays)
def test_watershed_keeps_every_pixel(array: np.ndarray) -> None:
    parts = decoded(edit.split_by_watershed(rle.encode(array)))
    np.testing.assert_array_equal(np.sum(parts, axis=0), array)


# --- several ----------------------------------------------------------------------------------------------------------------


def test_overlap_goes_to_whom_the_rule_says() -> None:
    big = mask_of(disc(25, 20, 14), id=1, predicted_iou=0.9, stability_score=0.9)
    small = mask_of(disc(30, 20, 4), id=2, predicted_iou=0.5, stability_score=0.5)
    apart = mask_of(disc(50, 5, 3), id=3)
    shapes = decoded(edit.resolve_overlap([big, small, apart]))
    np.testing.assert_array_equal(shapes[0], disc(25, 20, 14) & ~disc(30, 20, 4))
    assert rle.encode(shapes[1]) == small.rle
    assert rle.encode(shapes[2]) == apart.rle
    for rule in ("score", "area"):
        shapes = decoded(edit.resolve_overlap([big, small, apart], rule))
        assert rle.encode(shapes[0]) == big.rle
        assert not shapes[1].any()
    with pytest.raises(UsageError, match="bogus"):
        edit.resolve_overlap([big], "bogus")


def test_overlap_equals_the_label_image() -> None:
    from segment_duo.masks.overlap import OVERLAP_RULES, label_image

    random = np.random.default_rng(3)
    masks = []
    for n in range(12):
        x, y, r = (float(value) for value in random.uniform(2, 50, 3))
        masks.append(mask_of(disc(x, y, r / 4), id=n, predicted_iou=float(random.random())))
    for rule in OVERLAP_RULES:
        labels = label_image(masks, HEIGHT, WIDTH, rule)
        for position, shape in enumerate(decoded(edit.resolve_overlap(masks, rule))):
            np.testing.assert_array_equal(shape, labels == position + 1)


def test_another_shape_loses_the_models_scores() -> None:
    mask = mask_of(disc(25, 20, 5), id=7, label="grain", predicted_iou=0.9, stability_score=0.8, source="prompt")
    grown = edit.with_shape(mask, edit.grow(mask.rle))
    assert (grown.id, grown.label, grown.predicted_iou, grown.stability_score) == (7, "grain", None, None)
    assert grown.area == rle.area(grown.rle) > mask.area
    assert grown.bbox == (19, 14, 13, 13)


# --- by hand ----------------------------------------------------------------------------------------------------------------


def painted(path: list[tuple[float, float]], radius: float, height: int, width: int) -> np.ndarray:
    """Distance of every pixel to every segment, without any cleverness."""
    yy, xx = np.mgrid[:height, :width].astype(float)
    out = np.zeros((height, width), bool)
    for (ax, ay), (bx, by) in zip(path, path[1:] or path, strict=False):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        share = np.clip(((xx - ax) * (bx - ax) + (yy - ay) * (by - ay)) / length, 0, 1) if length else 0.0
        out |= np.hypot(xx - ax - share * (bx - ax), yy - ay - share * (by - ay)) <= radius + 1e-9
    for x, y in path:
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        if 0 <= column < width and 0 <= row < height:
            out[row, column] = True
    return out


quarters = st.integers(-40, 260).map(lambda n: n / 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(quarters, quarters), min_size=1, max_size=4), st.integers(0, 30).map(lambda n: n / 4 + 0.1))
def test_a_stroke_is_the_pixels_within_the_radius(path: list[tuple[float, float]], radius: float) -> None:
    found = rle.decode(edit.stroke(path, radius, HEIGHT, WIDTH))
    np.testing.assert_array_equal(found, painted(path, radius, HEIGHT, WIDTH))


def test_long_strokes_are_drawn_in_pieces() -> None:
    path = [(10.2, 5.7), (590.1, 280.4), (20.0, 290.0)]
    found = rle.decode(edit.stroke(path, 3.3, 300, 600))
    np.testing.assert_array_equal(found, painted(path, 3.3, 300, 600))


def test_paint_and_erase() -> None:
    code = rle.encode(disc(25, 20, 10))
    more = edit.paint(code, [(25, 20), (50, 20)], 2)
    assert more == rle.encode(disc(25, 20, 10) | painted([(25, 20), (50, 20)], 2, HEIGHT, WIDTH))
    less = edit.erase(more, [(25, 20), (50, 20)], 2)
    assert less == rle.encode(disc(25, 20, 10) & ~painted([(25, 20), (50, 20)], 2, HEIGHT, WIDTH))
    assert edit.paint(code, [(-50, -50)], 3) == code, "outside the image"
    assert rle.area(edit.paint(rle.empty(9, 9), [(4.4, 4.4)], 0.1)) == 1, "the smallest brush paints its pixel"


def test_a_stroke_on_a_large_image_needs_its_own_pixels_only() -> None:
    size = 10_000
    code = rle.encode_crop(disc(1500, 1500, 1500, 3001, 3001), 2000, 2000, size, size)
    tracemalloc.start()
    try:
        more = edit.paint(code, [(100, 100), (9900, 9800)], 12)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000, "the image would take 100 MB as booleans"
    finally:
        tracemalloc.stop()
    assert rle.area(more) > rle.area(code)
