"""Images that wait go through the encoder together where the model's device gains from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segment_duo.engine.operations import Operations
from segment_duo.engine.protocol import AUTO, EMBED, PREDICT, AutoRequest, EmbedRequest, ModelRequest, PredictRequest
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.worker import Job, Worker, job_for
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.types import Point, Prompt

SIZES = ((40, 60), (64, 64), (100, 30), (70, 90))
IMAGES = {
    f"{number:064x}": np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    for number, size in enumerate(SIZES)
}
NANO = ModelRequest(id="nano")


class Engine:
    """Operations behind a worker, without a server; the worker is held until :meth:`go`."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, batch: int | None) -> None:
        paths = Paths(*(home / name for name in ("config", "data", "cache", "state")))
        options: dict[str, Any] = {"device": "cpu", "disk_cache_mib": 0} | ({"encoder_batch": batch} if batch else {})
        self.operations = Operations(
            EngineSettings(
                socket=home / "s", config_dir=paths.config_dir, data_dir=paths.data_dir, cache_dir=paths.cache_dir,
                state_dir=paths.state_dir, options=options,
            )
        )  # fmt: skip
        self.encoded: list[int] = []
        encode = Predictor._encode

        def counted(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Sam2Embedding]:
            self.encoded.append(len(images))
            return encode(predictor, images)

        monkeypatch.setattr(Predictor, "_encode", counted)
        self._gate, begun = threading.Event(), threading.Event()
        self.worker = Worker()
        self.worker.start()
        self.worker.submit("embed", "", "", lambda _: (begun.set(), self._gate.wait(120)))
        assert begun.wait(60)
        for image, pixels in IMAGES.items():
            self.operations.put_pixels(image, pixels)

    def ask(self, operation: Any, image: str, request: Any) -> Job:
        work = job_for(self.operations, operation, image, request, lambda _: None)
        return self.worker.submit(operation.name, image, "", work, "client", request)

    def go(self, *jobs: Job) -> list[Any]:
        self._gate.set()
        found = [job.future.result(240) for job in jobs]
        assert self.worker.close(seconds=60)
        return found

    def embedding(self, image: str) -> dict[str, np.ndarray]:
        choice = self.operations._choose(NANO)
        held = self.operations._cache.get(self.operations._key(image, choice), Sam2Embedding.from_arrays)
        assert held is not None
        return held.to_arrays()


def test_waiting_images_are_encoded_together_and_come_out_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    for batch in (None, 3):
        engine = Engine(tmp_path / str(batch), monkeypatch, batch)
        states = engine.go(*(engine.ask(EMBED, image, EmbedRequest(model=NANO)) for image in IMAGES))
        assert engine.encoded == ([1, 1, 1, 1] if batch is None else [3, 1])
        assert [state.embedding for state in states] == ["memory"] * 4
        made[batch] = {image: engine.embedding(image) for image in IMAGES}
        monkeypatch.undo()
    for image in IMAGES:
        single, together = made[None][image], made[3][image]
        assert single.keys() == together.keys()
        for name, values in single.items():
            np.testing.assert_allclose(together[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
            assert values.shape == together[name].shape


def test_what_is_no_embedding_ends_a_batch_and_automatic_masks_are_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path, monkeypatch, 4)
    one, two, three, four = IMAGES
    few = AutoParameters(points_per_side=2)
    click = PredictRequest(model=NANO, prompts=(Prompt((Point(10, 10),)),))
    jobs = [
        engine.ask(AUTO, one, AutoRequest(model=NANO, parameters=few)),
        engine.ask(EMBED, one, EmbedRequest(model=NANO)),
        engine.ask(EMBED, two, EmbedRequest(model=NANO)),
        engine.ask(PREDICT, two, click),
        engine.ask(EMBED, three, EmbedRequest(model=NANO)),
        engine.ask(AUTO, four, AutoRequest(model=NANO, parameters=few)),
    ]
    engine.go(*jobs)
    assert engine.encoded == [2, 2]


def test_a_batch_that_the_memory_does_not_hold_goes_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path, monkeypatch, 4)
    counted = Predictor._encode

    def tight(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Sam2Embedding]:
        if len(images) > 1:
            raise torch.OutOfMemoryError
        return counted(predictor, images)

    monkeypatch.setattr(Predictor, "_encode", tight)
    engine.go(*(engine.ask(EMBED, image, EmbedRequest(model=NANO)) for image in IMAGES))
    assert engine.encoded == [1, 1, 1, 1]
