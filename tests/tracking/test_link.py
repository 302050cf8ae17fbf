"""Linking masks of frames: motion, drift, gaps, splits, merges, and going on after a break."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from segment_duo.masks.cropped import CroppedMask
from segment_duo.tracking.link import Linker, LinkParameters, drift
from segment_duo.tracking.scores import SequenceScorer
from segment_duo.training.nano.films import swarm
from tests.tracking.films import SIZE, Disc, masks


def linked(frames: list[list[Disc]], **parameters: object) -> tuple[list[tuple[int, ...]], list[tuple[int, str]]]:
    linker = Linker(*SIZE, LinkParameters(**parameters))  # type: ignore[arg-type]
    found = [linker.step(number, masks(discs)) for number, discs in enumerate(frames)]
    return [one.ids for one in found], [(event.frame, event.kind) for one in found for event in one.events]


def test_objects_keep_their_ids_whatever_the_order_of_the_masks() -> None:
    ids, events = linked([[(20, 20, 6), (60, 40, 8)], [(62, 41, 8), (22, 20, 6)], [(24, 20, 6), (64, 42, 8)]])
    assert ids == [(1, 2), (2, 1), (1, 2)]
    assert events == []


def test_a_stage_that_jumps_by_more_than_a_particle_is_followed() -> None:
    before = [(14, 15, 4), (30, 22, 5), (50, 16, 4), (22, 40, 6)]
    after = [(x + 15, y + 9, r) for x, y, r in before]
    ids, events = linked([before, after[::-1]])
    assert ids[1] == ids[0][::-1]
    assert events == []
    assert drift(masks(before), masks(after), *SIZE) == (15, 9)
    assert linked([before, after], drift=False)[0][1] != ids[0]


@pytest.mark.parametrize(("gap", "closed"), [(0, False), (1, False), (2, True)])
def test_gaps_up_to_the_given_length_are_closed(gap: int, closed: bool) -> None:
    moving = [[(20 + 3 * n, 20, 6), (60, 45, 8)] for n in range(6)]
    moving[2] = moving[2][1:]
    moving[3] = moving[3][1:]
    ids, events = linked(moving, max_gap=gap)
    assert (ids[4][0] == 1) is closed
    assert (2, "lost") in events
    assert ((4, "returned") in events) is closed


def test_a_split_and_a_merge_are_told_and_the_larger_part_keeps_the_id() -> None:
    linker = Linker(*SIZE)
    whole, large, small = (40.0, 30.0, 12.0), (36.0, 30.0, 9.5), (51.0, 30.0, 6.0)
    found = [linker.step(n, masks(discs)) for n, discs in enumerate([[whole], [small, large], [whole]])]
    assert [one.ids for one in found] == [(1,), (2, 1), (1,)]
    split, merge = found[1].events[0], found[2].events[0]
    assert (split.kind, split.sources, split.targets) == ("split", (1,), (1, 2))
    assert (merge.kind, merge.sources, merge.targets) == ("merge", (1, 2), (1,))


def test_a_new_particle_beside_an_old_one_is_no_split() -> None:
    _, events = linked([[(30, 30, 10)], [(30, 30, 10), (44, 30, 3)]])
    assert events == []


def test_a_swarm_with_gaps_splits_and_merges() -> None:
    film = swarm(7, (400, 400), 16, 30, events=2, drawn=False)
    rng = np.random.default_rng(0)
    linker, scorer = Linker(400, 400), SequenceScorer(contours=False)
    events = []
    # What is unseen in the very frame in which it splits or merges cannot be told.
    busy = {frame for frame, *_ in (*film.splits, *film.merges)}
    for number, labels in enumerate(film.labels):
        boxes = list(enumerate(ndimage.find_objects(labels), 1))
        all_shown = bool(busy & {number, number + 1})
        shown = [(one, box) for one, box in boxes if box is not None and (all_shown or rng.random() > 0.04)]
        found = linker.step(number, [CroppedMask(labels[b] == one, b[1].start, b[0].start) for one, b in shown])
        events += found.events
        names = np.zeros(int(labels.max()) + 1, int)
        names[[one for one, _ in shown]] = found.ids
        scorer.add(names[labels], labels)
    score = scorer.score()
    assert (len(film.splits), len(film.merges)) == (2, 2)
    assert score.id_switches == 0
    assert score.tracks == score.objects == 32
    assert [event.frame for event in events if event.kind == "split"] == [frame for frame, _, _ in film.splits]
    assert {event.frame for event in events if event.kind == "merge"} >= {frame for frame, _, _ in film.merges}


def test_a_linker_that_goes_on_answers_as_one_without_a_break() -> None:
    film = swarm(3, (240, 240), 20, 10, events=1, drawn=False)
    frames = []
    for number, labels in enumerate(film.labels):
        boxes = [(one, box) for one, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
        hidden = number % 5  # one is unseen now and then
        frames.append([CroppedMask(labels[b] == one, b[1].start, b[0].start) for one, b in boxes if one % 7 != hidden])
    whole = Linker(240, 240)
    answers = [whole.step(number, found) for number, found in enumerate(frames)]
    for broken in (1, 7, 15):
        second = Linker(240, 240)
        second.next_id = 1 + max(one for answer in answers[:broken] for one in answer.ids)
        for number in range(max(0, broken - second.memory), broken):
            second.replay(frames[number], answers[number].ids)
        assert [second.step(n, frames[n]) for n in range(broken, len(frames))] == answers[broken:]
