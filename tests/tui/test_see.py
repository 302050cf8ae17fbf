"""What stands in the picture: scale bar, ids; and distances."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.tui.workspace.desk import distance
from segment_duo.types import PixelSize
from tests.tui_fakes import disc
from tests.tui_pilot import colours, running

__all__ = ["colours"]


@pytest.mark.parametrize("method", [Method.HALFCELL, Method.KITTY])
async def test_the_scale_bar_has_the_length_it_says(tmp_path: Path, method: Method) -> None:
    async with running(tmp_path, terminal=Terminal(method, (10, 20))) as ui:
        for zooms in (0, 4):
            await ui.press(*["plus"] * zooms)
            await ui.painted()
            await ui.pilot.pause(0.05)
            (bar,) = re.findall("├─+┤", ui.text())
            (length,) = re.findall(r"(\d+) nm(?!/px)", "\n".join(ui.lines()[:-3]))
            view = ui.work.picture.view
            # 3.37 nm a pixel, true to half a cell at either end
            assert len(bar) * view.cell_width * view.scale * 3.37 == pytest.approx(
                float(length), abs=view.cell_width * view.scale * 3.37
            )
        await ui.press("Q")
        assert "├" not in ui.text()


async def test_ids_stand_on_their_masks(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.work.doc.loaded([disc(240, 320, 60, 60, 20, id=7), disc(240, 320, 240, 180, 20, id=12)], "0")
        ui.work.show_document()
        await ui.painted()
        await ui.press("number_sign")
        view = ui.work.picture.view
        for x, y, text in ((60, 60, "7"), (240, 180, "12")):
            column, row = (int(value) for value in view.to_cell(x, y))
            strip = "".join(segment.text for segment in ui.work.picture.render_line(row))
            assert text in strip[column - 2 : column + 3]
        await ui.press("h", "number_sign")
        strip = "".join(segment.text for segment in ui.work.picture.render_line(int(view.to_cell(60, 60)[1])))
        assert "7" not in strip


async def test_measuring_follows_the_cross_hair(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        ui.work.picture.move_cross_hair(10, 20)
        await ui.press("X")
        ui.work.picture.move_cross_hair(40, 60)
        ui.work.show_cross_hair()
        assert "distance 50.0 px = 168.5 nm" in ui.work.status.text
        await ui.press("X")
        assert "distance" not in ui.work.status.text


def test_distance() -> None:
    assert distance((0, 0), (3, 4), None) == "distance 5.0 px"
    assert distance((0, 0), (300, 400), PixelSize(10, 10, "test")) == "distance 500.0 px = 5 um"
    assert distance((0, 0), (0, 10), PixelSize(1, 2, "test")) == "distance 10.0 px = 20 nm"


async def test_finer_characters_and_a_contrast_window_by_keys(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        picture = ui.work.picture
        visible = picture.view.visible()
        halves = {cell.text for row in picture._painted.cells for cell in row}
        assert halves <= {"▀", " "}
        for method in ("quadrant", "sextant", "octant"):
            await ui.press("P")
            assert picture.terminal.method == method
            await ui.painted()
            signs = {cell.text for row in picture._painted.cells for cell in row}
            assert signs - halves
            assert picture.view.visible() == visible
        await ui.press("right")
        assert picture.cross_hair[0] > 160
        await ui.press("P")
        assert picture.terminal.method == "halfcell"
        await ui.press("right_parenthesis", "right_parenthesis")
        assert "contrast stretched 2–98 %" in ui.work.status.text
        await ui.press("left_parenthesis", "left_parenthesis", "left_parenthesis")
        assert "contrast" not in ui.work.status.text
        assert "nm, " in ui.work.status.text  # where the cross-hair is
