"""Screen pixels -> what this terminal can show: the kitty graphics protocol, sixel, or half cells.

:func:`detect` must run before Textual starts, for textual-image asks the terminal and reads its answers. It is the library's public
verdict that counts; the bytes are made here (kitty) or by its public renderable (sixel), in a thread, once a view.

Kitty: the picture is stored in the terminal under an id and shown by placeholder characters (U+10EEEE with the row and the column as
combining marks, the id as foreground colour), so that Textual moves it about as text. Specification:
https://sw.kovidgoyal.net/kitty/graphics-protocol/#unicode-placeholders
"""

from __future__ import annotations

import base64
import io
import itertools
import os
import random
import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment
from rich.style import Style

from segment_duo.terminal.cells import DOTS, fine_cells

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Pixels = npt.NDArray[np.uint8]

HALF_CELL = (1, 2)
"""Screen pixels of a cell with half cells: width, height."""
UNKNOWN_CELL = (10, 20)
"""Real pixels of a cell where the terminal does not tell (those of the VT340)."""
SIXEL_COLOURS = 64
"""256 colours take three times as long and twice the bytes; on grey pictures with four overlay colours no difference is seen."""
_CHUNK = 4096
_GREY_BITS = 0xFC  # half cells use 64 levels a channel: fewer styles to make and to send, no visible difference


class Method(StrEnum):
    KITTY = "kitty"
    SIXEL = "sixel"
    HALFCELL = "halfcell"
    QUADRANT = "quadrant"
    SEXTANT = "sextant"
    OCTANT = "octant"

    @property
    def is_text(self) -> bool:
        """Whether the picture is made of characters."""
        return self not in (Method.KITTY, Method.SIXEL)

    @property
    def rows_of_dots(self) -> int:
        """Dots of a cell, from top to bottom, of the finer characters; 0 for everything else."""
        return {Method.QUADRANT: 2, Method.SEXTANT: 3, Method.OCTANT: 4}.get(self, 0)


TEXT_METHODS = (Method.HALFCELL, Method.QUADRANT, Method.SEXTANT, Method.OCTANT)
"""From the coarsest to the finest."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the terminal can do. ``cell``: real pixels of a cell. ``reason``: why this method, for ``segduo doctor``."""

    method: Method = Method.HALFCELL
    cell: tuple[int, int] = UNKNOWN_CELL
    reason: str = "default"
    tmux: bool = False

    @property
    def screen_pixels(self) -> tuple[int, int]:
        """Screen pixels of a cell with this method."""
        if self.method.rows_of_dots:
            return DOTS
        return HALF_CELL if self.method is Method.HALFCELL else self.cell


def detect(wanted: str = "auto") -> Terminal:
    """Choose the method. Asks the terminal, which must not be Textual's yet.

    Args:
        wanted: ``auto`` or a :class:`Method`. Finer characters are never chosen by themselves: no terminal tells which its font has.
    """
    tmux = bool(os.environ.get("TMUX"))
    cell = cell_size() or UNKNOWN_CELL
    if os.environ.get("NO_COLOR") is not None:
        return Terminal(Method.HALFCELL, cell, "NO_COLOR is set", tmux)
    if wanted != "auto":
        return Terminal(Method(wanted), cell, "as asked for", tmux)
    if not (sys.__stdout__ and sys.__stdout__.isatty()):
        return Terminal(Method.HALFCELL, cell, "not a terminal", tmux)
    return Terminal(*_asked(cell), tmux)


def _asked(cell: tuple[int, int]) -> tuple[Method, tuple[int, int], str]:
    try:
        from textual_image import renderable
    except Exception as error:
        return Method.HALFCELL, cell, f"asking the terminal failed: {type(error).__name__}"
    if renderable.Image is renderable.SixelImage:
        return Method.SIXEL, cell, "the terminal says it can show sixel"
    if renderable.Image is renderable.TGPImage:
        return Method.KITTY, cell, "the terminal answers kitty graphics"
    return Method.HALFCELL, cell, "the terminal answers neither sixel nor kitty graphics"


def cell_size() -> tuple[int, int] | None:
    """Real pixels of a cell, as the terminal's driver knows them, or None."""
    import fcntl
    import struct
    import termios

    for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
        try:
            if stream is None or not stream.isatty():
                continue
            packed = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        except (OSError, ValueError):
            continue
        rows, columns, width, height = struct.unpack("HHHH", packed)
        if rows and columns and width >= columns and height >= rows:
            return width // columns, height // rows
    return None


