"""What the engine and its clients say to each other: routes, headers, limits, messages and the table of operations.

Both ends import this module. HTTP/1.1 over a Unix socket. Pixels travel as ``application/octet-stream``, everything else as JSON; an
operation that streams answers with JSON lines (NDJSON).
A failure is ``{"slug", "message", "hint"}`` with the slug of an error class in :mod:`segment_duo.errors`.

This module must not import NumPy, torch, FastAPI or requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from segment_duo.parameters import AutoParameters
from segment_duo.results import AutoResult, PredictedObject, TrackedMask
from segment_duo.types import Mask, ModelIdentity, Prompt, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import TypeAdapter

PROTOCOL_VERSION = 3
"""Raised when an old client or engine would misunderstand a new one. A mismatch makes the client restart an idle engine."""

PREFIX = "/v1"
STATUS = f"{PREFIX}/status"
MODELS = f"{PREFIX}/models"
IMAGES = f"{PREFIX}/images"
TRACKS = f"{PREFIX}/tracks"
STOP = f"{PREFIX}/stop"


def image_route(image_id: str, action: str = "") -> str:
    """``/v1/images/{id}`` or ``/v1/images/{id}/{action}``; the actions are the names of :data:`OPERATIONS`."""
    return f"{IMAGES}/{image_id}/{action}" if action else f"{IMAGES}/{image_id}"


def track_route(track: str) -> str:
    """``/v1/tracks/{id}``."""
    return f"{TRACKS}/{track}"


PROTOCOL_HEADER = "Segduo-Protocol"
SHAPE_HEADER = "Segduo-Shape"
"""Shape of uploaded pixels: ``H,W,3``, or ``H,W,1`` for grey ones (three equal channels sent once)."""
MODEL_HEADER = "Segduo-Model"
"""A :class:`ModelRequest` as JSON, for the requests that carry pixels or nothing."""
CLIENT_HEADER = "Segduo-Client"
"""Who asks, for the turns in the queue and for the status: a process, as ``node7, pid 4711``. Requests without it are one client's."""

OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"
JSON = "application/json"

MAX_JSON_BYTES = 16 * 2**20
"""Longest JSON request; 100,000 prompts need about 8 MiB."""
MAX_PROMPTS = 100_000
HEARTBEAT_SECONDS = 0.5
"""A stream is never silent for longer: so clients notice a dead link, can cancel, and the engine notices a client that went away."""

IMAGE_MISSING = "image-missing"
"""Slug of the answer that asks the client for the pixels (again). It never reaches a user."""


class ImageMissing(Exception):
    """The pixels are needed and the engine does not have them; crosses the wire as :data:`IMAGE_MISSING`, and the client sends them again."""


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


class Message(BaseModel):
    """What crosses the wire as JSON."""

    # Unknown fields are ignored, so that additions do not need a new protocol version.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ModelRequest(Message):
    """Which model a request wants.

    An empty message means the engine's own default. Paths are sent only to an engine of the same machine; an engine behind a forwarded
    socket gets the id alone and finds the model among its own.
    """

    id: str | None = None
    config: str | None = None
    checkpoint: str | None = None
    sha256: str | None = None


class ErrorMessage(Message):
    slug: str
    message: str
    hint: str = ""


class ImageState(Message):
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


class OperationRequest(Message):
    """What every operation on an image is asked with."""

    model: ModelRequest = ModelRequest()


class EmbedRequest(OperationRequest):
    """Make sure that the embedding is there."""


class PredictRequest(OperationRequest):
    """Prompts of one image, one object each. ``multimask_output`` None follows SAM's advice: three candidates for a single point, else one.

    ``preview_max_side``: masks are returned at a size whose longer side is at most this many pixels (for screens), None = image size.
    """

    prompts: list[Prompt] = Field(max_length=MAX_PROMPTS)
    multimask_output: bool | None = None
    preview_max_side: int | None = Field(None, ge=16)


class AutoRequest(OperationRequest):
    parameters: AutoParameters = AutoParameters()


class TrackPrompt(Message):
    """An :class:`~segment_duo.segmenters.tracking.ObjectPrompt` of the request's frame."""

    object_id: int = Field(ge=1)
    prompt: Prompt | None = None
    mask: Rle | None = None
    correction: bool = False


class TrackFrameRequest(OperationRequest):
    """One frame of a track; the image is the frame. Fields as in :class:`~segment_duo.segmenters.tracking.TrackStep`.

    ``track``: an id of the client's choice, 32 hexadecimal digits; the engine keeps what it remembers of the objects under it. ``frames``: how
    many there are in the sequence. ``begin``: the track is new; otherwise one that the engine does not hold is a ``track-lost`` failure. ``fast``: of
    a new track: the model may approximate.
    """

    track: str = Field(pattern="^[0-9a-f]{32}$")
    frames: int = Field(ge=1)
    frame: int = Field(ge=0)
    begin: bool = False
    fast: bool = False
    reverse: bool = False
    prompts: list[TrackPrompt] = Field([], max_length=MAX_PROMPTS)
    follow: list[int] = Field([], max_length=MAX_PROMPTS)
    known: dict[int, Rle] = Field({}, max_length=MAX_PROMPTS)


