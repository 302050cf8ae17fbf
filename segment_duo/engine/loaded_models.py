"""The models in memory: chosen for a request, loaded on demand, the last two kept. torch: only the engine's process imports this module."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segment_duo.engine.protocol import CacheUse, LoadedModel
from segment_duo.errors import ConfigError, EngineFailed, ModelError
from segment_duo.models.registry import ModelChoice, file_sha256
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.types import ModelIdentity

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

KEPT_MODELS = 2
"""Loaded models: the one in use and the one before it (comparing two is common). A third is loaded in place of the older one."""

log = logging.getLogger("segduo.engine")


@dataclass(frozen=True, eq=False)
class ShelfModel:
    """A loaded model and what it was loaded from."""

    choice: ModelChoice
    predictor: Predictor
    parameters: int

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.choice.id, self.choice.sha256)


def choose_device(wanted: str) -> torch.device:
    """The device to compute on: ``cuda``, else ``mps``, else ``cpu`` for ``auto``.

    Raises:
        ConfigError: the named device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(wanted, False):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(f"this machine has no device '{wanted}'", f"Available: {there}. Use --device auto.")
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    """What the device is called by its maker."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return "Apple GPU"
    return _cpu_name()


class ModelShelf:
    """Loads models on one device and keeps the last :data:`KEPT_MODELS`. ``load`` is for the worker's thread only."""

    def __init__(self, device: torch.device, paths: Paths) -> None:
        self.device = device
        self._paths = paths
        self._loaded: OrderedDict[tuple[str, str], ShelfModel] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, choice: ModelChoice) -> ShelfModel:
        """The model, from memory or from its files.

        Raises:
            ModelError: its files are missing, damaged, or not those the request named.
            EngineFailed: not enough memory.
        """
        key = (choice.config, choice.sha256)
        with self._lock:
            held = self._loaded.get(key)
            if held is not None:
                self._loaded.move_to_end(key)
                return held
            while len(self._loaded) >= KEPT_MODELS:
                self._loaded.popitem(last=False)
        if file_sha256(Path(choice.checkpoint), self._paths) != choice.sha256:
            raise ModelError(
                f"{choice.checkpoint} does not have the SHA-256 of '{choice.id}'",
                f"If it is still being written, run the command again; else: segduo models pull {choice.id}",
            )
        started = time.monotonic()
        model = self._build(choice)
        parameters = sum(tensor.numel() for tensor in model.parameters())
        loaded = ShelfModel(choice, Predictor(model), parameters)
        log.info("loaded %s (%d parameters) in %.1f s", choice.id, parameters, time.monotonic() - started)
        with self._lock:
            self._loaded[key] = loaded
        return loaded

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the last used one last."""
        with self._lock:
            return [
                LoadedModel(id=m.choice.id, sha256=m.choice.sha256, config=m.choice.config, parameters=m.parameters)
                for m in self._loaded.values()
            ]

    def release_projections(self) -> None:
        """Forget what the predictors prepared for images."""
        with self._lock:
            models = list(self._loaded.values())
        for model in models:
            model.predictor.release()

    def empty_device_cache(self) -> None:
        """Give memory that torch holds but does not use back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def device_memory(self) -> CacheUse | None:
        """Bytes taken on the device and what it has, None on a CPU."""
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            return CacheUse(used=total - free, bound=total)
        if self.device.type == "mps":
            return CacheUse(used=torch.mps.driver_allocated_memory(), bound=torch.mps.recommended_max_memory())
        return None

    def _build(self, choice: ModelChoice) -> SAM2Base:
        try:
            return build_model(choice.config, Path(choice.checkpoint), self.device)
        except torch.OutOfMemoryError:
            with self._lock:
                self._loaded.clear()
            self.empty_device_cache()
        try:
            return build_model(choice.config, Path(choice.checkpoint), self.device)
        except torch.OutOfMemoryError:
            raise EngineFailed(
                f"the model '{choice.id}' does not fit into the device's memory", "Use a smaller model or --device cpu."
            ) from None


def _cpu_name() -> str:
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
