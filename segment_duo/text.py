"""Text for people: untrusted text, sizes and moments made fit for a terminal, a log line or a table; and the order of names as people count.

File names, server answers, pickles and exception texts can hold terminal escapes, line breaks or direction marks. Everything
that prints passes such text through :func:`safe` first. Sizes and moments come from file systems and servers too: nothing here raises, whatever
the number.
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterable

# Bidirectional controls can make a file name read differently from what it is.
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def safe(text: object, *, limit: int = 2000) -> str:
    r"""Return ``str(text)`` with control, format and surrogate characters written as ``\xNN`` or ``\uNNNN``.

    A byte of a file name that is not UTF-8, which Python holds as a lone surrogate, is written as that byte (``K\xf6rnung.png``).

    Args:
        text: anything with a ``str``.
        limit: longest result in characters; longer text ends in an ellipsis.
    """
    out: list[str] = []
    for char in str(text)[: limit + 1]:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code in _BIDI or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
            out.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
        else:
            out.append(char)
    joined = "".join(out)
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def is_utf8(name: str) -> bool:
    """False for a file name whose bytes are not UTF-8: no message, JSON or mask set could hold it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def well_formed(text: str) -> str:
    """The text without lone surrogates, which no file format can hold: two halves become their character, a half alone U+FFFD.

    JSON can escape half a character (an emoji that was cut in two), a pickle can hold one, and so does an argument that is not UTF-8.
    """
    return text if is_utf8(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def what_it_said(error: Exception, limit: int = 2000) -> str:
    """``: `` and what a decoder said, or nothing where it speaks of an object of Python's: it was given bytes and names no file."""
    said = str(error)
    return f": {said[:limit]}" if said and " object at 0x" not in said else ""


def byte_size(count: float) -> str:
    """A number of bytes, in powers of 1024: ``512 B``, ``1.5 MiB``; ``?`` for what is no number."""
    try:
        count = float(count)
    except OverflowError:
        return "?"
    if not math.isfinite(count):
        return "?"
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(count) < 1024:
            break
        count, unit = count / 1024, larger
    if unit == "B":
        return f"{count:.0f} B"
    return f"{count:.1f} {unit}" if abs(count) < 1e6 else f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """A time as people read it: ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``12 d 4 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


UNKNOWN_MOMENT = "?"


def moment(seconds: float) -> str:
    """Seconds since 1970 in local time, to the minute: ``2026-11-26 14:03``. ``?`` for a moment beyond the years 1 to 9999."""
    try:
        return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return UNKNOWN_MOMENT


def timestamp(seconds: float) -> str | None:
    """Seconds since 1970 in UTC, ISO 8601, to the second; None for a moment beyond the years 1 to 9999."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts ``img2`` before ``img10``, without regard to case."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return tuple((0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part.casefold()) for part in parts)


def natural_order(names: Iterable[str]) -> list[str]:
    """``names`` as people count; equal ones (``a1``, ``a01``) by their characters."""
    return sorted(names, key=lambda name: (natural_key(name), name))
