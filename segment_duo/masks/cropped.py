"""A mask inside its rectangle: what a mask of a large image is worked on with, without ever making its canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.boxes import EMPTY, Window, Xywh

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.types import Rle


@dataclass(frozen=True, eq=False, slots=True)
class CroppedMask:
    """A binary mask inside its rectangle. ``pixels``: bool (rows, cols); ``left``, ``top``: place of its first pixel."""

    pixels: npt.NDArray[np.bool_]
    left: int
    top: int

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> CroppedMask:
        """A whole mask, bool (height, width), in the smallest rectangle that holds it."""
        return trim(cls(mask, 0, 0))

    @classmethod
    def of_rle(cls, rle: Rle) -> CroppedMask:
        """A whole mask in the smallest rectangle that holds it."""
        from segment_duo.masks.rle import cut_out

        return cls(*cut_out(rle))

    @property
    def box(self) -> Xywh:
        """The rectangle; four zeros for an empty mask."""
        rows, cols = self.pixels.shape
        return (float(self.left), float(self.top), float(cols), float(rows)) if rows else EMPTY

    @property
    def window(self) -> Window:
        """The rectangle."""
        rows, cols = self.pixels.shape
        return self.left, self.top, self.left + cols, self.top + rows

    @property
    def area(self) -> int:
        return int(self.pixels.sum())

    def rle(self, height: int, width: int) -> Rle:
        """COCO RLE of the mask on a canvas of this size in pixels."""
        from segment_duo.masks.rle import encode_crop

        return encode_crop(self.pixels, self.left, self.top, height, width)


def trim(mask: CroppedMask) -> CroppedMask:
    """The same mask in the smallest rectangle that holds it."""
    import numpy as np

    rows = np.flatnonzero(mask.pixels.any(axis=1))
    if not len(rows):
        return CroppedMask(mask.pixels[:0, :0], 0, 0)
    cols = np.flatnonzero(mask.pixels.any(axis=0))
    inner = mask.pixels[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return CroppedMask(inner, mask.left + int(cols[0]), mask.top + int(rows[0]))


def common_pixels(a: CroppedMask, b: CroppedMask, dx: int = 0, dy: int = 0) -> int:
    """How many pixels ``a``, moved by (dx, dy), shares with ``b``."""
    import numpy as np

    ax0, ay0, ax1, ay1 = a.window
    bx0, by0, bx1, by1 = b.window
    ax0, ay0, ax1, ay1 = ax0 + dx, ay0 + dy, ax1 + dx, ay1 + dy
    x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    if x0 >= x1 or y0 >= y1:
        return 0
    mine = a.pixels[y0 - ay0 : y1 - ay0, x0 - ax0 : x1 - ax0]
    return int(np.count_nonzero(mine & b.pixels[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0]))
