"""The engine without a daemon (``--in-process``): the same methods, the same caches on disk, computed in the calling process.

For cron jobs and machines where nothing may stay behind. The model is loaded anew by each command. torch is imported by the first job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar, cast

from segment_duo import __version__
from segment_duo.engine import protocol
from segment_duo.engine.operations import TorchCompute
from segment_duo.engine.protocol import (
    AutoCollector,
    AutoEvent,
    AutoRequest,
    AutoResult,
    EngineStatus,
    ImageState,
    ModelList,
    ModelRequest,
    PredictedObject,
    PredictRequest,
    ReleaseReport,
)
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.worker import ImageMissing, Job, JobKind
from segment_duo.errors import EngineFailed
from segment_duo.models.registry import ModelChoice
from segment_duo.types import AutoParameters, Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

T = TypeVar("T")


class InProcessEngine:
    """See :class:`segment_duo.engine.client.Engine` for the methods."""

    def __init__(self, settings: EngineSettings, *, pixels_of: Callable[[str], Pixels | None] | None = None) -> None:
        self.settings = settings
        self._compute = TorchCompute(settings)
        self._pixels_of = pixels_of
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._compute = TorchCompute(self.settings)  # the model and the images go, what is on disk stays

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
            **self._compute.status_fields(),
        )

    def models(self) -> ModelList:
        return self._compute.models()

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
        self._compute.put_pixels(known_id, array)
        request = _request(model)
        if not embed:
            return self._compute.state(known_id, request)
        return _run("embed", known_id, lambda job: self._compute.embed(job, known_id, request))

    def image_state(self, image_id: str, *, model: ModelChoice | None = None) -> ImageState:
        return self._compute.state(image_id, _request(model))

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
            prompts=list(prompts), model=_request(model), multimask=multimask, preview_max_side=preview_max_side
        )
        return self._with_pixels(
            image_id, lambda: _run("predict", image_id, lambda job: self._compute.predict(job, image_id, request))
        ).objects

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
        collector = AutoCollector()
        tell = on_event or (lambda _event: None)

        def emit(event: AutoEvent) -> None:
            if event.mask is not None:
                collector.masks.append(event.mask)
            tell(event)

        request = AutoRequest(parameters=params, model=_request(model))

        def work(job: Job) -> AutoEvent:
            return self._compute.auto(job, image_id, request, emit)

        done = self._with_pixels(
            image_id, lambda: _run("auto", image_id, work, _Watched(tell, cancelled or (lambda: False)))
        )
        tell(done)
        return collector.result(done)

    def release(self, image_id: str | None = None) -> ReleaseReport:
        return self._compute.release(image_id)

    def _with_pixels(self, image_id: str, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except ImageMissing:
            pixels = self._pixels_of(image_id) if self._pixels_of else None
        if pixels is None:
            raise EngineFailed("the engine does not hold this image", "Open the image again.")
        self._compute.put_pixels(image_id, pixels)
        return attempt()


class _Watched:
    """Passes a job's progress on as events, and asks whether to go on."""

    def __init__(self, tell: Callable[[AutoEvent], None], cancelled: Callable[[], bool]) -> None:
        self._tell = tell
        self._cancelled = cancelled

    def progress(self, job: Job) -> None:
        self._tell(AutoEvent("progress", phase=job.phase, done=job.done, total=job.total))
        if self._cancelled():
            job.cancel()


class _InlineJob(Job):
    """A job that runs in the caller's thread."""

    def __init__(self, kind: JobKind, image: str, work: Callable[[Job], object], watched: _Watched | None) -> None:
        super().__init__(kind, image, "", work)
        self._watched = watched

    def progress(self, phase: str, done: int = 0, total: int = 0) -> None:
        super().progress(phase, done, total)
        if self._watched is not None:
            self._watched.progress(self)


def _run(kind: JobKind, image: str, work: Callable[[Job], T], watched: _Watched | None = None) -> T:
    job = _InlineJob(kind, image, work, watched)
    job.run()()
    return cast(T, job.future.result())


def _request(model: ModelChoice | None) -> ModelRequest:
    if model is None:
        return ModelRequest()
    return ModelRequest(id=model.id, config=model.config, checkpoint=model.checkpoint, sha256=model.sha256)
