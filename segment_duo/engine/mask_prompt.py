"""A mask as a prompt: the low-res logits that stand for a binary mask that no model made, or whose logits are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segment_duo.errors import PromptError
from segment_duo.types import Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONFIDENCE = 10.0
"""Logit of a pixel that is wholly inside; minus that outside. Masks of `particles.tif` with a third bitten off and one point there (nano): mean IoU
0.94 with 6, 10 and 20 and the grown box, 0.91 with the mask's box and no mask."""
LOW_RES_SHARE = 4
"""SAM's mask prompts have one value for so many pixels of the model's input along a side."""


def mask_logits(
    mask: Rle, height: int, width: int, input_size: int, canvas: tuple[int, int] | None = None
) -> npt.NDArray[np.float32]:
    """Logits of a mask as SAM's prompt encoder takes them: the canvas squeezed into a square, each value the share that is inside.

    Args:
        mask: of the image's size, ``height`` x ``width`` pixels.
        input_size: pixels a side of what the model sees.
        canvas: height and width in image pixels of what the model sees, where the image is padded right and below; None for the image.

    Returns:
        float32 (input_size / 4, input_size / 4).

    Raises:
        PromptError: the mask has another size than the image.
    """
    import numpy as np

    from segment_duo.masks.rle import cut_out

    if (mask.height, mask.width) != (height, width):
        raise PromptError(f"the mask is {mask.width} x {mask.height} pixels, the image {width} x {height}")
    side = input_size // LOW_RES_SHARE
    crop, left, top = cut_out(mask)
    rows, cols = canvas or (height, width)
    shares = _averaged(_averaged(crop.astype(np.float32), top, rows, side).T, left, cols, side).T
    return np.asarray((2 * shares - 1) * np.float32(CONFIDENCE), np.float32)


def _averaged(values: npt.NDArray[np.float32], start: int, length: int, side: int) -> npt.NDArray[np.float32]:
    """Means of an axis of ``length`` in ``side`` equal steps; ``values`` lie on it from ``start`` on, the rest is 0. Along the first axis."""
    import numpy as np

    sums = np.concatenate([np.zeros((1, values.shape[1]), np.float32), np.cumsum(values, axis=0, dtype=np.float32)])
    edges = np.clip(np.linspace(0, length, side + 1) - start, 0, len(values))
    below = np.minimum(edges.astype(np.int64), max(len(values) - 1, 0))
    above = np.minimum(below + 1, len(values))
    share = (edges - below)[:, None].astype(np.float32)
    totals = sums[below] * (1 - share) + sums[above] * share
    return np.asarray(np.diff(totals, axis=0) * np.float32(side / length))
