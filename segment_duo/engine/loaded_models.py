"""The models in memory: loaded on demand through their family's plug-in, the last two kept. Knows no family of models."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.engine.device import device_memory, empty_device_cache
from segment_duo.engine.reports import CacheUse, LoadedModel
from segment_duo.errors import EngineFailed, ModelError
from segment_duo.lru import BoundedLru
from segment_duo.models.checkpoints import file_sha256
from segment_duo.models.choice import ModelChoice
from segment_duo.paths import Paths
from segment_duo.segmenters import plugins
from segment_duo.segmenters.base import DeviceMemoryFull, LoadRequest, Segmenter, unchecked
from segment_duo.types import ModelIdentity

if TYPE_CHECKING:
    import torch

KEPT_MODELS = 2
"""Loaded models: the one in use and the one before it (comparing two is common). A third is loaded in place of the older one."""

log = logging.getLogger("segduo.engine")


@dataclass(frozen=True, eq=False)
class HeldModel:
    """A loaded model and what it was loaded from."""

    choice: ModelChoice
    segmenter: Segmenter

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.choice.id, self.choice.sha256)


class LoadedModels:
    """Loads models on one device and keeps the last :data:`KEPT_MODELS`. ``load`` is for the worker's thread only."""

    def __init__(self, device: torch.device, threads: int, paths: Paths) -> None:
        self.device = device
        self.threads = threads
        self._paths = paths
        self._held: BoundedLru[tuple[str, str, str], HeldModel] = BoundedLru(KEPT_MODELS)
        self._loading = threading.Lock()

    def load(self, choice: ModelChoice, check: Callable[[], None] = unchecked) -> HeldModel:
        """The model, from memory or from its files. What ``check`` raises ends the loading.

        Raises:
            ModelError: its files are missing, damaged, or not those the request named.
            EngineFailed: not enough memory.
        """
        key = (choice.family, choice.config, choice.sha256)  # the hash tells options apart as well
        with self._loading:
            held = self._held.get(key)
            if held is not None:
                return held
            if choice.checkpoint and file_sha256(Path(choice.checkpoint), self._paths) != choice.sha256:
                raise ModelError(
                    f"{choice.checkpoint} does not have the SHA-256 of '{choice.id}'",
                    f"If it is still being written, run the command again; else: segduo models pull {choice.id}",
                )
            self._held.make_room(1)  # before the new one is built: three at once may be more than the memory holds
            started = time.monotonic()
            held = HeldModel(choice, self._build(choice, check))
            seconds = time.monotonic() - started
            log.info("loaded %s (%d parameters) in %.1f s", choice.id, held.segmenter.parameters, seconds)
            self._held.put(key, held, 1)
            return held

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the last used one last."""
        return [
            LoadedModel(
                id=held.choice.id,
                sha256=held.choice.sha256,
                config=held.choice.config,
                parameters=held.segmenter.parameters,
            )
            for _, held, *_ in self._held.items()
        ]

    def release_prepared(self) -> None:
        """Forget what the segmenters prepared for images."""
        for _, held, *_ in self._held.items():
            held.segmenter.release()

    def empty_device_cache(self) -> None:
        empty_device_cache(self.device)

    def device_memory(self) -> CacheUse | None:
        return device_memory(self.device)

    def _build(self, choice: ModelChoice, check: Callable[[], None]) -> Segmenter:
        request = LoadRequest(
            choice.name,
            choice.config,
            choice.checkpoint,
            self.device.type,
            self.threads,
            choice.options,
            check,
        )
        try:
            return plugins.load(choice.family, request)
        except DeviceMemoryFull:
            self._held.clear()
            self.empty_device_cache()
        try:
            return plugins.load(choice.family, request)
        except DeviceMemoryFull:
            raise EngineFailed(
                f"the model '{choice.id}' does not fit into the device's memory", "Use a smaller model or --device cpu."
            ) from None
