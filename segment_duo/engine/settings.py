"""What an engine is started with: the part of the configuration that concerns it, and the user's folders.

It crosses to the daemon as one JSON argument, visible to ``ps``: so it holds nothing secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from segment_duo.config import Config
from segment_duo.errors import ConfigError
from segment_duo.paths import MAX_SOCKET_BYTES, Paths, absolute

ENGINE_FIELDS = frozenset(
    {
        "model", "model_config_path", "checkpoint_path", "device", "threads", "idle_minutes", "memory_cache_mib", "disk_cache_mib", "max_pixels",
        "encoder_batch",
    }
)  # fmt: skip
"""The settings an engine takes from the configuration. No credentials among them."""


class EngineSettings(BaseModel):
    """Everything an engine process needs to know. All paths absolute.

    ``options`` holds the fields of :data:`ENGINE_FIELDS` that differ from their default.
    """

    model_config = ConfigDict(frozen=True)

    socket: Path
    config_dir: Path
    data_dir: Path
    cache_dir: Path
    state_dir: Path
    options: dict[str, Any] = {}

    @classmethod
    def of(cls, config: Config, paths: Paths) -> EngineSettings:
        """The settings of the engine that ``config`` names: its own socket, or the one of ``config.socket``.

        Raises:
            ConfigError: the socket's path is too long for the operating system.
        """
        socket = absolute(config.socket or paths.socket)
        check_socket_length(socket)
        return cls(
            socket=socket,
            config_dir=paths.config_dir,
            data_dir=paths.data_dir,
            cache_dir=paths.cache_dir,
            state_dir=paths.state_dir,
            options=config.model_dump(mode="json", include=set(ENGINE_FIELDS), exclude_defaults=True),
        )

    @property
    def paths(self) -> Paths:
        return Paths(self.config_dir, self.data_dir, self.cache_dir, self.state_dir)

    @property
    def config(self) -> Config:
        return Config.model_validate(self.options)

    @property
    def own_socket(self) -> bool:
        """Whether this is the user's one engine, and not another one named by its socket."""
        return self.socket == self.paths.socket

    @property
    def log(self) -> Path:
        """The log file. Engines on other sockets have their own, named after the socket."""
        if self.own_socket:
            return self.paths.engine_log
        return self.paths.engine_dir / f"{self.socket.stem}-{_short_hash(self.socket)}.log"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts the engine, from the second look until the engine answers."""
        if self.own_socket:
            return self.paths.engine_lock
        return self.paths.lock(f"{self.socket.stem}-{_short_hash(self.socket)}")


def check_socket_length(socket: Path) -> None:
    """Raise ConfigError when the operating system cannot bind or connect to a socket with this path."""
    length = len(os.fsencode(socket))
    if length > MAX_SOCKET_BYTES:
        raise ConfigError(
            f"the socket's path has {length} bytes, {MAX_SOCKET_BYTES} are possible: {socket}",
            "Name a shorter path with --socket or SEGDUO_SOCKET.",
        )


def _short_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
