"""Renews the pictures of the terminal UI from the running program.

    python docs/pictures/make_tui_pictures.py

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
from collections.abc import Callable
from pathlib import Path

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


async def make() -> None:
    from segment_duo.config import load_config
    from segment_duo.session import Session
    from segment_duo.tui.app import build_app

    session = Session(load_config({}))
    app = build_app(
        session, journal_dir=session.paths.journal_dir, path=str(Path.home() / "micrographs" / "particles.tif")
    )
    async with app.run_test(size=(116, 36)) as pilot:
        work = app.workspace.desk

        async def until(condition: Callable[[], object]) -> None:
            limit = time.monotonic() + 900
            while not condition():
                if time.monotonic() > limit:
                    raise TimeoutError(work.message.text)
                await pilot.pause(0.05)

        async def shot(name: str) -> None:
            await until(lambda: work.picture._wanted is None and work.picture._painted is not None)
            await pilot.pause(0.2)
            to_png(app.export_screenshot(title="segduo tui"), HERE / name)

        await until(lambda: work.image is not None and not work.jobs.busy("embed"))
        await pilot.press("a")
        await until(lambda: app.screen is not app.workspace)
        await shot("tui-auto.png")
        await pilot.press("enter")
        await until(lambda: app.screen is app.workspace)
        if not work.doc.masks:
            raise RuntimeError(work.message.text)
        await pilot.press("n", "t", "n", "t", "n")
        await shot("tui-masks.png")
        await pilot.press("T", "0", "plus", "plus", "plus", "space")
        await until(lambda: work.doc.candidate)
        await shot("tui-point.png")
        await pilot.press("f1")
        await shot("tui-help.png")
        await pilot.press("escape", "f2")
        await shot("tui-light.png")
        work.doc.loaded((), None)


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
            asyncio.run(make())
        finally:
            subprocess.run([sys.executable, "-m", "segment_duo.cli.main", "engine", "stop"], check=False)


if __name__ == "__main__":
    main()
