"""Measure and print the table: ``python -m benchmarks.speed`` (tiny at 3 MP), ``--all`` (all models and sizes, hours on two cores)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.scene import CONFIGS, SIZES
from segment_duo.segmenters.allocator import allocator_environment
from segment_duo.segmenters.sam2.machine import SCREENING

OURS: dict[str, tuple[dict[str, Any], str]] = {
    "exact": ({"exact": True}, ""),
    "screened": ({"exact": False}, ""),
    "screened, float32": ({"exact": False}, "float32"),
    "fast": ({"fast": True}, ""),
}
"""Our modes: their parameters, and the precision that the first pass is forced to."""


def child(allocator: bool, screening: str = "", **asked: Any) -> dict[str, Any]:
    """Run one measurement in a fresh process; with the engine's allocator settings, as the engine runs, or without, as stock runs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    if allocator:
        environment |= allocator_environment()
    if screening:
        environment[SCREENING] = screening
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.child", json.dumps(asked)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def compare(name: str, megapixels: int, points: int, rounds: int, modes: list[str]) -> None:
    """Stock and our modes in turn, ``rounds`` times: a row for each of ours and each round, beside that round's stock."""
    fields = child(False, mode="calibrate", model=name, megapixels=megapixels, points=points)["parameters"]
    asked: dict[str, Any] = {"model": name, "megapixels": megapixels}
    for _ in range(rounds):
        stock = child(False, mode="stock", parameters=fields, **asked)
        _stages(name, megapixels, "stock", stock)
        for mode in modes:
            extra, screening = OURS[mode]
            ours = child(True, screening, mode="ours", parameters={**fields, **extra}, **asked)
            ratio = {k: stock[k] / ours[k] for k in ("wall", "cpu", "peak_mib")}
            same = "equal" if stock["digest"] == ours["digest"] else f"{stock['masks']} / {ours['masks']} masks"
            print(
                f"| {name} | {megapixels} | {points**2} | {mode} | {stock['wall']:.1f} / {ours['wall']:.1f} s | {ratio['wall']:.2f} | "
                f"{stock['cpu']:.1f} / {ours['cpu']:.1f} s | {ratio['cpu']:.2f} | "
                f"{stock['peak_mib']:.0f} / {ours['peak_mib']:.0f} MiB | {ratio['peak_mib']:.2f} | {same} |",
                flush=True,
            )
            _stages(name, megapixels, mode, ours)


def _stages(name: str, megapixels: int, mode: str, run: dict[str, Any]) -> None:
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run["stages"].items())
    print(f"<!-- {name} {megapixels} MP {mode}: {stages} s of wall time; {run['masks']} masks -->", flush=True)


def growth(name: str, rounds: int) -> None:
    """Our exact mode against the number of points and of pixels."""
    print("\n| model | MP | points | wall s | CPU s | peak MiB |\n|---|---|---|---|---|---|")
    for megapixels, points in [(3, 8), (3, 16), (3, 32), (1, 16), (12, 16)]:
        fields = child(False, mode="calibrate", model=name, megapixels=megapixels, points=points)["parameters"]
        asked = {"mode": "ours", "model": name, "megapixels": megapixels, "parameters": fields | {"exact": True}}
        best = min((child(True, **asked) for _ in range(rounds)), key=lambda r: r["wall"])
        print(
            f"| {name} | {megapixels} | {points**2} | {best['wall']:.1f} | {best['cpu']:.1f} | {best['peak_mib']:.0f} |",
            flush=True,
        )


def clicks(models: list[str]) -> None:
    """Milliseconds from a cached embedding to masks, at 3 MP."""
    rows = {name: child(True, mode="clicks", model=name, megapixels=3)["clicks"] for name in models}
    print("\n| cached embedding to mask, ms | " + " | ".join(rows) + " |\n|---|" + "---|" * len(rows))
    for case in next(iter(rows.values())):
        print(f"| {case} | " + " | ".join(f"{rows[name][case]:.0f}" for name in rows) + " |", flush=True)


def throughput(name: str, images: int, modes: list[str]) -> None:
    """Images an hour at 1 MP, from PNG files in memory to masks, in one process."""
    print(
        "\n| model | mode | images | images an hour, wall | by processor time | share of reading files |\n"
        + "|---" * 6
        + "|"
    )
    points = 32
    fields = child(False, mode="calibrate", model=name, megapixels=1, points=points)["parameters"]
    for mode in modes:
        extra, screening = OURS[mode]
        asked: dict[str, Any] = {"model": name, "megapixels": 1, "images": images, "parameters": {**fields, **extra}}
        run = child(True, screening, mode="throughput", **asked)
        hourly = [3600 * run["images"] / run[k] for k in ("wall", "cpu")]
        print(
            f"| {name} | {mode} | {images} | {hourly[0]:.0f} | {hourly[1]:.0f} | {100 * run['reading'] / run['wall']:.1f} % |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny"], choices=list(CONFIGS))
    parser.add_argument("--megapixels", nargs="+", type=int, default=[3], choices=list(SIZES))
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--all", action="store_true", help="nano, tiny and large at 1, 3 and 12 megapixels, growth and clicks"
    )
    parser.add_argument("--growth", action="store_true", help="only growth with points and pixels")
    parser.add_argument("--clicks", action="store_true", help="only click latency")
    parser.add_argument("--modes", nargs="+", default=list(OURS)[:3], choices=list(OURS))
    parser.add_argument("--throughput", type=int, metavar="N", help="only images an hour, of N images of 1 megapixel")
    chosen = parser.parse_args()
    print(f"{_processor()}, {os.cpu_count()} CPUs{_instructions()}; Python {platform.python_version()}; ", end="")
    print(
        subprocess.run(
            [sys.executable, "-c", "import torch; print('torch', torch.__version__)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    if chosen.throughput:
        for name in chosen.models:
            throughput(name, chosen.throughput, chosen.modes)
        return None
    if chosen.clicks:
        return clicks(chosen.models)
    if chosen.growth:
        for name in chosen.models:
            growth(name, chosen.rounds)
        return None
    models = ["nano", "tiny", "large"] if chosen.all else chosen.models
    sizes = list(SIZES) if chosen.all else chosen.megapixels
    print(
        "| model | MP | points | mode | wall, stock / ours | ratio | CPU, stock / ours | ratio | peak RSS, stock / ours | ratio | records |\n"
        + "|---" * 11
        + "|"
    )
    for name in models:
        for megapixels in sizes:
            compare(name, megapixels, chosen.points_per_side, chosen.rounds, chosen.modes)
    if chosen.all:
        growth("tiny", chosen.rounds)
        clicks(models)
    return None


def _instructions() -> str:
    """The instruction sets that matter here, where Linux tells them."""
    info = Path("/proc/cpuinfo")
    known = set(info.read_text().split()) if info.is_file() else set()
    return "".join(f", {name}" for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in known)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
