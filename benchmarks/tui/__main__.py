"""Processor time of one key or stroke in the terminal UI, drawing included, in milliseconds: median and largest.

    python -m benchmarks.tui

Runs the app without a terminal; the session is a fake, so that no engine takes part. Counts the whole process: all threads.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from tests.tui_fakes import FakeSession, disc
from tests.tui_pilot import PARTICLES, Ui, running

REPEATS = 15


async def cost(name: str, ui: Ui, act: Callable[[], Awaitable[None]]) -> None:
    spent = []
    for _ in range(REPEATS):
        await ui.painted()
        began = time.process_time()
        await act()
        await ui.painted()
        spent.append(1000 * (time.process_time() - began))
    sys.stdout.write(f"{name:52}{statistics.median(spent):7.1f}{max(spent):7.1f}\n")


async def strokes(folder: Path) -> None:
    side = 10_000
    session = FakeSession({PARTICLES: np.zeros((side, side), np.uint8)})
    async with running(folder, session, size=(160, 50)) as ui:
        work, tool = ui.work, ui.screen.correcting
        work.doc.loaded([disc(side, side, 5000, 5000, 400)], "0")
        work.show_document()
        work.picture.move_cross_hair(5000, 5000)
        for where, zooms in (("whole", 0), ("zoomed in", 9)):
            for _ in range(zooms):
                ui.screen.viewing.action_zoom(1)
            tool.action_brush(0)
            place = [0]

            async def step(place: list[int] = place) -> None:
                place[0] += 1
                tool.begin(5300.0 + place[0], 5300.0)
                tool.go_on(5310.0 + place[0], 5305.0)

            async def stroke(step: Callable[[], Awaitable[None]] = step) -> None:
                await step()
                tool.end()

            await cost(f"10,000 x 10,000, {where}: a step of a stroke", ui, step)
            tool.drop()
            await cost(f"10,000 x 10,000, {where}: a stroke, into the document", ui, stroke)
            tool.leave()
        work.doc.loaded((), None)


async def long_list(folder: Path) -> None:
    side = 2000
    masks = [disc(side, side, 30 + 60 * (i % 33), 30 + 60 * (i // 33), 20, id=i) for i in range(1000)]
    session = FakeSession({PARTICLES: np.zeros((side, side), np.uint8)})
    async with running(folder, session, size=(160, 50)) as ui:
        ui.work.doc.loaded(masks, "0")
        ui.work.show_document()
        editing = ui.screen.editing

        async def following() -> None:
            editing.action_step(1)

        async def select() -> None:
            editing.action_tick()

        async def delete() -> None:
            ui.work.doc.tick([ui.work.doc.masks[0].id], True)
            editing.action_delete()

        await cost("1,000 masks: next", ui, following)
        await cost("1,000 masks: select", ui, select)
        await cost("1,000 masks: delete", ui, delete)
        ui.work.doc.loaded((), None)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(strokes(Path(folder) / "a"))
        asyncio.run(long_list(Path(folder) / "b"))


if __name__ == "__main__":
    main()
