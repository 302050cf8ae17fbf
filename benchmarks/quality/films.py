"""Score how a model follows objects: ``python -m benchmarks.quality.films [--model ID] [--checkpoint FILE] [--fast]``.

Held-out films of the project's own generator, seeds 1000 to 1019: in turn particles that grow, and a swarm of which some split and some stick
together. Each object of the first frame gets one click there, in its middle, and is followed with the model's memory to the end; J&F by
``segment_duo.tracking.scores``. Objects that come later are no part of the truth. One line of JSON a film, and one of all.

``--over FOLDER --names FILE``: clips of 8 frames over these labelled pictures instead (:mod:`segment_duo.training.nano.clips`): a camera that pans,
turns and zooms, copies of objects that move over the picture, vanish and come back. Objects of fewer than 40 pixels there are not clicked.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quality.__main__ import load_segmenter, rgb
from benchmarks.quality.scoring import deepest
from segment_duo.config import Config
from segment_duo.models.registry import resolve_model
from segment_duo.paths import Paths
from segment_duo.segmenters.base import PromptArrays, Segmenter
from segment_duo.segmenters.tracking import ObjectPrompt, TrackedObject, TrackStep
from segment_duo.tracking.scores import SequenceScore, SequenceScorer
from segment_duo.training.nano.clips import clips_of
from segment_duo.training.nano.films import DrawnFilm, growth, swarm
from segment_duo.training.nano.memory import SMALLEST
from segment_duo.training.nano.real import RealPictures

FIRST_SEED = 1000
Labels = npt.NDArray[np.int32]


def held_out(count: int, first: int = FIRST_SEED) -> Iterator[tuple[str, DrawnFilm]]:
    """Films from so many seeds, and what they are called."""
    for seed in range(first, first + count):
        if seed % 2:
            yield f"swarm {seed}", swarm(seed, (384, 384), 20, 14, events=2)
        else:
            yield f"growth {seed}", growth(seed)


def over_pictures(
    folder: Path, names: set[str], count: int, first: int = FIRST_SEED
) -> Iterator[tuple[str, DrawnFilm]]:
    """Clips over labelled pictures, and what they are called."""
    others = {path.name.removesuffix("_labels.png") for path in folder.glob("*_labels.png")} - names
    draw = clips_of(None, RealPictures([folder], others), 1.0)
    for seed in range(first, first + count):
        clip = draw(np.random.default_rng(seed), 8)
        large = np.flatnonzero(np.bincount(clip.labels[0].ravel()) >= SMALLEST)
        if large[large > 0].size:
            kept = np.where(np.isin(clip.labels, large), clip.labels, 0)
            yield f"clip {seed}", DrawnFilm(clip.frames, kept.astype(np.uint16))


def followed(segmenter: Segmenter, film: DrawnFilm, *, fast: bool = False) -> Iterator[Labels]:
    """Label images (H, W) of all frames, from one click on each object of the first; where masks overlap the smaller one is seen."""
    first = film.labels[0]
    prompts = [
        ObjectPrompt(ident, 0, PromptArrays(np.array([deepest(first == ident)], np.float32), np.array([1])))
        for ident in np.unique(first[first > 0]).tolist()
    ]
    ids = [prompt.object_id for prompt in prompts]
    tracker = segmenter.tracker(len(film.frames), fast=fast)
    for number, frame in enumerate(film.frames):
        step = TrackStep(number, follow=ids) if number else TrackStep(0, prompts)
        yield painted(tracker.step(rgb(frame), step), first.shape)


def painted(objects: tuple[TrackedObject, ...], shape: tuple[int, ...]) -> Labels:
    labels = np.zeros(shape, np.int32)
    for one in sorted(objects, key=lambda tracked: -tracked.mask.area):
        rows, columns = one.mask.pixels.shape
        labels[one.mask.top : one.mask.top + rows, one.mask.left : one.mask.left + columns][one.mask.pixels] = one.id
    return labels


def score(segmenter: Segmenter, film: DrawnFilm, *, fast: bool = False) -> SequenceScore:
    begun = np.unique(film.labels[0])
    scorer = SequenceScorer()
    for found, truth in zip(followed(segmenter, film, fast=fast), film.labels, strict=True):
        scorer.add(found, np.where(np.isin(truth, begun), truth, 0))
    return scorer.score()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.films", description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path, help="score these weights with the model's config")
    parser.add_argument("--fast", action="store_true", help="follow as `segduo track --fast` does")
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--over", type=Path, metavar="FOLDER", help="clips over these labelled pictures")
    parser.add_argument("--names", type=Path, metavar="FILE", help="of the pictures to take, one a line")
    options = parser.parse_args()
    choice = resolve_model(Config(), Paths.default(), options.model)
    segmenter = load_segmenter(choice, options.checkpoint)
    rows = []
    films = (
        over_pictures(options.over, set(options.names.read_text().split()), options.films, options.first_seed)
        if options.over
        else held_out(options.films, options.first_seed)
    )
    for name, film in films:
        began = time.perf_counter()
        result = score(segmenter, film, fast=options.fast)
        rows.append(result)
        figures = {key: round(value, 3) for key, value in dataclasses.asdict(result).items()}
        print(json.dumps({"film": name, **figures, "seconds": round(time.perf_counter() - began, 1)}), flush=True)
    objects = sum(row.objects for row in rows)
    total = {
        key: round(sum(getattr(row, key) for row in rows) / len(rows), 3)
        for key in ("j", "f", "j_and_f", "recall", "precision")
    }
    sums = {key: sum(getattr(row, key) for row in rows) for key in ("complete", "id_switches")}
    print(json.dumps({"films": len(rows), "model": choice.id, "objects": objects, **total, **sums}))


if __name__ == "__main__":
    main()
