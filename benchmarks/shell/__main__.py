"""Measure and print: ``python -m benchmarks.shell [--rounds 7]``. Needs nothing but a checkout; works in a temporary home."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEGDUO = [sys.executable, "-m", "segment_duo.cli.main"]
HEIGHT, WIDTH = 1536, 2048


def measure(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median and best of ``rounds`` calls, in seconds; one call before them warms caches."""
    call()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), min(seconds)


def command(environment: dict[str, str], folder: Path, *arguments: str) -> Callable[[], object]:
    def run() -> None:
        subprocess.run([*SEGDUO, *arguments], env=environment, cwd=folder, check=True, capture_output=True)

    return run


def row(what: str, timing: tuple[float, float]) -> None:
    median, best = timing
    print(f"| {what:<58} | {median * 1000:8.0f} | {best * 1000:8.0f} |", flush=True)


def blobs() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A 3-megapixel picture with discs; what is on it does not change the time of a click."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.where((x % 256 - 128) ** 2 + (y % 256 - 128) ** 2 < 60**2, 190, 70).astype(np.uint8)
    return np.repeat(picture[:, :, None], 3, axis=2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shell", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEGDUO_")}
        environment |= {"SEGDUO_HOME": str(folder / "home")}
        os.environ["SEGDUO_HOME"] = environment["SEGDUO_HOME"]
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, image {WIDTH} x {HEIGHT}, model nano\n")
        print(f"| {'what':<58} | {'median':>8} | {'best':>8} |   (ms)")
        print(f"|{'-' * 60}|{'-' * 10}|{'-' * 10}|")
        try:
            run(folder, environment, rounds)
        finally:
            subprocess.run([*SEGDUO, "engine", "stop"], env=environment, capture_output=True, check=False)


def run(folder: Path, environment: dict[str, str], rounds: int) -> None:
    from PIL import Image

    from segment_duo.config import load_config
    from segment_duo.engine.connect import connect
    from segment_duo.models.registry import resolve_model
    from segment_duo.paths import Paths
    from segment_duo.types import Point, Prompt

    Image.fromarray(blobs()).save(folder / "image.png")
    row("python -c pass", measure(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), rounds))
    row("segduo --help", measure(command(environment, folder, "--help"), rounds))
    row("segduo ls", measure(command(environment, folder, "ls", str(folder)), rounds))

    started = time.perf_counter()
    command(environment, folder, "engine", "start")()
    row("segduo engine start, until it answers (once)", (time.perf_counter() - started,) * 2)
    row("segduo engine status", measure(command(environment, folder, "engine", "status"), rounds))

    started = time.perf_counter()
    click_command = command(environment, folder, "point", "image.png", "-p", "128,128", "--no-save", "--json")
    click_command()
    row("first segduo point (loads torch and the model, embeds)", (time.perf_counter() - started,) * 2)
    row("segduo point, warm engine, cached embedding", measure(click_command, rounds))

    config, paths = load_config({}).config, Paths.default()
    model = resolve_model(config, paths)
    engine = connect(config, paths)
    pixels = blobs()
    image = engine.ensure_image(pixels, model=model).id
    click = [Prompt(points=(Point(128, 128),))]
    row("one click through the socket (library)", measure(lambda: engine.predict(image, click, model=model), rounds))
    row(
        "the same as a 512-pixel preview",
        measure(lambda: engine.predict(image, click, model=model, preview_max_side=512), rounds),
    )
    row("asking for the status", measure(engine.status, rounds))
    row("asking whether the image is there", measure(lambda: engine.image_state(image, model=model), rounds))
    engine.close()
    subprocess.run([*SEGDUO, "engine", "stop"], env=environment, capture_output=True, check=False)
    row("the decoder and up-sampling alone (no process, no socket)", measure(bare_click(pixels, model), rounds))


def bare_click(pixels: np.ndarray[Any, np.dtype[np.uint8]], model: Any) -> Callable[[], object]:
    from segment_duo.segmenters.base import PromptArrays
    from segment_duo.segmenters.sam2.build import build_model
    from segment_duo.segmenters.sam2.predictor import Predictor

    predictor = Predictor(build_model(model.config, model.checkpoint))
    embedding = predictor.embed(pixels)
    prompt = PromptArrays(points=np.array([[128, 128]], dtype=np.float32), labels=np.array([1]))
    return lambda: predictor.predict(embedding, [prompt])[0][0].rle


if __name__ == "__main__":
    main()