class StopRequest(Message):
    """``only_if_idle``: refuse (engine-busy) while somebody's work runs or waits."""

    only_if_idle: bool = False


class PredictResponse(Message):
    objects: list[PredictedObject]
    seconds: float
    model: ModelIdentity


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One line of a stream, whatever the operation.

    ``queued`` (``position``: jobs ahead), ``progress`` (``done`` of ``total``, in ``phase``; repeated as a heartbeat while nothing changes), an
    operation's own events, and last ``done`` or ``error``.
    """

    event: str
    position: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    error: ErrorMessage | None = None


@dataclass(frozen=True, slots=True)
class AutoEvent(StreamEvent):
    """One line of an ``auto`` stream; its own event is ``mask``. The last three fields come with ``done``."""

    mask: Mask | None = None
    notes: tuple[str, ...] = ()
    candidates_reused: bool = False
    model: ModelIdentity | None = None


@dataclass(frozen=True, slots=True)
class TrackEvent(StreamEvent):
    """One line of a ``track`` stream. The last fields come with ``done``; ``looks_back`` is that of the tracker."""

    objects: tuple[TrackedMask, ...] = ()
    looks_back: int = 0
    model: ModelIdentity | None = None


class Collector(Protocol):
    """Gathers what a stream's events bring until its ``done`` line."""

    def add(self, event: Any) -> None: ...

    def result(self, done: Any) -> Any: ...


class AutoCollector:
    """Gathers the masks of an ``auto`` stream."""

    def __init__(self) -> None:
        self._masks: list[Mask] = []

    def add(self, event: AutoEvent) -> None:
        if event.mask is not None:
            self._masks.append(event.mask)

    def result(self, done: AutoEvent) -> AutoResult:
        return AutoResult(tuple(self._masks), done.notes, done.seconds, done.candidates_reused, done.model)


class LastLine:
    """For streams whose ``done`` event is the whole result."""

    def add(self, event: StreamEvent) -> None:
        del event

    def result(self, done: Any) -> Any:
        return done


Q = TypeVar("Q", bound=OperationRequest)
A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Operation(Generic[Q, A]):
    """One thing the engine computes for an image. Its handler is the method of the same name of :class:`~segment_duo.engine.operations.Operations`.

    Attributes:
        name: of the route, of the job in the status, and of the handler.
        request: the message that asks for it.
        event: the type of its stream's lines; None for an operation that answers once.
        collector: makes what turns a stream into the result; None as above.
        answer: the message of an operation that answers once; None for one that streams.
        needs: what front ends may ask only of models that can it, a :class:`~segment_duo.segmenters.base.Capability`; empty for all.
    """

    name: str
    request: type[Q]
    answer: type[BaseModel] | None = None
    event: type[StreamEvent] | None = None
    collector: Callable[[], Collector] | None = None
    needs: str = ""

    def dump(self, event: StreamEvent) -> bytes:
        """One NDJSON line; fields that have their default are left out."""
        return _adapter(type(event)).dump_json(event, exclude_defaults=True) + b"\n"

    def load(self, line: bytes) -> Any:
        """The inverse of :meth:`dump`.

        Raises:
            pydantic.ValidationError: the line is not an event of this operation.
        """
        assert self.event is not None
        return _adapter(self.event).validate_json(line)


EMBED: Operation[EmbedRequest, ImageState] = Operation("embed", EmbedRequest, answer=ImageState)
PREDICT: Operation[PredictRequest, PredictResponse] = Operation("predict", PredictRequest, answer=PredictResponse)
AUTO: Operation[AutoRequest, AutoResult] = Operation(
    "auto", AutoRequest, event=AutoEvent, collector=AutoCollector, needs="automatic"
)

TRACK: Operation[TrackFrameRequest, TrackEvent] = Operation(
    "track", TrackFrameRequest, event=TrackEvent, collector=LastLine, needs="track"
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (EMBED, PREDICT, AUTO, TRACK)
"""The table. A new operation is a line here, a handler in ``engine.operations`` and a use case in the session."""


_adapters: dict[type[StreamEvent], TypeAdapter[Any]] = {}


def _adapter(event: type[StreamEvent]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if event not in _adapters:
        _adapters[event] = TypeAdapter(event)
    return _adapters[event]


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read a :data:`SHAPE_HEADER`.

    Raises:
        ValueError: not three positive numbers, or a channel count other than 1 or 3.
    """
    height, width, channels = (int(part) for part in text.split(","))
    if height < 1 or width < 1 or channels not in {1, 3}:
        raise ValueError(f"bad shape {text!r}")
    return height, width, channels
