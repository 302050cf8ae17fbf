"""Which masks the list shows, and in which order. Pure functions of masks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segment_duo.types import Mask

ORDERS = ("in order of ids", "least certain first", "odd sizes first", "largest first", "by label")
"""Orders of the list."""


def sort_key(order: str, masks: Sequence[Mask]) -> Callable[[Mask], tuple[float | str, ...]]:
    """The key by which the list is sorted.

    *Certain* is a mask by the lower of its predicted IoU and its stability score; those without scores come last. *Odd* is a size by how many
    times it is larger or smaller than the median.
    """
    if order == "least certain first":
        return lambda mask: (
            min((s for s in (mask.predicted_iou, mask.stability_score) if s is not None), default=2.0),
            mask.id,
        )
    if order == "odd sizes first":
        middle = math.log(max(1.0, statistics.median(mask.area for mask in masks)))
        return lambda mask: (-abs(math.log(max(1, mask.area)) - middle), mask.id)
    if order == "largest first":
        return lambda mask: (-mask.area, mask.id)
    return lambda mask: (mask.label == "", mask.label, mask.id)


@dataclass(frozen=True, slots=True)
class SizeFilter:
    """Which masks are shown: bounds of the area in pixels, an upper bound of the predicted IoU, a label. None and "" = no bound."""

    smallest: int | None = None
    largest: int | None = None
    iou_most: float | None = None
    label: str = ""

    def __bool__(self) -> bool:
        return self != SizeFilter()

    def accepts(self, mask: Mask) -> bool:
        return (
            (self.smallest is None or mask.area >= self.smallest)
            and (self.largest is None or mask.area <= self.largest)
            and (self.iou_most is None or (mask.predicted_iou is not None and mask.predicted_iou <= self.iou_most))
            and self.label.casefold() in mask.label.casefold()
        )

    def __str__(self) -> str:
        parts = [self._size()] if self.smallest is not None or self.largest is not None else []
        if self.iou_most is not None:
            parts.append(f"IoU ≤ {self.iou_most:g}")
        if self.label:
            parts.append(f"“{self.label}”")
        return ", ".join(parts)

    def _size(self) -> str:
        if self.smallest is not None and self.largest is not None:
            return f"{self.smallest:,} to {self.largest:,} px"
        return f"from {self.smallest:,} px" if self.smallest is not None else f"up to {self.largest or 0:,} px"
