"""``track --auto``: objects that come later are looked for, with a model that follows bright regions by their overlap and costs nothing.

Like small models it takes what appears beside an object for a part of it. Its automatic masks tell dim regions from bright ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from segment_duo.errors import MaskFileError
from segment_duo.masks import rle
from segment_duo.masks.cropped import CroppedMask
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.tracking.apart import shrunk, uncovered
from segment_duo.types import Mask
from tests.batches.toy import NO_TORCH
from tests.cli_shell import Shell
from tests.engine_fixtures import wait_for
from tests.plug_in_packages import install
from tests.tracking.films import SIZE, disc, growing, write_stack

OPTIONS = ("--auto", "--no-tables")

FOLLOWER = """
import time
import numpy as np
from scipy import ndimage
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.base import AutomaticRun, Capability, Family, Segmenter, SegmenterInfo, fingerprint
from segment_duo.segmenters.tracking import TrackedObject, Tracker

INFO = SegmenterInfo(
    id="follower", sha256=fingerprint("follower", "1"), capabilities=frozenset({Capability.AUTOMATIC, Capability.TRACK}), licence="MIT"
)


def regions(pixels):
    return ndimage.label(pixels[..., 0] > 110)[0].astype("int32")


class Following(Tracker):
    looks_back = 1
    nbytes = 1

    def __init__(self):
        self.last = {}

    def step(self, pixels, step, *, on_progress=None, check=None):
        time.sleep(0.02)
        labels = regions(pixels)
        found = {}
        for prompt in step.prompts:
            found[prompt.object_id] = prompt.mask
        for ident in step.follow:
            one = self.last[ident]
            rows, columns = one.pixels.shape
            counts = np.bincount(labels[one.top : one.top + rows, one.left : one.left + columns][one.pixels])
            best = int(counts[1:].argmax()) + 1 if len(counts) > 1 else -1
            found[ident] = CroppedMask.of(labels == best)
        self.last |= {**found, **step.known}
        return tuple(TrackedObject(ident, mask, 1.0 if mask.area else -1.0) for ident, mask in sorted(found.items()))


class Follower(Segmenter):
    info = INFO

    def automatic(self, pixels, parameters, **_):
        grey = pixels[..., 0]
        bright, dim = (ndimage.label(part)[0] for part in (grey > 150, (grey > 110) & (grey <= 150)))
        return AutomaticRun.of_labels(np.where(dim > 0, dim + bright.max(), bright).astype("int32"))

    def tracker(self, frames, *, fast=False):
        return Following()


FAMILY = Family(load=lambda request: Follower(), info=INFO)
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder, packages, home = tmp_path / "work", tmp_path / "packages", tmp_path / "home"
    for new in (folder, packages, home):
        new.mkdir()
    install(packages, "follower", FOLLOWER)
    (packages / "torch.py").write_text(NO_TORCH)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    own = {
        "HOME": str(home),
        "SEGDUO_HOME": str(home / "segduo"),
        "SEGDUO_IN_PROCESS": "1",
        "SEGDUO_MODEL": "follower",
        "PYTHONPATH": os.pathsep.join([str(packages), *sys.path[:1]]),
        "NO_COLOR": "1",
    }
    return Shell(folder, kept | own)


def late_disc(shell: Shell, frames: int, begin: int) -> np.ndarray:
    """A film in which a third disc appears; its pixels."""
    pictures, _ = growing(frames)
    late = disc(46, 12, 7)
    pictures[begin:, late] = 160
    write_stack(shell.folder / "film.tif", pictures)
    return late


def lives(file: Path) -> dict[int, int]:
    with SequenceSet.open(file) as found:
        return {life.id: life.first for life in found.lives()}


def mask(pixels: np.ndarray) -> Mask:
    code = rle.encode(pixels)
    return Mask(code, int(pixels.sum()), rle.bounding_box(code))


def test_masks_are_new_where_no_known_object_is() -> None:
    known = [CroppedMask.of(disc(20, 20, 8)), CroppedMask.of(disc(60, 20, 8))]
    beside, same, around = disc(20, 45, 8), disc(22, 21, 8), disc(60, 24, 18)
    touching = disc(60, 31, 8)
    found = uncovered([mask(one) for one in (beside, same, around, touching)], known, *SIZE)
    assert [one.area for one in found] == [beside.sum(), touching.sum()]
    assert len(uncovered([mask(same)], [], *SIZE)) == 1


def test_what_came_beside_an_object_is_no_part_of_it() -> None:
    old, late, other = disc(24, 30, 10), disc(42, 30, 8), disc(60, 30, 9)
    left, right = old & (np.arange(SIZE[1]) < 24), old & (np.arange(SIZE[1]) >= 24)
    rim = disc(24, 30, 14) & ~old

    def found(known: np.ndarray, before: np.ndarray, *masks: np.ndarray) -> list[int]:
        left_over = shrunk([mask(one) for one in masks], {7: CroppedMask.of(known)}, {7: CroppedMask.of(before)})
        return [int(np.array_equal(rle.decode(one.rle(*SIZE)), old)) for one in left_over.values()]

    assert found(old | late, old, old, late) == [1]
    # Two objects may have taken a part of it each, and the object may have grown or moved since.
    half = late & (np.arange(SIZE[1]) < 42)
    assert found(old | half, disc(23, 30, 8), old, late, other) == [1]
    # What falls into pieces where it was, grew, or reaches a little into its neighbour, stays as it is.
    assert found(old, old, left, right) == []
    assert found(old | rim, old, old | rim) == []
    assert found(old | disc(33, 30, 3), old, old, late) == []
    assert found(old | late, old, late) == []  # nothing lies where it was
    assert shrunk([mask(old), mask(late)], {7: CroppedMask.of(old | late)}, {}) == {}


