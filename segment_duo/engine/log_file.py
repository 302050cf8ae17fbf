"""The engine's log as clients see it: made before the engine starts, and read when it does not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

from segment_duo.durable import make_private_folders
from segment_duo.errors import EngineUnavailable

_TAIL_LINES = 15
_TAIL_BYTES = 2**16
_BEGUN = re.compile(r" engine \S+, pid \d+, listens on ")
"""What an engine logs first (``server.serve``)."""


def last_words(log: Path, since: int | None = None) -> str:
    """The end of the log, as far as the last engine wrote it: what came after byte ``since``, or after that engine began."""
    try:
        size = log.stat().st_size
        if since is not None and size >= since:  # else the log was turned over meanwhile
            with log.open("rb") as stream:
                stream.seek(max(since, size - _TAIL_BYTES))
                return _last_lines(stream.read())
    except OSError:
        return ""
    lines = log_tail(log, _TAIL_BYTES).splitlines()
    begun = max((number for number, line in enumerate(lines) if _BEGUN.search(line)), default=0)
    return "\n".join(lines[begun:][-_TAIL_LINES:])


def _last_lines(content: bytes, lines: int = _TAIL_LINES) -> str:
    return "\n".join(content.decode("utf-8", errors="replace").splitlines()[-lines:])


def log_tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last ``lines`` lines of the log, or an empty string. Reads at most the last 64 KiB."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            return _last_lines(stream.read(), lines)
    except OSError:
        return ""


def open_log(log: Path) -> IO[bytes]:
    try:
        make_private_folders(log.parent)
        return log.open("ab")
    except OSError as error:
        raise EngineUnavailable(
            f"cannot write the engine's log {log}: {error.strerror or error}",
            "Free some space, set SEGDUO_HOME to a folder that can be written to, or do without an engine: --in-process.",
        ) from None
