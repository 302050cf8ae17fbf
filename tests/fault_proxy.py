"""A TCP proxy on loopback that spoils the answers of an HTTP server: trickles, stalls, resets, cuts, lies about lengths, repeats.

with FaultProxy(server.url) as proxy:
    proxy.faults = [Fault("stall", at=100), Fault("reset")]     # for the next two requests; those after them are left alone
    proxy.always = Fault("trickle")                             # or: for all that follow
    ... proxy.url, proxy.requests
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

KINDS = (
    "none", "trickle", "stall", "close", "reset", "announce_more", "announce_less", "announce_junk", "announce_nothing", "twice",
    "garbage", "endless_body", "endless_headers", "endless_continue", "no_read", "refuse",
)  # fmt: skip
"""``no_read`` stops reading the request, ``refuse`` closes before reading it; the server behind sees neither. The others spoil the answer."""


@dataclass(frozen=True)
class Fault:
    """One spoilt answer. ``at``: after how many of its bytes, headers included. ``pause``: seconds between two trickled bytes."""

    kind: str = "none"
    at: int = 0
    pause: float = 0.02


class FaultProxy:
    """Passes requests on to ``url``, one by one, and spoils the answers. Connections are kept alive, as far as the faults allow."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.faults: list[Fault] = []
        self.always = Fault()
        self.read_pause = 0.0  # seconds before each piece of a request's body (at most 64 kB) is taken
        self.requests: list[tuple[str, Fault]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for connection in [self._listener, *self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while self._exchange(client):
                pass
        self._connections.discard(client)

    def _exchange(self, client: socket.socket) -> bool:
        """One request and its answer; False when the connection is over."""
        head = _read_head(client)
        if not head:
            return False
        with self._lock:
            fault = self.faults.pop(0) if self.faults else self.always
            self.requests.append((head.split(b" ", 2)[1].decode("latin-1"), fault))
        if fault.kind == "refuse":
            return False
        if fault.kind == "no_read":
            self._ended.wait(30)
            return False
        body = _read_exactly(client, _length(head), pause=self.read_pause)
        return self._spoil(client, self._ask(head + body), fault)

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self._upstream, timeout=30) as server:
            server.sendall(request)
            head = _read_head(server)
            return head + (_read_exactly(server, _length(head)) if head else b"")

    def _spoil(self, client: socket.socket, answer: bytes, fault: Fault) -> bool:
        kind, at = fault.kind, min(fault.at, len(answer))
        if kind in ("none", "twice"):
            client.sendall(answer * (2 if kind == "twice" else 1))
            return True
        if kind.startswith("announce"):
            client.sendall(_announced(answer, fault))
        elif kind == "garbage":
            client.sendall(b"\x00\xff garbage \r\n\r\n" + answer)
        elif kind.startswith("endless"):
            self._endless(client, kind, fault.pause)
        else:
            client.sendall(answer[:at])
        if kind == "trickle":
            for index in range(at, len(answer)):
                if self._ended.wait(fault.pause):
                    break
                client.sendall(answer[index : index + 1])
        elif kind == "stall":
            self._ended.wait(30)
        elif kind == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _endless(self, client: socket.socket, kind: str, pause: float) -> None:
        start, more = {
            "endless_body": (b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n", b"x"),
            "endless_headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            "endless_continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        }[kind]
        client.sendall(start)
        until = time.monotonic() + 30
        while not self._ended.wait(pause) and time.monotonic() < until:
            client.sendall(more)


def _announced(answer: bytes, fault: Fault) -> bytes:
    """The answer with another Content-Length, or none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    value = {
        "announce_more": str(len(body) + 1 + fault.at),
        "announce_less": str(max(0, len(body) - 1 - fault.at)),
        "announce_junk": ("-1", "5, 7", "\u0661", "1e3", "9" * 30)[fault.at % 5],
    }.get(fault.kind)
    line = b"" if value is None else b"Content-Length: " + value.encode("utf-8") + b"\r\n"
    rest = re.sub(rb"(?i)content-length:[^\r]*\r\n", b"", head + b"\r\n")
    return rest + line + b"Connection: close\r\n\r\n" + body


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _read_exactly(connection: socket.socket, count: int, *, pause: float = 0.0) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        time.sleep(pause)
        part = connection.recv(min(count - len(parts), 65536))
        if not part:
            raise ConnectionResetError("the other end went away")
        parts += part
    return bytes(parts)


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)content-length: *(\d+)", head)
    return int(found[1]) if found else 0
