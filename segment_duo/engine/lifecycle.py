"""Finding, starting and stopping the engine daemon.

    probe -> take the start lock -> probe again -> spawn detached -> wait for a good status -> on failure: the end of the log

Liveness is tested by talking to the socket, never by a pid file. Stopping is a ladder: ask, SIGTERM, SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from segment_duo import __version__
from segment_duo.engine import protocol
from segment_duo.engine.log_file import last_words, open_log
from segment_duo.engine.reports import EngineStatus
from segment_duo.engine.settings import EngineSettings
from segment_duo.errors import EngineBusy, EngineUnavailable, error_from_slug

if TYPE_CHECKING:
    import psutil

SERVER_MODULE = "segment_duo.engine.server"
START_SECONDS = 90.0
"""A cold start reads some 50 MB of Python from a possibly slow home; it takes 1 to 2 s from a warm disk."""
PROBE_SECONDS = 20.0
"""A healthy engine answers in milliseconds; this is for machines that swap or starve."""
LOCK_SECONDS = 120.0
STOP_SECONDS = 5.0
"""How long `engine stop` waits for an answer before it turns to signals; SIGTERM is no harm to an engine that is only slow."""
DRAIN_SECONDS = 15.0
TERM_SECONDS = 5.0
KILL_SECONDS = 5.0


_children: list[subprocess.Popen[bytes]] = []
# Kept so that a long-lived client (the terminal UI) can reap an engine that ended before it.


@dataclass(frozen=True, slots=True)
class Peer:
    """Who listens at the other end of a socket. ``pid`` 0: the system does not tell."""

    uid: int
    pid: int


def probe(settings: EngineSettings, *, seconds: float = PROBE_SECONDS) -> EngineStatus | None:
    """The status of the engine on this socket, or None if nobody listens.

    Raises:
        EngineUnavailable: somebody listens but does not answer in time or not as an engine; or the socket is another user's.
    """
    try:
        body = _get_status(settings.socket, seconds)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise EngineUnavailable(f"the socket belongs to somebody else: {settings.socket}", _OTHER_SOCKET) from None
    except TimeoutError:
        raise EngineUnavailable(
            f"the engine on {settings.socket} does not answer", "End it with `segduo engine stop` and try again."
        ) from None
    except OSError as error:
        raise EngineUnavailable(f"{settings.socket}: {error.strerror or error}", _OTHER_SOCKET) from None
    return _parse_status(body, settings.socket)


def require(settings: EngineSettings) -> EngineStatus:
    """The status of a running engine that speaks our protocol; starts nothing.

    Raises:
        EngineUnavailable: nobody listens, or the protocol is another one.
    """
    status = probe(settings)
    if status is None:
        raise nobody_listens(settings)
    if status.protocol != protocol.PROTOCOL_VERSION:
        raise EngineUnavailable(
            f"the engine on {settings.socket} is version {status.version}, this is {__version__}",
            "Install the same version on both sides.",
        )
    return status


def nobody_listens(settings: EngineSettings) -> EngineUnavailable:
    """What to tell somebody who asked an engine that does not run."""
    own = "Any command that needs it starts it, as `segduo engine start` does."
    foreign = "Start it there with `segduo engine run --socket PATH`, or check the ssh -L connection."
    return EngineUnavailable(f"no engine listens on {settings.socket}", own if settings.own_socket else foreign)


def ensure_running(settings: EngineSettings) -> EngineStatus:
    """An engine that answers: the one that runs, or a new one. An idle one of another version or device, or with a lower limit
    of pixels, is replaced.

    Where a device is named, the answer waits until the engine has it: an engine that turns out to lack it would fail every later command.

    Raises:
        EngineUnavailable: it could not be started; the message ends with the end of the log.
        EngineBusy: another version or device is wanted, but the engine is working for somebody.
        ConfigError: this machine does not have the device.
    """
    status = _probe_device(settings)
    if status is not None and _fits(status, settings):
        return status
    with _start_lock(settings):
        status = _probe_device(settings)
        if status is not None:
            if _fits(status, settings):
                return status
            if not _replaceable(status, settings):
                return status
            stop(settings, only_if_idle=status.failure is None)
        return _spawn(settings)


def stop(settings: EngineSettings, *, only_if_idle: bool = False, notify: Callable[[str], None] | None = None) -> bool:
    """Stop the engine: ask it, then SIGTERM, then SIGKILL. False if none ran.

    An engine behind a forwarded socket is only asked: its process is not ours to signal. ``notify`` is told when asking does not help.

    Raises:
        EngineBusy: ``only_if_idle`` and somebody's work runs or waits.
        EngineUnavailable: it would not go away.
    """
    peer = _peer_of(settings.socket)
    if peer is None:
        return False
    process = _engine_process(peer)
    answers = _ask_to_stop(settings, only_if_idle=only_if_idle)
    # One that does not even answer (stopped, stuck in a driver) will not drain either.
    if _gone(settings, process, DRAIN_SECONDS if answers else 0):
        return True
    if process is not None:
        if notify is not None:
            what = "is not done yet" if answers else "does not answer"
            notify(f"the engine (pid {process.pid}) {what}, sending SIGTERM and then SIGKILL")
        for sent, patience in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            with contextlib.suppress(OSError):
                process.send_signal(sent)
            if _gone(settings, process, patience):
                return True
    raise EngineUnavailable(f"the engine on {settings.socket} does not stop", "Look for its process with `ps`.")


def spawn_command(settings: EngineSettings) -> list[str]:
    """The command line that starts an engine with these settings. ``-P`` keeps the working folder off the import path."""
    return [sys.executable, "-P", "-m", SERVER_MODULE, "--settings", settings.model_dump_json(exclude_defaults=True)]


def run_in_foreground(settings: EngineSettings) -> NoReturn:
    """Become the engine: this process is replaced, keeps its pid, and logs to stderr as well (for systemd, launchd and people)."""
    os.execve(sys.executable, [*spawn_command(settings), "--foreground"], spawn_environment())


def spawn_environment() -> dict[str, str]:
    """The environment of the engine's process: ours without what only front ends may know, the allocator's settings, and where to import this
    very package from.
    """
    from segment_duo.segmenters import allocator

    kept = {name: value for name, value in os.environ.items() if not _is_secret(name)}
    environment = {**kept, **allocator.allocator_environment()}
    root = str(Path(__file__).resolve().parents[2])
    if Path(root).name not in {"site-packages", "dist-packages"}:
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([root, before]) if before else root
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def _is_secret(variable: str) -> bool:
    """Drops is none of the engine's business; ``PASSWORD`` is what the web app calls its password."""
    return variable.startswith("SEGDUO_DROPS_") or variable == "PASSWORD"


