"""The engine's process: binds the socket, serves, watches itself, cleans up. ``python -m segment_duo.engine.server --settings JSON``.

The socket is ours alone: its folder is 0700, the socket 0600, and every connection's user id is checked. It is bound under a lock after
a look whether somebody already listens, and only the very socket this process made is ever removed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import fcntl
import logging
import logging.handlers
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from uvicorn.protocols.http.h11_impl import H11Protocol

from segment_duo import __version__
from segment_duo.durable import make_private_folders
from segment_duo.engine.lifecycle import peer_of_connection
from segment_duo.engine.routes import EngineService, create_app
from segment_duo.engine.settings import EngineSettings, check_socket_length
from segment_duo.engine.uploads import UploadLimits
from segment_duo.engine.worker import Compute, Worker
from segment_duo.errors import EngineFailed, EngineUnavailable, SegduoError
from segment_duo.text import safe

LOG_BYTES = 2**20
LOG_FILES = 3
WATCH_SECONDS = 0.5
OWN_SOCKET_SECONDS = 5.0
"""How often the engine checks that the socket's path still leads to it."""
GRACE_SECONDS = 3
"""How long answers that are being written may take once the engine stops."""
WORKER_SECONDS = 10.0
"""How long a running job may take to notice that it is cancelled; one encoder pass of a large model cannot be interrupted."""
KEEP_ALIVE_SECONDS = 30
FAILURE_SECONDS = 5.0
"""How long an engine that can never compute still tells so in its status before it leaves."""

log = logging.getLogger("segduo.engine")


class BoundSocket:
    """A listening socket and the file it made."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self.listener = listener
        self.path = path
        facts = path.lstat()
        self._identity = (facts.st_dev, facts.st_ino)

    def is_ours(self) -> bool:
        """Whether the path still leads to this socket (a cleaner may remove it, another engine may have taken the place)."""
        try:
            facts = self.path.lstat()
        except OSError:
            return False
        return (facts.st_dev, facts.st_ino) == self._identity

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if self.is_ours():
            self.path.unlink(missing_ok=True)


def bind(path: Path) -> BoundSocket:
    """Listen on a private Unix socket at ``path``; a leftover socket of a dead engine is replaced.

    Raises:
        EngineUnavailable: another engine listens there, or the place cannot be trusted.
        ConfigError: the path is too long.
    """
    check_socket_length(path)
    _private_folder(path.parent)
    with _bind_lock(path):
        if _somebody_listens(path):
            raise EngineUnavailable(f"another engine listens on {path}", "Use it, or end it with `segduo engine stop`.")
        _remove_leftover(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            listener.close()
            raise EngineUnavailable(f"cannot listen on {path}: {error.strerror or error}") from None
        finally:
            os.umask(before)
        path.chmod(0o600)
        facts = path.lstat()
        if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) != 0o600:
            listener.close()
            raise EngineUnavailable(
                f"{path} was changed while the engine made it", "Somebody else can write to its folder."
            )
        listener.listen(128)
        return BoundSocket(listener, path)


def serve(
    settings: EngineSettings, make_compute: Callable[[EngineSettings], Compute], *, foreground: bool = False
) -> None:
    """Run an engine until it is asked to stop, gets SIGTERM or SIGINT, or has been idle for long enough.

    Args:
        settings: where and how.
        make_compute: makes what computes.
        foreground: log to stderr as well (for systemd, launchd and people).

    Raises:
        EngineUnavailable: the socket cannot be had.
        SegduoError: it could never compute; its device is missing, for example.
    """
    _start_log(settings, foreground=foreground)
    bound = bind(settings.socket)
    log.info("engine %s, pid %d, listens on %s", __version__, os.getpid(), safe(settings.socket))
    compute = make_compute(settings)
    worker = Worker(when_idle=compute.trim)
    try:
        failure = asyncio.run(serve_socket(settings, bound, worker, compute))
    finally:
        bound.remove()
        finished = worker.close(seconds=WORKER_SECONDS)
        log.info("engine stopped, pid %d", os.getpid())
        logging.shutdown()
        if not finished:
            # The worker thread is inside one long computation that nobody waits for any more.
            os._exit(0)
    if failure is not None:
        raise failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the engine's process."""
    parser = argparse.ArgumentParser(prog="python -m segment_duo.engine.server", description=__doc__)
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    parser.add_argument("--foreground", action="store_true", help="log to stderr as well")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    try:
        settings = EngineSettings.model_validate_json(options.settings)
    except ValidationError as error:
        parser.error(str(error))
    from segment_duo.engine.operations import Operations

    try:
        serve(settings, Operations, foreground=options.foreground)
    except SegduoError as error:
        log.error("%s", safe(error.message))
        sys.stderr.write(f"segduo engine: {safe(error.message)}\n")
        return error.exit_code
    return 0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again once it has served, before our own cleaning up.
        yield


