"""What five labelled pictures buy: ``python -m benchmarks.quality.finetune [--data FOLDER] [--kind KIND] [--steps N]``.

Five pictures of one kind are the labels a user would make; others of the same kind are scored before and after with clicks and with automatic masks
at each model's own defaults. Prints one JSON line, with processor seconds and the largest memory of the process.

With ``--data``, the folder of EMPS (``NAME.jpg`` or ``NAME.png`` and ``NAME_labels.png``), kinds are groups of its pictures, chosen by eye and listed
below. Without it pictures are synthetic, from seeds that training never draws. Their kind ``core-shell``: bright
cores in dim shells, a whole particle being the core with its shell. Both are plain to see; which of them is the object only labels can tell, and a
model that was never told marks the core.

Scores are those of ``segment_duo.training.validation``: IoU after one and three clicks on at most 32 objects a picture; precision and recall at IoU
0.5 and F1 at 0.75 of automatic masks as ``auto`` makes them, with at most ``--points`` points a side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from segment_duo.config import Config
from segment_duo.models.registry import resolve_model
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.training.finetune import THRESHOLDS, fine_tune, stock_thresholds
from segment_duo.training.forward import Features, encode, normalize
from segment_duo.training.nano.batches import object_depth
from segment_duo.training.nano.scenes import HELD_OUT_SEED, Look, Scene, generate
from segment_duo.training.options import BaseModel, FineTuneOptions, TrainingProgress
from segment_duo.training.validation import Checked, Scores, click_scores, measure
from segment_duo.training.views import LabelledPicture, View

REAL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "piles": (
        ("31f17306c8", "78b42bc5e8", "a59bcf3f13", "af124a45d9", "1b3c6536a3"),
        ("6752c27137", "cd22803960"),
    ),
    "discs": (
        ("4545280c2b", "66a6ddb34e", "913312cfdf", "82e8007547", "6d1574872b"),
        ("434e287439", "d722a3a383"),
    ),
    "dots": (
        ("0113230c21", "28d7e31165", "62594342ac", "8e68b05e0e", "33f8a59619"),
        ("065d8e352c", "82b9b9c2af"),
    ),
    "specks": (
        ("43875c5b20", "a4027c076c", "a8851978de", "d3971746e0", "03cd0b2741"),
        ("9c68e03e41", "fd1f58d925"),
    ),
    "facets": (
        ("1bf56ce626", "d822219f76", "c812c93fbd", "f78844f8ce", "864a2a6ccf"),
        ("34864e691e", "bf57480a38", "41c25dca24"),
    ),
    "rods": (
        ("1736c60650", "2bc87a8698", "aa968ec1b2", "b0e3041a0d", "dedf11eb6c"),
        ("2b9ccd5679", "93ed483d79"),
    ),
}
"""Kinds of EMPS pictures by name: the five to train on, the others. None of them took part in nano's own training (``emps_validation.txt``), though
pictures like them did. Piles: packed SEM spheres; discs: dark, round, touching (TEM); dots: small and dark on bright ground (TEM); specks: small and
bright on dark ground (SEM); facets: cubes and other polyhedra; rods: rods and spindles."""

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


def synthetic(scene: Scene, name: str) -> LabelledPicture:
    image = np.ascontiguousarray(np.repeat(scene.image[:, :, None], 3, axis=2))
    return LabelledPicture.of(image, scene.masks, name, hashlib.sha256(scene.image.tobytes()).hexdigest())


def real(folder: Path, name: str) -> LabelledPicture:
    file = next(f for f in (folder / f"{name}.jpg", folder / f"{name}.png") if f.is_file())
    labels = np.asarray(Image.open(folder / f"{name}_labels.png"))
    masks = (labels == i for i in np.unique(labels) if i)
    pixels = np.array(Image.open(file).convert("RGB"))
    return LabelledPicture.of(pixels, masks, file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def evaluate(
    config: str, checkpoint: str, pictures: Sequence[LabelledPicture], defaults: dict[str, Any], points: int
) -> Scores:
    """Scores at the model's own defaults."""
    model = build_model(config, checkpoint)
    checked = [Checked(p, np.arange(len(p.objects))) for p in pictures]

    @torch.no_grad()
    def features(view: View) -> Features:
        return encode(model, normalize(torch.from_numpy(view.pixels())[None]), torch.zeros(1, 2, dtype=torch.long))

    one, three = click_scores(model, checked, features, 16)
    own = {name: float({**stock_thresholds(), **defaults}[name]) for name in THRESHOLDS}
    result = measure(model, checked, defaults, [own], points=points)[0]
    return Scores(one, three, result.precision, result.recall, result.f75, own)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Score clicks and automatic masks before and after fine-tuning on five pictures."
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--data", type=Path, help="folder of EMPS")
    parser.add_argument(
        "--kind",
        help=f"with --data {', '.join(REAL)}; else core-shell, or a kind of the generator, drawn as dark rims only",
    )
    defaults = FineTuneOptions()
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--check-every", type=int, default=defaults.check_every)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--held-out", type=int, default=5, help="pictures to score")
    parser.add_argument("--points", type=int, default=32, help="points a side of automatic masks in the scores")
    options = parser.parse_args()

    if options.data:
        kind = options.kind or "piles"
        first, others = REAL[kind]
        labelled = [real(options.data, name) for name in first]
        held_out = [real(options.data, name) for name in others[: options.held_out]]
    else:
        kind = options.kind or "core-shell"
        labelled = [synthetic(s, f"scene {i}") for i, s in enumerate(scenes(kind, FIRST_SEED + 10_000, 5))]
        held_out = [synthetic(s, f"held-out {i}") for i, s in enumerate(scenes(kind, FIRST_SEED, options.held_out))]

    def report(progress: TrainingProgress) -> None:
        if progress.phase == "train" and progress.step % 20 == 0:
            sys.stderr.write(
                f"step {progress.step} loss {progress.loss:.2f} best {progress.best and progress.best.record()}\n"
            )

    choice = resolve_model(Config(), Paths.default(), options.model)
    own = dict(choice.auto_defaults)
    base = BaseModel(choice.id, choice.config, str(choice.checkpoint), choice.sha256, own)
    settings = FineTuneOptions(steps=options.steps, lr=options.lr, full=options.full, check_every=options.check_every)
    began, used = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as place:
        result = fine_tune(base, labelled, Path(place), "tuned", settings, report)
        minutes, seconds = (time.perf_counter() - began) / 60, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        card = json.loads((result.folder / "card.json").read_text())
        tuned = (str(result.folder / "model.yaml"), str(result.folder / "model.pt"))
        after = evaluate(*tuned, held_out, card["auto_defaults"], options.points)
    before = evaluate(choice.config, str(choice.checkpoint), held_out, own, options.points)
    row = {
        "model": choice.id,
        "kind": kind,
        "labels": sum(len(p.objects) for p in labelled),
        "steps": result.steps,
        "minutes": round(minutes, 1),
        "processor seconds": round(seconds),
        "peak GB": round(peak, 2),
        "gained": result.gained,
        "validation": [result.before.record(), result.after.record()],
        "pictures": len(held_out),
        "objects": sum(len(p.objects) for p in held_out),
        "before": before.record(),
        "after": after.record(),
        "thresholds": dict(after.thresholds),
    }
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
