"""Folders of images and patterns as films in the terminal UI, over real files, the real library and the real server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segment_duo.cli.sequence_sets import is_sequence, sequence_set
from segment_duo.cli.tui import _meant
from segment_duo.config import Resolved
from segment_duo.errors import UsageError
from segment_duo.frame_prompts import parse_frame_point
from segment_duo.models import known
from segment_duo.sequence_tracking import TrackRequest, follow
from segment_duo.sequences import Opening, open_sequence, save_edited
from segment_duo.session import Session
from segment_duo.tui.film import Film
from segment_duo.tui.screens.ask import Choose, TypeLine
from segment_duo.tui.screens.versions import VersionPicker
from segment_duo.tui.workspace import frames
from segment_duo.types import Mask
from tests.drops_server import DropsServer
from tests.engine_fixtures import Home
from tests.tracking.films import growing
from tests.tui.test_real_faults import session_of
from tests.tui_pilot import Ui, colours, running

__all__ = ["colours"]

NAMES = [f"scan{number}.tif" for number in range(8, 12)]
"""In natural order; by letters ``scan10`` is the first."""


def frames_in(folder: Path, names: list[str] = NAMES) -> Path:
    """Two discs that grow, one file a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, growing(len(names))[0], strict=True):
        tifffile.imwrite(folder / name, picture)
    return folder


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look at the frame one rests on: without an engine its failure would come between the messages."""
    monkeypatch.setattr(frames, "REST_SECONDS", 3600.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return frames_in(tmp_path / "day" / "run")


@asynccontextmanager
async def tui(tmp_path: Path, session: Session, path: Path | str, *, film: bool = False) -> AsyncIterator[Ui]:
    """The app as the command line starts it."""
    opens = partial(Film.open, session)
    async with running(tmp_path, session, path=str(path), film=film, films=opens) as ui:  # type: ignore[arg-type]
        yield ui


async def on(ui: Ui, frame: int) -> None:
    """The frame is on the screen."""
    await ui.until(lambda: ui.work.film is not None and ui.work.timeline is not None)
    await ui.until(lambda: ui.work.timeline.frame == ui.work.timeline.wanted == frame)
    await ui.until(lambda: not ui.work.errands.busy("frame"))
    await ui.pilot.pause()


async def told(ui: Ui, text: str) -> None:
    await ui.until(lambda: text in ui.work.message.text)


async def at_folder(ui: Ui, name: str) -> None:
    """The list's cursor is on a folder."""
    images = ui.work.explorer.list
    await ui.until(lambda: any(item.name == name for item in images.items))
    await ui.press("home", *["down"] * [item.name for item in images.items].index(name))
    assert images.items[images.cursor].name == name


async def painted(ui: Ui) -> Mask:
    """A new mask by the brush."""
    before = {mask.id for mask in ui.work.doc.masks}
    await ui.press("B", "space", "escape")
    return next(mask for mask in ui.work.doc.masks if mask.id not in before)


async def test_a_key_opens_the_images_of_a_folder_as_one_film(tmp_path: Path, folder: Path) -> None:
    async with tui(tmp_path, session_of(tmp_path), folder.parent) as ui:
        await at_folder(ui, "run")
        assert "F8 As one film" in ui.lines()[-1]
        await ui.press("f8")
        await on(ui, 0)
        assert ui.work.message.text.startswith("4 frames of 96 × 64 px, uint8.")
        assert "frame 0 of 0–3" in ui.text()
        assert ui.screen.focused is ui.work.canvas
        for frame, name in enumerate(NAMES):
            await on(ui, frame)
            assert f"frame {frame} of 0–3  {name}" in ui.work.status.text
            await ui.press("full_stop")
        assert ui.work.message.text == "This is the last of 4 frames."
        await ui.press("comma")
        await on(ui, 2)
        expected = tifffile.imread(folder / NAMES[2])
        assert np.array_equal(ui.work.image.data.original, expected)
        # On an image the key means the folder that is listed.
        await ui.press("f9", "f9")
        await at_folder(ui, "run")
        await ui.press("enter")
        await ui.until(lambda: len(ui.work.explorer.list.items) == len(NAMES))
        await ui.press("f8")
        await told(ui, "4 frames of 96")
        await on(ui, 0)


