"""Following objects through the engine: the session over a real daemon and in one process; cancel, clients that go away, engines that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.config import load_config
from segment_duo.engine.protocol import TrackFrameRequest
from segment_duo.errors import Cancelled, PromptError, TrackLost, UsageError
from segment_duo.images import read_array
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.base import PromptArrays
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.segmenters.sam2.tracker import Sam2Tracker
from segment_duo.segmenters.tracking import ObjectPrompt, TrackedFrame, TrackStep
from segment_duo.session import Session
from segment_duo.types import ImageData
from tests.engine_fixtures import Home, wait_for, write_forgetful
from tests.stock_video import Film, attentive, centre, film, whole, write_micro

SHAPE = (120, 160)


@dataclass
class Pictures:
    """Frames in memory, and which were read."""

    film: Film
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.film)

    def frame(self, number: int) -> ImageData:
        self.read.append(number)
        return read_array(self.film[number], name=f"frame {number}", banner=0)


@dataclass
class Micro:
    """A model with random weights whose memory counts as trained."""

    config: str
    checkpoint: str

    @property
    def settings(self) -> dict[str, object]:
        return {"model_config_path": self.config, "checkpoint_path": self.checkpoint, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    folder = tmp_path_factory.mktemp("micro")
    config = str(write_micro(folder))
    torch.save({"model": attentive(config).state_dict()}, folder / "micro.pt")
    return Micro(config, str(folder / "micro.pt"))


@pytest.fixture
def session(home: Home, micro: Micro) -> Iterator[Session]:
    """A session that computes in this process."""
    made = Session(load_config({**micro.settings, "in_process": True}, paths=home.paths), home.paths)
    yield made
    made.engine().close()


@pytest.fixture
def daemon(home: Home, micro: Micro) -> Iterator[tuple[Session, list[str]]]:
    """A session with a daemon of its own, and what it told."""
    told: list[str] = []
    made = Session(load_config(micro.settings, paths=home.paths), home.paths, notify=told.append)
    yield made, told
    made.engine().close()


def click(ident: int, frame: int, **more: bool) -> ObjectPrompt:
    place = np.array([centre(ident, frame)], np.float32)
    return ObjectPrompt(ident, frame, PromptArrays(place, np.array([1])), **more)


def mask_of(frame: TrackedFrame, ident: int) -> np.ndarray:
    return whole(next(one.mask for one in frame.objects if one.id == ident), SHAPE)


def expected(
    micro: Micro, pictures: Film, prompts: Sequence[ObjectPrompt], order: Sequence[int]
) -> dict[int, dict[int, np.ndarray]]:
    """By the tracker alone."""
    tracker = Sam2Tracker(Predictor(attentive(micro.config)), len(pictures))
    out = {}
    for number in order:
        step = TrackStep(
            number,
            [prompt for prompt in prompts if prompt.frame == number],
            [prompt.object_id for prompt in prompts if prompt.frame < number],
        )
        out[number] = {one.id: whole(one.mask, SHAPE) for one in tracker.step(pictures[number], step)}
    return out


def test_frames_come_as_they_are_found_and_are_read_one_ahead(session: Session, micro: Micro) -> None:
    pictures = Pictures(film(8))
    prompts = [click(1, 0), click(2, 2)]
    reference = expected(micro, pictures.film, prompts, range(8))
    results = session.track(pictures, prompts)
    assert pictures.read == []
    first = next(results)
    assert (first.frame, len(first.objects)) == (0, 1)
    frames = [first]
    for frame in results:
        frames.append(frame)
        assert max(pictures.read) <= max(frame.frame + 2, 2)
    assert [frame.frame for frame in frames] == list(range(8))
    for frame in frames:
        assert frame.notes == ()
        assert {one.id for one in frame.objects} == reference[frame.frame].keys()
        for ident, mask in reference[frame.frame].items():
            assert (mask_of(frame, ident) == mask).all()
    assert session.engine().status().memory_cache.used == 0  # neither frames nor memories stay


def test_backward_both_and_a_stretch_of_frames(session: Session) -> None:
    pictures = Pictures(film(8))
    prompts = [click(1, 3), click(2, 5)]
    back = list(session.track(pictures, prompts, direction="backward"))
    assert [frame.frame for frame in back] == [5, 4, 3, 2, 1, 0]
    assert [[one.id for one in frame.objects] for frame in back] == [[2], [2], [1, 2], [1, 2], [1, 2], [1, 2]]
    both = list(session.track(pictures, prompts, direction="both"))
    assert [frame.frame for frame in both] == [3, 4, 5, 6, 7, 4, 3, 2, 1, 0]
    assert [[one.id for one in frame.objects] for frame in both[5:]] == [[2], [2], [1, 2], [1, 2], [1, 2]]
    # Stock gives nothing for a pass backward from the first frame, and one frame more than it is asked for.
    assert [frame.frame for frame in session.track(pictures, [click(1, 0)], direction="backward")] == [0]
    assert [frame.frame for frame in session.track(pictures, [click(1, 0)], start=2, end=4)] == [2, 3]


def test_corrections_go_on_from_what_is_known(session: Session) -> None:
    pictures = Pictures(film(18))
    prompts = [click(1, 0), click(2, 0)]
    run = {frame.frame: frame for frame in session.track(pictures, prompts)}

    def known(number: int) -> dict[int, CroppedMask]:
        return {one.id: one.mask for one in run[number].objects}

    wrong = PromptArrays(np.array([centre(1, 16), (30.0, 100.0)], np.float32), np.array([1, 0]))
    correction = ObjectPrompt(1, 16, wrong, correction=True)
    straight = list(session.track(pictures, [*prompts, correction], start=16))
    pictures.read.clear()
    quick = list(session.track(pictures, [correction], start=16, known=known))
    assert [frame.frame for frame in quick] == [16, 17]
    assert [[one.id for one in frame.objects] for frame in quick] == [[1], [1]]
    assert min(pictures.read) == 1  # fifteen frames back, and not from the beginning
    assert (mask_of(straight[0], 1) != mask_of(run[16], 1)).any()
    assert (mask_of(straight[1], 2) == mask_of(run[17], 2)).all()
    with pytest.raises(UsageError, match="one direction"):
        session.track(pictures, [correction], direction="both", known=known)


def test_what_is_not_on_the_frames_is_refused(session: Session) -> None:
    pictures = Pictures(film(3))
    with pytest.raises(PromptError, match="there is no frame 7"):
        session.track(pictures, [click(1, 7)])
    with pytest.raises(PromptError, match="nothing to follow"):
        session.track(pictures, [])
    with pytest.raises(UsageError, match="frames 2 to 2"):
        session.track(pictures, [click(1, 0)], start=2, end=2)
    outside = ObjectPrompt(1, 0, PromptArrays(np.array([(500.0, 3.0)], np.float32), np.array([1])))
    results = session.track(pictures, [outside])
    with pytest.raises(PromptError, match="outside the image"):
        next(results)
    results = session.track(pictures, [click(1, 0, correction=True)])
    with pytest.raises(PromptError, match="nothing but corrections"):
        next(results)


def test_a_model_whose_memory_is_untrained_says_what_to_do(home: Home) -> None:
    model = write_forgetful(home.paths.models_dir)
    forgetful = Session(load_config({"model": model, "in_process": True}, paths=home.paths), home.paths)
    with pytest.raises(UsageError, match="follows no objects") as refused:
        forgetful.track(Pictures(film(2)), [click(1, 0)])
    assert "segduo track --link" in refused.value.hint


def test_a_cancelled_run_keeps_what_was_given(session: Session) -> None:
    given: list[int] = []
    results = session.track(Pictures(film(6)), [click(1, 0)], cancelled=lambda: len(given) == 3)
    given.extend(next(results).frame for _ in range(3))
    with pytest.raises(Cancelled):
        next(results)
    assert given == [0, 1, 2]
    assert session.engine().status().memory_cache.used == 0


def test_an_engine_that_dies_in_the_middle_goes_on_and_says_so(daemon: tuple[Session, list[str]], home: Home) -> None:
    session, told = daemon
    frames = []
    for frame in session.track(Pictures(film(8)), [click(1, 0), click(2, 0)]):
        frames.append(frame)
        if frame.frame == 3:
            home.kill()
    assert [frame.frame for frame in frames] == list(range(8))
    assert [frame.frame for frame in frames if frame.notes] == [4]
    assert "made anew from the masks of the last 4 frames" in frames[4].notes[0]
    assert any("made anew" in line for line in told)
    assert all(len(frame.objects) == 2 for frame in frames)

    # A client that is killed holds nothing any more; nor does one that stops looking.
    script = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.engine.test_track import *;"
        "paths = Home(Path(sys.argv[2])).paths;"
        "session = Session(load_config(json.loads(sys.argv[3]), paths=paths), paths);"
        "results = session.track(Pictures(film(8)), [click(1, 0)]); next(results); next(results);"
        "print('two', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).resolve().parent.parent.parent
    client = subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(home.root), json.dumps(dict(session_settings(session)))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=home.environment,
    )  # fmt: skip
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "two\n"
        assert session.engine().status().memory_cache.used > 0
    finally:
        os.kill(client.pid, signal.SIGKILL)
        client.communicate(timeout=60)
    wait_for(lambda: session.engine().status().memory_cache.used == 0, 60)

    request = TrackFrameRequest(
        track="0" * 32, frames=8, frame=1, follow=[1], model=session.engine().model_request(session.model)
    )
    pixels = film(1)[0]
    state = session.engine().ensure_image(pixels, model=session.model, embed=False)
    with pytest.raises(TrackLost, match="no longer remembers"):
        session.engine().track(state.id, request)


def session_settings(session: Session) -> Iterator[tuple[str, object]]:
    for name in ("model_config_path", "checkpoint_path", "device", "threads"):
        yield name, getattr(session.config, name)
