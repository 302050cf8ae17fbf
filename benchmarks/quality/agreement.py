"""Screened and fast runs against exact ones, picture by picture: ``python -m benchmarks.quality.agreement [FOLDER_OR_PICTURE...] [--names FILE]``.

Prints a table: how many of exact's masks each mode has too (mask IoU of 0.95), how many of its masks are new, and the ratio of processor time.
Modes: ``screened`` as this machine runs it, ``float32`` and ``bfloat16`` with the first pass forced to that precision, ``fast``. nano sees pictures
with its own thresholds; ``--model tiny`` (or another official size) has random weights, and ``--scenes`` are seeds of ``benchmarks.speed``'s scenes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.speed import scene
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.machine import SCREENING
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.types import Mask

SAME = 0.95
MODES = ("screened", "float32", "bfloat16", "fast")


@dataclass(slots=True)
class Tally:
    """Masks of both, those found again, seconds of processor time; added up over pictures."""

    exact: int = 0
    other: int = 0
    found: int = 0
    new: int = 0
    exact_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, one: Tally) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(one, name))

    def row(self, name: str, mode: str) -> str:
        found, new = 100 * self.found / max(self.exact, 1), 100 * self.new / max(self.other, 1)
        ratio = self.exact_seconds / max(self.seconds, 1e-9)
        return f"| {name} | {mode} | {self.exact} / {self.other} | {found:.2f} % | {new:.2f} % | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Masks of screened and fast runs against exact ones.")
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures, or folders of them")
    parser.add_argument(
        "--names", type=Path, metavar="FILE", help="of folders only the pictures named here, one a line"
    )
    parser.add_argument("--model", default="nano", choices=list(scene.CONFIGS))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument(
        "--scenes", type=int, nargs="*", default=[], metavar="SEED", help="generated scenes of 1 megapixel"
    )
    parser.add_argument("--notes", action="store_true", help="print what each run notes, to stderr")
    options = parser.parse_args()
    model = scene.model(options.model)
    totals = {mode: Tally() for mode in options.modes}
    print(
        "| picture | mode | masks exact / other | exact's masks found | masks that are new | CPU ratio |\n"
        + "|---" * 6
        + "|"
    )
    parameters = AutoParameters(points_per_side=options.points_per_side, **scene.defaults(options.model))
    for name, pixels in pictures(options.pictures, options.names, options.scenes):
        predictor = Predictor(model)
        if options.model != "nano":
            parameters = scene.parameters(options.model, predictor, pixels, options.points_per_side)
        embedding = predictor.embed(pixels)

        def run(p: AutoParameters, screening: str = "") -> tuple[tuple[Mask, ...], float]:
            with environment(SCREENING, screening):
                generator = AutomaticMaskGenerator(Predictor(model), p)
                start = time.process_time()
                result = generator.generate(pixels, embedding=embedding)  # noqa: B023
                seconds = time.process_time() - start
            if options.notes:
                print(name, *result.notes, sep="\n  ", file=sys.stderr)  # noqa: B023
            return result.masks, seconds

        exact, exact_seconds = run(replace(parameters, exact=True))
        for mode in options.modes:
            forced = mode if mode in {"float32", "bfloat16"} else os.environ.get(SCREENING, "")
            masks, seconds = run(replace(parameters, exact=False, fast=mode == "fast"), forced)
            tally = Tally(
                len(exact),
                len(masks),
                matched(exact, masks),
                len(masks) - matched(masks, exact),
                exact_seconds,
                seconds,
            )
            totals[mode].add(tally)
            print(tally.row(name, mode), flush=True)
    for mode, tally in totals.items():
        print(tally.row("all", mode), flush=True)


def pictures(
    places: Sequence[Path], names: Path | None, scenes: Sequence[int]
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Names and pixels, uint8 (H, W, 3)."""
    from segment_duo.images import read_image

    chosen = frozenset(names.read_text(encoding="utf-8").split()) if names else None
    for place in places:
        files = [place]
        if place.is_dir():
            files = [
                f for f in sorted(place.iterdir()) if f.suffix in {".png", ".jpg"} and not f.stem.endswith("_labels")
            ]
            files = [f for f in files if chosen is None or f.stem in chosen]
        for file in files:
            yield file.name, read_image(file.read_bytes(), name=file.name).pixels
    for seed in scenes:
        yield f"scene {seed}", scene.image(1, seed)


def matched(wanted: Sequence[Mask], there: Sequence[Mask]) -> int:
    """How many masks are among others, at an IoU of at least :data:`SAME`."""
    from pycocotools import mask as coco

    if not wanted or not there:
        return 0
    a, b = (
        [{"size": [m.rle.height, m.rle.width], "counts": m.rle.counts.encode()} for m in masks]
        for masks in (wanted, there)
    )
    return int((coco.iou(a, b, [0] * len(b)).max(axis=1) >= SAME).sum())


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable for a while; empty takes it away."""
    before = os.environ.pop(name, None)
    if value:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


if __name__ == "__main__":
    main()
