"""Showing a part of an image at any size, fast, from overview levels.

The part is a rectangle in *edges*, which measure the area: pixel i covers [i, i + 1), so the whole image is 0..width. *Image points*, where
the centre of the first pixel is (0, 0), lie half a pixel before them; the terminal UI's viewport converts.

This module must not know of terminals, masks or colours of a theme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

OUTSIDE = (24, 24, 28)
"""RGB of what lies beyond the image."""

_SMALLEST_LEVEL = 256
_SHARP_ZOOM = 2.5  # from here on, single pixels are shown as squares
_STRIP_ROWS = 1024


class Pyramid:
    """An image and its halved copies, from which any part is drawn at any size in a time that depends on the output only.

    Args:
        pixels: uint8, shape (H, W, 3). Kept, not copied; the copies add a third of its size.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._levels = [pixels]
        while min(self._levels[-1].shape[:2]) >= 2 and max(self._levels[-1].shape[:2]) > 2 * _SMALLEST_LEVEL:
            self._levels.append(_halved(self._levels[-1]))
        self._tables: dict[float, npt.NDArray[np.uint8]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        height, width = self._levels[0].shape[:2]
        return width, height

    def render(
        self, x0: float, y0: float, x1: float, y1: float, out_w: int, out_h: int, contrast: float = 0.0
    ) -> npt.NDArray[np.uint8]:
        """Draw the rectangle x0..x1, y0..y1 (edges, may reach beyond the image) as uint8 (out_h, out_w, 3).

        Reduced views are averaged; from 2.5 times enlargement on, pixels are squares. With ``contrast`` C, a
        percentage below 50, the levels between the percentiles C and 100 - C of the whole image are spread over 0..255, so that panning does not
        change the brightness.

        Raises:
            ValueError: an empty rectangle or output.
        """
        import numpy as np

        if not (x1 > x0 and y1 > y0 and out_w > 0 and out_h > 0):
            raise ValueError("nothing to draw: the rectangle or the output is empty")
        width, height = self.size
        out = np.empty((out_h, out_w, 3), np.uint8)
        out[:] = OUTSIDE
        columns = _covered(x0, x1, width, out_w)
        rows = _covered(y0, y1, height, out_h)
        if columns is None or rows is None:
            return out
        left, right, low_x, high_x = columns
        top, bottom, low_y, high_y = rows
        part = self._scaled((low_x, low_y, high_x, high_y), right - left, bottom - top)
        out[top:bottom, left:right] = self._contrast_table(contrast)[part] if contrast else part
        return out

    def _scaled(self, box: tuple[float, float, float, float], out_w: int, out_h: int) -> npt.NDArray[np.uint8]:
        """The box (edges of the full image, inside it) at ``out_w`` x ``out_h`` from the coarsest level that is still fine enough."""
        import numpy as np
        from PIL import Image

        step = min((box[2] - box[0]) / out_w, (box[3] - box[1]) / out_h)
        number = min(len(self._levels) - 1, max(0, int(np.floor(np.log2(max(step, 1e-9))))))
        level = self._levels[number]
        # Odd sizes are rounded up when halved, so the factor is the power of two, not the ratio of the sizes.
        x0, y0, x1, y1 = (edge / 2**number for edge in box)
        first_x, first_y = max(0, int(x0) - 2), max(0, int(y0) - 2)
        last_x, last_y = min(level.shape[1], int(np.ceil(x1)) + 2), min(level.shape[0], int(np.ceil(y1)) + 2)
        piece = Image.fromarray(np.ascontiguousarray(level[first_y:last_y, first_x:last_x]))
        zoom = max(out_w / (x1 - x0), out_h / (y1 - y0))
        how = Image.Resampling.NEAREST if number == 0 and zoom >= _SHARP_ZOOM else Image.Resampling.BILINEAR
        inner = (
            max(0.0, x0 - first_x),
            max(0.0, y0 - first_y),
            min(float(piece.width), x1 - first_x),
            min(float(piece.height), y1 - first_y),
        )
        return np.asarray(piece.resize((out_w, out_h), how, box=inner))

    def _contrast_table(self, cut: float) -> npt.NDArray[np.uint8]:
        """256 levels, computed once for each window from an overview of the image."""
        import numpy as np

        if cut not in self._tables:
            overview = next((level for level in self._levels if level.size <= 3 * 2**20), self._levels[-1])
            low, high = (float(v) for v in np.percentile(overview, (cut, 100 - cut)))
            spread = (np.arange(256) - low) * (255 / max(1.0, high - low))
            self._tables[cut] = np.clip(np.rint(spread), 0, 255).astype(np.uint8)
        return self._tables[cut]


def _covered(low: float, high: float, size: int, out: int) -> tuple[int, int, float, float] | None:
    """Output pixels first..last that show the image along one axis, and the edges of the image they cover; None if there are none."""
    if high <= 0 or low >= size:
        return None
    step = (high - low) / out
    first = max(0, round(-low / step)) if low < 0 else 0
    last = min(out, round((size - low) / step)) if high > size else out
    if last <= first:  # less than half an output pixel is covered: still show it
        first = min(out - 1, int((max(0.0, low) - low) / step))
        last = first + 1
    start, end = max(0.0, low + first * step), min(float(size), low + last * step)
    return first, last, start, end


def _halved(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Half the size by averaging 2 x 2, in strips: Pillow keeps RGB in four bytes, which a 100-megapixel image should not pay at once."""
    import numpy as np
    from PIL import Image

    height, width = pixels.shape[:2]
    out = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    for start in range(0, height, _STRIP_ROWS):
        strip = Image.fromarray(np.ascontiguousarray(pixels[start : start + _STRIP_ROWS])).reduce(2)
        out[start // 2 : start // 2 + strip.height] = np.asarray(strip)
    return out
