"""Objects followed through a film by stock ``SAM2VideoPredictor`` and by ours: time, peak memory, and in how many pixels the masks differ.

    python -m benchmarks.tracking                      nano, 1 and 8 objects, 30 frames of 512 x 512
    python -m benchmarks.tracking --model tiny --frames 8
    python -m benchmarks.tracking --fast               also our fast mode, and how well its masks agree with ours (mean IoU)
    python -m benchmarks.tracking --growth 50 300      ours alone, peak memory by the number of frames

Every measurement has a process of its own, stock and ours in turn; ours has the engine's allocator settings. Frames are drawn before the clock
runs. nano's image encoder and decoder are trained, its memory is not: the last
normalisation of its memory attention is set to what the decoder expects, so that there are masks. tiny has random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from segment_duo.segmenters.allocator import allocator_environment

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
    parser.add_argument("--fast", action="store_true", help="also the fast mode")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--masks", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        asked = (chosen.child, chosen.model, chosen.objects[0], chosen.frames, chosen.size, chosen.masks)
        print(json.dumps(_measure(*asked)))
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
        rows: dict[str, list[dict[str, Any]]] = {"stock": [], "ours": [], **({"fast": []} if chosen.fast else {})}
        with tempfile.TemporaryDirectory() as folder:
            files = {which: Path(folder) / which for which in rows}
            for _ in range(chosen.rounds):
                for which, found in rows.items():
                    found.append(_child(which, chosen.model, objects, chosen.frames, chosen.size, files[which]))
            differ = _differing(files["stock"], files["ours"])
            agreement = _agreement(files["ours"], files["fast"], chosen.size) if chosen.fast else 0.0
        stock, ours, *fast = (min(found, key=lambda row: row["wall"]) for found in rows.values())
        least = {which: min(row["cpu"] for row in found) for which, found in rows.items()}
        told = f"{ours['area']} px, {differ} differ of {objects * chosen.frames * chosen.size**2}"
        print(_row(chosen.model, objects, chosen.frames, stock, ours, least["stock"] / least["ours"], told), flush=True)
        for row in fast:
            told, ratio = f"{agreement:.3f} IoU with ours", least["stock"] / least["fast"]
            print(_row(f"{chosen.model}, fast", objects, chosen.frames, stock, row, ratio, told), flush=True)


def _row(model: str, objects: int, frames: int, stock: Any, ours: Any, cpu_ratio: float, masks: str) -> str:
    return (
        f"| {model} | {objects} | {frames} | {stock['wall']:.1f} / {ours['wall']:.1f} s | {stock['wall'] / ours['wall']:.2f} "
        f"| {stock['cpu']:.1f} / {ours['cpu']:.1f} s | {cpu_ratio:.2f} | {stock['rss_mib']:.0f} / {ours['rss_mib']:.0f} MiB | {masks} |"
    )


def _child(which: str, model: str, objects: int, frames: int, size: int, masks: Path | None = None) -> dict[str, Any]:
    numbers = {"--objects": objects, "--frames": frames, "--size": size}
    words = ["--child", which, "--model", model, *(str(word) for pair in numbers.items() for word in pair)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tracking", *words, *(("--masks", str(masks)) if masks else ())],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **({} if which == "stock" else allocator_environment())},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _differing(one: Path, other: Path) -> int:
    """Pixels in which the masks of two files differ."""
    import numpy as np

    a, b = (np.fromfile(file, np.uint8) for file in (one, other))
    return int(np.unpackbits(a ^ b).sum())


def _agreement(one: Path, other: Path, size: int) -> float:
    """Mean IoU of the masks of two files; 1 for two that are empty."""
    import numpy as np

    a, b = (np.fromfile(file, np.uint8).reshape(-1, size * size // 8) for file in (one, other))
    both, either = (np.unpackbits(masks, axis=1).sum(axis=1) for masks in (a & b, a | b))
    return float(np.where(either, both / np.maximum(either, 1), 1.0).mean())


def _measure(which: str, model: str, objects: int, frames: int, size: int, masks: Path | None) -> dict[str, Any]:
    import numpy as np

    from tests.stock_video import LazyFilm, centre, small_film_model, stock_predictor

    network, config = small_film_model(model, CONFIGS[model])
    drawn = LazyFilm(frames, size, objects)
    pictures = list(drawn) if masks else drawn
    prompts = {number + 1: centre(number, 0, size, size) for number in range(objects)}
    run = _stock if which == "stock" else partial(_ours, fast=which == "fast")
    network = stock_predictor(network, config) if which == "stock" else network
    wall, cpu = time.perf_counter(), time.process_time()
    area, packed = 0, []
    for mask in run(network, pictures, prompts):
        if masks:
            packed.append(np.packbits(mask))
        area += int(mask.sum())
    taken = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "area": area // (frames * objects),
    }
    if masks:
        masks.write_bytes(b"".join(mask.tobytes() for mask in packed))
    return taken


def _stock(network: Any, pictures: Any, prompts: dict[int, tuple[float, float]]) -> Iterator[Any]:
    from tests.stock_video import quiet, stock_masks, stock_state

    state = stock_state(network, pictures)
    with quiet():
        for ident, place in prompts.items():
            network.add_new_points_or_box(state, 0, ident, points=[place], labels=[1])
    for _, logits in stock_masks(network, state):
        yield from (one > 0 for one in logits.values())


def _ours(network: Any, pictures: Any, prompts: dict[int, tuple[float, float]], *, fast: bool = False) -> Iterator[Any]:
    import numpy as np

    from segment_duo.segmenters.base import PromptArrays
    from segment_duo.segmenters.sam2.predictor import Predictor
    from segment_duo.segmenters.sam2.tracker import Sam2Tracker
    from segment_duo.segmenters.tracking import ObjectPrompt, TrackStep
    from tests.stock_video import whole

    tracker = Sam2Tracker(Predictor(network), len(pictures), fast=fast)
    first = [
        ObjectPrompt(ident, 0, PromptArrays(np.array([place], np.float32), np.array([1])))
        for ident, place in prompts.items()
    ]
    for number in range(len(pictures)):
        step = TrackStep(number, follow=list(prompts)) if number else TrackStep(0, first)
        yield from (whole(one.mask, pictures[number].shape) for one in tracker.step(pictures[number], step))


if __name__ == "__main__":
    main()
