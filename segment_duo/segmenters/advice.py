"""What front ends advise: tiles, several scales, another point. Light: commands ask before any engine is started."""

from __future__ import annotations

WIDEST_IN_ONE_PASS = 4096
"""Pixels. SAM shrinks every image to 1,024 pixels a side (nano to 512): from here on an object of 16 pixels is left with fewer than 4."""
ADVISED_TILE = 2048
"""Pixels. Halves the shrinking of official models against the widest image done in one pass, at some 1.3 times the prompts (halo)."""


def tile_advice(width: int, height: int) -> int | None:
    """The tile size to advise for an image of this size in pixels; None when one pass does."""
    return ADVISED_TILE if max(width, height) > WIDEST_IN_ONE_PASS else None


SHRUNK = 2
"""Times a picture is shrunk from which more than one scale is advised: an object of 16 pixels is left with 8."""


def scale_advice(width: int, height: int, input_size: int) -> bool:
    """Whether to advise ``scale`` ``both`` for an image of this size in pixels and a model that shrinks it to ``input_size``.

    Only for models of less than SAM's own 1,024 pixels: theirs is one pass, as stock has it, until tiles are worth their time.
    """
    return 0 < input_size < 1024 and max(width, height) >= SHRUNK * input_size


NO_OBJECT = 0.1
"""Predicted IoU of a prompted mask below which the model sees no object there; nano says 0.00 to 0.01 on plain background."""


def sees_nothing(predicted_iou: float | None) -> bool:
    """Whether to say of a prompted mask that the model sees no object there."""
    return predicted_iou is not None and predicted_iou < NO_OBJECT
