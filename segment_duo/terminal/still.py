"""An image and its masks as text for the terminal, without a UI: what ``segduo show`` prints."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style

from segment_duo.terminal import graphics
from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.terminal.marks import Cells, Marks
from segment_duo.terminal.viewport import Viewport
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RAMP = " .:-=+*#%@"
"""Characters of increasing ink; for light text on a dark ground."""


def render_still(
    pixels: npt.NDArray[np.uint8],
    masks: Sequence[Mask],
    *,
    method: str = "auto",
    columns: int | None = None,
    forced: bool = False,
    ids: bool = False,
    colours: Mapping[str, tuple[int, int, int]] | None = None,
) -> str:
    """The text to write to stdout, with a line break at its end.

    Args:
        pixels: uint8, shape (H, W, 3).
        masks: drawn in green over the image, or in the colour of their label.
        method: ``auto`` or a :class:`Method`.
        columns: width in cells; None: the terminal's, at most so that the picture fits its height.
        ids: write each mask's id in its middle.
        colours: label -> RGB.
        forced: use the method even when stdout is no terminal.
    """
    plain = os.environ.get("NO_COLOR") is not None or not (sys.stdout.isatty() or forced)
    terminal = Terminal(Method.HALFCELL) if plain else graphics.detect(method)
    view = _view(pixels.shape[1], pixels.shape[0], terminal, columns)
    from segment_duo.images.view import Pyramid

    base = Pyramid(pixels).render(*view.edges(), view.pixel_columns, view.pixel_rows)
    inks = dict(colours or {})
    overlay = Overlay(
        tuple(masks),
        frozenset(mask.id for mask in masks if mask.label not in inks),
        colours=tuple(inks.items()),
        ids=ids and terminal.method is Method.SIXEL,
    )
    drawn = compose(base, view, overlay, MaskCrops())
    if plain:
        return _characters(drawn, _numbers(view, masks) if ids else {})
    return _escape_sequences(drawn, view, terminal, masks if ids else ())


def _numbers(view: Viewport, masks: Sequence[Mask], ground: Sequence[Sequence[Segment]] = ()) -> Cells:
    """The ids as cells of text."""
    marks = Marks(view, ground, {})
    marks.numbers(masks)
    return marks.cells


def _with_cells(rows: list[list[Segment]], cells: Cells) -> list[list[Segment]]:
    return [[cells.get((column, row), segment) for column, segment in enumerate(line)] for row, line in enumerate(rows)]


def _view(width: int, height: int, terminal: Terminal, columns: int | None) -> Viewport:
    size = shutil.get_terminal_size()
    cell = terminal.screen_pixels
    most_columns = columns or size.columns
    most_rows = 10_000 if columns else max(2, size.lines - 2)  # the prompt's line stays visible
    scale = max(width / (most_columns * cell[0]), height / (most_rows * cell[1]))
    used_columns = max(1, min(most_columns, round(width / scale / cell[0])))
    used_rows = max(1, min(most_rows, round(height / scale / cell[1])))
    return Viewport.fitted((width, height), (used_columns, used_rows), cell)


def _escape_sequences(
    pixels: npt.NDArray[np.uint8], view: Viewport, terminal: Terminal, numbered: Sequence[Mask]
) -> str:
    if terminal.method is Method.SIXEL:
        return graphics.sixel(pixels) + "\n"
    if terminal.method is Method.KITTY:
        number = graphics.next_image_id()
        placed = graphics.kitty_transmit(pixels, number, view.columns, view.rows, tmux=terminal.tmux)
        rows = graphics.kitty_rows(number, view.columns, view.rows)
        return placed + _ansi(_with_cells(rows, _numbers(view, numbered)))
    rows = graphics.text_cells(pixels, terminal.method)
    return _ansi(_with_cells(rows, _numbers(view, numbered, rows)))


def _ansi(rows: list[list[Segment]]) -> str:
    """Cells -> escape sequences in the colours that this terminal has."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, force_terminal=True, legacy_windows=False)
    system = console._color_system
    for row in rows:
        for segment in Segment.simplify(row):
            text.write((segment.style or Style()).render(segment.text, color_system=system))
        text.write("\n")
    return text.getvalue()


def _characters(pixels: npt.NDArray[np.uint8], numbers: Cells) -> str:
    import numpy as np

    grey = pixels.astype(np.float64).mean(axis=2).reshape(pixels.shape[0] // 2, 2, -1).mean(axis=1)
    index = np.minimum((grey / 256 * len(RAMP)).astype(int), len(RAMP) - 1)
    lines = [[RAMP[i] for i in row] for row in index]
    for (column, row), segment in numbers.items():
        lines[row][column] = segment.text
    return "\n".join("".join(line).rstrip() for line in lines) + "\n"
