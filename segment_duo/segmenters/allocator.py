"""Allocator settings of the engine's process (glibc only), and giving freed memory back. No torch here: the client's spawner imports it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# Without these the decoder spends a third to a half of its time on page faults.
_GLIBC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(8 * 2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_ARENA_MAX": "1",  # else the computing thread has freed memory of its own beside the main thread's: a gigabyte
}


def is_glibc() -> bool:
    """Whether this process uses the GNU C library."""
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def allocator_environment() -> dict[str, str]:
    """Variables to add to the environment of the engine's process before it starts; those set already stay. Empty on other C libraries."""
    return {name: value for name, value in _GLIBC.items() if name not in os.environ} if is_glibc() else {}


def trim() -> None:
    """Give freed memory back to the system."""
    if is_glibc():
        ctypes.CDLL("libc.so.6").malloc_trim(0)
