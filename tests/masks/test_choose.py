"""Overlap rules, filters, comparison, scores, and drawing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segment_duo.errors import MaskFileError, UsageError
from segment_duo.lengths import Length, parse_length
from segment_duo.masks import rle
from segment_duo.masks.compare import diff, score
from segment_duo.masks.filters import MaskFilter, apply
from segment_duo.masks.overlap import OVERLAP_RULES, label_image
from segment_duo.masks.overlay import PALETTE, bar_length, colour_of, overlay
from segment_duo.types import Banner, Box, ImageIdentity, Mask, MaskSet, PixelSize, Point, Provenance

HEIGHT, WIDTH = 60, 80


def make_mask(array: np.ndarray, **fields: Any) -> Mask:
    code = rle.encode(array)
    return Mask(code, rle.area(code), rle.bounding_box(code), **fields)


def box(x: int, y: int, w: int, h: int, **fields: Any) -> Mask:
    array = np.zeros((HEIGHT, WIDTH), bool)
    array[y : y + h, x : x + w] = True
    return make_mask(array, **fields)


def set_of(*masks: Mask, **provenance: Any) -> MaskSet:
    numbered = tuple(replace(mask, id=n) for n, mask in enumerate(masks))
    return MaskSet(numbered, Provenance(image=ImageIdentity("a", "", WIDTH, HEIGHT), **provenance))


# --- overlap ------------------------------------------------------------------------------------------------------------------


def test_each_rule_gives_the_shared_pixel_to_its_own() -> None:
    large = box(0, 0, 30, 30, predicted_iou=0.9, stability_score=0.9)
    small = box(20, 20, 15, 15, predicted_iou=0.5, stability_score=0.9)
    unknown = box(25, 25, 20, 20)
    masks = (large, small, unknown)
    winner = {rule: int(label_image(masks, HEIGHT, WIDTH, rule)[27, 27]) for rule in OVERLAP_RULES}
    assert winner == {"small-on-top": 2, "score": 1, "area": 1}
    assert label_image(masks, HEIGHT, WIDTH, "score")[40, 40] == 3
    with pytest.raises(UsageError, match="bogus"):
        label_image(masks, HEIGHT, WIDTH, "bogus")
    with pytest.raises(MaskFileError, match="its image 5 x 5"):
        label_image(masks, 5, 5)


@settings(max_examples=50, deadline=None)
@given(st.lists(hnp.arrays(bool, (7, 9)), max_size=5), st.sampled_from(list(OVERLAP_RULES)))
def test_labels_cover_exactly_the_union(arrays: list[np.ndarray], rule: str) -> None:
    masks = [make_mask(array, id=n) for n, array in enumerate(arrays)]
    labels = label_image(masks, 7, 9, rule)
    union = np.logical_or.reduce([np.zeros((7, 9), bool), *arrays])
    np.testing.assert_array_equal(labels != 0, union)
    for label in np.unique(labels[labels != 0]):
        assert arrays[label - 1][labels == label].all()


def test_equal_masks_go_to_the_first() -> None:
    assert label_image([box(1, 1, 4, 4), box(1, 1, 4, 4)], HEIGHT, WIDTH)[2, 2] == 1


# --- filters ------------------------------------------------------------------------------------------------------------------


def ids(mask_set: MaskSet, pixel_size: PixelSize | None = None, **conditions: Any) -> list[int]:
    return [mask.id for mask in apply(mask_set, MaskFilter(**conditions), None, pixel_size)]


def mixed() -> MaskSet:
    return set_of(
        box(0, 0, 10, 10, predicted_iou=0.9, label="a"),
        box(20, 20, 4, 4, stability_score=0.99, source="prompt"),
        box(30, 5, 40, 2, predicted_iou=0.6),
        box(30, 40, 10, 10),
        box(15, 15, 30, 20),
        banner=Banner(10, "tag"),
    )


def test_conditions() -> None:
    everything = [0, 1, 2, 3, 4]
    assert ids(mixed()) == everything
    assert ids(mixed(), min_area=100) == [0, 3, 4]
    assert ids(mixed(), max_area=100) == [0, 1, 2, 3]
    assert ids(mixed(), min_predicted_iou=0.7) == [0]
    assert ids(mixed(), min_stability_score=0.9) == [1]
    assert ids(mixed(), label="a") == [0]
    assert ids(mixed(), source="prompt") == [1]
    assert ids(mixed(), min_circularity=0.5) == [0, 1, 3, 4]
    assert ids(mixed(), min_solidity=0.99) == everything
    assert ids(mixed(), exclude_edge=True) == [1, 2, 4], "3 ends at the banner"
    assert ids(replace(mixed(), provenance=Provenance()), exclude_edge=True) == [1, 2, 3, 4]
    assert ids(mixed(), min_area=100, exclude_edge=True) == [4]


def test_diameters_in_both_units() -> None:
    # Equivalent diameters: 11.28, 4.51, 10.09, 11.28, 27.64 px.
    assert ids(mixed(), min_diameter=Length(11, "px")) == [0, 3, 4]
    assert ids(mixed(), max_diameter=Length(11, "px")) == [1, 2]
    size = PixelSize(2, 2, "flag")
    assert ids(mixed(), size, min_diameter=Length(22, "nm"), max_diameter=Length(30, "nm")) == [0, 3]
    assert ids(mixed(), size, min_diameter=Length(22, "nm"), max_diameter=Length(20, "px")) == [0, 3]
    with pytest.raises(UsageError, match="pixel size is not known"):
        ids(mixed(), min_diameter=Length(22, "nm"))


def test_inside() -> None:
    assert ids(mixed(), inside_box=Box(0, 0, 29, 29)) == [0, 1]
    assert ids(mixed(), inside_box=Box(0, 0, 9, 9), inside_share=1.0) == [0]
    assert ids(mixed(), inside_box=Box(0, 0, 8.5, 9), inside_share=1.0) == []
    assert ids(mixed(), inside_mask=4) == [1]
    with pytest.raises(UsageError, match="no mask 77"):
        ids(mixed(), inside_mask=77)


def test_parameters_are_recorded() -> None:
    conditions = MaskFilter(min_area=3, inside_box=Box(1, 2, 3, 4), min_diameter=Length(5, "nm"), exclude_edge=True)
    assert conditions.parameters() == {
        "min_area": 3,
        "min_diameter": "5nm",
        "exclude_edge": True,
        "inside_box": [1, 2, 3, 4],
    }


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("50nm", Length(50, "nm")),
        (" 0.5 um ", Length(500, "nm")),
        (".5µm", Length(500, "nm")),
        ("12", Length(12, "px")),
        ("12px", Length(12, "px")),
        ("1e-3mm", Length(1000, "nm")),
        ("1,5um", Length(1500, "nm")),
        ("0", Length(0, "px")),
    ],
)
def test_lengths(text: str, length: Length) -> None:
    found = parse_length(text)
    assert (found.value, found.unit) == (pytest.approx(length.value), length.unit)


@pytest.mark.parametrize("text", ["", "nm", "-5nm", "5 parsec", "nan", "1..2", "5nm/px", "1e999"])
def test_no_lengths(text: str) -> None:
    with pytest.raises(UsageError, match="not a length"):
        parse_length(text)


# --- comparison ---------------------------------------------------------------------------------------------------------------


def test_diff() -> None:
    before = set_of(box(0, 0, 10, 10), box(20, 20, 10, 10), box(50, 40, 10, 10))
    after = set_of(box(22, 20, 10, 10), box(0, 0, 10, 10), box(70, 0, 5, 5))
    found = diff(before, after)
    assert [(match.before.id, match.after.id) for match in found.matched] == [(0, 1), (1, 0)]
    assert [match.iou for match in found.matched] == pytest.approx([1, 80 / 120])
    assert [mask.id for mask in found.new] == [2]
    assert [mask.id for mask in found.gone] == [2]
    assert found.mean_iou == pytest.approx((1 + 2 / 3) / 2)
    assert len(diff(before, after, iou=0.7).matched) == 1
    assert not found.identical
    assert diff(before, before).identical
    assert diff(set_of(), set_of()).mean_iou is None
    hollow = set_of(box(0, 0, 0, 0), box(5, 5, 3, 3), box(0, 0, 0, 0))
    assert diff(hollow, hollow).identical, "also where masks have no pixel"
    fewer = diff(hollow, set_of(box(5, 5, 3, 3), box(0, 0, 0, 0)))
    assert ([mask.id for mask in fewer.gone], fewer.identical) == ([2], False)
    other = MaskSet((make_mask(np.ones((3, 3), bool)),), Provenance())
    with pytest.raises(MaskFileError, match="cannot be compared"):
        diff(before, other)


@settings(max_examples=40, deadline=None)
@given(st.lists(hnp.arrays(bool, (6, 8)), max_size=4), st.lists(hnp.arrays(bool, (6, 8)), max_size=4))
def test_diff_is_one_to_one_and_symmetric(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    a, b = (MaskSet(tuple(make_mask(x, id=n) for n, x in enumerate(xs)), Provenance()) for xs in (first, second))
    found = diff(a, b, iou=0.3)
    assert len(found.matched) + len(found.gone) == len(first)
    assert len(found.matched) + len(found.new) == len(second)
    for match in found.matched:
        x, y = first[match.before.id], second[match.after.id]
        assert match.iou == pytest.approx((x & y).sum() / (x | y).sum() if (x | y).any() else 1)
    assert sorted(match.iou for match in diff(b, a, iou=0.3).matched) == pytest.approx(
        sorted(match.iou for match in found.matched)
    )


def test_score() -> None:
    truth = np.zeros((HEIGHT, WIDTH), np.uint16)
    truth[0:10, 0:10], truth[20:30, 20:30], truth[40:50, 50:60] = 7, 9, 300
    masks = (box(0, 0, 10, 10), box(22, 20, 10, 10), box(70, 0, 5, 5), box(0, 0, 10, 9))
    found = score(masks, truth)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (2, 2, 1)
    assert (found.masks, found.truth) == (4, 3)
    assert found.ap50 == pytest.approx(2 / 5)
    assert found.ap75 == pytest.approx(1 / 6)
    assert found.mean_iou == pytest.approx((1 + 2 / 3) / 3)
    assert found.matched_iou == pytest.approx((1 + 2 / 3) / 2)
    assert (found.precision, found.recall) == pytest.approx((0.5, 2 / 3))
    perfect = [make_mask(truth == value) for value in (7, 9, 300)]
    assert (score(perfect, truth).ap75, score(perfect, truth).mean_iou) == (1, 1)
    assert score((), truth).ap50 == 0
    assert score((), np.zeros((5, 5), int)).ap50 == 1
    with pytest.raises(MaskFileError, match="the label image 5 x 4"):
        score(masks, np.zeros((4, 5), int))


# --- drawing ------------------------------------------------------------------------------------------------------------------


def test_overlay_paints_masks_and_nothing_else() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    masks = (box(5, 5, 20, 20, id=0), box(10, 10, 5, 5, id=1))
    out = overlay(pixels, masks)
    assert (pixels == 100).all(), "the input is not touched"
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[5:25, 5:25] = False
    assert (out[outside] == 100).all()
    assert tuple(out[5, 10]) == colour_of(masks[0])
    assert tuple(out[10, 12]) == colour_of(masks[1]), "the smaller one is on top"
    assert tuple(out[20, 20]) == tuple(int(100 * 0.65 + c * 0.35) for c in PALETTE[0])
    chosen = overlay(pixels, masks, selected=[0])
    assert tuple(chosen[5, 10]) == (255, 255, 255)
    assert (overlay(pixels, masks, fill=False)[20, 20] == 100).all()


def test_overlay_of_a_cut_image_with_points_and_bar() -> None:
    pixels = np.full((HEIGHT - 20, WIDTH, 3), 100, np.uint8)
    masks = (box(5, 30, 20, 25, id=0), box(50, 45, 9, 9, id=1))
    out = overlay(pixels, masks, points=[Point(60, 10), Point(30, 10, 0)], scale_bar=PixelSize(5, 5, "x"))
    assert out.shape == pixels.shape
    assert tuple(out[39, 5]) == colour_of(masks[0])
    assert tuple(out[10, 60]) == (0, 158, 115)
    assert tuple(out[10, 30]) == (213, 94, 0)
    assert (out[-8:, -60:] == 255).all(axis=2).any(), "the bar"


@pytest.mark.parametrize(
    ("width", "nm", "length", "text"),
    [
        (1000, 3.37, 500 / 3.37, "500 nm"),
        (1024, 3372.4, 500e3 / 3372.4, "500 um"),
        (500, 0.01, 100, "1 nm"),
        (500, 0.001, 100, "100 pm"),
    ],
)
def test_bar_is_a_round_length(width: int, nm: float, length: float, text: str) -> None:
    found = bar_length(width, PixelSize(nm, nm, "x"))
    assert found == (pytest.approx(length), text)
    assert 0.05 * width <= found[0] <= 0.2 * width + 1
