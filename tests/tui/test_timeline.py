"""Frames, what is edited on them and what is asked of a run: without any screen."""

from __future__ import annotations

import dataclasses
import itertools

from segment_duo.tui.canvas.frame_bar import sign
from segment_duo.tui.timeline import MOST_FOUND, SavedTracks, Timeline, numbered
from segment_duo.types import Mask
from tests.tui_fakes import disc


def mask(number: int, x: float = 20, radius: float = 5) -> Mask:
    return disc(40, 60, x, 20, radius, id=number)


SAVED = {0: (mask(1), mask(2, 40)), 1: (mask(1, 22),), 2: (mask(1, 24), mask(2, 44))}
TRACKS = SavedTracks("3", frozenset(SAVED), {1: (0, 2), 2: (0, 2)}, frozenset({(0, 1)}))


def begun() -> Timeline:
    timeline = Timeline(4, tracks=TRACKS)
    timeline.arrive(0, SAVED[0])
    return timeline


def test_steps_stop_at_the_ends() -> None:
    timeline = Timeline(4)
    assert (timeline.target(1), timeline.target(10), timeline.target(-1)) == (1, 3, None)
    timeline.wanted = 3
    assert (timeline.target(1), timeline.target(-10)) == (None, 0)


def test_a_frame_keeps_its_edits_and_their_way_back() -> None:
    timeline = begun()
    doc = timeline.arrive(1, SAVED[1])
    assert doc.masks == SAVED[1]
    assert not timeline.unsaved
    doc.correct("brush", [((), [mask(0, 50)])])
    timeline.edited()
    assert timeline.arrive(2, SAVED[2]).masks == SAVED[2]
    assert timeline.unsaved
    assert timeline.last_edited() == 1
    again = timeline.arrive(1, SAVED[1])
    assert again is doc
    assert timeline.last_edited() is None  # it is this one
    again.undo()
    assert not timeline.unsaved
    timeline.arrive(0, SAVED[0])
    assert timeline.arrive(1, ()) is doc  # what was taken back can be done again


def test_an_object_stays_the_current_one_over_frames_without_it() -> None:
    timeline = begun()
    timeline.arrive(0, SAVED[0]).current = 2
    assert timeline.arrive(1, SAVED[1]).current is None
    assert timeline.arrive(2, SAVED[2]).current == 2
    timeline.arrive(1, SAVED[1]).current = 1  # the user chooses another one
    assert timeline.arrive(2, SAVED[2]).current == 1


def test_selection_and_order_go_along() -> None:
    timeline = begun()
    doc = timeline.arrive(0, SAVED[0])
    doc.tick([1, 2])
    doc.order = "area"
    after = timeline.arrive(1, SAVED[1])
    assert after.selected == {1}
    assert after.order == "area"


def test_new_objects_get_ids_that_no_frame_has() -> None:
    timeline = begun()
    timeline.took(3, (mask(7),))
    doc = timeline.arrive(1, SAVED[1])
    assert doc.correct("brush", [((), [mask(0, 50)])]) == (8,)
    assert Timeline(3).next_id == 1
    assert [one.id for one in numbered([mask(0), mask(5)], 4)] == [4, 5]


def test_a_run_is_asked_for_new_shapes_only() -> None:
    timeline = begun()
    doc = timeline.arrive(1, SAVED[1])
    doc.correct("brush", [((1,), [mask(1, 22, 7)]), ((), [mask(0, 50)])])
    assert [(one, frame) for one, frame, _ in timeline.asked()] == [(1, 1), (3, 1)]
    assert not timeline.otherwise_changed()
    other = timeline.arrive(2, SAVED[2])
    other.delete([2])
    assert [(one, frame) for one, frame, _ in timeline.asked()] == [(1, 1), (3, 1)]
    assert timeline.otherwise_changed()
    assert sorted(timeline.changes()) == [1, 2]


def test_a_label_is_a_change_that_no_run_is_told_of() -> None:
    timeline = begun()
    timeline.arrive(1, SAVED[1]).label([1], "pore")
    assert timeline.asked() == ()
    assert timeline.otherwise_changed()


