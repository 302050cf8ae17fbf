"""Real engine processes for tests: the true one (nano weights) and one whose computing is scripted, each in its own home.

Import the fixtures you need: ``from tests.engine_fixtures import real_engine  # noqa: F401``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from segment_duo.config import Config
from segment_duo.engine import lifecycle, log_file, server
from segment_duo.engine.client import EngineClient
from segment_duo.engine.connect import connect
from segment_duo.engine.reports import EngineStatus
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.uploads import UploadLimits
from segment_duo.engine.worker import Worker
from segment_duo.errors import SegduoError
from segment_duo.models import known, registry
from segment_duo.models.choice import ModelChoice
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.catalogue import UNTRAINED_MEMORY
from tests.scripted_engine import ScriptedCompute


@dataclass
class Home:
    """A private home for one engine. ``environment`` is what a command needs to use it."""

    root: Path
    config: Config = field(default_factory=Config)

    @property
    def paths(self) -> Paths:
        return Paths(self.root / "config", self.root / "data", self.root / "cache", self.root / "state")

    @property
    def settings(self) -> EngineSettings:
        return EngineSettings.of(self.config, self.paths)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGDUO_")}
        return {**kept, "SEGDUO_HOME": str(self.root)}

    def connect(self, **options: Any) -> EngineClient:
        engine = connect(self.config, self.paths, **options)
        assert isinstance(engine, EngineClient)
        return engine

    def processes(self) -> list[psutil.Process]:
        """The engine processes of this home."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if "--settings" in line and str(self.root) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def kill(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(5)


def wait_for(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Poll until ``condition()`` is true and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {seconds} s: {condition}")
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home for engines; all of them are killed at the end."""
    made = Home(tmp_path / "h")
    try:
        yield made
    finally:
        made.kill()


def usable_model(paths: Paths) -> ModelChoice:
    """The packaged model; where its weights are missing, one of its shape with random weights, saved as a trained model."""
    if (known.NANO_DIR / "nano.pt").is_file():
        return registry.resolve_model(Config(), paths, known.NANO)
    return random_model(paths)


def random_model(paths: Paths, name: str = "random", seed: int = 0) -> ModelChoice:
    """A model with nano's shape and random weights among the user's trained ones."""
    import torch

    from segment_duo.segmenters.sam2.build import build_model

    folder = paths.models_dir / name
    folder.mkdir(parents=True)
    shutil.copy(known.NANO_DIR / "nano.yaml", folder / "model.yaml")
    torch.manual_seed(seed)
    torch.save({"model": build_model(folder / "model.yaml").state_dict()}, folder / "model.pt")
    return registry.resolve_model(Config(), paths, name)


@pytest.fixture(scope="session")
def real_model(real_engine: Home) -> ModelChoice:
    """The model to use with ``real_engine``."""
    return usable_model(real_engine.paths)


@pytest.fixture(scope="session")
def real_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A running engine with the real computing, shared by the whole test run. Release images instead of stopping it."""
    made = Home(tmp_path_factory.mktemp("engine"), Config(device="cpu", threads=1))
    try:
        lifecycle.ensure_running(made.settings)
        yield made
    finally:
        with contextlib.suppress(SegduoError):
            lifecycle.stop(made.settings)
        made.kill()


def write_forgetful(models: Path) -> str:
    """A model that follows no objects, in a folder of models: nano with the line that says that its memory is untrained. Its id."""
    folder = models / "forgetful"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(f"{UNTRAINED_MEMORY}\n" + (known.NANO_DIR / "nano.yaml").read_text())
        shutil.copy(known.NANO_DIR / "nano.pt", folder / "model.pt")
    return "forgetful"


@pytest.fixture
def forgetful(real_engine: Home) -> str:
    """The id of such a model, that the shared engine knows."""
    return write_forgetful(real_engine.paths.models_dir)


class ScriptedEngine:
    """An engine process with the real server and a scripted ``Compute`` (see ``tests/scripted_engine.py``)."""

    def __init__(self, home: Home, **script: Any) -> None:
        self.home = home
        settings = home.settings
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.scripted_engine",
                "--settings",
                settings.model_dump_json(),
                json.dumps(script),
            ],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.status = wait_for(self._up, 60)

    def _up(self) -> EngineStatus | None:
        assert self.process.poll() is None, log_file.log_tail(self.home.settings.log)
        return lifecycle.probe(self.home.settings)

    def client(self, *, startable: bool = False) -> EngineClient:
        return EngineClient(self.home.settings, startable=startable)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


class ThreadedEngine:
    """The real server on a real socket in a thread of the test, with a scripted ``Compute``: no process to start, none to kill."""

    def __init__(self, home: Home, *, limit: int = 64, uploads: UploadLimits | None = None, **script: Any) -> None:
        self.home = home
        self._uploads = uploads
        self.compute = ScriptedCompute(script)
        self.worker = Worker(limit=limit, when_idle=self.compute.trim)
        self._bound = server.bind(home.settings.socket)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.status = wait_for(lambda: lifecycle.probe(home.settings), 60)

    def _serve(self) -> None:
        asyncio.run(server.serve_socket(self.home.settings, self._bound, self.worker, self.compute, self._uploads))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def client(self, *, startable: bool = False) -> EngineClient:
        return EngineClient(self.home.settings, startable=startable)

    def end(self) -> None:
        self.worker.close(seconds=0)
        with contextlib.suppress(SegduoError):
            lifecycle.stop(self.home.settings)
        self._bound.remove()
        self._thread.join(10)


@pytest.fixture
def threaded(home: Home) -> Iterator[Callable[..., ThreadedEngine]]:
    """Starts threaded engines in ``home``: ``threaded(embed_seconds=1.0)``."""
    started: list[ThreadedEngine] = []

    def start(**script: Any) -> ThreadedEngine:
        started.append(ThreadedEngine(home, **script))
        return started[-1]

    try:
        yield start
    finally:
        for engine in started:
            engine.end()


@pytest.fixture
def scripted(home: Home) -> Iterator[Callable[..., ScriptedEngine]]:
    """Starts scripted engines in ``home``: ``scripted(embed_seconds=1.0)``."""
    started: list[ScriptedEngine] = []

    def start(**script: Any) -> ScriptedEngine:
        started.append(ScriptedEngine(home, **script))
        return started[-1]

    try:
        yield start
    finally:
        for engine in started:
            engine.end()
