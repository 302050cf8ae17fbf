"""What five labelled images buy: ``python -m benchmarks.quality.finetune [--kind KIND] [--steps N]``.

Five synthetic images of one kind and one look are the labels a user would make; twenty others of the same kind, from seeds that training never
draws, are scored with automatic masks before and after. Prints one JSON line.

The kind ``core-shell``: bright cores in dim shells, a whole particle being the core with its shell. Both are plain to see; which of them is the
object only labels can tell, and a model that was never told marks the core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.quality.scoring import Labelled, Scores, score
from segment_duo.config import Config
from segment_duo.models.registry import resolve_model
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.training.finetune import BaseModel, FineTuneOptions, Progress, TrainingExample, fine_tune
from segment_duo.training.nano.batches import object_depth
from segment_duo.training.nano.scenes import HELD_OUT_SEED, Look, Scene, generate
from segment_duo.types import AutoParameters

LOOK = Look(
    level=0.5, contrast=0.0, spread=0.0, edge=-0.3, edge_width=1.5, seam=-0.3, relief=0.0, ground_texture=0.06, object_texture=0.06,
    texture_scale=0.15, blur=0.7, noise=0.04,
)  # fmt: skip
"""Objects that differ from the background by a dark rim only."""

SHELLS = Look(
    level=0.25, contrast=0.14, spread=0.02, edge=0.0, seam=-0.08, relief=0.0, ground_texture=0.02, object_texture=0.02, blur=0.8, noise=0.03,
)  # fmt: skip
CORE = 0.5
"""Radius of the core over that of the particle."""

FIRST_SEED = HELD_OUT_SEED + 50_000


def scenes(kind: str, first: int, count: int, side: int = 512) -> list[Scene]:
    """``count`` scenes with at least five objects."""
    found: list[Scene] = []
    seed = first
    while len(found) < count:
        scene = core_shell(seed, side) if kind == "core-shell" else generate(seed, (side, side), kind, look=LOOK)
        if int(scene.labels.max()) >= 5:
            found.append(scene)
        seed += 1
    return found


def core_shell(seed: int, side: int) -> Scene:
    """Discs whose middle is much brighter than their rim."""
    scene = generate(seed, (side, side), "discs", look=SHELLS)
    depth = object_depth(scene.labels)
    index = np.arange(int(scene.labels.max()) + 1)
    deepest = np.asarray(ndimage.maximum(depth, scene.labels, index))
    core = (depth > (1 - CORE) * deepest[scene.labels]) & (scene.labels > 0)
    bright = scene.image + 90 * ndimage.gaussian_filter(core.astype(np.float32), 0.8)
    return replace(scene, image=bright.clip(0, 255).astype(np.uint8))


def rgb(scene: Scene) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.ascontiguousarray(np.repeat(scene.image[:, :, None], 3, axis=2))


def evaluate(config: str, checkpoint: str, held_out: Sequence[Scene], parameters: AutoParameters) -> Scores:
    images = [Labelled(f"held-out {i}", rgb(s), s.labels) for i, s in enumerate(held_out)]
    predictor = Predictor(build_model(config, checkpoint))
    return score(predictor, images, parameters, clicks=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Score automatic masks before and after fine-tuning on five images.")
    parser.add_argument("--model", default="nano")
    parser.add_argument(
        "--kind", default="core-shell", help="core-shell, or a kind of the generator, drawn as dark rims only"
    )
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
