"""The text cells that stand on the picture: points, ids, scale bar, cross-hair. Pure: what is where comes in, cells come out.

Each sign takes its ground from the picture below it, so that it blends in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.color import Color
from rich.segment import Segment
from rich.style import Style

from segment_duo.boxes import middle
from segment_duo.terminal.compose import EXCLUDE, INCLUDE
from segment_duo.terminal.viewport import Viewport
from segment_duo.types import Mask, PixelSize, Point

Cells = dict[tuple[int, int], Segment]
"""(column, row) -> what stands there."""

_BRIGHT = Color.from_rgb(255, 190, 60)
_DARK = Color.from_rgb(120, 40, 0)
_POINTS = {
    1: Segment("+", Style(color=Color.from_rgb(255, 255, 255), bgcolor=Color.from_rgb(*INCLUDE), bold=True)),
    0: Segment("×", Style(color=Color.from_rgb(255, 255, 255), bgcolor=Color.from_rgb(*EXCLUDE), bold=True)),
}


@dataclass
class Marks:
    """One set of text cells in the making.

    Attributes:
        view: where image pixels are.
        ground: the picture as cells, row by row, for the colours below the signs.
    """

    view: Viewport
    ground: Sequence[Sequence[Segment]]
    cells: Cells

    def points(self, points: Sequence[Point]) -> None:
        for point in points:
            cell = self._cell_of(point.x, point.y)
            if cell is not None:
                self.cells[cell] = _POINTS[point.label]

    def corner(self, x: float, y: float) -> None:
        """The first end of a box, a cut or a distance."""
        cell = self._cell_of(x, y)
        if cell is not None:
            self.cells[cell] = Segment("┌", Style(color=_BRIGHT, bold=True) + self._ground(cell))

    def numbers(self, masks: Sequence[Mask]) -> None:
        """The ids, each in the middle of its mask; where two would touch, the larger mask's stays."""
        view = self.view
        for mask in sorted(masks, key=lambda mask: -mask.area):
            column, row = (int(value) for value in view.to_cell(*middle(mask.bbox)))
            text = str(mask.id)
            column -= len(text) // 2
            cells = [(column + offset, row) for offset in range(-1, len(text) + 1)]
            inside = 0 <= row < view.rows and column >= 0 and column + len(text) <= view.columns
            if inside and mask.id >= 0 and not any(cell in self.cells for cell in cells):
                self._write(column, row, text)

    def scale_bar(self, pixel_size: PixelSize, cross_hair: tuple[int, int] | None) -> None:
        """A bar of a round length in a lower corner, true to a cell; out of the cross-hair's way."""
        from segment_duo.masks.overlay import bar_length

        view = self.view
        x0, _, x1, y1 = view.visible()
        length, text = bar_length(max(1, int(x1 - x0)), pixel_size)
        cells = max(1, round(length / view.scale / view.cell_width))
        right = min(view.columns, int(view.to_cell(x1 - 1, 0)[0]) + 1) - 1
        row = min(view.rows, int(view.to_cell(0, y1 - 1)[1]) + 1) - 2
        bar = "├" + "─" * (cells - 2) + "┤" if cells > 1 else "│"
        left = right - max(len(bar), len(text))
        near = view.to_cell(*cross_hair) if cross_hair is not None else (0.0, 0.0)
        if near[0] > left - 8 and near[1] > row - 4:
            right = max(0, int(view.to_cell(x0, 0)[0])) + 1 + max(len(bar), len(text))
            left = right - max(len(bar), len(text))
        if row >= 1 and left >= 0 and right <= view.columns:
            self._write(right - len(text), row - 1, text)
            self._write(right - len(bar), row, bar)

    def cross(self, cross_hair: tuple[int, int], *, dot: bool) -> None:
        """The cross-hair. ``dot``: light the very dot of its cell, where the picture is made of characters."""
        view = self.view
        x, y = view.to_cell(*cross_hair)
        column, row = int(x), int(y)
        arms = [((column + d, row), "─") for d in (-3, -2, -1, 1, 2, 3)] + [((column, row + d), "│") for d in (-1, 1)]
        for cell, sign in arms:
            if 0 <= cell[0] < view.columns and 0 <= cell[1] < view.rows and cell not in self.cells:
                ground = self._ground(cell)
                self.cells[cell] = Segment(sign, Style(color=_contrast(ground), bold=True) + ground)
        here = (column, row)
        if dot and 0 <= column < view.columns and 0 <= row < view.rows and here not in self.cells:
            upper, lower = self._colours(here)
            lit = _contrast(Style(bgcolor=lower))
            top = y - row < 0.5
            right = view.cell_width > 1 and x - column >= 0.5
            sign = ("▀▀" if top else "▄▄") if view.cell_width == 1 else ("▘▝" if top else "▖▗")
            self.cells[here] = Segment(sign[right], Style(color=lit, bgcolor=lower if top else upper))

    def _write(self, column: int, row: int, text: str) -> None:
        for offset, sign in enumerate(text):
            cell = (column + offset, row)
            ground = self._ground(cell)
            self.cells[cell] = Segment(sign, Style(color=_contrast(ground), bold=True) + ground)

    def _cell_of(self, x: float, y: float) -> tuple[int, int] | None:
        column, row = self.view.to_cell(x, y)
        return (int(column), int(row)) if self.view.contains(x, y) else None

    def _colours(self, cell: tuple[int, int]) -> tuple[Color | None, Color | None]:
        """Foreground and background of the picture's own cell; with half cells the upper and the lower dot."""
        column, row = cell
        if row >= len(self.ground) or column >= len(self.ground[row]):
            return None, None
        style = self.ground[row][column].style or Style()
        return (style.color or style.bgcolor), style.bgcolor

    def _ground(self, cell: tuple[int, int]) -> Style:
        return Style(bgcolor=self._colours(cell)[1])


def _contrast(ground: Style) -> Color:
    """Bright on dark, dark on bright."""
    colour = ground.bgcolor
    if colour is None or colour.triplet is None:
        return _BRIGHT
    red, green, blue = colour.triplet
    return _DARK if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else _BRIGHT
