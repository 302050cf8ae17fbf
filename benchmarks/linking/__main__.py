"""``python -m benchmarks.linking``: films of particles with known tracks, through the linker.

--seeds 1 2 3        films; 200 particles, 50 frames, 10 of them split and 10 merge
--hide 0.03          leave out this share of all masks, as a model that misses some
--model watershed    masks of a model instead of the truth's (through the engine; slow for nano)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from segment_duo.masks.cropped import CroppedMask
from segment_duo.masks.formats.sequence import Event
from segment_duo.tracking.link import Linker
from segment_duo.tracking.scores import SequenceScorer
from segment_duo.training.nano.films import DrawnFilm, swarm

Masks = Callable[[DrawnFilm, int], list[CroppedMask]]


def truth_masks(film: DrawnFilm, frame: int, hide: float, rng: np.random.Generator) -> list[CroppedMask]:
    labels = film.labels[frame]
    boxes = [(one, box) for one, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
    return [
        CroppedMask(labels[box] == one, box[1].start, box[0].start) for one, box in boxes if rng.random() >= hide
    ]  # fmt: skip


def model_masks(model: str) -> Masks:
    from segment_duo.config import load_config
    from segment_duo.session import Session
    from segment_duo.tracking.apart import apart

    session = Session(load_config({"model": model}))
    parameters = session.auto_defaults()

    def masks(film: DrawnFilm, frame: int) -> list[CroppedMask]:
        image = session.open_array(film.frames[frame], name=f"frame{frame}")
        found = session.auto(image, parameters).masks
        return [CroppedMask.of_rle(mask.rle) for mask in apart(found, *film.labels.shape[1:]) if mask.area]

    return masks


def run(film: DrawnFilm, masks: Masks) -> dict[str, object]:
    """Scores of one film, and which splits and merges were told in the right frame."""
    height, width = film.labels.shape[1:]
    linker, scorer = Linker(height, width), SequenceScorer(contours=False)
    events: list[Event] = []
    seconds = 0.0
    for frame, labels in enumerate(film.labels):
        found = masks(film, frame)
        began = time.process_time()
        linked = linker.step(frame, found)
        seconds += time.process_time() - began
        events += linked.events
        image = np.zeros((height, width), np.int64)
        for mask, one in zip(found, linked.ids, strict=True):
            rows, columns = mask.pixels.shape
            image[mask.top : mask.top + rows, mask.left : mask.left + columns][mask.pixels] = one
        scorer.add(image, labels)
    told = {kind: [event.frame for event in events if event.kind == kind] for kind in ("split", "merge")}
    true = {"split": [frame for frame, *_ in film.splits], "merge": [frame for frame, *_ in film.merges]}
    return {
        **dataclasses.asdict(scorer.score()),
        **{f"{kind}s": len(true[kind]) for kind in told},
        **{f"{kind}s_told": len(set(true[kind]) & set(told[kind])) for kind in told},
        **{f"{kind}s_wrong": len(set(told[kind]) - set(true[kind])) for kind in told},
        "link_cpu_seconds_a_frame": round(seconds / len(film.labels), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--hide", type=float, default=0.0)
    parser.add_argument("--model", default="")
    given = parser.parse_args()
    rng = np.random.default_rng(5)
    for seed in given.seeds:
        film = swarm(
            seed, (given.side, given.side), given.frames, given.particles, events=given.events, drawn=bool(given.model)
        )  # fmt: skip
        masks = model_masks(given.model) if given.model else lambda one, frame: truth_masks(one, frame, given.hide, rng)
        print(json.dumps({"seed": seed, "model": given.model or "truth", "hide": given.hide, **run(film, masks)}))


if __name__ == "__main__":
    main()
