"""The terminal UI over the real library and the real server, when things are away or full. Nothing may be lost."""

from __future__ import annotations

import io
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from segment_duo.config import load_config
from segment_duo.paths import Paths
from segment_duo.session import Session
from segment_duo.tui.journal import Journal
from segment_duo.tui.screens.ask import Choose
from tests.drops_server import DropsServer
from tests.tui_fakes import disc, micrograph
from tests.tui_pilot import Ui, colours, running

__all__ = ["colours"]


def session_of(tmp_path: Path, **flags: object) -> Session:
    """A real session; no engine can be reached, for none is needed."""
    home = tmp_path / "home"
    paths = Paths(home / "config", home / "data", home / "cache", home / "state")
    settings = {"socket": str(tmp_path / "nobody.sock"), **flags}
    return Session(load_config(settings, paths=paths, environ={}, cwd=tmp_path), paths)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "images" / "discs.png"
    file.parent.mkdir()
    Image.fromarray(micrograph(160, 240)).save(file)
    return file


async def painted_mask(ui: Ui) -> None:
    """A mask by the brush, unsaved."""
    await ui.until(lambda: ui.work.image is not None and not ui.work.errands.busy("load"))
    await ui.press("B", "space", "escape")
    assert ui.work.doc.unsaved


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow, as on a full disk or above a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_set_saved_by_another_session_is_noticed_and_both_stay(tmp_path: Path, image: Path) -> None:
    session, other = session_of(tmp_path), session_of(tmp_path)
    async with running(tmp_path, session, path=str(image)) as ui:  # type: ignore[arg-type]
        await painted_mask(ui)
        opened = other.open_image(other.reference(str(image)))
        other.save(opened, [disc(160, 240, 50, 50, 9)], operation="import")
        await ui.press("s")
        await ui.until(lambda: not ui.work.doc.unsaved)
        assert "Somebody else has saved version 0 since you loaded" in ui.work.message.text
    assert [version.name for version in other.sets.versions(other.reference(str(image)))] == ["1", "0"]


async def test_a_full_disk_and_a_blocked_folder_lose_nothing(tmp_path: Path, image: Path) -> None:
    session = session_of(tmp_path)
    async with running(tmp_path, session, path=str(image)) as ui:  # type: ignore[arg-type]
        await painted_mask(ui)
        masks = ui.work.doc.masks
        with full_disk():
            await ui.press("s")
            await ui.until(lambda: not ui.work.errands.busy("save") and not ui.work.errands.busy("journal"))
            assert "Not saved" in ui.work.message.text  # not hidden by the draft, which cannot be written either
        assert ui.work.doc.masks == masks
        assert ui.work.doc.unsaved
        assert "Ctrl+S" in ui.work.message.text
        folder = image.parent / "masks"
        if folder.exists():
            assert list(folder.iterdir()) == []  # no half a set
            folder.rmdir()
        folder.write_text("a file where the folder should be")
        await ui.press("s")
        await ui.until(lambda: not ui.work.errands.busy("save"))
        assert "Not saved" in ui.work.message.text
        folder.unlink()
        await ui.press("s")
        await ui.until(lambda: not ui.work.doc.unsaved)
    saved = session.sets.load(session.reference(str(image))).mask_set.masks
    assert [mask.rle for mask in saved] == [mask.rle for mask in masks]


async def test_drops_goes_away_before_the_save(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(micrograph(160, 240)).save(content, "PNG")
    with DropsServer(tmp_path / "drops") as server:
        server.put("/labdaq/a.png", content.getvalue())
        session = session_of(
            tmp_path, drops_url=server.url, drops_username=server.username, drops_password=server.password
        )
        async with running(tmp_path, session, path="/drops/labdaq/a.png") as ui:  # type: ignore[arg-type]
            await painted_mask(ui)
            server.stop()
            await ui.press("s")
            await ui.until(lambda: not ui.work.errands.busy("save"), 120)
            kept = "kept on this machine" in ui.work.message.text
            assert kept or ui.work.doc.unsaved
            if not kept:
                await ui.press("q")
                await ui.dialog(Choose)
    spooled = list((tmp_path / "home" / "state").rglob("*.pkl")) + list((tmp_path / "home" / "data").rglob("*.pkl"))
    assert spooled or Journal(tmp_path / "journal", pid=1).left_behind()
