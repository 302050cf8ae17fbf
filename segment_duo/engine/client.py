"""The daemon's client: asks first, uploads only what is missing, and hides restarts and evictions.

A call that loses its engine starts it again and repeats the work once; then it is EngineFailed with the end of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from segment_duo.engine import protocol
from segment_duo.engine.api import Engine
from segment_duo.engine.protocol import EMBED, A, EmbedRequest, ImageMissing, ImageState, ModelRequest, Operation, Q
from segment_duo.engine.reports import EngineStatus, ModelList, ReleaseReport
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.status import in_words
from segment_duo.engine.wire import WORK_SECONDS, ConnectionLost, Wire, parse_event, rebuilt
from segment_duo.errors import Cancelled, EngineFailed, EngineUnavailable, SegduoError
from segment_duo.lru import BoundedLru
from segment_duo.models.choice import ModelChoice

if TYPE_CHECKING:
    from segment_duo.engine.api import Pixels

T = TypeVar("T")

DOING_SECONDS = 1.0
"""For the answer of an engine that is asked what it does; it is said every few seconds."""
KEPT_IMAGES = 2
"""Uploaded images whose pixels the client keeps for a re-upload (the picture at hand and the one before it)."""


class EngineClient(Engine):
    """Speaks to an engine daemon over its socket. Made by :func:`segment_duo.engine.connect.connect`.

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
        self.wire = Wire(settings.socket)
        self._startable = startable
        self._notify = notify or (lambda _message: None)
        self._pixels_of = pixels_of
        self._kept: BoundedLru[str, Callable[[], Pixels]] = BoundedLru(KEPT_IMAGES)

    def close(self) -> None:
        self.wire.close()

    def status(self) -> EngineStatus:
        return EngineStatus.model_validate_json(self._repeated(lambda: self.wire.request("GET", protocol.STATUS)))

    def doing(self) -> str:
        from segment_duo.engine import lifecycle

        try:
            status = lifecycle.probe(self.settings, seconds=DOING_SECONDS)
        except SegduoError:
            return "it does not answer"
        return "it is being started" if status is None else in_words(status)

    def models(self) -> ModelList:
        return ModelList.model_validate_json(self._repeated(lambda: self.wire.request("GET", protocol.MODELS)))

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
        self._kept.put(known_id, source, 1)

        def ask_then_send() -> ImageState:
            state = self._state(known_id, model)
            if state.embedding is not None or (state.pixels and not embed):
                return state
            if state.pixels:
                try:
                    return self._once(EMBED, known_id, EmbedRequest(model=self.model_request(model)))
                except ImageMissing:
                    pass
            return self._upload(known_id, source(), model, embed=embed)

        return self._repeated(ask_then_send)

    def image_state(self, image_id: str, *, model: ModelChoice | None = None) -> ImageState:
        return self._repeated(lambda: self._state(image_id, model))

    def call(
        self,
        operation: Operation[Q, A],
        image_id: str,
        request: Q,
        *,
        on_event: Callable[[Any], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> A:
        def with_image() -> A:
            try:
                return self._once(operation, image_id, request, on_event, cancelled)
            except ImageMissing:
                self._upload(image_id, self._pixels(image_id), None, embed=False)
            try:
                return self._once(operation, image_id, request, on_event, cancelled)
            except ImageMissing:
                raise EngineFailed(
                    "the engine cannot keep this image in its memory",
                    "Raise memory_cache_mib in the configuration and restart it: segduo engine stop",
                ) from None

        return self._repeated(with_image)

    def model_request(self, model: ModelChoice | None) -> ModelRequest:
        if model is None:
            return ModelRequest()
        if self._startable or self.settings.own_socket:
            return ModelRequest(id=model.id, config=model.config, checkpoint=model.checkpoint, sha256=model.sha256)
        # Another machine's engine: paths mean nothing there. The hash makes sure that the weights are those that will be recorded.
        return ModelRequest(id=model.id, sha256=model.sha256)

    def release(self, image_id: str | None = None) -> ReleaseReport:
        route = protocol.IMAGES if image_id is None else protocol.image_route(image_id)
        answer = self._repeated(lambda: self.wire.request("DELETE", route))
        return ReleaseReport.model_validate_json(answer)

    @contextmanager
    def hold_track(self, track: str) -> Iterator[None]:
        def hold() -> ExitStack:
            # Opened here, so that an engine that is gone is started again.
            held = ExitStack()
            held.enter_context(self.wire.hold(protocol.track_route(track)))
            return held

        with self._repeated(hold):
            yield

    def stop(self) -> None:
        from segment_duo.engine import lifecycle

        lifecycle.stop(self.settings)

    # one attempt

    def _once(
        self,
        operation: Operation[Q, A],
        image_id: str,
        request: Q,
        on_event: Callable[[Any], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> A:
        route = protocol.image_route(image_id, operation.name)
        body = request.model_dump_json(exclude_defaults=True).encode()
        if operation.collector is None:
            assert operation.answer is not None
            sent = {"Content-Type": protocol.JSON}
            answer = self.wire.request("POST", route, data=body, headers=sent, seconds=WORK_SECONDS)
            return operation.answer.model_validate_json(answer)  # type: ignore[return-value]
        collector = operation.collector()
        with self.wire.stream(route, body) as lines:
            for line in lines:
                event = parse_event(operation, line)
                if event.event == "error":
                    raise rebuilt(event.error)  # also ImageMissing: the pixels were evicted while the job waited
                collector.add(event)
                if on_event is not None:
                    on_event(event)
                if event.event == "done":
                    return collector.result(event)  # type: ignore[no-any-return]
                if cancelled is not None and cancelled():
                    raise Cancelled("stopped on request")
        raise ConnectionLost(EOFError("the stream ended early"), working=True)

    def _state(self, image_id: str, model: ModelChoice | None) -> ImageState:
        body = self.wire.request("GET", protocol.image_route(image_id), headers=self._model_header(model))
        return ImageState.model_validate_json(body)

    def _upload(self, image_id: str, pixels: Pixels, model: ModelChoice | None, *, embed: bool) -> ImageState:
        import numpy as np

        height, width, channels = pixels.shape
        grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all())
        sent = np.ascontiguousarray(pixels[:, :, :1] if grey else pixels)
        headers = {
            protocol.SHAPE_HEADER: f"{height},{width},{1 if grey else channels}",
            "Content-Type": protocol.OCTETS,
            **self._model_header(model),
        }
        answer = self.wire.request(
            "PUT",
            protocol.image_route(image_id),
            data=sent.data.cast("B"),
            headers=headers,
            params={"embed": "true" if embed else "false"},
            seconds=WORK_SECONDS,
        )
        return ImageState.model_validate_json(answer)

    def _model_header(self, model: ModelChoice | None) -> dict[str, str]:
        return {protocol.MODEL_HEADER: self.model_request(model).model_dump_json(exclude_none=True)}

    # repeated attempts

    def _repeated(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except ConnectionLost as lost:
            self._recover(lost)
        except ImageMissing:
            raise EngineFailed("the engine does not hold this image", "Open the image again.") from None
        try:
            return attempt()
        except ConnectionLost as lost:
            raise self._dead(lost) from None
        except ImageMissing:
            raise EngineFailed("the engine does not hold this image", "Open the image again.") from None

    def _recover(self, lost: ConnectionLost) -> None:
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

    def _dead(self, lost: ConnectionLost) -> EngineFailed:

        if not self.settings.own_socket:
            # Its log is elsewhere, and more often than the engine it is the connection that ended.
            return EngineFailed(
                f"the connection to the engine on {self.settings.socket} ended",
                "Is `ssh -L` still up, and the engine alive there? Then run the command again.",
            )
        what = "the engine stopped in the middle of the work" if lost.working else "the engine went away"
        from segment_duo.engine import log_file

        tail = log_file.last_words(self.settings.log) if self._startable else ""
        message = f"{what}; the end of its log:\n{tail}" if tail else f"{what} ({lost.reason})"
        return EngineFailed(message, "`segduo engine logs` shows more. A too large image or model runs out of memory.")

    def _pixels(self, image_id: str) -> Pixels:
        source = self._kept.peek(image_id)
        pixels = source() if source is not None else self._pixels_of(image_id) if self._pixels_of else None
        if pixels is None:
            raise ImageMissing
        return pixels
