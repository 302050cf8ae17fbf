"""Pixel sizes: parsing what a user types, and the bounds of the plausible.

All sizes are kept in nanometres. This module must stay free of heavy imports.
"""

from __future__ import annotations

import math
import re

from segment_duo.errors import UsageError
from segment_duo.types import PixelSize

SMALLEST_PLAUSIBLE_NM = 0.01
"""Below the best resolution of electron microscopes by a factor of five."""
LARGEST_PLAUSIBLE_NM = 5000.0
"""Above 5 um a pixel, a scanning electron micrograph is far more likely to carry a wrong number than a true one."""

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
    r"\s*([-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?)\s*([^\W\d]+|\?m)\s*(?:/\s*(?:px|pixels?))?\s*"
)


def to_nm(value: float, unit: str) -> float | None:
    """``value`` in ``unit`` as nanometres, or None for an unknown unit. ``?m`` is a micrometre whose sign was lost in an encoding."""
    factor = _NM.get(unit.strip().lower())
    return None if factor is None else value * factor


def parse_length_nm(text: str) -> float | None:
    """The length in ``text`` (``5um``, ``3.37 nm/px``) in nanometres, or None if it is not a positive length with a unit."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        return None
    nm = to_nm(float(match[1].replace(",", ".")), match[2])
    return nm if nm is not None and math.isfinite(nm) and nm > 0 else None


def parse_pixel_size(text: str) -> PixelSize:
    """Read ``--pixel-size``: a positive length with its unit, such as ``3.37nm``, ``0.5 um/px`` or ``12 pm``, for square pixels.

    Raises:
        UsageError: no number, no unit, an unknown unit, or not positive.
    """
    nm = parse_length_nm(text)
    if nm is None:
        raise UsageError(f"{text!r} is not a pixel size", "give a length with its unit: 3.37nm, 0.5um, 12pm")
    return PixelSize(nm, nm, "flag", "high")


def describe_nm(nm: float) -> str:
    """``3.372 um`` or ``5.825 nm``: four figures and a unit that suits."""
    for limit, factor, unit in ((1e6, 1e6, "mm"), (1e3, 1e3, "um"), (1.0, 1.0, "nm")):
        if nm >= limit:
            return f"{nm / factor:.4g} {unit}"
    return f"{nm * 1e3:.4g} pm"
