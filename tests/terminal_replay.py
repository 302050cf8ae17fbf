"""A terminal for tests: keeps what the bytes that are sent to it would show. Knows what drawing uses: cursor moves, SGR, wide characters."""

from __future__ import annotations

import re

from rich.cells import cell_len

Style = frozenset[tuple[str, ...]]
Sign = tuple[str, Style]
_TOKEN = re.compile(r"\x1b\[([\d;]*)([A-Za-z])|(.)", re.DOTALL)
_SEEN_OF_A_SPACE = {"48", "4", "7", "9"}
"""Background, underlined, reversed, struck."""


class Replay:
    """``rows[y][x]``: the sign and its style, of a space what is seen of it; None where the right half of a wide sign is."""

    def __init__(self, columns: int, rows: int) -> None:
        self.rows: list[list[Sign | None]] = [[(" ", frozenset())] * columns for _ in range(rows)]
        self._x = self._y = 0
        self._style: dict[str, tuple[str, ...]] = {}

    def feed(self, text: str) -> Replay:
        for numbers, letter, sign in _TOKEN.findall(text):
            if letter == "H":
                self._y, self._x = (int(number) - 1 for number in numbers.split(";"))
            elif letter == "m":
                self._set(numbers.split(";"))
            elif letter:
                raise AssertionError(f"an unknown sequence: {numbers}{letter}")
            elif sign == "\n":
                self._y, self._x = self._y + 1, 0
            else:
                self._put(sign)
        return self

    def _set(self, numbers: list[str]) -> None:
        while numbers:
            first = int(numbers[0] or 0)
            count = 1 if first not in (38, 48) else 5 if numbers[1] == "2" else 3
            kind = "38" if 30 <= first <= 39 or first >= 90 else str(first)
            kind = "48" if 40 <= first <= 49 or first >= 100 else kind
            if first == 0:
                self._style.clear()
            elif first in (39, 49):
                self._style.pop(kind, None)
            else:
                self._style[kind] = tuple(numbers[:count])
            numbers = numbers[count:]

    def _put(self, sign: str) -> None:
        row, width = self.rows[self._y], cell_len(sign)
        if width == 0:
            before = row[self._x - 1]
            assert before is not None
            row[self._x - 1] = (before[0] + sign, before[1])
            return
        for x in range(self._x, self._x + width):
            _break(row, x)
        seen = _SEEN_OF_A_SPACE if sign == " " else self._style.keys()
        row[self._x] = (sign, frozenset((kind, *value) for kind, value in self._style.items() if kind in seen))
        row[self._x + 1 : self._x + width] = [None] * (width - 1)
        self._x += width


def _break(row: list[Sign | None], x: int) -> None:
    """A wide sign of which one half is overwritten is gone."""
    if row[x] is None:
        row[x - 1] = row[x] = (" ", frozenset())
    elif x + 1 < len(row) and row[x + 1] is None:
        row[x + 1] = (" ", frozenset())
