"""segment_duo: promptable segmentation of micrographs for people who live in a terminal.

For Python: :func:`auto`, :func:`point` and :func:`open` (see :mod:`segment_duo.api`). They are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_duo.api import Masks, auto, open, point  # noqa: A004 - sd.open, as PIL.Image.open

__all__ = ["Masks", "auto", "open", "point"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in __all__:
        from segment_duo import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