class _OwnUserOnly(H11Protocol):
    """Drops connections of other users at once. The socket's mode already keeps them out; this holds also where modes are not honoured."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        peer = peer_of_connection(transport.get_extra_info("socket"))
        if peer is not None and peer.uid not in {os.geteuid(), 0}:
            log.warning("refused a connection of user %d", peer.uid)
            transport.abort()


async def serve_socket(
    settings: EngineSettings,
    bound: BoundSocket,
    worker: Worker,
    compute: Compute,
    limits: UploadLimits | None = None,
) -> SegduoError | None:
    """Answer on a bound socket until asked to stop; may run in any thread. The caller removes the socket and closes the worker.

    ``limits``: how long uploads may take.

    Returns:
        why this engine could never compute, None after ordinary work.
    """
    service = EngineService(settings, worker, compute, limits)
    server = _Server(
        uvicorn.Config(
            create_app(service),
            http=_OwnUserOnly,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )

    def stop() -> None:
        if not service.stopping:
            service.stopping = True
            bound.remove()  # before the answer: who connects from now on starts a new engine instead of meeting this one
            worker.close(seconds=0)
            # Answers to what was cancelled are still written; then the server ends.
            loop.call_later(0.1, setattr, server, "should_exit", True)

    service.request_stop = stop
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():  # elsewhere signals belong to the host
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
    worker.start()

    def give_up(failure: SegduoError) -> None:
        # Not at once: whoever started this engine reads the reason from its status.
        service.failure = failure
        loop.call_later(FAILURE_SECONDS, stop)

    def prepare() -> None:
        failure = _prepare(compute)
        if failure is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the engine has been stopped meanwhile
                loop.call_soon_threadsafe(give_up, failure)

    threading.Thread(target=prepare, name="engine-prepare", daemon=True).start()
    watch = asyncio.create_task(_watch(service, bound, stop))
    try:
        await server.serve(sockets=[bound.listener])
    finally:
        watch.cancel()
    return service.failure


def _prepare(compute: Compute) -> SegduoError | None:
    """Load torch and choose the device; the reason if that cannot be. Jobs that come meanwhile meet the same failure."""
    try:
        compute.prepare()
    except SegduoError as error:
        log.error("%s", safe(error.message))
        return error
    except Exception as error:
        log.exception("preparing failed")
        return EngineFailed(f"{type(error).__name__}: {error}", "`segduo engine logs` shows where it happened.")
    return None


async def _watch(service: EngineService, bound: BoundSocket, stop: Callable[[], None]) -> None:
    patience = service.settings.config.idle_minutes * 60
    looked = time.monotonic()
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if service.idle_seconds >= patience:
            log.info("idle for %.1f minutes", patience / 60)
            stop()
            return
        if time.monotonic() - looked >= OWN_SOCKET_SECONDS:
            looked = time.monotonic()
            if not bound.is_ours() and not service.worker.busy:
                log.warning("the socket was removed or replaced: %s", safe(bound.path))
                stop()
                return


class _RotatingLog(logging.handlers.RotatingFileHandler):
    """A bounded log that takes the process's stdout and stderr along: a crash report of a library ends up in the current file."""

    def __init__(self, path: Path, *, with_stdio: bool) -> None:
        self._with_stdio = with_stdio
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", errors="backslashreplace")
        self._redirect()

    def doRollover(self) -> None:
        super().doRollover()
        self._redirect()

    def _redirect(self) -> None:
        if self._with_stdio and self.stream is not None:
            for number in (1, 2):
                os.dup2(self.stream.fileno(), number)


def _start_log(settings: EngineSettings, *, foreground: bool) -> None:
    logging.raiseExceptions = False  # a full disk must not stop the engine
    handlers: list[logging.Handler] = []
    try:
        make_private_folders(settings.log.parent)
        handlers.append(_RotatingLog(settings.log, with_stdio=not foreground))
    except OSError as error:
        sys.stderr.write(f"segduo engine: cannot write {safe(settings.log)}: {error.strerror}\n")
    if foreground or not handlers:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=handlers, force=True
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _private_folder(folder: Path) -> None:
    """Make the socket's folder (0700), or check that nobody else can put things there.

    Raises:
        EngineUnavailable: others may write to it (unless it is sticky, as /tmp is), or it belongs to somebody else.
    """
    try:
        make_private_folders(folder)
        facts = folder.stat()
    except OSError as error:
        raise EngineUnavailable(f"cannot make {folder}: {error.strerror or error}") from None
    if facts.st_uid not in {os.geteuid(), 0}:
        raise EngineUnavailable(
            f"{folder}, where the engine's socket would be, belongs to user {facts.st_uid}",
            "Name a place of your own with --socket or SEGDUO_HOME, or compute without an engine: --in-process.",
        )
    if facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX:
        raise EngineUnavailable(
            f"others can write to {folder}, where the engine's socket would be",
            f"Take the permission away (chmod go-w {folder}), or name another place with --socket.",
        )


@contextlib.contextmanager
def _bind_lock(path: Path) -> Iterator[None]:
    try:
        lock = path.with_name(path.name + ".lock").open("a")
    except OSError as error:
        raise EngineUnavailable(f"cannot write beside {path}: {error.strerror or error}") from None
    with lock:
        # Some network file systems have no locks; two engines that bind in the same instant are then the worst that can happen.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _somebody_listens(path: Path) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(2)
        probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return path.is_socket()
    finally:
        probe.close()
    return True


def _remove_leftover(path: Path) -> None:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.geteuid():
        raise EngineUnavailable(
            f"{path} is in the way and is not a socket of ours", "Move it, or name another place with --socket."
        )
    path.unlink()


if __name__ == "__main__":
    sys.exit(main())
