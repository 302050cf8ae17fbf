"""From stored samples to the 8 bits that the model and the screen see.

8-bit samples pass untouched. Everything else (16 and 32 bit, signed, float) is stretched linearly between two percentiles of the
**cut** image, because the banner's pure black and white would otherwise be the extremes. Clipping to 0..255, as ``Image.convert`` does, turns
12-bit data in a 16-bit file 93 % white.

This module must not decode files or look for banners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PERCENTILES = (0.1, 99.9)
"""Lower and upper percentile of the stretch: robust to hot and dead pixels, and on noise-free data the same as minimum and maximum."""

_MAX_SAMPLES = 4_000_000
_CHUNK_SAMPLES = 4_000_000


@dataclass(frozen=True, slots=True)
class Stretched:
    """``pixels``: uint8 of the input's shape. ``description``: what was done, for ``ImageFacts.stretch`` (``none`` when nothing was)."""

    pixels: npt.NDArray[np.uint8]
    description: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The two samples that become 0 and 255, and the words for ``ImageFacts.stretch``; equal ones are those of constant images."""

    low: float
    high: float
    description: str


def stretch_to_uint8(
    samples: npt.NDArray[Any],
    *,
    lower: float = PERCENTILES[0],
    upper: float = PERCENTILES[1],
    limits: Limits | None = None,
) -> Stretched:
    """Map ``samples`` of any real dtype and shape to uint8.

    uint8 is returned as it is and bool becomes 0 or 255. Other types are mapped linearly so that the percentiles ``lower`` and ``upper``
    become 0 and 255; all channels of a colour image share them, which keeps the colours. Percentiles of 8- and 16-bit integers are exact;
    of wider types they are taken from at most 4 million evenly spaced samples, so the result is deterministic. NaN counts as the darkest
    value; infinities are clipped. When the percentiles coincide the minimum and maximum are used, and a constant image
    becomes 0. ``limits`` (of a whole sequence) replace the image's own.

    Raises:
        ValueError: complex or other samples that are not real numbers.
    """
    import numpy as np

    if samples.dtype == np.uint8:
        return Stretched(samples, "none")
    if samples.dtype == np.bool_:
        return Stretched(samples.astype(np.uint8) * np.uint8(255), "black and white as 0 and 255")
    if samples.dtype.kind not in "iuf":
        raise ValueError(f"samples of type {samples.dtype} cannot be shown")
    if limits is None:
        low, high, constant = _limits(samples, lower, upper)
        if constant:
            return Stretched(np.zeros(samples.shape, np.uint8), f"constant image, value {low:.6g}")
        note = f"percentiles {lower:g}-{upper:g} of the cut image: {low:.6g}..{high:.6g} to 0..255"
    else:
        low, high, note = limits.low, limits.high, limits.description
        if low == high:
            return Stretched(np.zeros(samples.shape, np.uint8), note)
    if samples.dtype.kind in "iu" and samples.dtype.itemsize <= 2:
        return Stretched(_by_table(samples, low, high), note)
    return Stretched(_by_chunks(samples, low, high), note)


def limits_of(parts: Sequence[npt.NDArray[Any]], what: str) -> Limits | None:
    """Common limits of several images, by the same percentiles; None where nothing is stretched (8 bits, black and white).

    Args:
        parts: samples of one dtype, any shapes; a few million in all are enough.
        what: which images they are, for the description (``16 of 200 frames``).
    """
    import numpy as np

    if not parts or parts[0].dtype in {np.dtype(np.uint8), np.dtype(np.bool_)}:
        return None
    low, high, constant = _limits(np.concatenate([part.ravel() for part in parts]), *PERCENTILES)
    if constant:
        return Limits(low, low, f"constant in {what}, value {low:.6g}")
    return Limits(
        low, high, f"percentiles {PERCENTILES[0]:g}-{PERCENTILES[1]:g} of {what}: {low:.6g}..{high:.6g} to 0..255"
    )


def _limits(samples: npt.NDArray[Any], lower: float, upper: float) -> tuple[float, float, bool]:
    """The two values that become 0 and 255, and whether all finite samples are equal."""
    import numpy as np

    if samples.dtype.kind in "iu" and samples.dtype.itemsize <= 2:
        info = np.iinfo(samples.dtype)
        counts = np.zeros(info.max - info.min + 1, np.int64)
        for chunk in _chunks(samples):
            counts += np.bincount(chunk.astype(np.int32).ravel() - info.min, minlength=counts.size)
        total = np.cumsum(counts)
        ranks = [share / 100 * (total[-1] - 1) for share in (0, lower, upper, 100)]
        least, low, high, most = (float(np.searchsorted(total, int(rank) + 1)) + info.min for rank in ranks)
    else:
        flat = samples.reshape(-1)
        part = flat[:: max(1, -(-flat.size // _MAX_SAMPLES))]
        part = part[np.isfinite(part)] if samples.dtype.kind == "f" else part
        if part.size == 0:
            return 0.0, 0.0, True
        least, low, high, most = (float(v) for v in np.percentile(part, (0, lower, upper, 100)))
        if least == most:
            least, most = _finite_extremes(samples)
    if low == high:
        low, high = least, most
    return low, high, low == high


def _finite_extremes(samples: npt.NDArray[Any]) -> tuple[float, float]:
    import numpy as np

    low, high = np.inf, -np.inf
    for chunk in _chunks(samples):
        finite = chunk[np.isfinite(chunk)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return low, high


def _chunks(samples: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Views of whole rows, so that no wide copy of a 100-megapixel image is ever made."""
    per_row = max(1, samples.size // max(1, len(samples)))
    step = max(1, _CHUNK_SAMPLES // per_row)
    return [samples[start : start + step] for start in range(0, len(samples), step)]


def _by_table(samples: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    import numpy as np

    info = np.iinfo(samples.dtype)
    levels = np.arange(info.min, info.max + 1, dtype=np.float64)
    table = np.clip(np.rint((levels - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    if info.min == 0:
        by_table: npt.NDArray[np.uint8] = table[samples]
        return by_table
    out = np.empty(samples.shape, np.uint8)
    step_start = 0
    for chunk in _chunks(samples):
        out[step_start : step_start + len(chunk)] = table[chunk.astype(np.int32) - info.min]
        step_start += len(chunk)
    return out


def _by_chunks(samples: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    import numpy as np

    out = np.empty(samples.shape, np.uint8)
    start = 0
    for chunk in _chunks(samples):
        # Halving first keeps the difference of two huge floats finite.
        scaled = (chunk.astype(np.float64) / 2 - low / 2) / (high / 2 - low / 2)
        scaled = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0)
        out[start : start + len(chunk)] = np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)
        start += len(chunk)
    return out
