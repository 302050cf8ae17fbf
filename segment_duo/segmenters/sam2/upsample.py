"""From low-res logits to masks at image size, touching only the pixels that can belong to a mask.

Stock up-samples every mask to the whole image and then looks at it several times. Here the rows and columns that can exceed a
threshold are found on the low-res logits first (bilinear interpolation never exceeds its four neighbours), and only that rectangle is
up-sampled, as two small matrix products with torch's own interpolation weights. These round differently from ``F.interpolate``, so a pixel
whose value lies within the rounding bound of a threshold is settled by ``F.interpolate`` itself: decisions equal stock's, always.

Coordinates are those of the crop or tile the logits belong to. This module must not know prompts or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.masks.cropped import CroppedMask, trim

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ROUNDING = 1e-6
"""Bound of |ours - torch's| relative to the largest of the four neighbours: twice two levels of at most three roundings (12 * 2^-24)."""

DIRECT_SHARE = 0.35
"""Above this share of the rectangle that ``F.interpolate`` would compute anyway, it is the cheaper of the two."""


@dataclass(frozen=True, eq=False, slots=True)
class LowRes:
    """The part of a mask's low-res logits that can exceed ``level`` at image size, with one row and column around it.

    Attributes:
        logits: float32 (rows, cols), on the CPU unless the device is an accelerator; empty when nothing can exceed ``level``.
        top, left: its place in the full low-res mask.
        level: the threshold that was used to cut it out; lower ones cannot be answered from it.
        finite: whether all logits of the mask are finite.
    """

    logits: Tensor
    top: int
    left: int
    level: float
    finite: bool

    @property
    def nbytes(self) -> int:
        return self.logits.numel() * self.logits.element_size()


@dataclass(frozen=True, eq=False, slots=True)
class FilterValues:
    """What the filters of automatic generation need.

    ``stability``: float32 (), ``intersection / union`` as stock divides it (NaN for 0 / 0); ``box``: int64 (4,) XYXY with inclusive ends,
    zeros for an empty mask.
    """

    stability: Tensor
    box: Tensor


def cut_out(logits: Tensor, level: float) -> list[LowRes]:
    """Cut low-res logits, float32 (N, h, w), down to what can exceed ``level``."""
    if not len(logits):
        return []
    peak = logits.abs().amax((1, 2))
    finite = torch.isfinite(peak)
    # The margin covers rounding in the interpolation, which can pass the largest neighbour by a few ulps.
    above = logits > (level - ROUNDING * peak.nan_to_num(0.0, 0.0, 0.0) - 1e-12)[:, None, None]
    spans = torch.stack([*_span(above.any(2)), *_span(above.any(1))], dim=1).tolist()
    out = []
    for mask, (r0, r1, c0, c1), sound in zip(logits, spans, finite.tolist(), strict=True):
        if not sound:
            out.append(LowRes(mask.clone(), 0, 0, level, False))
        elif r1 < r0:
            out.append(LowRes(mask[:0, :0].clone(), 0, 0, level, True))
        else:
            top, left = max(r0 - 1, 0), max(c0 - 1, 0)
            out.append(LowRes(mask[top : r1 + 2, left : c1 + 2].clone(), top, left, level, True))
    return out


