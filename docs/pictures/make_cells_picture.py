"""Draws the same part of a picture with half cells, quadrants, sextants and octants, side by side, as an ideal font would show them.

    python docs/pictures/make_cells_picture.py

Prints what is lost against the picture at the cells' own pixels (root mean square, grey levels), and the bytes that a terminal is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segment_duo.images.view import Pyramid
from segment_duo.masks.rle import bounding_box, encode
from segment_duo.terminal import graphics
from segment_duo.terminal.cells import SIGNS
from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.graphics import TEXT_METHODS, Method, Terminal
from segment_duo.terminal.still import _ansi
from segment_duo.terminal.viewport import Viewport
from segment_duo.types import Mask

Pixels = npt.NDArray[np.uint8]
CELL = (8, 16)
"""Pixels of a cell in the drawing."""
CELLS = (56, 21)
SIZE = (400, 300)
PARTICLE = 15


def particles() -> tuple[Pixels, tuple[Mask, ...]]:
    """Particles of 15 pixels, some of them in pairs and rows, and the masks of a third of them."""
    width, height = SIZE
    random = np.random.default_rng(7)
    image = random.normal(70, 6, (height, width))
    yy, xx = np.mgrid[:height, :width]
    masks = []
    for number, (x, y) in enumerate((x, y) for y in range(18, height, 26) for x in range(16, width, 24)):
        right, down = random.integers(-5, 6), random.integers(-5, 6)
        inside = (xx - x - right) ** 2 + (yy - y - down) ** 2 <= (PARTICLE / 2) ** 2
        image[inside] += 90 + 20 * random.standard_normal()
        if number % 3 == 0:
            rle = encode(inside)
            masks.append(Mask(rle, int(inside.sum()), bounding_box(rle), id=number))
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), tuple(masks)


def drawn(rows: list[list[graphics.Segment]], method: Method) -> Pixels:
    """The cells as pixels."""
    out = np.zeros((len(rows) * CELL[1], len(rows[0]) * CELL[0], 3), np.uint8)
    patterns = {
        sign: (bits, n)
        for n, table in SIGNS.items()
        for bits, sign in enumerate(table)
        if n == (method.rows_of_dots or 2)
    }
    patterns["▀"] = (0b0011, 2)
    patterns[" "] = (0, 2)
    for row, line in enumerate(rows):
        for column, segment in enumerate(line):
            style = segment.style
            assert style is not None
            assert style.bgcolor is not None
            assert style.bgcolor.triplet is not None
            back = style.bgcolor.triplet
            front = style.color.triplet if style.color and style.color.triplet else back
            bits, n = patterns[segment.text]
            y0, x0 = row * CELL[1], column * CELL[0]
            out[y0 : y0 + CELL[1], x0 : x0 + CELL[0]] = back
            for dot in range(2 * n):
                if bits >> dot & 1:
                    top, left = y0 + round(dot // 2 * CELL[1] / n), x0 + dot % 2 * CELL[0] // 2
                    out[top : y0 + round((dot // 2 + 1) * CELL[1] / n), left : left + CELL[0] // 2] = front
    return out


def main() -> None:
    image, masks = particles()
    pyramid = Pyramid(image)
    crops = MaskCrops()
    overlay = Overlay(masks)

    def view(cell: tuple[int, int]) -> Viewport:
        return Viewport.fitted(SIZE, CELLS, cell)

    def painted(cell: tuple[int, int], shown: Overlay) -> Pixels:
        here = view(cell)
        base = pyramid.render(*here.edges(), here.pixel_columns, here.pixel_rows)
        return compose(base, here, shown, crops)

    truth = painted(CELL, Overlay())
    panels = [("real pixels", painted(CELL, overlay))]
    for method in TEXT_METHODS:
        pixels = Terminal(method).screen_pixels
        bare = graphics.text_cells(painted(pixels, Overlay()), method)
        lost = np.sqrt(((drawn(bare, method).astype(float) - truth) ** 2).mean())
        rows = graphics.text_cells(painted(pixels, overlay), method)
        sys.stdout.write(f"{method:10} {lost:5.1f} grey levels lost, {len(_ansi(rows).encode()):7,} bytes\n")
        panels.append((f"{method}s" if method.rows_of_dots else "half cells", drawn(rows, method)))
    height, width = truth.shape[:2]
    sheet = Image.new("RGB", (3 * (width + 12), 2 * (height + 34)), (24, 24, 28))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for place, (name, picture) in enumerate(panels):
        x, y = place % 3 * (width + 12), place // 3 * (height + 34)
        draw.text((x + 4, y + 4), name, font=font, fill=(230, 230, 230))
        sheet.paste(Image.fromarray(picture), (x, y + 28))
    sheet.quantize(128).save(Path(__file__).parent / "tui-cells.png", optimize=True)


if __name__ == "__main__":
    main()
