"""A session's way to the engine: which model its requests name, and the engine itself, connected when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segment_duo.errors import EngineUnavailable
from segment_duo.waiting import STILL_WAITING, StillWaiting

if TYPE_CHECKING:
    from segment_duo.config import Config
    from segment_duo.engine.api import Engine, Pixels
    from segment_duo.models.choice import ModelChoice
    from segment_duo.paths import Paths


class EngineLink:
    """Usable from several threads."""

    def __init__(
        self,
        config: Config,
        paths: Paths,
        waiting: StillWaiting,
        *,
        notify: Callable[[str], None] | None,
        pixels_of: Callable[[str], Pixels | None],
    ) -> None:
        """Args:
        waiting: tells the user that the engine is waited for.
        notify: receives one-line messages, such as that the engine died and is started again.
        pixels_of: gives the pixels of an image again, by its id, when an engine asks for them.
        """
        self._config, self._paths, self._waiting = config, paths, waiting
        self._notify, self._pixels_of = notify, pixels_of
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._model: ModelChoice | None = None

    @property
    def model(self) -> ModelChoice:
        """The model that requests name."""
        with self._lock:
            if self._model is None and self._config.socket is not None:
                from segment_duo.engine.api import engine_model

                # Which models there are is decided by the machine that the named engine runs on.
                self._model = engine_model(self.engine(), self._config.model)
            elif self._model is None:
                from segment_duo.models.registry import resolve_model

                self._model = resolve_model(self._config, self._paths)
            return self._model

    def engine(self) -> Engine:
        """The engine, started when none answers."""
        with self._lock:
            if self._engine is None:
                from segment_duo.engine.connect import connect

                with self._waiting.during(lambda: f"{STILL_WAITING} the engine to start"):
                    self._engine = connect(self._config, self._paths, notify=self._notify, pixels_of=self._pixels_of)
            return self._engine

    @contextmanager
    def at_work(self) -> Iterator[Engine]:
        """The engine, while it is waited for."""
        engine = self.engine()
        with self._waiting.during(lambda: f"{STILL_WAITING} the engine: {engine.doing()}"):
            yield engine

    def running(self) -> Engine | None:
        """The engine that runs already, None when none does. Starts nothing."""
        if self._engine is not None:
            return self._engine
        from segment_duo.engine.connect import connect

        try:
            return connect(self._config, self._paths, start=False)
        except EngineUnavailable:
            return None
