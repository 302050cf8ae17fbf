"""A series of images: from one to the next, what is done, and the next one prepared ahead."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from segment_duo.cli.tui import _meant
from segment_duo.config import load_config
from segment_duo.errors import NotFound
from segment_duo.session import Session
from segment_duo.tui.done import DoneMarks
from segment_duo.tui.screens.ask import Choose
from segment_duo.types import ImageRef, MaskSet, Provenance, StoreKind, Version
from tests.tui_fakes import FakeSession, disc, micrograph, pictures
from tests.tui_pilot import PARTICLES, colours, running

__all__ = ["colours"]

NAMES = [f"/pictures/s{i}.tif" for i in range(4)]


def series(*saved: int) -> FakeSession:
    session = FakeSession({name: micrograph(80, 100, seed) for seed, name in enumerate(NAMES)})
    for i in saved:
        version = Version("0", "", 0, f"/masks/s{i}.pkl", 100, 0.0)
        session.saved[NAMES[i]] = [(version, MaskSet((disc(80, 100, 40, 40, 9),), Provenance(operation="auto")))]
    return session


def opened(ui: object, name: str) -> bool:
    image = ui.work.image  # type: ignore[attr-defined]
    return image is not None and image.ref.path == name


async def test_next_and_previous_with_counts_and_saved_sets(tmp_path: Path) -> None:
    async with running(tmp_path, series(1), path=NAMES[0]) as ui:
        await ui.until(lambda: opened(ui, NAMES[0]) and "1 of 4, 1 done" in ui.lines()[0])
        await ui.press("left_square_bracket")
        assert "no earlier image" in ui.work.message.text
        await ui.press("right_square_bracket")
        await ui.until(lambda: opened(ui, NAMES[1]) and ui.work.doc.version == "0")  # its set, as it was
        assert "2 of 4, 1 done" in ui.lines()[0]
        await ui.press("right_square_bracket")
        await ui.until(lambda: opened(ui, NAMES[2]) and not ui.work.errands.busy("embed"))
        await ui.keep_mask()
        await ui.press("right_square_bracket")
        await ui.dialog(Choose)  # nothing is lost by going on
        await ui.press("enter")
        await ui.until(lambda: opened(ui, NAMES[3]))
        await ui.until(lambda: "4 of 4, 2 done" in ui.lines()[0])
        await ui.press("right_square_bracket")
        assert "no further image" in ui.work.message.text
        await ui.press("left_curly_bracket")
        await ui.until(lambda: opened(ui, NAMES[0]))  # 1 and 2 are done
        await ui.press("f4")
        assert [item.name for item in ui.work.explorer.list.items] == ["older", "s0.tif", "s3.tif"]
        await ui.press("f4")
        assert len(ui.work.explorer.list.items) == 5


async def test_queue_opens_the_first_that_is_not_done(tmp_path: Path) -> None:
    queue = [ImageRef(StoreKind.LOCAL, name) for name in (NAMES[3], NAMES[1], NAMES[0])]
    async with running(tmp_path, series(3), path=None, queue=queue) as ui:
        await ui.until(lambda: opened(ui, NAMES[1]) and "2 of 3, 1 done" in ui.lines()[0])
        assert [item.name for item in ui.work.explorer.list.items] == ["s3.tif", "s1.tif", "s0.tif"]
        assert "queue of 3 images" in ui.text()
        await ui.until(lambda: not ui.work.errands.busy("embed"))
        await ui.keep_mask()
        await ui.press("s")
        await ui.until(lambda: "2 of 3, 2 done" in ui.lines()[0])
        await ui.press("right_square_bracket")
        await ui.until(lambda: opened(ui, NAMES[0]))


async def test_the_next_image_is_embedded_ahead_and_given_up_when_another_is_opened(tmp_path: Path) -> None:
    session = series()
    async with running(tmp_path, session, path=NAMES[0]) as ui:
        await ui.until(lambda: opened(ui, NAMES[0]) and not ui.work.errands.busy("embed"))
        assert [detail for name, detail in session.calls if name == "embed"] == [NAMES[0]]
        await ui.press("right_square_bracket")
        await ui.until(lambda: ("embed", NAMES[2]) in session.calls)
        assert opened(ui, NAMES[1])
        # What is told of the image that is prepared is not for the user.
        before = ui.work.message.text
        ui.app.tell(f"{NAMES[2]}: odd tags")
        ui.app.tell("the engine was started again")
        await ui.until(lambda: ui.work.message.text != before)
        assert ui.work.message.text == "the engine was started again"


async def test_pointing_is_not_held_up_by_reading_ahead(tmp_path: Path) -> None:
    session = series()
    gate = threading.Event()
    read = session.open_image

    def slow(ref: ImageRef, **more: object) -> object:
        if ref.path == NAMES[2]:
            gate.wait(30)
        return read(ref, **more)  # type: ignore[arg-type]

    session.open_image = slow  # type: ignore[method-assign, assignment]
    async with running(tmp_path, session, path=NAMES[0]) as ui:
        await ui.until(lambda: opened(ui, NAMES[0]))
        await ui.press("right_square_bracket")
        await ui.until(lambda: ui.work.errands.busy("ahead"))
        await ui.keep_mask()
        gate.set()


def test_what_the_command_line_means(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDUO_HOME", str(empty_home / "segduo"))
    monkeypatch.chdir(empty_home)
    for name in ("b.png", "a.png", "notes.txt"):
        (empty_home / name).write_bytes(b"")
    (empty_home / "list").write_text("b.png\n")
    session = Session(load_config({}))
    assert _meant(session, None, None) == (None, [])
    assert _meant(session, ["a.png"], None) == ("a.png", [])
    assert _meant(session, ["no.png"], None) == ("no.png", [])  # the UI says so
    path, queue = _meant(session, ["*.png"], None)
    assert path is None
    assert sorted(ref.name for ref in queue) == ["a.png", "b.png"]
    assert [ref.name for ref in _meant(session, ["b.png", "a.png"], None)[1]] == ["b.png", "a.png"]
    assert [ref.name for ref in _meant(session, None, "list")[1]] == ["b.png"]
    with pytest.raises(NotFound):
        _meant(session, ["*.jpg"], None)


async def test_done_is_what_the_user_says(tmp_path: Path) -> None:
    session = pictures()
    async with running(tmp_path, session) as ui:
        images = ui.work.explorer.list
        await ui.keep_mask()
        await ui.press("s")
        await ui.until(lambda: not ui.work.doc.unsaved and not ui.work.errands.busy("folder"))
        await ui.until(lambda: "1 done" in ui.lines()[0])
        await ui.press("C")  # saved, and not done
        await ui.until(lambda: "0 done" in ui.lines()[0])
        assert "○ particles" in ui.text()
        await ui.press("f4")
        assert any(item.target == PARTICLES for item in images.items)
        await ui.press("f4", "C")
        await ui.until(lambda: "1 done" in ui.lines()[0])
        assert "✓ particles" in ui.text()
    file = tmp_path / "done.ndjson"
    with file.open("ab") as broken:
        broken.write(b'{"image": "/pictures/ban')  # a crash in the middle of a line
    async with running(tmp_path, session) as ui:
        await ui.until(lambda: "1 done" in ui.lines()[0])
        await ui.press("C")
        await ui.until(lambda: "0 done" in ui.lines()[0])
    assert DoneMarks(file).read() == {PARTICLES: False}
    file.unlink()
    file.mkdir()
    async with running(tmp_path, session) as ui:
        await ui.press("C")
        await ui.until(lambda: "could not be kept" in ui.work.message.text)
