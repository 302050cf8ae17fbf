"""An engine process whose computing is scripted: how long jobs take and how they fail. Everything else is the real server.

    python -m tests.scripted_engine --settings JSON SCRIPT

SCRIPT is a JSON object: ``embed_seconds``, ``predict_seconds``, ``batches`` and ``batch_seconds`` (auto), ``die_in`` (``embed``, ``predict`` or
``auto``: the process ends as if killed), ``fail_in`` (raises), ``keep`` (images kept), ``version``, ``protocol`` and ``device`` (what status
claims), ``ignore_stop``, ``own_socket_seconds``, ``cannot_prepare`` (what is wrong with the device).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from segment_duo.engine import protocol, reports, routes, server
from segment_duo.engine.protocol import AutoEvent, ImageMissing, ImageState, PredictResponse
from segment_duo.engine.reports import ReleaseReport
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.worker import Job
from segment_duo.errors import ConfigError
from segment_duo.results import Candidate, PredictedObject
from segment_duo.types import Mask, ModelIdentity, Rle

IDENTITY = ModelIdentity("scripted", "0" * 64)


def mask_at(x: float, y: float) -> Mask:
    return Mask(Rle(10, 20, "abc"), 7, (x, y, 1.0, 1.0), predicted_iou=0.9, stability_score=0.95)


class ScriptedCompute:
    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        self.pixels: OrderedDict[str, np.ndarray] = OrderedDict()
        self.embedded: set[str] = set()
        self.predicted = 0

    def _maybe_end(self, kind: str, job: Job) -> None:
        if self.script.get("die_in") == kind:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.script.get("fail_in") == kind:
            raise RuntimeError("a scripted \x1b[31mfailure")

    def handler(self, operation: protocol.Operation[Any, Any]) -> Callable[..., Any]:
        return getattr(self, operation.name)  # type: ignore[no-any-return]

    def prepare(self) -> None:
        if "cannot_prepare" in self.script:
            raise ConfigError(self.script["cannot_prepare"], "Use another.")

    def state(self, image_id: str, model: Any) -> ImageState:
        held = self.pixels.get(image_id)
        embedding = "memory" if image_id in self.embedded else None
        if held is None:
            return ImageState(id=image_id)
        return ImageState(
            id=image_id, width=held.shape[1], height=held.shape[0], pixels=True, embedding=embedding, model=IDENTITY
        )

    def put_pixels(self, image_id: str, pixels: np.ndarray) -> None:
        self.pixels[image_id] = pixels
        while len(self.pixels) > self.script.get("keep", 100):
            gone, _ = self.pixels.popitem(last=False)
            self.embedded.discard(gone)

    def embed(self, job: Job, image_id: str, request: protocol.EmbedRequest) -> ImageState:
        self._maybe_end("embed", job)
        if image_id not in self.pixels:
            raise ImageMissing
        job.progress("encoder")
        _work(job, self.script.get("embed_seconds", 0))
        self.embedded.add(image_id)
        return self.state(image_id, request.model).model_copy(update={"computed": True})

    def predict(self, job: Job, image_id: str, request: protocol.PredictRequest) -> PredictResponse:
        self._maybe_end("predict", job)
        if image_id not in self.pixels:
            raise ImageMissing
        if "predict_gate" in self.script:
            self.script["predict_gate"].wait(60)
        _work(job, self.script.get("predict_seconds", 0))
        self.predicted += 1
        objects = [
            PredictedObject(prompt.object_id, (Candidate(mask_at(prompt.points[0].x, prompt.points[0].y), "h1"),))
            for prompt in request.prompts
        ]
        return PredictResponse(objects=objects, seconds=0.0, model=IDENTITY)

    def auto(self, job: Job, image_id: str, request: protocol.AutoRequest) -> AutoEvent:
        self._maybe_end("auto", job)
        if image_id not in self.pixels:
            raise ImageMissing
        batches = self.script.get("batches", 3)
        for number in range(batches):
            job.check()
            job.progress("points", number, batches)
            time.sleep(self.script.get("batch_seconds", 0))
            job.emit(AutoEvent("mask", mask=mask_at(number, number)))
        return AutoEvent("done", seconds=1.0, notes=("scripted",), model=IDENTITY)

    def release(self, image_id: str | None) -> ReleaseReport:
        ids = list(self.pixels) if image_id is None else [image_id] if image_id in self.pixels else []
        freed = sum(int(self.pixels.pop(one).nbytes) for one in ids)
        self.embedded.difference_update(ids)
        return ReleaseReport(images=len(ids), memory_bytes=freed)

    def release_track(self, track: str) -> None:
        pass

    def models(self) -> reports.ModelList:
        only = reports.AvailableModel(id="scripted", default=True, auto_defaults={"points_per_side": 8})
        return reports.ModelList(models=[only])

    def status_fields(self) -> dict[str, Any]:
        claimed: dict[str, Any] = {
            name: self.script[name] for name in ("version", "protocol", "device") if name in self.script
        }
        if "cannot_prepare" in self.script:
            return claimed
        return {"device": "cpu", "device_name": "scripted", **claimed}

    def trim(self) -> None:
        pass


def _work(job: Job, seconds: float) -> None:
    # Like an encoder pass: deaf to cancellation until it is over.
    time.sleep(seconds)
    job.check()


def main() -> int:
    settings = EngineSettings.model_validate_json(sys.argv[2])
    script = json.loads(sys.argv[3])
    server.OWN_SOCKET_SECONDS = script.get("own_socket_seconds", server.OWN_SOCKET_SECONDS)
    if script.get("ignore_stop"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deaf = property(lambda self: lambda: None, lambda self, value: None)
        routes.EngineService.request_stop = deaf  # type: ignore[assignment]
    server.serve(settings, lambda _settings: ScriptedCompute(script))
    return 0


if __name__ == "__main__":
    sys.exit(main())
