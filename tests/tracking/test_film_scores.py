"""``benchmarks.quality.films`` scores what a segmenter's tracker answers, beside the truth of the generator's films."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.quality import films
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.tracking import TrackedObject, TrackStep
from segment_duo.training.nano.films import DrawnFilm, growth


class Oracle:
    """A segmenter whose tracker knows the film: it answers the truth of each frame, or of the first one for ever."""

    def __init__(self, film: DrawnFilm, *, moves: bool) -> None:
        self._film, self._moves = film, moves

    def tracker(self, frames: int, *, fast: bool = False) -> Oracle:
        assert frames == len(self._film.frames)
        return self

    def step(self, pixels: Any, step: TrackStep) -> tuple[TrackedObject, ...]:
        assert pixels.shape[2] == 3
        for one in step.prompts:
            assert one.prompt is not None
            x, y = one.prompt.points[0].astype(int)
            assert self._film.labels[0][y, x] == one.object_id
        labels = self._film.labels[step.frame if self._moves else 0]
        ids = [one.object_id for one in step.prompts] or step.follow
        return tuple(TrackedObject(ident, CroppedMask(labels == ident, 0, 0), 1.0) for ident in ids)


@pytest.mark.parametrize("moves", [True, False])
def test_the_truth_scores_one_and_a_mask_that_stays_behind_less(moves: bool) -> None:
    film = growth(1000, (128, 128), 6, 4)
    found = films.score(Oracle(film, moves=moves), film)  # type: ignore[arg-type]
    assert found.objects == len(np.unique(film.labels[0])) - 1 == 3  # one comes later
    assert (found.j_and_f == 1.0) is moves
