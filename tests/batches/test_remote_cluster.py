"""``--cluster ADDRESS`` with a scheduler and two workers that were started by hand, as their own processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from segment_duo.batches import cluster
from segment_duo.batches.summary import summarize
from segment_duo.errors import EngineUnavailable
from tests.engine_fixtures import wait_for

from .toy import HOLD, PLAIN, ToyShell

pytestmark = pytest.mark.timeout(900)  # worker processes start slowly on a loaded machine


class Processes:
    """A scheduler on a port of its own, and workers of one thread."""

    def __init__(self, toy: ToyShell) -> None:
        self._toy = toy
        self._log = toy.folder / "dask.log"
        self._all: list[subprocess.Popen[bytes]] = []
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.scheduler = self.start_scheduler()
        self.workers = [self.start_worker(), self.start_worker()]

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        port = self.address.rpartition(":")[2]
        return self._start("scheduler", "--host", "127.0.0.1", "--port", port)

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            self._all.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
                    cwd=self._toy.folder,
                    env=self._toy.environment,
                    stdout=log,
                    stderr=log,
                )
            )
        return self._all[-1]

    def ready(self, workers: int = 2) -> bool:
        """Whether so many workers have come to the scheduler since it began."""
        assert all(one.poll() is None for one in self._all[-workers:]), self._log.read_text()
        return self._log.read_text().count("Register worker") >= workers

    def stop(self) -> None:
        for one in self._all:
            with suppress(ProcessLookupError):
                one.kill()
            one.wait(60)


@pytest.fixture
def processes(toy: ToyShell) -> Iterator[Processes]:
    started = Processes(toy)
    try:
        wait_for(started.ready, 240)
        yield started
    finally:
        started.stop()


def saved(toy: ToyShell, count: int) -> bool:
    return len(toy.sets()) >= count


def test_a_scheduler_that_is_killed_costs_no_image_and_the_next_run_goes_on(
    toy: ToyShell, processes: Processes
) -> None:
    # The first images go one to each worker; what comes later may go together, to whichever was quicker.
    for number in range(6):
        toy.draw(f"{number}.png", HOLD if number < 2 else PLAIN)
    asked = ("auto", "images", "--cluster", processes.address, "--manifest", "m")
    running = toy.start(*asked)
    wait_for(lambda: len(toy.holders()) == 2, 240)
    processes.scheduler.kill()
    out, err = running.communicate(timeout=240)
    assert running.returncode == 3, err
    assert "segduo: the cluster's scheduler has gone away" in err
    assert "Traceback" not in err
    assert summarize(toy.folder / "m").by_error() == {}
    toy.go_on()
    processes.stop()
    again = Processes(toy)
    try:
        wait_for(partial(again.ready, 4), 240)
        last = toy.run("auto", "images", "--cluster", again.address, "--manifest", "m").ok()
        # A worker of before may have saved the image that it had in hand; it is told once, by the run that finds it.
        assert len(out.splitlines()) + len(last.lines) == 6
    finally:
        again.stop()
    assert toy.sets() == [f"{number}.pkl" for number in range(6)]
    assert (summarize(toy.folder / "m").done, summarize(toy.folder / "m").repeated) == (6, 0)


def test_a_worker_elsewhere_that_is_killed_costs_no_image(toy: ToyShell, processes: Processes) -> None:
    for number in range(4):
        toy.draw(f"{number}.png")
    toy.draw("hold.png", HOLD)
    running = toy.start("auto", "images", "--cluster", processes.address, "--manifest", "m")
    (worker,) = wait_for(toy.holders, 240)
    assert worker in {one.pid for one in processes.workers}
    os.kill(worker, signal.SIGKILL)
    toy.go_on()
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    assert sorted(Path(line).stem for line in out.splitlines()) == ["0", "1", "2", "3", "hold"]
    assert (summarize(toy.folder / "m").done, summarize(toy.folder / "m").repeated) == (5, 0)


def answering(text: bytes) -> tuple[socket.socket, str]:
    """A server that says this to everybody, and its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            kept = []
            while True:
                kept.append(server.accept()[0])
                kept[-1].sendall(text)

    threading.Thread(target=serve, daemon=True).start()
    return server, f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "nothing was heard for 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "it speaks another protocol"),
    ],
)
def test_what_is_no_scheduler_is_told_in_time(text: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 1.0)
    server, address = answering(text)
    with server, pytest.raises(EngineUnavailable) as told, cluster.connected(address):
        pass
    assert address in told.value.message
    assert said in told.value.message
    assert "tcp://HOST:8786" in told.value.hint


def test_addresses_that_cannot_be_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 2.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    for address, said in (
        # Dask tries again until its time is up, and its last word may be that it was.
        (f"tcp://127.0.0.1:{port}", "Connection refused|nothing was heard"),
        ("tcp://127.0.0.1", "missing port"),
        ("nonsense://127.0.0.1:1", "unknown address scheme"),
    ):
        with pytest.raises(EngineUnavailable, match=said), cluster.connected(address):
            pass


def test_the_address_of_a_worker_is_none_of_a_scheduler(processes: Processes) -> None:
    worker = processes.workers[0]
    ports = {one.laddr.port for one in psutil.Process(worker.pid).net_connections() if one.status == "LISTEN"}
    told = set()
    for port in ports:
        with pytest.raises(EngineUnavailable) as error, cluster.connected(f"tcp://127.0.0.1:{port}"):
            pass
        told.add(error.value.message.partition("(")[2])
    assert any("the address of a Worker" in one for one in told), told
