"""Run-length encoding against pycocotools and plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from segment_duo.errors import MaskFileError
from segment_duo.masks import rle
from segment_duo.types import Rle

arrays = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
sides = st.integers(1, 20)


def by_coco(array: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(array.astype(np.uint8)))


@settings(max_examples=50, deadline=None)
@given(arrays)
def test_encode_equals_pycocotools_byte_for_byte(array: np.ndarray) -> None:
    code = rle.encode(array)
    assert code.counts == by_coco(array)["counts"].decode()
    assert (code.height, code.width) == array.shape
    np.testing.assert_array_equal(rle.decode(code), array)
    assert rle.area(code) == array.sum()
    assert list(rle.bounding_box(code)) == (list(coco.toBbox(by_coco(array))) if array.any() else [0, 0, 0, 0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000)), min_size=1, max_size=12))
def test_long_runs_survive_the_text_code(lengths: list[tuple[int, int]]) -> None:
    flat = np.concatenate([np.repeat([False, True], pair) for pair in lengths])
    array = flat.reshape(1, -1)
    assert rle.encode(array).counts == by_coco(array)["counts"].decode()
    np.testing.assert_array_equal(rle.decode(rle.encode(array)), array)


@settings(max_examples=50, deadline=None)
@given(arrays, sides, sides)
def test_resize_canvas_keeps_the_origin(array: np.ndarray, height: int, width: int) -> None:
    expected = np.zeros((height, width), dtype=bool)
    h, w = min(height, array.shape[0]), min(width, array.shape[1])
    expected[:h, :w] = array[:h, :w]
    assert rle.resize_canvas(rle.encode(array), height, width) == rle.encode(expected)


@settings(max_examples=50, deadline=None)
@given(arrays, st.data())
def test_crops_and_indices(array: np.ndarray, data: st.DataObject) -> None:
    height, width = array.shape
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    code = rle.encode(array)
    np.testing.assert_array_equal(rle.decode_crop(code, x, y, w, h), array[y : y + h, x : x + w])
    np.testing.assert_array_equal(rle.to_indices(code), np.flatnonzero(array))
    only = np.zeros_like(array)
    only[y : y + h, x : x + w] = array[y : y + h, x : x + w]
    assert rle.encode_crop(array[y : y + h, x : x + w], x, y, height, width) == rle.encode(only)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_intersection(data: st.DataObject) -> None:
    a = data.draw(arrays)
    b = data.draw(hnp.arrays(bool, a.shape))
    assert rle.intersection(rle.encode(a), rle.encode(b)) == (a & b).sum()


def test_intersection_of_other_sizes_is_refused() -> None:
    with pytest.raises(MaskFileError, match="cannot be compared"):
        rle.intersection(rle.encode(np.ones((2, 3), bool)), rle.encode(np.ones((3, 2), bool)))


def test_uncompressed_counts() -> None:
    assert rle.from_counts([2, 3, 1], 3, 2) == rle.encode(np.array([[0, 1], [0, 1], [1, 0]], bool))
    for wrong in ([1, 2], [2, -3, 7], []):
        with pytest.raises(MaskFileError, match="do not cover"):
            rle.from_counts(wrong, 3, 2)


@pytest.mark.parametrize(
    ("height", "width", "counts", "said"),
    [
        (0, 5, "0", "cannot be"),
        (10**6, 10**6, "0", "cannot be"),
        (4, 4, "", "cover 0 pixels"),
        (4, 4, "1", "cover 1 pixels"),
        (4, 4, "P", "damaged"),
        (4, 4, "é", "ASCII"),
        (4, 4, "~~", "damaged"),
        (4, 4, "oooooooooooo0", "40 bits"),
        (4, 4, "M", "negative"),
    ],
)
def test_damaged_codes_are_named(height: int, width: int, counts: str, said: str) -> None:
    with pytest.raises(MaskFileError, match=said):
        rle.decode(Rle(height, width, counts))


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12))
def test_any_text_is_a_mask_or_an_error(counts: str) -> None:
    try:
        code = Rle(5, 7, counts)
        assert rle.decode(code).sum() == rle.area(code)
    except MaskFileError:
        pass


def test_a_large_canvas_costs_no_full_size_array() -> None:
    # 40 000 x 40 000 pixels: a boolean array would take 1.6 GB.
    code = rle.encode_crop(np.ones((30, 20), bool), 39_000, 100, 40_000, 40_000)
    assert rle.area(code) == 600
    assert rle.bounding_box(code) == (39_000, 100, 20, 30)
    moved = rle.resize_canvas(code, 40_500, 40_000)
    assert rle.bounding_box(moved) == (39_000, 100, 20, 30)


@settings(max_examples=50, deadline=None)
@given(arrays, st.integers(1, 40))
def test_encoding_in_blocks_changes_nothing(array: np.ndarray, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle, "_BLOCK", block)
        assert rle.encode_crop(array, 0, 0, *array.shape) == rle.encode(array)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (2, 3)])
def test_a_crop_without_a_pixel_is_an_empty_mask(shape: tuple[int, int]) -> None:
    code = rle.encode_crop(np.zeros(shape, bool), 1, 1, 9, 9)
    assert code == rle.empty(9, 9) == rle.encode(np.zeros((9, 9), bool))


@settings(max_examples=50, deadline=None)
@given(arrays)
def test_spans_of_rows(array: np.ndarray) -> None:
    steps = np.diff(np.concatenate(([0], array.ravel().astype(np.int8), [0])))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    assert rle.from_row_spans(starts, ends, *array.shape) == rle.encode(array)
