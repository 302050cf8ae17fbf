"""A mask as low-res logits."""

from __future__ import annotations

import numpy as np
import pytest

from segment_duo.engine.mask_prompt import CONFIDENCE, mask_logits
from segment_duo.errors import PromptError
from segment_duo.masks.rle import empty, encode


@pytest.mark.parametrize("size", [(64, 64), (300, 470), (90, 33), (1000, 40)])
def test_each_value_is_the_share_that_is_inside(size: tuple[int, int]) -> None:
    height, width = size
    bits = np.random.default_rng(1).random(size) < 0.5
    bits[: height // 4] = False
    logits = mask_logits(encode(bits), height, width, 64)
    assert logits.shape == (16, 16)
    assert logits.dtype == np.float32
    fine = np.repeat(np.repeat(bits, 16, axis=0), 16, axis=1)  # every step is a whole number of these
    shares = fine.reshape(16, height, 16, width).mean(axis=(1, 3))
    assert np.allclose(logits, (2 * shares - 1) * CONFIDENCE, atol=1e-3)


def test_an_empty_mask_and_one_of_another_size() -> None:
    assert (mask_logits(empty(50, 60), 50, 60, 64) == -CONFIDENCE).all()
    with pytest.raises(PromptError):
        mask_logits(empty(50, 60), 50, 61, 64)


def test_where_the_model_sees_more_than_the_image_the_mask_stays_in_its_corner() -> None:
    """SAM 1 pads an image right and below to a square; squeezing it would put the mask elsewhere."""
    bits = np.zeros((50, 100), dtype=bool)
    bits[25:50, :] = True
    logits = mask_logits(encode(bits), 50, 100, 64, (100, 100))
    inside = logits > 0
    assert inside[4:8].all()
    assert inside.sum() == 4 * 16
