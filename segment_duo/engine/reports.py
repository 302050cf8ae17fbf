"""What an engine says of itself: its status, the models it can run, what a release freed. Messages of :mod:`segment_duo.engine.protocol`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from segment_duo.engine.protocol import ErrorMessage, Message


class ReleaseReport(Message):
    """What a release freed."""

    images: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


class CacheUse(Message):
    """Bytes used and their bound."""

    used: int = 0
    bound: int = 0
    entries: int = 0


class LoadedModel(Message):
    id: str
    sha256: str
    config: str = ""
    parameters: int = 0


class HeldImage(Message):
    """One image in the engine's memory. ``bytes``: pixels, embeddings and candidates together."""

    id: str
    width: int
    height: int
    bytes: int
    models: list[str] = Field(default_factory=list)
    candidates: bool = False
    idle_seconds: float = 0.0


class RunningJob(Message):
    """What the worker does now: ``kind`` (an operation's name) and how far it is."""

    kind: str
    image: str = ""
    model: str = ""
    client: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0


class QueuedJob(Message):
    kind: str
    image: str = ""
    model: str = ""
    client: str = ""
    seconds: float = 0.0


class RunningUpload(Message):
    """Pixels that are being received: ``received`` of ``bytes``; the last came ``silent_seconds`` ago."""

    image: str
    received: int = 0
    bytes: int = 0
    seconds: float = 0.0
    silent_seconds: float = 0.0


class EngineStatus(Message):
    """The engine's view of itself. The first four fields are the same in every protocol version.

    ``device`` is empty until torch is loaded. ``failure``: why this engine can never compute (its device is missing); it leaves in a moment.
    ``max_pixels``: the largest image it takes, 0 if it does not tell.
    """

    protocol: int
    version: str
    pid: int
    state: Literal["starting", "idle", "busy", "stopping"]
    socket: str = ""
    uptime_seconds: float = 0.0
    idle_exit_seconds: float | None = None
    device: str = ""
    device_name: str = ""
    threads: int = 0
    rss_bytes: int = 0
    models: list[LoadedModel] = Field(default_factory=list)
    images: list[HeldImage] = Field(default_factory=list)
    memory_cache: CacheUse = CacheUse()
    disk_cache: CacheUse = CacheUse()
    device_memory: CacheUse | None = None
    running: RunningJob | None = None
    queue: list[QueuedJob] = Field(default_factory=list)
    queue_limit: int = 0
    uploads: list[RunningUpload] = Field(default_factory=list)
    max_pixels: int = 0
    log: str = ""
    in_process: bool = False
    failure: ErrorMessage | None = None


class AvailableModel(Message):
    """A model the engine can run.

    ``loaded``: it is in memory now; ``default``: it runs when a request names none; ``auto_defaults``: its own parameters for automatic
    masks; ``capabilities``: what it can be asked for (:class:`~segment_duo.segmenters.base.Capability`); ``input_size``: pixels a side that
    an image is shrunk to, 0 if it is taken as it is; ``options``: what it can be told with its name, as
    :class:`~segment_duo.segmenters.base.Option` has it.
    """

    id: str
    sha256: str = ""
    description: str = ""
    loaded: bool = False
    default: bool = False
    auto_defaults: dict[str, Any] = Field(default_factory=dict)
    capabilities: list[str] = Field(default_factory=list)
    licence: str = ""
    input_size: int = 0
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)


class ModelList(Message):
    models: list[AvailableModel]
