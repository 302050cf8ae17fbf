"""The engine without a daemon (``--in-process``): the same operations, the same caches on disk, computed in the calling process.

For cron jobs and machines where nothing may stay behind. The model is loaded anew by each command. torch is imported by the first job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from segment_duo import __version__
from segment_duo.engine import protocol
from segment_duo.engine.api import Engine
from segment_duo.engine.operations import Operations
from segment_duo.engine.protocol import (
    EMBED,
    A,
    EmbedRequest,
    ImageMissing,
    ImageState,
    ModelRequest,
    Operation,
    Q,
    StreamEvent,
)
from segment_duo.engine.reports import EngineStatus, ModelList, ReleaseReport
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.status import far
from segment_duo.engine.worker import Job, job_for
from segment_duo.errors import EngineFailed
from segment_duo.models.choice import ModelChoice

if TYPE_CHECKING:
    from segment_duo.engine.api import Pixels

T = TypeVar("T")


class InProcessEngine(Engine):
    """Computes in the thread that calls."""

    def __init__(self, settings: EngineSettings, *, pixels_of: Callable[[str], Pixels | None] | None = None) -> None:
        self.settings = settings
        self._operations = Operations(settings)
        self._pixels_of = pixels_of
        self._started = time.monotonic()
        self._job: Job | None = None

    def close(self) -> None:
        self._operations = Operations(self.settings)  # the model and the images go, what is on disk stays

    def stop(self) -> None:
        self.close()

    def status(self) -> EngineStatus:
        import psutil

        return EngineStatus(
            protocol=protocol.PROTOCOL_VERSION,
            version=__version__,
            pid=os.getpid(),
            state="idle",
            uptime_seconds=time.monotonic() - self._started,
            rss_bytes=psutil.Process().memory_info().rss,
            in_process=True,
            **self._operations.status_fields(),
        )

    def doing(self) -> str:
        job = self._job
        return (
            "it begins, in this process" if job is None else far(job.kind, job.phase, job.done, job.total, job.seconds)
        )

    def models(self) -> ModelList:
        return self._operations.models()

    def ensure_image(
        self,
        pixels: Pixels | Callable[[], Pixels],
        *,
        image_id: str | None = None,
        model: ModelChoice | None = None,
        embed: bool = True,
    ) -> ImageState:
        if callable(pixels) and image_id is None:
            raise TypeError("image_id is needed when pixels are given as a function")
        array = pixels() if callable(pixels) else pixels
        known_id = image_id or protocol.image_id(array)
        self._operations.put_pixels(known_id, array)
        request = EmbedRequest(model=self.model_request(model))
        return self.call(EMBED, known_id, request) if embed else self._operations.state(known_id, request.model)

    def image_state(self, image_id: str, *, model: ModelChoice | None = None) -> ImageState:
        return self._operations.state(image_id, self.model_request(model))

    def call(
        self,
        operation: Operation[Q, A],
        image_id: str,
        request: Q,
        *,
        on_event: Callable[[Any], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> A:
        def once() -> A:
            if operation.collector is None or operation.event is None:
                return cast("A", self._run(_InlineJob(operation.name, image_id, work(None))))
            collector, tell = operation.collector(), on_event or _unheard

            def emit(event: StreamEvent) -> None:
                collector.add(event)
                tell(event)

            def follow(job: Job) -> None:
                tell(made("progress", phase=job.phase, done=job.done, total=job.total))
                if cancelled is not None and cancelled():
                    job.cancel()

            made = operation.event
            done = self._run(_InlineJob(operation.name, image_id, work(emit), follow, cancelled))
            tell(done)
            return cast("A", collector.result(done))

        def work(emit: Callable[[StreamEvent], None] | None) -> Callable[[Job], Any]:
            return job_for(self._operations, operation, image_id, request, emit)

        return self._with_pixels(image_id, once)

    def model_request(self, model: ModelChoice | None) -> ModelRequest:
        if model is None:
            return ModelRequest()
        return ModelRequest(id=model.id, config=model.config, checkpoint=model.checkpoint, sha256=model.sha256)

    def release(self, image_id: str | None = None) -> ReleaseReport:
        return self._operations.release(image_id)

    def _run(self, job: Job) -> Any:
        self._job = job
        job.run()()
        return job.future.result()

    @contextmanager
    def hold_track(self, track: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._operations.release_track(track)

    def _with_pixels(self, image_id: str, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except ImageMissing:
            pixels = self._pixels_of(image_id) if self._pixels_of else None
        if pixels is None:
            raise EngineFailed("the engine does not hold this image", "Open the image again.")
        self._operations.put_pixels(image_id, pixels)
        return attempt()


class _InlineJob(Job):
    """A job that runs in the caller's thread; ``follow`` is told of its progress, ``asked`` says whether to stop."""

    def __init__(
        self,
        kind: str,
        image: str,
        work: Callable[[Job], object],
        follow: Callable[[Job], None] | None = None,
        asked: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(kind, image, "", work)
        self._follow = follow
        self._asked = asked

    def check(self) -> None:
        if self._asked is not None and self._asked():
            self.cancel()
        super().check()

    def progress(self, phase: str, done: int = 0, total: int = 0) -> None:
        super().progress(phase, done, total)
        if self._follow is not None:
            self._follow(self)


def _unheard(_event: object) -> None:
    """Nobody follows the stream."""
