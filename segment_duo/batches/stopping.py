"""A signal that ends a batch after the image in hand: Slurm sends one before it kills."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from segment_duo.errors import StoppedEarly

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_ONE_STOP_SECONDS = 10.0
"""Slurm signals every process of a job, and the job's script hands its signal on: what comes so closely is one wish."""


class Stopping:
    """Whether the batch was told to stop. A signal only notes it; a SIGTERM more than ten seconds after the first does what it did before."""

    def __init__(self) -> None:
        self._by = ""
        self._at = 0.0

    @property
    def asked(self) -> bool:
        return bool(self._by)

    def check(self) -> None:
        """Raise StoppedEarly when the batch was told to stop."""
        if self._by:
            raise StoppedEarly(
                f"stopped by {self._by}; what was done is kept", "The same command goes on with what is left."
            )

    @contextmanager
    def listening(self) -> Iterator[Stopping]:
        """Inside, SIGTERM and SIGUSR1 are noted. For the main thread."""
        before = {int(number): signal.getsignal(number) for number in SIGNALS}

        def note(number: int, frame: FrameType | None) -> None:
            now = time.monotonic()
            if not self._by:
                self._by, self._at = signal.Signals(number).name, now
            elif number == signal.SIGTERM and now - self._at > _ONE_STOP_SECONDS:
                handler = before[number]
                if callable(handler):
                    handler(number, frame)

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield self
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], None]]:
    """Inside, Ctrl-C is noted beside the KeyboardInterrupt it raises; what is given raises it again. For the main thread.

    In a finalizer or a callback of the garbage collector Python prints an exception and goes on: a batch on Dask did so.
    """
    noted = False
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        if callable(before):
            before(number, frame)

    def check() -> None:
        if noted:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
