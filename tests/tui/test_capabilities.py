"""The terminal UI offers what the model can, and nothing else."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import Input

from segment_duo.tui.screens.auto import AutoDialog
from segment_duo.tui.status.keys_line import KeysLine
from tests.tui_fakes import FakeModel, pictures
from tests.tui_pilot import Ui, running


def offered(ui: Ui) -> set[str]:
    return {command.id for command in ui.app.screen.query_one(KeysLine).commands()}


async def test_a_model_without_points_is_asked_for_none(tmp_path: Path) -> None:
    session = pictures()
    session.model = FakeModel("watershed", frozenset({"automatic"}))
    async with running(tmp_path, session) as ui:
        await ui.opened()
        await ui.until(lambda: ui.work.model)
        await ui.press("space")
        assert not ui.work.doc.pointing
        assert "include" not in offered(ui)
        assert "auto" in offered(ui)
        await ui.auto()
        assert ui.work.doc.masks


async def test_a_model_without_automatic_masks_has_no_key_for_them(tmp_path: Path) -> None:
    session = pictures()
    session.model = FakeModel("clicks", frozenset({"points"}))
    async with running(tmp_path, session) as ui:
        await ui.opened()
        await ui.until(lambda: ui.work.model)
        assert "auto" not in offered(ui)
        await ui.press("a", "r")
        assert ui.app.screen is ui.screen
        assert ui.work.doc.corner is None
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)


async def test_words_are_asked_for_where_the_model_takes_them(tmp_path: Path) -> None:
    session = pictures()
    session.model = FakeModel("words", frozenset({"automatic", "text"}))
    async with running(tmp_path, session) as ui:
        await ui.opened()
        await ui.until(lambda: ui.work.model)
        await ui.press("a")
        await ui.dialog(AutoDialog)
        ui.app.screen.query_one("#text", Input).value = " particle "
        await ui.press("enter")
        await ui.until(lambda: ui.app.screen is ui.screen and ui.work.doc.masks)
        assert next(detail for name, detail in session.calls if name == "auto").text == "particle"
    async with running(tmp_path / "other") as ui:
        await ui.opened()
        await ui.press("a")
        await ui.dialog(AutoDialog)
        assert not ui.app.screen.query("#text")
