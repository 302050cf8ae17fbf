"""The terminal UI's film over a real session, a real engine and files: runs, corrections that hold, edits, versions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from segment_duo.config import Resolved
from segment_duo.errors import Cancelled, MaskFileError
from segment_duo.masks import rle
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.sequences import Opening, open_sequence, save_edited
from segment_duo.session import Session
from segment_duo.tui.film import Film
from segment_duo.types import Mask, Origin
from tests.engine_fixtures import Home
from tests.tracking.films import SIZE, disc, growing, write_stack


def mask(number: int, x: float, y: float, radius: float = 8) -> Mask:
    shape = rle.encode(disc(x, y, radius))
    return Mask(shape, rle.area(shape), rle.bounding_box(shape), id=number, source="prompt", origin=Origin("point"))


@pytest.fixture
def session(real_engine: Home) -> Session:
    return Session(Resolved(real_engine.config.model_copy(update={"model": "nano"}), {}), real_engine.paths)


@pytest.fixture
def film(session: Session, tmp_path: Path) -> Film:
    pictures, _ = growing(5)
    write_stack(tmp_path / "film.tif", pictures)
    return Film.open(session, session.reference(str(tmp_path / "film.tif")))


def loaded(film: Film, version: str, frame: int) -> tuple[Mask, ...]:
    film.load(version)
    return film.masks(frame)


def saved(tmp_path: Path, name: str) -> dict[int, dict[int, str]]:
    with SequenceSet.open(tmp_path / "masks" / name) as found:
        return {seen.frame: {one.id: one.rle.counts for one in seen.masks} for seen in found}


def never() -> bool:
    return False


def test_frames_are_those_of_the_file(film: Film) -> None:
    assert (film.count, film.seconds, film.newest()) == (5, 0.5, None)
    image = film.image(3)
    assert image.ref.frame == 3
    assert image.data.pixels.shape == (*SIZE, 3)
    assert [film.frame_of(page) for page in range(5)] == [0, 1, 2, 3, 4]
    assert film.masks(3) == ()


def test_masks_are_followed_corrected_and_the_corrections_hold(film: Film, tmp_path: Path) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []
    first = mask(1, 24, 30)
    done = film.follow(
        [(1, 1, first), (2, 3, mask(2, 66, 34, 10))], "both", onto=None,
        on_frame=lambda one: seen.append((one.frame, tuple(mask.id for mask in one.found))), cancelled=never, enough=never,
    )  # fmt: skip
    assert done.saved.version.name == "0"
    assert (1, (1,)) in seen
    assert {frame for frame, _ in seen} == {0, 1, 2, 3, 4}
    tracks = film.load("0")
    assert tracks.asked == {(1, 1), (3, 2)}
    assert film.newest() == "0"
    assert film.masks(1)[0].rle == first.rle

    corrected = mask(1, 27, 32, 9)
    film.follow([(1, 3, corrected)], "forward", onto="0", on_frame=lambda _: None, cancelled=never, enough=never)
    before, after = saved(tmp_path, "film.pkl"), saved(tmp_path, "film_1.pkl")
    assert all(after[frame] == before[frame] for frame in range(3))
    assert after[3][1] == corrected.rle.counts
    assert all(after[frame].get(2) == before[frame].get(2) for frame in range(5))

    # A correction of an earlier frame goes on to the last one; the one that was made there before is not lost to it.
    film.follow([(1, 2, mask(1, 26, 31))], "forward", onto="1", on_frame=lambda _: None, cancelled=never, enough=never)
    last = saved(tmp_path, "film_2.pkl")
    assert last[3][1] == corrected.rle.counts
    assert last[2][1] == mask(1, 26, 31).rle.counts
    assert film.load("2").asked == {(1, 1), (3, 2), (3, 1), (2, 1)}


def test_a_run_that_is_ended_is_saved_as_far_as_it_came(film: Film, tmp_path: Path) -> None:
    film.save({0: [mask(2, 66, 34, 10)], 4: [mask(2, 66, 34, 12)]}, onto=None)
    before = saved(tmp_path, "film.pkl")
    came: list[int] = []
    done = film.follow(
        [(1, 1, mask(1, 24, 30))], "forward", onto="0", on_frame=lambda one: came.append(one.frame), cancelled=never,
        enough=lambda: len(came) >= 2,
    )  # fmt: skip
    assert done.notices == ("stopped after 2 of 5 frames",)
    found = saved(tmp_path, "film_1.pkl")
    assert found[1].keys() == {1}
    assert (found[0], found[4], found[3]) == (before[0], before[4], {})
    assert not list((tmp_path / "masks").glob(".segduo-*"))

    with pytest.raises(Cancelled):
        film.follow(
            [(1, 1, mask(1, 24, 30))], "forward", onto="0", on_frame=lambda _: None, cancelled=never, enough=lambda: True
        )  # fmt: skip
    assert not (tmp_path / "masks/film_2.pkl").exists()


def test_another_mask_of_the_same_object_does_not_go_on_with_the_run_of_the_first(film: Film, tmp_path: Path) -> None:
    came: list[int] = []
    with pytest.raises(Cancelled):
        film.follow(
            [(1, 0, mask(1, 24, 30))], "forward", onto=None, on_frame=lambda one: came.append(one.frame),
            cancelled=lambda: len(came) >= 2, enough=never,
        )  # fmt: skip
    other = mask(1, 66, 34, 10)
    film.follow([(1, 0, other)], "forward", onto=None, on_frame=lambda _: None, cancelled=never, enough=never)
    assert saved(tmp_path, "film.pkl")[0][1] == other.rle.counts


def test_edits_of_frames_become_a_version_and_all_else_stays(film: Film, session: Session, tmp_path: Path) -> None:
    film.follow([(1, 0, mask(1, 24, 30))], "forward", onto=None, on_frame=lambda _: None, cancelled=never, enough=never)
    before = saved(tmp_path, "film.pkl")
    changed = mask(3, 40, 40, 5)
    done = film.save({2: [changed], 4: []}, onto="0", suffix="hand")
    assert done.saved.version.name == "hand"
    after = saved(tmp_path, "film_hand.pkl")
    assert after == {**before, 2: {3: changed.rle.counts}, 4: {}}
    assert film.load("hand").asked == {(0, 1), (2, 3)}
    assert film.masks(2)[0].origin == Origin("point")
    assert saved(tmp_path, "film.pkl") == before

    film.save({}, onto="hand", gone={1}, since=1)
    without = saved(tmp_path, "film_1.pkl")
    assert without == {
        frame: {one: shape for one, shape in masks.items() if not (frame and one == 1)}
        for frame, masks in after.items()
    }
    elsewhere = Session(session.resolved, session.paths, out=str(tmp_path / "other"))
    film.save({2: [changed]}, onto="0", into=elsewhere)
    assert (tmp_path / "other" / "film.pkl").is_file()


def test_an_object_outside_of_the_frames_of_a_version_is_followed_through_all(
    film: Film, session: Session, tmp_path: Path
) -> None:
    opened = open_sequence(session, film.ref, Opening(frames="1:3"))
    with opened.frames:
        save_edited(session, opened, {1: [mask(2, 66, 34, 10)]})
    film.follow([(1, 0, mask(1, 24, 30))], "forward", onto="0", on_frame=lambda _: None, cancelled=never, enough=never)
    found = saved(tmp_path, "film_2.pkl")
    assert saved(tmp_path, "film_1.pkl").keys() == found.keys() == {0, 1, 2, 3, 4}
    assert found[1][2] == mask(2, 66, 34, 10).rle.counts
    assert 1 in found[4]
    film.follow(
        [(2, 1, mask(2, 66, 34, 9))], "forward", onto="0", on_frame=lambda _: None, cancelled=never, enough=never
    )
    assert saved(tmp_path, "film_3.pkl").keys() == {1, 2}


def test_a_set_of_frames_of_another_size_is_refused(film: Film, session: Session, tmp_path: Path) -> None:
    film.save({0: [mask(1, 24, 30)]}, onto=None)
    film.close()
    write_stack(tmp_path / "film.tif", np.zeros((5, 20, 30), np.uint8))
    other = Film.open(session, session.reference(str(tmp_path / "film.tif")))
    with pytest.raises(MaskFileError, match="frames of 96 x 64 px; these have 30 x 20"):
        other.load("0")
    other.close()


def test_masks_are_linked_by_any_model_that_makes_them(session: Session, tmp_path: Path) -> None:
    pictures, truth = growing(4)
    write_stack(tmp_path / "film.tif", pictures)
    plain = Session(
        Resolved(session.config.model_copy(update={"model": "watershed"}), {}), session.paths
    )  # fmt: skip
    film = Film.open(plain, plain.reference(str(tmp_path / "film.tif")))
    came: list[int] = []
    done = film.link(on_frame=lambda one: came.append(len(one.found)), cancelled=never)
    assert (done.objects, came) == (2, [2, 2, 2, 2])
    film.load(done.saved.version.name)
    for one in film.masks(3):
        inside = truth[3][rle.decode(one.rle)]
        assert (inside == np.bincount(inside).argmax()).mean() > 0.9


def test_labels_are_of_objects_and_go_along_when_they_are_followed(film: Film, tmp_path: Path) -> None:
    def labels(name: str) -> dict[int, dict[int, str]]:
        with SequenceSet.open(tmp_path / "masks" / name) as found:
            return {seen.frame: {one.id: one.label for one in seen.masks} for seen in found}

    film.follow([(1, 0, mask(1, 24, 30))], "forward", onto=None, on_frame=lambda _: None, cancelled=never, enough=never)
    new = dataclasses.replace(mask(2, 66, 34, 10), label="rod")
    changed = [dataclasses.replace(one, label="pore") for one in loaded(film, "0", 3)]
    film.save({3: [*changed, new]}, onto="0", labels={1: "pore", 2: "rod"})
    assert labels("film_1.pkl") == {
        0: {1: "pore"},
        1: {1: "pore"},
        2: {1: "pore"},
        3: {1: "pore", 2: "rod"},
        4: {1: "pore"},
    }
    film.save({0: changed}, onto="0")  # a label that nobody said is the object's
    assert labels("film_2.pkl") == {frame: {1: ""} for frame in range(5)}

    again = dataclasses.replace(mask(1, 26, 31), label="")
    film.follow(
        [(1, 2, again), (2, 3, new)], "forward", onto="1", on_frame=lambda _: None, cancelled=never, enough=never
    )
    followed = labels("film_3.pkl")
    assert {frame: found[1] for frame, found in followed.items()} == dict.fromkeys(range(5), "pore")
    assert followed[4][2] == "rod"
