"""Saving, listing and naming sets without an engine: the real session and commands, in this process."""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_duo.config import load_config
from segment_duo.errors import (
    DropsError,
    DropsRefused,
    ImageError,
    InputError,
    NotFound,
    SavedToSpoolOnly,
    SegduoError,
    SomeInputsFailed,
    UsageError,
)
from segment_duo.masks.formats.native import loads
from segment_duo.masks.rle import area, bounding_box, encode
from segment_duo.session import Session
from segment_duo.stores.local import LocalStore
from segment_duo.types import Mask
from tests.drops_server import DropsServer


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
    return session.save(opened, made, operation="test", suffix=suffix).path


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


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 413}, "larger than the server"),
        ({"status": 404}, "status 404"),
        ({"redirect_to": "http://elsewhere.invalid/"}, "redirect"),
    ],
    ids=["413", "404", "redirect"],
)
def test_an_upload_that_no_next_run_can_mend_promises_none(
    run: Run, drops: DropsServer, fault: dict[str, object], message: str
) -> None:
    vars(drops.faults).update(fault, routes=("/upload/",))
    with pytest.raises(DropsRefused, match=message) as failure:
        save("/drops/lab/a.png")
    session = Session(load_config({}))
    assert session.sets.spool.pending() == []
    kept = Path(failure.value.hint.split("kept in ")[1].split(":")[0])
    assert "next run" not in failure.value.hint
    drops.faults.clear()
    run("masks", "import", "/drops/lab/a.png", kept).ok()
    assert "/lab/masks/a.pkl" in drops.files()


