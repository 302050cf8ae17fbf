"""Sizes and moments as people read them, and moments as programs do; see :mod:`segment_duo.text`, which the terminal UI uses too."""

from __future__ import annotations

from segment_duo.text import byte_size as size
from segment_duo.text import moment as when
from segment_duo.text import timestamp

__all__ = ["size", "timestamp", "when"]
