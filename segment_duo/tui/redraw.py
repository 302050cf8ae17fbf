"""Sends the cells that differ from what the terminal shows, and no others.

    widgets ──refresh(regions)──> Compositor ──spans of lines──> what is sent

Textual sends a changed span from the left edge of its widget on, and all of it, whether it differs or not: a step of the cross-hair cost 5,800
bytes at 160 × 50, a dot of the brush 12,600. There is no public way to change that, so this module, and no other, extends Textual's private
compositor; ``pyproject.toml`` bounds the versions of Textual for its sake.

What is sent is remembered when it is written, not when it is asked for, as Textual may drop an update. A whole redraw (another size, a dialog that
closes) sends everything and renews the memory. Not for sixel, where text must be sent again to erase a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, Compositor, LayoutUpdate
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip

LONGEST_GAP = 40
"""Cells in which nothing changed that are sent rather than jumped over: a jump and a style cost about 50 bytes."""

_RESET_AND_STYLE = re.compile(r"\x1b\[0m\x1b\[(?=[\d;]*m)")
"""Where styles change: one sequence for both saves three bytes a cell."""


class _Wide(Segment):
    """A column of a line that has wide characters, and with it the line: it is sent whole, as one that is cut loses its other half."""


class ShownCells:
    """What the terminal shows, as far as it is known."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Segment | None]] = {}

    def renew(self, lines: Iterable[Iterable[Strip]], first: int) -> None:
        """Everything was sent: ``lines`` from row ``first`` on, each from column 0 on."""
        self._rows = {y: [cell for strip in line for cell in _cells(strip)] for y, line in enumerate(lines, first)}

    def changes(self, strip: Strip, x: int, y: int, start: int, end: int) -> list[Segment]:
        """What brings the columns from ``start`` to before ``end`` up to date.

        Args:
            strip: of one widget, from column ``x`` on.
        """
        new = _cells(strip)
        row = self._rows.setdefault(y, [])
        row.extend([None] * (x + len(new) - len(row)))
        old = row[x : x + len(new)]
        if any(isinstance(cell, _Wide) for cell in chain(new, old)):
            row[x : x + len(new)] = new
            return [] if old == new else [_move(x, y), *strip]
        parts: list[Segment] = []
        for first, after in _runs(old, new, start - x, min(end - x, len(new))):
            row[x + first : x + after] = new[first:after]
            parts += [_move(x + first, y), *new[first:after]]
        return parts


def sent(parts: Iterable[Segment], console: Console) -> str:
    """As the terminal gets it."""
    return _RESET_AND_STYLE.sub("\x1b[0;", Strip(Segment.simplify(parts)).render(console))


def _move(x: int, y: int) -> Segment:
    return Segment(f"\x1b[{y + 1};{x + 1}H")


def _cells(strip: Strip) -> list[Segment]:
    """One for each column."""
    cells: list[Segment] = []
    for segment in strip:
        text, style, _ = segment
        if len(text) == 1 and text != " " and segment.cell_length == 1:
            cells.append(segment)
        elif text.isascii() or all(cell_len(sign) == 1 for sign in text):
            cells += [_blank(style) if sign == " " else Segment(sign, style) for sign in text]
        elif segment.cell_length == 1:  # with combining marks, as kitty's places for pictures
            cells.append(segment)
        else:
            line = repr(list(strip))
            return [_Wide(f"{column} of {line}") for column in range(strip.cell_length)]
    return cells


@lru_cache(65536)
def _blank(style: Style | None) -> Segment:
    """A space, with what is seen of its style."""
    if style is None or not (
        style.reverse or style.underline or style.underline2 or style.overline or style.strike or style.link
    ):
        return Segment(" ", Style(bgcolor=style.bgcolor) if style and style.bgcolor else None)
    return Segment(" ", style)


def _runs(old: Sequence[Segment | None], new: Sequence[Segment], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Columns that differ, as first and after last. A short gap of one style is sent along."""
    first = after = -1
    for column in range(start, end):
        if old[column] is new[column] or old[column] == new[column]:
            continue
        if first >= 0 and column > after and (column > after + LONGEST_GAP or _breaks(new[after - 1 : column + 1])):
            yield first, after
            first = -1
        first, after = (column if first < 0 else first), column + 1
    if first >= 0:
        yield first, after


def _breaks(cells: Sequence[Segment]) -> bool:
    """Whether they are not of one style."""
    return any(cell.style != cells[0].style for cell in cells)


class _Changes(ChopsUpdate):
    """The cells of some spans that differ."""

    def __init__(
        self,
        chops: Sequence[Mapping[int, Strip | None]],
        spans: list[tuple[int, int, int]],
        chop_ends: list[list[int]],
        shown: ShownCells,
    ) -> None:
        super().__init__(chops, spans, chop_ends)
        self._shown = shown

    def render_segments(self, console: Console) -> str:
        parts: list[Segment] = []
        for y, x1, x2 in self.spans:
            for (x, strip), end in zip(self.chops[y].items(), self.chop_ends[y], strict=True):
                if strip is not None and x < x2 and end > x1:
                    parts += self._shown.changes(strip, x, y, max(x, x1), min(end, x2))
        return sent(parts, console)


class _Everything(LayoutUpdate):
    """The whole screen."""

    def __init__(self, strips: list[Iterable[Strip]], region: Region, shown: ShownCells) -> None:
        super().__init__(strips, region)
        self._shown = shown

    def render_segments(self, console: Console) -> str:
        self._shown.renew(self.strips, self.region.y)
        return super().render_segments(console)


class _CellCompositor(Compositor):
    def __init__(self) -> None:
        super().__init__()
        self._shown = ShownCells()

    def render_full_update(self, simplify: bool = False) -> LayoutUpdate:
        update = super().render_full_update(simplify)
        return _Everything(update.strips, update.region, self._shown)

    def render_partial_update(self) -> ChopsUpdate | None:
        update = super().render_partial_update()
        return update and _Changes(update.chops, update.spans, update.chop_ends, self._shown)


def draw_by_cells(screen: Screen[Any]) -> None:
    """Have a screen send what changes, cell by cell; before it is shown."""
    screen._compositor = _CellCompositor()
