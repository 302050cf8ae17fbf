"""What the engine and its clients say to each other: routes, headers, limits and messages. Both ends import this module.

HTTP/1.1 over a Unix socket. Pixels travel as ``application/octet-stream``, everything else as JSON; ``auto`` answers with a stream of JSON
lines (NDJSON). A failure is ``{"slug", "message", "hint"}`` with the slug of an error class in :mod:`segment_duo.errors`.

This module must not import NumPy, torch, FastAPI or requests.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segment_duo.errors import UsageError
from segment_duo.results import AutoResult, PredictedObject
from segment_duo.types import AutoParameters, Mask, ModelIdentity, Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import TypeAdapter

PROTOCOL_VERSION = 1
"""Raised when an old client or engine would misunderstand a new one. A mismatch makes the client restart an idle engine."""

PREFIX = "/v1"
STATUS = f"{PREFIX}/status"
MODELS = f"{PREFIX}/models"
IMAGES = f"{PREFIX}/images"
STOP = f"{PREFIX}/stop"


def image_route(image_id: str, action: str = "") -> str:
    """``/v1/images/{id}`` or ``/v1/images/{id}/{action}``; actions are ``predict`` and ``auto``."""
    return f"{IMAGES}/{image_id}/{action}" if action else f"{IMAGES}/{image_id}"


PROTOCOL_HEADER = "Segduo-Protocol"
SHAPE_HEADER = "Segduo-Shape"
"""Shape of uploaded pixels: ``H,W,3``, or ``H,W,1`` for grey ones (three equal channels sent once)."""
MODEL_HEADER = "Segduo-Model"
"""A :class:`ModelRequest` as JSON, for the requests that carry pixels or nothing."""

OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"

MAX_JSON_BYTES = 16 * 2**20
"""Longest JSON request; 100,000 prompts need about 8 MiB."""
MAX_PROMPTS = 100_000
HEARTBEAT_SECONDS = 0.5
"""A stream is never silent for longer: so clients notice a dead link, can cancel, and the engine notices a client that went away."""

IMAGE_MISSING = "image-missing"
"""Slug of the answer that asks the client for the pixels (again). It never reaches a user."""


def image_id(pixels: npt.NDArray[np.uint8]) -> str:
    """Identity of an image: SHA-256 (64 hexadecimal digits) over its shape and its pixels.

    Args:
        pixels: uint8, shape (H, W, 3).
    """
    import numpy as np

    height, width, channels = pixels.shape
    digest = hashlib.sha256(f"segduo-image/1 {height} {width} {channels}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class _Message(BaseModel):
    # Unknown fields are ignored, so that additions do not need a new protocol version.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ModelRequest(_Message):
    """Which model a request wants.

    An empty message means the engine's own default. Paths are sent only to an engine of the same machine; an engine behind a forwarded
    socket gets the id alone and finds the model among its own.
    """

    id: str | None = None
    config: str | None = None
    checkpoint: str | None = None
    sha256: str | None = None


class ErrorMessage(_Message):
    slug: str
    message: str
    hint: str = ""


class ImageState(_Message):
    """What the engine holds of one image for one model.

    ``embedding``: where the image embedding is, None when it would have to be computed. ``pixels``: whether the pixels are in memory.
    ``computed``: this answer is that of a request which ran the encoder.
    """

    id: str
    width: int = 0
    height: int = 0
    pixels: bool = False
    embedding: Literal["memory", "disk"] | None = None
    candidates: bool = False
    computed: bool = False
    seconds: float = 0.0
    model: ModelIdentity | None = None
    device: str = ""


class PredictRequest(_Message):
    """Prompts of one image, one object each. ``multimask`` None follows SAM's advice: three candidates for a single point, else one.

    ``preview_max_side``: masks are returned at a size whose longer side is at most this many pixels (for screens), None = image size.
    """

    prompts: list[Prompt] = Field(max_length=MAX_PROMPTS)
    model: ModelRequest = ModelRequest()
    multimask: bool | None = None
    preview_max_side: int | None = Field(None, ge=16)


class AutoRequest(_Message):
    parameters: AutoParameters = AutoParameters()
    model: ModelRequest = ModelRequest()


class StopRequest(_Message):
    """``only_if_idle``: refuse (engine-busy) while somebody's work runs or waits."""

    only_if_idle: bool = False