def test_what_a_run_finds_is_shown_where_nothing_was_edited() -> None:
    timeline = begun()
    assert not timeline.took(1, (mask(1, 23),))  # another frame is on the screen
    assert timeline.took(0, (mask(1, 21),))
    assert timeline.arrive(0, SAVED[0]).masks == (mask(1, 21),)
    doc = timeline.arrive(2, SAVED[2])
    doc.delete([2])
    assert not timeline.took(2, SAVED[2])
    assert timeline.arrive(2, SAVED[2]).masks == SAVED[2][:1]
    timeline.drop_found()
    assert timeline.arrive(1, SAVED[1]).masks == SAVED[1]


def test_masks_of_a_long_run_do_not_pile_up() -> None:
    timeline = Timeline(3 * MOST_FOUND)
    for frame in range(MOST_FOUND + 5):
        timeline.took(frame, (mask(1),))
    assert timeline.arrive(4, ()).masks == ()
    assert timeline.arrive(5, ()).masks == (mask(1),)


def test_after_a_save_the_way_back_is_still_there() -> None:
    timeline = begun()
    doc = timeline.arrive(1, SAVED[1])
    doc.correct("brush", [((1,), [mask(1, 22, 7)])])
    changes = timeline.changes()
    doc.label([1], "pore")  # while it is being saved
    timeline.saved_as(dataclasses.replace(TRACKS, version="4"), changes)
    assert timeline.version == "4"
    assert sorted(timeline.changes()) == [1]
    doc.undo()
    assert not timeline.unsaved
    doc.undo()
    assert timeline.changes() == {1: SAVED[1]}


def test_unsaved_work_comes_back_on_top_of_the_saved_masks() -> None:
    timeline = Timeline(4, tracks=TRACKS)
    timeline.restore({1: (mask(1, 22, 7),)}, {1: SAVED[1]})
    assert [(one, frame) for one, frame, _ in timeline.asked()] == [(1, 1)]
    doc = timeline.arrive(1, ())
    assert doc.undo() is not None
    assert doc.masks == SAVED[1]
    assert not timeline.unsaved


def test_another_version_begins_anew() -> None:
    timeline = begun()
    timeline.arrive(1, SAVED[1]).delete([1])
    timeline.loaded(SavedTracks("5"))
    assert not timeline.unsaved
    assert timeline.arrive(1, ()).masks == ()
    assert timeline.arrive(1, ()).version == "5"


def test_bar_tells_masks_prompts_and_the_frame_in_as_many_columns_as_there_are() -> None:
    timeline = begun()
    places = timeline.bar(8)
    assert [(place.first, place.last) for place in places] == [(0, 0), (0, 0), (1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (3, 3)]  # fmt: skip
    assert [place.here for place in places] == [True, True] + 6 * [False]
    signs = [sign(place, before) for before, place in zip([None, *places], places, strict=False)]
    assert "".join(signs) == "◆━━━━━──"
    timeline.arrive(3, ()).correct("brush", [((), [mask(0)])])
    last = timeline.bar(2)[-1]
    assert (last.first, last.last, last.here, last.open) == (2, 3, True, True)
    assert timeline.bar(0) == []


def test_bar_of_a_long_film_loses_no_frame() -> None:
    timeline = Timeline(10_001)
    places = timeline.bar(60)
    assert places[0].first == 0
    assert places[-1].last == 10_000
    assert all(before.last + 1 == place.first for before, place in itertools.pairwise(places))


def test_text_tells_the_time_where_it_is_known() -> None:
    assert Timeline(12, wanted=3).text() == "frame 3 of 0–11"
    assert Timeline(12, 0.5, wanted=3).text() == "frame 3 of 0–11  1.5 s"


def test_a_label_is_the_objects_on_all_frames() -> None:
    timeline = begun()
    doc = timeline.arrive(1, SAVED[1])
    doc.label([1], "pore")
    timeline.edited()
    assert timeline.labels() == {1: "pore"}
    there = timeline.arrive(2, SAVED[2])
    assert [mask.label for mask in there.masks] == ["pore", ""]
    assert timeline.changes().keys() == {1}  # nothing was done on this frame
    there.label([1], "")
    timeline.edited()
    assert timeline.labels() == {1: ""}
    assert timeline.arrive(0, SAVED[0]).masks == SAVED[0]
    timeline.arrive(2, SAVED[2]).undo()
    timeline.arrive(1, SAVED[1]).undo()
    timeline.edited()
    assert timeline.labels() == {}
    assert timeline.arrive(0, SAVED[0]).masks == SAVED[0]
