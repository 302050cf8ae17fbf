"""Simulated users: where they click first, what box they draw, where they correct.

All coordinates are crop pixels, x then y. Coverages are object masks averaged to the logits' resolution (stride 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    import numpy.typing as npt

    Labels = npt.NDArray[np.int32]
    Floats = npt.NDArray[np.float64]

STRIDE = 4


def first_click(
    rng: np.random.Generator, mask: npt.NDArray[np.bool_], depth: Floats, middle: float = 0.4
) -> tuple[float, float]:
    """A pixel of ``mask``: the one deepest inside with probability ``middle``, else any."""
    ys, xs = np.nonzero(mask)
    i = int(np.argmax(depth[ys, xs])) if rng.random() < middle else int(rng.integers(ys.size))
    return float(xs[i]), float(ys[i])


def loose_box(
    rng: np.random.Generator, mask: npt.NDArray[np.bool_], looseness: float = 0.1
) -> tuple[float, float, float, float]:
    """XYXY box of ``mask``, each edge moved by a normal deviate of ``looseness`` times the side (at most 12 px), inside the image."""
    ys, xs = np.nonzero(mask)
    x0, y0, x1, y1 = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    sides = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) + 1
    moved = np.array([x0, y0, x1, y1]) + np.clip(rng.normal(0, looseness, 4) * sides, -12, 12)
    limit = np.array([mask.shape[1] - 1, mask.shape[0] - 1] * 2, dtype=float)
    a, b, c, d = np.clip(moved, 0, limit)
    return min(a, c), min(b, d), max(a, c), max(b, d)


def away_from_objects(labels: Labels, margin: int = 3) -> npt.NDArray[np.bool_]:
    """Pixels at least ``margin`` pixels from every object."""
    from scipy import ndimage

    return np.asarray(ndimage.minimum_filter((labels == 0).astype(np.uint8), size=2 * margin + 1) > 0)


def any_of(rng: np.random.Generator, place: npt.NDArray[np.bool_], count: int) -> list[tuple[float, float]]:
    """``count`` pixels of ``place``, or none where it is empty."""
    ys, xs = np.nonzero(place)
    if ys.size == 0:
        return []
    picks = rng.integers(ys.size, size=count)
    return [(float(xs[i]), float(ys[i])) for i in picks]


def corrections(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The next click of each prompt: well inside the largest error, include where object is missing, exclude where there is too much.

    Args:
        logits: (P, 1, h, w); target: (P, 1, h, w) coverages.

    Returns:
        (P, 1, 2) crop pixels and (P, 1) labels. A mask without error gets an include click inside the object.

    The middle of an error is where three averaging windows of growing size find it densest: a distance transform
    of every error would cost a millisecond a prompt.
    """
    truth = target >= 0.5
    missing = (truth & (logits <= 0)).float()
    extra = (~truth & (logits > 0)).float()

    def density(error: torch.Tensor) -> torch.Tensor:
        total = error.clone()
        for window in (3, 7, 15):
            total = total + F.avg_pool2d(error, window, stride=1, padding=window // 2) * window
        return (total + 1e-3 * torch.rand_like(total)) * error

    fallback = target * 1e-3 * torch.rand_like(target)
    both = torch.cat([density(missing) + fallback, density(extra)], dim=1).flatten(1)
    index = both.argmax(dim=1)
    pixels = logits.shape[-1] * logits.shape[-2]
    place = index % pixels
    x, y = place % logits.shape[-1], place // logits.shape[-1]
    jitter = torch.randint(0, STRIDE, (2, len(index)), device=logits.device)
    points = torch.stack([x * STRIDE + jitter[0], y * STRIDE + jitter[1]], dim=-1).float()
    return points[:, None], (index < pixels).long()[:, None]


def coverage(masks: npt.NDArray[np.bool_]) -> torch.Tensor:
    """(P, H, W) masks to (P, 1, H / 4, W / 4) coverages in [0, 1]."""
    return F.avg_pool2d(torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None], STRIDE)
