"""The loupe: the neighbourhood of the cross-hair, pixel by pixel, as half cells with every kind of terminal.

It is what makes a cell-wide cross-hair exact to the pixel. Text only: a few hundred cells, however large the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from segment_duo.terminal import graphics
from segment_duo.terminal.compose import EXCLUDE, GREEN, INCLUDE, YELLOW, MaskCrops
from segment_duo.types import Mask, Point

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.images.view import Pyramid

ZOOMS = (2, 1, 0)
"""Dots per image pixel, in the order in which the key goes through them; 0 = off. A dot is half a cell: about 8 pixels of a usual screen."""


class Loupe(Widget, can_focus=False):
    """Shows the pixels around one pixel, the mask that is being made, and the points."""

    DEFAULT_CSS = """
    Loupe { height: 11; background: $surface; border-top: solid $border; border-title-color: $text-muted; border-title-align: left; }
    Loupe.-off { display: none; }
    """

    def __init__(self) -> None:
        super().__init__(id="loupe")
        self.zoom = ZOOMS[0]
        self._pyramid: Pyramid | None = None
        self._at: tuple[int, int] | None = None
        self._stretch = 0.0
        self._mask: Mask | None = None
        self._points: tuple[Point, ...] = ()
        self._crops = MaskCrops(16 * 2**20)
        self._rows: list[list[Segment]] | None = None

    def look_at(
        self,
        pyramid: Pyramid | None,
        at: tuple[int, int] | None,
        *,
        stretch: float,
        mask: Mask | None,
        points: tuple[Point, ...],
    ) -> None:
        wanted = (pyramid, at, stretch, mask, points)
        if wanted != (self._pyramid, self._at, self._stretch, self._mask, self._points):
            self._pyramid, self._at, self._stretch, self._mask, self._points = wanted
            before, self._rows = self._rows, None
            now = self._made() if self.is_attached else []
            if not before or len(before) != len(now):
                self._renew()
            elif changed := [
                Region(0, row, self.content_size.width, 1) for row in range(len(now)) if now[row] != before[row]
            ]:
                self.refresh(*changed)

    def next_zoom(self) -> None:
        self.zoom = ZOOMS[(ZOOMS.index(self.zoom) + 1) % len(ZOOMS)]
        self.set_class(self.zoom == 0, "-off")
        self._renew()

    def on_resize(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._rows = None
        if self.zoom:
            columns, rows = self.content_size.width // self.zoom, 2 * self.content_size.height // self.zoom
            self.border_title = f"loupe {columns} × {rows} px"
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        rows = self._made()
        if y >= len(rows):
            return Strip.blank(width, self.rich_style)
        return Strip(rows[y], len(rows[y])).adjust_cell_length(width, self.rich_style)

    def _made(self) -> list[list[Segment]]:
        """One segment a cell; none while there is nothing to show."""
        if self._rows is None and self._pyramid is not None and self._at is not None and self.zoom:
            self._rows = graphics.half_cells(self._draw(self._pyramid, self._at))
        return self._rows or []

    def _draw(self, pyramid: Pyramid, at: tuple[int, int]) -> npt.NDArray[np.uint8]:
        import numpy as np

        zoom = self.zoom
        columns = max(1, self.content_size.width // zoom)
        rows = max(1, 2 * self.content_size.height // zoom)
        x0, y0 = at[0] - columns // 2, at[1] - rows // 2
        # Whole pixels on whole dots: one dot each, repeated below.
        pixels = pyramid.render(x0, y0, x0 + columns, y0 + rows, columns, rows, self._stretch).copy()
        if self._mask is not None:
            inside = self._mask_part(self._mask, x0, y0, columns, rows)
            pixels[inside] = (pixels[inside] * 0.6 + np.array(GREEN) * 0.4).astype(np.uint8)
        for point in self._points:
            column, row = round(point.x) - x0, round(point.y) - y0
            if 0 <= column < columns and 0 <= row < rows:
                pixels[row, column] = INCLUDE if point.label else EXCLUDE
        big = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
        _frame(big, (at[0] - x0) * zoom, (at[1] - y0) * zoom, zoom)
        return big[: big.shape[0] // 2 * 2]

    def _mask_part(self, mask: Mask, x0: int, y0: int, columns: int, rows: int) -> npt.NDArray[np.bool_]:
        import numpy as np

        x, y, bits = self._crops.get(mask.rle)
        out = np.zeros((rows, columns), bool)
        left, top = max(x, x0), max(y, y0)
        right, bottom = min(x + bits.shape[1], x0 + columns), min(y + bits.shape[0], y0 + rows)
        if left < right and top < bottom:
            out[top - y0 : bottom - y0, left - x0 : right - x0] = bits[top - y : bottom - y, left - x : right - x]
        return out


def _frame(pixels: npt.NDArray[np.uint8], x: int, y: int, zoom: int) -> None:
    """Mark the middle by four strokes that leave the pixel itself free."""
    rows, columns = pixels.shape[:2]
    for gap in range(2, 5):
        for column, row in (
            (x - gap, y),
            (x + zoom - 1 + gap, y),
            (x, y - gap),
            (x, y + zoom - 1 + gap),
        ):
            if 0 <= column < columns and 0 <= row < rows:
                pixels[row, column] = YELLOW
