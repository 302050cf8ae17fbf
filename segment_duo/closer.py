"""Looking closer: a prompt's own part of the picture, where the model sees it larger than in the whole.

    the whole picture, or a window wide enough ──> mask ──if it is small──> the same prompt in a window that suits its size ──> mask
                                                  the one that holds the points stays; of two that do, the one with the higher predicted IoU

Every model shrinks an image to a fixed number of pixels a side; what is 20 pixels wide in a picture of 10,000 is one pixel then. Windows lie on
a coarse raster, so that prompts near each other share one, and with it its embedding. Pure arithmetic around a function that predicts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Literal, TypeAlias

from segment_duo.boxes import window
from segment_duo.results import PredictedObject
from segment_duo.types import Box, Prompt

PromptScale: TypeAlias = Literal["whole", "closer"]
"""What the model is shown for a prompt: all of the picture, or also the parts around it."""

Predict: TypeAlias = Callable[[Sequence[Prompt], Box | None], list[PredictedObject]]
"""One answer for each prompt, from a part of the picture (corners whole pixels, both inside) or, None, from all of it; in image coordinates."""

RASTER = 4
"""Parts lie on multiples of their side divided by this."""

SIDES = (0.3, 0.5, 0.75)
"""Sides of the closer windows as shares of the model's input, the smallest first. Looking at the widest for every mask costs three times as much and
gains nothing (nano, one click on 96 objects of pictures of 1,024 and 1,536 pixels: IoU 0.776 and 0.774)."""

SMALL = 0.2
"""A window suits a mask whose size (root of its area) is at most this share of its side. On EMPS validation pictures (107 objects, nano) 0.15 to 0.25
give a mean IoU of 0.78 after one click, 0.4 gives 0.77, the whole picture alone 0.763."""

LARGE = 0.4
"""A mask of more than this share of a window's side is cut by it, or lacks surroundings."""

WIDEST = 2
"""Times a picture may be shrunk to be looked at whole first; of a larger one the beginning is a window of 1.5 times the model's input."""

ROOM = 1.5
"""A window is at least so many times as wide as the box and the points that it must hold."""


def look_closer(
    predict: Predict, prompts: Sequence[Prompt], width: int, height: int, input_size: int
) -> list[PredictedObject]:
    """The best answer to each prompt of those that the whole picture and closer windows give.

    Args:
        width, height: of the picture in pixels.
        input_size: pixels a side that the model shrinks an image to, 0 if it takes it as it is; then the whole picture answers.
    """
    looks = [_Look(prompt, width, height) for prompt in prompts]
    longest = max(width, height)
    side = 1.5 * input_size
    waiting = looks
    while longest > WIDEST * input_size > 0 and side < longest and waiting:
        _answer(predict, waiting, [look.part(side) for look in waiting], better=False)
        waiting = [look for look in waiting if not look.fits]
        side *= 2
    _answer(predict, waiting, [None] * len(waiting), better=False)
    closer = [(look, part) for look in looks if (part := look.closer(input_size)) is not None]
    _answer(predict, [look for look, _ in closer], [part for _, part in closer], better=True)
    return [look.found for look in looks]


