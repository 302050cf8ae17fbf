"""Where trials take place: a home of its own, commands with a deadline, and the row of the table that counts what came of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from segment_duo.masks.formats import native

SEGDUO = [sys.executable, "-m", "segment_duo.cli.main"]
HANG_SECONDS = 300.0
"""No command here has that much to do; one that is not over by then hangs."""


@dataclass
class Row:
    """What came of a kind of trial.

    ``lost``: said to be done, or owed, and not there. ``torn``: there, but not whole. ``doubled``: there more than once. ``hung``: not over in
    time. ``wrong``: a traceback, or an end that nothing explains.
    """

    what: str
    tries: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    hung: int = 0
    wrong: int = 0
    note: str = ""
    details: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.tries > 0 and not (self.lost or self.torn or self.doubled or self.hung or self.wrong)

    def count(self, kind: str, detail: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.details.append(f"{kind}: {detail}")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    error: str
    hung: bool
    seconds: float


@dataclass
class Ground:
    """A folder with a home for commands and engines; ``settings`` are variables for them."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGDUO_")}
        ours = {
            "SEGDUO_HOME": str(self.folder / "home"),
            "SEGDUO_DEVICE": "cpu",
            "NO_COLOR": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return kept | ours | self.settings

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SEGDUO, *map(str, arguments)], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: object, kill_after: float | None = None) -> Done:
        """A command to its end, or to SIGKILL after ``kill_after`` seconds."""
        started = time.monotonic()
        process = self.start(*arguments)
        hung = False
        try:
            out, error = process.communicate(timeout=HANG_SECONDS if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            out, error = process.communicate()
            hung = kill_after is None
        return Done(process.returncode, out, error, hung, time.monotonic() - started)

    def engines(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if "--settings" in line and str(self.folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def end(self) -> None:
        """End the engines of this home."""
        for process in self.engines():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def image(self, name: str, seed: int, size: int = 96) -> Path:
        """A PNG with some bright discs on a noisy ground."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:size, :size]
        picture = np.full((size, size), 60.0)
        for _ in range(5):
            cx, cy, radius = *rng.uniform(0, size, 2), rng.uniform(size / 16, size / 6)
            picture[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = 180
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)).save(file)
        return file


def labels(file: Path, size: int = 96, count: int = 30) -> Path:
    """A label image to import: ``count`` bars."""
    picture = np.zeros((size, size), np.uint16)
    for number in range(count):
        picture[:, number * size // count : number * size // count + 2] = number + 1
    Image.fromarray(picture).save(file)
    return file


def sets_in(folder: Path, row: Row) -> list[Path]:
    """The set files of a folder; one that is not whole is counted as torn."""
    found = sorted(folder.glob("*.pkl")) if folder.exists() else []
    for file in found:
        check_set(file.read_bytes(), str(file), row)
    return found


def check_set(content: bytes, name: str, row: Row) -> None:
    try:
        native.loads(content, name=name)
    except Exception as error:
        row.count("torn", f"{name}: {error}")


def judge(done: Done, row: Row, expected: tuple[int, ...]) -> None:
    """Count a command that hung, or ended in another way than it may."""
    if done.hung:
        row.count("hung", done.error[-300:])
    elif "Traceback" in done.error or done.code not in expected:
        row.count("wrong", f"exit {done.code}: {done.error[-300:]}")


@contextlib.contextmanager
def ground(folder: Path, **settings: str) -> Iterator[Ground]:
    made = Ground(folder, settings)
    try:
        yield made
    finally:
        made.end()


def moments(count: int, seconds: float, seed: int) -> list[float]:
    """When to kill: random moments of a run that takes ``seconds``, each part of it about as often as any other."""
    rng = random.Random(seed)
    return [seconds * (index + rng.random()) / count for index in range(count)]
