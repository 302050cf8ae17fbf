"""``--frames 10:200:2``: which frames of a sequence are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from segment_duo.errors import UsageError

_HINT = "for example all, 7, 10:200, 10:200:2 (every second), :50 or -20: (the last 20); they count from 0, and the end is not included"


def parse_frames(text: str, count: int) -> Sequence[int]:
    """Numbers of the frames that ``text`` means among ``count``, in the order to go through them.

    ``all``, one number, or ``start:stop:step`` with Python's meaning: each part may be left out, the stop is not included, negative numbers
    count from the end, a negative step goes backward.

    Raises:
        UsageError: not of that form, a step of 0, a single frame that is not there, or no frame at all.
    """
    text = text.strip()
    if text.lower() == "all":
        return range(count)
    match = re.fullmatch(r"(-?\d{1,12})?(?:(:)(-?\d{1,12})?(?::(-?\d{1,12})?)?)?", text, re.ASCII)
    if match is None or not text:
        raise UsageError(f"{text!r} is not a range of frames", _HINT)
    start, stop, step = (int(part) if part else None for part in match.group(1, 3, 4))
    if match[2] is None:
        number = start if start is None or start >= 0 else count + start
        if number is None or not 0 <= number < count:
            raise UsageError(f"there is no frame {text}", f"There are {count}, 0 to {count - 1}.")
        return range(number, number + 1)
    if step == 0:
        raise UsageError(f"{text!r}: a step of 0 goes nowhere", _HINT)
    found = range(count)[start:stop:step]
    if not found:
        raise UsageError(f"{text!r} means no frame", f"There are {count}, 0 to {count - 1}.")
    return found