class Upsampler:
    """Up-samples low-res masks (h, w) to an image of (height, width) pixels.

    Args:
        low: height and width of the low-res masks.
        size: height and width of the image, crop or tile.
        canvas: height and width in image pixels of what the low-res masks show, where that is more than the image: SAM 1 pads it right and
            below to a square. None for the image itself.
    """

    def __init__(
        self,
        low: tuple[int, int],
        size: tuple[int, int],
        device: torch.device,
        canvas: tuple[int, int] | None = None,
    ) -> None:
        self.low = low
        self.size = size
        self.canvas = canvas or size
        self.device = device
        self.rows = _axis(low[0], self.canvas[0], device).until(size[0])
        self.cols = _axis(low[1], self.canvas[1], device).until(size[1])

    def measure(self, mask: LowRes, threshold: float, offset: float) -> FilterValues:
        """Stability score and box of one mask."""
        import numpy as np

        high, low = threshold + offset, threshold - offset
        window, left, top = self._window(mask, min(high, low, threshold), (threshold, high, low))
        if window is None:
            zero = torch.zeros((), dtype=torch.int32)
            return FilterValues(zero / zero, torch.zeros(4, dtype=torch.int64))
        # int16 along the rows, as in stock: it wraps above 32,767 pixels, and so must we.
        inside, around = (
            torch.tensor(_above(window, value).sum(1, dtype=np.int16).sum(dtype=np.int32)) for value in (high, low)
        )
        return FilterValues(inside / around, _box(_above(window, threshold), left, top))

    def binary(self, mask: LowRes, threshold: float) -> CroppedMask:
        """The mask at image size, inside its rectangle."""
        import numpy as np

        window, left, top = self._window(mask, threshold, (threshold,))
        if window is None:
            return CroppedMask(np.zeros((0, 0), dtype=bool), 0, 0)
        return trim(CroppedMask(_above(window, threshold), left, top))

    def _window(self, mask: LowRes, level: float, thresholds: tuple[float, ...]) -> tuple[Tensor | None, int, int]:
        """Up-sampled logits around everything above ``level``, on the right side of each threshold; with their left and top."""
        import numpy as np

        if level < mask.level:
            raise ValueError("these logits were cut at a higher threshold")
        if not mask.finite:
            return self._direct(mask, 0, 0, *self.size), 0, 0
        peak = float(mask.logits.abs().max()) if mask.logits.numel() else 0.0
        above = _above(mask.logits, level - ROUNDING * peak - 1e-12)
        rows, cols = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
        if not len(rows):
            return None, 0, 0
        top, bottom = self.rows.reach(int(rows[0]) + mask.top, int(rows[-1]) + mask.top)
        left, right = self.cols.reach(int(cols[0]) + mask.left, int(cols[-1]) + mask.left)
        pixels = (bottom - top) * (right - left)
        if not pixels:  # all of it lies in the padding
            return None, 0, 0
        if self.device.type != "cpu" or pixels > DIRECT_SHARE * bottom * right:
            return self._direct(mask, top, left, bottom, right), left, top
        window = self._product(mask, top, left, bottom, right)
        if self._doubtful(mask, window, top, left, thresholds):
            window = self._direct(mask, top, left, bottom, right)
        return window, left, top

    def _product(self, mask: LowRes, top: int, left: int, bottom: int, right: int) -> Tensor:
        rows = self.rows.weights[top:bottom, mask.top : mask.top + mask.logits.shape[0]]
        cols = self.cols.weights[left:right, mask.left : mask.left + mask.logits.shape[1]]
        return rows @ (mask.logits @ cols.T)

    def _doubtful(self, mask: LowRes, window: Tensor, top: int, left: int, thresholds: tuple[float, ...]) -> bool:
        """Whether rounding could have put a pixel on the wrong side of a threshold."""
        import numpy as np

        logits, values = mask.logits.numpy(), window.numpy()
        peak = float(np.abs(logits).max())
        for value in thresholds:
            at = np.float32(value)
            near = np.abs(values - at) <= np.float32(ROUNDING * peak)
            if not near.any():
                continue
            y, x = near.nonzero()
            # Most of these are far from their own neighbours' bound: the largest logit of the mask is elsewhere.
            row, col = self.rows.first[y + top] - mask.top, self.cols.first[x + left] - mask.left
            rows = np.stack([row, row + 1]).clip(0, logits.shape[0] - 1)
            cols = np.stack([col, col + 1]).clip(0, logits.shape[1] - 1)
            local = np.abs(logits[rows[:, None], cols[None, :]]).max((0, 1)).clip(min=abs(value))
            if bool((np.abs(values[y, x] - at) <= ROUNDING * local).any()):
                return True
        return False

    def _direct(self, mask: LowRes, top: int, left: int, bottom: int, right: int) -> Tensor:
        """``F.interpolate``'s own values. It cannot start in the middle of an image, but it can end there."""
        rows, cols = self.low
        # Cut low-res logits are put back into place; what surrounds them does not reach the rectangle that is asked for.
        if mask.logits.shape != self.low:
            full = mask.logits.new_full(self.low, mask.level - 1.0)
            full[mask.top : mask.top + mask.logits.shape[0], mask.left : mask.left + mask.logits.shape[1]] = mask.logits
        else:
            full = mask.logits
        scales = (_scale(rows, self.canvas[0]), _scale(cols, self.canvas[1]))
        # Along an axis whose output is as long as its input the kernel copies, whatever the scale: one more is asked for there.
        asked = [bottom + (bottom == rows != self.canvas[0]), right + (right == cols != self.canvas[1])]
        up = torch.ops.aten.upsample_bilinear2d(full[None, None], asked, False, *scales)
        return up[0, 0, top:bottom, left:right]  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class _Axis:
    """Interpolation along one axis. ``weights``: float32 (out, in), two per row; ``first``: int64 (out,), the first neighbour."""

    weights: Tensor
    first: npt.NDArray[np.int64]

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """Outputs (start, stop) that have an input of ``first``..``last`` (inclusive) among their neighbours."""
        start = int(self.first.searchsorted(first - 1)) if first > 0 else 0
        return start, int(self.first.searchsorted(last, side="right"))

    def until(self, stop: int) -> _Axis:
        """The first ``stop`` outputs alone."""
        return self if stop == len(self.first) else _Axis(self.weights[:stop], self.first[:stop])


