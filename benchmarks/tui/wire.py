"""Bytes that a key or a stroke sends to the terminal: median and largest.

    python -m benchmarks.tui.wire [--size 160x50]

Runs the program on a pseudo-terminal with half cells, without an engine, and counts what comes out of it until it is quiet.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image

from tests.tui_fakes import micrograph

QUIET_SECONDS = 1.5
"""Without a byte for so long: what was asked for has been drawn."""
REPEATS = 9
LEFT, LEFT_MOVE = 0, 32
"""What SGR terminals call the left button, pressed or let go, and a move with it."""


class Wire:
    """The program on a pseudo-terminal."""

    def __init__(self, image: Path, folder: Path, columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "SEGDUO_HOME": str(folder)}
        environment["SEGDUO_SOCKET"] = str(folder / "nobody" / "engine.sock")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "segment_duo.cli.main", "tui", "--graphics", "halfcell", str(image)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.sent(b"", seconds=15)
        self.sent(b"")

    def sent(self, keys: bytes, seconds: float = QUIET_SECONDS) -> int:
        """Type, and count the bytes that come until nothing has come for ``seconds``."""
        if keys:
            os.write(self._master, keys)
        count = 0
        while select.select([self._master], [], [], seconds)[0]:
            count += len(os.read(self._master, 1 << 16))
            seconds = QUIET_SECONDS
        return count

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def mouse(button: int, x: int, y: int, *, up: bool = False) -> bytes:
    """A report of the mouse as SGR terminals send it; cells count from 1."""
    return f"\x1b[<{button};{x};{y}{'m' if up else 'M'}".encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="160x50")
    columns, rows = map(int, parser.parse_args().size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(micrograph(800, 1200)).save(folder / "discs.png")
        wire = Wire(folder / "discs.png", folder, columns, rows)
        try:
            measure(wire, columns // 2, rows // 2)
        finally:
            wire.end()


def measure(wire: Wire, x: int, y: int) -> None:
    def told(what: str, counts: list[int]) -> None:
        sys.stdout.write(f"{what:44}{statistics.median(counts):9,.0f}{max(counts):9,}\n")
        sys.stdout.flush()

    told("the whole picture (c)", [wire.sent(b"c") for _ in range(3)])
    told("cross-hair, one screen pixel", [wire.sent(b"\x1b[C") for _ in range(REPEATS)])
    told("cross-hair, ten screen pixels", [wire.sent(key) for key in [b"\x1b[1;2C", b"\x1b[1;2D"] * 4])
    wire.sent(b"B....")  # wide enough to be seen at this scale
    told("brush: a dot", [wire.sent(b" "), *(wire.sent(b"\x1b[1;2C") and wire.sent(b" ") for _ in range(3))])
    wire.sent(b"\r")
    told("brush, pen down: one screen pixel", [wire.sent(b"\x1b[B") for _ in range(REPEATS)])
    wire.sent(b"\r")
    counts = []
    wire.sent(mouse(LEFT, x, y))
    for step in range(1, REPEATS):
        counts.append(wire.sent(mouse(LEFT_MOVE, x + step, y + 2)))
    told("brush, mouse: a step of a column", counts)
    told("brush, mouse: the end of the stroke", [wire.sent(mouse(LEFT, x + REPEATS, y + 2, up=True))])


if __name__ == "__main__":
    main()
