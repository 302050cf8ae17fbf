"""Classes in the terminal UI: number keys, colours, counts."""

from __future__ import annotations

from pathlib import Path

from segment_duo.config import ClassSettings
from segment_duo.tui.screens.help import HelpScreen
from tests.tui_fakes import FakeConfig, FakeSession, disc, pictures
from tests.tui_pilot import PARTICLES, colours, running

__all__ = ["colours"]


def with_classes() -> FakeSession:
    session = pictures()
    session.config = FakeConfig(classes={"pore": ClassSettings(colour="#ff0000"), "grain": ClassSettings(key="5")})
    return session


async def test_number_keys_label_and_count_and_are_undone(tmp_path: Path) -> None:
    async with running(tmp_path, with_classes()) as ui:
        doc = ui.work.doc
        doc.loaded([disc(240, 320, 60 + 80 * i, 120, 20, id=i) for i in range(3)], "0")
        ui.work.show_document()
        await ui.press("1")  # the current one
        assert [mask.label for mask in doc.masks] == ["pore", "", ""]
        assert "1\u00a0pore\u00a01" in ui.text()
        await ui.press("n", "t", "n", "t", "5")
        assert [mask.label for mask in doc.masks] == ["pore", "grain", "grain"]
        assert "5\u00a0grain\u00a02" in ui.text()
        await ui.press("5")  # again: off
        assert [mask.label for mask in doc.masks] == ["pore", "", ""]
        assert [mask.origin and mask.origin.edits for mask in doc.masks] == [
            ("label 'pore'",),
            *[("label 'grain'", "label taken off")] * 2,
        ]
        await ui.press("u", "u")
        assert [mask.label for mask in doc.masks] == ["pore", "", ""]
        assert [mask.origin for mask in doc.masks[1:]] == [None, None]
        await ui.press("u")
        assert not doc.unsaved
        await ui.press("7")
        assert "There are: 1 pore, 5 grain" in ui.work.message.text
        await ui.press("U", "s")
        await ui.until(lambda: not doc.unsaved)
        assert [mask.label for mask in ui.session.saved[PARTICLES][-1][1].masks] == ["pore", "", ""]
        await ui.press("f1")
        await ui.dialog(HelpScreen)
        await ui.until(lambda: "grain" in ui.text() or ui.app.screen.query_one("#help").action_page_down())


async def test_a_class_has_its_colour_in_the_picture(tmp_path: Path) -> None:
    async with running(tmp_path, with_classes()) as ui:
        ui.work.doc.loaded([disc(240, 320, 100, 120, 40, label="pore"), disc(240, 320, 230, 120, 40, id=1)], "0")
        ui.work.doc.current = None
        ui.work.show_document()
        await ui.painted()
        shown = {
            style.color.triplet
            for row in ui.work.picture._painted.cells
            for cell in row
            if (style := cell.style) and style.color
        }
        assert any(red > 180 and green < 60 and blue < 60 for red, green, blue in shown)


async def test_without_classes_the_keys_say_where_to_name_them(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.keep_mask()
        await ui.press("1")
        assert "[classes] of config.toml" in ui.work.message.text
        assert ui.work.class_list.has_class("-none")
