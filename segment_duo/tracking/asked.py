"""What the runs that made a sequence set were told of its objects, by prompts and masks, and on which frames: it stands in the set's origins.

A later run that corrects an object is told all of it again, so that earlier corrections hold. Which objects there are on a frame is the set's own
business; nothing here follows them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from segment_duo.frame_prompts import FramePrompt, together
from segment_duo.masks.formats.sequence import SequenceHead, SequenceSet
from segment_duo.types import Mask, Origin

Place = tuple[int, int]
"""An object and a frame."""


def earlier_prompts(known: SequenceSet, corrected: Collection[int], now: Collection[Place]) -> list[FramePrompt]:
    """The points and boxes of the ``corrected`` objects: where they began, and corrections; not those of places that are asked about ``now``."""
    prompts = [prompt for origin in known.head.origins for prompt in _prompts(origin)]
    return together(one for one in prompts if one.object_id in corrected and (one.object_id, one.frame) not in now)


def earlier_masks(
    known: SequenceSet, corrected: Collection[int], now: Collection[Place]
) -> list[tuple[int, int, Mask]]:
    """(object, frame, mask) of the masks that were taken as they are, as :func:`earlier_prompts` does it."""
    places = {place for origin in known.head.origins for place in _mask_places(origin)}.difference(now)
    found = []
    for one, frame in sorted(places, key=lambda place: (place[1], place[0])):
        if one in corrected and frame in known:
            found += [(one, frame, mask) for mask in known.frame(frame).masks if mask.id == one]
    return found


def asked_places(head: SequenceHead) -> set[Place]:
    """Of all that was said of a set's objects, whose and where it was."""
    found = {place for origin in head.origins for place in _mask_places(origin)}
    return found | {(prompt.object_id, prompt.frame) for origin in head.origins for prompt in _prompts(origin)}


def _prompts(origin: Origin) -> Iterator[FramePrompt]:
    """The prompts that a run noted; what cannot be read is passed over."""
    for value in origin.parameters.get("prompts", ()):
        try:
            yield FramePrompt.from_record(value)
        except (KeyError, TypeError, ValueError):
            continue


def _mask_places(origin: Origin) -> Iterator[Place]:
    """The masks that a run noted."""
    for value in origin.parameters.get("masks", ()):
        try:
            one, frame = value
            yield int(one), int(frame)
        except (TypeError, ValueError):
            continue
