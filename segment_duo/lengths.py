"""Numbers and lengths with their units: what users type and makers write, in nanometres.

One grammar of numbers and one table of units, for flags (``--pixel-size``, ``--min-diameter``) and for the texts of all makers and programs:

    quantity = [sign] digits [("." | ",") digits] [exponent] [unit]

A comma is a decimal sign, as the instruments of half the world write it; it never groups thousands. A text that does not fit **whole** (``3.968.1``,
``1,234.5``, ``12abc7``) is no number at all: a number cut short is a wrong number that looks right.

This module must stay free of heavy imports.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from segment_duo.errors import UsageError

_METRES = {
    "m": ("meter", "metre", "metro"),
    "dm": ("decimeter", "decimetre"),
    "cm": ("centimeter", "centimetre"),
    "mm": ("millimeter", "millimetre", "milimetro"),
    # "?m", "âµm" and the like are what encodings make of "µm" (those of Japan and China read as Windows-1252: "ƒêm", "¦ìm"); ImageJ users
    # write a bare "u" or "micron".
    "um": ("u", "μ", "μm", "?m", "âµm", "î¼m", "ƒêm", "¦ìm", "мкм", "micron", "mikron", "micrometer", "micrometre", "mikrometer", "micrometro"),
    "nm": ("нм", "nanometer", "nanometre", "nanometro"),
    "å": ("angstrom", "angstroem", "ang"),
    "pm": ("picometer", "picometre", "pikometer"),
    "fm": ("femtometer", "femtometre"),
}  # fmt: skip
_NM = {"m": 1e9, "dm": 1e8, "cm": 1e7, "mm": 1e6, "um": 1e3, "nm": 1.0, "å": 0.1, "pm": 1e-3, "fm": 1e-6}
_NOT_LENGTHS = frozenset({"Mm", "Pm", "a"})
"""Megametre and petametre, which must not be read as millionths of themselves, and the are; a capital A is an angstrom."""

_NUMBER = r"[-+]?(?:\d+(?:\.\d*|,\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*(?:((?![\d.,+-])[^\d\s][^\d]*?)\s*)?", re.ASCII)
_EACH = re.compile(r"\s*(?:/|\bper\b)\s*(?:px|pix|pixels?)\.?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Length:
    """A length in ``px`` or ``nm``."""

    value: float
    unit: Literal["px", "nm"]


def parse_quantity(text: str) -> tuple[float, str] | None:
    """``15,0 kV`` -> (15.0, ``kV``), ``91`` -> (91.0, ````); None unless the whole text is one finite number with at most a unit behind it."""
    match = _QUANTITY.fullmatch(text.strip("\0 \t\r\n"))
    if match is None:
        return None
    value = float(match[1].replace(",", "."))
    return (value, match[2] or "") if math.isfinite(value) else None


def parse_number(text: str) -> float | None:
    """The finite number that ``text`` is, and nothing else beside it; None for all other text."""
    found = parse_quantity(text)
    return found[0] if found is not None and not found[1] else None


def to_nm(value: float, unit: str) -> float | None:
    """``value`` in ``unit`` as nanometres, or None for an unknown unit.

    Units are spelled as people and programs do: ``um``, ``µm`` with either sign, ``micron``, ``micrometre``, ``u``, ``Å``, ``A``, ``angstroms``,
    ``nm/pixel``; ``?m`` is a micrometre whose sign was lost in an encoding.
    """
    factor = _NM_OF.get(_folded(unit))
    return None if factor is None else value * factor


def _folded(unit: str) -> str:
    """``Micromètres`` -> ``micrometre``: without accents, case, plural and ``per pixel``. Empty for what is no length."""
    unit = _EACH.sub("", unicodedata.normalize("NFKC", unit).strip()).strip().removesuffix(".")
    if unit in _NOT_LENGTHS:
        return ""
    if unit in {"A", "Å"}:
        return "å"
    lower = unit.lower()
    # Accents go only from words: the ring of Å is its meaning, and µ is no accented letter.
    if len(lower) > 3:
        lower = "".join(c for c in unicodedata.normalize("NFKD", lower) if not unicodedata.combining(c))
        lower = lower.removesuffix("s")
    return lower


_NM_OF = {spelling: _NM[unit] for unit, words in _METRES.items() for spelling in (unit, *map(_folded, words))}


def length_nm(text: str, unit: str = "") -> float | None:
    """The positive length in ``text`` in nanometres; ``unit`` is that of a bare number. None if it is none, or of an unknown unit."""
    found = parse_quantity(text)
    if found is None:
        return None
    nm = to_nm(found[0], found[1] or unit)
    return nm if nm is not None and math.isfinite(nm) and nm > 0 else None


def parse_length_nm(text: str) -> float | None:
    """The length in ``text`` (``5um``, ``3.37 nm/px``) in nanometres, or None if it is not a positive length with a unit."""
    return length_nm(text)


def parse_length(text: str) -> Length:
    """``50nm``, ``0.5 um``, ``12px``, ``12`` (pixels); not negative.

    Raises:
        UsageError: something else.
    """
    found = parse_quantity(text)
    if found is not None and not _EACH.search(found[1]):
        value, unit = found
        in_pixels = unit in {"", "px"}
        length = value if in_pixels else to_nm(value, unit)
        if length is not None and math.isfinite(length) and length >= 0:
            return Length(length, "px" if in_pixels else "nm")
    raise UsageError(f"{text!r} is not a length", "for example 50nm, 0.5um or 12px")


_SCALES = ((1e9, "m"), (1e6, "mm"), (1e3, "um"), (1.0, "nm"), (1e-3, "pm"))


def fitting_unit(nm: float) -> tuple[float, str]:
    """The unit in which ``nm`` nanometres are at least 1 when written with four figures, as (nanometres of one unit, its name): (1000, ``um``).

    For a column of lengths, ask for the largest or the median and use the one unit for all.
    """
    for factor, unit in _SCALES:
        if abs(nm) / factor >= 0.99995:  # what four figures round up to 1
            return factor, unit
    return _SCALES[-1] if nm else (1.0, "nm")


def describe_nm(nm: float) -> str:
    """``3.372 um`` or ``5.825 nm``: four figures and a unit that suits."""
    factor, unit = fitting_unit(nm)
    value = nm / factor
    return f"{value:.0f} {unit}" if 1000 <= abs(value) < 1e15 else f"{value:.4g} {unit}"
