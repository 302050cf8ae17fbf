"""Malformed requests to a real engine: it answers or hangs up, grows little, and works as before."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.reliability.ground import Row, ground, judge

ANSWER_SECONDS = 60.0
MIB = 2**20
_KNOWN = "0" * 64


def request(
    method: str, path: str, body: bytes = b"", headers: dict[str, object] | None = None, *, announced: int | None = None
) -> bytes:
    lines = {"Host": "engine", "Content-Length": len(body) if announced is None else announced, **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def _json(dice: random.Random, known: str) -> bytes:
    """A body for ``predict``, ``auto`` or ``embed`` that is nearly right."""
    number = dice.choice([0, -1, 1e308, float("nan"), float("inf"), 2**70, "5", None, [], {}, True, 0.5])
    point = dice.choice([{"x": number, "y": 5}, {"x": 5, "y": 5, "label": number}, {"x": 5}, number, [5, 5]])
    prompt = dice.choice([{"points": [point]}, {"points": point}, {"box": number}, {"previous": "x" * 99}, number])
    field = dice.choice(["points_per_side", "pred_iou_thresh", "tile", "scale", "region", "nonsense"])
    return json.dumps(
        dice.choice(
            [
                {"prompts": [prompt]}, {"prompts": prompt}, {"parameters": {field: number}}, {"model": number},
                {"model": {"id": known, "config": "/etc/passwd", "checkpoint": "/dev/zero"}}, [prompt], number,
                {"prompts": [{"points": [{"x": 1, "y": 1}]}] * dice.choice([0, 1, 3000])},
            ]
        )
    ).encode()  # fmt: skip


def malformed(dice: random.Random, known: str) -> tuple[bytes, bool]:
    """The bytes of a request, and whether an end of the connection is owed though we send no more."""
    image = f"/v1/images/{dice.choice([known, _KNOWN, 'xyz', '../' * 9, '%00', ''])}"
    operation = image + dice.choice(["/predict", "/auto", "/embed", "/nothing", ""])
    shape = dice.choice(["96,96,3", "96,96,1", "-1,5,3", "99999,99999,3", "1,1", "a,b,c", "", "9" * 400, "96,96,2"])
    kinds: list[Callable[[], tuple[bytes, bool]]] = [
        lambda: (dice.randbytes(dice.choice([1, 40, 5000])) + b"\r\n\r\n", False),
        lambda: (request(dice.choice(["POST", "PUT", "DELETE", "GET", "BREW"]), operation, _json(dice, known)), True),
        lambda: (request("POST", operation, b'{"prompts":' + b"[" * dice.choice([50, 100_000])), True),
        lambda: (request("POST", operation, b'{"a":"' + b"x" * dice.choice([10, MIB, 17 * MIB]) + b'"}'), True),
        lambda: (request("PUT", image, dice.randbytes(96 * 96), {"Segduo-Shape": shape}), True),
        lambda: (
            request("PUT", image, b"abc", {"Segduo-Shape": shape}, announced=dice.choice([10**3, 10**12, 3])),
            False,
        ),
        lambda: (request("GET", "/v1/status", b"", {f"X{i}": "y" * 900 for i in range(dice.choice([1, 200]))}), True),
        lambda: (request("POST", operation, b"zz\r\nabc\r\n", {"Transfer-Encoding": "chunked"}), False),
        lambda: (request("GET", image, b"", {"Segduo-Model": _json(dice, known).decode()}), True),
        lambda: (request("POST", operation, _json(dice, known), announced=dice.choice([1, -5, 10**6])), False),
        lambda: (request("POST", "/v1/stop", dice.choice([b'{"only_if_idle": 7}', b"[]", b"{"])), True),
        lambda: (request("GET", "/v1/" + "a" * dice.choice([10, 100_000])), True),
    ]
    return dice.choice(kinds)()


def attack(socket_path: Path, tries: int, row: Row, *, known: str, seed: int = 0) -> None:
    """Send ``tries`` malformed requests, a few of whose connections stay open; counts answers that are owed and do not come."""
    dice = random.Random(seed)
    held: list[socket.socket] = []
    for index in range(tries):
        data, owed = malformed(dice, known)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.connect(str(socket_path))
            connection.sendall(data)
            if owed:
                try:
                    answer = connection.recv(4096)
                except TimeoutError:
                    row.count("hung", f"{index}: {data[:120]!r}")
                else:
                    if answer.startswith(b"HTTP/1.1 500"):
                        row.count("wrong", f"{index}: {data[:120]!r}: {answer[-200:]!r}")
        row.tries += 1
        held.append(connection)
        if owed or len(held) > 20:
            held.pop(0 if len(held) > 20 else -1).close()
    for connection in held:
        connection.close()


def fuzz(folder: Path, tries: int) -> Row:
    """Peak memory is the kernel's own high-water mark, set back before the attack."""
    row = Row("malformed requests to the engine's socket")
    with ground(folder) as here:
        image = here.image("a.png", 1)
        judge(here.run("auto", image, "--points-per-side", 8), row, (0,))
        (engine,) = here.engines()
        idle = engine.memory_info().rss
        _forget_peak(engine)
        path = Path(here.run("config", "path", "socket").out.strip())
        known = json.loads(here.run("embed", image, "--json").out)["id"]
        attack(path, tries, row, known=known)
        peak = _peak(engine)
        until = time.monotonic() + 120  # stalled uploads are given up by then
        while time.monotonic() < until and json.loads(here.run("engine", "status", "--json").out or "{}").get(
            "uploads"
        ):
            time.sleep(0.5)
        judge(here.run("point", image, "-p", "48,48"), row, (0,))
        if [process.pid for process in here.engines()] != [engine.pid]:
            row.count("lost", "the engine is another one than before")
        row.note = f"idle {idle / MIB:.0f} MiB, peak {peak / MIB:.0f} MiB ({peak / idle:.2f} x)"
        if peak > 1.3 * idle:
            row.count("wrong", row.note)
    return row


def _forget_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def _peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