async def test_its_set_is_that_of_segduo_track_and_is_there_again(tmp_path: Path, folder: Path) -> None:
    session = session_of(tmp_path)
    async with tui(tmp_path, session, folder, film=True) as ui:
        await on(ui, 0)
        await ui.press("full_stop")
        await on(ui, 1)
        first = await painted(ui)
        await ui.press("full_stop")
        await on(ui, 2)
        await ui.press("s")
        await told(ui, "Saved 1 changed frame")
        await painted(ui)
        await ui.press("s")
        await told(ui, "Saved 1 changed frame: ")
        await ui.until(lambda: ui.work.doc.version == "1")
    assert sorted(file.name for file in (folder.parent / "masks").glob("*.pkl")) == ["run.pkl", "run_1.pkl"]
    assert is_sequence(session, str(folder))
    with sequence_set(session, f"{folder}@0") as found:
        assert [mask.rle for mask in found.masks.frame(1).masks] == [first.rle]
        opened = open_sequence(session, session.reference(str(folder)))
        with opened.frames:
            now, before = opened.head([], {}), found.masks.head
        assert (before.source, before.axes, before.frames) == (now.source, now.axes, now.frames)
        assert before.provenance.image == now.provenance.image
    async with tui(tmp_path, session, folder, film=True) as ui:
        await told(ui, "Version 1: 2 objects on 2 frames.")
        await ui.press("full_stop")
        await on(ui, 1)
        assert [mask.rle for mask in ui.work.doc.masks] == [first.rle]
        await ui.press("v")
        await ui.dialog(VersionPicker)
        assert "1 object, 4 frames" in ui.text()
        assert "of another image" not in ui.text()
        await ui.press("end", "enter")
        await told(ui, "Version 0: 1 object on 1 frame.")


async def test_a_pattern_is_one_film_with_its_own_sets(tmp_path: Path, folder: Path) -> None:
    session = session_of(tmp_path)
    frames_in(folder, ["other1.tif"])
    async with tui(tmp_path, session, folder / "scan*.tif", film=True) as ui:
        await on(ui, 0)
        assert ui.work.film.count == 4
        assert ui.screen.folders.folder == str(folder)
        await painted(ui)
        await ui.press("S")
        await ui.dialog(TypeLine)
        assert "Saved as scan_SUFFIX" in ui.text()
        await ui.press(*"hand", "enter")
        await told(ui, "Saved 1 changed frame")
        await ui.press("v")
        await ui.dialog(VersionPicker)
        assert "1 object, 4 frames" in ui.text()
    assert (folder / "masks" / "scan_hand.pkl").is_file()
    assert is_sequence(session, str(folder / "scan*.tif"))


async def test_a_pattern_can_be_typed(tmp_path: Path, folder: Path) -> None:
    async with tui(tmp_path, session_of(tmp_path), folder.parent) as ui:
        await ui.press("ctrl+o")
        await ui.dialog(TypeLine)
        await ui.press("ctrl+u", *str(folder.parent / "r*" / "scan1*.tif"), "enter")
        await on(ui, 0)
        assert ui.work.film.count == 2
        assert ui.screen.folders.folder == str(folder.parent)
        # A file that is really called so is an image.
        (folder / "scan8.tif").rename(folder / "scan[8].tif")
        await ui.press("ctrl+o")
        await ui.dialog(TypeLine)
        await ui.press("ctrl+u", *str(folder / "scan[8].tif"), "enter")
        await ui.until(lambda: ui.work.film is None and ui.work.image.ref.name == "scan[8].tif")


