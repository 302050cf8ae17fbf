"""Getting checkpoints: from Meta's server, a lab's mirror or a folder; resumable, verified, renamed into place last.

    <models folder>/<file>.part  --(complete, sha256 right)-->  <models folder>/<file>

A file that is not what it should be never gets its final name. Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, urlsplit

from segment_duo.errors import Cancelled, ModelError, OutOfSpace
from segment_duo.models.checkpoints import checkpoint_path, partial_path
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.catalogue import ModelSpec

if TYPE_CHECKING:
    import requests

CHUNK = 2**20
PIECE = 2**14
"""Bytes taken from the network at once: a piece that a break interrupts is lost, so on bad links small ones get further."""
CONNECT_SECONDS = 20
SILENCE_SECONDS = 60
ATTEMPTS = 5
"""Broken transfers are taken up again where they ended; after so many without a new byte we give up."""
BACKOFF_SECONDS = 1.0

WAITING = "waiting to try again"

Report = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and what happens (``downloading``, ``verifying``, :data:`WAITING` and why)."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check found. ``problem`` is empty when size and SHA-256 are right."""

    path: Path
    bytes: int
    sha256: str
    problem: str = ""


def pull(
    spec: ModelSpec,
    paths: Paths,
    *,
    mirror: str | None = None,
    report: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Get a checkpoint, unless it is here already and right.

    Args:
        spec: which one.
        paths: decides the folder.
        mirror: address or folder to take it from instead of the official server; the file has its official name there.
        report: told about progress.
        cancelled: asked between chunks; what was received stays for the next time.

    Raises:
        ModelError: not reachable, not there, or not the right file (then it is removed).
        OutOfSpace: the disk is full.
        Cancelled: ``cancelled`` returned True.
    """
    report = report or (lambda _done, _total, _what: None)
    target = checkpoint_path(paths, spec)
    part = partial_path(paths, spec)
    try:
        paths.models_dir.mkdir(parents=True, exist_ok=True)
        with _only_one(part):
            if target.exists() and not _check(target, spec, report).problem:
                return target
            _fetch(spec, part, mirror, report, cancelled or (lambda: False))
            checked = _check(part, spec, report)
            if checked.problem:
                part.unlink()
                raise ModelError(
                    f"what was received is not {spec.checkpoint_file}: {checked.problem}",
                    "The source may be wrong or damaged on the way. Nothing was kept; try again or another mirror.",
                )
            part.replace(target)
            _sync_folder(target.parent)
    except OSError as error:
        raise _disk_error(error, paths.models_dir) from None
    return target


def verify(spec: ModelSpec, paths: Paths, *, report: Report | None = None) -> Verified:
    """Check size and SHA-256 of a pulled checkpoint by reading it whole.

    Raises:
        ModelError: it is not here, or cannot be read.
    """
    path = checkpoint_path(paths, spec)
    if not path.exists():
        raise ModelError(f"'{spec.id}' is not on this machine", f"Get it with `segduo models pull {spec.id}`.")
    try:
        return _check(path, spec, report or (lambda _done, _total, _what: None))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None


def _fetch(spec: ModelSpec, part: Path, mirror: str | None, report: Report, cancelled: Callable[[], bool]) -> None:
    if _size(part) > spec.bytes:
        part.unlink()
    if mirror and "://" in mirror and not mirror.startswith(("http://", "https://", "file://")):
        raise ModelError(
            f"a model mirror of the kind {mirror.partition('://')[0]}:// cannot be read",
            "SEGDUO_MODEL_MIRROR is an address with http:// or https://, or a folder.",
        )
    if mirror and not mirror.startswith(("http://", "https://")):
        _copy(_file_in(mirror, spec), spec, part, report, cancelled)
        return
    address = mirror.rstrip("/") + "/" + quote(spec.checkpoint_file) if mirror else spec.url
    _download(address, spec, part, report, cancelled)


def _file_in(mirror: str, spec: ModelSpec) -> Path:
    folder = Path(mirror.removeprefix("file://")).expanduser()
    source = folder / spec.checkpoint_file
    if not source.is_file():
        raise ModelError(
            f"there is no {spec.checkpoint_file} in {folder}", "Is the model mirror (SEGDUO_MODEL_MIRROR) right?"
        )
    return source


def _copy(source: Path, spec: ModelSpec, part: Path, report: Report, cancelled: Callable[[], bool]) -> None:
    with source.open("rb") as stream, part.open("wb") as out:
        done = 0
        while chunk := stream.read(CHUNK):
            done += _write(out, chunk, done, spec, cancelled)
            report(done, spec.bytes, "copying")
        _settle(out)


def _download(address: str, spec: ModelSpec, part: Path, report: Report, cancelled: Callable[[], bool]) -> None:
    import time

    import requests
    from urllib3.exceptions import HTTPError

    fruitless = 0
    while (start := _size(part)) < spec.bytes:
        problem = ""
        try:
            _transfer(address, spec, part, report, cancelled)
            if _size(part) < spec.bytes:
                problem = "the transfer ended early"
        except (requests.exceptions.RequestException, HTTPError, TimeoutError) as error:
            problem = _plain(error)
        if not problem:
            return
        fruitless = 0 if _size(part) > start else fruitless + 1
        if fruitless >= ATTEMPTS:
            host = urlsplit(address).hostname
            raise ModelError(
                f"{spec.checkpoint_file} cannot be fetched from {host}: {problem}",
                "Check the connection and HTTPS_PROXY, or name a mirror or a folder in SEGDUO_MODEL_MIRROR. "
                "What was received so far is kept.",
            )
        report(_size(part), spec.bytes, f"{WAITING} ({urlsplit(address).hostname}: {problem})")
        time.sleep(BACKOFF_SECONDS * 2**fruitless)
        if cancelled():
            raise Cancelled("the download was stopped; the next one goes on from here")


def _transfer(address: str, spec: ModelSpec, part: Path, report: Report, cancelled: Callable[[], bool]) -> None:
    import requests

    done = _size(part)
    # Without this the server may send a compressed body, whose ranges are not those of the file.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with requests.get(address, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENCE_SECONDS)) as response:
        _refuse(response, address, spec)
        if done and not _continues(response, done):
            done = 0  # the server ignores ranges: from the beginning
        _expect_size(response, done, spec)
        with part.open("ab" if done else "wb") as out:
            # As the bytes come: a whole piece of a trickling server would take for ever, and what it sent be lost.
            while chunk := response.raw.read1(PIECE, decode_content=True):
                done += _write(out, chunk, done, spec, cancelled)
                report(done, spec.bytes, "downloading")
            _settle(out)


def _refuse(response: requests.Response, address: str, spec: ModelSpec) -> None:
    status = response.status_code
    if status in {200, 206}:
        return
    if status in {416, 429} or status >= 500:
        # 416: the part is longer than the server's file; the check after the transfer will say so.
        response.raise_for_status()
    raise ModelError(
        f"HTTP {status} for {spec.checkpoint_file} from {urlsplit(address).hostname}",
        "Is the mirror (SEGDUO_MODEL_MIRROR) right, and does a proxy stand in between?",
    )


def _continues(response: requests.Response, done: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _expect_size(response: requests.Response, done: int, spec: ModelSpec) -> None:
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and done + int(announced) != spec.bytes:
        raise ModelError(
            f"the server offers {done + int(announced)} bytes, {spec.checkpoint_file} has {spec.bytes}",
            "Another file, or a proxy's login page: look at the address in a browser.",
        )


def _write(out: IO[bytes], chunk: bytes, done: int, spec: ModelSpec, cancelled: Callable[[], bool]) -> int:
    if done + len(chunk) > spec.bytes:
        raise ModelError(f"the source sends more than the {spec.bytes} bytes of {spec.checkpoint_file}")
    out.write(chunk)
    if cancelled():
        raise Cancelled("the download was stopped; the next one goes on from here")
    return len(chunk)


def _check(path: Path, spec: ModelSpec, report: Report) -> Verified:
    size = path.stat().st_size
    if size != spec.bytes:
        return Verified(path, size, "", f"{size} bytes instead of {spec.bytes}")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        done = 0
        while chunk := stream.read(4 * CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done, size, "verifying")
    found = digest.hexdigest()
    problem = "" if found == spec.sha256 else f"SHA-256 {found} instead of {spec.sha256}"
    return Verified(path, size, found, problem)


@contextlib.contextmanager
def _only_one(part: Path) -> Iterator[None]:
    """Two downloads of the same file would write into each other."""
    with part.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"another command is fetching {part.stem} right now", "Wait for it to end.") from None
        except OSError:
            pass  # no locks on this file system
        yield


def _settle(out: IO[bytes]) -> None:
    out.flush()
    os.fsync(out.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: OSError, folder: Path) -> ModelError | OutOfSpace:
    import errno

    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutOfSpace(f"no space left in {folder}", "Free some space; the next pull goes on from here.")
    return ModelError(f"{error.filename or folder}: {error.strerror or error}")


_REASONS = {
    "NameResolutionError": "its name is not known here: no network, or a typing error",
    "gaierror": "its name is not known here: no network, or a typing error",
    "NewConnectionError": "no connection",
    "ConnectTimeoutError": f"no connection within {CONNECT_SECONDS} s",
    "ReadTimeoutError": f"nothing came for {SILENCE_SECONDS} s",
    "ProxyError": "the proxy does not answer, or refuses",
    "SSLError": "its certificate is not accepted (REQUESTS_CA_BUNDLE names one of your own)",
    "SSLCertVerificationError": "its certificate is not accepted (REQUESTS_CA_BUNDLE names one of your own)",
    "IncompleteRead": "the transfer broke off",
    "ProtocolError": "the transfer broke off",
}
"""What the names of urllib3's and requests' errors mean to a user."""


def _plain(error: BaseException) -> str:
    """The reason, without addresses: they may hold a mirror's user name and password."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    names = [type(error).__name__]
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
        names.append(type(cause).__name__)
    reason = getattr(cause, "reason", None)
    if isinstance(reason, BaseException):
        names.append(type(reason).__name__)
    return next((_REASONS[name] for name in reversed(names) if name in _REASONS), names[-1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
