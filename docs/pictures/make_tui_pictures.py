"""Renews the pictures of the terminal UI from the running program.

    python docs/pictures/make_tui_pictures.py [image] [frames]

Needs the nano weights and `rsvg-convert` (package librsvg2-bin) with a monospaced font.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from segment_duo.tui.app import SegduoApp

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LARGEST = 190_000
"""Bytes; larger pictures get a palette."""
CELL = 12.2
"""Width of a cell in the SVG that Textual exports."""


def to_png(svg: str, target: Path) -> None:
    """Convert; rsvg drops leading no-break spaces, so texts are moved by them instead."""

    def moved(match: re.Match[str]) -> str:
        start, x, rest, text = match.groups()
        bare = re.sub(r"^(&#160;)+", "", text)
        spaces = (len(text) - len(bare)) // len("&#160;")
        rest = re.sub(r' textLength="[^"]*"', "", rest)
        return f'{start}x="{float(x) + spaces * CELL:g}"{rest}>{bare}'

    svg = re.sub(r'(<text class="[^"]*" )x="([\d.]+)"([^>]*)>([^<]*)', moved, svg)
    subprocess.run(["rsvg-convert", "-w", "1000", "-o", str(target)], input=svg.encode(), check=True)
    if target.stat().st_size > LARGEST:
        from PIL import Image

        with Image.open(target) as picture:
            small = picture.convert("RGB").quantize(256)
        small.save(target, optimize=True)


class Camera:
    """A running app, and pictures of it."""

    def __init__(self, app: SegduoApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot, self.work = app, pilot, app.workspace.desk

    async def until(self, condition: Callable[[], object]) -> None:
        limit = time.monotonic() + 900
        while not condition():
            if time.monotonic() > limit:
                raise TimeoutError(self.work.message.text)
            await self.pilot.pause(0.05)

    async def shot(self, name: str) -> None:
        await self.until(lambda: self.work.picture._wanted is None and self.work.picture._painted is not None)
        await self.pilot.pause(0.2)
        to_png(self.app.export_screenshot(title="segduo tui"), HERE / name)


@asynccontextmanager
async def camera(name: str, model: str = "nano") -> AsyncIterator[Camera]:
    """The app with one of the examples open."""
    from segment_duo.config import load_config
    from segment_duo.session import Session
    from segment_duo.tui.app import build_app
    from segment_duo.tui.film import Film

    session = Session(load_config({"model": model}))
    path = str(Path.home() / "micrographs" / name)
    app = build_app(session, journal_dir=session.paths.journal_dir, path=path, films=partial(Film.open, session))
    async with app.run_test(size=(116, 36)) as pilot:
        found = Camera(app, pilot)
        await found.until(lambda: found.work.image is not None and not found.work.errands.busy("embed"))
        yield found


async def of_an_image() -> None:
    async with camera("particles.tif") as at:
        await at.pilot.press("a")
        await at.until(lambda: at.app.screen is not at.app.workspace)
        await at.shot("tui-auto.png")
        await at.pilot.press("enter")
        await at.until(lambda: at.app.screen is at.app.workspace)
        if not at.work.doc.masks:
            raise RuntimeError(at.work.message.text)
        await at.pilot.press("n", "t", "n", "t", "n")
        await at.shot("tui-masks.png")
        await at.pilot.press("T", "0", "plus", "plus", "plus", "space")
        await at.until(lambda: at.work.doc.candidate)
        await at.shot("tui-point.png")
        await at.pilot.press("f1")
        await at.shot("tui-help.png")
        await at.pilot.press("escape", "f2")
        await at.shot("tui-light.png")
        at.work.doc.loaded((), None)


async def of_frames() -> None:
    """Automatic masks of the stack, linked; then one object on a frame in the middle."""
    async with camera("growth.tif", "watershed") as at:
        await at.pilot.press("f7")
        await at.until(lambda: at.app.screen is not at.app.workspace)
        await at.pilot.press("shift+tab", "shift+tab", "enter")
        await at.until(lambda: at.work.doc.version is not None and not at.work.errands.busy("frame"))
        for frame in range(1, 8):
            await at.pilot.press("full_stop")
            await at.until(lambda frame=frame: at.work.timeline and at.work.timeline.frame == frame)  # type: ignore[misc]
        await at.pilot.press("number_sign", "n", "n")
        await at.shot("tui-frames.png")


MAKERS = {"image": of_an_image, "frames": of_frames}


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        # A home of its own, so that the pictures show no folder of this machine.
        shutil.copytree(
            ROOT / "examples", Path(home) / "micrographs", ignore=shutil.ignore_patterns("masks", "*_labels*")
        )
        os.environ |= {
            "HOME": home,
            "SEGDUO_HOME": str(Path(home) / ".segduo"),
            "COLORTERM": "truecolor",
            "TERM": "xterm-256color",
        }
        os.environ.pop("NO_COLOR", None)
        os.chdir(home)
        sys.path.insert(0, str(ROOT))
        try:
            for name in sys.argv[1:] or MAKERS:
                asyncio.run(MAKERS[name]())
        finally:
            subprocess.run([sys.executable, "-m", "segment_duo.cli.main", "engine", "stop"], check=False)


if __name__ == "__main__":
    main()