async def test_what_is_no_film_is_told_with_the_next_step(tmp_path: Path, folder: Path) -> None:
    (folder.parent / "empty").mkdir()
    frames_in(folder.parent / "single", ["only.tif"])
    session = session_of(tmp_path)
    async with tui(tmp_path, session, folder.parent) as ui:
        await at_folder(ui, "empty")
        await ui.press("f8")
        await told(ui, "empty: no images. Images end in .bmp")
        await at_folder(ui, "single")
        await ui.press("f8")
        await told(ui, "single: a single image is no film. Open the image itself")
        assert ui.work.film is ui.work.image is None
        await at_folder(ui, "run")
        await ui.press("f8")
        await on(ui, 0)
        film = ui.work.film
        await ui.press("ctrl+o")
        await ui.dialog(TypeLine)
        await ui.press("ctrl+u", *str(folder / "nothing*.tif"), "enter")
        await told(ui, "nothing*.tif'. Upper and lower case differ")
        assert ui.work.film is film
        await ui.press("full_stop")
        await on(ui, 1)
        ui.screen.folders.show_folder("")
        await ui.until(lambda: ui.screen.folders.folder == "")
    for missing, why in (("nowhere", "no such file or folder"), ("no*", "nothing matches")):
        async with tui(tmp_path, session, folder.parent / missing, film=True) as ui:
            await ui.until(lambda: ui.work.message.tone == "error" and not ui.work.errands.busy("folder"))
            assert why in ui.work.message.text


async def test_an_image_of_another_size_is_told_on_its_frame(tmp_path: Path, folder: Path) -> None:
    tifffile.imwrite(folder / NAMES[1], np.zeros((20, 30), np.uint8))
    async with tui(tmp_path, session_of(tmp_path), folder, film=True) as ui:
        await on(ui, 0)
        await ui.press("full_stop")
        await told(
            ui, "frame 1 (scan9.tif) is 30 x 20 pixels, the first is 96 x 64. Frames of a sequence have one size. Leave"
        )
        await on(ui, 0)
        await ui.press("colon")
        await on(ui, 3)
        (folder / NAMES[0]).write_bytes(b"no image")
    async with tui(tmp_path, session_of(tmp_path), folder, film=True) as ui:
        await told(ui, "scan8.tif")
        assert ui.work.message.tone == "error"
        assert ui.work.film is ui.work.image is None


async def test_sets_of_an_image_of_the_same_name_do_not_hide_those_of_the_folder(tmp_path: Path, folder: Path) -> None:
    session = session_of(tmp_path)
    tifffile.imwrite(folder.parent / "run.tif", growing(1, seed=7)[0][0])
    async with tui(tmp_path, session, folder, film=True) as ui:
        await on(ui, 0)
        mask = await painted(ui)
        await ui.press("s")
        await told(ui, "Saved 1 changed frame")
    image = session.open_image(session.reference(str(folder.parent / "run.tif")))
    session.save(image, [mask], operation="tui")
    async with tui(tmp_path, session, folder, film=True) as ui:
        await told(ui, "Version 0: 1 object on 1 frame.")
        await ui.press("v")
        await ui.dialog(VersionPicker)
        assert "of another image" in ui.text()
        await ui.press("home", "enter")
        await told(ui, "is a set of one image, not of a sequence")
        assert [one.rle for one in ui.work.doc.masks] == [mask.rle]


