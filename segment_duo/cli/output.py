"""The one writer to stdout and the one writer to stderr.

stdout carries data only: a line or a JSON document each. stderr carries notes, warnings and progress, and progress only on a terminal.
File names and server texts are escaped on their way out. JSON needs no such care: its encoder escapes control characters. A path alone on its line is
escaped on a terminal only: in a pipe the next program needs its exact bytes.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol

from segment_duo.errors import OutOfSpace, StoreError, UsageError
from segment_duo.text import safe

if TYPE_CHECKING:
    from rich.text import Text

    from segment_duo.types import ImageRef

BROKEN_PIPE_EXIT = 141
"""128 + SIGPIPE: what a shell reports of a program whose reader went away (`segduo ls | head`)."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


_WIDEST_TABLE = 4000
"""Columns for a table whose lines the terminal may break: longer than any path."""


def emit(line: object) -> None:
    """Write one line of data to stdout."""
    _write(sys.stdout, safe(line, limit=1_000_000))


def emit_path(path: object) -> None:
    """Write one path to stdout: escaped on a terminal, else its exact bytes, for ``ls -l "$(segduo auto IMAGE)"``."""
    text = str(path)
    buffer = getattr(sys.stdout, "buffer", None)
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:  # surrogates that stand for no bytes
        raw = b""
    if buffer is None or not raw or sys.stdout.isatty():
        emit(text)
        return
    _write(sys.stdout, "", end="")  # what Python still holds comes first
    _write(buffer, raw, end=b"\n")


def forgive_encodings() -> None:
    """Let stdout and stderr write what they can and escape the rest, whatever PYTHONIOENCODING or the locale say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def emit_row(cells: Sequence[object]) -> None:
    """Write cells to stdout as one line, separated by tabs."""
    _write(sys.stdout, "\t".join(safe(cell) for cell in cells))


def emit_json(value: Any, *, indent: int | None = None) -> None:
    """Write one JSON document to stdout; without ``indent`` on a single line (NDJSON)."""
    _write(sys.stdout, json.dumps(value, ensure_ascii=True, indent=indent, allow_nan=False, default=str))


def image_record(ref: ImageRef) -> dict[str, Any]:
    """How ``--json`` names an image: ``image``, and ``frame`` where one was chosen."""
    return {"image": str(ref)} | ({} if ref.frame is None else {"frame": ref.frame})


def emit_raw(text: str) -> None:
    """Write text of our own making (CSV, a source file, terminal graphics) to stdout as it is."""
    _write(sys.stdout, text, end="")


def emit_bytes(data: bytes) -> None:
    """Write a file's content to stdout as it is.

    Raises:
        UsageError: stdout is a terminal, which would take it for commands.
    """
    if sys.stdout.isatty():
        raise UsageError("this is no text for a terminal", "Send it on: segduo ... - > FILE")
    _write(sys.stdout, "", end="")  # what Python still holds comes first
    _write(sys.stdout.buffer, data, end=b"")


def note(message: object) -> None:
    """Tell the user something on stderr."""
    _write(sys.stderr, safe(message))


def emit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Write a table to stdout: aligned text with a dim header on a terminal, tab-separated without one in a pipe.

    Args:
        columns: the headings.
        rows: the cells; each is escaped.
        right: headings of the columns to align to the right.
        whole: headings of the columns whose cells are never broken in two, though lines get longer than the terminal: paths, to be copied.
    """
    if not sys.stdout.isatty():
        for row in rows:
            emit_row(row)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", show_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in whole
        )
    for row in rows:
        table.add_row(*(_literal(cell) for cell in row))
    _print_rich(table, full_width=bool(whole))


def _literal(cell: object) -> Text:
    from rich.text import Text

    return Text(safe(cell))


def _print_rich(renderable: object, *, full_width: bool = False) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    console.print(renderable, width=max(console.width, _WIDEST_TABLE) if full_width else None, crop=not full_width)


class ProgressReporter(Protocol):
    def __call__(self, done: float, total: float | None, text: str) -> None: ...


@contextmanager
def progress(description: str) -> Iterator[ProgressReporter]:
    """A progress bar on stderr when that is a terminal, nothing otherwise.

    Yields:
        a function of (done, total, text) to call as often as wanted.
    """
    if not sys.stderr.isatty():
        yield _report_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.fields[label]}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", label=safe(description), total=None)

        def report(done: float, total: float | None, text: str) -> None:
            bar.update(task, completed=done, total=total, label=safe(f"{description}  {text}".rstrip()))

        yield report


def _write(stream: IO[Any], text: str | bytes, *, end: str | bytes = "\n") -> None:
    try:
        stream.write(text)
        stream.write(end)
        stream.flush()
    except OSError as error:
        to_nowhere(stream)
        if stream is sys.stderr:
            return  # Nobody to tell; the work goes on.
        if isinstance(error, BrokenPipeError):
            raise SystemExit(BROKEN_PIPE_EXIT) from None
        raise output_error(error) from None


def output_error(error: OSError) -> StoreError:
    """What to raise when the output cannot be written."""
    message = f"cannot write the output: {error.strerror or error}"
    if error.errno in NO_ROOM:
        return OutOfSpace(message, "Free some space, or send the output elsewhere.")
    return StoreError(message)


def to_nowhere(stream: IO[Any]) -> None:
    """What the stream still holds must not fail once more when Python flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report_nothing(done: float, total: float | None, text: str) -> None:
    """What :func:`progress` yields when nobody watches."""
