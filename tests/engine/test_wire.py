"""Requests to an engine's socket, over lines that are slow or silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segment_duo.engine import wire
from segment_duo.engine.wire import Wire

Answer = Callable[[socket.socket], None]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[Answer], Path]]:
    """Starts a server on a Unix socket that treats its one connection with a function."""
    listeners = []

    def start(answer: Answer) -> Path:
        path = tmp_path / "s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield start
    for listener in listeners:
        listener.close()


def test_an_upload_over_a_slow_line_may_take_longer_than_connecting(
    listen: Callable[[Answer], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through `ssh -L`: the whole upload was given the time to connect, and the engine taken for dead."""
    size = 8_000_000

    def slowly(connection: socket.socket) -> None:
        received = 0
        while received < size:
            received += len(connection.recv(200_000))
            time.sleep(0.02)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    monkeypatch.setattr(wire, "CONNECT_SECONDS", 0.2)
    started = time.monotonic()
    assert Wire(listen(slowly)).request("PUT", "/v1/images/x", data=memoryview(bytes(size)), seconds=60) == b"{}"
    assert time.monotonic() - started > 0.4