async def test_unsaved_work_comes_back_once(tmp_path: Path, folder: Path) -> None:
    session, drafts = session_of(tmp_path), tmp_path / "journal"
    async with tui(tmp_path, session, folder, film=True) as ui:
        await on(ui, 0)
        await ui.press("full_stop")
        await on(ui, 1)
        mask = await painted(ui)
        await ui.until(lambda: list(drafts.glob("*.json")))
        left = next(drafts.glob("*.json"))
        text = left.read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999')
    for file in drafts.iterdir():
        file.unlink()
    (drafts / "left.json").write_text(text)
    async with tui(tmp_path, session, folder.parent) as ui:
        await ui.dialog(Choose)
        await ui.press("right", "enter")
        await told(ui, "unsaved work is back")
        await on(ui, 1)
        assert [one.rle for one in ui.work.doc.masks] == [mask.rle]
        assert ui.work.unsaved
        await ui.until(lambda: not (drafts / "left.json").exists())
        await ui.press("s")
        await told(ui, "Saved 1 changed frame")
        await ui.until(lambda: not list(drafts.glob("*.json")))
    assert (folder.parent / "masks" / "run.pkl").is_file()


async def test_files_that_came_later_belong_to_the_film(tmp_path: Path, folder: Path) -> None:
    session = session_of(tmp_path)
    async with tui(tmp_path, session, folder, film=True) as ui:
        await on(ui, 0)
        first = await painted(ui)
        await ui.press("s")
        await told(ui, "Saved 1 changed frame")
    frames_in(folder, [*NAMES, "scan12.tif", "scan13.tif"])
    async with tui(tmp_path, session, folder, film=True) as ui:
        await told(ui, "Version 0: 1 object on 1 frame. Comma")
        await ui.press("colon")
        await on(ui, 5)
        last = await painted(ui)
        await ui.press("s")
        await told(ui, "Saved 1 changed frame")
    with sequence_set(session, f"{folder}@1") as found:
        assert found.masks.frames == [0, 1, 2, 3, 4, 5]
        assert [mask.rle for mask in found.masks.frame(0).masks] == [first.rle]
        assert [mask.rle for mask in found.masks.frame(5).masks] == [last.rle]
    # One that comes between the others moves all behind it to other frames.
    (folder / NAMES[1]).unlink()
    async with tui(tmp_path, session, folder, film=True) as ui:
        await told(ui, "Version 1: 2 objects on 2 frames. Note: its frames had other names")
        assert ui.work.message.tone == "warning"


async def test_edits_outside_of_the_frames_of_a_version_are_saved(tmp_path: Path, folder: Path) -> None:
    session = session_of(tmp_path)
    opened = open_sequence(session, session.reference(str(folder)), Opening(frames="1:3"))
    with opened.frames:
        save_edited(session, opened, {})
    async with tui(tmp_path, session, folder, film=True) as ui:
        await on(ui, 0)
        mask = await painted(ui)
        await ui.press("s")
        await told(ui, "Saved 1 changed frame")
    with sequence_set(session, f"{folder}@1") as found:
        assert [one.rle for one in found.masks.frame(0).masks] == [mask.rle]


async def test_another_film_asks_about_unsaved_frames(tmp_path: Path, folder: Path) -> None:
    frames_in(folder.parent / "later")
    async with tui(tmp_path, session_of(tmp_path), folder, film=True) as ui:
        await on(ui, 0)
        await painted(ui)
        await ui.press("f9", "f9")
        await at_folder(ui, "later")
        await ui.press("f8")
        await ui.dialog(Choose)
        assert "What was changed on 1 frame is not saved." in " ".join(ui.text().split())
        await ui.press("enter")
        await ui.until(lambda: ui.work.image.ref.path.endswith("later"))
        await on(ui, 0)
        assert not ui.work.doc.masks
    assert (folder.parent / "masks" / "run.pkl").is_file()


async def test_a_stack_can_be_opened_as_a_film_at_once(tmp_path: Path) -> None:
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, growing(3)[0], photometric="minisblack")
    async with tui(tmp_path, session_of(tmp_path), stack, film=True) as ui:
        await on(ui, 0)
        assert (ui.work.film.count, ui.work.film.of_files) == (3, False)


