"""The client against the real server on a real socket; only the computing is scripted."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests

from segment_duo.config import Config, Resolved
from segment_duo.engine import client as client_module
from segment_duo.engine import lifecycle, protocol
from segment_duo.engine.api import engine_model
from segment_duo.engine.client import EngineClient
from segment_duo.engine.connect import connect
from segment_duo.engine.protocol import AutoEvent
from segment_duo.engine.wire import Wire
from segment_duo.errors import (
    Cancelled,
    EngineBusy,
    EngineFailed,
    EngineUnavailable,
    ImageError,
    ModelError,
    NotFound,
    SegduoError,
    UsageError,
    all_error_classes,
    error_from_slug,
)
from segment_duo.models.choice import ModelChoice
from segment_duo.parameters import AutoParameters
from segment_duo.session import Session
from segment_duo.types import Box, Point, Prompt
from segment_duo.waiting import StillWaiting
from tests.engine_fixtures import Home, ScriptedEngine, ThreadedEngine, home, scripted, threaded, wait_for  # noqa: F401

Start = Callable[..., ScriptedEngine]
StartThread = Callable[..., ThreadedEngine]
CLICK = [Prompt(points=(Point(3, 4),))]


def picture(seed: int = 0, *, grey: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    if grey:
        pixels[:] = pixels[:, :, :1]
    return pixels


class Requests:
    """What a client sent, as (method, route without the id, bytes of body)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str, int]] = []
        original = Wire.request

        def watched(wire: Wire, method: str, route: str, **options: Any) -> bytes:
            body = options.get("data")
            self.seen.append((method, route.rsplit("/", 1)[-1] if route.count("/") > 3 else "image", len(body or b"")))
            return original(wire, method, route, **options)

        monkeypatch.setattr(Wire, "request", watched)

    @property
    def methods(self) -> list[str]:
        return [method for method, *_ in self.seen]


