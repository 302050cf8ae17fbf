"""The engine's HTTP interface: reads requests, queues work, writes answers. It computes nothing itself, so that ``status`` answers at once.

GET    /v1/status                       PUT    /v1/images/{id}
GET    /v1/models                       DELETE /v1/images/{id}, /v1/images
GET    /v1/images/{id}                  POST   /v1/stop
GET    /v1/tracks/{id}                  holds a track; it goes when the connection ends
POST   /v1/images/{id}/NAME             for each operation of the table (``protocol.OPERATIONS``), some of them answered by a stream
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, cast

from fastapi import Body, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from h11 import LocalProtocolError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segment_duo import __version__
from segment_duo.engine import protocol
from segment_duo.engine.protocol import (
    A,
    EmbedRequest,
    ErrorMessage,
    ImageMissing,
    ModelRequest,
    Operation,
    Q,
    StopRequest,
    StreamEvent,
)
from segment_duo.engine.reports import EngineStatus
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.uploads import UploadLimits, Uploads
from segment_duo.engine.worker import Compute, Emit, Job, Worker, job_for
from segment_duo.errors import (
    Cancelled,
    EngineBusy,
    EngineFailed,
    InputError,
    ModelError,
    NotFound,
    SegduoError,
)

POLL_SECONDS = 0.2
"""How often an answer that is waited for looks whether its client is still there, and a stream whether there is progress."""

_HTTP_STATUS: dict[str, int] = {"not-found": 404, protocol.IMAGE_MISSING: 404, "engine-busy": 503, "cancelled": 499}
_TOO_LONG = f"the request is longer than {protocol.MAX_JSON_BYTES} bytes"
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


class EngineService:
    """The parts of a running engine, as the routes need them."""

    def __init__(
        self, settings: EngineSettings, worker: Worker, compute: Compute, limits: UploadLimits | None = None
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.compute = compute
        self.started = time.monotonic()
        self.last_used = self.started
        self.open_requests = 0
        self.stopping = False
        self.failure: SegduoError | None = None
        self.request_stop: Callable[[], None] = lambda: None
        self.uploads = Uploads(settings.config.max_pixels, limits)

    @property
    def busy(self) -> bool:
        return self.worker.busy or self.uploads.moving

    @property
    def idle_seconds(self) -> float:
        """Since the last request other than ``status``; 0 while one is open or work remains. Uploads count as long as bytes come."""
        if self.open_requests > self.uploads.open or self.worker.busy:
            return 0.0
        return time.monotonic() - max(self.last_used, self.uploads.last_moved)

    def status(self) -> EngineStatus:
        import psutil

        fields = {
            "protocol": protocol.PROTOCOL_VERSION,
            "version": __version__,
            "pid": os.getpid(),
            "state": "stopping" if self.stopping else "busy" if self.busy else "idle",
            "socket": str(self.settings.socket),
            "uptime_seconds": time.monotonic() - self.started,
            "idle_exit_seconds": max(0.0, self.settings.config.idle_minutes * 60 - self.idle_seconds),
            "rss_bytes": psutil.Process().memory_info().rss,
            "running": self.worker.running(),
            "queue": self.worker.waiting(),
            "queue_limit": self.worker.limit,
            "uploads": self.uploads.state(),
            "max_pixels": self.settings.config.max_pixels,
            "log": str(self.settings.log),
            "failure": _message(self.failure) if self.failure else None,
        }
        return EngineStatus.model_validate({**fields, **self.compute.status_fields()})


def create_app(service: EngineService) -> ASGIApp:
    """The ASGI application over a service."""
    app = FastAPI(title="segduo engine", version=__version__, docs_url=None, redoc_url=None)
    compute = service.compute

    @app.get(protocol.STATUS)
    async def status() -> Response:
        return _json(service.status())

    @app.get(protocol.MODELS)
    async def models() -> Response:
        return _json(await asyncio.to_thread(compute.models))

    @app.get(f"{protocol.IMAGES}/{{image_id}}")
    async def state(image_id: str, segduo_model: Annotated[str | None, Header()] = None) -> Response:
        _check_id(image_id)
        return _json(await asyncio.to_thread(compute.state, image_id, _model_request(segduo_model)))

    @app.put(f"{protocol.IMAGES}/{{image_id}}")
    async def upload(
        image_id: str,
        request: Request,
        embed: bool = True,
        segduo_shape: Annotated[str, Header()] = "",
        segduo_model: Annotated[str | None, Header()] = None,
    ) -> Response:
        _check_id(image_id)
        model = _model_request(segduo_model)
        announced = request.headers.get("content-length")
        compute.put_pixels(
            image_id, await service.uploads.receive(image_id, segduo_shape, announced, aiter(request.stream()))
        )
        if not embed:
            return _json(await asyncio.to_thread(compute.state, image_id, model))
        job = _submit(service, protocol.EMBED, image_id, EmbedRequest(model=model), _client(request))
        return _json(await _finish(service, request, job))

    for operation in protocol.OPERATIONS:
        app.add_api_route(
            protocol.image_route("{image_id}", operation.name), _endpoint(service, operation), methods=["POST"]
        )

    @app.delete(protocol.IMAGES)
    async def release_all() -> Response:
        return _json(await asyncio.to_thread(compute.release, None))

    @app.delete(f"{protocol.IMAGES}/{{image_id}}")
    async def release(image_id: str) -> Response:
        _check_id(image_id)
        return _json(await asyncio.to_thread(compute.release, image_id))

    @app.get(f"{protocol.TRACKS}/{{track}}")
    async def hold(track: str) -> Response:
        return StreamingResponse(_held(service, track), media_type=protocol.NDJSON)

    @app.post(protocol.STOP)
    async def stop(body: StopRequest) -> Response:
        if body.only_if_idle and service.busy:
            raise EngineBusy("the engine is working for somebody", "Try again when it is done: `segduo engine status`.")
        service.request_stop()
        return _json(service.status())

    @app.exception_handler(SegduoError)
    async def known_failure(_request: Request, error: SegduoError) -> Response:
        return _failure(error.slug, error.message, error.hint)

    @app.exception_handler(ImageMissing)
    async def image_missing(_request: Request, _error: ImageMissing) -> Response:
        return _failure(protocol.IMAGE_MISSING, "the engine does not hold this image", "Send its pixels with PUT.")

    @app.exception_handler(RequestValidationError)
    async def bad_request(_request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        return _failure(InputError.slug, f"{place}: {problem['msg']}", "docs/engine.md describes the requests.")

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: Request, error: HTTPException) -> Response:
        slug = NotFound.slug if error.status_code in {404, 405} else InputError.slug
        return _failure(slug, str(error.detail), "docs/engine.md describes the requests.", error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return _failure(Cancelled.slug, "the client went away")

    return _Gate(app, service)


class _Gate:
    """Counts what is in use (for the idle exit) and bounds the length of JSON requests before anything is parsed."""

    def __init__(self, app: ASGIApp, service: EngineService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == protocol.STATUS:
            await self._app(scope, receive, send)
            return
        limited = receive
        if scope["method"] != "PUT":
            announced = dict(scope["headers"]).get(b"content-length", b"0")
            if announced.isdigit() and int(announced) > protocol.MAX_JSON_BYTES:
                await _failure(InputError.slug, _TOO_LONG, "Split it into several.", 413)(scope, receive, send)
                return
            limited = _limited(receive)
        self._service.open_requests += 1
        try:
            await self._app(scope, limited, send)
        except LocalProtocolError:
            pass  # The body was no HTTP, so no answer can be sent any more: the server closes the connection.
        finally:
            self._service.open_requests -= 1
            self._service.last_used = time.monotonic()


def _limited(receive: Receive) -> Receive:
    received = 0

    async def read() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > protocol.MAX_JSON_BYTES:
            raise InputError(_TOO_LONG, "Split it into several.")
        return message

    return read


async def _finish(service: EngineService, request: Request, job: Job) -> Any:
    """Wait for a job; a client that goes away cancels it."""
    future = asyncio.wrap_future(job.future)
    try:
        while not future.done():
            await asyncio.wait({future}, timeout=POLL_SECONDS)
            if not future.done() and await request.is_disconnected():
                raise Cancelled("the client went away")
        return future.result()
    except Cancelled:
        if service.stopping:
            raise _stopped() from None
        raise
    finally:
        if not future.done():
            job.cancel()
            # Nobody will look at its result; without this asyncio would report it as never retrieved.
            future.add_done_callback(lambda settled: settled.cancelled() or settled.exception())


def _endpoint(service: EngineService, operation: Operation[Q, A]) -> Callable[..., Awaitable[Response]]:
    """The route of an operation: one answer, or a stream of its events. A request without required fields may be left out."""
    body_type = operation.request
    optional = not any(field.is_required() for field in body_type.model_fields.values())

    async def once(image_id: str, request: Request, body: Any = None) -> Response:
        _check_id(image_id)
        job = _submit(service, operation, image_id, body_type() if body is None else body, _client(request))
        return _json(await _finish(service, request, job))

    async def stream(image_id: str, request: Request, body: Any = None) -> Response:
        _check_id(image_id)
        service.worker.check_room()
        lines = _lines(service, operation, image_id, body_type() if body is None else body, _client(request))
        return StreamingResponse(lines, media_type=protocol.NDJSON)

    handler: Any = once if operation.event is None else stream
    handler.__name__ = operation.name
    # FastAPI reads the body's type from the signature; here it is known only from the table.
    handler.__annotations__["body"] = body_type | None if optional else body_type
    if not optional:
        handler.__defaults__ = (Body(),)
    return cast("Callable[..., Awaitable[Response]]", handler)


def _submit(
    service: EngineService, operation: Operation[Q, A], image_id: str, body: Q, client: str, emit: Emit | None = None
) -> Job:
    work = job_for(service.compute, operation, image_id, body, emit)
    return service.worker.submit(operation.name, image_id, body.model.id or "", work, client, body)


def _client(request: Request) -> str:
    return request.headers.get(protocol.CLIENT_HEADER, "")[:80]


async def _lines(
    service: EngineService, operation: Operation[Q, A], image_id: str, body: Q, client: str
) -> AsyncIterator[bytes]:
    events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    made = operation.event
    assert made is not None

    def emit(event: StreamEvent | None) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    try:
        job = _submit(service, operation, image_id, body, client, emit)
    except EngineBusy as error:
        yield operation.dump(made("error", error=_wire_error(error, service)))
        return
    job.future.add_done_callback(lambda _settled: emit(None))
    try:
        shown: tuple[Any, ...] = ()
        shown_at = 0.0
        while True:
            try:
                event = await asyncio.wait_for(events.get(), POLL_SECONDS)
            except TimeoutError:
                now = (service.worker.position(job), job.phase, job.done, job.total)
                if now != shown or time.monotonic() - shown_at >= protocol.HEARTBEAT_SECONDS:
                    shown, shown_at = now, time.monotonic()
                    yield operation.dump(_progress_event(made, *now))
                continue
            if event is None:
                break
            yield operation.dump(event)
        failure = job.future.exception()
        last = job.future.result() if failure is None else made("error", error=_wire_error(failure, service))
        yield operation.dump(last)
    finally:
        job.cancel()


async def _held(service: EngineService, track: str) -> AsyncIterator[bytes]:
    """Holds a track until the client closes the connection or dies. After the first line the track is held; the others find a dead client."""
    try:
        while not service.stopping:
            yield b"{}\n"
            await asyncio.sleep(protocol.HEARTBEAT_SECONDS)
    finally:
        service.compute.release_track(track)


def _progress_event(made: type[StreamEvent], position: int, phase: str, done: int, total: int) -> StreamEvent:
    return made("queued", position=position) if position else made("progress", phase=phase, done=done, total=total)


def _wire_error(error: BaseException, service: EngineService) -> ErrorMessage:
    if isinstance(error, ImageMissing):
        return ErrorMessage(slug=protocol.IMAGE_MISSING, message="the pixels are needed")
    known: SegduoError
    if isinstance(error, Cancelled) and service.stopping:
        known = _stopped()
    elif isinstance(error, SegduoError):
        known = error
    else:
        known = EngineFailed(f"{type(error).__name__}: {error}", "`segduo engine logs` shows where it happened.")
    return _message(known)


def _message(error: SegduoError) -> ErrorMessage:
    return ErrorMessage(slug=error.slug, message=error.message, hint=error.hint)


def _stopped() -> EngineFailed:
    return EngineFailed("the engine was stopped while it worked on this", "Run the command again.")


def _model_request(header: str | None) -> ModelRequest:
    if not header:
        return ModelRequest()
    try:
        return ModelRequest.model_validate_json(header)
    except ValidationError:
        raise ModelError(
            f"{protocol.MODEL_HEADER} is not a model request", 'Send JSON such as {"id": "nano"}.'
        ) from None


def _check_id(image_id: str) -> None:
    if not _IMAGE_ID.fullmatch(image_id):
        raise NotFound("an image id has 64 lower-case hexadecimal digits", "docs/engine.md says how to make it.")


def _json(message: BaseModel) -> Response:
    return Response(message.model_dump_json(exclude_none=True), media_type="application/json")


def _failure(slug: str, message: str, hint: str = "", status: int | None = None) -> Response:
    body = ErrorMessage(slug=slug, message=message, hint=hint)
    code = status or _HTTP_STATUS.get(slug, 500 if slug in {"internal", "engine-failed"} else 422)
    headers = {"Retry-After": "2"} if code == 503 else None
    return Response(body.model_dump_json(), status_code=code, media_type="application/json", headers=headers)
