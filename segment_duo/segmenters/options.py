"""Options that only one model has: what may be given with its name, and the check of what was given."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segment_duo.errors import UsageError


@dataclass(frozen=True)
class Option:
    """A parameter of a model's own, which users give with the model's name: ``--model watershed:threshold=local,min_size=50``.

    Attributes:
        default: its value when none is given; a value that is given has the same type.
        help: what it does, one line.
        choices: the texts it may be; empty for any.
        least, most: bounds of a number, both inclusive; None for none.
    """

    default: bool | int | float | str
    help: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


def check_options(name: str, options: Mapping[str, Option], given: Mapping[str, str]) -> dict[str, Any]:
    """A value for each of a model's options: those given as text, converted and checked, and the defaults of the others.

    Raises:
        UsageError: the model has no such option, or the value cannot be.
    """
    for unknown in given.keys() - options.keys():
        close = difflib.get_close_matches(unknown, options, n=1)
        known = f"It has: {', '.join(options)}." if options else "It has none."
        raise UsageError(
            f"the model '{name}' has no option '{unknown}'", f"Did you mean '{close[0]}'?" if close else known
        )
    return {
        key: _converted(f"{name}:{key}", option, given[key]) if key in given else option.default
        for key, option in options.items()
    }


def _converted(where: str, option: Option, text: str) -> bool | int | float | str:
    if option.choices and text not in option.choices:
        raise UsageError(f"{where}: '{text}' is none of {', '.join(option.choices)}")
    if isinstance(option.default, str):
        return text
    if isinstance(option.default, bool):
        if text.lower() in {"true", "yes", "on", "1"}:
            return True
        if text.lower() in {"false", "no", "off", "0"}:
            return False
        raise UsageError(f"{where}: '{text}' is neither true nor false")
    whole = isinstance(option.default, int)
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        raise UsageError(f"{where}: '{text}' is no {'whole number' if whole else 'number'}") from None
    if not math.isfinite(number) or not (
        (option.least is None or number >= option.least) and (option.most is None or number <= option.most)
    ):
        least = "" if option.least is None else f" from {option.least:g}"
        most = "" if option.most is None else f" up to {option.most:g}"
        raise UsageError(f"{where}: {text} is out of range; it takes numbers{least}{most}")
    return number
