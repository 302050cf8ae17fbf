"""Uploads that stall, trickle or pile up, over raw sockets: they hold up nobody, are seen, and end."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse

import numpy as np
import psutil
import pytest

from segment_duo.config import Config
from segment_duo.engine import lifecycle, protocol, reports
from segment_duo.engine.uploads import UploadLimits
from segment_duo.errors import EngineBusy
from segment_duo.models.choice import ModelChoice
from tests.engine_fixtures import (  # noqa: F401
    Home,
    ThreadedEngine,
    home,
    real_engine,
    real_model,
    threaded,
    wait_for,
)

StartThread = Callable[..., ThreadedEngine]
SMALL = np.full((20, 30, 3), 7, np.uint8)
GENEROUS = UploadLimits(silence=60, seconds=120)


@contextmanager
def begun(home: Home, height: int, width: int, *, image_id: str = "a" * 64, sent: int = 0) -> Iterator[socket.socket]:
    """An upload of ``height`` x ``width`` x 3 bytes, of which ``sent`` have been sent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(home.settings.socket))
        head = (
            f"PUT {protocol.image_route(image_id)}?embed=false HTTP/1.1\r\nHost: engine\r\n"
            f"{protocol.SHAPE_HEADER}: {height},{width},3\r\nContent-Length: {height * width * 3}\r\n\r\n"
        )
        connection.sendall(head.encode() + bytes(sent))
        yield connection


def answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    response = HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def status(home: Home) -> reports.EngineStatus:
    found = lifecycle.probe(home.settings)
    assert found is not None
    return found


def test_stalled_uploads_block_no_other_image(real_engine: Home, real_model: ModelChoice) -> None:
    """The real engine: five clients that sent nothing or half, and one that works."""
    before = psutil.Process(status(real_engine).pid).memory_info().rss
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(begun(real_engine, 9000, 9000, image_id=f"{number}" * 64, sent=number * 1000))
        seen = wait_for(lambda: len(status(real_engine).uploads) == 5 and status(real_engine))
        assert {(upload.received, upload.bytes) for upload in seen.uploads} == {
            (number * 1000, 243_000_000) for number in range(5)
        }
        # What was announced takes no memory, only what came.
        assert psutil.Process(seen.pid).memory_info().rss - before < 243_000_000
        with real_engine.connect() as client:
            assert client.ensure_image(SMALL, model=real_model).embedding is not None
            client.release(protocol.image_id(SMALL))
    wait_for(lambda: not status(real_engine).uploads)


def test_an_upload_that_stops_ends_with_a_reason(home: Home, threaded: StartThread) -> None:
    threaded(uploads=UploadLimits(silence=0.5, seconds=60))
    with begun(home, 100, 100, sent=1000) as connection:
        code, message = answer(connection)
    assert (code, message["slug"]) == (500, "engine-failed")
    assert "the pixels stopped: 1000 of 30000 bytes" in message["message"]
    assert "ssh -L" in message["hint"]
    assert status(home).uploads == []


def test_an_upload_that_trickles_ends_as_well(home: Home, threaded: StartThread) -> None:
    threaded(uploads=UploadLimits(silence=30, seconds=1.0))
    with begun(home, 100, 100) as connection:
        until = time.monotonic() + 60
        connection.setblocking(False)
        received = b""
        while not received and time.monotonic() < until:
            try:
                connection.send(b"x")
                received = connection.recv(65536, socket.MSG_PEEK)
            except BlockingIOError:
                time.sleep(0.05)
        connection.settimeout(60)
        code, message = answer(connection)
    assert (code, message["slug"]) == (500, "engine-failed")
    assert "came too slowly" in message["message"]


def test_a_slow_upload_that_moves_is_work_and_a_stalled_one_is_not(home: Home, threaded: StartThread) -> None:
    threaded(uploads=GENEROUS)
    enough = threading.Event()
    with begun(home, 300, 300) as connection:

        def feed() -> None:
            while not enough.wait(0.02):
                connection.sendall(b"x")

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            moving = wait_for(lambda: status(home).state == "busy" and status(home))
            with pytest.raises(EngineBusy):
                lifecycle.stop(home.settings, only_if_idle=True)
        finally:
            enough.set()
            feeder.join()
        assert moving.uploads[0].received > 0
        stopped = wait_for(lambda: status(home).state == "idle" and status(home))
        assert stopped.uploads[0].silent_seconds > 1


def test_a_stalled_upload_does_not_keep_the_engine_from_leaving(home: Home, threaded: StartThread) -> None:
    home.config = Config(idle_minutes=1.5 / 60)
    engine = threaded(uploads=GENEROUS)
    with begun(home, 100, 100, sent=500):
        wait_for(lambda: not engine.alive)


def test_one_upload_too_many_waits_for_a_place_and_then_gets_it(home: Home, threaded: StartThread) -> None:
    threaded(uploads=UploadLimits(silence=2.0, seconds=60, parallel=1))
    with begun(home, 100, 100, sent=10), begun(home, *SMALL.shape[:2], image_id=protocol.image_id(SMALL)) as second:
        wait_for(lambda: status(home).uploads)
        second.sendall(SMALL.tobytes())
        code, _ = answer(second)
    assert code == 200


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(home: Home, threaded: StartThread) -> None:
    threaded(uploads=GENEROUS)
    with begun(home, 100, 100, sent=10):
        wait_for(lambda: status(home).uploads)
    wait_for(lambda: not status(home).uploads)
