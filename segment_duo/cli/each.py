"""Running one piece of work over many images: failures are reported and counted, the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from segment_duo.cli.output import emit_json, note
from segment_duo.errors import (
    Cancelled,
    ConfigError,
    EngineUnavailable,
    ModelError,
    SegduoError,
    SomeInputsFailed,
    UsageError,
)

STOPS_EVERYTHING = (Cancelled, ConfigError, EngineUnavailable, ModelError, UsageError)
"""What would fail for the next image just the same."""

T = TypeVar("T")


def _named(label: str, message: str) -> str:
    """The message with the whole name of its image once; what reads an image knows only the last part of it."""
    if label in message:
        return message
    return f"{label}: {message.removeprefix(f'{PurePosixPath(label).name}: ')}"


def run_batch(
    items: Sequence[T],
    work: Callable[[T], None],
    *,
    as_json: bool,
    failures: Sequence[tuple[str, SegduoError]] = (),
    name: Callable[[T], str] = str,
) -> None:
    """Call ``work`` for each item.

    With a single item its own error is raised. With several, each failure is told on stderr (and as a line of NDJSON) when it happens; at the
    end an error of the same kind is raised if all failed for one reason, else SomeInputsFailed.

    Args:
        failures: what failed before it became an item (text, error).
        name: what to call an item.
    """
    total = len(items) + len(failures)
    met: list[SegduoError] = []

    def failed(label: str, error: SegduoError) -> None:
        if total == 1:
            raise error
        met.append(error)
        note(f"segduo: {_named(label, error.message)}")
        if as_json:
            emit_json({"image": label, "error": error.slug, "message": error.message, "hint": error.hint})

    for label, error in failures:
        failed(label, error)
    for item in items:
        try:
            work(item)
        except STOPS_EVERYTHING:
            raise
        except SegduoError as error:
            failed(name(item), error)
    if not met:
        return
    if len(met) == total and len({type(error) for error in met}) == 1:
        raise type(met[0])(f"all {total} images failed; the last: {met[-1].message}", met[-1].hint)
    raise SomeInputsFailed(f"{len(met)} of {total} images failed, {total - len(met)} done")
