"""Greedy box NMS as stock runs it: torchvision's compiled operator, without importing torchvision.

The import of the package takes 2 s of processor time, 5 s where no byte code is cached: as much as everything else a cold engine does for a small
model. The operator's library alone loads in milliseconds. Where it is not found the package is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BY_CLASS_FROM = {"cpu": 4000}
"""Coordinates from which ``batched_nms`` takes its way class by class, which orders equal scores differently; 100,000 on an accelerator."""


def suppress(boxes: Tensor, scores: Tensor, limit: float) -> list[int]:
    """Indices that ``torchvision.ops.batched_nms`` keeps of one class, in its order (best score first).

    Args:
        boxes: (N, 4), XYXY; scores: (N,), on the same device.
        limit: a box goes if its IoU with a better one is above this.
    """
    if not len(boxes):
        return []
    boxes = boxes.float()
    keep = _operator()(boxes, scores, limit)
    if boxes.numel() > BY_CLASS_FROM.get(boxes.device.type, 100_000):
        keep = keep.sort().values
        keep = keep[scores[keep].sort(descending=True).indices]
    return [int(i) for i in keep]


@cache
def _operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    spec = importlib.util.find_spec("torchvision")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    for library in sorted(folder.glob("_C*.so")):  # _C.so, in newer releases _C_stable.so
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            return torch.ops.torchvision.nms
        except (OSError, AttributeError):
            continue
    return importlib.import_module("torchvision.ops").nms  # type: ignore[no-any-return]
