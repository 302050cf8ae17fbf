"""Running one piece of work over many images: failures are reported and counted, the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
from segment_duo.types import ImageRef

STOPS_EVERYTHING = (Cancelled, ConfigError, EngineUnavailable, ModelError, UsageError)
"""What would fail for the next image just the same."""


def run_batch(refs: Sequence[ImageRef], work: Callable[[ImageRef], None], *, as_json: bool) -> None:
    """Call ``work`` for each image.

    With a single image its own error is raised. With several, each failure is told on stderr (and as a line of NDJSON), and at the end
    SomeInputsFailed is raised; if all failed for the same reason, that kind of error is raised.
    """
    failures: list[SegduoError] = []
    for ref in refs:
        try:
            work(ref)
        except STOPS_EVERYTHING:
            raise
        except SegduoError as error:
            if len(refs) == 1:
                raise
            failures.append(error)
            message = error.message if str(ref) in error.message else f"{ref}: {error.message}"
            note(f"segduo: {message}")
            if as_json:
                emit_json(failure_record(ref, error))
    if failures:
        done = len(refs) - len(failures)
        raise SomeInputsFailed(f"{len(failures)} of {len(refs)} images failed, {done} done")


def failure_record(ref: ImageRef, error: SegduoError) -> dict[str, Any]:
    """What a failed image looks like among the NDJSON lines."""
    return {"image": str(ref), "error": error.slug, "message": error.message, "hint": error.hint}
