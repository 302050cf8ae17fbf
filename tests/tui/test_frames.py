"""Frames of a stack in the app: stepping, playing, sets, following objects; over a film in memory."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from segment_duo.errors import EngineFailed, OutOfSpace
from segment_duo.masks.overlay import PALETTE
from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.viewport import Viewport
from segment_duo.tui.journal import Journal
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.tui.timeline import Timeline
from segment_duo.tui.workspace import frames
from segment_duo.types import Mask
from tests.tui_fakes import pictures
from tests.tui_films import FRAMES, STACK, FakeFilms, FakeSet, moved, stack
from tests.tui_pilot import Ui, running

TRACKED = {frame: (moved(frame, 1), moved(frame, 2)) for frame in range(FRAMES)}


class Film(Ui):
    """A running app with a stack on the screen."""

    def __init__(self, ui: Ui, films: FakeFilms) -> None:
        super().__init__(ui.app, ui.pilot, ui.session)
        self.films = films

    @property
    def timeline(self) -> Timeline:
        assert self.work.timeline is not None
        return self.work.timeline

    async def on(self, frame: int) -> None:
        await self.until(lambda: self.work.film and self.timeline.frame == self.timeline.wanted == frame)
        await self.until(lambda: not self.work.errands.busy("frame"))
        await self.pilot.pause()

    async def answered(self, *keys: str) -> None:
        """Give an answer of the dialog that comes up now."""
        await self.dialog(Choose)
        await self.press(*keys)
        await self.until(lambda: self.app.screen is self.screen)

    async def delete_here(self) -> None:
        """The current mask, on this frame."""
        await self.press("t", "d")
        await self.answered("enter")

    async def run_over(self) -> None:
        await self.until(lambda: not self.work.following and not self.work.errands.busy("film"))
        await self.until(lambda: not self.work.errands.busy("frame") and self.work.doing == "")
        await self.pilot.pause()

    def bar(self) -> str:
        return next(line for line in self.lines() if re.search(r"frame \d+ of", line))


@asynccontextmanager
async def film(tmp_path: Path, *sets: FakeSet) -> AsyncIterator[Film]:
    session, films = stack()
    for one in sets:
        films.add(one)
    async with running(tmp_path, session, films=films) as ui:
        await ui.until(lambda: not ui.work.errands.busy("film") and not ui.work.errands.busy("frame"))
        yield Film(ui, films)


async def test_a_bar_shows_the_frames_and_keys_step_through_them(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        assert ui.work.film is None
        assert f"frame 0 of 0–{FRAMES - 1}" in ui.bar()
        await ui.press("full_stop")
        await ui.on(1)
        assert "frame 1 of 0–5  0.5 s" in ui.bar()
        assert "frame 1 of 0–5" in ui.work.status.text
        await ui.press("colon")
        await ui.on(5)
        await ui.press("full_stop")
        assert ui.work.message.text == "This is the last of 6 frames."
        await ui.press("semicolon")
        await ui.on(0)
        await ui.press("comma")
        assert "first of 6" in ui.work.message.text
        await ui.press("pagedown")
        await ui.on(1)
        await ui.press("at")
        await ui.dialog(TypeLine)
        await ui.press("9", "enter")
        assert "A number from 0 to 5." in ui.text()
        await ui.press("backspace", "4", "enter")
        await ui.on(4)
        assert ui.films.opened == 2  # once to look for a sequence set, once for the frames


async def test_a_click_on_the_bar_goes_there(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        line = ui.bar()
        end = len(line.rstrip().rstrip("│").rstrip())
        bar = ui.work.canvas.frame_bar
        await ui.pilot.click(bar, offset=(end - 1 - bar.region.x, 0))
        await ui.on(5)


async def test_stepping_keeps_the_view_and_does_not_embed_every_frame(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        await ui.press("plus", "right")
        view, at = ui.work.picture.view, ui.work.picture.cross_hair
        embedded = ui.session.count("embed")
        for frame in (1, 2, 3):
            await ui.press("full_stop")
            await ui.on(frame)
        assert (ui.work.picture.view, ui.work.picture.cross_hair) == (view, at)
        assert ui.session.count("embed") == embedded


async def test_a_key_that_is_too_quick_does_not_pass_over_the_saved_set(tmp_path: Path) -> None:
    session, films = stack()
    films.add(FakeSet(TRACKED))
    films.looking.clear()
    async with running(tmp_path, session, films=films) as ui:
        await ui.until(lambda: ui.work.timeline)
        await ui.press("full_stop")
        assert "being opened" in ui.work.message.text
        films.looking.set()
        await ui.until(lambda: ui.work.film and not ui.work.errands.busy("frame"))
        assert ui.work.doc.masks == TRACKED[0]


async def test_play_runs_to_the_end_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PLAY_SECONDS", 3600.0)  # the test itself says when the next frame is due
    async with film(tmp_path) as ui:
        await ui.press("f6")
        await ui.until(lambda: ui.screen.frames.playing)
        assert "Esc Stop" in ui.lines()[-1]
        await ui.press("escape")
        assert not ui.screen.frames.playing
        await ui.press("f6")
        for frame in range(1, FRAMES):
            ui.screen.frames._tick()
            await ui.on(frame)
        assert ui.screen.frames.playing
        ui.screen.frames._tick()
        assert not ui.screen.frames.playing
        await ui.press("f6")  # from the last frame it begins at the first
        await ui.on(0)
        assert ui.screen.frames.playing


async def test_what_is_begun_while_playing_stays_on_its_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PLAY_SECONDS", 3600.0)
    async with film(tmp_path) as ui:
        await ui.press("f6")
        await ui.until(lambda: ui.screen.frames.playing)
        ui.screen.frames._tick()
        await ui.on(1)
        await ui.press("B", "enter", "right")
        assert "pen down" in ui.work.status.text
        ui.screen.frames._tick()
        assert not ui.screen.frames.playing
        await ui.press("enter", "escape")
        assert ui.work.timeline.frame == 1
        assert len(ui.work.doc.masks) == 1
        # A frame that is being read already when the pen is set down.
        come, read = threading.Event(), ui.work.film.image
        ui.work.film.image = lambda frame: (come.wait(60), read(frame))[1]
        await ui.press("f6")
        await ui.until(lambda: ui.screen.frames.playing)
        ui.screen.frames._tick()
        await ui.press("B", "enter", "right")
        come.set()
        await ui.until(lambda: not ui.screen.frames.playing)
        assert ui.work.timeline.frame == ui.work.timeline.wanted == 1
        assert "pen down" in ui.work.status.text
        await ui.press("enter", "escape")
        assert len(ui.work.doc.masks) == 2
        # A step by key is meant; what was drawn before the frame came stays where it was drawn.
        come.clear()
        ui.screen.frames.step(1)
        await ui.press("B", "enter", "down")
        come.set()
        await ui.on(2)
        assert "brush" not in ui.work.status.text
        assert not ui.work.doc.masks
        ui.screen.frames.step(-1)
        await ui.on(1)
        assert len(ui.work.doc.masks) == 3


async def test_the_newest_sequence_set_opens_with_its_masks_on_every_frame(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED, frozenset({(0, 1)}))) as ui:
        await ui.on(0)
        assert ui.work.doc.masks == TRACKED[0]
        assert "Version 0: 2 objects on 6 frames." in ui.work.message.text
        assert "◆" in ui.bar()
        assert "━━━" in ui.bar()
        await ui.press("full_stop")
        await ui.on(1)
        assert ui.work.doc.masks == TRACKED[1]
        assert ui.work.picture._overlay.by_id
        assert "version 0" in ui.lines()[0]
        assert not ui.work.unsaved


def test_an_object_has_its_colour_on_every_frame() -> None:
    """By its id, whatever other masks there are and wherever it is."""

    def colour(masks: tuple[Mask, ...], one: Mask) -> tuple[int, ...]:
        view = Viewport.fitted((320, 240), (320, 240), (1, 1))
        overlay = Overlay(masks=masks, by_id=True)
        black = np.zeros((view.pixel_rows, view.pixel_columns, 3), np.uint8)
        drawn = compose(black, view, overlay, MaskCrops())
        x, y, w, h = (int(value) for value in one.bbox)
        inside = drawn[y + h // 2, x + w // 2]
        return tuple(int(value) for value in inside)

    first = colour(TRACKED[0], TRACKED[0][1])
    assert first == colour((TRACKED[4][1],), TRACKED[4][1])
    assert first == tuple(int(0.2 * value) for value in PALETTE[2])
    assert first != colour(TRACKED[0], TRACKED[0][0])


async def test_points_become_an_object_that_is_followed_in_the_background(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        await ui.press("full_stop")
        await ui.on(1)
        await ui.keep_mask()
        assert [mask.id for mask in ui.work.doc.masks] == [1]
        assert "F7 follows it" in ui.work.message.text
        assert ui.work.unsaved
        ui.films.gate.clear()
        await ui.press("f7")
        await ui.dialog(Choose)
        assert "Follow 1 object as pointed at on frame 1." in " ".join(ui.text().split())
        await ui.answered("enter")
        await ui.until(lambda: ui.work.doing.startswith("1 of"))
        assert "1 of 6 frames done" in ui.bar()
        assert "Esc Stop following" in ui.lines()[-1]
        await ui.press("x", "d", "u", "a", "s")  # nothing can be edited meanwhile
        assert ui.app.screen is ui.screen
        await ui.press("comma")
        await ui.on(0)  # but looked at
        ui.films.gate.set()
        await ui.run_over()
        assert ui.films.runs == [(((1, 1),), "forward", None)]
        assert ui.timeline.frame == 0
        assert "Version 0: 1 object in 6 frames" in ui.work.message.text
        await ui.press("colon")
        await ui.on(5)
        assert ui.work.doc.masks == (moved(5, 1),)
        assert not ui.work.unsaved
        assert ui.films.sets["0"].masks[1][0].area > 0


async def test_a_correction_is_followed_from_its_frame_on_and_undo_takes_it_back(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.press("full_stop", "full_stop")
        await ui.on(2)
        await ui.press("n")
        assert ui.work.doc.current == 2
        await ui.press("R", "space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("enter")
        assert [(one, frame) for one, frame, _ in ui.timeline.asked()] == [(2, 2)]
        await ui.press("comma")
        await ui.on(1)
        await ui.press("u")  # nothing was edited here: first shows what would be taken back
        await ui.on(2)
        await ui.until(lambda: "The last edit was on frame 2" in ui.work.message.text)
        assert ui.work.unsaved
        await ui.press("u")
        assert ui.work.doc.masks == TRACKED[2]
        await ui.press("U")
        await ui.press("f7")
        await ui.answered("down", "enter")
        await ui.run_over()
        assert ui.films.runs == [(((2, 2),), "backward", "0")]
        assert "Version 1" in ui.work.message.text
        assert ui.films.sets["1"].masks[5] == TRACKED[5]
        assert ui.timeline.frame == 2


async def test_escape_ends_a_run_and_keeps_what_it_found(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        await ui.press("full_stop")
        await ui.on(1)
        await ui.keep_mask()
        ui.films.gate.clear()
        await ui.press("f7")
        await ui.answered("enter")
        await ui.until(lambda: ui.work.doing.startswith("1 of"))
        await ui.press("escape")
        await ui.run_over()
        assert sorted(ui.films.sets["0"].masks) == [1]
        assert "Version 0" in ui.work.message.text
        assert not ui.work.following


async def test_a_run_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        ui.films.fails = EngineFailed("the engine died", "Try again.")
        await ui.press("full_stop")
        await ui.on(1)
        await ui.keep_mask()
        await ui.press("f7")
        await ui.answered("enter")
        await ui.run_over()
        assert "the engine died" in ui.work.message.text
        assert [(one, frame) for one, frame, _ in ui.timeline.asked()] == [(1, 1)]
        assert len(ui.work.doc.masks) == 1


async def test_a_model_without_memory_says_so_and_links(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        ui.work.model = type(ui.session.model)(id="forgetful")
        await ui.press("f7")
        await ui.dialog(Choose)
        text = " ".join(ui.text().split())
        assert "forgetful has no memory to follow objects by" in text
        assert "Forward" not in text
        await ui.answered("enter")
        await ui.run_over()
        assert ui.films.runs == []
        assert ui.work.doc.masks == TRACKED[0]
        assert "Version 0: 2 objects in 6 frames" in ui.work.message.text


async def test_work_by_hand_is_kept_when_masks_are_linked(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        await ui.keep_mask()
        await ui.press("f7")
        await ui.answered("up", "up", "enter")
        await ui.run_over()
        assert [len(masks) for masks in ui.films.sets["0"].masks.values()] == [1]
        assert ui.films.sets["1"].masks == TRACKED
        assert ui.work.doc.version == "1"


async def test_masks_of_the_page_come_along(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        await ui.keep_mask()
        assert [mask.id for mask in ui.work.doc.masks] == [0]
        await ui.press("full_stop")
        await ui.on(1)
        assert [(one, frame) for one, frame, _ in ui.timeline.asked()] == [(1, 0)]
        await ui.press("comma")
        await ui.on(0)
        assert [mask.id for mask in ui.work.doc.masks] == [1]


async def test_without_a_change_the_selected_objects_of_the_frame_are_followed(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.press("full_stop")
        await ui.on(1)
        await ui.press("n", "t")
        await ui.press("f7")
        await ui.dialog(Choose)
        assert "the selected 1 object of frame 1" in " ".join(ui.text().split())
        await ui.answered("enter")
        await ui.run_over()
        assert ui.films.runs == [(((2, 1),), "forward", "0")]


async def test_edits_of_frames_are_saved_as_a_version_and_can_still_be_taken_back(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.press("full_stop")
        await ui.on(1)
        await ui.delete_here()
        assert [mask.id for mask in ui.work.doc.masks] == [2]
        assert "unsaved" in ui.lines()[0]
        await ui.press("s")
        await ui.until(lambda: "Saved 1 changed frame" in ui.work.message.text)
        assert ui.films.sets["1"].masks == {**TRACKED, 1: TRACKED[1][1:]}
        assert "version 1" in ui.lines()[0]
        assert not ui.work.unsaved
        await ui.press("s")
        assert "Nothing has changed on any frame since version 1" in ui.work.message.text
        await ui.press("u")
        assert ui.work.doc.masks == TRACKED[1]
        assert ui.work.unsaved


async def test_a_deleted_mask_goes_into_a_version_before_the_run(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.delete_here()
        await ui.keep_mask()
        await ui.press("f7")
        await ui.answered("enter")
        await ui.run_over()
        assert ui.films.runs == [(((3, 0),), "forward", "1")]
        assert [mask.id for mask in ui.films.sets["1"].masks[0]] == [2, 3]


async def test_an_object_is_deleted_on_all_frames_or_from_one_on(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.press("full_stop", "full_stop")
        await ui.on(2)
        await ui.press("t", "d")
        await ui.answered("down", "enter")
        await ui.until(lambda: "1 object deleted from frame 2 on, in version 1" in ui.work.message.text)
        assert [len(masks) for _, masks in sorted(ui.films.sets["1"].masks.items())] == [2, 2, 1, 1, 1, 1]
        assert [mask.id for mask in ui.work.doc.masks] == [2]
        await ui.press("n", "t", "d")
        await ui.answered("down", "down", "enter")
        await ui.until(lambda: "deleted from frame 0 on" in ui.work.message.text)
        assert [len(masks) for _, masks in sorted(ui.films.sets["2"].masks.items())] == [1, 1, 0, 0, 0, 0]
        assert not ui.work.unsaved


async def test_a_mask_that_is_being_made_is_not_lost_to_a_step(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("full_stop", "f7")
        assert "A mask is being made" in ui.work.message.text
        assert ui.work.film is None
        assert ui.work.doc.candidate


async def test_frames_are_saved_elsewhere_on_the_way_out(tmp_path: Path) -> None:
    other = pictures()
    session, films = stack()
    films.add(FakeSet(TRACKED))
    async with running(tmp_path, session, films=films, elsewhere=lambda _: other) as plain:
        ui = Film(plain, films)
        await ui.on(0)
        await ui.delete_here()
        await ui.press("q")
        await ui.dialog(Choose)
        await ui.press("down", "enter")
        await ui.dialog(TypeLine)
        await ui.press("enter")
        await ui.until(lambda: not ui.app.is_running or ui.app._exit)
    assert ("save frames", ([0], "0", "", other)) in session.calls
    assert not list((tmp_path / "journal").glob("*.json"))


async def test_leaving_asks_about_work_on_any_frame(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.delete_here()
        await ui.press("full_stop")
        await ui.on(1)
        await ui.press("q")
        await ui.dialog(Choose)
        assert "What was changed on 1 frame is not saved." in " ".join(ui.text().split())
        ui.films.fails = OutOfSpace("no space left", "Free some.")
        await ui.press("enter")
        await ui.until(lambda: "Not saved: no space left" in ui.work.message.text)
        assert ui.work.unsaved


async def test_unsaved_frames_are_in_the_journal_and_come_back(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.press("full_stop")
        await ui.on(1)
        await ui.delete_here()
        folder = tmp_path / "journal"
        await ui.until(lambda: list(folder.glob("*.json")))
        text = next(folder.glob("*.json")).read_text()
        films = ui.films
        for file in folder.glob("*.json"):
            file.unlink()
    # As a process leaves it that is gone.
    (folder / "left.json").write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 999999999'))
    draft = Journal(folder).left_behind()[0]
    assert [(frame, [mask.id for mask in masks]) for frame, masks in draft.frames] == [(1, [2])]
    async with running(tmp_path, films.session, films=films) as again:
        await again.dialog(Choose)
        assert "1 mask on 1 frame" in " ".join(again.text().split())
        await again.press("right", "enter")
        await again.until(lambda: "unsaved work is back" in again.work.message.text)
        await again.until(lambda: again.work.timeline and again.work.timeline.frame == 1)
        await again.until(lambda: [mask.id for mask in again.work.doc.masks] == [2])
        await again.press("u")
        assert again.work.doc.masks == TRACKED[1]


async def test_versions_of_pages_and_of_frames_are_told_apart(tmp_path: Path) -> None:
    session, films = stack()
    image = session.open_image(session.reference(STACK))
    session.save(image, [moved(3, 1)], operation="tui")
    films.add(FakeSet(TRACKED))
    async with running(tmp_path, session, films=films) as ui:
        await ui.until(lambda: ui.work.film and not ui.work.errands.busy("frame"))
        await ui.press("v")
        await ui.dialog(VersionPicker)
        assert "2 objects, 6 frames" in ui.text()
        await ui.press("end", "enter")
        await ui.until(lambda: ui.work.film is None and ui.work.doc.version == "0")
        assert ui.work.doc.masks == (moved(3, 1),)
        await ui.press("v")
        await ui.dialog(VersionPicker)
        await ui.press("home", "enter")
        await ui.until(lambda: ui.work.film and ui.work.doc.version == "1")
        assert ui.work.doc.masks == TRACKED[0]


async def test_another_image_leaves_the_frames_and_gives_up_the_run(tmp_path: Path) -> None:
    async with film(tmp_path) as ui:
        ui.work.model = type(ui.session.model)()
        ui.films.gate.clear()
        await ui.press("f7")
        await ui.answered("enter")
        await ui.until(lambda: ui.work.doing.startswith("1 of"))
        ui.session.pages = 1
        await ui.press("right_square_bracket")
        await ui.until(lambda: ui.work.image and ui.work.image.ref.path == "/pictures/banner.tif")
        await ui.until(lambda: not ui.work.following and not ui.work.doing)
        assert ui.work.film is None
        assert ui.work.timeline is None
        assert ui.films.sets == {}
        assert "frame 0" not in ui.text()
        await ui.press("full_stop")
        assert ui.work.timeline is None


async def test_a_label_is_shown_and_saved_on_all_frames_of_its_object(tmp_path: Path) -> None:
    async with film(tmp_path, FakeSet(TRACKED)) as ui:
        await ui.press("n", "l")
        await ui.dialog(TypeLine)
        await ui.press(*"pore", "enter")
        await ui.until(lambda: ui.app.screen is ui.screen and ui.work.doc.unsaved)
        one = ui.work.doc.current
        await ui.press("full_stop")
        await ui.on(1)
        assert [(mask.id, mask.label) for mask in ui.work.doc.masks if mask.label] == [(one, "pore")]
        assert not ui.work.doc.unsaved
        await ui.press("s")
        await ui.until(lambda: "Saved 1 changed frame" in ui.work.message.text)
        made = ui.films.sets["1"].masks
        assert {mask.label for masks in made.values() for mask in masks if mask.id == one} == {"pore"}
        assert {mask.label for masks in made.values() for mask in masks if mask.id != one} == {""}
