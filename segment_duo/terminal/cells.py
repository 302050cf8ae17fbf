"""Characters of 4, 6 or 8 dots: finer than half cells, for fonts that have them.

    quadrants  2 x 2   ▘▝▖▗...      Unicode 3.2, in nearly every font
    sextants   2 x 3   U+1FB00 ...  Unicode 13
    octants    2 x 4   U+1CD00 ...  Unicode 16, in few fonts yet

A character has two colours only. Which dots are foreground is chosen by the contrast within the cell: of its dots, sorted by the channel that varies
most, the split that leaves the least error (Otsu's criterion). Where that gains little over a half block, as in smooth or noisy ground, it is one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment
from rich.style import Style

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

DOTS = (2, 4)
"""Screen pixels of a cell, width and height, that all of these are made from: square ones on common fonts."""
LEAST_GAIN = 30.0
"""Grey levels squared a dot: what a finer character must gain over a half block. Noise of five levels stays below it."""

_QUADRANTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"


def _sextants() -> str:
    there = {0: " ", 0b010101: "▌", 0b101010: "▐", 63: "█"}
    return "".join(
        there.get(bits) or chr(0x1FB00 + bits - 1 - (bits > 0b010101) - (bits > 0b101010)) for bits in range(64)
    )


def _octants() -> str:
    """Those that are no other character already follow each other in the order of their bits."""
    there = {
        0x03: "\U0001fb82", 0x3F: "\U0001fb85", 0xC0: "▂", 0xFC: "▆", 0x14: "\U0001fbe6", 0x28: "\U0001fbe7",
        0x01: "\U0001cea8", 0x02: "\U0001ceab", 0x40: "\U0001cea3", 0x80: "\U0001cea0",
    }  # fmt: skip
    for quadrants, sign in enumerate(_QUADRANTS):
        there[sum((0b101 << place) for bit, place in enumerate((0, 1, 4, 5)) if quadrants >> bit & 1)] = sign
    fresh = iter(range(0x1CD00, 0x1CDE6))
    return "".join(there[bits] if bits in there else chr(next(fresh)) for bits in range(256))


SIGNS = {2: _QUADRANTS, 3: _sextants(), 4: _octants()}
"""Rows of dots -> the character for every pattern; bit 0 is the upper left dot, bit 1 the one on its right."""
_SHARES = {
    2: ((2, 2, 0, 0), (0, 0, 2, 2)),
    3: ((3, 1, 0, 0), (0, 2, 2, 0), (0, 0, 1, 3)),
    4: ((4, 0, 0, 0), (0, 4, 0, 0), (0, 0, 4, 0), (0, 0, 0, 4)),
}
"""Rows of dots -> how much of each of four screen pixels is in each row, in quarters."""


def fine_cells(pixels: Pixels, rows_of_dots: int) -> list[list[Segment]]:
    """Picture -> one segment a cell, row by row.

    Args:
        pixels: uint8, shape (4 * rows, 2 * columns, 3).
        rows_of_dots: 2 quadrants, 3 sextants, 4 octants.
    """
    import numpy as np

    height, width = pixels.shape[0] // 4, pixels.shape[1] // 2
    blocks = pixels.reshape(height, 4, width, 2, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 4, 2, 3).astype(np.float32)
    shares = np.array(_SHARES[rows_of_dots], np.float32)
    dots = np.einsum("rp,npcv->nrcv", shares / shares.sum(axis=1, keepdims=True), blocks)
    dots = dots.reshape(len(blocks), 2 * rows_of_dots, 3)
    bits, low, high, gain = _split(dots)
    upper, lower = blocks[:, :2].mean(axis=(1, 2)), blocks[:, 2:].mean(axis=(1, 2))
    halves_gain = ((upper - lower) ** 2).sum(axis=1) / 4
    fine = gain - halves_gain > LEAST_GAIN * 3
    signs = np.where(fine, bits, -1)
    front, back = np.where(fine[:, None], high, upper), np.where(fine[:, None], low, lower)
    keys = np.stack([_packed(front), _packed(back), signs + 1], axis=1)
    values, index = np.unique(keys, axis=0, return_inverse=True)
    table = SIGNS[rows_of_dots]
    made = [fine_cell(int(f), int(b), "▀" if s == 0 else table[s - 1]) for f, b, s in values.tolist()]
    return [[made[i] for i in row] for row in index.reshape(height, width)]


def _split(dots: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats, Floats]:
    """Two groups of a cell's dots: bits of the brighter one, both means (N, 3), and by how much the error falls, per dot.

    Args:
        dots: float32, shape (N, n, 3).
    """
    import numpy as np

    count = dots.shape[1]
    spread = dots.max(axis=1) - dots.min(axis=1)
    channel = spread.argmax(axis=1)
    values = np.take_along_axis(dots, channel[:, None, None], axis=2)[..., 0]
    order = np.argsort(values, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(dots, order[..., None], axis=1), axis=1)
    sizes = np.arange(1, count, dtype=np.float32)[None, :, None]
    low = sums[:, :-1] / sizes
    high = (sums[:, -1:] - sums[:, :-1]) / (count - sizes)
    gains = ((high - low) ** 2).sum(axis=2) * (sizes * (count - sizes))[..., 0] / count**2
    best = gains.argmax(axis=1)
    rank = np.argsort(order, axis=1, kind="stable")
    bits = ((rank > best[:, None]) << np.arange(count)).sum(axis=1)
    here = np.arange(len(dots))
    return bits, low[here, best], high[here, best], gains[here, best]


def _packed(colours: Floats) -> npt.NDArray[np.int64]:
    """0xRRGGBB with 64 levels a channel: fewer styles to make and to send, no visible difference."""
    import numpy as np

    whole = np.clip(np.rint(colours), 0, 255).astype(np.int64) & 0xFC
    return np.asarray(whole[:, 0] << 16 | whole[:, 1] << 8 | whole[:, 2])


@lru_cache(65536)
def fine_cell(front: int, back: int, sign: str) -> Segment:
    """One cell, colours as 0xRRGGBB."""
    if front == back:
        return Segment(" ", Style(bgcolor=_colour(back)))
    return Segment(sign, Style(color=_colour(front), bgcolor=_colour(back)))


@lru_cache(65536)
def _colour(value: int) -> Color:
    return Color.from_rgb(value >> 16, value >> 8 & 255, value & 255)
