"""What a sequence set remembers of what was asked: which objects, on which frames, by prompts or by masks. Places are (object, frame)."""

from __future__ import annotations

from collections.abc import Iterator

from segment_duo.frame_prompts import FramePrompt, together
from segment_duo.masks.formats.sequence import SequenceHead, SequenceSet
from segment_duo.types import Mask, Origin


def earlier_prompts(parent: SequenceSet | None, corrected: set[int], now: set[tuple[int, int]]) -> list[FramePrompt]:
    """What was asked of the corrected objects before, where nothing is asked ``now``: where they began, and corrections, which hold as well."""
    if parent is None:
        return []
    found = []
    for origin in parent.head.origins:
        for value in origin.parameters.get("prompts", ()):
            try:
                earlier = FramePrompt.from_record(value)
            except (KeyError, TypeError, ValueError):
                continue
            key = earlier.object_id, earlier.frame
            if earlier.object_id in corrected and key not in now:
                found.append(earlier)
    return together(found)


def earlier_masks(
    parent: SequenceSet | None, corrected: set[int], now: set[tuple[int, int]]
) -> list[tuple[int, int, Mask]]:
    """The masks that earlier runs took as they are, of the corrected objects where nothing is asked ``now``: they hold as well."""
    if parent is None:
        return []
    places = {place for origin in parent.head.origins for place in _mask_places(origin)}
    found = []
    for frame, one in sorted((frame, one) for one, frame in places - now if one in corrected):
        masks = parent.frame(frame).masks if frame in parent else ()
        found += [(one, frame, mask) for mask in masks if mask.id == one]
    return found


def _mask_places(origin: Origin) -> Iterator[tuple[int, int]]:
    """(object, frame) of the masks that a run was given, as the set's origins note them."""
    for value in origin.parameters.get("masks", ()):
        try:
            one, frame = value
            yield int(one), int(frame)
        except (TypeError, ValueError):
            continue


def asked_places(head: SequenceHead) -> set[tuple[int, int]]:
    """(object, frame) of all that was said of a set's objects by prompts or masks."""
    found = {place for origin in head.origins for place in _mask_places(origin)}
    for origin in head.origins:
        for value in origin.parameters.get("prompts", ()):
            try:
                found.add((int(value["object"]), int(value["frame"])))
            except (KeyError, TypeError, ValueError):
                continue
    return found
