"""Which pictures are kept apart to check on, and which of two states is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segment_duo.errors import InputError
from segment_duo.training.validation import (
    Checked,
    Scores,
)
from segment_duo.training.views import LabelledPicture, View, whole

if TYPE_CHECKING:
    pass


LOST = 0.01
"""Scores that fall by less than this hold: one validation picture cannot tell more exactly."""


MOST_HELD = 4
"""Pictures kept apart at most: each costs a whole run of automatic masks at every check."""


def better(scores: Scores, best: Scores, before: Scores, by: float) -> bool:
    """Whether ``scores`` beat ``best`` by more than ``by`` without falling below the base in clicks or automatic masks."""
    held = (
        scores.one_click >= before.one_click - LOST
        and scores.three_clicks >= before.three_clicks - LOST
        and scores.f1 >= before.f1 - LOST
        and scores.automatic >= before.automatic - LOST
    )
    return held and scores.value > best.value + by


def split_pictures(
    pictures: Sequence[LabelledPicture], share: float, side: int
) -> tuple[list[LabelledPicture], list[Checked], dict[int, npt.NDArray[np.int64]]]:
    """Pictures to train on, what to check on, and by ``id(picture)`` the objects that are kept apart in a picture of both roles.

    Kept apart are the pictures whose number of objects is nearest to the median; with fewer than three pictures the objects at the far end of
    the first one's longer side; a single object serves both.
    """
    usable = [p for p in pictures if len(View(p, whole(p), side).candidates)]
    if not usable:
        if any(p.objects for p in pictures):
            raise InputError("all masks are too small at the model's input size", "Crop or tile the images first.")
        raise InputError(
            "there is no mask to learn from", "Save masks for the images first (`segduo auto` or the terminal UI)."
        )
    if len(usable) >= 3 and share > 0:
        held = min(max(1, round(share * len(usable))), MOST_HELD)
        middle = float(np.median([len(p.objects) for p in usable]))
        order = sorted(range(len(usable)), key=lambda i: abs(len(usable[i].objects) - middle))
        checked = [Checked(usable[i], np.arange(len(usable[i].objects))) for i in order[:held]]
        return [usable[i] for i in sorted(order[held:])], checked, {}
    first = usable[0]
    count = len(first.objects)
    if count < 2 or share == 0:
        return usable, [Checked(first, np.arange(count))], {}
    height, width = first.image.shape[:2]
    axis = 0 if width >= height else 1
    ends = first.boxes[:, axis]
    order_of_objects = np.argsort(ends, kind="stable")
    apart = np.sort(order_of_objects[count - max(1, round(share * count)) :])
    start = int(ends[apart].min())
    strip = (start, 0, width, height) if axis == 0 else (0, start, width, height)
    return usable, [Checked(first, apart, strip)], {id(first): apart}
