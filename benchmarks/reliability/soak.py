"""Many small images in one command: what the engine and the command hold after the first hundred and at the end."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

from benchmarks.reliability.ground import HANG_SECONDS, Row, ground, sets_in

CACHE_MIB = 64
"""Small, so that the engine's cache of embeddings is full before the first measurement: what grows after that is a leak."""
MIB = 2**20


def soak(folder: Path, images: int, early: int) -> Row:
    """Every image must have its one set; memory after all images may be 1.1 times that after the first ``early``."""
    row = Row(f"{images} images in one `auto`")
    with ground(folder, SEGDUO_MEMORY_CACHE_MIB=str(CACHE_MIB)) as here:
        for number in range(images):
            here.image(f"pictures/{number:04}.png", number, 64 + number % 5 * 16)
        command = here.start("auto", "pictures", "--points-per-side", 4)
        # Its stderr must be drained, or the command would wait for room in the pipe.
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(command.stderr or []), daemon=True)
        reader.start()
        silence = threading.Timer(HANG_SECONDS, command.kill)
        held: list[tuple[int, int]] = []
        for line in command.stdout or []:
            silence.cancel()
            silence = threading.Timer(HANG_SECONDS, command.kill)
            silence.start()
            row.tries += bool(line.strip())
            if row.tries in (early, images):
                (engine,) = here.engines()
                held.append((engine.memory_info().rss, psutil.Process(command.pid).memory_info().rss))
        silence.cancel()
        if command.wait():
            row.count("hung" if command.returncode == -9 else "wrong", "".join(errors)[-300:])
        reader.join(10)
        made = {file.stem for file in sets_in(folder / "pictures" / "masks", row)}
        wanted = {f"{number:04}" for number in range(images)}
        row.lost += len(wanted - made)
        row.doubled += len(made - wanted)
        if len(held) == 2:
            (engine_early, own_early), (engine_late, own_late) = held
            growth = engine_late / engine_early
            row.note = (
                f"engine {engine_early / MIB:.0f} MiB after {early}, {engine_late / MIB:.0f} after {images} ({growth:.3f} x); "
                f"command {own_early / MIB:.0f} and {own_late / MIB:.0f} MiB ({own_late / own_early:.3f} x)"
            )
            if max(growth, own_late / own_early) > 1.1:
                row.count("wrong", row.note)
    return row
