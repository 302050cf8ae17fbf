"""A large synthetic mosaic through the tiles: ``python -m benchmarks.speed.mosaic --side 10000`` is 100 megapixels.

Prints how many particles there are, how many were found (a mask with a box IoU of at least 0.5), how many twice, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time

import numpy as np
import numpy.typing as npt

from benchmarks.speed import scene
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.allocator import allocator_environment

SPACING = 125
"""Pixels between the centres of particles, which are jittered; their radius is 24 to 48."""


def mosaic(side: int, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Grey discs on a noisy ground, uint8 (side, side, 3), and their centres and radii, (N, 3)."""
    rng = np.random.default_rng(seed)
    grey = rng.normal(70, 6, (side, side)).astype(np.float32)
    centres = np.arange(SPACING / 2, side - SPACING / 2 + 1, SPACING)
    discs = []
    for cy in centres:
        for cx in centres:
            radius = rng.uniform(24, 48)
            y, x = (c + rng.uniform(-1, 1) * (SPACING / 2 - radius - 3) for c in (cy, cx))
            discs.append((y, x, radius))
            y0, x0, reach = int(y - radius) - 1, int(x - radius) - 1, int(2 * radius) + 4
            part = grey[max(y0, 0) : y0 + reach, max(x0, 0) : x0 + reach]
            yy, xx = np.mgrid[max(y0, 0) : max(y0, 0) + part.shape[0], max(x0, 0) : max(x0, 0) + part.shape[1]]
            part[(yy - y) ** 2 + (xx - x) ** 2 < radius**2] += rng.uniform(60, 120)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2), np.array(discs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.mosaic", description=__doc__)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--halo", type=int, default=128)
    parser.add_argument("--points-per-side", type=int, default=32, help="of a tile")
    parser.add_argument("--thresholds", type=json.loads, default={}, help="JSON parameters instead of the model's own")
    parser.add_argument("--fast", action="store_true")
    asked = parser.parse_args()

    from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
    from segment_duo.segmenters.sam2.predictor import Predictor

    pixels, discs = mosaic(asked.side)
    p = AutoParameters(
        points_per_side=asked.points_per_side,
        tile=asked.tile,
        halo=asked.halo,
        fast=asked.fast,
        **{**scene.defaults(asked.model), **asked.thresholds},
    )
    start, cpu = time.perf_counter(), time.process_time()
    run = AutomaticMaskGenerator(Predictor(scene.model(asked.model)), p).generate(pixels, on_progress=_show)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    boxes = np.array([m.bbox for m in run.masks]).reshape(-1, 4)
    counts = _matches(boxes, np.array([m.area for m in run.masks]), discs)
    print(
        f"{asked.side**2 / 1e6:.0f} MP, {asked.model}, tile {asked.tile}, halo {asked.halo}, {run.points} prompts: "
        f"{len(discs)} particles, {int((counts > 0).sum())} found, {int((counts > 1).sum())} found twice, {len(run.masks)} masks; "
        f"{wall:.0f} s, CPU {cpu:.0f} s, peak {peak / 2**20:.0f} MiB on {os.cpu_count()} CPUs"
    )
    for note in run.notes:
        print("note:", note)


def _matches(
    boxes: npt.NDArray[np.float64], areas: npt.NDArray[np.int64], discs: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Masks by particle: box IoU of at least 0.5 with the disc's, and an area within a factor of 1.5."""
    counts = np.zeros(len(discs), dtype=np.int64)
    if not len(boxes):
        return counts
    x0, y0 = boxes[:, 0], boxes[:, 1]
    x1, y1 = x0 + boxes[:, 2] + 1, y0 + boxes[:, 3] + 1
    for i, (cy, cx, radius) in enumerate(discs):
        w = (np.minimum(x1, cx + radius) - np.maximum(x0, cx - radius)).clip(0)
        h = (np.minimum(y1, cy + radius) - np.maximum(y0, cy - radius)).clip(0)
        common = w * h
        iou = common / ((x1 - x0) * (y1 - y0) + 4 * radius**2 - common)
        share = areas / (np.pi * radius**2)
        counts[i] = int(((iou >= 0.5) & (share < 1.5) & (share > 1 / 1.5)).sum())
    return counts


def _show(phase: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{phase} {done}/{total}", end="", file=sys.stderr)


if __name__ == "__main__":
    missing = allocator_environment()
    if missing:  # as the engine runs
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})
    main()