@lru_cache(maxsize=32)
def _axis(inputs: int, outputs: int, device: torch.device) -> _Axis:
    """Ask torch for its weights: interpolate four combs, each with a tooth at every fourth input."""
    combs = torch.zeros(4, inputs, device=device)
    for residue in range(4):
        combs[residue, residue::4] = 1.0
    # Four rows in, four rows out: nothing is interpolated along the other axis.
    shares = F.interpolate(combs[None, None], (4, outputs), mode="bilinear", align_corners=False)[0, 0].cpu()
    ratio = inputs / outputs
    centre = ((torch.arange(outputs, dtype=torch.float64) + 0.5) * ratio - 0.5).clamp(min=0)
    near = centre.round().to(torch.int64) - 2 if inputs >= 4 else torch.zeros(outputs, dtype=torch.int64)
    weights = torch.zeros(outputs, inputs)
    for step in range(4):
        index = near + step
        valid = (index >= 0) & (index < inputs)
        share = shares[index.remainder(4), torch.arange(outputs)]
        weights[valid.nonzero().flatten(), index[valid]] = share[valid]
    first = (weights > 0).to(torch.int8).argmax(dim=1)
    return _Axis(weights=weights.to(device), first=first.numpy())


def _scale(inputs: int, outputs: int) -> float:
    """The scale factor that gives the kernel the very step it derives from the sizes: float32(inputs) / float32(outputs)."""
    step = torch.tensor(float(inputs)) / torch.tensor(float(outputs))
    return 1.0 / float(step)


def _span(hits: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true index along the last axis of bool (N, L); last < first where there is none."""
    length = hits.shape[-1]
    if length == 0:
        zero = torch.zeros(hits.shape[0], dtype=torch.int64, device=hits.device)
        return zero, zero - 1
    as_int = hits.to(torch.int8)
    some = hits.any(-1)
    first = as_int.argmax(-1)
    last = length - 1 - as_int.flip(-1).argmax(-1)
    return first, torch.where(some, last, -1)


def _above(window: Tensor, value: float) -> npt.NDArray[np.bool_]:
    """Pixels above a threshold, which is rounded to float32 first, as torch does with a Python number."""
    import numpy as np

    if window.device.type != "cpu":
        return (window > value).cpu().numpy()
    # NumPy on purpose: its comparisons and sums of booleans take a sixth of torch's time (3 megapixels: 0.3 against 1.4 and 2.4 ms).
    above: npt.NDArray[np.bool_] = window.numpy() > np.float32(value)
    return above


def _box(binary: npt.NDArray[np.bool_], left: int, top: int) -> Tensor:
    """``batched_mask_to_box`` for one mask inside a window."""
    import numpy as np

    rows, cols = np.flatnonzero(binary.any(1)), np.flatnonzero(binary.any(0))
    if not len(rows):
        return torch.zeros(4, dtype=torch.int64)
    return torch.tensor([cols[0] + left, rows[0] + top, cols[-1] + left, rows[-1] + top], dtype=torch.int64)
