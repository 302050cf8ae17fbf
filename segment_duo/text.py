"""The one place where untrusted text is made fit for a terminal, a log line or a table.

File names, server answers, pickles and exception texts can hold terminal escapes, line breaks or direction marks. Everything
that prints passes such text through :func:`safe` first.
"""

from __future__ import annotations

import unicodedata

# Bidirectional controls can make a file name read differently from what it is.
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def safe(text: object, *, limit: int = 2000) -> str:
    r"""Return ``str(text)`` with control, format and surrogate characters written as ``\xNN`` or ``\uNNNN``.

    Args:
        text: anything with a ``str``.
        limit: longest result in characters; longer text ends in an ellipsis.
    """
    out: list[str] = []
    for char in str(text)[: limit + 1]:
        code = ord(char)
        if code in _BIDI or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
            out.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
        else:
            out.append(char)
    joined = "".join(out)
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"
