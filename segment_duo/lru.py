"""Values kept until their bytes pass a bound, the longest unused dropped first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Held(Generic[V]):
    value: V
    bytes: int
    used: float


class BoundedLru(Generic[K, V]):
    """Values by key, the longest unused dropped first; their bytes stay below a bound, except that the newest one is always kept. Thread-safe."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._held: OrderedDict[K, _Held[V]] = OrderedDict()
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: K) -> bool:
        return key in self._held

    def get(self, key: K) -> V | None:
        """The value, now the most recently used one."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                return None
            held.used = time.monotonic()
            self._held.move_to_end(key)
            return held.value

    def peek(self, key: K) -> V | None:
        """The value, without counting as a use."""
        with self._lock:
            held = self._held.get(key)
            return None if held is None else held.value

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value that takes ``size`` bytes; with 1 for each, the bound is their number."""
        with self._lock:
            self._drop(key)
            self._held[key] = _Held(value, size, time.monotonic())
            self._used += size
            while self._used > self.bound and len(self._held) > 1:
                self._drop(next(iter(self._held)))

    def make_room(self, size: int) -> None:
        """Drop the longest unused values until ``size`` more bytes fit."""
        with self._lock:
            while self._used + size > self.bound and self._held:
                self._drop(next(iter(self._held)))

    def drop(self, key: K) -> int:
        """Forget one; the bytes freed."""
        with self._lock:
            return self._drop(key)

    def clear(self) -> int:
        """Forget all; the bytes freed."""
        with self._lock:
            freed, self._used = self._used, 0
            self._held.clear()
            return freed

    def items(self) -> Iterator[tuple[K, V, int, float]]:
        """Key, value, bytes and seconds since the last use, as of now."""
        with self._lock:
            now = time.monotonic()
            entries = [(key, held.value, held.bytes, now - held.used) for key, held in self._held.items()]
        return iter(entries)

    def _drop(self, key: K) -> int:
        held = self._held.pop(key, None)
        if held is None:
            return 0
        self._used -= held.bytes
        return held.bytes
