"""The document: every edit has a way back, and knows whether it is saved."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from segment_duo.results import Candidate
from segment_duo.tui.listing import SizeFilter
from segment_duo.tui.state import Document
from segment_duo.types import Box, Mask, Origin, Point, Prompt, Rle


def mask(area: int, mask_id: int = 0, source: str = "auto", label: str = "") -> Mask:
    return Mask(Rle(10, 10, str(area)), area, (0, 0, 5, 5), id=mask_id, source=source, label=label)  # type: ignore[arg-type]


def generated(count: int = 4) -> Document:
    document = Document()
    document.add_generated([mask(100 * (i + 1)) for i in range(count)], "replace-auto")
    return document


def test_point_refines_the_shown_candidate() -> None:
    document = Document()
    document.add_point(Point(1, 2))
    assert document.prompt().mask_input is None
    document.offer([Candidate(mask(5), "first"), Candidate(mask(6), "second")])
    document.next_candidate()
    document.add_point(Point(3, 4, 0))
    prompt = document.prompt()
    assert prompt.mask_input == "second"
    assert [point.label for point in prompt.points] == [1, 0]
    assert document.candidate is None  # the old answer does not fit the new points


def test_undo_of_a_point_restores_the_logits_it_was_asked_with() -> None:
    document = Document()
    document.add_point(Point(1, 2))
    document.offer([Candidate(mask(5), "first")])
    document.add_point(Point(3, 4))
    assert document.undo() == "include point"
    assert document.prompt().mask_input is None
    assert len(document.prompt().points) == 1
    assert document.redo() == "include point"
    assert document.prompt().mask_input == "first"


def test_accept_makes_a_mask_of_the_candidate_and_clears_the_prompt() -> None:
    document = generated(2)
    document.add_point(Point(7, 8))
    document.offer([Candidate(mask(42), "a")])
    kept = document.accept()
    assert kept.id == 2
    assert kept.source == "prompt"
    assert kept.point_coords == ((7, 8),)
    assert kept.point_labels == (1,)
    assert not document.pointing
    assert document.current == 2
    document.undo()
    assert len(document.masks) == 2
    assert document.pointing


def test_every_edit_can_be_taken_back_and_done_again() -> None:
    document = generated()
    states = [document.masks]
    document.label([1], "grain")
    states.append(document.masks)
    document.delete([0, 2])
    states.append(document.masks)
    document.add_generated([mask(9)], "replace-all")
    states.append(document.masks)
    for expected in reversed(states[:-1]):
        document.undo()
        assert document.masks == expected
    for expected in states[1:]:
        document.redo()
        assert document.masks == expected
    assert document.redo() is None


def test_new_edit_forgets_what_was_undone() -> None:
    document = generated()
    document.delete([0])
    document.undo()
    document.delete([1])
    assert document.redo() is None


def test_automatic_masks_replace_automatic_ones_only() -> None:
    document = generated(2)
    document.add_point(Point(1, 1))
    document.offer([Candidate(mask(7), "a")])
    document.accept()
    removed = document.add_generated([mask(1), mask(2), mask(3)], "replace-auto")
    assert removed == 2
    assert [m.source for m in document.masks] == ["prompt", "auto", "auto", "auto"]
    assert len({m.id for m in document.masks}) == 4
    assert document.add_generated([mask(1)], "add") == 0
    assert len(document.masks) == 5
    assert document.add_generated([mask(1)], "replace-all") == 5
    assert len(document.masks) == 1


def test_delete_moves_on_to_the_next_mask() -> None:
    document = generated()
    document.current = 1
    document.tick([1, 2])
    assert document.delete(document.selected) == 2
    assert document.current == 3
    assert document.selected == frozenset()
    assert document.delete([99]) == 0
    document.undo()
    assert document.selected == {1, 2}


def test_ticks() -> None:
    document = generated()
    document.tick_shown("all")
    assert document.selected == {0, 1, 2, 3}
    document.tick([1])
    document.tick_shown("invert")
    assert document.selected == {1}
    document.tick_shown("none")
    assert not document.selected
    document.tick([2], True)
    document.tick([2], True)
    assert document.selected == {2}


def test_filter_hides_and_deselects() -> None:
    document = generated()  # areas 100, 200, 300, 400
    document.tick_shown("all")
    document.set_filter(SizeFilter(150, 350))
    assert [m.area for m in document.shown] == [200, 300]
    assert document.selected == {1, 2}
    assert document.step(1) in (1, 2)
    document.tick_shown("invert")
    assert not document.selected
    assert str(document.filter) == "150 to 350 px"
    document.set_filter(SizeFilter())
    assert len(document.shown) == 4


def test_step_goes_round() -> None:
    document = generated(3)
    assert [document.step(1) for _ in range(3)] == [1, 2, 0]
    assert document.step(-1) == 2
    assert Document().step(1) is None


def test_unsaved_knows_the_way_back() -> None:
    document = generated()
    assert document.unsaved
    saved = document.masks
    document.saved_as(saved, "0")
    assert not document.unsaved
    document.label([0], "x")
    assert document.unsaved
    document.undo()
    assert not document.unsaved
    document.tick([0])
    assert not document.unsaved


def test_edits_made_while_saving_stay_unsaved() -> None:
    document = generated()
    being_saved = document.masks
    document.delete([0])
    document.saved_as(being_saved, "0")
    assert document.unsaved


def test_box_and_drop() -> None:
    document = Document()
    document.corner = (1, 1)
    document.set_box(Box(1, 1, 5, 5))
    assert document.corner is None
    assert document.prompt().box == Box(1, 1, 5, 5)
    assert document.drop_prompt()
    assert not document.drop_prompt()
    document.undo()
    assert document.pointing


def test_loaded_masks_have_no_history() -> None:
    document = generated()
    document.loaded([mask(1), mask(2, 1)], "grain_1")
    assert not document.unsaved
    assert document.undo() is None
    assert document.version == "grain_1"
    document.loaded([mask(1)], None, saved=False)
    assert document.unsaved


@given(st.lists(st.sampled_from(["point", "keep", "delete", "label", "auto", "undo", "redo"]), max_size=30))
def test_undoing_everything_gives_the_beginning(steps: list[str]) -> None:
    document = Document()
    for step in steps:
        match step:
            case "point":
                document.add_point(Point(1, 1))
            case "keep":
                document.offer([Candidate(mask(3), "h")])
                document.accept()
            case "delete" if document.masks:
                document.delete([document.masks[0].id])
            case "label" if document.masks:
                document.label([document.masks[-1].id], str(len(document.masks)))
            case "auto":
                document.add_generated([mask(1), mask(2)], "replace-auto")
            case "undo":
                document.undo()
            case "redo":
                document.redo()
        ids = [m.id for m in document.masks]
        assert len(set(ids)) == len(ids)
    while document.undo() is not None:
        pass
    assert document.present.masks == ()
    assert not document.pointing


# Corrections


def test_correction_is_one_step_and_noted_in_the_origin() -> None:
    document = Document()
    run = Origin("auto", parameters={"points_per_side": 32})
    document.add_generated([replace(mask(area), origin=run) for area in (100, 200, 300)], "replace-auto")
    document.label([1], "grain")
    kept = document.mask(1)
    assert document.correct("brush", [((1,), [replace(kept, area=250)])]) == (1,)
    assert [m.id for m in document.masks] == [0, 1, 2]
    assert document.mask(1).area == 250
    assert document.mask(1).origin == replace(run, edits=("label 'grain'", "brush"))
    document.correct("merged 1 and 2", [((1, 2), [replace(document.mask(1), area=550)])])
    assert [m.id for m in document.masks] == [0, 1]
    assert document.mask(1).origin.edits == ("label 'grain'", "brush", "merged 1 and 2")
    # What was corrected is the user's: looking for all objects again leaves it, a label alone does not.
    document.label([0], "grain")
    document.add_generated([mask(5)], "replace-auto")
    assert [m.area for m in document.masks] == [550, 5]
    for _ in range(4):
        document.undo()
    assert document.mask(1) == kept


def test_split_gives_new_ids_in_the_old_place_and_empty_parts_go() -> None:
    document = generated(3)
    document.tick([0, 1])
    made = document.correct("split", [((1,), [mask(120), mask(80), mask(0)])])
    assert made == (1, 3)
    assert [m.id for m in document.masks] == [0, 1, 3, 2]
    assert document.selected == {0, 1}
    document.current = 3
    assert document.correct("eraser", [((3,), [mask(0)])]) == ()
    assert [m.id for m in document.masks] == [0, 1, 2]
    assert document.current == 0
    assert document.correct("brush", [((), [mask(9)])]) == (3,)
    assert document.undo() == "brush"


def test_refining_goes_on_from_the_logits_and_replaces_the_mask() -> None:
    document = Document()
    document.add_point(Point(3, 4))
    document.offer([Candidate(mask(50), "first")])
    document.accept()
    document.label([0], "grain")
    assert document.refine(0)
    assert not document.refine(77)
    document.add_point(Point(9, 9, 0))
    prompt = document.prompt()
    assert prompt.mask_input == "first"
    assert [(point.x, point.label) for point in prompt.points] == [(3, 1), (9, 0)]
    document.offer([Candidate(mask(40), "second")])
    better = document.accept()
    assert (better.id, better.label, better.area) == (0, "grain", 40)
    assert len(document.masks) == 1
    assert better.origin.edits == ("label 'grain'", "points")
    assert document.undo() == "mask 0"
    assert document.refining.area == 50
    document.drop_prompt()
    assert document.refining is None
    assert document.mask(0).area == 50


def test_refining_an_automatic_mask_begins_with_its_box() -> None:
    document = generated(1)
    document.refine(0)
    document.add_point(Point(2, 2))
    assert document.prompt() == Prompt(points=(Point(2, 2),), box=Box(0, 0, 4, 4))


def test_restored_work_can_be_undone() -> None:
    document = Document()
    document.loaded([mask(1)], "0")
    document.restored([mask(2), mask(3, 1)], [Point(1, 1)], "0")
    assert document.unsaved
    assert document.pointing
    assert document.undo() == "unsaved work brought back"
    assert [m.area for m in document.masks] == [1]
    assert not document.unsaved