async def test_a_folder_on_drops(tmp_path: Path, folder: Path) -> None:
    with DropsServer(tmp_path / "drops") as server:
        for name in NAMES:
            server.put(f"/labdaq/run/{name}", (folder / name).read_bytes())
        flags = {"drops_url": server.url, "drops_username": server.username, "drops_password": server.password}
        session = session_of(tmp_path, **flags)
        async with tui(tmp_path, session, "/drops/labdaq") as ui:
            await at_folder(ui, "run")
            await ui.press("f8")
            await on(ui, 0)
            await ui.press("full_stop")
            await on(ui, 1)
            assert "scan9.tif" in ui.work.status.text
            await painted(ui)
            await ui.press("s")
            await told(ui, "Saved 1 changed frame: /drops/labdaq/masks/run.pkl")
        assert "/labdaq/masks/run.pkl" in server.files()
        assert is_sequence(session, "/drops/labdaq/run")
        async with tui(tmp_path, session, "/drops/labdaq/run/scan?.tif", film=True) as ui:
            await ui.until(lambda: ui.work.film is not None)
            assert ui.work.film.count == 2


@pytest.mark.skipif(not (known.NANO_DIR / "nano.pt").is_file(), reason="the nano weights are not here")
async def test_objects_are_followed_corrected_and_corrected_again_by_the_command(
    tmp_path: Path, folder: Path, real_engine: Home
) -> None:
    session = Session(Resolved(real_engine.config.model_copy(update={"model": "nano"}), {}), real_engine.paths)
    async with tui(tmp_path, session, folder, film=True) as ui:
        await on(ui, 0)
        await ui.press("g")
        await ui.dialog(TypeLine)
        await ui.press("ctrl+u", *"24,30", "enter")
        await ui.until(lambda: ui.work.picture.cross_hair == (24, 30))
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        await ui.press("enter", "f7")
        await ui.dialog(Choose)
        await ui.press("enter")
        await told(ui, "Version 0: 1 object in 4 frames")
        await on(ui, 0)
        await ui.press("full_stop", "full_stop")
        await on(ui, 2)
        assert ui.work.doc.masks
        await ui.press("n", "e", "space", "escape")
        corrected = ui.work.doc.masks[0]
        await ui.press("f7")
        await ui.dialog(Choose)
        await ui.press("enter")
        await told(ui, "Version 1: 1 object in 4 frames")
    opened = open_sequence(session, session.reference(str(folder)))
    with opened.frames:
        request = TrackRequest((parse_frame_point("66,34,1,2", frame=0),))
        assert follow(session, opened, request, onto="1").saved.version.name == "2"
    with sequence_set(session, f"{folder}@2") as found:
        assert [mask.id for mask in found.masks.frame(0).masks] == [1, 2]
        assert found.masks.frame(2).masks[0].rle == corrected.rle
    frames_in(folder, [*NAMES, "scan12.tif"])
    async with tui(tmp_path, session, folder, film=True) as ui:
        await told(ui, "Version 2: 2 objects on 4 frames.")
        await ui.press("colon")
        await on(ui, 4)
        await ui.press("comma")
        await on(ui, 3)
        await ui.press("f7")
        await ui.dialog(Choose)
        await ui.press("enter")
        await told(ui, "Version 4: 2 objects in 5 frames")  # version 3 has the new file's frame, and nothing on it
    with sequence_set(session, f"{folder}@4") as found:
        assert found.masks.frame(4).masks


def test_what_the_command_line_takes_as_a_film(tmp_path: Path) -> None:
    session = session_of(tmp_path)
    assert _meant(session, ["scan_*.tif"], None, film=True) == ("scan_*.tif", [])
    for paths, listed in ((None, None), ([], None), (["a.tif", "b.tif"], None), (["run"], "list.txt"), (["-"], None)):
        with pytest.raises(UsageError, match="one folder or one pattern") as caught:
            _meant(session, paths, listed, film=True)
        assert "Quote a pattern" in caught.value.hint