def test_masks_survive_a_full_home_and_a_failing_upload(
    drops: DropsServer, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.faults.upload_status = {"code": "EIO"}
    full = load_config({})
    spool = Session(full).paths.spool_dir
    spool.parent.mkdir(parents=True, exist_ok=True)
    spool.write_text("no folder can be made here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DropsError, match=r"EIO.*spool") as failure:
        save("/drops/lab/a.png")
    file = tmp_path / "a-not-saved.pkl"
    assert f"The masks are in {file}" in failure.value.hint
    before = file.read_bytes()
    # A second one overwrites nothing; where the current folder takes nothing either, the temporary one does.
    with pytest.raises(DropsError):
        save("/drops/lab/a.png")
    assert file.read_bytes() == before
    assert len(list(tmp_path.glob("a-not-saved*.pkl"))) == 2
    session = Session(load_config({}))
    opened = session.open_image(session.reference("/drops/lab/a.png"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    other = tmp_path / "temporary"
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    with pytest.raises(DropsError) as failure:
        session.save(opened, (mask(),), operation="test")
    assert str(other) in failure.value.hint
    found = loads((other / "a-not-saved.pkl").read_bytes(), name="x")
    assert len(found.masks) == 1


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
    assert "next run that saves there" in told.error.hint
    waiting = [line for line in told.stderr.splitlines() if "wait" in line]
    assert len(waiting) == 1
    assert waiting[0].startswith("4 sets of earlier runs wait")


# --- what is listed, shown and exported ---------------------------------------------------------------------------------


def test_export_goes_on_past_images_without_sets(run: Run, empty_home: Path) -> None:
    for name in ("scans/a.png", "scans/b.png", "scans/c.png"):
        draw(empty_home / name)
    save("scans/a.png")
    save("scans/c.png")
    done = run("masks", "export", "scans", "-f", "coco", "-t", "all.json")
    assert isinstance(done.error, SomeInputsFailed)
    assert f"{empty_home}/scans/b.png: no saved masks" in done.stderr
    found = json.loads((empty_home / "all.json").read_text())
    assert [row["file_name"] for row in found["images"]] == ["a.png", "c.png"]
    # With one of two at hand, a folder is still a folder.
    assert isinstance(
        run("masks", "export", "scans/a.png", "scans/b.png", "-f", "yolo", "-t", "texts").error, SegduoError
    )
    assert (empty_home / "texts" / "a.txt").is_file()
    alone = run("masks", "export", "scans/b.png", "-f", "coco", "-t", "b.json")
    assert isinstance(alone.error, NotFound)
    assert "b.png: no saved masks" in alone.error.message


def test_export_to_stdout_and_names_that_promise_another_kind(run: Run, empty_home: Path) -> None:
    draw(empty_home / "a.png")
    save("a.png")
    assert run("masks", "export", "a.png", "-f", "csv", "-t", "-").ok().stdout.startswith("image,")
    assert json.loads(run("masks", "export", "a.png", "-f", "coco-rle", "-t", "-").ok().stdout)[0]["area"] == 220
    assert isinstance(run("masks", "export", "a.png", "-f", "png", "-t", "-").error, UsageError)
    refused = run("masks", "export", "a.png", "-f", "overlay", "-t", "x.jpg")
    assert isinstance(refused.error, UsageError)
    assert "writes .png files, not .jpg" in refused.error.message
    assert run("masks", "export", "a.png", "-f", "labels-tiff", "-t", "x.TIFF").ok().stdout == "x.TIFF\n"
    assert sorted(path.name for path in empty_home.iterdir() if not path.name.startswith(".")) == [
        "a.png", "masks", "x.TIFF",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nope.png", NotFound, "no such file: '{home}/nope.png'"),
        ("nope.png@1", NotFound, "no such file: '{home}/nope.png'"),
        ("g.png@-1", UsageError, "'-1' is not the name of a version"),
        ("g.png@00", UsageError, "'00' is not the name of a version"),
        ("g.png@grain_0", UsageError, "'grain_0' is not the name of a version"),
        ("g.png@grain 1", UsageError, "'grain 1' is not the name of a version"),
        ("g.png@grain.1", UsageError, "'grain.1' is not the name of a version"),
        ("g.png@7", NotFound, "{home}/g.png: no version '7'"),
        ("other.png", NotFound, "{home}/other.png: no saved masks"),
    ],
)
def test_a_set_that_cannot_be_had_is_said_by_its_cause(
    run: Run, empty_home: Path, text: str, error: type[SegduoError], message: str
) -> None:
    save(draw(empty_home / "g.png"))
    draw(empty_home / "other.png")
    for command in ("show", "ls"):
        told = run("masks", command, text)
        assert type(told.error) is error, command
        assert told.error.message == message.format(home=empty_home)


def test_a_file_with_an_at_sign_is_still_a_file(run: Run, empty_home: Path) -> None:
    draw(empty_home / "g.png", 20)
    save(draw(empty_home / "g.png@grain 1.png"))
    assert run("masks", "show", "g.png@grain 1.png").ok().stdout


def test_commands_that_take_no_version_say_so(run: Run, empty_home: Path) -> None:
    save(draw(empty_home / "g.png"))
    for arguments in (("point", "g.png@0", "-p", "5,5"), ("info", "g.png@0")):
        told = run(*arguments)
        assert isinstance(told.error, NotFound)
        assert "--onto VERSION" in told.error.hint


def test_ls_lists_one_version_and_knows_a_copied_image(run: Run, empty_home: Path) -> None:
    save(draw(empty_home / "one/g.png"))
    save(empty_home / "one/g.png")
    shutil.copytree(empty_home / "one", empty_home / "two")
    for text, names in (("one/g.png", ["1", "0"]), ("one/g.png@0", ["0"]), ("two/g.png", ["1", "0"])):
        told = run("masks", "ls", text).ok()
        assert [line.split("\t")[0] for line in told.stdout.splitlines()] == names
        assert told.stderr == ""
    draw(empty_home / "two/g.png", 33)
    told = run("masks", "ls", "two/g.png").ok()
    assert f"set 1 was made for {empty_home}/one/g.png, page 0" in told.stderr


def test_info_tells_of_a_changed_image_and_keeps_its_columns_apart(run: Run, empty_home: Path) -> None:
    file = draw(empty_home / "g.png")
    save(file, suffix="i-labels-png")
    assert "has changed since" not in run("info", "g.png").ok().stdout
    draw(file, 33)
    told = run("info", "g.png").ok().stdout
    assert "the image has changed since set i-labels-png was made" in told
    assert "saved set   i-labels-png  2" in told


def test_pages_are_told(run: Run, empty_home: Path) -> None:
    import tifffile

    tifffile.imwrite(empty_home / "multi.tif", np.full((3, 40, 60), 90, np.uint8), photometric="minisblack")
    save(empty_home / "multi.tif", page=2)
    assert "multi.tif@0 is of page 2" in run("masks", "show", "multi.tif").ok().stderr
    assert run("masks", "ls", "multi.tif", "--json").ok().stdout.count('"page": 2') == 1
    told = run("masks", "import", "multi.tif", empty_home / "masks/multi.pkl").ok()
    assert "page 0 of 3 (they count from 0)" in told.stderr
    assert "--page" not in run("masks", "import", "multi.tif", "masks/multi.pkl", "--page", "1").ok().stderr


def test_paths_on_drops_are_those_that_users_type(run: Run, drops: DropsServer) -> None:
    path = save("/drops/lab/a.png")
    assert path == "/drops/lab/masks/a.pkl"
    assert f"  {path}\n" in run("info", "/drops/lab/a.png").ok().stdout
    assert f'"{path}"' in run("info", "/drops/lab/a.png", "--json").ok().stdout
    drops.put("/lab/masks/a_1.pkl", drops.files()["/lab/masks/a.pkl"][:50])
    for told in (run("info", "/drops/lab/a.png").stdout, str(run("masks", "show", "/drops/lab/a.png@1").error)):
        assert "/drops/lab/masks/a_1.pkl is truncated" in told


def test_an_empty_set_is_saved_with_a_note(run: Run, empty_home: Path) -> None:
    draw(empty_home / "g.png")
    (empty_home / "none.json").write_text("[]")
    told = run("masks", "import", "g.png", "none.json", "--format", "coco").ok()
    assert "holds no masks" in told.stderr


def test_records_have_sams_box_in_a_set_and_in_its_edited_copy(run: Run, empty_home: Path) -> None:
    draw(empty_home / "g.png")
    paths = [save("g.png"), run("masks", "keep", "g.png", "0").ok().stdout.strip()]
    boxes = [pickle.loads(Path(path).read_bytes())[0]["bbox"] for path in paths]
    assert boxes == [[8.0, 5.0, 21.0, 9.0]] * 2
    shown = run("masks", "show", "g.png").ok().stdout.split("\t")
    assert shown[3:7] == ["8", "5", "22", "10"]
    assert json.loads(run("masks", "show", "g.png", "--json").ok().stdout)["records"][0]["bbox"] == boxes[0]


def test_an_empty_top_folder_of_drops_may_be_a_mistyped_one(run: Run, drops: DropsServer) -> None:
    told = run("ls", "/drops/labb").ok()
    assert (told.stdout, "/drops/labb: empty, or not there" in told.stderr) == ("", True)
    assert run("ls", "/drops/lab", "-1").ok().stderr == ""


def test_dots_on_drops_are_refused_by_the_path_that_was_typed(run: Run, drops: DropsServer) -> None:
    assert str(run("ls", "/drops/a/../b").error) == "'/drops/a/../b' holds '..'"