def peer_of_connection(connection: socket.socket) -> Peer | None:
    """Who is at the other end of a connected Unix socket: SO_PEERCRED (Linux), LOCAL_PEERCRED and LOCAL_PEERPID (macOS). None where unknown."""
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _gid = struct.unpack("3i", data)
        return Peer(uid, pid)
    if sys.platform == "darwin":
        # struct xucred: version, uid, number of groups (a short, padded), 16 groups; level SOL_LOCAL = 0.
        data = connection.getsockopt(0, 1, struct.calcsize("IIh2x16I"))
        pid = struct.unpack("i", connection.getsockopt(0, 2, 4))[0]
        return Peer(struct.unpack_from("II", data)[1], pid)
    return None


_OTHER_SOCKET = "Remove it if it is a leftover, or name another one with --socket."


def _probe_device(settings: EngineSettings) -> EngineStatus | None:
    """As :func:`probe`; where a device is named, an engine that has just been started is given time to find its own."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        status = probe(settings)
        if status is None or settings.config.device == "auto" or time.monotonic() > deadline:
            return status
        if status.device or status.failure or status.version != __version__:
            return status
        time.sleep(0.05)


def _fits(status: EngineStatus, settings: EngineSettings) -> bool:
    if status.protocol != protocol.PROTOCOL_VERSION or status.version != __version__ or status.failure is not None:
        return False
    if 0 < status.max_pixels < settings.config.max_pixels:
        return False
    wanted = settings.config.device
    return wanted == "auto" or not status.device or status.device == wanted


def _replaceable(status: EngineStatus, settings: EngineSettings) -> bool:
    """Whether an engine that does not fit may be stopped; False: it is busy, and good enough to be used as it is."""
    if status.state not in {"busy", "starting"} or status.failure is not None:
        return True
    if status.protocol != protocol.PROTOCOL_VERSION:
        raise EngineBusy(
            f"an engine of another version ({status.version}) is working for somebody",
            "Try again when it is done (`segduo engine status`), or add --in-process.",
        )
    wanted = settings.config.device
    if wanted != "auto" and status.device and status.device != wanted:
        raise EngineBusy(
            f"the engine works on {status.device} for somebody, not on {wanted}",
            "Try again when it is done (`segduo engine status`), or add --in-process.",
        )
    return False


def _spawn(settings: EngineSettings) -> EngineStatus:
    _children[:] = [child for child in _children if child.poll() is None]
    with open_log(settings.log) as log:
        before = log.seek(0, os.SEEK_END)
        try:
            child = subprocess.Popen(
                spawn_command(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=spawn_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineUnavailable(f"the engine could not be started: {error}") from None
    _children.append(child)
    status = _first_status(child, settings, before)
    if settings.config.device != "auto":
        status = _probe_device(settings) or status
    if status.failure is not None:
        raise error_from_slug(status.failure.slug, status.failure.message, status.failure.hint)
    return status


def _first_status(child: subprocess.Popen[bytes], settings: EngineSettings, before: int) -> EngineStatus:
    """What the new engine says as soon as it answers. ``before``: where its lines in the log begin.

    Raises:
        EngineUnavailable: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = probe(settings)
        if status is not None:
            return status
        if child.poll() is not None:
            # It may have lost a race against `engine run`: then another one answers.
            status = probe(settings)
            if status is not None:
                return status
            break
        time.sleep(0.03)
    tail = last_words(settings.log, before)
    what = (
        "the engine did not start"
        if child.poll() is not None
        else f"the engine did not answer in {START_SECONDS:.0f} s"
    )
    raise EngineUnavailable(
        f"{what}; the end of its log:\n{tail}" if tail else what,
        f"The log is {settings.log}. --in-process does without it.",
    )