class TestUpload:
    def test_uploads_only_what_is_missing(self, threaded: StartThread, monkeypatch: pytest.MonkeyPatch) -> None:
        client = threaded().client()
        sent = Requests(monkeypatch)
        first = client.ensure_image(picture())
        assert (first.computed, first.width, first.height, sent.methods) == (True, 40, 30, ["GET", "PUT"])
        sent.seen.clear()
        second = client.ensure_image(picture())
        assert (second.computed, sent.methods) == (False, ["GET"])

    def test_pixels_that_are_there_are_embedded_without_travelling(
        self, threaded: StartThread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = threaded().client()
        client.ensure_image(picture(), embed=False)
        sent = Requests(monkeypatch)
        assert client.ensure_image(picture()).embedding == "memory"
        assert sent.methods == ["GET", "POST"]
        assert all(size < 30 * 40 for *_, size in sent.seen)

    @pytest.mark.parametrize(("grey", "bytes_sent"), [(True, 30 * 40), (False, 30 * 40 * 3)])
    def test_grey_pixels_travel_once(
        self, threaded: StartThread, monkeypatch: pytest.MonkeyPatch, grey: bool, bytes_sent: int
    ) -> None:
        engine = threaded()
        sent = Requests(monkeypatch)
        pixels = picture(grey=grey)
        state = engine.client().ensure_image(pixels)
        assert sent.seen[-1][2] == bytes_sent
        assert np.array_equal(engine.compute.pixels[state.id], pixels)

    def test_pixels_as_a_function_are_asked_for_only_when_needed(self, threaded: StartThread) -> None:
        client = threaded().client()
        image = client.ensure_image(picture()).id

        def never() -> np.ndarray:
            raise AssertionError("asked for pixels that the engine has")

        assert client.ensure_image(never, image_id=image).id == image
        with pytest.raises(TypeError):
            client.ensure_image(never)

    def test_views_that_are_not_contiguous(self, threaded: StartThread) -> None:
        engine = threaded()
        view = np.moveaxis(np.random.default_rng(1).integers(0, 255, (3, 30, 40), dtype=np.uint8), 0, 2)[::-1, ::2]
        state = engine.client().ensure_image(view)
        assert np.array_equal(engine.compute.pixels[state.id], view)


class TestWaiting:
    def test_whoever_waits_hears_what_the_engine_does(self, threaded: StartThread, home: Home) -> None:
        threaded(embed_seconds=1.0)
        told: list[str] = []
        session = Session(Resolved(home.config, {}), home.paths, waiting=StillWaiting(told.append, 0.05))
        session.embed(session.open_array(picture()))
        assert "still waiting for the engine: embed: encoder, for 0 s" in told

    def test_it_hears_of_the_queue_and_of_an_engine_that_is_gone(self, threaded: StartThread) -> None:
        engine = threaded(embed_seconds=1.0)
        client = engine.client()
        assert client.doing() == "nothing is asked of it yet"
        threads = [threading.Thread(target=engine.client().ensure_image, args=(picture(seed),)) for seed in (1, 2, 3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: client.doing() == "embed: encoder, for 0 s, 2 in the queue")
        for thread in threads:
            thread.join()
        engine.end()
        assert client.doing() == "it is being started"


class TestEviction:
    def test_an_evicted_image_is_sent_again_unnoticed(self, threaded: StartThread) -> None:
        client = threaded(keep=1).client()
        first = client.ensure_image(picture(1)).id
        client.ensure_image(picture(2))  # pushes the first one out
        assert client.predict(first, CLICK)[0].best.mask.bbox == (3.0, 4.0, 1.0, 1.0)
        client.ensure_image(picture(2))
        assert len(client.auto(first, AutoParameters()).masks) == 3

    def test_pixels_come_from_the_callback_when_the_client_forgot_them(self, threaded: StartThread, home: Home) -> None:
        threaded()
        pixels = picture()
        image = protocol.image_id(pixels)
        client = EngineClient(home.settings, startable=False, pixels_of={image: pixels}.get)
        assert client.predict(image, CLICK)[0].object_id == "0"

    def test_nobody_has_the_pixels(self, threaded: StartThread) -> None:
        with pytest.raises(EngineFailed, match="does not hold this image"):
            threaded().client().predict("0" * 64, CLICK)

    def test_an_engine_that_cannot_keep_the_image_is_reported(self, threaded: StartThread) -> None:
        engine = threaded()
        client = engine.client()
        image = client.ensure_image(picture()).id
        engine.compute.put_pixels = lambda *_: None  # type: ignore[method-assign]
        engine.compute.pixels.clear()
        engine.compute.embed = lambda job, image_id, request: engine.compute.state(image_id, request.model)  # type: ignore[method-assign]
        with pytest.raises(EngineFailed, match="cannot keep this image"):
            client.predict(image, CLICK)


class TestErrors:
    @pytest.mark.parametrize("cls", all_error_classes())
    def test_every_error_crosses_the_wire(self, threaded: StartThread, cls: type[SegduoError]) -> None:
        engine = threaded()

        def fail(*_: object) -> None:
            raise cls("what happened \u2192 \x1b[31m", "what to do")

        engine.compute.predict = fail  # type: ignore[method-assign]
        engine.compute.auto = fail  # type: ignore[method-assign]
        client = engine.client()
        for call in (lambda: client.predict("0" * 64, CLICK), lambda: client.auto("0" * 64, AutoParameters())):
            with pytest.raises(cls) as caught:
                call()
            assert type(caught.value) is cls
            assert (caught.value.message, caught.value.hint) == ("what happened \u2192 \x1b[31m", "what to do")

    def test_a_newer_engines_error_is_a_failure(self) -> None:
        assert type(error_from_slug("from-the-future", "x")) is EngineFailed

    def test_an_unexpected_failure_names_itself_and_leaves_the_engine_alive(self, threaded: StartThread) -> None:
        engine = threaded(fail_in="predict")
        client = engine.client()
        image = client.ensure_image(picture()).id
        with pytest.raises(EngineFailed, match="RuntimeError: a scripted"):
            client.predict(image, CLICK)
        assert client.status().state == "idle"

    def test_damaged_upload_is_refused(self, threaded: StartThread) -> None:
        client = threaded().client()
        with pytest.raises(ImageError, match="do not match"):
            client._upload("0" * 64, picture(), None, embed=True)

    def test_too_large_for_the_running_engine(self, threaded: StartThread, home: Home) -> None:
        home.config = Config(max_pixels=1000)
        with pytest.raises(ImageError, match=r"40 x 30 pixels .* started with max_pixels = 1000") as caught:
            threaded().client().ensure_image(picture())
        assert "engine stop" in caught.value.hint

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_parameter_that_is_no_number_is_named(self, home: Home, value: float) -> None:
        for config in (home.config, Config(in_process=True)):
            engine = connect(config, home.paths) if config.in_process else EngineClient(home.settings, startable=False)
            with pytest.raises(UsageError, match=f"mask_threshold: {value} is not a finite number"):
                engine.auto("0" * 64, AutoParameters(mask_threshold=value))

    def test_bad_image_id(self, threaded: StartThread) -> None:
        with pytest.raises(NotFound, match="64"):
            threaded().client().image_state("ABC")

    def test_full_queue(self, threaded: StartThread) -> None:
        engine = threaded(limit=1, predict_seconds=1.5)
        client = engine.client()
        image = client.ensure_image(picture()).id
        threads = [threading.Thread(target=client.predict, args=(image, CLICK)) for _ in range(2)]
        for thread in threads:
            thread.start()
            wait_for(lambda: engine.worker.busy)
        wait_for(engine.worker.waiting)
        with pytest.raises(EngineBusy, match="waiting already"):
            client.predict(image, CLICK)
        with pytest.raises(EngineBusy, match="waiting already"):
            client.auto(image, AutoParameters())
        for thread in threads:
            thread.join()

    def test_an_engine_that_does_not_answer(self, threaded: StartThread, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client_module, "WORK_SECONDS", 0.2)
        client = threaded(predict_seconds=1).client()
        image = client.ensure_image(picture()).id
        with pytest.raises(EngineFailed, match="does not answer"):
            client.predict(image, CLICK)


class TestLongWork:
    def test_status_answers_at_once_while_the_engine_computes(self, threaded: StartThread) -> None:
        engine = threaded(batches=40, batch_seconds=0.05)
        client = engine.client()
        image = client.ensure_image(picture()).id
        thread = threading.Thread(target=client.auto, args=(image, AutoParameters()))
        thread.start()
        running = wait_for(lambda: client.status().running)
        started = time.monotonic()
        status = client.status()
        assert time.monotonic() - started < 1
        assert status.state == "busy"
        assert (running.kind, running.image) == ("auto", image)
        wait_for(lambda: (client.status().running or running).done > 0)
        thread.join()
        assert client.status().running is None

    def test_queue_and_position_are_visible(self, threaded: StartThread) -> None:
        engine = threaded(predict_seconds=1)
        client = engine.client()
        image = client.ensure_image(picture()).id
        events: list[AutoEvent] = []
        first = threading.Thread(target=client.predict, args=(image, CLICK))
        first.start()
        wait_for(lambda: client.status().running)
        second = threading.Thread(
            target=client.auto, args=(image, AutoParameters()), kwargs={"on_event": events.append}
        )
        second.start()
        queue = wait_for(lambda: client.status().queue)
        assert [job.kind for job in queue] == ["auto"]
        first.join()
        second.join()
        assert ("queued", 1) in [(event.event, event.position) for event in events]
        assert events[-1].event == "done"

    def test_heartbeat_while_nothing_changes(self, threaded: StartThread) -> None:
        client = threaded(batches=1, batch_seconds=1.6).client()
        image = client.ensure_image(picture()).id
        seen: list[tuple[float, AutoEvent]] = []
        client.auto(image, AutoParameters(), on_event=lambda event: seen.append((time.monotonic(), event)))
        beats = [event for _, event in seen if event.event == "progress"]
        assert len(beats) >= 2
        assert len(set(beats)) < len(beats)

    def test_events_arrive_while_the_work_goes_on(self, threaded: StartThread) -> None:
        engine = threaded(batches=10, batch_seconds=0.1)
        client = engine.client()
        image = client.ensure_image(picture()).id
        busy_at_first_mask: list[bool] = []

        def look(event: AutoEvent) -> None:
            if event.event == "mask" and not busy_at_first_mask:
                busy_at_first_mask.append(engine.worker.busy)

        result = client.auto(image, AutoParameters(), on_event=look)
        assert busy_at_first_mask == [True]
        assert result.notes == ("scripted",)
        assert len(result.masks) == 10

    def test_cancelling_stops_the_engine_between_batches(self, threaded: StartThread) -> None:
        engine = threaded(batches=1000, batch_seconds=0.05)
        client = engine.client()
        image = client.ensure_image(picture()).id
        with pytest.raises(Cancelled):
            client.auto(image, AutoParameters(), cancelled=lambda: True)
        wait_for(lambda: not engine.worker.busy, 5)
        assert client.status().state == "idle"

    def test_ctrl_c_stops_the_engine(self, threaded: StartThread) -> None:
        engine = threaded(batches=1000, batch_seconds=0.05)
        client = engine.client()
        image = client.ensure_image(picture()).id

        def interrupt(event: AutoEvent) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.auto(image, AutoParameters(), on_event=interrupt)
        wait_for(lambda: not engine.worker.busy, 5)

    def test_a_closed_pipe_of_the_caller_is_not_the_engines_death(self, threaded: StartThread) -> None:
        client = threaded().client()
        image = client.ensure_image(picture()).id

        def broken(event: AutoEvent) -> None:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            client.auto(image, AutoParameters(), on_event=broken)

    def test_a_client_that_goes_away_frees_the_queue(self, threaded: StartThread) -> None:
        """A click that nobody waits for any more is skipped."""
        gate = threading.Event()
        engine = threaded(predict_gate=gate)
        client = engine.client()
        image = client.ensure_image(picture()).id
        first = threading.Thread(target=client.predict, args=(image, CLICK))
        first.start()
        wait_for(engine.worker.running)
        body = protocol.PredictRequest(prompts=CLICK).model_dump_json().encode()
        line = f"POST {protocol.image_route(image, 'predict')} HTTP/1.1"
        head = f"{line}\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(str(engine.home.settings.socket))
            second.sendall(head.encode() + body)
            wait_for(engine.worker.waiting)
        (waiting,) = engine.worker._queue
        wait_for(lambda: waiting.cancelled, 30)
        gate.set()
        first.join()
        wait_for(lambda: not engine.worker.busy, 30)
        assert engine.compute.predicted == 1


class TestDeath:
    def test_a_command_whose_engine_dies_says_so_and_retries_once(
        self, scripted: Start, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dying = scripted(die_in="predict")
        notes: list[str] = []
        client = EngineClient(home.settings, startable=True, notify=notes.append)
        image = client.ensure_image(picture()).id
        monkeypatch.setattr(lifecycle, "_spawn", lambda settings: ThreadedEngine(home).status)
        assert client.predict(image, CLICK)[0].object_id == "0"
        assert dying.process.wait(5) == -signal.SIGKILL
        assert len(notes) == 1
        assert "starting it again" in notes[0]

    def test_dying_twice_is_a_failure_with_the_end_of_the_log(
        self, scripted: Start, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scripted(die_in="auto")
        client = EngineClient(home.settings, startable=True)
        image = client.ensure_image(picture()).id
        monkeypatch.setattr(lifecycle, "_spawn", lambda settings: scripted(die_in="auto").status)
        with pytest.raises(EngineFailed) as caught:
            client.auto(image, AutoParameters())
        assert caught.value.exit_code == 4
        assert "stopped in the middle of the work" in caught.value.message
        assert "listens on" in caught.value.message

    def test_an_engine_that_left_between_two_calls_is_started_silently(
        self, threaded: StartThread, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes: list[str] = []
        client = EngineClient(home.settings, startable=True, notify=notes.append)
        first = threaded()
        client.ensure_image(picture())
        first.end()
        monkeypatch.setattr(lifecycle, "_spawn", lambda settings: threaded().status)
        assert client.ensure_image(picture()).computed
        assert notes == []

    def test_a_connection_to_another_machine_that_ends_is_not_called_the_engines_death(
        self, home: Home, threaded: StartThread
    ) -> None:
        home.config = Config(socket=home.root / "forwarded.sock")
        home.root.mkdir()
        engine = threaded()
        client = engine.client()
        image = client.ensure_image(picture()).id

        def cut(*_: object, **__: object) -> None:
            raise requests.exceptions.ConnectionError("reset by peer")

        client.wire._session().post = cut  # type: ignore[method-assign]
        with pytest.raises(EngineFailed, match=r"the connection to the engine on .*forwarded.sock ended") as caught:
            client.auto(image, AutoParameters())
        assert "ssh -L" in caught.value.hint
        assert "logs" not in caught.value.hint

    def test_another_machines_engine_is_never_started(self, home: Home) -> None:
        other = Home(home.root, Config(socket=home.root / "forwarded.sock"))
        with pytest.raises(EngineUnavailable, match="no engine listens"):
            connect(other.config, other.paths)
        client = EngineClient(other.settings, startable=False)
        with pytest.raises(EngineUnavailable, match="no engine answers"):
            client.status()


class TestModels:
    CHOICE = ModelChoice("sam2.1-large", "configs/l.yaml", "/secret/place/large.pt", "a" * 64)

    def test_paths_stay_on_this_machine(self, home: Home) -> None:
        other = Home(home.root, Config(socket=home.root / "forwarded.sock"))
        client = EngineClient(other.settings, startable=False)
        assert client.model_request(self.CHOICE) == protocol.ModelRequest(id="sam2.1-large", sha256="a" * 64)

    def test_an_engine_elsewhere_decides_which_models_there_are(self, threaded: StartThread) -> None:
        client = threaded().client()
        assert engine_model(client, None).id == "scripted"
        assert engine_model(client, "scripted").auto_defaults == {"points_per_side": 8}
        with pytest.raises(ModelError, match="has no model 'nano'"):
            engine_model(client, "nano")

    def test_own_engine_gets_the_whole_choice(self, home: Home) -> None:
        wire = EngineClient(home.settings, startable=True).model_request(self.CHOICE)
        assert (wire.config, wire.checkpoint, wire.sha256) == ("configs/l.yaml", "/secret/place/large.pt", "a" * 64)


class TestWire:
    def test_event_round_trip(self) -> None:
        error = protocol.ErrorMessage(slug="model", message="x")
        for event in (
            AutoEvent("queued", position=3),
            AutoEvent("progress", phase="points", done=64, total=1024),
            AutoEvent("error", error=error),
        ):
            line = protocol.AUTO.dump(event)
            assert line.endswith(b"\n")
            assert line.count(b"\n") == 1
            assert protocol.AUTO.load(line) == event

    def test_requests_round_trip(self) -> None:
        prompt = Prompt(points=(Point(1.5, 2.25, 0),), box=Box(0, 0, 5, 6), mask_input="h", object_id="7")
        request = protocol.PredictRequest(prompts=[prompt], multimask_output=True, preview_max_side=100)
        assert protocol.PredictRequest.model_validate_json(request.model_dump_json(exclude_defaults=True)) == request
        auto = protocol.AutoRequest(parameters=AutoParameters(point_grids=(((0.5, 0.5),),), region=Box(1, 2, 3, 4)))
        assert protocol.AutoRequest.model_validate_json(auto.model_dump_json(exclude_defaults=True)) == auto

    def test_image_id_depends_on_shape_and_pixels(self) -> None:
        pixels = picture()
        ids = {
            protocol.image_id(pixels),
            protocol.image_id(pixels.transpose(1, 0, 2)),
            protocol.image_id(pixels.reshape(40, 30, 3)),
            protocol.image_id(255 - pixels),
        }
        assert len(ids) == 4
        assert protocol.image_id(np.asfortranarray(pixels)) == protocol.image_id(pixels)

    @pytest.mark.parametrize("text", ["", "1,2", "0,5,3", "-1,5,3", "5,5,4", "a,b,3"])
    def test_bad_shapes(self, text: str) -> None:
        with pytest.raises(ValueError, match=r".*"):
            protocol.parse_shape(text)
