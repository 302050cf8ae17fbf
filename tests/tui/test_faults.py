"""What users met and must not meet again."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from textual import events
from textual.widgets import Button, Input

from segment_duo.errors import OutOfSpace
from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.viewport import Viewport
from segment_duo.tui.canvas.ruler import numbers
from segment_duo.tui.journal import Draft, Journal
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.screens.auto import AutoDialog
from segment_duo.tui.screens.dialog import DialogHelp
from segment_duo.tui.screens.help import HelpScreen
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.tui.wording import counted, middle_cut
from segment_duo.tui.workspace.desk import zoom_label
from segment_duo.tui.workspace.folders import unusable
from segment_duo.types import ImageRef, Point, StoreKind
from segment_duo.waiting import STILL_WAITING
from tests.tui_fakes import FakeSession, disc, micrograph, pictures
from tests.tui_pilot import PARTICLES, Ui, colours, running

__all__ = ["colours"]


async def test_save_elsewhere_checks_the_folder_first(tmp_path: Path) -> None:
    session, other, asked = pictures(), pictures(), []
    blocked = tmp_path / "file"
    blocked.write_text("")

    def elsewhere(folder: str) -> FakeSession:
        asked.append(folder)
        if folder == str(blocked):
            other.failures["check_out"] = OutOfSpace("this is a file", "")
        else:
            other.failures.clear()
        return other

    async with running(tmp_path, session, elsewhere=elsewhere) as ui:
        session.failures["save"] = OutOfSpace("the folder cannot be written")
        await ui.keep_mask()
        await ui.press("q")
        await ui.dialog(Choose)
        assert all(text in ui.text() for text in ("Save elsewhere", "Quit, keep the draft", "Discard", "Stay"))
        await ui.press("enter")  # Save: fails, and asks again
        await ui.until(lambda: "cannot be written" in ui.text() and isinstance(ui.app.screen, Choose))
        await ui.press("down", "enter")
        await ui.dialog(TypeLine)
        ui.app.screen.query_one(Input).value = str(blocked)
        await ui.press("enter")
        await ui.until(lambda: "this is a file. Choose another folder" in ui.text().replace("\n", " "))
        assert other.count("save") == 0
        ui.app.screen.query_one(Input).value = str(tmp_path / "there")
        await ui.press("enter")
        await ui.until(lambda: ui.app._exit)
        assert asked == [str(blocked), str(tmp_path / "there")]
        assert other.count("save") == 1
    assert Journal(tmp_path / "journal").left_behind() == []


async def test_quitting_can_keep_the_draft(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        masks = ui.work.doc.masks
        await ui.press("q")
        await ui.dialog(Choose)
        await ui.press("down", "down", "enter")
        await ui.until(lambda: ui.app._exit)
        assert ui.session.count("save") == 0
    (draft,) = Journal(tmp_path / "journal", pid=1).left_behind()
    assert draft.masks == masks


async def test_saving_asks_when_it_would_lose_or_repeat_something(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        ui.work.picture.move_cross_hair(200, 120)
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("s")
        await ui.dialog(Choose)
        assert "not kept yet" in ui.text()
        await ui.press("enter")
        await ui.until(lambda: not ui.work.doc.unsaved)
        assert len(ui.session.saved[PARTICLES][-1][1].masks) == 2
        await ui.press("s")
        await ui.dialog(Choose)
        assert "Nothing has changed since version 0" in ui.text()
        await ui.press("enter")  # the first answer changes nothing
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert ui.session.count("save") == 1
        await ui.press("A", "d", "s")
        await ui.dialog(Choose)
        assert "No masks are left" in ui.text()
        await ui.press("right", "enter")
        await ui.until(lambda: ui.session.count("save") == 2)


async def test_a_version_saved_by_somebody_else_is_noticed(tmp_path: Path) -> None:
    session = pictures()
    async with running(tmp_path, session) as ui:
        await ui.keep_mask()
        session.save(ui.work.image, [disc(240, 320, 50, 50, 9)], operation="test")
        await ui.press("s")
        await ui.until(lambda: not ui.work.doc.unsaved)
        assert "Somebody else has saved version 0 since you loaded" in ui.work.message.text
        assert ui.work.message.tone == "warning"
        await ui.press("v")
        await ui.dialog(VersionPicker)
        text = ui.text()
        assert "shown now" in text
        assert text.count("1 mask ") == 2
        assert "test" in text  # what made it


async def test_next_takes_the_cross_hair_along_and_zooms_to_the_mask(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        moon = disc(240, 320, 250, 60, 20, id=7)
        ui.work.doc.loaded([disc(240, 320, 40, 200, 12), moon], "0")
        ui.work.show_document()
        await ui.press("n")
        assert ui.work.picture.cross_hair == (250, 60)
        assert "mask 7" in ui.work.status.text
        await ui.press("Z")
        view = ui.work.picture.view
        assert view.contains(231, 41)
        assert view.contains(269, 79)
        assert not view.contains(100, 60)
        scale = view.scale
        await ui.press("plus")
        assert ui.work.picture.view.contains(250, 60)
        assert ui.work.picture.view.scale < scale
        await ui.press("N")
        assert ui.work.picture.cross_hair == (40, 200)


async def test_overlay_tint_and_full_picture(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.work.doc.loaded([disc(240, 320, 160, 120, 40)], "0")
        ui.work.show_document()
        await ui.painted()
        drawn = ui.work.picture._painted.cells
        await ui.press("h")
        await ui.painted()
        bare = ui.work.picture._painted.cells
        assert bare != drawn
        assert "masks hidden" in ui.work.status.text
        await ui.press("h", "i")
        await ui.painted()
        assert "Strong" in ui.work.message.text
        await ui.press("i")
        assert "Outlines only" in ui.work.message.text
        await ui.painted()
        outlines = ui.work.picture._painted.cells
        middle = len(bare) // 2
        column = len(bare[0]) // 2
        assert outlines[middle][column + 2] == bare[middle][column + 2]  # no tint inside
        width = ui.work.picture.size.width
        await ui.press("F")
        await ui.until(lambda: ui.work.picture.size.width == 120 - 1)
        await ui.press("f9")
        await ui.until(lambda: ui.work.picture.size.width == width)


async def test_pages_of_a_stack(tmp_path: Path) -> None:
    session = pictures()
    session.pages = 3
    async with running(tmp_path, session) as ui:
        assert "page 0 of 0–2" in ui.work.status.text
        await ui.press("pagedown")
        await ui.until(lambda: ui.work.image.data.facts.page == 1)
        await ui.opened()
        await ui.keep_mask()
        await ui.press("pagedown")
        await ui.dialog(Choose)  # each page has masks of its own
        await ui.press("up", "up", "enter")  # Discard
        await ui.until(lambda: ui.work.image.data.facts.page == 2)
        await ui.opened()
        assert not ui.work.doc.masks
        await ui.press("pagedown")
        assert "the last of 3 pages" in ui.work.message.text


async def test_recovery_opens_nothing_by_an_enter_typed_ahead_and_can_be_undone(tmp_path: Path) -> None:
    session = pictures()
    ref = ImageRef(StoreKind.LOCAL, PARTICLES)
    saved = disc(240, 320, 200, 60, 15)
    async with running(tmp_path, session) as ui:
        session.save(ui.work.image, [saved], operation="test")
    for image in (PARTICLES, "/pictures/banner.tif"):
        lost = Journal(tmp_path / "journal", pid=987654)
        draft = Draft(
            ImageRef(StoreKind.LOCAL, image), "ab" * 32, "0", (disc(240, 320, 60, 60, 12),), (Point(5.0, 6.0),)
        )
        lost.write(draft)
        lost.close()
    async with running(tmp_path, session, path="/pictures") as ui:
        await ui.dialog(Choose)
        assert "1 more after it" in ui.text()
        await ui.press("enter")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert ui.work.image is None
    async with running(tmp_path, session, path="/pictures") as ui:
        await ui.dialog(Choose)
        await ui.press("left", "enter")  # discard the newest, of the other image
        await ui.until(lambda: PARTICLES in ui.text() and isinstance(ui.app.screen, Choose))
        await ui.press("right", "enter")
        await ui.until(lambda: ui.work.doc.pointing)
        assert str(ui.work.image.ref) == str(ref)
        assert ui.work.doc.unsaved
        await ui.press("u")
        assert ui.work.doc.masks == (saved,)
        assert not ui.work.doc.unsaved


async def test_help_in_dialogs_and_keys_in_the_palette(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        helps = {command.title: command.help for command in ui.app.get_system_commands(ui.screen)}
        assert helps["Contrast"].startswith("c · ")
        await ui.press("a")
        await ui.dialog(AutoDialog)
        assert "Starts the search" in ui.text()  # what the focus is on
        await ui.press("f1")
        await ui.dialog(DialogHelp)
        assert "Points on a grid" in ui.text()
        assert "Tab and Shift+Tab" in ui.text()
        assert "\\x0a" not in ui.text()
        await ui.press("f1")
        await ui.dialog(AutoDialog)
        await ui.press("escape", "f1")
        await ui.dialog(HelpScreen)


async def test_the_dialog_has_tiles_and_the_view(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press(*["plus"] * 5, "a")
        await ui.dialog(AutoDialog)
        assert "in the whole image" in ui.text()
        from textual.widgets import Select

        ui.app.screen.query_one("#where", Select).value = "view"
        ui.app.screen.query_one("#tile", Input).value = "100"
        await ui.pilot.pause()
        ui.app.screen.query_one("#find", Button).press()
        await ui.until(lambda: ui.session.count("auto"))
        parameters = next(detail for name, detail in ui.session.calls if name == "auto")
        assert parameters.tile == 100
        assert parameters.region is None
        box = ui.session.parts[-1]
        assert 0 < box.x0 < 160 < box.x1 < 319
        view = ui.work.picture.view
        assert view.contains(box.x0 + 1, box.y0 + 1)
        assert view.contains(box.x1 - 1, box.y1 - 1)


async def test_large_images_get_the_advice_about_tiles(tmp_path: Path) -> None:
    session = pictures()
    session.images[PARTICLES] = np.zeros((300, 5000), np.uint8)
    async with running(tmp_path, session) as ui:
        await ui.press("a")
        await ui.dialog(AutoDialog)
        assert "tiles of 2,048 px" in ui.text()


async def test_warnings_wrap_and_the_footer_keeps_undo_and_help(tmp_path: Path) -> None:
    async with running(tmp_path, size=(80, 24)) as ui:
        await ui.keep_mask()
        assert "u Undo" in ui.lines()[-1]
        assert "F1 Help" in ui.lines()[-1]
        ui.work.say("a warning that goes on " * 6 + "to its end", "warning")
        await ui.pilot.pause()
        assert "to its end" in ui.text()
        ui.work.say("an information that goes on " * 6 + "to its end")
        await ui.pilot.pause()
        assert "…" in ui.lines()[-2]


async def test_names_of_a_series_can_be_told_apart(tmp_path: Path) -> None:
    session = pictures()
    name = "2026-11-26_sample-A17_furnace-3_10kV_x20000_{:03d}.tif"
    session.images = {f"/pictures/{name.format(i)}": micrograph(40, 50) for i in range(3)}
    async with running(tmp_path, session, path=None) as ui:
        await ui.until(lambda: ui.work.explorer.list.items)
        text = ui.text()
        assert all(f"{i:03d}.tif" in text for i in range(3))
        await ui.press("down")
        assert name.format(1) in ui.text()  # whole, in the message line
        narrow = ui.work.explorer.size.width
        await ui.pilot.resize_terminal(200, 40)
        await ui.until(lambda: ui.work.explorer.size.width > narrow)


def test_names_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    (tmp_path / "ok.png").write_bytes(b"")
    os.close(os.open(os.fsencode(tmp_path) + b"/gr\xfc\xdfe.png", os.O_CREAT | os.O_WRONLY))
    (item,) = unusable(ImageRef(StoreKind.LOCAL, str(tmp_path)))
    assert item.target == ""
    assert item.note == "not UTF-8"


@pytest.mark.parametrize(("scale", "at"), [(1.0, 60), (0.07, 500), (3.0, 4000)])
def test_ruler_numbers_are_whole_or_not_there(scale: float, at: int) -> None:
    view = Viewport.fitted((10_000, 10_000), (100, 50)).zoomed(1000, 0, 0)._with_scale(scale)
    here = int(view.to_cell(at, 0)[0])
    text = "".join(numbers(view, here, 100))
    found = list(re.finditer(r"╷(\d+)", text))
    assert len(found) > 2
    for each in found:
        assert int(view.to_cell(int(each[1]), 0)[0]) == each.start()
        assert not each.start() < here < each.end()


def test_words() -> None:
    assert [counted(n, "mask") for n in (0, 1, 2, 1000)] == ["0 masks", "1 mask", "2 masks", "1,000 masks"]
    assert [zoom_label(m) for m in (16, 1, 0.196)] == ["16x", "1x", "19.6 %"]
    assert middle_cut("sample_A17_0042.tif", 12) == "samp…042.tif"
    assert middle_cut("short", 12) == "short"
    assert middle_cut("名前名前名前", 7) == "名…名前"


def test_outlines_without_colours_stand_out_on_any_grey() -> None:
    view = Viewport.fitted((64, 64), (64, 32))
    mask = disc(64, 64, 32, 32, 20)
    for grey in (20, 110, 140, 230):
        base = np.full((64, 64, 3), grey, np.uint8)
        drawn = compose(base.copy(), view, Overlay((mask,), plain=True, tint=0.0), MaskCrops())
        edge = (drawn != base).any(axis=2)
        assert edge.sum() > 80
        assert (drawn[..., 0] == drawn[..., 1]).all()
        assert abs(drawn[edge].astype(int) - grey).min() > 80


def test_what_the_interface_says_names_no_options_of_the_command_line() -> None:
    import segment_duo.session
    import segment_duo.tui

    for path in Path(segment_duo.tui.__file__).parent.rglob("*.py"):
        assert not re.search(r"[ `]--[a-z]", path.read_text()), path
    assert "--page" not in Path(segment_duo.session.__file__).read_text()


def type_at_once(ui: Ui, *keys: str) -> None:
    """As a terminal multiplexer or a slow line sends them: the next key comes before the last one has done anything."""
    for key in keys:
        ui.app.post_message(events.Key(key, key if len(key) == 1 else None))


async def test_keys_that_edit_keep_their_place_among_what_is_typed(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press("g")
        await ui.dialog(TypeLine)
        field = ui.app.screen.query_one(Input)
        type_at_once(ui, "9", "9", "ctrl+u", "1", "2", "8", "backspace", "0", "home", "1", "delete", "end", "5")
        await ui.until(lambda: field.value.endswith("5"))
        assert field.value == "1205"
        type_at_once(ui, "ctrl+u", *"50,40", "enter")
        await ui.until(lambda: ui.work.picture.cross_hair == (50, 40))
        await ui.press("a")
        await ui.dialog(AutoDialog)
        ui.app.screen.set_focus(ui.app.screen.query_one("#points_per_side"))
        type_at_once(ui, *"16", "tab", *"0.7", "tab", "ctrl+u", *"0.9", "shift+tab", "ctrl+u", *"0.6")
        await ui.until(lambda: ui.app.screen.query_one("#pred_iou_thresh", Input).value == "0.6")
        shown = {one.id: one.value for one in ui.app.screen.query(Input)}
        assert (shown["points_per_side"], shown["stability_score_thresh"]) == ("16", "0.9")


async def test_a_word_of_waiting_goes_when_the_wait_is_over(tmp_path: Path) -> None:
    session = pictures()
    embed, ready = session.embed, threading.Event()
    session.embed = lambda image, part=None: (ready.wait(60), embed(image, part))[1]  # type: ignore[method-assign, assignment]
    async with running(tmp_path, session, path=".") as ui:
        ui.screen.files.open_target(PARTICLES)
        await ui.until(lambda: ui.work.errands.busy("embed"))
        ui.app.tell(f"{STILL_WAITING} the engine: embed: loading the model, for 21 s")
        await ui.until(lambda: "for 21 s" in ui.text())
        ready.set()
        await ui.until(lambda: "for 21 s" not in ui.text())
        assert ui.work.message.text.startswith("The model has seen the image")


async def test_a_long_name_of_wide_characters_leaves_the_rest_of_the_header(tmp_path: Path) -> None:
    session = pictures()
    wide = f"/pictures/{'写真' * 30}.tif"
    session.images[wide] = micrograph(100, 100)
    async with running(tmp_path, session, path=wide, size=(80, 24)) as ui:
        await ui.until(lambda: ui.work.image is not None and "engine ready" in ui.lines()[0])
        header = ui.lines()[0]
        assert "写真.tif" in header
        assert header.rstrip().endswith("engine ready")
