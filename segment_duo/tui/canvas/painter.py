"""One view of an image as what the terminal shows: cells, and with kitty or sixel an escape sequence. Runs in a thread; knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.segment import Segment

from segment_duo.terminal import graphics
from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.terminal.viewport import Viewport

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.images.view import Pyramid


@dataclass(frozen=True)
class Wish:
    """What is to be painted. ``stretch``: of the contrast, as :meth:`Pyramid.render` takes it."""

    pyramid: Pyramid
    view: Viewport
    overlay: Overlay
    stretch: float


@dataclass(frozen=True)
class Painted:
    """A finished picture. ``cells``: one segment a cell; ``plain``: the same without graphics, for when a dialog covers the screen."""

    wish: Wish
    cells: list[list[Segment]]
    plain: list[list[Segment]]
    sequence: str
    image_id: int


def paint(wish: Wish, terminal: Terminal, crops: MaskCrops, *, few_colours: bool) -> Painted:
    """Render, draw the overlay, encode.

    Args:
        crops: the decoded masks; used by this thread alone.
        few_colours: the terminal has 16 colours or none.
    """
    view, method = wish.view, terminal.method
    base = wish.pyramid.render(*view.edges(), view.pixel_columns, view.pixel_rows, wish.stretch)
    pixels = compose(base, view, wish.overlay, crops)
    if method.is_text and not few_colours:
        plain = graphics.text_cells(pixels, method)
    else:
        halves = pixels if method is Method.HALFCELL else _reduced(pixels, view)
        plain = graphics.half_cells(graphics.dithered(halves) if few_colours and method.is_text else halves)
    if method is Method.KITTY:
        image_id = graphics.next_image_id()
        sequence = graphics.kitty_transmit(pixels, image_id, view.columns, view.rows, tmux=terminal.tmux)
        return Painted(wish, graphics.kitty_rows(image_id, view.columns, view.rows), plain, sequence, image_id)
    if method is Method.SIXEL:
        blank = [[Segment(" ")] * view.columns for _ in range(view.rows)]
        return Painted(wish, blank, plain, graphics.sixel(pixels), 0)
    return Painted(wish, plain, plain, "", 0)


def _reduced(pixels: npt.NDArray[np.uint8], view: Viewport) -> npt.NDArray[np.uint8]:
    """A picture of real pixels at half-cell resolution."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((view.columns, 2 * view.rows), Image.Resampling.BOX))