def test_an_object_gives_back_what_came_beside_it(shell: Shell) -> None:
    pictures, truth = growing(8)
    late = disc(41, 30, 8)
    pictures[3:][late & (truth[3:] == 0)] = 130
    write_stack(shell.folder / "film.tif", pictures)
    shell.run("track", "film.tif", *OPTIONS, "--look-every", "4").ok()
    with SequenceSet.open(shell.folder / "masks/film.pkl") as found:
        areas = {frame: {mask.id: mask.area for mask in found.frame(frame).masks} for frame in (2, 3, 4)}
        assert {life.id: life.first for life in found.lives()} == {1: 0, 2: 0, 3: 4}
        assert any("frame 4: object 1 had taken what came beside it" in one for one in found.notices)
    beside = int((late & (truth[4] == 0)).sum())
    assert areas[3][1] > areas[2][1] + 0.9 * beside
    assert areas[4] == {1: int((truth[4] == 1).sum()), 2: int((truth[4] == 2).sum()), 3: beside}


def test_an_object_that_appears_comes_in_at_the_next_look(shell: Shell) -> None:
    late = late_disc(shell, 6, 1)
    done = shell.run("track", "film.tif", *OPTIONS, "--look-every", "2", "--json").ok().json
    assert (done["method"], done["objects"]) == ("memory", 3)
    with SequenceSet.open(shell.folder / "masks/film.pkl") as found:
        assert found.head.provenance.parameters["look_every"] == 2
        assert {life.id: (life.first, life.frames) for life in found.lives()} == {1: (0, 6), 2: (0, 6), 3: (2, 4)}
        assert (rle.decode(next(mask.rle for mask in found.frame(2).masks if mask.id == 3)) == late).all()

    shell.run("track", "film.tif", *OPTIONS, "--look-every", "0").ok()
    assert lives(shell.folder / "masks/film_1.pkl") == {1: 0, 2: 0}


def test_fast_is_announced_and_recorded(shell: Shell) -> None:
    late_disc(shell, 3, 1)
    done = shell.run("track", "film.tif", *OPTIONS, "--fast", "--json").ok()
    assert "fast: what was remembered" in done.stderr
    with SequenceSet.open(shell.folder / "masks/film.pkl") as found:
        assert found.head.provenance.parameters["fast"] is True
        assert any(one.startswith("fast: ") for one in found.notices)
    shell.run("track", "film.tif", *OPTIONS).ok()
    with SequenceSet.open(shell.folder / "masks/film_1.pkl") as found:
        assert "fast" not in found.head.provenance.parameters
        assert not found.notices


def test_a_film_may_begin_without_objects(shell: Shell) -> None:
    pictures, _ = growing(4)
    pictures[:2] = 50
    write_stack(shell.folder / "film.tif", pictures)
    shell.run("track", "film.tif", *OPTIONS, "--look-every", "1").ok()
    assert lives(shell.folder / "masks/film.pkl") == {1: 2, 2: 2}
    nothing = shell.run("track", "film.tif", *OPTIONS, "--look-every", "0")
    assert nothing.code == 7
    assert "nothing to follow" in nothing.stderr


def test_a_run_that_was_killed_knows_who_came_in(shell: Shell) -> None:
    late_disc(shell, 40, 1)
    command = ("track", "film.tif", *OPTIONS, "--look-every", "2")

    def reached(frames: int) -> bool:
        for part in (shell.folder / "masks").glob(".segduo-film-*.part"):
            try:
                with SequenceSet.open(part) as found:
                    return len(found.frames) >= frames or running.poll() is not None
            except MaskFileError:  # its head is not whole yet
                pass
        return running.poll() is not None

    running: subprocess.Popen[str] = shell.start(*command)
    wait_for(partial(reached, 4), 120)
    assert running.poll() is None, running.communicate()
    psutil.Process(running.pid).kill()
    running.wait(30)
    done = shell.run(*command, "--resume", "--json").ok().json
    assert (done["frames"], done["resumed"] >= 4) == (40, True)
    assert lives(shell.folder / "masks/film.pkl") == {1: 0, 2: 0, 3: 2}
    shell.run(*command, "--suffix", "whole").ok()
    with SequenceSet.open(shell.folder / "masks/film.pkl") as found, SequenceSet.open(shell.folder / "masks/film_whole.pkl") as whole:  # fmt: skip
        assert all(found.frame(number) == whole.frame(number) for number in range(40))
