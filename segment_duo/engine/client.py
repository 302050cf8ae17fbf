"""The client's side of the engine: asks first, uploads only what is missing, and hides restarts and evictions.

    engine = EngineClient.connect(config, paths)
    state = engine.ensure_image(pixels, model=choice)
    objects = engine.predict(state.id, [Prompt(points=(Point(10, 20),))], model=choice)

All methods raise classes of :mod:`segment_duo.errors` only. A call that loses its engine starts it again and repeats the work once; then
it is EngineFailed with the end of the log. Heavy imports (requests, NumPy) happen in the calls that need them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from segment_duo.engine import protocol
from segment_duo.engine.protocol import (
    AutoCollector,
    AutoEvent,
    EngineStatus,
    ImageState,
    ModelList,
    ModelRequest,
    PredictRequest,
    PredictResponse,
    ReleaseReport,
)
from segment_duo.engine.settings import EngineSettings
from segment_duo.errors import (
    Cancelled,
    EngineFailed,
    EngineUnavailable,
    ModelError,
    SegduoError,
    error_from_slug,
)
from segment_duo.models.registry import ModelChoice
from segment_duo.results import AutoResult, Candidate, PredictedObject
from segment_duo.types import AutoParameters, Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import requests

    from segment_duo.config import Config
    from segment_duo.paths import Paths

    Pixels = npt.NDArray[np.uint8]

__all__ = [
    "AutoEvent",
    "AutoResult",
    "Candidate",
    "Engine",
    "EngineClient",
    "EngineStatus",
    "ImageState",
    "PredictedObject",
    "ReleaseReport",
    "engine_model",
]

T = TypeVar("T")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
"""For requests the engine answers without computing; long, because a machine that swaps or starves is not a dead engine."""
WORK_SECONDS = 3600.0
"""For embed and predict, which may wait behind somebody's long run."""
STREAM_SILENCE_SECONDS = 120.0
"""Longest silence in a stream whose heartbeat is half a second: covers a machine that swaps."""
KEPT_IMAGES = 2
"""Uploaded images whose pixels the client keeps for a re-upload (the picture at hand and the one before it)."""
MAX_LINE_BYTES = 512 * 2**20


