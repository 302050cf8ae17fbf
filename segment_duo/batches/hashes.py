"""Images by number: a hash of the path that is the same on every machine, and a compact set of such numbers.

A Python set of ten million numbers takes about a gigabyte, :class:`HashSet` a quarter of one at most. The probability that two of ten million
paths share a hash is 3e-6.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator

_FIRST_SLOTS = 1024
_EMPTY = 0


def path_hash(path: str) -> int:
    """64 bits of the BLAKE2b hash of a path's bytes; never 0."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


class HashSet:
    """A set of :func:`path_hash` numbers: open addressing in one array of 8-byte slots, at most two thirds full."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._slots[self._place(number)] == number

    def __iter__(self) -> Iterator[int]:
        return (number for number in self._slots if number != _EMPTY)

    def add(self, number: int) -> bool:
        """Put a number in; False when it was there already."""
        place = self._place(number)
        if self._slots[place] == number:
            return False
        self._slots[place] = number
        self._count += 1
        if 3 * self._count > 2 * len(self._slots):
            self._grow()
        return True

    def _place(self, number: int) -> int:
        slots, last = self._slots, len(self._slots) - 1
        place = number & last  # the number of slots is a power of two
        while slots[place] not in (_EMPTY, number):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        held = self._slots
        self._slots = array("Q", bytes(16 * len(held)))
        for number in held:
            if number != _EMPTY:
                self._slots[self._place(number)] = number
