"""A shell for tests: runs the real program in its own process against the run's shared engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .engine_fixtures import Home

DISCS = ((30, 30, 16), (90, 34, 20), (140, 90, 14), (40, 92, 22))
"""Centres and radii in pixels of the discs in the test image."""


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def ok(self) -> Done:
        assert self.code == 0, f"exit code {self.code}\n{self.stdout}\n{self.stderr}"
        return self


@dataclass
class Shell:
    """Runs ``segduo`` in ``folder``."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "segment_duo.cli.main", *(str(argument) for argument in arguments)]

    def run(self, *arguments: object, text: str | None = None, **variables: str) -> Done:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | variables,
            input=text,
            capture_output=True,
            text=True,
            timeout=240,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start it in the background; Ctrl-C reaches it even where the suite itself was started with SIGINT ignored (``pytest &``)."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread holds a lock here
        )

    def image(self, name: str, *, seed: int = 0, draw: Callable[[int], np.ndarray] | None = None) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((draw or draw_discs)(seed)).save(file)
        return file


def draw_discs(seed: int = 0) -> np.ndarray:
    """A 180 x 124 grey image with four bright discs on a dark, noisy ground; uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:124, :180]
    picture = np.full((124, 180), 60.0)
    for centre_x, centre_y, radius in DISCS:
        picture[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2] = 180.0
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def shell(real_engine: Home, tmp_path: Path) -> Shell:
    """A shell in an empty folder, with the shared engine's home and no other setting."""
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {
        name: value for name, value in real_engine.environment.items() if name not in ("USERNAME", "PASSWORD")
    }
    return Shell(folder, environment | {"SEGDUO_DEVICE": "cpu", "NO_COLOR": "1"})
