"""A word for whoever waits: nobody should look at a silent terminal for more than 10 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORD_SECONDS = 8.0
"""Between two words, and before the first; with what a loaded machine adds it stays below 10."""
_SAME_WAIT_SECONDS = 1.0
"""Waits that follow one another this closely are one wait to the user."""

STILL_WAITING = "still waiting for"
"""How every such word begins, so that a front end knows it once the wait is over."""

Tell = Callable[[str], None]


class StillWaiting:
    """Says from time to time what is waited for, while something is. Usable from several threads.

    Waits may lie in one another: the innermost knows best what it is, and one silence is counted for all.

    Args:
        tell: receives one-line messages; called in a thread of its own.
        seconds: longest silence.
    """

    def __init__(self, tell: Tell | None, seconds: float = WORD_SECONDS) -> None:
        self._tell = tell
        self._seconds = seconds
        self._changed = threading.Condition()
        self._waits: list[Callable[[], str]] = []
        self._hushed = 0
        self._silent_since = 0.0
        self._ended = float("-inf")
        self._watcher: threading.Thread | None = None

    @contextmanager
    def during(self, what: Callable[[], str]) -> Iterator[None]:
        """Inside, ``what()`` is told whenever the silence has lasted too long."""
        if self._tell is None:
            yield
            return
        with self._changed:
            now = time.monotonic()
            if not self._waits and now - self._ended > _SAME_WAIT_SECONDS:
                self._silent_since = now
            self._waits.append(what)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="still-waiting", daemon=True)
                self._watcher.start()
        try:
            yield
        finally:
            with self._changed:
                self._waits.remove(what)
                self._ended = time.monotonic()

    @contextmanager
    def hushed(self) -> Iterator[None]:
        """Inside, nothing is told: something else on the screen moves, or the user is the one who is waited for."""
        with self._changed:
            self._hushed += 1
        try:
            yield
        finally:
            with self._changed:
                self._hushed -= 1
                self._silent_since = time.monotonic()

    def heard(self) -> None:
        """The user has just read something else: the silence begins anew."""
        self._silent_since = time.monotonic()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(max(0.0, self._silent_since + self._seconds - time.monotonic()))
                now = time.monotonic()
                if now < self._silent_since + self._seconds:
                    continue
                if not self._waits:
                    self._watcher = None
                    return
                what = self._waits[-1]
                self._silent_since = now
                hushed = self._hushed
            if self._tell is not None and not hushed:
                self._tell(what())
