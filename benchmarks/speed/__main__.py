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


def child(allocator: bool, **asked: Any) -> dict[str, Any]:
    """Run one measurement in a fresh process; with the engine's allocator settings, as the engine runs, or without, as stock runs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    if allocator:
        environment |= allocator_environment()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.child", json.dumps(asked)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def compare(name: str, megapixels: int, points: int, rounds: int) -> None:
    """Stock, ours, ours ... in turn, ``rounds`` times; the best of each, as ratios."""
    fields = child(False, mode="calibrate", model=name, megapixels=megapixels, points=points)["parameters"]
    asked = {"model": name, "megapixels": megapixels, "parameters": fields}
    runs: dict[str, list[dict[str, Any]]] = {"stock": [], "ours": []}
    for _ in range(rounds):
        for mode, results in runs.items():
            results.append(child(mode == "ours", mode=mode, **asked))
    theirs, ours = (min(runs[mode], key=lambda r: r["wall"]) for mode in ("stock", "ours"))
    ratio = {k: theirs[k] / ours[k] for k in ("wall", "cpu", "peak_mib")}
    same = "equal" if theirs["digest"] == ours["digest"] else f"DIFFERENT ({theirs['masks']} against {ours['masks']})"
    print(
        f"| {name} | {megapixels} | {points**2} | {theirs['wall']:.1f} / {ours['wall']:.1f} s | {ratio['wall']:.2f} | {ratio['cpu']:.2f} | "
        f"{theirs['peak_mib']:.0f} / {ours['peak_mib']:.0f} MiB | {ratio['peak_mib']:.2f} | {ours['masks']} | {same} |",
        flush=True,
    )
    for mode, run in (("stock", theirs), ("ours", ours)):
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run["stages"].items())
        print(f"<!-- {name} {megapixels} MP {mode}: {stages} s; cpu {run['cpu']:.1f} s -->", flush=True)


def growth(name: str, rounds: int) -> None:
    """Our exact mode against the number of points and of pixels."""
    print("\n| model | MP | points | wall s | CPU s | peak MiB |\n|---|---|---|---|---|---|")
    for megapixels, points in [(3, 8), (3, 16), (3, 32), (1, 16), (12, 16)]:
        fields = child(False, mode="calibrate", model=name, megapixels=megapixels, points=points)["parameters"]
        asked = {"mode": "ours", "model": name, "megapixels": megapixels, "parameters": fields}
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


def fast(files: list[str], fields: dict[str, Any]) -> None:
    """Exact against fast with trained nano on image files."""
    rows = child(True, mode="agreement", model="nano", parameters=fields, files=files)["rows"]
    print(
        "\n| image | masks exact / fast | points exact / fast | CPU ratio | exact's masks found | fast's masks that are new |"
    )
    print("|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['file']} | {r['masks'][0]} / {r['masks'][1]} | {r['points'][0]} / {r['points'][1]} | "
            f"{r['seconds'][0] / r['seconds'][1]:.2f} | {100 * r['found']:.1f} % | {100 * r['new']:.1f} % |"
        )
    exact = sum(r["masks"][0] for r in rows)
    found = sum(r["masks"][0] * r["found"] for r in rows)
    speed = sum(r["seconds"][0] for r in rows) / sum(r["seconds"][1] for r in rows)
    print(
        f"| all | {exact} / {sum(r['masks'][1] for r in rows)} | | {speed:.2f} | {100 * found / max(exact, 1):.1f} % | |",
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
    parser.add_argument("--fast", nargs="+", metavar="IMAGE", help="only exact against fast, on these files")
    parser.add_argument("--thresholds", type=json.loads, default={}, help="JSON parameters for --fast")
    chosen = parser.parse_args()
    print(f"{_processor()}, {os.cpu_count()} CPUs; Python {platform.python_version()}; ", end="")
    print(
        subprocess.run(
            [sys.executable, "-c", "import torch; print('torch', torch.__version__)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    if chosen.fast:
        return fast([str(Path(f)) for f in chosen.fast], chosen.thresholds)
    if chosen.clicks:
        return clicks(chosen.models)
    if chosen.growth:
        return [growth(name, chosen.rounds) for name in chosen.models][-1]
    models = ["nano", "tiny", "large"] if chosen.all else chosen.models
    sizes = list(SIZES) if chosen.all else chosen.megapixels
    print(
        "| model | MP | points | wall, stock / ours | ratio | CPU ratio | peak RSS, stock / ours | ratio | masks | records |\n"
        + "|---" * 10
        + "|"
    )
    for name in models:
        for megapixels in sizes:
            compare(name, megapixels, chosen.points_per_side, chosen.rounds)
    if chosen.all:
        growth("tiny", chosen.rounds)
        clicks(models)
    return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
