"""Clicks as `segduo point` answers them: the model also looks at the part of the picture around a click, and the better mask counts.

The first click chooses what the model is shown. Further ones, at the same places as in :mod:`benchmarks.quality.scoring`, refine its mask in
that part, as in the terminal UI (``refined``); or all clicks so far are given anew, as on a command line: ``in-turn`` or ``at-once``. The engine
computes in this process.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from benchmarks.quality.scoring import IGNORE, Labelled, deepest, iou, largest_error
from segment_duo.closer import PromptScale
from segment_duo.config import load_config
from segment_duo.masks.part import holds
from segment_duo.masks.rle import decode
from segment_duo.paths import Paths
from segment_duo.provenance import part_of
from segment_duo.results import Candidate
from segment_duo.session import OpenImage, Session
from segment_duo.types import Box, Point, Prompt

Given = Literal["refined", "in-turn", "at-once"]
"""How further clicks are given."""

GROUP = 8
"""Objects clicked together: the engine keeps their low-res logits."""


class ScaledClicks:
    """Scores clicks of one model.

    Args:
        scale: as of ``segduo point``.
    """

    def __init__(self, model: str, scale: PromptScale, given: Given = "refined") -> None:
        paths = Paths.default()
        self.scale, self.given = scale, given
        self.session = Session(load_config({"model": model, "in_process": True}, paths=paths), paths)

    def click_ious(
        self, image: Labelled, rounds: int = 5, most: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """As :func:`benchmarks.quality.scoring.click_ious`."""
        opened = self.session.open_array(image.pixels)
        objects = image.objects
        if most is not None and len(objects) > most:
            objects = [objects[i] for i in np.linspace(0, len(objects) - 1, most).astype(int)]
        out = [self._group(opened, image, objects[i : i + GROUP], rounds) for i in range(0, len(objects), GROUP)]
        return np.concatenate([a for a, _ in out]), np.concatenate([b for _, b in out])

    def _group(
        self, opened: OpenImage, image: Labelled, objects: list[npt.NDArray[np.bool_]], rounds: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        counted = image.labels != IGNORE
        reached, predicted = np.zeros((len(objects), rounds)), np.zeros((len(objects), rounds))
        prompts = [Prompt(points=(Point(*map(float, deepest(truth)), 1),)) for truth in objects]
        found = self.session.predict_at_scale(opened, prompts, self.scale)
        best = [answer.best for answer in found]
        parts = [part_of(candidate.mask) for candidate in best]
        for k in range(rounds):
            for i, candidate in enumerate(best):
                mask = decode(candidate.mask.rle)
                reached[i, k], predicted[i, k] = iou(mask, objects[i], counted), candidate.predicted_iou or 0.0
                x, y, label = largest_error(mask, objects[i], counted) or (*deepest(objects[i]), 1)
                point = Point(float(x), float(y), cast("Literal[0, 1]", label))
                part = parts[i]
                if self.given == "refined" and part is not None and not holds(part, Prompt((point,))):
                    point = prompts[i].points[0]  # what is outside the part cannot be said in it
                points = (*prompts[i].points, point)
                handle = candidate.logits if self.given == "refined" else None
                prompts[i] = dataclasses.replace(prompts[i], points=points, mask_input=handle)
            if k + 1 < rounds:
                best = self._refined(opened, prompts, parts) if self.given == "refined" else self._anew(opened, prompts)
        return reached, predicted

    def _anew(self, opened: OpenImage, prompts: list[Prompt]) -> list[Candidate]:
        answers = self.session.predict_at_scale(opened, prompts, self.scale, in_turn=self.given == "in-turn")
        return [answer.best for answer in answers]

    def _refined(self, opened: OpenImage, prompts: list[Prompt], parts: list[Box | None]) -> list[Candidate]:
        together: dict[Box | None, list[int]] = defaultdict(list)
        for i, part in enumerate(parts):
            together[part].append(i)
        out: dict[int, Candidate] = {}
        for part, group in together.items():
            answers = self.session.predict(opened, [prompts[i] for i in group], part=part)
            assert not any(answer.mask_input_lost for answer in answers)
            out |= {i: answer.best for i, answer in zip(group, answers, strict=True)}
        return [out[i] for i in range(len(prompts))]
