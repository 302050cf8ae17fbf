"""Slow work in threads, results back on the UI's thread, superseded work dropped.

Daemon threads, not Textual's workers: those are waited for at exit, and quitting must not wait for an encoder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from textual.message import Message
from textual.message_pump import MessagePump

from segment_duo.errors import Cancelled, SegduoError

Failure = Callable[[SegduoError], None]


class Errand:
    """One piece of work. ``superseded`` is what long work asks whether anybody still wants it."""

    def __init__(self, group: str, what: str, done: Callable[[Any], None], failed: Failure | None) -> None:
        self.group = group
        self.what = what
        self.done = done
        self.failed = failed
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def superseded(self) -> bool:
        return self._stopped.is_set()


class ErrandFinished(Message):
    """Posted to the owner; it passes the message on to :meth:`Errands.finish`."""

    bubble = False

    def __init__(self, errand: Errand, result: Any, error: BaseException | None) -> None:
        super().__init__()
        self.errand = errand
        self.result = result
        self.error = error


class Errands:
    """The running work of one widget.

    Args:
        owner: gets a :class:`ErrandFinished` for each errand.
        report: is told of failures that the errand has no own handler for.
    """

    def __init__(self, owner: MessagePump, report: Failure) -> None:
        self._owner = owner
        self._report = report
        self._running: dict[str, Errand] = {}

    def start(
        self,
        group: str,
        work: Callable[[Errand], Any],
        done: Callable[[Any], None],
        *,
        what: str,
        failed: Failure | None = None,
    ) -> Errand:
        """Run ``work`` in a thread; an earlier errand of the group is superseded, its result ignored.

        Args:
            work: gets its errand; raises :class:`Cancelled` to end without a word.
            done: called with the result, on the UI's thread.
            what: the activity, for messages about unexpected failures ("Reading the folder").
            failed: called instead of the general report.
        """
        self.stop(group)
        errand = Errand(group, what, done, failed)
        self._running[group] = errand

        def run() -> None:
            try:
                self._owner.post_message(ErrandFinished(errand, work(errand), None))
            except BaseException as error:  # a thread's failure must reach the user, whatever it is
                self._owner.post_message(ErrandFinished(errand, None, error))

        threading.Thread(target=run, name=f"segduo-{group}", daemon=True).start()
        return errand

    def stop(self, group: str) -> None:
        errand = self._running.pop(group, None)
        if errand is not None:
            errand.stop()

    def stop_all(self) -> None:
        for group in list(self._running):
            self.stop(group)

    def busy(self, group: str) -> bool:
        return group in self._running

    def finish(self, message: ErrandFinished) -> None:
        """Take over a result, unless the errand was superseded."""
        errand = message.errand
        if self._running.get(errand.group) is not errand:
            return
        del self._running[errand.group]
        if message.error is None:
            errand.done(message.result)
            return
        error = message.error
        if not isinstance(error, SegduoError):
            reason = error.strerror if isinstance(error, OSError) else None
            error = SegduoError(
                f"{errand.what} failed: {reason or f'{type(error).__name__}: {error}'}", "Your work is kept."
            )
        if errand.failed is not None:
            errand.failed(error)
        elif not isinstance(error, Cancelled):
            self._report(error)
