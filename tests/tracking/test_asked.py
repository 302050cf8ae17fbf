"""What a set's origins tell of the prompts and masks that earlier runs were given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from segment_duo.frame_prompts import FramePrompt
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.masks.formats.sequence_writer import SequenceWriter
from segment_duo.tracking.asked import asked_places, earlier_masks, earlier_prompts
from segment_duo.types import Origin, Point
from tests.tracking.test_sequence_sets import FRAMES, head

FIRST = FramePrompt(1, 0, (Point(30, 30),))
LATER = FramePrompt(1, 3, (Point(26, 32),))
OTHER = FramePrompt(2, 1, (Point(42, 30),))
RUNS = (
    Origin("track", None, {"prompts": [LATER.record()], "masks": [[2, 2], [1, 1], ["x"], 7]}, "1"),
    Origin("tui", None, {"masks": [[2, 3], [9, 3], [1, 40]]}, "1"),
    Origin("track", None, {"prompts": [FIRST.record(), OTHER.record(), {"object": 1}]}, "1"),
    Origin("import", None, {"file": "labels.tif"}, "1"),
)


def written(file: Path) -> SequenceSet:
    writer = SequenceWriter.create(file, dataclasses.replace(head(), origins=RUNS))
    for number, (masks, events) in enumerate(FRAMES):
        writer.append(number, masks, events)
    writer.finish()
    return SequenceSet.open(file)


def test_all_that_was_asked_is_found_and_damage_passed_over(tmp_path: Path) -> None:
    with written(tmp_path / "a.pkl") as known:
        places = {(1, 0), (1, 3), (2, 1), (2, 2), (1, 1), (2, 3), (9, 3), (1, 40)}
        assert asked_places(known.head) == places


def test_only_the_corrected_objects_and_only_places_that_are_not_asked_about_now(tmp_path: Path) -> None:
    with written(tmp_path / "a.pkl") as known:
        assert earlier_prompts(known, {1}, set()) == [FIRST, LATER]
        assert earlier_prompts(known, {1}, {(1, 3)}) == [FIRST]
        assert earlier_prompts(known, {1, 2}, {(1, 0)}) == [OTHER, LATER]
        shapes = {(one.id, frame): one.rle for frame, (found, _) in enumerate(FRAMES) for one in found}
        for corrected, now, places in (({2}, set(), [(2, 2), (2, 3)]), ({1, 2}, {(2, 3)}, [(1, 1), (2, 2)])):
            found = earlier_masks(known, corrected, now)
            assert [(one, frame, mask.rle) for one, frame, mask in found] == [
                (*place, shapes[place]) for place in places
            ]
