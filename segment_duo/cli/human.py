"""Sizes and moments as people read them, and moments as programs do."""

from __future__ import annotations

import datetime


def size(count: float) -> str:
    """A number of bytes, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def when(moment: float) -> str:
    """A moment in local time, to the minute."""
    return datetime.datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def timestamp(moment: float) -> str:
    """A moment in UTC, ISO 8601, to the second."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")
