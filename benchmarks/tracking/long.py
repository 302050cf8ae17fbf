"""A long film of small frames, followed once without a break and once with SIGKILL in the middle of it: what is lost, what is there twice, memory.

    python -m benchmarks.tracking.long                      10,000 frames, --link with watershed (needs no weights), ten kills
    python -m benchmarks.tracking.long --way memory         two objects by memory: a model of nano's kind that reads 128 x 128, random weights
    python -m benchmarks.tracking.long --frames 60 --kills 3

Each kill is of the command, at a random frame; every third time of its engine too. Then the same command goes on. The table says how many frames
the resumed set lacks or has twice, how many differ from those of the run without a break, and the memory of command and engine (peak of the
resident set in the second tenth of the frames, and in the last) while that run went on.

With memory a frame after a kill may differ: what the model remembers is made anew from the last masks, which is documented.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tifffile

from benchmarks.reliability.ground import Ground, ground
from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.sequence import SequenceSet
from tests.engine_fixtures import Home

POLL_SECONDS = 0.2


@dataclass
class Watched:
    """Resident memory (bytes) of command and engine together by how many frames were done."""

    seen: list[tuple[int, int]] = field(default_factory=list)

    def peak(self, first: float, last: float, frames: int) -> float:
        """MiB, between two shares of the frames; NaN where nobody looked."""
        inside = [rss for done, rss in self.seen if first * frames <= done <= last * frames]
        return max(inside) / 2**20 if inside else float("nan")


@dataclass
class Result:
    way: str
    frames: int
    seconds: float
    kills: int
    engines: int
    lost: int
    twice: int
    differ: int
    early: float
    late: float

    def row(self) -> str:
        return (
            f"| {self.way} | {self.frames} | {self.seconds:.0f} s | {self.kills} ({self.engines}) | {self.lost} | {self.twice} | {self.differ} "
            f"| {self.early:.0f} / {self.late:.0f} MiB |"
        )


HEADING = "| way | frames | without a break | kills (of engines too) | lost | twice | differ | RSS early / late |\n|---|---|---|---|---|---|---|---|"


def write_film(file: Path, frames: int, size: int) -> None:
    """Two discs that sway over a noisy ground, frame by frame to the disk."""
    rows, columns = np.ogrid[:size, :size]
    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(file) as tiff:
        for number in range(frames):
            picture = rng.normal(50, 4, (size, size))
            sway = 0.06 * size * np.sin(number / 25)
            for share, level in ((0.3, 170), (0.7, 200)):
                picture[(columns - share * size - sway) ** 2 + (rows - share * size) ** 2 < (0.12 * size) ** 2] = level
            tiff.write(picture.clip(0, 255).astype(np.uint8), photometric="minisblack", contiguous=True)


def command(way: str, here: Ground, size: int) -> list[str]:
    """The options of ``segduo track``; for memory a model is put into the home."""
    if way == "link":
        return ["--link", "--model", "watershed", "--no-tables"]
    from tests.stock_video import attentive, write_micro

    folder = Home(here.folder / "home").paths.models_dir / "micro"
    if not folder.is_dir():
        import torch

        folder.mkdir(parents=True)
        write_micro(folder).rename(folder / "model.yaml")
        torch.save({"model": attentive(str(folder / "model.yaml")).state_dict()}, folder / "model.pt")
    places = [round(share * size) for share in (0.3, 0.7)]
    return [
        "--model",
        "micro",
        "--no-tables",
        "-p",
        f"{places[0]},{places[0]},1,1",
        "-p",
        f"{places[1]},{places[1]},1,2",
    ]


def written(folder: Path) -> int:
    """How many frames the unfinished file in a folder of sets has."""
    for part in folder.glob(".segduo-*.part"):
        try:
            with SequenceSet.open(part) as found:
                return len(found.frames)
        except (MaskFileError, FileNotFoundError):  # its head is not whole, or it just became the set
            return 0
    return 0


def memory(here: Ground, process: subprocess.Popen[str]) -> int:
    total = 0
    for one in [psutil.Process(process.pid), *here.engines()]:
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def whole_run(here: Ground, film: Path, options: list[str]) -> tuple[float, Watched]:
    watched, began = Watched(), time.monotonic()
    process = here.start("track", film, *options, "--suffix", "whole")
    while process.poll() is None:
        if process.returncode is None and psutil.pid_exists(process.pid):
            watched.seen.append((written(film.parent / "masks"), memory(here, process)))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"the run without a break ended with {process.returncode}: {process.communicate()[1][-500:]}")
    return time.monotonic() - began, watched


def killed_run(here: Ground, film: Path, options: list[str], frames: int, kills: int, seed: int) -> tuple[int, int]:
    """The same with kills, to the end; how many there were, and how many engines were killed with the command."""
    rng = random.Random(seed)
    done = engines = 0
    for index in range(kills):
        moment = min(int(frames * (index + rng.random()) / kills), int(0.9 * frames))
        process = here.start("track", film, *options)
        while process.poll() is None and written(film.parent / "masks") < moment:
            time.sleep(min(POLL_SECONDS, frames / 50_000))
        if process.poll() is not None:
            break
        process.kill()
        if index % 3 == 2:
            here.end()
            engines += 1
        process.communicate()
        done += 1
    last = here.start("track", film, *options, "--json")
    out, error = last.communicate()
    if last.returncode and "--resume" not in error:
        raise SystemExit(f"the resumed run ended with {last.returncode}: {error[-500:]}")
    json.loads(out)
    return done, engines


def compare(masks: Path, frames: int) -> tuple[int, int, int]:
    """Frames that the resumed set lacks, has twice, and has otherwise than the other one."""
    with SequenceSet.open(masks / "film.pkl") as found, SequenceSet.open(masks / "film_whole.pkl") as whole:
        times = Counter(chunk.frame for chunk in found.chunks)
        lost = sum(number not in times for number in range(frames)) + (not found.finished)
        twice = sum(count > 1 for count in times.values())
        differ = sum(found.frame(number) != whole.frame(number) for number in times)
    return lost, twice, differ


def measure(way: str, folder: Path, frames: int, kills: int, size: int, seed: int = 0) -> Result:
    film = folder / "film.tif"
    # Frames that the engine keeps would fill its usual cache slowly, and look like a leak.
    with ground(folder, SEGDUO_MEMORY_CACHE_MIB="64") as here:
        write_film(film, frames, size)
        options = command(way, here, size)
        seconds, watched = whole_run(here, film, options)
        done, engines = killed_run(here, film, options, frames, kills, seed)
        lost, twice, differ = compare(folder / "masks", frames)
    early, late = watched.peak(0.1, 0.2, frames), watched.peak(0.9, 1.0, frames)
    return Result(way, frames, seconds, done, engines, lost, twice, differ, early, late)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking.long", description=__doc__)
    parser.add_argument("--way", choices=["link", "memory"], default="link")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(chosen.way, Path(folder), chosen.frames, chosen.kills, chosen.size, chosen.seed)
    print(f"{HEADING}\n{result.row()}")


if __name__ == "__main__":
    main()
