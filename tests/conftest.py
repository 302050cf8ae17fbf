"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from .cli_shell import shell
from .engine_fixtures import forgetful, home, real_engine, scripted

__all__ = ["REPOSITORY", "empty_home", "forgetful", "home", "real_engine", "scripted", "shared_dir", "shell"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads that spin while they wait for each other take the cores from the other process; engines that tests start inherit this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples on every run: a failure on one machine can be looked at on another.
hypothesis.settings.register_profile("segduo", derandomize=True, deadline=None)
hypothesis.settings.load_profile("segduo")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference data that only the developers' machines have; the test is skipped elsewhere."""
    folder = Path(os.environ.get("SEGDUO_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("the shared reference data is not on this machine")
    return folder


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HOME and working directory, without any SEGDUO_ variable: what a new user has."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("SEGDUO_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def pixels_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pixels of every array handed to Pillow from now on: what a picture costs, whatever else the machine does."""
    read: list[int] = []
    convert = Image.fromarray

    def recorded(array: np.ndarray, *rest: object, **more: object) -> Image.Image:
        read.append(array.shape[0] * array.shape[1])
        return convert(array, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "fromarray", recorded)
    return read
