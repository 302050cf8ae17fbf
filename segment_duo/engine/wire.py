"""Bytes to and from an engine's socket: HTTP over a Unix socket, its failures as ours. Knows no operation, repeats nothing.

Heavy imports (requests) happen in the calls that need them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.engine import protocol
from segment_duo.engine.protocol import ImageMissing, Operation
from segment_duo.errors import EngineFailed, SegduoError, error_from_slug

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
"""For requests the engine answers without computing; long, because a machine that swaps or starves is not a dead engine."""
WORK_SECONDS = 3600.0
"""For operations that answer once, which may wait behind somebody's long run."""
STREAM_SILENCE_SECONDS = 120.0
"""Longest silence in a stream whose heartbeat is half a second: covers a machine that swaps."""
MAX_LINE_BYTES = 512 * 2**20


class ConnectionLost(Exception):
    """The engine went away. ``working``: after it had taken a request."""

    def __init__(self, reason: BaseException, *, working: bool) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.working = working


class Wire:
    """Requests to one socket; each thread has a connection of its own."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._threads = threading.local()

    def close(self) -> None:
        """Close this thread's connection."""
        session = getattr(self._threads, "session", None)
        if session is not None:
            session.close()
            del self._threads.session

    def request(
        self,
        method: str,
        route: str,
        *,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> bytes:
        """Send a request; the body of the answer.

        Raises:
            ConnectionLost, ImageMissing
            SegduoError: what the engine answered.
        """
        with _lost_connections():
            response = self._session().request(
                method,
                self._address(route),
                data=data,
                headers=dict(headers or {}),
                params=params,
                # The first of the two is also the limit for sending all of an upload; connecting to a Unix socket takes no time.
                timeout=(seconds, seconds),
                allow_redirects=False,
            )
            _raise_for(response)
            return response.content

    @contextmanager
    def stream(self, route: str, body: bytes) -> Iterator[Iterator[bytes]]:
        """Send a request whose answer is lines of JSON. Leaving the block before their end makes the engine cancel."""
        with _lost_connections():
            response = self._session().post(
                self._address(route),
                data=body,
                headers={"Content-Type": protocol.JSON, "Accept": protocol.NDJSON},
                stream=True,
                timeout=(CONNECT_SECONDS, STREAM_SILENCE_SECONDS),
                allow_redirects=False,
            )
        # Not under _lost_connections: an OSError of the caller (a closed pipe) is none of the engine's.
        try:
            with _lost_connections():
                _raise_for(response)
            yield _lines(response)
        finally:
            # Closing a stream that is not at its end closes the connection: the engine sees it and cancels.
            response.close()

    @contextmanager
    def hold(self, route: str) -> Iterator[None]:
        """Keep a connection open while the block runs; the engine sees it end."""
        with _lost_connections():
            response = self._session().get(
                self._address(route), stream=True, timeout=(CONNECT_SECONDS, ANSWER_SECONDS), allow_redirects=False
            )
        try:
            with _lost_connections():
                _raise_for(response)
                next(response.iter_content(chunk_size=1), b"")
            yield
        finally:
            response.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            import requests_unixsocket

            session = requests_unixsocket.Session()
            session.trust_env = False  # no proxy and no .netrc between us and our own socket
            session.headers[protocol.PROTOCOL_HEADER] = str(protocol.PROTOCOL_VERSION)
            self._threads.session = session
        return session

    def _address(self, route: str) -> str:
        from urllib.parse import quote

        return f"http+unix://{quote(str(self.socket), safe='')}{route}"


def _lines(response: requests.Response) -> Iterator[bytes]:
    pending = bytearray()
    chunks = response.iter_content(chunk_size=2**16)
    while True:
        with _lost_connections():
            chunk = next(chunks, None)
        if chunk is None:
            return
        pending += chunk
        if len(pending) > MAX_LINE_BYTES:
            raise EngineFailed("the engine's answer is not what was expected: an endless line")
        *lines, pending = pending.split(b"\n")
        yield from (bytes(line) for line in lines if line)


def parse_event(operation: Operation[Any, Any], line: bytes) -> Any:
    """A line of a stream as the operation's event. Raise EngineFailed for anything else."""
    from pydantic import ValidationError

    try:
        return operation.load(line)
    except ValidationError:
        raise EngineFailed(
            "the engine's answer is not what was expected", "Restart it with `segduo engine stop`."
        ) from None


def rebuilt(message: protocol.ErrorMessage | None) -> SegduoError | ImageMissing:
    """The error that crossed the wire."""
    if message is None:
        return EngineFailed("the engine failed without saying why", "`segduo engine logs` may tell more.")
    if message.slug == protocol.IMAGE_MISSING:
        return ImageMissing()
    return error_from_slug(message.slug, message.message, message.hint)


def _raise_for(response: requests.Response) -> None:
    if response.status_code < 400:
        return
    from pydantic import ValidationError

    try:
        message = protocol.ErrorMessage.model_validate_json(response.content)
    except ValidationError:
        raise EngineFailed(
            f"the engine answered HTTP {response.status_code} without saying why", "`segduo engine logs` may tell more."
        ) from None
    raise rebuilt(message)


@contextmanager
def _lost_connections() -> Iterator[None]:
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.Timeout as error:
        raise EngineFailed(
            f"the engine does not answer: {error}", "`segduo engine status` and `segduo engine stop` help."
        ) from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ConnectionLost(error, working=not _refused(error)) from None


def _refused(error: BaseException) -> bool:
    """Whether nobody listens on the socket (the causes hide in arguments and contexts)."""
    seen: list[BaseException] = [error]
    for one in seen:
        if isinstance(one, ConnectionRefusedError | FileNotFoundError):
            return True
        nested = [*one.args, one.__cause__, one.__context__]
        seen.extend(inner for inner in nested if isinstance(inner, BaseException) and inner not in seen)
    return False
