"""Starting, finding and stopping engine processes. The processes are real; only the computing is scripted where that is enough."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from segment_duo.config import Config
from segment_duo.engine import lifecycle, log_file, server
from segment_duo.engine.settings import EngineSettings
from segment_duo.errors import ConfigError, EngineBusy, EngineUnavailable
from segment_duo.paths import Paths
from segment_duo.segmenters import allocator
from tests.engine_fixtures import Home, ScriptedEngine, ThreadedEngine, home, scripted, threaded, wait_for  # noqa: F401

Start = Callable[..., ScriptedEngine]
StartThread = Callable[..., ThreadedEngine]


def run_segduo(home: Home, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "segment_duo.cli.main", *arguments],
        env=home.environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=home.root if home.root.exists() else None,
    )


class TestStart:
    def test_two_at_once_start_one(self, home: Home) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: lifecycle.ensure_running(home.settings).pid, range(4)))
        assert len(set(found)) == 1
        assert [process.pid for process in home.processes()] == [found[0]]

    def test_two_commands_at_once_start_one(self, home: Home) -> None:
        command = [sys.executable, "-m", "segment_duo.cli.main", "engine", "start"]
        pair = [subprocess.Popen(command, env=home.environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [process.communicate(timeout=60)[1] for process in pair]
        assert [process.returncode for process in pair] == [0, 0], errors
        assert len(home.processes()) == 1

    def test_killed_engine_leaves_nothing_that_hinders(self, home: Home) -> None:
        first = lifecycle.ensure_running(home.settings)
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: not home.processes())
        assert home.settings.socket.exists()  # the leftover
        assert lifecycle.probe(home.settings) is None
        assert lifecycle.ensure_running(home.settings).pid != first.pid

    def test_failure_shows_the_end_of_the_log(self, home: Home) -> None:
        socket_path = home.settings.socket
        socket_path.parent.mkdir(parents=True)
        socket_path.write_text("in the way")
        with pytest.raises(EngineUnavailable) as caught:
            lifecycle.ensure_running(home.settings)
        assert "is in the way and is not a socket of ours" in caught.value.message
        assert caught.value.exit_code == 3
        assert socket_path.read_text() == "in the way"

    def test_the_end_of_the_log_is_that_of_the_engine_that_failed(self, home: Home) -> None:
        log = home.settings.log
        log.parent.mkdir(parents=True)
        log.write_text("2026-01-01 INFO engine 0.1, pid 1, listens on x\n2026-01-01 ERROR an old failure\n")
        home.settings.socket.write_text("in the way")
        with pytest.raises(EngineUnavailable, match="is in the way") as caught:
            lifecycle.ensure_running(home.settings)
        assert "old failure" not in caught.value.message
        assert "old failure" in log_file.last_words(log)
        with log.open("a") as stream:
            stream.write("2026-01-02 INFO engine 0.2, pid 2, listens on x\n2026-01-02 INFO embedding\n")
        assert log_file.last_words(log).splitlines() == [
            "2026-01-02 INFO engine 0.2, pid 2, listens on x",
            "2026-01-02 INFO embedding",
        ]
        assert log_file.last_words(log, 10**9) == log_file.last_words(log)  # turned over meanwhile
        assert log_file.last_words(log.with_name("none"), 5) == log_file.last_words(log.with_name("none")) == ""

    def test_a_socket_folder_of_somebody_else_gets_advice_that_can_be_followed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "theirs"
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, 4711, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 4711)
        with pytest.raises(EngineUnavailable, match="belongs to user") as caught:
            server._private_folder(folder)
        assert "chmod" not in caught.value.hint
        assert "--in-process" in caught.value.hint

    def test_log_that_cannot_be_written_is_said(self, home: Home) -> None:
        home.root.mkdir(parents=True, exist_ok=True)
        (home.root / "state").write_text("a file where a folder should be")
        with pytest.raises(EngineUnavailable, match="cannot write the engine's log") as caught:
            lifecycle.ensure_running(home.settings)
        assert "--in-process" in caught.value.hint

    def test_environment_has_the_allocator_settings_and_this_package(self) -> None:
        environment = lifecycle.spawn_environment()
        root = str(Path(lifecycle.__file__).resolve().parents[2])
        assert environment["PYTHONPATH"].split(os.pathsep)[0] == root
        if sys.platform == "linux":
            assert any(name.startswith("MALLOC_") for name in environment)

    def test_environment_holds_nothing_of_drops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SEGDUO_DROPS_URL", "SEGDUO_DROPS_USERNAME", "SEGDUO_DROPS_PASSWORD", "PASSWORD"):
            monkeypatch.setenv(name, "hunter2")
        monkeypatch.setenv("SEGDUO_DEVICE", "cpu")
        environment = lifecycle.spawn_environment()
        assert "hunter2" not in environment.values()
        assert environment["SEGDUO_DEVICE"] == "cpu"

    @pytest.mark.skipif(not allocator.is_glibc(), reason="the settings are glibc's")
    def test_allocator_settings_of_the_user_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
        assert lifecycle.spawn_environment()["MALLOC_ARENA_MAX"] == "3"


class TestVersions:
    def test_idle_engine_of_another_version_is_replaced(self, threaded: StartThread, home: Home) -> None:
        old = threaded(version="0.0.1")
        status = lifecycle.ensure_running(home.settings)
        assert status.pid != old.status.pid
        assert status.version != "0.0.1"
        wait_for(lambda: not old.alive)

    def test_idle_engine_of_another_protocol_is_replaced(
        self, threaded: StartThread, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = threaded(protocol=99)
        monkeypatch.setattr(lifecycle, "_spawn", lambda _settings: "a new one")
        assert lifecycle.ensure_running(home.settings) == "a new one"
        wait_for(lambda: not old.alive)

    def test_working_engine_of_another_protocol_is_left_alone(self, threaded: StartThread, home: Home) -> None:
        old = threaded(protocol=99, embed_seconds=5)
        busy_with_an_embedding(old)
        with pytest.raises(EngineBusy, match="another version"):
            lifecycle.ensure_running(home.settings)
        assert old.alive

    def test_working_engine_of_another_version_is_used(self, threaded: StartThread, home: Home) -> None:
        old = threaded(version="0.0.1", embed_seconds=5)
        busy_with_an_embedding(old)
        assert lifecycle.ensure_running(home.settings).pid == old.status.pid

    def test_other_device_replaces_an_idle_engine_only(self, threaded: StartThread, home: Home) -> None:
        old = threaded(device="cuda", embed_seconds=5)
        busy_with_an_embedding(old)
        wanted = Home(home.root, Config(device="cpu"))
        with pytest.raises(EngineBusy, match="cuda"):
            lifecycle.ensure_running(wanted.settings)

    def test_idle_engine_with_a_lower_limit_of_pixels_is_replaced(
        self, threaded: StartThread, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = threaded()
        smaller, larger = (Home(home.root, Config(max_pixels=pixels)).settings for pixels in (1000, 10**9))
        assert lifecycle.ensure_running(smaller).pid == old.status.pid
        monkeypatch.setattr(lifecycle, "_spawn", lambda _settings: "a new one")
        assert lifecycle.ensure_running(larger) == "a new one"
        wait_for(lambda: not old.alive)

    def test_foreign_engine_of_another_protocol_is_refused(self, threaded: StartThread, home: Home) -> None:
        old = threaded(protocol=99)
        with pytest.raises(EngineUnavailable, match="is version"):
            lifecycle.require(home.settings)
        assert old.alive


class TestMissingDevice:
    """An engine whose device is not there must not be what later commands meet."""

    @pytest.fixture
    def missing(self) -> str:
        import torch

        for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
            if not there:
                return name
        pytest.skip("this machine has every device")

    def test_start_says_so_and_later_commands_work(self, home: Home, missing: str) -> None:
        refused = run_segduo(home, "engine", "start", "--device", missing)
        assert refused.returncode == 2, refused.stderr
        assert f"no device '{missing}'" in refused.stderr
        again = run_segduo(home, "engine", "start", "--device", "cpu")
        assert again.returncode == 0, again.stderr
        assert len(home.processes()) == 1
        status = lifecycle.require(home.settings)
        assert (status.device, status.failure) == ("cpu", None)

    def test_in_the_foreground_it_ends_with_the_code_of_a_wrong_setting(self, home: Home, missing: str) -> None:
        done = run_segduo(home, "engine", "run", "--device", missing)
        assert done.returncode == 2, done.stderr
        assert f"no device '{missing}'" in done.stderr

    def test_it_tells_why_and_leaves(self, scripted: Start, home: Home) -> None:
        lame = scripted(cannot_prepare="this machine has no device 'x'")
        failure = wait_for(lambda: (lifecycle.probe(home.settings) or lame.status).failure)
        assert (failure.slug, failure.message) == ("config", "this machine has no device 'x'")
        doctor = run_segduo(home, "doctor")
        assert "PROBLEM  engine: cannot compute: this machine has no device 'x'" in doctor.stdout
        assert lame.process.wait(20) != 0
        assert not home.settings.socket.exists()
        assert "has no device" in log_file.log_tail(home.settings.log)

    def test_one_that_has_not_left_yet_is_replaced(
        self, threaded: StartThread, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lame = threaded(cannot_prepare="no device")
        wait_for(lambda: (lifecycle.probe(home.settings) or lame.status).failure)
        monkeypatch.setattr(
            lifecycle, "_spawn", lambda _settings: lame.status.model_copy(update={"failure": None, "pid": -1})
        )
        assert lifecycle.ensure_running(home.settings).pid == -1
        wait_for(lambda: not lame.alive, 4)


class TestStop:
    def test_asking_is_enough_for_a_healthy_engine(self, home: Home) -> None:
        pid = lifecycle.ensure_running(home.settings).pid
        assert os.getsid(pid) == pid  # detached from whoever started it
        assert psutil.Process(pid).cwd() == "/"
        assert lifecycle.stop(home.settings)
        assert pid not in [process.pid for process in home.processes()]
        assert not home.settings.socket.exists()
        assert "engine stopped" in log_file.log_tail(home.settings.log)

    def test_nothing_to_stop(self, home: Home) -> None:
        assert not lifecycle.stop(home.settings)

    def test_sigterm_cleans_up(self, home: Home) -> None:
        pid = lifecycle.ensure_running(home.settings).pid
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not home.processes())
        assert not home.settings.socket.exists()

    def test_an_engine_that_ignores_everything_is_killed(
        self, scripted: Start, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stubborn = scripted(ignore_stop=True)
        monkeypatch.setattr(lifecycle, "SERVER_MODULE", "tests.scripted_engine")
        monkeypatch.setattr(lifecycle, "DRAIN_SECONDS", 0.3)
        monkeypatch.setattr(lifecycle, "TERM_SECONDS", 0.3)
        assert lifecycle.stop(home.settings)
        assert stubborn.process.wait(5) == -signal.SIGKILL

    def test_a_stuck_engine_is_stopped_too(self, scripted: Start, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        stuck = scripted()
        os.kill(stuck.status.pid, signal.SIGSTOP)
        for name, seconds in (("STOP_SECONDS", 0.3), ("DRAIN_SECONDS", 60.0), ("TERM_SECONDS", 0.2)):
            monkeypatch.setattr(lifecycle, name, seconds)
        monkeypatch.setattr(lifecycle, "SERVER_MODULE", "tests.scripted_engine")
        with pytest.raises(EngineUnavailable, match="does not answer"):
            lifecycle.probe(home.settings, seconds=0.3)
        notes: list[str] = []
        started = time.monotonic()
        assert lifecycle.stop(home.settings, notify=notes.append)
        assert time.monotonic() - started < 30  # one that does not answer gets no time to finish its work
        assert len(notes) == 1
        assert "does not answer, sending SIGTERM" in notes[0]
        assert stuck.process.wait(5) == -signal.SIGKILL

    def test_only_if_idle_spares_a_working_engine(self, threaded: StartThread, home: Home) -> None:
        engine = threaded(embed_seconds=5)
        busy_with_an_embedding(engine)
        with pytest.raises(EngineBusy):
            lifecycle.stop(home.settings, only_if_idle=True)
        assert engine.alive

    def test_stopping_while_it_works_ends_soon_and_tells_the_client(self, threaded: StartThread, home: Home) -> None:
        from segment_duo.errors import EngineFailed
        from segment_duo.parameters import AutoParameters

        engine = threaded(batches=1000, batch_seconds=0.05)
        client = engine.client()
        image = client.ensure_image(picture()).id
        failures: list[BaseException] = []

        def work() -> None:
            try:
                client.auto(image, AutoParameters())
            except EngineFailed as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        wait_for(lambda: lifecycle.require(home.settings).running)
        started = time.monotonic()
        lifecycle.stop(home.settings)
        thread.join(10)
        assert time.monotonic() - started < 5
        assert "stopped while it worked" in str(failures[0])


class TestLeaving:
    def test_idle_exit(self, home: Home) -> None:
        quick = Home(home.root, Config(idle_minutes=1 / 60))
        pid = lifecycle.ensure_running(quick.settings).pid
        wait_for(lambda: pid not in [process.pid for process in home.processes()], 15)
        assert not home.settings.socket.exists()
        assert "idle for" in log_file.log_tail(home.settings.log)

    def test_an_engine_whose_socket_was_taken_leaves_without_touching_the_other(
        self, scripted: Start, home: Home
    ) -> None:
        first = scripted(own_socket_seconds=0.2)
        path = home.settings.socket
        path.unlink()
        second = scripted()
        assert second.status.pid == second.process.pid
        assert first.process.wait(15) == 0
        assert path.exists()
        assert lifecycle.require(home.settings).pid == second.process.pid

    def test_second_engine_on_the_same_socket_refuses(self, threaded: StartThread, home: Home) -> None:
        threaded()
        with pytest.raises(EngineUnavailable, match="another engine listens"):
            server.bind(home.settings.socket)


class TestSocket:
    def test_modes(self, threaded: StartThread, home: Home) -> None:
        threaded()
        path = home.settings.socket
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_folder_that_others_can_write_to_is_refused(self, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        with pytest.raises(EngineUnavailable, match="others can write"):
            server.bind(shared / "e.sock")

    def test_long_home_gets_a_short_socket(self, tmp_path: Path) -> None:
        deep = Paths(*(tmp_path / ("x" * 120) / name for name in ("c", "d", "k", "s")))
        settings = EngineSettings.of(Config(), deep)
        assert len(os.fsencode(settings.socket)) <= 103
        assert settings.own_socket

    def test_too_long_named_socket_is_an_error(self, tmp_path: Path) -> None:
        paths = Paths(*(tmp_path / name for name in ("c", "d", "k", "s")))
        with pytest.raises(ConfigError, match="bytes"):
            EngineSettings.of(Config(socket=tmp_path / ("y" * 120)), paths)

    def test_something_else_on_the_socket(self, home: Home) -> None:
        path = home.settings.socket
        path.parent.mkdir(parents=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(EngineUnavailable, match="not an engine"):
            lifecycle.probe(home.settings)
        thread.join()
        listener.close()

    def test_peer_is_known(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            peer = lifecycle.peer_of_connection(ours)
        assert peer == lifecycle.Peer(os.geteuid(), os.getpid())

    def test_connections_of_other_users_are_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Transport:
            aborted = False

            def get_extra_info(self, name: str) -> object:
                return None

            def abort(self) -> None:
                self.aborted = True

        monkeypatch.setattr(server, "peer_of_connection", lambda _socket: lifecycle.Peer(os.geteuid() + 1234, 1))
        monkeypatch.setattr(server.H11Protocol, "connection_made", lambda self, transport: None)
        transport = Transport()
        server._OwnUserOnly.connection_made(object.__new__(server._OwnUserOnly), transport)
        assert transport.aborted

    def test_a_socket_served_by_another_user_is_not_talked_to(
        self, threaded: StartThread, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threaded()
        monkeypatch.setattr(lifecycle, "peer_of_connection", lambda _socket: lifecycle.Peer(os.geteuid() + 1, 1))
        with pytest.raises(EngineUnavailable, match="somebody else"):
            lifecycle.probe(home.settings)


class TestLog:
    def test_rotates_and_takes_stdio_along(self, tmp_path: Path) -> None:
        script = (
            "import logging, os, sys\n"
            "from pathlib import Path\n"
            "from segment_duo.engine import server\n"
            "server.LOG_BYTES = 1000\n"
            "handler = server._RotatingLog(Path(sys.argv[1]), with_stdio=True)\n"
            "logging.basicConfig(handlers=[handler], level=logging.INFO)\n"
            "for number in range(200): logging.info('line %d', number)\n"
            "os.write(2, b'from a library\\n')\n"
        )
        log = tmp_path / "engine.log"
        subprocess.run([sys.executable, "-c", script, str(log)], check=True)
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["engine.log", "engine.log.1", "engine.log.2", "engine.log.3"]
        assert all(path.stat().st_size < 1100 for path in tmp_path.iterdir())
        assert log_file.log_tail(log, 1) == "from a library"

    def test_tail_of_no_log_is_empty(self, tmp_path: Path) -> None:
        assert log_file.log_tail(tmp_path / "none") == ""


class TestCommands:
    def test_start_status_logs_stop(self, home: Home) -> None:
        assert run_segduo(home, "engine", "status").returncode == 3
        started = run_segduo(home, "engine", "start", "--device", "cpu", "--idle-minutes", "5")
        assert started.returncode == 0, started.stderr
        shown = json.loads(run_segduo(home, "engine", "status", "--json").stdout)
        assert shown["state"] in {"idle", "busy"}
        assert shown["socket"] == str(home.settings.socket)
        assert 0 < shown["idle_exit_seconds"] <= 300
        table = run_segduo(home, "engine", "status").stdout
        for word in ("state", "version", "socket", "device", "model", "memory cache", "disk cache", "queue", "log"):
            assert word in table
        assert "listens on" in run_segduo(home, "engine", "logs").stdout
        assert run_segduo(home, "engine", "start").returncode == 0
        refused = run_segduo(home, "engine", "start", "--threads", "77", "--idle-minutes", "9")
        assert refused.returncode == 2
        assert "--threads and --idle-minutes would change nothing" in " ".join(refused.stderr.split())
        assert run_segduo(home, "engine", "stop").returncode == 0
        again = run_segduo(home, "engine", "stop")
        assert (again.returncode, again.stderr) == (0, "no engine was running\n")

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_a_daemon_knows_nothing_of_drops_and_its_folders_are_private(self, home: Home) -> None:
        environment = {**home.environment, "SEGDUO_DROPS_PASSWORD": "hunter2", "PASSWORD": "hunter2"}
        command = [sys.executable, "-c", "import os, sys; os.umask(0); from segment_duo.cli.main import main; main()"]
        done = subprocess.run([*command, "engine", "start"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (process,) = home.processes()
        assert b"hunter2" not in Path(f"/proc/{process.pid}/environ").read_bytes()
        folders = [home.root, *(path for path in home.root.rglob("*") if path.is_dir())]
        assert {path.name for path in folders} >= {"state", "engine"}
        assert not [path for path in folders if path.stat().st_mode & 0o077]

    def test_run_stays_in_the_foreground(self, home: Home) -> None:
        command = [sys.executable, "-m", "segment_duo.cli.main", "engine", "run"]
        process = subprocess.Popen(command, env=home.environment, stderr=subprocess.PIPE, text=True)
        try:
            status = wait_for(lambda: lifecycle.probe(home.settings), 20)
            assert status.pid == process.pid
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 0
            assert "engine stopped" in errors
        finally:
            process.kill()

    def test_second_engine_on_its_own_socket(self, home: Home, tmp_path: Path) -> None:
        other = tmp_path / "other.sock"
        nobody = run_segduo(home, "engine", "status", "--socket", str(other))
        assert nobody.returncode == 3
        assert "ssh -L" in nobody.stderr
        assert run_segduo(home, "engine", "start", "--socket", str(other)).returncode == 0
        assert run_segduo(home, "engine", "start").returncode == 0
        assert len(home.processes()) == 2
        assert run_segduo(home, "engine", "stop", "--socket", str(other)).returncode == 0
        assert lifecycle.probe(home.settings) is not None

    def test_release_wants_one_image_or_all(self, home: Home) -> None:
        assert run_segduo(home, "engine", "release").returncode == 2
        assert run_segduo(home, "engine", "release", "x.png", "--all").returncode == 2


def picture() -> np.ndarray:
    return np.zeros((30, 40, 3), dtype=np.uint8)


def busy_with_an_embedding(engine: ThreadedEngine) -> None:
    """Give the engine a job that outlasts the test, from a thread of its own."""
    client = engine.client()

    def work() -> None:
        from segment_duo.errors import SegduoError

        try:
            client.ensure_image(picture())
        except SegduoError:
            return

    threading.Thread(target=work, daemon=True).start()
    wait_for(lambda: (lifecycle.probe(engine.home.settings) or engine.status).running)
