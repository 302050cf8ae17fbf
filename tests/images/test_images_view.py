"""Pictures of the right part of the image, at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_duo.images.view import OUTSIDE, Pyramid


def gradient(width: int, height: int) -> np.ndarray:
    """Red grows with x and green with y over the whole range, so that a colour tells the place."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    image[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return image


@given(st.integers(300, 2500), st.integers(300, 2500), st.floats(0, 1), st.floats(0, 1), st.floats(1, 60))
@settings(max_examples=15, deadline=None)
def test_what_is_drawn_is_what_is_there(width: int, height: int, u: float, v: float, factor: float) -> None:
    image = gradient(width, height)
    # As large a part as fits, of the output's proportions, enlarged and moved within the image.
    step = min(width / 160, height / 90) / factor
    wide, high = 160 * step, 90 * step
    x0, y0 = u * (width - wide), v * (height - high)
    drawn = Pyramid(image).render(x0, y0, x0 + wide, y0 + high, 160, 90)
    assert drawn.shape == (90, 160, 3)
    for out_x, out_y in ((5, 5), (80, 45), (150, 80)):
        # The centre of the output pixel, as an image point.
        x, y = x0 + (out_x + 0.5) * step - 0.5, y0 + (out_y + 0.5) * step - 0.5
        if 3 < x < width - 4 and 3 < y < height - 4:
            expected = (255 * x / (width - 1), 255 * y / (height - 1))
            # One output pixel and one image pixel of slack, in levels.
            slack = 2.0 + 255 * (step + 1) * 1.1 / np.array([width, height])
            assert np.all(np.abs(drawn[out_y, out_x, :2].astype(float) - expected) <= slack)


def test_pixels_are_squares_when_enlarged() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[::2, ::2] = image[1::2, 1::2] = 255
    drawn = Pyramid(image).render(10, 10, 20, 20, 100, 100)
    assert set(np.unique(drawn)) == {0, 255}
    assert np.array_equal(drawn[5::10, 5::10], image[10:20, 10:20])


def test_reduced_views_average_instead_of_dropping_pixels() -> None:
    image = np.zeros((1600, 1600, 3), np.uint8)
    image[::2, ::2] = image[1::2, 1::2] = 255
    drawn = Pyramid(image).render(0, 0, 1600, 1600, 100, 100)
    assert abs(int(drawn.min()) - 127) <= 2
    assert abs(int(drawn.max()) - 127) <= 2


def test_beyond_the_image_is_the_outside_colour() -> None:
    drawn = Pyramid(np.full((100, 100, 3), 200, np.uint8)).render(-100, 0, 200, 100, 300, 100)
    assert np.all(drawn[:, :100] == OUTSIDE)
    assert np.all(drawn[:, 100:200] == 200)
    assert np.all(drawn[:, 200:] == OUTSIDE)
    assert np.all(Pyramid(np.zeros((9, 9, 3), np.uint8)).render(50, 50, 60, 60, 20, 20) == OUTSIDE)


def test_contrast_spreads_a_flat_image_and_does_not_depend_on_the_part_shown() -> None:
    image = gradient(600, 400)
    image = (100 + image // 16).astype(np.uint8)
    pyramid = Pyramid(image)
    whole = pyramid.render(0, 0, 600, 400, 600, 400, contrast=True)
    assert whole[..., 0].max() - whole[..., 0].min() > 200
    part = pyramid.render(0, 0, 300, 200, 300, 200, contrast=True)
    assert np.array_equal(part[50:150, 50:150], whole[50:150, 50:150])


def test_an_empty_rectangle_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Pyramid(np.zeros((4, 4, 3), np.uint8)).render(2, 0, 2, 4, 10, 10)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (513, 2), (1025, 1023)])
def test_odd_shapes_are_drawn(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    assert 77 in Pyramid(image).render(0, 0, shape[1], shape[0], 64, 48)


@pytest.mark.parametrize("box", [(0, 0, 2048, 1536), (3, 3, 2040, 1500), (700, 500, 1100, 725), (10, 10, 20, 16)])
def test_a_frame_reads_only_what_it_shows(box: tuple[int, int, int, int], pixels_read: list[int]) -> None:
    pyramid = Pyramid(gradient(2048, 1536))
    pixels_read.clear()
    pyramid.render(*box, 320, 180, contrast=True)
    assert len(pixels_read) == 1
    # The coarsest level that is fine enough has less than four pixels a pixel of the output where both axes shrink alike.
    assert pixels_read[0] <= 5 * 320 * 180


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(-60, 60),
    st.floats(-60, 60),
    st.floats(0.1, 90),
    st.floats(0.1, 90),
)
@settings(max_examples=40, deadline=None)
def test_any_rectangle_is_drawn(width: int, height: int, x0: float, y0: float, wide: float, high: float) -> None:
    drawn = Pyramid(np.full((height, width, 3), 200, np.uint8)).render(x0, y0, x0 + wide, y0 + high, 17, 13)
    touches = x0 < width and x0 + wide > 0 and y0 < height and y0 + high > 0
    assert drawn.shape == (13, 17, 3)
    assert bool((drawn == 200).any()) == touches
