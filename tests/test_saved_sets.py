"""Saving, listing and naming sets without an engine: the real session and commands, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_duo.config import load_config
from segment_duo.errors import ImageError, InputError, NotFound, SavedToSpoolOnly, SegduoError
from segment_duo.masks.rle import area, bounding_box, encode
from segment_duo.session import Session
from segment_duo.stores.local import LocalStore
from segment_duo.types import Mask

from .drops_server import DropsServer


@dataclass
class Told:
    """What a command wrote, and the error it ended with."""

    stdout: str
    stderr: str
    error: SegduoError | None

    def ok(self) -> Told:
        assert self.error is None, f"{self.error}\n{self.stderr}"
        return self


Run = Callable[..., Told]


@pytest.fixture
def run(empty_home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command as ``main`` does, in an empty home."""

    def run_command(*arguments: object) -> Told:
        from segment_duo.cli.main import app

        error = None
        try:
            app([str(argument) for argument in arguments], standalone_mode=False)
        except SegduoError as raised:
            error = raised
        said = capsys.readouterr()
        return Told(said.out, said.err, error)

    return run_command


@pytest.fixture
def drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_home: Path) -> Iterator[DropsServer]:
    with DropsServer(tmp_path / "drops") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        draw(tmp_path / "a.png")
        server.put("/lab/a.png", (tmp_path / "a.png").read_bytes())
        yield server


def draw(file: Path, level: int = 90) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((40, 60), level, np.uint8)
    picture[5:15, 8:30] = 200
    Image.fromarray(picture).save(file)
    return file


def mask() -> Mask:
    pixels = np.zeros((40, 60), bool)
    pixels[5:15, 8:30] = True
    rle = encode(pixels)
    return Mask(rle, area(rle), bounding_box(rle))


def save(
    image: object, *, page: int = 0, suffix: str = "", masks: tuple[Mask, ...] | None = None, out: str | None = None
) -> str:
    """Save a set of an image as a front end does."""
    session = Session(load_config({}), out=out)
    opened = session.open_image(session.reference(str(image)), page=page)
    made = (mask(),) if masks is None else masks
    return session.save(opened, made, operation="test", suffix=suffix, with_model=False).path


def test_running_out_of_memory_while_reading_is_an_error_of_the_image(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = draw(empty_home / "a.png")

    def exhausted(*_: object, **__: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(LocalStore, "read", exhausted)
    session = Session(load_config({}))
    with pytest.raises(ImageError, match="not enough memory"):
        session.open_image(session.reference(str(file)))


# --- places that can never take a set ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/drops/lab/.hidden", "/drops/lab/a.png", "/drops/lab/a.png/deeper"])
def test_a_place_on_drops_that_never_works_is_refused_first_and_never_spooled(
    run: Run, drops: DropsServer, place: str
) -> None:
    refused = run("point", "/drops/lab/a.png", "-p", "10,10", "--out", place)
    assert isinstance(refused.error, InputError)
    assert "a.png' is a file" in refused.error.message or "begin with a dot" in refused.error.message
    if place.endswith("/deeper"):
        return  # the test server has no answer to an upload into a file
    # Whatever came through such a check is kept, but nothing ever tries to deliver it.
    with pytest.raises(InputError) as failure:
        save("/drops/lab/a.png", out=place)
    session = Session(load_config({}))
    assert session.sets.spool.pending() == []
    kept = Path(failure.value.hint.split("kept in ")[1].split(":")[0])
    assert kept.is_file()
    assert run("masks", "push").ok().stdout == ""
    assert "a.pkl" in run("masks", "import", "/drops/lab/a.png", kept).ok().stdout


def test_out_on_a_local_file_is_refused_before_computing(run: Run, empty_home: Path) -> None:
    draw(empty_home / "a.png")
    refused = run("point", "a.png", "-p", "10,10", "--out", "a.png")
    assert isinstance(refused.error, InputError)
    assert "is a file" in refused.error.message


def test_masks_root_is_checked_before_computing(run: Run, drops: DropsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDUO_MASKS_ROOT", "/lab/a.png")
    refused = run("auto", "/drops/lab/a.png")
    assert isinstance(refused.error, InputError)
    assert "'/drops/lab/a.png' is a file, so no sets can be saved" in refused.error.message


def test_push_lists_what_waits_and_gives_it_up_without_deleting(run: Run, drops: DropsServer) -> None:
    drops.faults.routes, drops.faults.upload_status = ("/upload/",), {"code": "EACCES"}
    paths = [Path(save("/drops/lab/a.png")), Path(save("/drops/lab/a.png", suffix="grain"))]
    content = [path.read_bytes() for path in paths]
    waiting = run("masks", "push")
    assert isinstance(waiting.error, SavedToSpoolOnly)
    rows = [line.split("\t") for line in waiting.stdout.splitlines()]
    assert [row[1:3] for row in rows] == [["a", "/drops/lab/masks"]] * 2
    listed = run("masks", "push", "--dry-run").ok()
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == [row[0] for row in rows]
    moved = Path(run("masks", "push", "--discard", rows[0][0]).ok().stdout.strip())
    assert moved.read_bytes() == content[0]
    assert not paths[0].exists()
    assert isinstance(run("masks", "push", "--discard", "nonsense").error, NotFound)
    assert len(Session(load_config({})).sets.spool.pending()) == 1
    drops.faults.clear()
    run("masks", "push").ok()
    assert len([path for path in drops.files() if path.endswith(".pkl")]) == 1
    assert run("masks", "push").ok().stdout == ""


def test_other_runs_tell_in_one_line_what_waits(run: Run, drops: DropsServer) -> None:
    drops.faults.routes, drops.faults.upload_status = ("/upload/",), {"code": "EACCES"}
    for suffix in ("a", "b", "c"):
        save("/drops/lab/a.png", suffix=suffix)
    kept = Path(save("/drops/lab/a.png"))
    told = run("masks", "import", "/drops/lab/a.png", kept)
    assert isinstance(told.error, SavedToSpoolOnly)
    assert "next run that saves to Drops" in told.error.hint
    waiting = [line for line in told.stderr.splitlines() if "wait" in line]
    assert len(waiting) == 1
    assert waiting[0].startswith("4 sets of earlier runs wait")
