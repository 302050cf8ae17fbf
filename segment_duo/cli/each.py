"""Running one piece of work over many images: failures are reported and counted, the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeVar

from segment_duo.cli.output import emit_json, image_record, note
from segment_duo.errors import (
    Cancelled,
    ConfigError,
    EngineUnavailable,
    ModelError,
    SegduoError,
    SomeInputsFailed,
    StoppedEarly,
    UsageError,
)
from segment_duo.types import ImageRef

STOPS_EVERYTHING = (Cancelled, ConfigError, EngineUnavailable, ModelError, StoppedEarly, UsageError)
"""What would fail for the next image just the same."""

T = TypeVar("T")


def _named(label: str, message: str) -> str:
    """The message with the whole name of its image once; what reads an image knows only the last part of it."""
    if label in message:
        return message
    return f"{label}: {message.removeprefix(f'{PurePosixPath(label).name}: ')}"


class Tally:
    """What failed of a batch: told when it happens, counted, and raised at the end.

    Args:
        total: how many items there are; None when only the end tells.
        what: a word for several of them.
    """

    def __init__(self, total: int | None, *, as_json: bool, what: str = "images") -> None:
        self._total = total
        self._what = what
        self._as_json = as_json
        self._kinds: set[type[SegduoError]] = set()
        self._last: SegduoError | None = None
        self._failed = 0

    def failed(self, label: str, error: SegduoError, record: Mapping[str, Any] | None = None) -> None:
        """Tell of one failure on stderr (and as a line of NDJSON that begins with ``record``). That of a single item is raised."""
        if self._total == 1:
            raise error
        self._failed += 1
        self._last = error
        self._kinds.add(type(error))
        note(f"segduo: {_named(label, error.message)}")
        if self._as_json:
            emit_json(
                {**(record or {"image": label}), "error": error.slug, "message": error.message, "hint": error.hint}
            )

    def finish(self, total: int) -> None:
        """Raise an error of the same kind if all of ``total`` items failed for one reason, SomeInputsFailed if some did."""
        if self._last is None:
            return
        if self._failed == total and len(self._kinds) == 1:
            raise type(self._last)(f"all {total} {self._what} failed; the last: {self._last.message}", self._last.hint)
        raise SomeInputsFailed(f"{self._failed} of {total} {self._what} failed, {total - self._failed} done")


def run_batch(
    items: Sequence[T],
    work: Callable[[T], None],
    *,
    as_json: bool,
    failures: Sequence[tuple[str, SegduoError]] = (),
    what: str = "images",
) -> None:
    """Call ``work`` for each item.

    With a single item its own error is raised. With several, each failure is told when it happens and the rest goes on; see :class:`Tally`.

    Args:
        failures: what failed before it became an item (text, error).
        what: a word for several of them.
    """
    total = len(items) + len(failures)
    tally = Tally(total, as_json=as_json, what=what)
    for label, error in failures:
        tally.failed(label, error)
    for item in items:
        try:
            work(item)
        except STOPS_EVERYTHING:
            raise
        except SegduoError as error:
            if error.ends_batch:
                raise
            if isinstance(item, ImageRef):
                tally.failed(item.label, error, image_record(item))
            else:
                tally.failed(str(item), error)
    tally.finish(total)
