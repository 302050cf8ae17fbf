"""From overlapping masks to one label per pixel, by a stated rule. The raw masks stay as they are.

small-on-top   the smaller mask keeps the pixel (a grain before the cluster around it); ties: the later position yields
score          the mask with the higher predicted IoU x stability score; unknown scores come last
area           the larger mask keeps the pixel
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segment_duo.boxes import in_pixels
from segment_duo.errors import MaskFileError, UsageError
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

OVERLAP_RULES: dict[str, str] = {
    "small-on-top": "the smaller mask keeps a shared pixel",
    "score": "the mask with the higher predicted IoU x stability score keeps it",
    "area": "the larger mask keeps it",
}


def paint_order(masks: Sequence[Mask], rule: str) -> list[int]:
    """Positions of ``masks`` from the bottom to the top; of equal ones the first is on top."""
    if rule not in OVERLAP_RULES:
        raise UsageError(f"no overlap rule is called {rule!r}", "known: " + ", ".join(OVERLAP_RULES))

    def height(position: int) -> tuple[float, int]:
        mask = masks[position]
        if rule == "score":
            known = mask.predicted_iou is not None or mask.stability_score is not None
            value = (1.0 if mask.predicted_iou is None else mask.predicted_iou) * (
                1.0 if mask.stability_score is None else mask.stability_score
            )
            return (value if known else -1.0, -position)
        return (float(mask.area if rule == "area" else -mask.area), -position)

    return sorted(range(len(masks)), key=height)


def label_image(
    masks: Sequence[Mask], height: int, width: int, rule: str = "small-on-top"
) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    """Label image, shape (height, width): 0 background, ``i + 1`` the mask at position ``i``.

    uint16 up to 65 535 masks, else uint32. A mask that lies wholly under others has no pixel left.

    Raises:
        UsageError: unknown rule.
        MaskFileError: a mask has another size.
    """
    import numpy as np

    from segment_duo.masks.rle import decode_crop

    dtype: Any = np.uint16 if len(masks) <= np.iinfo(np.uint16).max else np.uint32
    labels = np.zeros((height, width), dtype=dtype)
    for position in paint_order(masks, rule):
        mask = masks[position]
        if (mask.rle.height, mask.rle.width) != (height, width):
            raise MaskFileError(f"mask {mask.id} is {mask.rle.width} x {mask.rle.height}, its image {width} x {height}")
        x, y, w, h = in_pixels(mask.bbox)
        if w and h:
            labels[y : y + h, x : x + w][decode_crop(mask.rle, x, y, w, h)] = position + 1
    return labels