class PredictResponse(_Message):
    objects: list[PredictedObject]
    seconds: float
    model: ModelIdentity


@dataclass(frozen=True, slots=True)
class AutoEvent:
    """One line of an ``auto`` stream.

    ``queued`` (``position``: jobs ahead), ``progress`` (``done`` of ``total`` prompts, in ``phase``; repeated as a heartbeat while nothing
    changes), ``mask``, and last ``done`` or ``error``.
    """

    event: Literal["queued", "progress", "mask", "done", "error"]
    position: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    mask: Mask | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    candidates_reused: bool = False
    model: ModelIdentity | None = None
    error: ErrorMessage | None = None


class ReleaseReport(_Message):
    """What a release freed."""

    images: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


class CacheUse(_Message):
    """Bytes used and their bound."""

    used: int = 0
    bound: int = 0
    entries: int = 0


class LoadedModel(_Message):
    id: str
    sha256: str
    config: str = ""
    parameters: int = 0


class HeldImage(_Message):
    """One image in the engine's memory. ``bytes``: pixels, embeddings and candidates together."""

    id: str
    width: int
    height: int
    bytes: int
    models: list[str] = []
    candidates: bool = False
    idle_seconds: float = 0.0


class RunningJob(_Message):
    """What the worker does now: ``kind`` (``embed``, ``predict``, ``auto``) and how far it is."""

    kind: str
    image: str = ""
    model: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0


class QueuedJob(_Message):
    kind: str
    image: str = ""
    model: str = ""
    seconds: float = 0.0


class EngineStatus(_Message):
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
    models: list[LoadedModel] = []
    images: list[HeldImage] = []
    memory_cache: CacheUse = CacheUse()
    disk_cache: CacheUse = CacheUse()
    device_memory: CacheUse | None = None
    running: RunningJob | None = None
    queue: list[QueuedJob] = []
    queue_limit: int = 0
    max_pixels: int = 0
    log: str = ""
    in_process: bool = False
    failure: ErrorMessage | None = None


class AvailableModel(_Message):
    """A model the engine can run.

    ``loaded``: it is in memory now; ``default``: it runs when a request names none; ``auto_defaults``: its own parameters for automatic masks.
    """

    id: str
    sha256: str = ""
    description: str = ""
    loaded: bool = False
    default: bool = False
    auto_defaults: dict[str, Any] = {}


class ModelList(_Message):
    models: list[AvailableModel]


@cache
def auto_event_adapter() -> TypeAdapter[AutoEvent]:
    """Reads and writes the lines of an ``auto`` stream."""
    from pydantic import TypeAdapter

    return TypeAdapter(AutoEvent)


def dump_auto_event(event: AutoEvent) -> bytes:
    """One NDJSON line; fields that have their default are left out."""
    return auto_event_adapter().dump_json(event, exclude_defaults=True) + b"\n"


def load_auto_event(line: bytes) -> AutoEvent:
    """The inverse of :func:`dump_auto_event`.

    Raises:
        pydantic.ValidationError: the line is not an event.
    """
    return auto_event_adapter().validate_json(line)


@dataclass(frozen=True, slots=True)
class AutoCollector:
    """Gathers the masks of a stream until its ``done`` line."""

    masks: list[Mask] = field(default_factory=list)

    def result(self, done: AutoEvent) -> AutoResult:
        return AutoResult(tuple(self.masks), done.notes, done.seconds, done.candidates_reused, done.model)


def check_finite(parameters: AutoParameters) -> None:
    """Refuse what JSON cannot hold, by its option's name; the engine would only see that a number is missing.

    Raises:
        UsageError: a parameter is NaN or infinite.
    """
    for one in fields(parameters):
        value = getattr(parameters, one.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{one.name.replace('_', '-')}: {value} is not a finite number")


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read a :data:`SHAPE_HEADER`.

    Raises:
        ValueError: not three positive numbers, or a channel count other than 1 or 3.
    """
    height, width, channels = (int(part) for part in text.split(","))
    if height < 1 or width < 1 or channels not in {1, 3}:
        raise ValueError(f"bad shape {text!r}")
    return height, width, channels
