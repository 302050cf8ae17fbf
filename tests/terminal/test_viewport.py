"""Cells <-> image pixels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_duo.terminal.viewport import FINEST_SCALE, Viewport

sizes = st.integers(1, 20_000)
cells = st.integers(1, 300)
views = st.builds(
    lambda w, h, c, r, cell, zoom, fx, fy: Viewport.fitted((w, h), (c, r), cell).zoomed(zoom, fx * (w - 1), fy * (h - 1)),
    sizes, sizes, cells, cells, st.sampled_from([(1, 2), (10, 20), (7, 15)]), st.floats(0.5, 64), st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip


def test_first_pixel_of_a_fitted_view() -> None:
    view = Viewport.fitted((100, 100), (100, 50))
    assert view.scale == 1
    assert view.to_screen_pixel(0, 0) == (0.5, 0.5)  # the centre of the first screen pixel
    assert view.to_image(0.5, 0.5) == (0, 0.5)
    assert view.visible() == (0, 0, 100, 100)


@given(views, st.floats(0, 1), st.floats(0, 1))
def test_there_and_back(view: Viewport, fx: float, fy: float) -> None:
    x, y = fx * (view.image_width - 1), fy * (view.image_height - 1)
    assert view.to_image(*view.to_cell(x, y)) == pytest.approx(
        (x, y), abs=1e-6 * (1 + view.image_width + view.image_height)
    )


@given(views)
def test_view_never_leaves_the_image(view: Viewport) -> None:
    x0, y0, x1, y1 = view.visible()
    assert 0 <= x0 < x1 <= view.image_width
    assert 0 <= y0 < y1 <= view.image_height
    assert view.scale >= FINEST_SCALE * 0.999


@given(views, st.floats(-500, 500), st.floats(-500, 500))
def test_pan_keeps_the_scale_and_the_bounds(view: Viewport, right: float, down: float) -> None:
    moved = view.panned(right, down)
    assert moved.scale == view.scale
    x0, y0, x1, y1 = moved.visible()
    assert 0 <= x0 <= x1 <= view.image_width
    assert 0 <= y0 <= y1 <= view.image_height


def test_zoom_keeps_the_pixel_under_the_cursor() -> None:
    view = Viewport.fitted((2048, 1536), (160, 48)).zoomed(4, 1000, 700)
    before = view.to_cell(1040, 720)
    after = view.zoomed(2, 1040, 720).to_cell(1040, 720)
    assert after == pytest.approx(before)
    back = view.zoomed(2, 1040, 720).zoomed(0.5, 1040, 720)
    assert (back.left, back.top) == pytest.approx((view.left, view.top))


def test_zooming_out_ends_with_the_whole_image() -> None:
    view = Viewport.fitted((2048, 1536), (160, 48))
    assert view.zoomed(8, 30, 30).zoomed(1 / 100, 30, 30) == view


def test_one_to_one() -> None:
    view = Viewport.fitted((2048, 1536), (100, 40)).one_to_one(1024, 768)
    assert view.scale == 1
    assert view.step == 1
    assert view.contains(1024, 768)


def test_step_is_a_screen_pixel() -> None:
    assert Viewport.fitted((2048, 1536), (128, 48)).step == 16
    assert Viewport.fitted((2048, 1536), (128, 48)).zoomed(64, 5, 5).step == 1


def test_resize_keeps_a_fitted_view_fitted_and_another_centred() -> None:
    view = Viewport.fitted((2048, 1536), (100, 40))
    assert view.resized(60, 20, (1, 2)) == Viewport.fitted((2048, 1536), (60, 20))
    near = view.zoomed(8, 1024, 768)
    smaller = near.resized(80, 30, (1, 2))
    assert smaller.scale == near.scale
    assert smaller.to_cell(*near.to_image(50, 20)) == pytest.approx((40, 15))
    finer = near.resized(100, 40, (10, 20))
    assert finer.scale == pytest.approx(near.scale / 10)
    assert finer.visible() == pytest.approx(near.visible())


def test_tiny_and_empty_canvases() -> None:
    assert Viewport.fitted((1, 1), (0, 0)).columns == 1
    assert Viewport.fitted((1, 1), (80, 24)).limited(500, -3) == (0, 0)
    assert Viewport.fitted((30_000, 2), (80, 24)).visible() == (0, 0, 30_000, 2)


def test_showing_pans_no_more_than_needed() -> None:
    view = Viewport.fitted((1000, 1000), (100, 50)).zoomed(4, 500, 500)
    assert view.showing(500, 500) == view
    moved = view.showing(900, 500)
    assert moved.contains(900, 500)
    assert moved.top == view.top


def test_banner_toggle_keeps_the_view() -> None:
    near = Viewport.fitted((1024, 943), (100, 40)).zoomed(8, 300, 300)
    cut = near.for_image(1024, 884)
    assert (cut.left, cut.top, cut.scale) == (near.left, near.top, near.scale)
    assert Viewport.fitted((1024, 943), (100, 40)).for_image(1024, 884) == Viewport.fitted((1024, 884), (100, 40))
