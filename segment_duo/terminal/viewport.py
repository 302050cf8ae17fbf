"""Where image pixels are on the screen: the only module that converts between terminal cells and image pixels.

    image pixel   centre of the first pixel is (0, 0), as everywhere in this project
    edge          the same plane with the image's top-left corner at (0, 0): edge = pixel + 0.5
    screen pixel  the smallest dot of the picture: half a cell with half cells (square on common fonts), one real pixel with kitty and sixel
    cell          a column and a row of the canvas, fractional where the terminal reports the mouse in pixels

Pure arithmetic; no terminal, no Textual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ZOOM_STEP = 1.4142135623730951
"""Two steps of the wheel double the size."""
FINEST_SCALE = 1 / 16
"""Image pixels per screen pixel when zoomed in fully; finer shows nothing new."""


@dataclass(frozen=True, slots=True)
class Viewport:
    """The part of an image that a canvas shows.

    Attributes:
        image_width, image_height: in image pixels.
        columns, rows: of the canvas, in cells.
        cell_width, cell_height: of one cell, in screen pixels ((1, 2) with half cells).
        scale: image pixels per screen pixel.
        left, top: edge coordinates of the canvas' top-left corner; negative where the image is smaller than the canvas.
    """

    image_width: int
    image_height: int
    columns: int
    rows: int
    cell_width: int = 1
    cell_height: int = 2
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    @classmethod
    def fitted(cls, image: tuple[int, int], canvas: tuple[int, int], cell: tuple[int, int] = (1, 2)) -> Viewport:
        """The whole image, as large as the canvas allows. All sizes: width, height."""
        return cls(*image, max(1, canvas[0]), max(1, canvas[1]), *cell).fit()

    @property
    def pixel_columns(self) -> int:
        """Width of the canvas in screen pixels."""
        return self.columns * self.cell_width

    @property
    def pixel_rows(self) -> int:
        """Height of the canvas in screen pixels."""
        return self.rows * self.cell_height

    @property
    def fit_scale(self) -> float:
        """Scale at which the whole image is just visible."""
        return max(self.image_width / self.pixel_columns, self.image_height / self.pixel_rows)

    @property
    def magnification(self) -> float:
        """Screen pixels per image pixel."""
        return 1 / self.scale

    @property
    def step(self) -> int:
        """One screen pixel's worth in whole image pixels, at least 1: what an arrow key moves."""
        return max(1, round(self.scale))

    def fit(self) -> Viewport:
        return replace(self, scale=max(FINEST_SCALE, self.fit_scale))._clamped()

    def one_to_one(self, x: float, y: float) -> Viewport:
        """One image pixel on one screen pixel, with image pixel (x, y) where it is now."""
        return self._scaled(1.0, x, y)

    def zoomed(self, factor: float, x: float, y: float) -> Viewport:
        """Enlarged by ``factor``, with image pixel (x, y) where it is now, as far as the edges allow."""
        return self._scaled(self.scale / factor, x, y)

    def panned(self, right: float, down: float) -> Viewport:
        """Moved by screen pixels."""
        return replace(self, left=self.left + right * self.scale, top=self.top + down * self.scale)._clamped()

    def resized(self, columns: int, rows: int, cell: tuple[int, int]) -> Viewport:
        """For a canvas of another size: a fitted view stays fitted, another keeps its centre and its size in cells."""
        fitted = abs(self.scale - self.fit_scale) < 1e-9 * self.scale
        centre = (self.left + self.pixel_columns * self.scale / 2, self.top + self.pixel_rows * self.scale / 2)
        cell_width, cell_height = cell
        scale = self.scale * self.cell_width / cell_width
        new = replace(
            self,
            columns=max(1, columns),
            rows=max(1, rows),
            cell_width=cell_width,
            cell_height=cell_height,
            scale=scale,
        )
        if fitted:
            return new.fit()
        new = new._with_scale(scale)
        left = centre[0] - new.pixel_columns * new.scale / 2
        return replace(new, left=left, top=centre[1] - new.pixel_rows * new.scale / 2)._clamped()

    def for_image(self, width: int, height: int) -> Viewport:
        """The same view of an image of another size (the banner was cut or shown again)."""
        fitted = abs(self.scale - self.fit_scale) < 1e-9 * self.scale
        new = replace(self, image_width=width, image_height=height)
        return new.fit() if fitted else new._with_scale(new.scale)._clamped()

    def showing(self, x: float, y: float, *, margin: float = 0.08) -> Viewport:
        """Panned just far enough that image pixel (x, y) is visible, with some surroundings; itself when it is."""
        wide, high = self.pixel_columns * self.scale, self.pixel_rows * self.scale
        edge_x, edge_y = x + 0.5, y + 0.5
        left = min(max(self.left, edge_x - wide * (1 - margin)), edge_x - wide * margin)
        top = min(max(self.top, edge_y - high * (1 - margin)), edge_y - high * margin)
        return replace(self, left=left, top=top)._clamped()

    def around(self, x: float, y: float, width: float, height: float, *, margin: float = 0.25) -> Viewport:
        """The rectangle (image pixels; XYWH) as large as it fits, with some surroundings, in the middle."""
        scale = max(width / self.pixel_columns, height / self.pixel_rows) * (1 + 2 * margin)
        new = self._with_scale(scale)
        left = x + width / 2 - new.pixel_columns * new.scale / 2
        return replace(new, left=left, top=y + height / 2 - new.pixel_rows * new.scale / 2)._clamped()

    def contains(self, x: float, y: float) -> bool:
        """Whether image pixel (x, y) is on the canvas."""
        column, row = self.to_cell(x, y)
        return 0 <= column < self.columns and 0 <= row < self.rows

    def to_screen_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Image pixel -> screen pixels from the canvas' top-left corner."""
        return (x + 0.5 - self.left) / self.scale, (y + 0.5 - self.top) / self.scale

    def to_cell(self, x: float, y: float) -> tuple[float, float]:
        """Image pixel -> (column, row), fractional; the integer part is the cell."""
        right, down = self.to_screen_pixel(x, y)
        return right / self.cell_width, down / self.cell_height

    def to_image(self, column: float, row: float) -> tuple[float, float]:
        """(column, row), fractional -> image pixel, not limited to the image."""
        return (
            self.left + column * self.cell_width * self.scale - 0.5,
            self.top + row * self.cell_height * self.scale - 0.5,
        )

    def limited(self, x: float, y: float) -> tuple[int, int]:
        """The nearest whole pixel inside the image."""
        return (
            min(max(round(x), 0), self.image_width - 1),
            min(max(round(y), 0), self.image_height - 1),
        )

    def edges(self) -> tuple[float, float, float, float]:
        """Edge coordinates x0, y0, x1, y1 of the whole canvas; they may reach beyond the image."""
        return (
            self.left,
            self.top,
            self.left + self.pixel_columns * self.scale,
            self.top + self.pixel_rows * self.scale,
        )

    def visible(self) -> tuple[float, float, float, float]:
        """Edge coordinates x0, y0, x1, y1 of the visible part of the image."""
        x0, y0, x1, y1 = self.edges()
        return max(0.0, x0), max(0.0, y0), min(float(self.image_width), x1), min(float(self.image_height), y1)

    def _scaled(self, scale: float, x: float, y: float) -> Viewport:
        right, down = self.to_screen_pixel(x, y)
        new = self._with_scale(scale)
        return replace(new, left=x + 0.5 - right * new.scale, top=y + 0.5 - down * new.scale)._clamped()

    def _with_scale(self, scale: float) -> Viewport:
        coarsest = max(self.fit_scale, FINEST_SCALE)
        return replace(self, scale=min(max(scale, FINEST_SCALE), coarsest))

    def _clamped(self) -> Viewport:
        return replace(
            self,
            left=_clamp(self.left, self.image_width, self.pixel_columns * self.scale),
            top=_clamp(self.top, self.image_height, self.pixel_rows * self.scale),
        )


def _clamp(start: float, image: float, view: float) -> float:
    if view >= image:
        return (image - view) / 2
    return min(max(start, 0.0), image - view)
