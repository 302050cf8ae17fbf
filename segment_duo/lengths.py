"""Lengths with their units: what users type and makers write, in nanometres.

One grammar for flags (``--pixel-size``, ``--min-diameter``) and for makers' texts. This module must stay free of heavy imports.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from segment_duo.errors import UsageError

_NM = {
    "m": 1e9,
    "cm": 1e7,
    "mm": 1e6,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "?m": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "nm": 1.0,
}
_NM |= {"pm": 1e-3, "å": 0.1, "angstrom": 0.1}
_LENGTH = re.compile(
    r"\s*(?P<number>[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>[^\W\d]+|\?m)?\s*(?P<each>/\s*(?:px|pixels?))?\s*"
)


@dataclass(frozen=True, slots=True)
class Length:
    """A length in ``px`` or ``nm``."""

    value: float
    unit: Literal["px", "nm"]


def to_nm(value: float, unit: str) -> float | None:
    """``value`` in ``unit`` as nanometres, or None for an unknown unit. ``?m`` is a micrometre whose sign was lost in an encoding."""
    factor = _NM.get(unit.strip().lower())
    return None if factor is None else value * factor


def parse_length_nm(text: str) -> float | None:
    """The length in ``text`` (``5um``, ``3.37 nm/px``) in nanometres, or None if it is not a positive length with a unit."""
    match = _LENGTH.fullmatch(text)
    if match is None or match["unit"] is None:
        return None
    nm = to_nm(_number(match), match["unit"])
    return nm if nm is not None and math.isfinite(nm) and nm > 0 else None


def parse_length(text: str) -> Length:
    """``50nm``, ``0.5 um``, ``12px``, ``12`` (pixels); not negative.

    Raises:
        UsageError: something else.
    """
    match = _LENGTH.fullmatch(text)
    if match is not None and match["each"] is None:
        in_pixels = match["unit"] in (None, "px")
        value = _number(match) if in_pixels else to_nm(_number(match), match["unit"])
        if value is not None and math.isfinite(value) and value >= 0:
            return Length(value, "px" if in_pixels else "nm")
    raise UsageError(f"{text!r} is not a length", "for example 50nm, 0.5um or 12px")


def _number(match: re.Match[str]) -> float:
    return float(match["number"].replace(",", "."))


def describe_nm(nm: float) -> str:
    """``3.372 um`` or ``5.825 nm``: four figures and a unit that suits."""
    for limit, factor, unit in ((1e6, 1e6, "mm"), (1e3, 1e3, "um"), (1.0, 1.0, "nm")):
        if nm >= limit:
            return f"{nm / factor:.4g} {unit}"
    return f"{nm * 1e3:.4g} pm"
