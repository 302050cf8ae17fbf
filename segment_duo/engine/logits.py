"""Low-res logits of recent answers. No torch here."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from segment_duo.lru import BoundedLru

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class LogitsStore:
    """Low-res logits of recent answers by handle, so that a next click can refine a mask without sending it back and forth."""

    def __init__(self, bound: int) -> None:
        self._logits: BoundedLru[str, tuple[str, npt.NDArray[np.float32]]] = BoundedLru(bound)

    def add(self, scope: str, logits: npt.NDArray[np.float32]) -> str:
        """Keep logits that belong to ``scope`` (``image/weights``); returns their handle."""
        handle = secrets.token_hex(8)
        self._logits.put(handle, (scope, logits), logits.nbytes)
        return handle

    def get(self, scope: str, handle: str) -> npt.NDArray[np.float32] | None:
        """The logits, or None when they were dropped or belong to another image or model."""
        found = self._logits.get(handle)
        return found[1] if found is not None and found[0] == scope else None

    def drop_image(self, image_id: str) -> int:
        """Forget the logits of one image; the bytes freed."""
        mine = [handle for handle, (scope, _), *_ in self._logits.items() if scope.startswith(image_id)]
        return sum(self._logits.drop(handle) for handle in mine)

    def clear(self) -> int:
        return self._logits.clear()

    @property
    def used(self) -> int:
        return self._logits.used