@contextlib.contextmanager
def _start_lock(settings: EngineSettings) -> Iterator[None]:
    """Hold the start lock; go without where the file system has no locks (some NFS homes), as the bind lock still decides."""
    import fcntl

    open_log(settings.log).close()
    _own_folder(settings.start_lock.parent)
    with settings.start_lock.open("a") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineUnavailable(
                        "another command has been starting the engine for too long", f"Its log is {settings.log}."
                    ) from None
                time.sleep(0.05)
            except OSError:
                break
        yield


def _own_folder(folder: Path) -> None:
    """Make the lock's folder; below /tmp it may be there already, made by somebody else to have us write where they like."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise EngineUnavailable(f"cannot make {folder}: {error.strerror or error}") from None
    if owner not in {os.geteuid(), 0}:
        raise EngineUnavailable(f"{folder} belongs to somebody else", "Ask them to remove it, or use --in-process.")


def _get_status(path: Path, seconds: float) -> bytes:
    """GET the status with the standard library alone: `segduo engine status` should not wait 0.2 s for imports."""
    from http.client import HTTPConnection, HTTPException

    with _connected(path, seconds) as connection:
        http = HTTPConnection("localhost")
        http.sock = connection
        try:
            http.request("GET", protocol.STATUS, headers={"Connection": "close"})
            response = http.getresponse()
            return response.read(protocol.MAX_JSON_BYTES)
        except HTTPException as error:
            # A process that is being killed closes the connection without an answer: nobody is there any more.
            raise ConnectionRefusedError(str(error)) from None
        except (ConnectionResetError, BrokenPipeError) as error:
            raise ConnectionRefusedError(str(error)) from None


@contextlib.contextmanager
def _connected(path: Path, seconds: float) -> Iterator[socket.socket]:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(str(path))
        peer = peer_of_connection(connection)
        if peer is not None and peer.uid not in {os.geteuid(), 0}:
            # Somebody else put a socket where ours is expected; nothing is sent to it.
            raise PermissionError(f"{path} is served by user {peer.uid}")
        yield connection
    finally:
        connection.close()


def _parse_status(body: bytes, path: Path) -> EngineStatus:
    from pydantic import ValidationError

    try:
        return EngineStatus.model_validate_json(body)
    except ValidationError:
        raise EngineUnavailable(f"something that is not an engine listens on {path}", _OTHER_SOCKET) from None


def _peer_of(path: Path) -> Peer | None:
    """Who listens on a socket, or None if nobody does. Works also when the listener is stuck: the kernel answers."""
    try:
        with _connected(path, PROBE_SECONDS) as connection:
            return peer_of_connection(connection) or Peer(os.geteuid(), 0)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise EngineUnavailable(f"{path}: {error.strerror or error}", _OTHER_SOCKET) from None


def _engine_process(peer: Peer) -> psutil.Process | None:
    """The process behind a socket if it is an engine of ours; None for a forwarded socket (its listener is ssh)."""
    import psutil

    if peer.pid <= 0 or peer.uid != os.geteuid():
        return None
    try:
        process = psutil.Process(peer.pid)
        arguments = process.cmdline()
    except psutil.Error:
        return None
    return process if SERVER_MODULE in arguments and process.pid != os.getpid() else None


def _ask_to_stop(settings: EngineSettings, *, only_if_idle: bool) -> bool:
    """False if it does not answer in time."""
    import json
    from http.client import HTTPConnection, HTTPException

    body = protocol.StopRequest(only_if_idle=only_if_idle).model_dump_json()
    try:
        with _connected(settings.socket, PROBE_SECONDS if only_if_idle else STOP_SECONDS) as connection:
            http = HTTPConnection("localhost")
            http.sock = connection
            headers = {"Content-Type": "application/json", "Connection": "close"}
            http.request("POST", protocol.STOP, body=body, headers=headers)
            response = http.getresponse()
            answer = response.read(protocol.MAX_JSON_BYTES)
    except TimeoutError:
        return False
    except (OSError, HTTPException):
        return True  # it is going already
    if response.status == 503:
        message = json.loads(answer)
        raise EngineBusy(str(message.get("message", "the engine is busy")), str(message.get("hint", "")))
    return True


def _gone(settings: EngineSettings, process: psutil.Process | None, seconds: float) -> bool:
    import psutil

    deadline = time.monotonic() + seconds
    while True:
        if process is None:
            try:
                gone = _peer_of(settings.socket) is None
            except EngineUnavailable:
                gone = False
        else:
            try:
                gone = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                gone = True
        if gone or time.monotonic() > deadline:
            return gone
        time.sleep(0.03)
