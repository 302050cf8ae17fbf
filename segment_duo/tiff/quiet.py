"""Keeping tifffile from writing to the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """tifffile reports odd tags through logging; on a terminal that would appear as stray lines."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
