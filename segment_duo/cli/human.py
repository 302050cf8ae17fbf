"""Sizes, moments and lengths as people read them."""

from __future__ import annotations

import datetime


def size(count: float) -> str:
    """A number of bytes, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def when(timestamp: float) -> str:
    """A moment in local time, to the minute."""
    return datetime.datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M")


def length(nanometres: float) -> str:
    """A length in the unit that reads best."""
    for factor, unit in ((1e6, "mm"), (1e3, "um"), (1.0, "nm")):
        if nanometres >= factor:
            return f"{nanometres / factor:.4g} {unit}"
    return f"{nanometres * 1e3:.4g} pm"
