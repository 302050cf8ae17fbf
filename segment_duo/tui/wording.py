"""Words and names as they are shown: numbers with their noun, names that fit."""

from __future__ import annotations

from rich.cells import cell_len


def counted(count: int, word: str) -> str:
    """``1 mask``, ``2 masks``, ``1,000 masks``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def middle_cut(name: str, room: int) -> str:
    """In at most ``room`` cells of the terminal; the middle goes, for names of a series differ at their end."""
    if cell_len(name) <= room:
        return name
    length = max(1, min(len(name) - 1, room - 1))
    while length > 1:
        tail = length * 2 // 3
        short = f"{name[: length - tail]}…{name[-tail:] if tail else ''}"
        if cell_len(short) <= room:
            return short
        length -= 1
    return "…"
