"""Time limits that hold for every byte of a conversation, sent or received, in urllib3's connections.

The limit that ``requests`` offers is one between two bytes. It lets a server that trickles hold a command for ever (in the body or already in
the headers), and it ends the upload of a large file on a slow line, because Python takes it for the whole of it. Here each piece
that is sent or received has a limit of its own, and a clock limits the whole. Looking up a name has no limit there at all; here it has one.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    from urllib3 import PoolManager, ProxyManager

_PIECE_BYTES = 64 * 1024


class Clock:
    """What is left of the time for one request: ``seconds``, and more for every byte, so that a large file may take longer.

    Attributes:
        silence: seconds one piece may take.
        sent, received: bytes of the request and of its answer, headers included.
    """

    def __init__(self, seconds: float, rate: float) -> None:
        """``rate``: bytes a second that are fast enough not to use up ``seconds``."""
        self.silence = seconds
        self.sent = 0
        self.received = 0
        self._seconds = seconds
        self._rate = rate
        self._started = time.monotonic()

    def start(self, silence: float) -> None:
        self.silence = silence
        self.sent = self.received = 0
        self._started = time.monotonic()

    @property
    def limit(self) -> float:
        """Seconds for the whole."""
        return self._seconds + (self.sent + self.received) / self._rate

    @property
    def left(self) -> float:
        return self._started + self.limit - time.monotonic()

    def arm(self, connection: socket.socket) -> None:
        """Give the next piece its time. Raises TimeoutError when none is left."""
        left = self.left
        if left <= 0:
            raise TimeoutError("the time for the whole is up")
        connection.settimeout(min(left, self.silence))


class PacedAdapter(HTTPAdapter):
    """Connections of a ``requests`` session that keep to a clock. For one thread: one request at a time."""

    def __init__(self, clock: Clock, look_up_seconds: float) -> None:
        self._pools = _paced_pools(clock, look_up_seconds)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager | PoolManager:
        manager: ProxyManager | PoolManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def addresses(host: str, port: int, seconds: float) -> list[str]:
    """The numeric addresses of a host, in the system's order.

    Raises:
        socket.gaierror: there are none, or the look-up took longer than ``seconds``. Nothing can end it: it is left to itself.
    """
    found: list[str] = []
    failure: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failure.append(error if isinstance(error, socket.gaierror) else socket.gaierror(str(error)))

    thread = threading.Thread(target=look_up, name="look-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not found:
        raise socket.gaierror(socket.EAI_AGAIN, f"not looked up within {seconds:g} s")
    return list(dict.fromkeys(found))


def _paced_pools(clock: Clock, look_up_seconds: float) -> dict[str, type[HTTPConnectionPool]]:
    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_PacedReader(sock, self.fp.detach(), clock))

    class Paced:
        sock: socket.socket | None
        host: str
        port: int
        _dns_host: str
        response_class: type[HTTPResponse] = Response

        def _new_conn(self) -> socket.socket:
            name = self._dns_host  # what is connected to; `host` stays the name, which certificates are checked against
            try:
                found = addresses(name.strip("[]"), self.port, look_up_seconds)
            except socket.gaierror as error:
                raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
            try:
                for address in found[:-1]:
                    self._dns_host = address
                    with contextlib.suppress(ConnectTimeoutError, NewConnectionError):
                        return super()._new_conn()  # type: ignore[misc,no-any-return]
                self._dns_host = found[-1]
                return super()._new_conn()  # type: ignore[misc,no-any-return]
            finally:
                self._dns_host = name

        def send(self, data: Any) -> None:
            if self.sock is None or not isinstance(data, bytes):
                super().send(data)  # type: ignore[misc]
                return
            for start in range(0, len(data), _PIECE_BYTES):
                piece = data[start : start + _PIECE_BYTES]
                clock.arm(self.sock)
                super().send(piece)  # type: ignore[misc]
                clock.sent += len(piece)

    class Plain(Paced, HTTPConnection):
        pass

    class Encrypted(Paced, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


class _PacedReader(io.RawIOBase):
    """A socket's file whose every read keeps to the clock."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase, clock: Clock) -> None:
        self._connection = connection
        self._raw = raw
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._clock.arm(self._connection)
        count: int | None = self._raw.readinto(buffer)
        self._clock.received += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
