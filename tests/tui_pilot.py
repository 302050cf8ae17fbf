"""A running app for tests, and the means to wait for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot

from segment_duo.terminal.graphics import Terminal
from segment_duo.terminal.viewport import Viewport
from segment_duo.tui.app import SegduoApp, build_app
from segment_duo.tui.ports import FilmPort, SessionPort
from segment_duo.tui.screens.ask import Choose
from segment_duo.tui.screens.auto import AutoDialog
from segment_duo.tui.workspace.desk import Desk
from segment_duo.tui.workspace.screen import Workspace
from segment_duo.types import ImageRef
from tests.tui_fakes import FakeSession, pictures

PARTICLES = "/pictures/particles.tif"


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same colours on every machine. Tests import this by name."""
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Ui:
    """A running app and the means to wait for it."""

    def __init__(self, app: SegduoApp, pilot: Pilot[None], session: FakeSession) -> None:
        self.app, self.pilot, self.session = app, pilot, session

    @property
    def screen(self) -> Workspace:
        return self.app.workspace

    @property
    def work(self) -> Desk:
        return self.screen.desk

    async def until(self, condition: Callable[[], object], seconds: float = 180) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, f"never happened; the last message: {self.work.message.text!r}"
            await self.pilot.pause(0.01)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def painted(self) -> None:
        """The picture of the present view is shown."""
        picture = self.work.picture
        await self.until(
            lambda: picture._painted and not picture._wanted and picture._painted.wish.view == picture.view
        )

    async def opened(self) -> None:
        await self.until(
            lambda: (
                self.work.image is not None
                and not self.work.errands.busy("load")
                and not self.work.errands.busy("embed")
            )
        )
        await self.painted()

    async def dialog(self, kind: type) -> None:
        await self.until(lambda: isinstance(self.app.screen, kind))
        await self.pilot.pause()

    async def keep_mask(self) -> None:
        count = len(self.work.doc.masks)
        await self.press("space")
        await self.until(lambda: self.work.doc.candidate)
        await self.press("enter")
        assert len(self.work.doc.masks) == count + 1

    async def auto(self) -> None:
        await self.press("a")
        await self.dialog(AutoDialog)
        await self.press("enter")
        await self.until(lambda: self.app.screen is self.screen and self.work.doc.masks)

    def lines(self) -> list[str]:
        """The screen as text."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip) for strip in strips]

    def text(self) -> str:
        return "\n".join(self.lines())


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path,
    session: FakeSession | None = None,
    *,
    path: str | None = PARTICLES,
    film: bool = False,
    size: tuple[int, int] = (120, 36),
    terminal: Terminal | None = None,
    keymap: dict[str, str] | None = None,
    theme: str = "segduo-dark",
    elsewhere: Callable[[str], SessionPort] | None = None,
    queue: Sequence[ImageRef] = (),
    films: Callable[[ImageRef], FilmPort] | None = None,
) -> AsyncIterator[Ui]:
    session = session or pictures()
    app = build_app(
        session,
        journal_dir=tmp_path / "journal",
        path=path,
        film=film,
        terminal=terminal,
        keymap=keymap,
        theme=theme,
        elsewhere=elsewhere,
        queue=queue,
        films=films,
    )
    async with app.run_test(size=size) as pilot:
        ui = Ui(app, pilot, session)
        await ui.until(lambda: app.screen is app.workspace or isinstance(app.screen, Choose))
        if path == PARTICLES and not isinstance(app.screen, Choose):
            await ui.opened()
        yield ui


def cell_centre(view: Viewport, column: int, row: int) -> tuple[float, float]:
    """The image pixel under the middle of a cell."""
    return view.to_image(column + 0.5, row + 0.5)
