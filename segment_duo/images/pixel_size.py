"""Pixel sizes: reading ``--pixel-size``, and the bounds of the plausible. All sizes are kept in nanometres."""

from __future__ import annotations

from segment_duo.errors import UsageError
from segment_duo.lengths import parse_length_nm
from segment_duo.types import PixelSize

SMALLEST_PLAUSIBLE_NM = 0.01
"""Below the best resolution of electron microscopes by a factor of five."""
LARGEST_PLAUSIBLE_NM = 5000.0
"""Above 5 um a pixel, a scanning electron micrograph is far more likely to carry a wrong number than a true one."""


def parse_pixel_size(text: str) -> PixelSize:
    """Read ``--pixel-size``: a positive length with its unit, such as ``3.37nm``, ``0.5 um/px`` or ``12 pm``, for square pixels.

    Raises:
        UsageError: no number, no unit, an unknown unit, or not positive.
    """
    nm = parse_length_nm(text)
    if nm is None:
        raise UsageError(f"{text!r} is not a pixel size", "give a length with its unit: 3.37nm, 0.5um, 12pm")
    return PixelSize(nm, nm, "flag", "high")
