"""Objects followed through a film by stock ``SAM2VideoPredictor`` and by ours: time, peak memory, and whether the masks are equal.

    python -m benchmarks.tracking                      nano, 1 and 8 objects, 30 frames of 512 x 512
    python -m benchmarks.tracking --model tiny --frames 8
    python -m benchmarks.tracking --growth 50 300      ours alone, peak memory by the number of frames

Every measurement has a process of its own, stock and ours in turn. nano's image encoder and decoder are trained, its memory is not: the last
normalisation of its memory attention is set to what the decoder expects, so that there are masks. tiny has random weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

SIZE = 512
CONFIGS = {"nano": "nano.yaml", "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--model", choices=list(CONFIGS), default="nano")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many counts")
    parser.add_argument("--growth", type=int, nargs="+", metavar="FRAMES", help="only peak memory of ours")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(_measure(chosen.child, chosen.model, chosen.objects[0], chosen.frames, chosen.size)))
        return
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}")
    if chosen.growth:
        print("| frames | peak RSS |\n|---|---|")
        for frames in chosen.growth:
            found = _child("ours", chosen.model, chosen.objects[-1], frames, chosen.size)
            print(f"| {frames} | {found['rss_mib']:.0f} MiB |", flush=True)
        return
    print("| model | objects | frames | wall, stock / ours | ratio | CPU, stock / ours | ratio | peak RSS | masks |")
    print("|---|---|---|---|---|---|---|---|---|")
    for objects in chosen.objects:
        rows: dict[str, list[dict[str, Any]]] = {"stock": [], "ours": []}
        for _ in range(chosen.rounds):
            for which, found in rows.items():
                found.append(_child(which, chosen.model, objects, chosen.frames, chosen.size))
        stock, ours = (min(found, key=lambda row: row["wall"]) for found in rows.values())
        least = {which: min(row["cpu"] for row in found) for which, found in rows.items()}
        equal = "equal" if stock["digest"] == ours["digest"] else "differ"
        print(
            f"| {chosen.model} | {objects} | {chosen.frames} | {stock['wall']:.1f} / {ours['wall']:.1f} s | {stock['wall'] / ours['wall']:.2f} "
            f"| {least['stock']:.1f} / {least['ours']:.1f} s | {least['stock'] / least['ours']:.2f} "
            f"| {stock['rss_mib']:.0f} / {ours['rss_mib']:.0f} MiB | {equal}, {ours['area']} px |",
            flush=True,
        )


def _child(which: str, model: str, objects: int, frames: int, size: int) -> dict[str, Any]:
    words = [
        "--child",
        which,
        "--model",
        model,
        "--objects",
        str(objects),
        "--frames",
        str(frames),
        "--size",
        str(size),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tracking", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(which: str, model: str, objects: int, frames: int, size: int) -> dict[str, Any]:
    import numpy as np

    from tests.stock_video import LazyFilm, centre, small_film_model, stock_predictor

    network, config = small_film_model(model, CONFIGS[model])
    pictures = LazyFilm(frames, size, objects)
    prompts = {number + 1: centre(number, 0, size, size) for number in range(objects)}
    run = _stock if which == "stock" else _ours
    network = stock_predictor(network, config) if which == "stock" else network
    wall, cpu = time.perf_counter(), time.process_time()
    digest, area = hashlib.sha256(), 0
    for mask in run(network, pictures, prompts):
        digest.update(np.packbits(mask).tobytes())
        area += int(mask.sum())
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "digest": digest.hexdigest(),
        "area": area // (frames * objects),
    }


def _stock(network: Any, pictures: Any, prompts: dict[int, tuple[float, float]]) -> Iterator[Any]:
    from tests.stock_video import quiet, stock_masks, stock_state

    state = stock_state(network, pictures)
    with quiet():
        for ident, place in prompts.items():
            network.add_new_points_or_box(state, 0, ident, points=[place], labels=[1])
    for _, logits in stock_masks(network, state):
        yield from (one > 0 for one in logits.values())


def _ours(network: Any, pictures: Any, prompts: dict[int, tuple[float, float]]) -> Iterator[Any]:
    import numpy as np

    from segment_duo.segmenters.base import PromptArrays
    from segment_duo.segmenters.sam2.predictor import Predictor
    from segment_duo.segmenters.sam2.tracker import Sam2Tracker
    from segment_duo.segmenters.tracking import ObjectPrompt, TrackStep
    from tests.stock_video import whole

    tracker = Sam2Tracker(Predictor(network), len(pictures))
    first = [
        ObjectPrompt(ident, 0, PromptArrays(np.array([place], np.float32), np.array([1])))
        for ident, place in prompts.items()
    ]
    for number in range(len(pictures)):
        step = TrackStep(number, follow=list(prompts)) if number else TrackStep(0, first)
        yield from (whole(one.mask, pictures[number].shape) for one in tracker.step(pictures[number], step))


if __name__ == "__main__":
    main()