class Engine(Protocol):
    """What both the daemon's client and the in-process engine offer."""

    def status(self) -> EngineStatus:
        """What the engine holds and does; answers at once, also while it computes."""

    def models(self) -> ModelList:
        """The models the engine itself can run, with its default."""

    def ensure_image(
        self,
        pixels: Pixels | Callable[[], Pixels],
        *,
        image_id: str | None = None,
        model: ModelChoice | None = None,
        embed: bool = True,
    ) -> ImageState:
        """Make the engine know an image and (``embed``) its embedding; nothing travels or is computed that is there already.

        Args:
            pixels: uint8, shape (H, W, 3), or a function that returns them (called only when they must travel; needs ``image_id``).
            image_id: ``protocol.image_id(pixels)`` if known, else it is computed.
            model: None is the engine's default.
        """

    def image_state(self, image_id: str, *, model: ModelChoice | None = None) -> ImageState:
        """What the engine holds of an image; no computation. An unknown image has ``embedding`` None and ``pixels`` False."""

    def predict(
        self,
        image_id: str,
        prompts: Sequence[Prompt],
        *,
        model: ModelChoice | None = None,
        multimask: bool | None = None,
        preview_max_side: int | None = None,
    ) -> list[PredictedObject]:
        """One object for each prompt, in order; coordinates are pixels of the image as it was sent.

        Masks have the size of the image, or with ``preview_max_side`` a smaller one of the same shape (``mask.rle`` says which; ``area``
        and ``bbox`` are then in preview pixels).

        Raises:
            PromptError: a prompt without points and box, not finite, or outside of the image.
            ModelError, EngineFailed, EngineUnavailable
        """

    def auto(
        self,
        image_id: str,
        params: AutoParameters,
        *,
        model: ModelChoice | None = None,
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult:
        """All masks of an image. ``on_event`` sees every event of the stream, ``cancelled`` is asked about twice a second.

        Raises:
            Cancelled: ``cancelled`` returned True; the engine stops between decoder batches.
            UsageError: a parameter is not a finite number.
        """

    def release(self, image_id: str | None = None) -> ReleaseReport:
        """Forget one image or all: pixels, embeddings and candidates, in memory and on disk."""

    def stop(self) -> None:
        """Stop the engine."""

    def close(self) -> None:
        """Let go of connections. The engine goes on."""


def engine_model(engine: Engine, named: str | None) -> ModelChoice:
    """The model ``named`` among the engine's own, or its default: which models there are is decided by the machine the engine runs on.

    For engines named by ``--socket``; for the user's own engine ``registry.resolve_model`` gives the same answer without asking.

    Raises:
        ModelError: the engine has none of that name.
    """
    models = engine.models().models
    for model in models:
        if model.id == named or (named is None and model.default):
            return ModelChoice(
                model.id, "", "", model.sha256, "flag" if named else "configured", "", model.auto_defaults
            )
    there = ", ".join(model.id for model in models)
    raise ModelError(
        f"the engine has no model '{named}'",
        f"It has: {there}. Pull it on the engine's machine: segduo models pull {named}",
    )


class _ConnectionLost(Exception):
    """The engine went away. ``working``: after it had taken a request."""

    def __init__(self, reason: BaseException, *, working: bool) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.working = working


class _ImageMissing(Exception):
    """The engine asks for the pixels."""


class EngineClient:
    """Speaks to an engine daemon over its socket. Make one with :meth:`connect`.

    One instance may be used from several threads (each has its own connection).
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        startable: bool,
        notify: Callable[[str], None] | None = None,
        pixels_of: Callable[[str], Pixels | None] | None = None,
    ) -> None:
        """Args:
        settings: the engine's settings; its socket is spoken to.
        startable: whether this client may start (and restart) the engine; False for engines named by ``--socket``.
        notify: receives one-line messages for the user, such as that the engine died and is started again.
        pixels_of: image id to pixels, asked when the engine evicted an image that this client no longer keeps.
        """
        self.settings = settings
        self._startable = startable
        self._notify = notify or (lambda _message: None)
        self._pixels_of = pixels_of
        self._kept: OrderedDict[str, Callable[[], Pixels]] = OrderedDict()
        self._threads = threading.local()

    @classmethod
    def connect(
        cls,
        config: Config,
        paths: Paths,
        *,
        start: bool = True,
        notify: Callable[[str], None] | None = None,
        pixels_of: Callable[[str], Pixels | None] | None = None,
    ) -> Engine:
        """The engine that ``config`` asks for: a daemon (started if none answers and ``start``), another one by its socket, or one in this process.

        Raises:
            EngineUnavailable: none answers and none could be (or may be) started; holds the end of the log.
            EngineBusy: an engine of another version or on another device is working for somebody.
        """
        settings = EngineSettings.of(config, paths)
        if config.in_process:
            from segment_duo.engine.inprocess import InProcessEngine

            return InProcessEngine(settings, pixels_of=pixels_of)
        from segment_duo.engine import lifecycle

        own = config.socket is None
        if own and start:
            lifecycle.ensure_running(settings)
        else:
            lifecycle.require(settings)
        return cls(settings, startable=own and start, notify=notify, pixels_of=pixels_of)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        session = getattr(self._threads, "session", None)
        if session is not None:
            session.close()
            del self._threads.session

    def status(self) -> EngineStatus:
        return EngineStatus.model_validate_json(self._call(lambda: self._request("GET", protocol.STATUS)))

    def models(self) -> ModelList:
        return ModelList.model_validate_json(self._call(lambda: self._request("GET", protocol.MODELS)))

    def ensure_image(
        self,
        pixels: Pixels | Callable[[], Pixels],
        *,
        image_id: str | None = None,
        model: ModelChoice | None = None,
        embed: bool = True,
    ) -> ImageState:
        if callable(pixels):
            if image_id is None:
                raise TypeError("image_id is needed when pixels are given as a function")
            source = pixels
        else:
            array = pixels
            source = lambda: array  # noqa: E731
            image_id = image_id or protocol.image_id(array)
        known_id = image_id
        self._keep(known_id, source)

        def ask_then_send() -> ImageState:
            state = self._state(known_id, model)
            if state.embedding is not None or (state.pixels and not embed):
                return state
            if state.pixels:
                try:
                    body = self._request("POST", protocol.image_route(known_id, "embed"), headers=self._model(model))
                    return ImageState.model_validate_json(body)
                except _ImageMissing:
                    pass
            return self._upload(known_id, source(), model, embed=embed)

        return self._call(ask_then_send)

    def image_state(self, image_id: str, *, model: ModelChoice | None = None) -> ImageState:
        return self._call(lambda: self._state(image_id, model))

    def predict(
        self,
        image_id: str,
        prompts: Sequence[Prompt],
        *,
        model: ModelChoice | None = None,
        multimask: bool | None = None,
        preview_max_side: int | None = None,
    ) -> list[PredictedObject]:
        request = PredictRequest(
            prompts=list(prompts),
            model=self._wire_model(model),
            multimask=multimask,
            preview_max_side=preview_max_side,
        )
        body = request.model_dump_json(exclude_defaults=True).encode()
        route = protocol.image_route(image_id, "predict")
        answer = self._with_image(
            image_id,
            model,
            lambda: self._request("POST", route, data=body, json=True, seconds=WORK_SECONDS),
            embed=True,
        )
        return PredictResponse.model_validate_json(answer).objects

    def auto(
        self,
        image_id: str,
        params: AutoParameters,
        *,
        model: ModelChoice | None = None,
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult:
        protocol.check_finite(params)
        request = protocol.AutoRequest(parameters=params, model=self._wire_model(model))
        body = request.model_dump_json(exclude_defaults=True).encode()
        return self._with_image(
            image_id, model, lambda: self._auto_once(image_id, body, on_event, cancelled), embed=False
        )

    def release(self, image_id: str | None = None) -> ReleaseReport:
        route = protocol.IMAGES if image_id is None else protocol.image_route(image_id)
        answer = self._call(lambda: self._request("DELETE", route))
        return ReleaseReport.model_validate_json(answer)

    def stop(self) -> None:
        from segment_duo.engine import lifecycle

        lifecycle.stop(self.settings)

    # one attempt

    def _state(self, image_id: str, model: ModelChoice | None) -> ImageState:
        body = self._request("GET", protocol.image_route(image_id), headers=self._model(model))
        return ImageState.model_validate_json(body)

    def _upload(self, image_id: str, pixels: Pixels, model: ModelChoice | None, *, embed: bool) -> ImageState:
        import numpy as np

        height, width, channels = pixels.shape
        grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all())
        sent = np.ascontiguousarray(pixels[:, :, :1] if grey else pixels)
        headers = {
            protocol.SHAPE_HEADER: f"{height},{width},{1 if grey else channels}",
            "Content-Type": protocol.OCTETS,
            **self._model(model),
        }
        answer = self._request(
            "PUT",
            protocol.image_route(image_id),
            data=sent.data.cast("B"),
            headers=headers,
            params={"embed": "true" if embed else "false"},
            seconds=WORK_SECONDS,
        )
        return ImageState.model_validate_json(answer)

    def _auto_once(
        self,
        image_id: str,
        body: bytes,
        on_event: Callable[[AutoEvent], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> AutoResult:
        collector = AutoCollector()
        with self._stream(protocol.image_route(image_id, "auto"), body) as lines:
            for line in lines:
                event = _parse_event(line)
                if event.event == "error":
                    raise _rebuilt(event.error)  # also _ImageMissing: the pixels were evicted while the job waited
                if event.mask is not None:
                    collector.masks.append(event.mask)
                if on_event is not None:
                    on_event(event)
                if event.event == "done":
                    return collector.result(event)
                if cancelled is not None and cancelled():
                    raise Cancelled("stopped on request")
        raise _ConnectionLost(EOFError("the stream ended early"), working=True)

    # repeated attempts

    def _with_image(self, image_id: str, model: ModelChoice | None, attempt: Callable[[], T], *, embed: bool) -> T:
        def once() -> T:
            try:
                return attempt()
            except _ImageMissing:
                self._upload(image_id, self._pixels(image_id), model, embed=embed)
            try:
                return attempt()
            except _ImageMissing:
                raise EngineFailed(
                    "the engine cannot keep this image in its memory",
                    "Raise memory_cache_mib in the configuration and restart it: segduo engine stop",
                ) from None

        return self._call(once)

    def _call(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except _ConnectionLost as lost:
            self._recover(lost)
        except _ImageMissing:
            raise EngineFailed("the engine does not hold this image", "Open the image again.") from None
        try:
            return attempt()
        except _ConnectionLost as lost:
            raise self._dead(lost) from None
        except _ImageMissing:
            raise EngineFailed("the engine does not hold this image", "Open the image again.") from None

    def _recover(self, lost: _ConnectionLost) -> None:
        if not self._startable:
            if lost.working:
                raise self._dead(lost) from None
            raise EngineUnavailable(
                f"no engine answers on {self.settings.socket}", "Is it running there, and the connection still up?"
            ) from None
        from segment_duo.engine import lifecycle

        if lost.working:
            self._notify("The engine stopped in the middle of the work; starting it again.")
        self.close()
        lifecycle.ensure_running(self.settings)

    def _dead(self, lost: _ConnectionLost) -> EngineFailed:
        from segment_duo.engine import lifecycle

        if not self.settings.own_socket:
            # Its log is elsewhere, and more often than the engine it is the connection that ended.
            return EngineFailed(
                f"the connection to the engine on {self.settings.socket} ended",
                "Is `ssh -L` still up, and the engine alive there? Then run the command again.",
            )
        what = "the engine stopped in the middle of the work" if lost.working else "the engine went away"
        tail = lifecycle.log_tail(self.settings.log) if self._startable else ""
        message = f"{what}; the end of its log:\n{tail}" if tail else f"{what} ({lost.reason})"
        return EngineFailed(message, "`segduo engine logs` shows more. A too large image or model runs out of memory.")

    def _keep(self, image_id: str, source: Callable[[], Pixels]) -> None:
        self._kept[image_id] = source
        self._kept.move_to_end(image_id)
        while len(self._kept) > KEPT_IMAGES:
            self._kept.popitem(last=False)

    def _pixels(self, image_id: str) -> Pixels:
        source = self._kept.get(image_id)
        pixels = source() if source is not None else self._pixels_of(image_id) if self._pixels_of else None
        if pixels is None:
            raise _ImageMissing
        return pixels

    # the wire

    def _wire_model(self, model: ModelChoice | None) -> ModelRequest:
        if model is None:
            return ModelRequest()
        if self._startable or self.settings.own_socket:
            return ModelRequest(id=model.id, config=model.config, checkpoint=model.checkpoint, sha256=model.sha256)
        # Another machine's engine: paths mean nothing there. The hash makes sure that the weights are those that will be recorded.
        return ModelRequest(id=model.id, sha256=model.sha256)

    def _model(self, model: ModelChoice | None) -> dict[str, str]:
        return {protocol.MODEL_HEADER: self._wire_model(model).model_dump_json(exclude_none=True)}

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            import requests_unixsocket

            session = requests_unixsocket.Session()
            session.trust_env = False  # no proxy and no .netrc between us and our own socket
            session.headers[protocol.PROTOCOL_HEADER] = str(protocol.PROTOCOL_VERSION)
            self._threads.session = session
        return session

    def _address(self, route: str) -> str:
        from urllib.parse import quote

        return f"http+unix://{quote(str(self.settings.socket), safe='')}{route}"

    def _request(
        self,
        method: str,
        route: str,
        *,
        data: Any = None,
        json: bool = False,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> bytes:
        sent = dict(headers or {})
        if json:
            sent["Content-Type"] = "application/json"
        with _lost_connections():
            response = self._session().request(
                method,
                self._address(route),
                data=data,
                headers=sent,
                params=params,
                timeout=(CONNECT_SECONDS, WORK_SECONDS if method == "POST" else seconds),
                allow_redirects=False,
            )
            _raise_for(response)
            return response.content

    @contextmanager
    def _stream(self, route: str, body: bytes) -> Iterator[Iterator[bytes]]:
        with _lost_connections():
            response = self._session().post(
                self._address(route),
                data=body,
                headers={"Content-Type": "application/json", "Accept": protocol.NDJSON},
                stream=True,
                timeout=(CONNECT_SECONDS, STREAM_SILENCE_SECONDS),
                allow_redirects=False,
            )
        # Not under _lost_connections: an OSError of the caller (a closed pipe) is none of the engine's.
        try:
            with _lost_connections():
                _raise_for(response)
            yield _lines(response)
        finally:
            # Closing a stream that is not at its end closes the connection: the engine sees it and cancels.
            response.close()


def _lines(response: requests.Response) -> Iterator[bytes]:
    pending = bytearray()
    chunks = response.iter_content(chunk_size=2**16)
    while True:
        with _lost_connections():
            chunk = next(chunks, None)
        if chunk is None:
            return
        pending += chunk
        if len(pending) > MAX_LINE_BYTES:
            raise EngineFailed("the engine's answer is not what was expected: an endless line")
        *lines, pending = pending.split(b"\n")
        yield from (bytes(line) for line in lines if line)


def _parse_event(line: bytes) -> AutoEvent:
    from pydantic import ValidationError

    try:
        return protocol.load_auto_event(line)
    except ValidationError:
        raise EngineFailed(
            "the engine's answer is not what was expected", "Restart it with `segduo engine stop`."
        ) from None


def _rebuilt(message: protocol.ErrorMessage | None) -> SegduoError | _ImageMissing:
    if message is None:
        return EngineFailed("the engine failed without saying why", "`segduo engine logs` may tell more.")
    if message.slug == protocol.IMAGE_MISSING:
        return _ImageMissing()
    return error_from_slug(message.slug, message.message, message.hint)


def _raise_for(response: requests.Response) -> None:
    if response.status_code < 400:
        return
    from pydantic import ValidationError

    try:
        message = protocol.ErrorMessage.model_validate_json(response.content)
    except ValidationError:
        raise EngineFailed(
            f"the engine answered HTTP {response.status_code} without saying why", "`segduo engine logs` may tell more."
        ) from None
    raise _rebuilt(message)


@contextmanager
def _lost_connections() -> Iterator[None]:
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.Timeout as error:
        raise EngineFailed(
            f"the engine does not answer: {error}", "`segduo engine status` and `segduo engine stop` help."
        ) from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _ConnectionLost(error, working=not _refused(error)) from None


def _refused(error: BaseException) -> bool:
    """Whether nobody listens on the socket (the causes hide in arguments and contexts)."""
    seen: list[BaseException] = [error]
    for one in seen:
        if isinstance(one, ConnectionRefusedError | FileNotFoundError):
            return True
        nested = [*one.args, one.__cause__, one.__context__]
        seen.extend(inner for inner in nested if isinstance(inner, BaseException) and inner not in seen)
    return False