def terminal_report(wanted: str = "auto") -> list[tuple[str, str, str]]:
    """Rows of (what, value, advice) for ``segduo doctor``; the advice is empty where nothing needs doing."""
    terminal = detect(wanted)
    advice = ""
    if terminal.method is Method.HALFCELL and terminal.reason.startswith("the terminal answers neither"):
        advice = (
            "Inside tmux, pictures need tmux 3.4 or newer built with sixel, or --graphics kitty with `set -g allow-passthrough on`."
            if terminal.tmux
            else "kitty, Ghostty, WezTerm, foot, iTerm2 and recent Konsole show real pictures; half cells work everywhere."
        )
    colours = os.environ.get("COLORTERM", "")
    size = cell_size()
    return [
        ("pictures", f"{terminal.method} ({terminal.reason})", advice),
        (
            "terminal",
            f"TERM={os.environ.get('TERM', '')} COLORTERM={colours}{', inside tmux' if terminal.tmux else ''}",
            ""
            if colours in ("truecolor", "24bit")
            else "If this terminal has 24-bit colours, set COLORTERM=truecolor for smooth greys.",
        ),
        ("cell size", f"{size[0]} x {size[1]} pixels" if size else "not told by the terminal (10 x 20 assumed)", ""),
    ]


# Characters


def text_cells(pixels: Pixels, method: Method) -> list[list[Segment]]:
    """Picture -> one segment a cell, row by row. ``pixels``: uint8, of the screen pixels of a method that is text."""
    return fine_cells(pixels, method.rows_of_dots) if method.rows_of_dots else half_cells(pixels)


def half_cells(pixels: Pixels) -> list[list[Segment]]:
    """Picture -> one segment a cell, row by row: the upper dot is the foreground of an upper half block, the lower one its background.

    Args:
        pixels: uint8, shape (2 * rows, columns, 3).
    """
    import numpy as np

    coarse = pixels & _GREY_BITS
    packed = coarse[..., 0].astype(np.int64) << 16 | coarse[..., 1].astype(np.int64) << 8 | coarse[..., 2]
    pairs = packed[0::2] << 24 | packed[1::2]
    values, index = np.unique(pairs, return_inverse=True)
    segments = [half_cell(int(value >> 24), int(value & 0xFFFFFF)) for value in values]
    return [[segments[i] for i in row] for row in index.reshape(pairs.shape)]


@lru_cache(65536)
def half_cell(upper: int, lower: int) -> Segment:
    """One cell of two dots, colours as 0xRRGGBB."""
    background = _colour(lower)
    if upper == lower:
        return Segment(" ", Style(bgcolor=background))
    return Segment("▀", Style(color=_colour(upper), bgcolor=background))


@lru_cache(65536)
def _colour(value: int) -> Color:
    return Color.from_rgb(value >> 16, value >> 8 & 255, value & 255)


