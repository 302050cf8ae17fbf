"""The engine as a whole: real process, real computing, real caches; and its HTTP interface as any language would use it."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import numpy as np
import pytest

from segment_duo.config import Config
from segment_duo.engine import lifecycle, log_file, protocol
from segment_duo.engine.cache import EmbeddingKey
from segment_duo.engine.client import EngineClient
from segment_duo.engine.connect import connect
from segment_duo.engine.protocol import AutoEvent
from segment_duo.engine.reports import EngineStatus
from segment_duo.errors import ConfigError, EngineFailed, ModelError, PromptError
from segment_duo.models.choice import ModelChoice
from segment_duo.parameters import AutoParameters
from segment_duo.types import Box, Point, Prompt
from tests.engine_fixtures import (  # noqa: F401
    Home,
    ThreadedEngine,
    home,
    random_model,
    real_engine,
    real_model,
    threaded,
    usable_model,
)

AUTO = AutoParameters(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=0.5)


def discs(height: int = 120, width: int = 160) -> np.ndarray:
    """Bright discs on a dark ground."""
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width), 60, dtype=np.uint8)
    for cx, cy, radius in ((40, 40, 22), (110, 50, 26), (70, 95, 16)):
        picture[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = 200
    noise = np.random.default_rng(0).integers(0, 20, picture.shape, dtype=np.uint8)
    return np.repeat((picture + noise)[:, :, None], 3, axis=2)


@pytest.fixture(scope="session")
def client(real_engine: Home) -> EngineClient:
    return real_engine.connect()


@pytest.fixture(scope="session")
def image(client: EngineClient, real_model: ModelChoice) -> str:
    return client.ensure_image(discs(), model=real_model).id


class TestPredict:
    def test_single_point_gives_three_candidates_best_first(
        self, client: EngineClient, image: str, real_model: ModelChoice
    ) -> None:
        (found,) = client.predict(image, [Prompt(points=(Point(40, 40),), object_id="left")], model=real_model)
        assert found.object_id == "left"
        scores = [candidate.predicted_iou or 0.0 for candidate in found.candidates]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        mask = found.best.mask
        assert (mask.rle.width, mask.rle.height, mask.source) == (160, 120, "prompt")
        assert mask.point_coords == ((40.0, 40.0),)
        assert 0 <= (found.best.stability_score or 0.0) <= 1

    def test_several_objects_in_one_request(self, client: EngineClient, image: str, real_model: ModelChoice) -> None:
        prompts = [
            Prompt(points=(Point(40, 40), Point(5, 5, 0)), object_id="a"),
            Prompt(box=Box(80, 20, 140, 80), object_id="b"),
            Prompt(points=(Point(70, 95),), object_id="c"),
        ]
        found = client.predict(image, prompts, model=real_model)
        assert [one.object_id for one in found] == ["a", "b", "c"]
        assert [len(one.candidates) for one in found] == [1, 1, 3]
        single = client.predict(image, prompts, model=real_model, multimask_output=False)
        assert [len(one.candidates) for one in single] == [1, 1, 1]

    def test_logits_refine_and_lost_ones_are_said(
        self, client: EngineClient, image: str, real_model: ModelChoice
    ) -> None:
        first = client.predict(image, [Prompt(points=(Point(110, 50),))], model=real_model)[0].best
        points = (Point(110, 50), Point(120, 60))
        plain, refined, lost = client.predict(
            image,
            [
                Prompt(points=points),
                Prompt(points=points, mask_input=first.logits),
                Prompt(points=points, mask_input="0" * 16),
            ],
            model=real_model,
        )
        assert (plain.mask_input_lost, refined.mask_input_lost, lost.mask_input_lost) == (False, False, True)
        assert lost.best.mask.rle == plain.best.mask.rle
        assert lost.best.predicted_iou == pytest.approx(plain.best.predicted_iou)  # their places in the batch differ
        assert refined.best.predicted_iou != pytest.approx(plain.best.predicted_iou)

    def test_logits_of_another_image_are_not_used(
        self, client: EngineClient, image: str, real_model: ModelChoice
    ) -> None:
        handle = client.predict(image, [Prompt(points=(Point(40, 40),))], model=real_model)[0].best.logits
        other = client.ensure_image(discs(100, 100), model=real_model).id
        (found,) = client.predict(other, [Prompt(points=(Point(40, 40),), mask_input=handle)], model=real_model)
        assert found.mask_input_lost

    def test_preview_is_small(self, client: EngineClient, image: str, real_model: ModelChoice) -> None:
        (found,) = client.predict(image, [Prompt(points=(Point(40, 40),))], model=real_model, preview_max_side=80)
        assert (found.best.mask.rle.width, found.best.mask.rle.height) == (80, 60)

    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            (Prompt(), "needs a point or a box"),
            (Prompt(points=(Point(160, 5),)), "outside the image"),
            (Prompt(points=(Point(-1, 5),)), "outside the image"),
            (Prompt(box=Box(5, 5, 5, 9)), "not inside the image"),
            (Prompt(box=Box(5, 5, 500, 9)), "not inside the image"),
        ],
    )
    def test_impossible_prompts(
        self, client: EngineClient, image: str, real_model: ModelChoice, prompt: Prompt, words: str
    ) -> None:
        with pytest.raises(PromptError, match=words):
            client.predict(image, [prompt], model=real_model)


class TestAuto:
    def test_streams_and_answers_other_thresholds_without_decoding(
        self, client: EngineClient, image: str, real_model: ModelChoice
    ) -> None:
        events: list[AutoEvent] = []
        first = client.auto(image, AUTO, model=real_model, on_event=events.append)
        assert not first.candidates_reused
        assert len(first.masks) > 0
        assert [mask.id for mask in first.masks] == list(range(len(first.masks)))
        assert first.model is not None
        assert first.model.weights_sha256 == real_model.sha256
        assert [event.event for event in events][-len(first.masks) - 1 :] == ["mask"] * len(first.masks) + ["done"]
        stricter = dataclasses.replace(AUTO, box_nms_thresh=0.1)
        second = client.auto(image, stricter, model=real_model)
        assert second.candidates_reused
        assert len(second.masks) <= len(first.masks)
        again = client.auto(image, AUTO, model=real_model)
        assert again.masks == first.masks
        assert client.image_state(image, model=real_model).candidates

    def test_crops_keep_their_embeddings(self, client: EngineClient, image: str, real_model: ModelChoice) -> None:
        before = client.status().disk_cache.entries
        small = dataclasses.replace(AUTO, points_per_side=1, crop_n_layers=1)
        crops = {mask.crop_box for mask in client.auto(image, small, model=real_model).masks}
        assert len(crops) > 1
        assert client.status().disk_cache.entries == before + 4


class TestStatusAndRelease:
    def test_status_tells_what_is_held(self, client: EngineClient, image: str, real_model: ModelChoice) -> None:
        status = client.status()
        assert (status.device, status.threads, status.state) == ("cpu", 1, "idle")
        assert real_model.sha256 in [model.sha256 for model in status.models]
        held = {one.id: one for one in status.images}[image]
        assert (held.width, held.height) == (160, 120)
        assert held.bytes > 160 * 120 * 3
        assert real_model.id in held.models
        assert 0 < status.memory_cache.used < status.memory_cache.bound
        assert 0 < status.disk_cache.used < status.disk_cache.bound
        assert status.rss_bytes > 2**26

    def test_release_of_one_image(self, client: EngineClient, real_model: ModelChoice) -> None:
        state = client.ensure_image(discs(64, 64), model=real_model)
        freed = client.release(state.id)
        assert freed.images == 1
        assert freed.memory_bytes > 64 * 64 * 3
        assert freed.disk_bytes > 0
        gone = client.image_state(state.id, model=real_model)
        assert (gone.embedding, gone.pixels) == (None, False)
        assert client.release(state.id).images == 0

    def test_work_is_logged_as_it_begins(
        self, client: EngineClient, image: str, real_engine: Home, real_model: ModelChoice
    ) -> None:
        client.ensure_image(discs(72, 80), model=real_model)
        client.predict(image, [Prompt(points=(Point(40, 40),))], model=real_model)
        client.auto(image, AUTO, model=real_model)
        tail = log_file.log_tail(real_engine.settings.log, 4)
        assert f" (80 x 72) with {real_model.id}" in tail
        for kind in ("predict", "auto"):
            assert f"{kind} of {image[:12]} (160 x 120) with {real_model.id}" in tail

    def test_curl_gets_the_status(self, real_engine: Home) -> None:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        command = ["curl", "-s", "--unix-socket", str(real_engine.settings.socket), "http://engine/v1/status"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert EngineStatus.model_validate_json(answer.stdout).protocol == protocol.PROTOCOL_VERSION


class TestModels:
    def test_listed(self, client: EngineClient, real_model: ModelChoice) -> None:
        listed = {model.id: model for model in client.models().models}
        assert listed[real_model.id].loaded

    def test_wrong_hash_is_refused(self, client: EngineClient, real_model: ModelChoice) -> None:
        with pytest.raises(ModelError, match="does not have the SHA-256"):
            client.ensure_image(discs(40, 40), model=dataclasses.replace(real_model, sha256="0" * 64))

    def test_two_models_keep_their_embeddings_apart(
        self, client: EngineClient, image: str, real_engine: Home, real_model: ModelChoice
    ) -> None:
        other = random_model(real_engine.paths, "other", seed=1)
        assert client.image_state(image, model=other).embedding is None
        assert client.ensure_image(discs(), model=other).computed
        assert not client.ensure_image(discs(), model=real_model).computed
        assert {model.id for model in client.status().models} == {"other", real_model.id}

    def test_damaged_checkpoint(self, client: EngineClient, real_engine: Home) -> None:
        choice = random_model(real_engine.paths, "damaged", seed=2)
        file = Path(choice.checkpoint)
        file.write_bytes(file.read_bytes()[:1000])
        whole = dataclasses.replace(choice, sha256="")
        with pytest.raises(ModelError, match="cannot be read"):
            client.ensure_image(discs(48, 48), model=whole)
        assert client.status().state == "idle"

    def test_a_device_that_is_not_there(self, home: Home) -> None:
        import torch

        missing = "mps" if torch.cuda.is_available() else "cuda"
        if torch.backends.mps.is_available() and missing == "mps":
            pytest.skip("this machine has every device")
        from segment_duo.engine.device import choose_device

        with pytest.raises(ConfigError, match=f"no device '{missing}'"):
            choose_device(missing)
        assert choose_device("cpu").type == "cpu"


class TestWithoutDaemon:
    def test_same_masks_as_the_daemon(
        self, client: EngineClient, image: str, real_engine: Home, real_model: ModelChoice
    ) -> None:
        config = Config(device="cpu", threads=1, in_process=True)
        engine = connect(config, real_engine.paths)
        before = [process.pid for process in real_engine.processes()]
        prompts = [Prompt(points=(Point(40, 40),)), Prompt(box=Box(80, 20, 140, 80))]
        state = engine.ensure_image(discs(), model=real_model)
        assert state.embedding == "disk"  # the daemon's
        ours = engine.predict(image, prompts, model=real_model)
        theirs = client.predict(image, prompts, model=real_model)
        assert [one.best.mask for one in ours] == [one.best.mask for one in theirs]
        events: list[AutoEvent] = []
        run = engine.auto(image, AUTO, model=real_model, on_event=events.append)
        assert run.masks == client.auto(image, AUTO, model=real_model).masks
        assert events[-1].event == "done"
        assert engine.status().in_process
        assert [process.pid for process in real_engine.processes()] == before
        with pytest.raises(EngineFailed, match="does not hold"):
            engine.predict("0" * 64, prompts, model=real_model)


def test_embeddings_survive_a_restart(home: Home) -> None:
    home.config = Config(device="cpu", threads=1)
    choice = usable_model(home.paths)
    first = home.connect()
    assert first.ensure_image(discs(), model=choice).computed
    answer = first.predict(protocol.image_id(discs()), [Prompt(points=(Point(40, 40),))], model=choice)
    lifecycle.stop(home.settings)
    second = home.connect()
    state = second.image_state(protocol.image_id(discs()), model=choice)
    assert (state.embedding, state.pixels) == ("disk", False)
    # neither the pixels travel nor the encoder runs
    again = second.predict(state.id, [Prompt(points=(Point(40, 40),))], model=choice)
    assert [c.mask for c in again[0].candidates] == [c.mask for c in answer[0].candidates]
    assert not second.image_state(state.id, model=choice).pixels
    assert not second.ensure_image(discs(), model=choice).computed


def test_release_of_all_without_an_engine_counts_the_images_on_disk_and_starts_none(home: Home) -> None:
    folder = home.paths.embeddings_dir
    folder.mkdir(parents=True)
    for image in "abc":
        for crop in (None, (0, 0, 5, 5)):
            (folder / EmbeddingKey(image * 64, "f" * 64, crop).file_name).write_bytes(b"x" * 512)
    command = [sys.executable, "-m", "segment_duo.cli.main", "engine", "release", "--all"]
    done = subprocess.run(command, env=home.environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == "3 images released: 0 B of memory, 3.0 KiB on disk\n"
    assert list(folder.iterdir()) == []
    assert home.processes() == []


class TestHttp:
    """What clients that are not ours see."""

    @staticmethod
    def ask(engine: ThreadedEngine, method: str, route: str, body: bytes | None = None, **headers: str) -> HTTPResponse:
        with lifecycle._connected(engine.home.settings.socket, 30) as connection:
            http = HTTPConnection("localhost")
            http.sock = connection
            http.request(method, route, body=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
            response = http.getresponse()
            response.text = response.read()  # type: ignore[attr-defined]
            return response

    @pytest.mark.parametrize(
        ("request_line", "body", "expected"),
        [
            ("GET /", None, (404, "not-found")),
            ("GET /v1/nothing", None, (404, "not-found")),
            ("DELETE /v1/status", None, (405, "not-found")),
            ("GET /v1/images/short", None, (404, "not-found")),
            (f"POST /v1/images/{'0' * 64}/predict", b"{", (422, "input")),
            (f"POST /v1/images/{'0' * 64}/predict", b'{"prompts": 5}', (422, "input")),
            (f"POST /v1/images/{'0' * 64}/predict", b'{"prompts": [{"points": [{"x": "NaN"}]}]}', (422, "input")),
            (f"POST /v1/images/{'0' * 64}/predict", b'{"prompts": []}', (404, "image-missing")),
            (f"POST /v1/images/{'0' * 64}/embed", b"", (404, "image-missing")),
            (f"PUT /v1/images/{'0' * 64}", b"abc", (422, "image")),
            ("POST /v1/stop", b"[]", (422, "input")),
        ],
    )
    def test_failures_are_json_with_a_slug(
        self,
        threaded: Callable[..., ThreadedEngine],
        request_line: str,
        body: bytes | None,
        expected: tuple[int, str],
    ) -> None:
        response = self.ask(threaded(), *request_line.split(), body, Content_Type="application/json")
        message = json.loads(response.text)  # type: ignore[attr-defined]
        assert (response.status, message["slug"]) == expected
        assert message["message"]

    def test_too_long_requests_are_refused_unread(
        self, threaded: Callable[..., ThreadedEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "MAX_JSON_BYTES", 1000)
        engine = threaded()
        route = f"/v1/images/{'0' * 64}/predict"
        response = self.ask(engine, "POST", route, b" " * 2000, Content_Type="application/json")
        assert response.status == 413
        chunked = self.ask(engine, "POST", route, iter([b" " * 600] * 4), Content_Type="application/json")  # type: ignore[arg-type]
        assert 400 <= chunked.status < 500

    @pytest.mark.parametrize(
        ("shape", "size", "words"),
        [
            ("10,10,3", 299, "299 bytes announced, 300 needed"),
            ("10,10,3", 301, "301 bytes announced, 300 needed"),
            ("10,10", 100, "bad"),
            ("100000,100000,3", 10, "more than the running engine takes"),
        ],
    )
    def test_uploads_that_do_not_fit_their_shape(
        self, threaded: Callable[..., ThreadedEngine], shape: str, size: int, words: str
    ) -> None:
        response = self.ask(threaded(), "PUT", f"/v1/images/{'0' * 64}", b"x" * size, Segduo_Shape=shape)
        assert response.status == 422
        text = json.loads(response.text)["message"]  # type: ignore[attr-defined]
        assert words in text or words == "bad"

    def test_a_truncated_upload_leaves_nothing(self, threaded: Callable[..., ThreadedEngine]) -> None:
        engine = threaded()
        with lifecycle._connected(engine.home.settings.socket, 30) as connection:
            head = (
                f"PUT /v1/images/{'0' * 64} HTTP/1.1\r\nHost: x\r\nSegduo-Shape: 10,10,3\r\nContent-Length: 300\r\n\r\n"
            )
            connection.sendall(head.encode() + b"x" * 100)
        assert lifecycle.require(engine.home.settings).state == "idle"
        assert not engine.compute.pixels

    def test_model_header_that_is_no_model(self, threaded: Callable[..., ThreadedEngine]) -> None:
        response = self.ask(threaded(), "GET", f"/v1/images/{'0' * 64}", Segduo_Model="{")
        assert json.loads(response.text)["slug"] == "model"  # type: ignore[attr-defined]

    def test_grey_upload(self, threaded: Callable[..., ThreadedEngine]) -> None:
        engine = threaded()
        grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
        image_id = protocol.image_id(np.repeat(grey[:, :, None], 3, axis=2))
        response = self.ask(engine, "PUT", f"/v1/images/{image_id}", grey.tobytes(), Segduo_Shape="10,10,1")
        assert response.status == 200
        assert json.loads(response.text)["computed"]  # type: ignore[attr-defined]
