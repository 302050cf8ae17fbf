"""Another image is opened while something of the one before is still going on."""

from __future__ import annotations

import threading
from pathlib import Path

from segment_duo.tui.screens.ask import Choose
from tests.tui_fakes import FakeSession, micrograph, pictures
from tests.tui_pilot import PARTICLES, Ui, colours, running

__all__ = ["colours"]
OTHER = "/pictures/other.tif"


def two_pictures() -> FakeSession:
    session = pictures()
    session.images[OTHER] = micrograph(200, 300)
    return session


def opening(ui: Ui) -> threading.Event:
    """Open the other image; it comes when the event is set."""
    come = threading.Event()
    read = ui.session.open_image

    def slowly(*args: object, **more: object) -> object:
        come.wait(60)
        return read(*args, **more)  # type: ignore[arg-type]

    ui.session.open_image = slowly  # type: ignore[assignment, method-assign]
    ui.screen.files.open_target(OTHER)
    return come


async def arrived(ui: Ui) -> None:
    await ui.until(lambda: ui.work.image is not None and ui.work.image.ref.path == OTHER)
    await ui.opened()


async def test_a_mask_that_was_asked_for_does_not_come_in_the_next_image(tmp_path: Path) -> None:
    async with running(tmp_path, two_pictures()) as ui:
        come = opening(ui)
        await ui.until(lambda: ui.work.errands.busy("open"))
        ui.session.gate = gate = threading.Event()
        await ui.press("space", "enter")  # keeps the mask when it comes
        await ui.until(lambda: ui.session.count("predict") == 1)
        come.set()
        await arrived(ui)
        gate.set()
        ui.session.gate = None
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        assert ui.session.count("predict") == 2
        assert not ui.work.doc.masks  # the Enter was for the mask of the other image
        assert [(p.x, p.y) for p in ui.work.doc.present.points] == [ui.work.picture.cross_hair]


async def test_what_is_edited_while_an_image_is_read_is_asked_about(tmp_path: Path) -> None:
    async with running(tmp_path, two_pictures()) as ui:
        come = opening(ui)
        await ui.until(lambda: ui.work.errands.busy("open"))
        await ui.press("B", "space")
        assert ui.work.unsaved
        come.set()
        await ui.dialog(Choose)
        await ui.press("escape")
        assert ui.work.image is not None
        assert ui.work.image.ref.path == PARTICLES
        assert len(ui.work.doc.masks) == 1


async def discarded(ui: Ui) -> None:
    """The question about unsaved work comes; it is discarded, and nothing of the stroke goes on in the next image."""
    await ui.dialog(Choose)
    await ui.press("down", "down", "enter")
    await arrived(ui)
    assert "brush" not in ui.work.status.text
    await ui.press("right", "enter")
    assert not ui.work.doc.masks


async def test_a_stroke_ends_with_its_image(tmp_path: Path) -> None:
    async with running(tmp_path, two_pictures()) as ui:
        await ui.press("B", "enter", "right", "right")
        assert "pen down" in ui.work.status.text
        ui.screen.files.open_target(OTHER)
        await ui.dialog(Choose)  # a stroke that is being drawn is work, too
        await ui.press("escape")
        assert len(ui.work.doc.masks) == 1
        assert "pen down" not in ui.work.status.text
        ui.screen.files.open_target(OTHER)
        await discarded(ui)


async def test_a_stroke_that_is_being_drawn_while_an_image_is_read_is_asked_about(tmp_path: Path) -> None:
    async with running(tmp_path, two_pictures()) as ui:
        come = opening(ui)
        await ui.until(lambda: ui.work.errands.busy("open"))
        await ui.press("B", "enter", "right", "right")
        come.set()
        await discarded(ui)


async def test_quitting_and_saving_end_a_stroke(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press("B", "enter", "right", "right", "q")
        await ui.dialog(Choose)
        assert "1 mask is not saved" in ui.text()
        await ui.press("escape", "enter", "down", "s")
        await ui.until(lambda: ui.session.saved.get(PARTICLES) and not ui.work.doc.unsaved)
        assert ui.session.saved[PARTICLES][-1][1].masks == ui.work.doc.masks
        assert "pen down" not in ui.work.status.text
