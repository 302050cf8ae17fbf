"""Running one piece of work over many images: failures are reported and counted, the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    UsageError,
)
from segment_duo.types import ImageRef

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
) -> None:
    """Call ``work`` for each item.

    With a single item its own error is raised. With several, each failure is told on stderr (and as a line of NDJSON) when it happens; at the
    end an error of the same kind is raised if all failed for one reason, else SomeInputsFailed.

    Args:
        failures: what failed before it became an item (text, error).
    """
    total = len(items) + len(failures)
    met: list[SegduoError] = []

    def failed(label: str, error: SegduoError, record: dict[str, Any]) -> None:
        if total == 1:
            raise error
        met.append(error)
        note(f"segduo: {_named(label, error.message)}")
        if as_json:
            emit_json({**record, "error": error.slug, "message": error.message, "hint": error.hint})

    for label, error in failures:
        failed(label, error, {"image": label})
    for item in items:
        try:
            work(item)
        except STOPS_EVERYTHING:
            raise
        except SegduoError as error:
            if isinstance(item, ImageRef):
                failed(item.label, error, image_record(item))
            else:
                failed(str(item), error, {"image": str(item)})
    if not met:
        return
    if len(met) == total and len({type(error) for error in met}) == 1:
        raise type(met[0])(f"all {total} images failed; the last: {met[-1].message}", met[-1].hint)
    raise SomeInputsFailed(f"{len(met)} of {total} images failed, {total - len(met)} done")
