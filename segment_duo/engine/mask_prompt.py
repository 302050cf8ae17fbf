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


def mask_logits(mask: Rle, height: int, width: int, input_size: int) -> npt.NDArray[np.float32]:
    """Logits of a mask as SAM's prompt encoder takes them: the image squeezed into a square, each value the share that is inside.

    Args:
        mask: of the image's size, ``height`` x ``width`` pixels.
        input_size: pixels a side of what the model sees.

    Returns:
        float32 (input_size / 4, input_size / 4).

    Raises:
        PromptError: the mask has another size than the image.
    """
    import numpy as np
    from PIL import Image

    from segment_duo.masks.rle import decode

    if (mask.height, mask.width) != (height, width):
        raise PromptError(f"the mask is {mask.width} x {mask.height} pixels, the image {width} x {height}")
    side = input_size // LOW_RES_SHARE
    inside = Image.fromarray(decode(mask).astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return (np.asarray(inside, np.float32) / 127.5 - 1) * np.float32(CONFIDENCE)
