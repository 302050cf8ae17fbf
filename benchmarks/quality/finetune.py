"""What five labelled images buy: ``python -m benchmarks.quality.finetune [--kind KIND] [--steps N]``.

Five synthetic images of one kind and one look are the labels a user would make; twenty others of the same kind, from seeds that training never
draws, are scored with automatic masks before and after. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality.scoring import Labelled, Scores, score
from segment_duo.config import Config
from segment_duo.engine.predictor import Predictor
from segment_duo.models.build import build_model
from segment_duo.models.registry import resolve_model
from segment_duo.paths import Paths
from segment_duo.training.finetune import BaseModel, FineTuneOptions, Progress, TrainingExample, fine_tune
from segment_duo.training.synthetic import HELD_OUT_SEED, Look, Scene, generate
from segment_duo.types import AutoParameters

LOOK = Look(
    level=0.5, contrast=0.0, spread=0.0, edge=-0.3, edge_width=1.5, seam=-0.3, relief=0.0, ground_texture=0.06, object_texture=0.06,
    texture_scale=0.15, blur=0.7, noise=0.04,
)  # fmt: skip
"""Objects that differ from the background by a dark rim only."""

FIRST_SEED = HELD_OUT_SEED + 50_000


def scenes(kind: str, first: int, count: int, side: int = 512) -> list[Scene]:
    """``count`` scenes with at least five objects."""
    found: list[Scene] = []
    seed = first
    while len(found) < count:
        scene = generate(seed, (side, side), kind, look=LOOK)
        if int(scene.labels.max()) >= 5:
            found.append(scene)
        seed += 1
    return found


def rgb(scene: Scene) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.ascontiguousarray(np.repeat(scene.image[:, :, None], 3, axis=2))


def evaluate(config: str, checkpoint: str, held_out: Sequence[Scene], parameters: AutoParameters) -> Scores:
    images = [Labelled(f"held-out {i}", rgb(s), s.labels) for i, s in enumerate(held_out)]
    predictor = Predictor(build_model(config, checkpoint))
    return score(predictor, images, parameters, clicks=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Score automatic masks before and after fine-tuning on five images.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--kind", default="polygons")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--held-out", type=int, default=20)
    options = parser.parse_args()

    choice = resolve_model(Config(), Paths.default(), options.model)
    parameters = AutoParameters(**choice.auto_defaults)
    held_out = scenes(options.kind, FIRST_SEED, options.held_out)
    examples = [
        TrainingExample(rgb(s), s.masks, f"scene {i}", hashlib.sha256(s.image.tobytes()).hexdigest())
        for i, s in enumerate(scenes(options.kind, FIRST_SEED + 10_000, 5))
    ]
    before = evaluate(choice.config, str(choice.checkpoint), held_out, parameters)

    def report(progress: Progress) -> None:
        if progress.phase == "train" and progress.step % 25 == 0:
            sys.stderr.write(f"step {progress.step} loss {progress.loss:.2f} validation IoU {progress.val_iou:.3f}\n")

    base = BaseModel(choice.id, choice.config, str(choice.checkpoint), choice.sha256, dict(choice.auto_defaults))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = FineTuneOptions(steps=options.steps, lr=options.lr, full=options.full)
        result = fine_tune(base, examples, Path(folder), "tuned", settings, report)
        minutes = (time.perf_counter() - began) / 60
        after = evaluate(str(result.folder / "model.yaml"), str(result.folder / "model.pt"), held_out, parameters)
    row = {
        "model": choice.id,
        "kind": options.kind,
        "labels": sum(len(e.masks) for e in examples),
        "steps": result.steps,
        "minutes": round(minutes, 1),
        "validation IoU": [round(result.val_iou_before, 3), round(result.val_iou, 3)],
        "before": before.row(),
        "after": after.row(),
    }
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