class _Look:
    """One prompt, and the best answer to it so far."""

    def __init__(self, prompt: Prompt, width: int, height: int) -> None:
        self.prompt, self.width, self.height = prompt, width, height
        self.seen: Box | None = None  # the part that the answer is from
        self.answer: PredictedObject | None = None
        places = [(point.x, point.y) for point in prompt.points]
        if (box := prompt.box) is not None:
            places += [(box.x0, box.y0), (box.x1, box.y1)]
        self.xs, self.ys = [x for x, _ in places], [y for _, y in places]
        self.extent = max(max(self.xs) - min(self.xs), max(self.ys) - min(self.ys)) if places else float("inf")

    @property
    def found(self) -> PredictedObject:
        assert self.answer is not None
        return self.answer

    @property
    def size(self) -> float:
        """Of the mask, in pixels."""
        return sqrt(self.found.best.mask.area)

    @property
    def fits(self) -> bool:
        """Whether the mask is whole in the window it is from, with surroundings, and where it was asked for."""
        return self.seen is None or (self._is_whole(self.found, self.seen) and self._holds_points(self.found))

    def part(self, side: float) -> Box | None:
        """A window of this side around the prompt, None if it would be the whole picture or hold too little."""
        if side >= max(self.width, self.height) or ROOM * self.extent > side:
            return None
        middle = (min(self.xs) + max(self.xs)) / 2, (min(self.ys) + max(self.ys)) / 2
        return part_around(middle, side, self.width, self.height, list(zip(self.xs, self.ys, strict=True)))

    def closer(self, input_size: int) -> Box | None:
        """The window that suits the mask; None if the mask is too large for any."""
        side = next((share * input_size for share in SIDES if self.size <= SMALL * share * input_size), None)
        return None if side is None else self.part(side)

    def take(self, found: PredictedObject, part: Box | None, *, better: bool) -> None:
        """Keep an answer; ``better``: only if it is whole, and holds the points or the model thinks more of it than of the one before."""
        if not better or (self._is_whole(found, part) and self._rank(found) > self._rank(self.found)):
            self.answer, self.seen = found, part

    def _rank(self, found: PredictedObject) -> tuple[bool, float]:
        return self._holds_points(found), found.best.predicted_iou or 0.0

    def _holds_points(self, found: PredictedObject) -> bool:
        """Whether every include point is in the mask."""
        from segment_duo.masks.rle import decode_crop

        rle = found.best.mask.rle
        places = [
            (min(round(point.x), self.width - 1), min(round(point.y), self.height - 1))
            for point in self.prompt.points
            if point.label
        ]
        return all(bool(decode_crop(rle, x, y, 1, 1)[0, 0]) for x, y in places)

    def _is_whole(self, found: PredictedObject, part: Box | None) -> bool:
        if part is None:
            return True
        mask = found.best.mask
        left, top, right, bottom = window(mask.bbox)
        cut = (
            (left <= part.x0 and part.x0 > 0)
            or (top <= part.y0 and part.y0 > 0)
            or (right > part.x1 and part.x1 < self.width - 1)
            or (bottom > part.y1 and part.y1 < self.height - 1)
        )
        return (
            mask.area > 0 and not cut and sqrt(mask.area) <= LARGE * max(part.x1 - part.x0 + 1, part.y1 - part.y0 + 1)
        )


def _answer(predict: Predict, looks: Sequence[_Look], parts: Sequence[Box | None], *, better: bool) -> None:
    """Ask for all prompts of a part at once."""
    together: dict[Box | None, list[_Look]] = defaultdict(list)
    for look, part in zip(looks, parts, strict=True):
        together[part].append(look)
    for part, group in together.items():
        for look, found in zip(group, predict([look.prompt for look in group], part), strict=True):
            look.take(found, part, better=better)


def part_around(
    middle: tuple[float, float], side: float, width: int, height: int, places: Sequence[tuple[float, float]] = ()
) -> Box | None:
    """A window of a picture on the raster of its side.

    Args:
        middle: x and y of what it is to show.
        side: in pixels; where the picture is narrower the window is so too.
        width, height: of the picture.
        places: what must lie in it.

    Returns:
        whole pixels, both corners inside; None if no window holds all places.
    """
    left, right = _span(middle[0], side, width, [x for x, _ in places])
    top, bottom = _span(middle[1], side, height, [y for _, y in places])
    if any(not (left <= x <= right and top <= y <= bottom) for x, y in places):
        return None
    return Box(left, top, right, bottom)


def _span(middle: float, side: float, size: int, places: list[float]) -> tuple[int, int]:
    """First and last pixel along one axis, around ``middle`` and moved so far that ``places`` are inside, if they fit."""
    length = min(round(side), size)
    step = side / RASTER
    start = round((middle - side / 2) / step) * step
    if places:
        while min(places) < start:
            start -= step
        while max(places) > start + length - 1:
            start += step
    first = min(max(round(start), 0), size - length)
    return first, first + length - 1
