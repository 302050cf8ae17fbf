"""The app over a session in memory: keys in, document and messages out."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from textual import events
from textual.color import Color

from segment_duo.errors import AlreadyExists, DropsDenied, EngineUnavailable, OutOfSpace
from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.tui.journal import Draft, Journal
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.screens.auto import AutoDialog, AutoProgress
from segment_duo.tui.screens.help import HelpScreen
from segment_duo.tui.screens.size_filter import SizeFilterDialog
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.types import Box, ImageRef, Point, StoreKind
from tests.tui_fakes import disc, micrograph, pictures
from tests.tui_pilot import PARTICLES, cell_centre, running

# 1. Panes


async def test_explorer_lists_images_newest_first_with_marks(tmp_path: Path) -> None:
    session = pictures()
    session.saved["/pictures/banner.tif"] = [(None, None)]  # type: ignore[list-item]
    async with running(tmp_path, session, path=None) as ui:
        await ui.until(lambda: ui.work.explorer.list.items)
        items = ui.work.explorer.list.items
        assert [item.name for item in items] == ["older", "particles.tif", "banner.tif"]
        assert items[ui.work.explorer.list.cursor].name == "particles.tif"  # the newest image
        assert [item.saved for item in items] == [False, False, True]
        assert "● banner.tif" in ui.text()
        assert "No image yet" in ui.text()
        assert "F1" in ui.lines()[-1]


async def test_typing_narrows_the_explorer_and_escape_widens_it(tmp_path: Path) -> None:
    async with running(tmp_path, path=None) as ui:
        await ui.until(lambda: ui.work.explorer.list.items)
        await ui.press("b", "a", "n", "q")
        assert "nothing named “banq” here" in ui.text()
        await ui.press("backspace")
        assert [item.name for item in ui.work.explorer.list.items] == ["banner.tif"]
        assert "filter: ban" in ui.text()
        await ui.press("escape")
        assert len(ui.work.explorer.list.items) == 3
        assert ui.app.is_running


async def test_enter_opens_folders_and_images_and_left_goes_up(tmp_path: Path) -> None:
    session = pictures()
    session.images["/pictures/older/old.png"] = micrograph()
    async with running(tmp_path, session, path=None) as ui:
        await ui.until(lambda: ui.work.explorer.list.items)
        await ui.press("o", "l", "enter")
        await ui.until(lambda: ui.screen.folders.folder == "/pictures/older")
        await ui.press("left")
        await ui.until(lambda: ui.screen.folders.folder == "/pictures")
        assert ui.work.explorer.list.items[ui.work.explorer.list.cursor].name == "older"
        await ui.press("down", "enter")
        await ui.opened()
        assert ui.screen.focused is ui.work.canvas


async def test_header_status_and_footer(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.until(lambda: "nano" in ui.work.header.render().plain and "ready" in ui.work.header.render().plain)
        lines = ui.lines()
        assert PARTICLES in lines[0]
        assert "unsaved" not in lines[0]
        assert "x  160  y  120" in lines[-3]
        assert f"grey {ui.session.images[PARTICLES][120, 160]}" in lines[-3]
        assert "3.37 nm/px" in lines[-3]
        assert "Space Include" in lines[-1]
        assert "Exclude" not in lines[-1]  # nothing to correct yet
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.pilot.pause()
        assert "x Exclude" in ui.lines()[-1]
        await ui.press("enter")
        assert "unsaved" in ui.lines()[0]


async def test_explorer_key_shows_focuses_and_hides(tmp_path: Path) -> None:
    async with running(tmp_path, size=(80, 24)) as ui:
        assert ui.work.explorer.has_class("-hidden")  # a small screen belongs to the picture
        await ui.press("o")
        assert not ui.work.explorer.has_class("-hidden")
        assert ui.screen.focused is ui.work.explorer.list
        await ui.press("escape")
        assert ui.screen.focused is ui.work.canvas
        assert not ui.work.explorer.has_class("-hidden")
        await ui.press("o")
        assert ui.work.explorer.has_class("-hidden")
        await ui.press("f9")
        assert ui.screen.focused is ui.work.explorer.list
        await ui.press("f9")  # from the list too, where letters narrow it
        assert ui.work.explorer.has_class("-hidden")
        assert ui.screen.focused is ui.work.canvas


# 2. The picture


async def test_cursor_moves_cost_no_picture(tmp_path: Path) -> None:
    async with running(tmp_path, terminal=Terminal(Method.KITTY, (10, 20))) as ui:
        picture = ui.work.picture
        before = (picture.sent_pictures, picture.sent_bytes)
        assert before[1] > 10_000
        await ui.press(*["right"] * 5, *["down"] * 5, "shift+left", "shift+up")
        for _ in range(5):
            await ui.pilot.pause(0.02)
        assert (picture.sent_pictures, picture.sent_bytes) == before


@pytest.mark.parametrize("method", list(Method))
async def test_cursor_moves_redraw_few_cells(tmp_path: Path, method: Method) -> None:
    async with running(tmp_path, terminal=Terminal(method, (10, 20))) as ui:
        picture = ui.work.picture
        await ui.pilot.pause(0.1)
        redrawn: list[int] = []
        refresh = picture.refresh
        picture.refresh = lambda *regions, **more: (
            redrawn.append(sum(r.area for r in regions) or 10**9),
            refresh(*regions, **more),
        )[1]  # type: ignore[method-assign, assignment]
        sent = picture.sent_bytes
        await ui.press("shift+right", "shift+right", "shift+down")
        assert sum(redrawn) < 100
        assert (method is Method.SIXEL) == (not redrawn)  # text on a sixel picture would erase it
        assert picture.sent_bytes == sent
        assert "▼" in ui.text()


async def test_adding_a_point_sends_no_picture_until_the_mask_comes(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.session.gate = threading.Event()
        before = ui.work.picture.sent_pictures
        await ui.press("space")
        await ui.pilot.pause(0.1)
        assert ui.work.picture.sent_pictures == before
        ui.session.gate.set()
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.painted()
        assert ui.work.picture.sent_pictures == before + 1


async def test_zoom_pan_fit_and_one_to_one(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        picture = ui.work.picture
        fitted = picture.view
        await ui.press("plus", "plus")
        assert picture.view.scale == pytest.approx(fitted.scale / 2)
        assert picture.view.to_cell(*picture.cross_hair) == pytest.approx(fitted.to_cell(*picture.cross_hair), abs=0.1)
        left = picture.view.left
        await ui.press("L")
        assert picture.view.left > left
        assert picture.view.contains(*picture.cross_hair)
        await ui.press("end")
        assert picture.view.scale == 1
        await ui.press("0")
        assert picture.view == fitted
        await ui.painted()


async def test_wheel_zooms_about_the_pointer_and_drag_pans(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        picture = ui.work.picture
        await ui.press("plus", "plus", "plus")
        middle = (picture.size.width // 2 + 3, picture.size.height // 2 + 2)
        under = picture.view.to_image(middle[0] + 0.5, middle[1] + 0.5)
        scale = picture.view.scale
        await ui.pilot._post_mouse_events([events.MouseScrollUp], picture, offset=middle, button=0)
        await ui.pilot.pause()
        assert picture.view.scale < scale
        assert picture.view.to_image(middle[0] + 0.5, middle[1] + 0.5) == pytest.approx(under)
        before = picture.view
        at = picture.cross_hair
        await ui.pilot.mouse_down(picture, offset=(20, 10))
        await ui.pilot.hover(picture, offset=(15, 10))
        await ui.pilot.mouse_up(picture, offset=(15, 10))
        assert picture.view.left == pytest.approx(before.left + 5 * before.scale)
        assert picture.cross_hair == at


async def test_contrast_and_banner(tmp_path: Path) -> None:
    async with running(tmp_path, path="/pictures/banner.tif") as ui:
        await ui.opened()
        assert ui.work.image.data.facts.banner.height == 20
        assert "20 rows cut" in ui.work.message.text
        await ui.press("b")
        await ui.until(lambda: ui.work.image.data.facts.banner.height == 0)
        await ui.painted()
        assert ui.work.picture.view.image_height == 260
        await ui.press("b")
        await ui.until(lambda: ui.work.image.data.facts.banner.height == 20)
        await ui.painted()
        plain = ui.work.picture._painted.cells
        await ui.press("c")
        await ui.painted()
        assert ui.work.picture._painted.cells != plain
        assert "contrast stretched" in ui.work.status.text


async def test_kitty_picture_is_replaced_and_freed(tmp_path: Path) -> None:
    async with running(tmp_path, terminal=Terminal(Method.KITTY, (10, 20))) as ui:
        written: list[str] = []
        ui.work.picture._write = written.append  # type: ignore[method-assign]
        first = ui.work.picture._painted.image_id
        await ui.press("plus")
        await ui.painted()
        await ui.pilot.pause(0.05)
        second = ui.work.picture._painted.image_id
        assert second != first
        assert f"i={second}" in written[0]
        assert written[1] == f"\x1b_Ga=d,d=I,i={first},q=2\x1b\\"
        assert "\U0010eeee" in ui.text()


async def test_dialogs_cover_half_cells_not_graphics(tmp_path: Path) -> None:
    async with running(tmp_path, terminal=Terminal(Method.KITTY, (10, 20))) as ui:
        await ui.press("f1")
        await ui.dialog(HelpScreen)
        await ui.pilot.pause(0.05)
        assert not any("\U0010eeee" in segment.text for segment in ui.work.picture.render_line(5))


async def test_sixel_is_sent_once_a_view(tmp_path: Path) -> None:
    async with running(tmp_path, terminal=Terminal(Method.SIXEL, (10, 20))) as ui:
        picture = ui.work.picture
        await ui.until(lambda: picture.sent_bytes)
        await ui.pilot.pause(0.1)
        sent = picture.sent_bytes
        await ui.press("right", "down", "left")
        await ui.pilot.pause(0.1)
        assert picture.sent_bytes == sent
        await ui.press("plus")
        await ui.painted()
        await ui.until(lambda: picture.sent_bytes > sent)


async def test_resize_storm(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        for width, height in [(40, 10), (200, 60), (1, 1), (80, 24), (20, 5), (300, 90), (120, 36)]:
            await ui.pilot.resize_terminal(width, height)
            await ui.press("right")
        await ui.painted()
        picture = ui.work.picture
        assert (picture.view.columns, picture.view.rows) == picture.size
        assert len(picture._painted.cells) == picture.size.height


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 2), (7, 5)])
async def test_odd_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    session = pictures()
    session.images[PARTICLES] = np.full(shape, 90, np.uint8)
    async with running(tmp_path, session) as ui:
        await ui.press("plus", "right", "down", "plus", "shift+right", "end", "0", "minus", "space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("enter")
        await ui.painted()
        assert len(ui.work.doc.masks) == 1


async def test_a_zoom_reads_only_what_it_shows(tmp_path: Path, pixels_read: list[int]) -> None:
    session = pictures()
    session.images[PARTICLES] = np.tile(micrograph(512, 512), (16, 16))  # 67 megapixels
    async with running(tmp_path, session) as ui:
        for key in ("plus", "plus", "minus", "plus", "plus"):
            pixels_read.clear()
            await ui.press(key)
            await ui.painted()
            assert pixels_read
            assert sum(pixels_read) < 500_000, key  # pictures of 120 x 40 cells: one in the middle, one in the loupe


# 3. Pointing


async def test_arrows_move_by_screen_pixels(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        picture = ui.work.picture
        step = picture.view.step
        x, y = picture.cross_hair
        await ui.press("right", "down")
        assert picture.cross_hair == (x + step, y + step)
        await ui.press("shift+left")
        assert picture.cross_hair == (max(0, x - 9 * step), y + step)
        for _ in range(5):
            await ui.press("shift+left")
        assert picture.cross_hair[0] == 0
        for _ in range(6):
            await ui.press("plus")
        x, y = picture.cross_hair
        await ui.press("right")
        assert picture.cross_hair == (x + 1, y)


async def test_goto_types_coordinates(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press("g")
        await ui.dialog(TypeLine)
        await ui.press(*"999,5", "enter")
        assert "x runs from 0 to 319" in ui.text()
        await ui.press("home", "shift+end", *"12,34", "enter")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert ui.work.picture.cross_hair == (12, 34)
        assert "x   12  y   34" in ui.work.status.text


async def test_cross_hair_out_of_view_pans(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press(*["plus"] * 8)
        before = ui.work.picture.view
        await ui.press(*["shift+right"] * 6)
        assert ui.work.picture.view.left > before.left
        assert ui.work.picture.view.contains(*ui.work.picture.cross_hair)


async def test_loupe_shows_the_pixels_and_can_be_put_away(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        loupe = ui.work.loupe
        columns = loupe.content_size.width // 2
        assert loupe.border_title == f"loupe {columns} × {loupe.content_size.height} px"
        await ui.press("z")
        assert (
            loupe.border_title
            == f"loupe {2 * columns + loupe.content_size.width % 2} × {2 * loupe.content_size.height} px"
        )
        drawn = loupe._draw(ui.work.pyramid, (100, 100))
        grey = ui.session.images[PARTICLES]
        assert drawn[drawn.shape[0] // 2, drawn.shape[1] // 2, 0] == grey[100, 100]
        await ui.press("z")
        assert not loupe.display
        await ui.press("z")
        assert loupe.display


async def test_mouse_click_moves_and_shift_click_points(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        picture = ui.work.picture
        await ui.pilot.click(picture, offset=(12, 12))
        expected = picture.view.limited(*cell_centre(picture.view, 12, 12))
        assert picture.cross_hair == expected
        assert not ui.work.doc.pointing
        await ui.pilot.click(picture, offset=(13, 12), shift=True)
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.pilot.click(picture, offset=(20, 12), shift=True, button=3)
        await ui.until(lambda: len(ui.work.doc.present.points) == 2)
        assert [point.label for point in ui.work.doc.present.points] == [1, 0]


def test_pixel_reports_of_the_mouse_are_used() -> None:
    from textual.events import MouseDown

    from segment_duo.terminal.viewport import Viewport
    from segment_duo.tui.canvas.picture_view import PictureView

    picture = PictureView(Terminal())
    picture.view = Viewport.fitted((1000, 1000), (100, 50))

    def at(x: float, y: float) -> tuple[float, float]:
        return picture._image_at(MouseDown(picture, x, y, 0, 0, 1, False, False, False))

    assert at(50, 25) == pytest.approx(picture.view.to_image(50.5, 25.5))  # whole cells: their middle
    assert at(50.25, 25.75) == pytest.approx(picture.view.to_image(50.25, 25.75))


async def test_box_by_two_corners(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.work.picture.move_cross_hair(100, 90)
        await ui.press("r")
        assert "┌" in ui.text()
        assert "opposite corner" in ui.work.status.text or "opposite corner" in ui.work.message.text
        await ui.press("r")
        assert "no area" in ui.work.message.text
        ui.work.picture.move_cross_hair(60, 30)
        await ui.press("r")
        await ui.until(lambda: ui.work.doc.candidate)
        assert ui.work.doc.present.box == Box(60, 30, 100, 90)
        await ui.press("enter")
        assert len(ui.work.doc.masks) == 1


# 4. Masks


async def test_points_refine_and_candidates_cycle(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press("x")
        assert not ui.work.doc.pointing
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        assert len(ui.work.doc.candidates) == 3
        assert ui.work.status.text.split(" │ ")[1] == "candidate 1 of 3, IoU 0.90"  # where a narrow terminal shows it
        await ui.press("m")
        assert "candidate 2 of 3" in ui.work.status.text
        await ui.press("right", "x")
        await ui.until(lambda: ui.work.doc.candidate)
        prompt, _ = ui.session.calls[-1][1]
        assert prompt.mask_input == "logits-11"
        assert [point.label for point in prompt.points] == [1, 0]
        await ui.press("m")  # a single mask: ask for three
        await ui.until(lambda: len(ui.work.doc.candidates) == 3)
        assert ui.session.calls[-1][1][1] is True
        assert ui.work.doc.candidate_index == 1


async def test_enter_before_the_mask_came_keeps_it_when_it_comes(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.session.gate = threading.Event()
        await ui.press("space", "enter")
        assert not ui.work.doc.masks
        ui.session.gate.set()
        await ui.until(lambda: len(ui.work.doc.masks) == 1)


async def test_superseded_questions_are_not_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.session.gate = threading.Event()
        await ui.press("space", "right", "space", "right", "space", "right", "space")
        ui.session.gate.set()
        await ui.until(lambda: ui.work.doc.candidate)
        assert ui.session.count("predict") <= 2
        assert len(ui.session.calls[-1][1][0].points) == 4


async def test_undo_and_redo_by_keys(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("right", "space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("u")
        assert len(ui.work.doc.present.points) == 1
        await ui.until(lambda: ui.work.doc.candidate)  # the mask of the points that are left
        await ui.press("U")
        assert len(ui.work.doc.present.points) == 2
        await ui.press("escape")
        assert not ui.work.doc.pointing
        await ui.press("u")
        assert len(ui.work.doc.present.points) == 2


async def test_auto_with_parameters(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        await ui.press("a")
        await ui.dialog(AutoDialog)
        dialog = ui.app.screen
        dialog.query_one("#preset").value = "coarse"
        await ui.pilot.pause()
        assert dialog.query_one("#points_per_side").value == "16"
        dialog.query_one("#pred_iou_thresh").value = "7"
        dialog.query_one("#find").focus()
        await ui.press("enter")
        assert "between 0 and 1" in ui.text()
        dialog.query_one("#pred_iou_thresh").value = "0.7"
        await ui.press("enter")
        await ui.until(lambda: len(ui.work.doc.masks) == 13)
        parameters = next(detail for name, detail in ui.session.calls if name == "auto")
        assert (parameters.points_per_side, parameters.pred_iou_thresh) == (16, 0.7)
        assert "12 masks in 0.5 s" in ui.work.message.text
        await ui.auto()
        await ui.until(lambda: "12 earlier ones replaced" in ui.work.message.text)
        assert len(ui.work.doc.masks) == 13


async def test_auto_shows_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.session.gate = threading.Event()
        await ui.press("a")
        await ui.dialog(AutoDialog)
        await ui.press("enter")
        await ui.dialog(AutoProgress)
        await ui.until(lambda: "1 of 12" in ui.text())
        await ui.press("escape")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert "Cancelled" in ui.work.message.text
        assert not ui.work.doc.masks
        ui.session.gate.set()
        await ui.press("space")  # the engine is free again
        await ui.until(lambda: ui.work.doc.candidate)


async def test_auto_inside_a_box(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.press("r", "shift+right", "shift+down", "r")
        await ui.until(lambda: ui.work.doc.candidate)
        box = ui.work.doc.present.box
        await ui.auto()
        assert next(detail for name, detail in ui.session.calls if name == "auto").region == box


async def test_select_delete_label_and_step(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.auto()
        doc = ui.work.doc
        await ui.press("d")
        assert "Nothing is selected" in ui.work.message.text
        await ui.press("n", "t", "n", "t")
        assert doc.selected == {1, 2}
        assert "2 selected" in ui.work.mask_list.border_title
        await ui.press("d")
        assert len(doc.masks) == 10
        assert "2 masks deleted" in ui.work.message.text
        await ui.press("A")
        assert len(doc.selected) == 10
        await ui.press("I")
        assert not doc.selected
        await ui.press("N", "l")
        await ui.dialog(TypeLine)
        await ui.press(*"[b]x", "enter")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert doc.mask(doc.current).label == "[b]x"
        assert "[b]x" in ui.text()
        await ui.press("u", "u")
        assert len(doc.masks) == 12


async def test_mask_list_has_its_own_keys(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.auto()
        ui.work.mask_list.focus()
        await ui.press("down", "space", "down", "down", "enter")
        assert ui.work.doc.selected == {1, 3}
        assert ui.work.doc.current == 3
        assert ui.text().count("▣") == 2
        await ui.press("end")
        assert ui.work.doc.current == 11
        rows = [ui.work.mask_list.render_line(y) for y in range(13)]
        grounds = [{segment.style.bgcolor for segment in row} for row in rows]
        assert all(len(ground) == 1 for ground in grounds)
        assert grounds[12] != grounds[11]  # the cursor is seen on an unselected mask too
        await ui.press("d")
        assert len(ui.work.doc.masks) == 10


async def test_enter_without_points_selects_the_mask_under_the_cross_hair(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.auto()
        ui.work.picture.move_cross_hair(120, 40)
        ui.work.show_cross_hair()
        assert "mask 1" in ui.work.status.text
        await ui.press("enter")
        assert ui.work.doc.selected == {1}
        ui.work.picture.move_cross_hair(80, 80)
        await ui.press("enter")
        assert "Space sets a point" in ui.work.message.text


async def test_filter_by_size(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.auto()
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("m", "enter", "f")
        await ui.dialog(SizeFilterDialog)
        await ui.press(*"500")
        assert "12 of 13 masks" in ui.text()
        await ui.press("enter")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert len(ui.work.doc.shown) == 12
        assert "masks 12 of 13" in ui.work.mask_list.border_title
        await ui.press("A", "d")
        assert len(ui.work.doc.masks) == 1


# 5. Saving and loading


async def test_save_makes_versions_and_reopening_shows_the_latest(tmp_path: Path) -> None:
    session = pictures()
    async with running(tmp_path, session) as ui:
        await ui.auto()
        await ui.press("s")
        await ui.until(lambda: not ui.work.doc.unsaved)
        assert "particles_0.pkl" in ui.work.message.text
        assert "version 0" in ui.lines()[0]
        await ui.press("n", "t", "d", "S")
        await ui.dialog(TypeLine)
        await ui.press(*"a/b", "enter")
        assert "Letters, digits" in ui.text()
        await ui.press("home", "shift+end", *"best", "enter")
        await ui.until(lambda: not ui.work.doc.unsaved)
        assert ui.work.doc.version == "best"
        suffix, parent, parameters = next(detail for name, detail in reversed(session.calls) if name == "save")
        assert (suffix, parent) == ("best", "0")
        assert parameters == {}  # what made the masks is in the masks
        masks = ui.work.doc.masks
    async with running(tmp_path, session) as ui:
        await ui.until(lambda: ui.work.doc.version == "best")
        assert ui.work.doc.masks == masks
        await ui.press("v")
        await ui.dialog(VersionPicker)
        assert "shown now" in ui.text()
        await ui.press("down", "enter")
        await ui.until(lambda: ui.work.doc.version == "0")
        assert len(ui.work.doc.masks) == 12
        assert [item.saved for item in ui.work.explorer.list.items if item.name == "particles.tif"] == [True]


async def test_masks_of_another_size_are_left_out(tmp_path: Path) -> None:
    session = pictures()
    async with running(tmp_path, session) as ui:
        session.save(ui.work.image, [disc(240, 320, 50, 50, 9), disc(100, 100, 50, 50, 9)], operation="test")
        await ui.press("v")
        await ui.dialog(VersionPicker)
        await ui.press("enter")
        await ui.until(lambda: ui.work.doc.version == "0")
        assert len(ui.work.doc.masks) == 1
        assert "left out" in ui.work.message.text


async def test_quitting_asks_about_unsaved_work(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        await ui.press("q")
        await ui.dialog(Choose)
        await ui.press("escape")
        await ui.until(lambda: ui.app.screen is ui.screen)
        assert ui.app.is_running
        await ui.press("q")
        await ui.dialog(Choose)
        await ui.press("enter")  # Save
        await ui.until(lambda: not ui.app.is_running or ui.app._exit)
        assert ui.session.count("save") == 1
    assert Journal(tmp_path / "journal").left_behind() == []


async def test_quitting_out_of_a_dialog_asks_too(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        await ui.press("g")
        await ui.dialog(TypeLine)
        await ui.press("ctrl+q")
        await ui.dialog(Choose)
        assert "1 mask is not saved" in ui.text()
        assert not ui.app._exit
        await ui.press("escape")
        await ui.dialog(TypeLine)
        await ui.press("ctrl+q")
        await ui.dialog(Choose)
        await ui.press("enter")  # Save
        await ui.until(lambda: ui.app._exit)
        assert ui.session.count("save") == 1


async def test_quitting_without_saving(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        await ui.until(lambda: list((tmp_path / "journal").glob("*.json")))
        await ui.press("q")
        await ui.dialog(Choose)
        assert "1 mask is not saved" in ui.text()
        await ui.press("down", "down", "down", "enter")
        await ui.until(lambda: ui.app._exit)
        assert ui.session.count("save") == 0
    assert list((tmp_path / "journal").iterdir()) == []


async def test_opening_another_image_asks_first(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        await ui.press("o", "o", *"ban", "enter")
        await ui.dialog(Choose)
        await ui.press("enter")
        await ui.until(lambda: str(ui.work.image.ref) == "/pictures/banner.tif")
        assert ui.session.count("save") == 1
        assert not ui.work.doc.masks


async def test_work_survives_a_crash(tmp_path: Path) -> None:
    ref = ImageRef(StoreKind.LOCAL, PARTICLES)
    masks = (disc(240, 320, 60, 60, 12, id=4, label="kept"),)
    lost = Journal(tmp_path / "journal", pid=987654)
    lost.write(Draft(ref, "ab" * 32, "2", masks, (Point(5.0, 6.0),)))
    lost.close()
    async with running(tmp_path, path=None) as ui:
        await ui.dialog(Choose)
        assert "1 mask and 1 point from" in ui.text()
        await ui.press("right", "enter")
        await ui.until(lambda: ui.work.doc.masks == masks)
        assert ui.work.doc.unsaved
        assert ui.work.doc.version == "2"
        await ui.until(lambda: ui.work.doc.candidate)  # the points ask again
        files = [path.name for path in (tmp_path / "journal").glob("*.json")]
        assert len(files) == 1
        assert "987654" not in files[0]  # ours now


async def test_lost_work_can_be_discarded_or_left(tmp_path: Path) -> None:
    def leave() -> None:
        lost = Journal(tmp_path / "journal", pid=987654)
        lost.write(Draft(ImageRef(StoreKind.LOCAL, PARTICLES), "", None, (disc(240, 320, 60, 60, 12),)))
        lost.close()

    leave()
    async with running(tmp_path, path=None) as ui:
        await ui.dialog(Choose)
        await ui.press("escape")
        await ui.until(lambda: ui.app.screen is ui.screen)
    assert len(Journal(tmp_path / "journal").left_behind()) == 1
    async with running(tmp_path, path=None) as ui:
        await ui.dialog(Choose)
        await ui.press("left", "enter")
        await ui.until(lambda: ui.app.screen is ui.screen)
    assert Journal(tmp_path / "journal").left_behind() == []


# 6. Nothing blocks, nothing is lost


async def test_ui_answers_while_the_engine_computes(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.session.gate = threading.Event()
        await ui.press("space")
        x = ui.work.picture.cross_hair[0]
        await ui.press("right", "right")
        assert ui.work.picture.cross_hair[0] > x
        await ui.press("plus")
        await ui.painted()
        assert not ui.work.doc.candidates
        ui.session.gate.set()
        await ui.until(lambda: ui.work.doc.candidate)


@pytest.mark.parametrize(
    ("call", "error", "keys"),
    [
        ("predict", EngineUnavailable("no engine answers", "Start one: segduo engine start."), ["space"]),
        (
            "save",
            OutOfSpace("no space left in /masks", "Free some space, then press s again."),
            ["space", "enter", "s"],
        ),
        ("save", AlreadyExists("taken", "Choose another suffix with S."), ["space", "enter", "s"]),
        ("listed", DropsDenied("wrong user name or password", "Check .env."), ["v"]),
        ("predict", ValueError("[red]odd\x1b[31m"), ["space"]),
    ],
)
async def test_failures_become_messages_and_the_work_is_kept(
    tmp_path: Path, call: str, error: Exception, keys: list[str]
) -> None:
    async with running(tmp_path) as ui:
        ui.session.failures[call] = error
        for key in keys:
            await ui.press(key)
            if key == "space" and call != "predict":
                await ui.until(lambda: ui.work.doc.candidate)
        await ui.until(lambda: ui.work.message.tone == "error")
        hint = getattr(error, "hint", "Your work is kept")
        assert hint in ui.work.message.text
        assert "\x1b" not in ui.text()
        assert ui.work.doc.pointing or ui.work.doc.masks or call == "listed"
        assert ui.app.is_running


async def test_spooled_save_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.session.spool = True
        await ui.keep_mask()
        await ui.press("s")
        await ui.until(lambda: "Drops is away" in ui.work.message.text)
        assert not ui.work.doc.unsaved


async def test_folder_that_cannot_be_read_leaves_places(tmp_path: Path) -> None:
    session = pictures()
    session.failures["list_folder"] = DropsDenied("/drops/x: access denied", "Check .env.")
    async with running(tmp_path, session, path="/drops/x") as ui:
        await ui.until(lambda: ui.work.explorer.list.items)
        assert "working folder" in ui.text()


async def test_missing_image_is_a_message(tmp_path: Path) -> None:
    async with running(tmp_path, path="/pictures/none.png") as ui:
        await ui.until(lambda: "no such file" in ui.work.message.text)


# 7. Help, palette, keys, themes, sizes, hostile names


async def test_help_lists_every_command(tmp_path: Path) -> None:
    from segment_duo.tui.keys import COMMANDS

    async with running(tmp_path, size=(100, 160)) as ui:
        await ui.press("f1")
        await ui.dialog(HelpScreen)
        text = ui.text()
        for command in COMMANDS:
            assert command.help in text
        await ui.press("escape")
        await ui.until(lambda: ui.app.screen is ui.screen)


async def test_keys_can_be_rebound(tmp_path: Path) -> None:
    async with running(tmp_path, keymap={"include": "i", "save": "ctrl+s"}) as ui:
        await ui.press("i")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("enter", "s")
        assert ui.session.count("save") == 0
        assert "i Include" in ui.lines()[-1]
        await ui.press("ctrl+s")
        await ui.until(lambda: ui.session.count("save") == 1)


async def test_command_palette_runs_commands(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        titles = {command.title for command in ui.app.get_system_commands(ui.screen)}
        assert "Contrast" in titles
        assert "Redo" not in titles  # nothing to do again
        await ui.press("ctrl+p")
        await ui.pilot.pause(0.2)
        await ui.press(*"contrast")
        await ui.pilot.pause(0.6)
        await ui.press("enter")
        await ui.until(lambda: ui.work.picture.stretch)


async def test_light_and_dark(tmp_path: Path) -> None:
    async with running(tmp_path, theme="segduo-light") as ui:
        assert not ui.app.current_theme.dark
        await ui.press("f2")
        assert ui.app.current_theme.dark
        await ui.press("f2")
        assert not ui.app.current_theme.dark


def _contrast(one: Color, other: Color) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: Color) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour.normalized]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_texts_have_contrast() -> None:
    from segment_duo.tui.themes import DARK, LIGHT

    for theme in (DARK, LIGHT):
        ground = Color.parse(theme.surface)
        for name in ("primary", "accent", "warning", "error", "success", "foreground"):
            colour = Color.parse(getattr(theme, name))
            assert _contrast(colour, ground) >= 4.5, (theme.name, name)


async def test_80_by_24_is_usable(tmp_path: Path) -> None:
    async with running(tmp_path, size=(80, 24)) as ui:
        await ui.auto()
        await ui.painted()
        lines = ui.lines()
        assert len(lines) == 24
        assert ui.work.picture.size.width >= 50
        assert ui.work.picture.size.height >= 17
        assert all(name in lines[-1] for name in ("Include", "Find all", "Save", "Help", "Quit"))
        await ui.press("a")
        await ui.dialog(AutoDialog)
        await ui.pilot.pause()
        assert "Find" in ui.text()
        assert ui.app.screen.query_one("#find").region.bottom <= 24


HOSTILE = ["[red]a[bold].tif", "x\x1b]0;owned\x07.tif", "a\nb.tif", "\u202egpj.tif", "名前" * 30 + ".tif", "\udcff.tif"]


async def test_hostile_names(tmp_path: Path) -> None:
    session = pictures()
    session.images = {f"/pictures/{name}": micrograph(40, 50) for name in HOSTILE}
    async with running(tmp_path, session, path=None) as ui:
        await ui.until(lambda: ui.work.explorer.list.items)
        for index in range(len(HOSTILE)):
            ui.work.explorer.list.cursor = index + 1  # behind the folder
            ui.work.explorer.list.focus()
            await ui.pilot.pause()
            await ui.press("enter")
            await ui.until(lambda i=index: ui.work.image is not None and ui.work.image.ref.name == HOSTILE[i])
            await ui.pilot.pause()
            text = ui.text()
            assert "\x1b" not in text
            assert "\x07" not in text
            assert "\u202e" not in text
            assert {cell_len(line) for line in ui.lines()} == {120}
        assert "[red]a[bold].tif" in text


async def test_no_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with running(tmp_path) as ui:
        await ui.auto()
        await ui.press("n", "t")
        strips = ui.app.screen._compositor.render_strips()
        assert strips
        assert "▣" in ui.text()  # selection does not depend on colour


async def test_screenshot_has_the_structure(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.auto()
        await ui.press("n", "t")
        await ui.painted()
        svg = ui.app.export_screenshot().replace("&#160;", " ")
        for part in (PARTICLES, "masks 12 · 1 selected", "loupe", "▣", "1,517", "Find all", "unsaved"):
            assert part in svg
        assert svg.count("<text") > 300  # the picture is there