def dithered(pixels: Pixels) -> Pixels:
    """For terminals of 16 colours: greys spread over their four by an ordered pattern, coloured dots as they are.

    Args:
        pixels: uint8, shape (rows, columns, 3).
    """
    import numpy as np

    levels = np.array([0, 128, 192, 255], np.int16)  # black, bright black, white, bright white of the standard palette
    pattern = np.array([[0.2, 0.6], [0.8, 0.4]])
    values = pixels.astype(np.int16)
    grey = values.mean(axis=2)
    rows, columns = grey.shape
    threshold = np.tile(pattern, (rows // 2 + 1, columns // 2 + 1))[:rows, :columns]
    below = np.clip(np.searchsorted(levels, grey, side="right") - 1, 0, 2)
    share = (grey - levels[below]) / (levels[below + 1] - levels[below])
    chosen = levels[below + (share > threshold)]
    coloured = values.max(axis=2) - values.min(axis=2) > 40
    return np.where(coloured[..., None], values, chosen[..., None]).astype(np.uint8)


# Kitty

_MARK_RUNS = (
    (0x305, 1), (0x30D, 2), (0x310, 1), (0x312, 1), (0x33D, 3), (0x346, 1), (0x34A, 3), (0x350, 3), (0x357, 1), (0x35B, 1),
    (0x363, 13), (0x483, 5), (0x592, 4), (0x597, 3), (0x59C, 6), (0x5A8, 2), (0x5AB, 2), (0x5AF, 1), (0x5C4, 1), (0x610, 8),
    (0x657, 5), (0x65D, 2), (0x6D6, 7), (0x6DF, 4), (0x6E4, 1), (0x6E7, 2), (0x6EB, 2), (0x730, 1), (0x732, 2), (0x735, 2),
    (0x73A, 1), (0x73D, 1), (0x73F, 3), (0x743, 1), (0x745, 1), (0x747, 1), (0x749, 2), (0x7EB, 7), (0x7F3, 1), (0x816, 4),
    (0x81B, 9), (0x825, 3), (0x829, 5), (0x951, 1), (0x953, 2), (0xF82, 2), (0xF86, 2), (0x135D, 3), (0x17DD, 1), (0x193A, 1),
    (0x1A17, 1), (0x1A75, 8), (0x1B6B, 1), (0x1B6D, 7), (0x1CD0, 3), (0x1CDA, 2), (0x1CE0, 1), (0x1DC0, 2), (0x1DC3, 7),
    (0x1DCB, 2), (0x1DD1, 22), (0x1DFE, 1), (0x20D0, 2), (0x20D4, 4), (0x20DB, 2), (0x20E1, 1), (0x20E7, 1), (0x20E9, 1),
    (0x20F0, 1), (0x2CEF, 3), (0x2DE0, 32), (0xA66F, 1), (0xA67C, 2), (0xA6F0, 2), (0xA8E0, 18), (0xAAB0, 1), (0xAAB2, 2),
    (0xAAB7, 2), (0xAABE, 2), (0xAAC1, 1), (0xFE20, 7), (0x10A0F, 1), (0x10A38, 1), (0x1D185, 5), (0x1D1AA, 4), (0x1D242, 3),
)  # fmt: skip
MARKS = tuple(chr(first + i) for first, count in _MARK_RUNS for i in range(count))
"""The protocol's combining marks for row and column 0, 1, 2, ... (runs of code points, from its specification)."""
LARGEST_KITTY = len(MARKS)
"""Cells a side; larger pictures cannot be addressed."""
_PLACEHOLDER = "\U0010eeee"
_ids = itertools.count(random.randrange(0x100000, 0xF00000))


def next_image_id() -> int:
    """A number that no other picture on this terminal is likely to have, of 24 bits so that it fits a colour."""
    return next(_ids) & 0xFFFFFF or 1


def kitty_transmit(pixels: Pixels, image_id: int, columns: int, rows: int, *, tmux: bool = False) -> str:
    """The escape sequences that store a picture and make a virtual placement of columns x rows cells."""
    buffer = io.BytesIO()
    # Level 1 is four times as fast as the default for 6 % more bytes.
    _picture(pixels).save(buffer, "PNG", compress_level=1)
    payload = base64.standard_b64encode(buffer.getvalue()).decode("ascii")
    chunks = [payload[start : start + _CHUNK] for start in range(0, len(payload), _CHUNK)]
    out = []
    for number, chunk in enumerate(chunks):
        keys = f"a=t,f=100,i={image_id},q=2," if number == 0 else f"i={image_id},q=2,"
        out.append(_kitty(f"{keys}m={int(number + 1 < len(chunks))};{chunk}", tmux))
    out.append(_kitty(f"a=p,U=1,i={image_id},c={columns},r={rows},q=2", tmux))
    return "".join(out)


def kitty_delete(image_id: int, *, tmux: bool = False) -> str:
    """Remove a picture and free its data."""
    return _kitty(f"a=d,d=I,i={image_id},q=2", tmux)


def kitty_rows(image_id: int, columns: int, rows: int) -> list[list[Segment]]:
    """The placeholder cells of a picture, one segment a cell."""
    style = Style(color=Color.from_rgb(image_id >> 16, image_id >> 8 & 255, image_id & 255))
    return [
        [Segment(_PLACEHOLDER + MARKS[row] + MARKS[column], style) for column in range(columns)] for row in range(rows)
    ]


def _kitty(body: str, tmux: bool) -> str:
    sequence = f"\x1b_G{body}\x1b\\"
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\" if tmux else sequence


# Sixel


def sixel(pixels: Pixels) -> str:
    """One sixel sequence for a picture, at its own size in real pixels."""
    from rich.console import Console
    from textual_image.renderable import SixelImage

    picture = _picture(pixels).quantize(SIXEL_COLOURS)
    console = Console(file=io.StringIO(), force_terminal=True, width=10_000, height=10_000)
    for segment in console.render(SixelImage(picture.convert("RGB"), width=None, height=None)):
        if segment.text.startswith("\x1bP"):
            return segment.text
    raise RuntimeError("textual-image made no sixel sequence")


def at_position(sequence: str, column: int, row: int) -> str:
    """``sequence`` drawn at a cell (from 0), the cursor back where it was, in one synchronized update."""
    return f"\x1b[?2026h\x1b7\x1b[{row + 1};{column + 1}H{sequence}\x1b8\x1b[?2026l"


def _picture(pixels: Pixels) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels)
