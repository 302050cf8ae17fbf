"""From what the user typed to the images it means: lists above all, for what a list names must not vanish."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import Inputs, Listings, expand_inputs, read_list
from segment_duo.config import load_config
from segment_duo.errors import ImageError, InputError, NotFound, SegduoError, SomeInputsFailed
from segment_duo.paths import Paths
from segment_duo.session import Session
from tests.drops_server import DropsServer


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    folder = tmp_path / "work"
    for name in ("set/a.png", "set/b.tif", "set/notes.txt", "set/masks/a.pkl", "odd [1].txt", "c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    monkeypatch.chdir(folder)
    return open_session(tmp_path)


def open_session(tmp_path: Path, **environ: str) -> Session:
    paths = Paths(*(tmp_path / name for name in ("config", "data", "cache", "state")))
    return Session(load_config(paths=paths, environ=environ, cwd=tmp_path), paths)


def listed(session: Session, text: str, *images: str) -> Inputs:
    Path("list").write_text(text)
    return expand_inputs(session, images, "list")


def names(inputs: Inputs) -> list[str]:
    return [ref.name for ref in inputs.refs]


def test_a_line_of_a_list_means_what_it_means_as_an_argument(session: Session) -> None:
    assert names(listed(session, "c.png\nset\n# no\n\n")) == ["c.png", "a.png", "b.tif"]
    assert names(listed(session, "set/*.png\n")) == ["a.png"]
    empty = listed(session, "c.png\nset/masks\n")
    assert [str(error) for _, error in empty.failures] == ["no images in folder 'set/masks'"]


def test_what_is_left_out_of_a_list_is_told_once(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = listed(session, "c.png\nset/i04.pgn\nsett\nset/\nodd [1].txt\nx\x1b\n")
    assert (names(inputs), inputs.failures) == (["c.png"], [])
    assert capsys.readouterr().err == "5 of 6 lines are not images, left out: set/i04.pgn, sett, set/ and 2 more\n"
    listed(session, "c.png\nx\x1b\n")
    assert "1 of 2 lines is not an image, left out: x\\x1b\n" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "hint"), [("set/i04.pgn\nsett\n", "Images end in"), ("set/\n", "without the /")])
def test_a_list_of_which_nothing_is_left_is_a_failure(session: Session, text: str, hint: str) -> None:
    [(label, error)] = listed(session, text).failures
    assert (label, type(error), error.exit_code) == ("list", NotFound, 7)
    assert text.split(maxsplit=1)[0] in error.message
    assert hint in error.hint
    beside = listed(session, text, "c.png")
    assert (names(beside), len(beside.failures)) == (["c.png"], 1)


def test_an_empty_list_is_no_failure(session: Session) -> None:
    assert listed(session, "# none today\n") == Inputs([], [], 0)


def test_a_whole_listing_can_be_piped_on(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("set/a.png\nset/b.tif\nset/notes.txt\nset/masks/\n"))
    inputs = expand_inputs(session, ["-"], None)
    assert (names(inputs), inputs.failures) == (["a.png", "b.tif"], [])
    assert "left out: set/notes.txt, set/masks/\n" in capsys.readouterr().err


def test_a_list_of_names_on_drops_costs_one_look_into_their_folder(tmp_path: Path) -> None:
    with DropsServer(tmp_path / "drops") as server:
        for name in ("deep/a.png", *(f"{index}.txt" for index in range(20))):
            server.put(f"/labdaq/{name}", b"x")
        session = open_session(tmp_path, **server.environment)
        listings = Listings(session)
        lines = ["/drops/labdaq/deep", *(f"/drops/labdaq/{index}.txt" for index in range(20)), "/drops/labdaq/gone"]
        assert [listings.is_input(line) for line in lines] == [True] + [False] * 21
        assert len([request for request in server.requests if request.path.startswith("/list/")]) == 1
        server.faults.status = 403
        for name in ("x", "y"):
            with pytest.raises(SegduoError):
                listings.is_input(f"/drops/other/{name}")
        assert len([request for request in server.requests if request.path.startswith("/list/")]) == 2


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, "No such file or directory"),
        (lambda file: file.mkdir(), "Is a directory"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "not a text file"),
        (lambda file: file.write_bytes(b"a\0.png\n"), "not a text file"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "list")
    with pytest.raises(InputError) as caught:
        list(read_list(str(tmp_path / "list")))
    assert caught.value.message == f"{tmp_path / 'list'}: {message}"


LATIN = os.fsdecode(b"K\xf6rnung.png")


@pytest.fixture
def latin_names(session: Session) -> None:
    for name in (LATIN, "set/" + LATIN, os.fsdecode(b"set/notes\xff.txt"), "alone/" + LATIN):
        Path(name).parent.mkdir(exist_ok=True)
        try:
            Path(name).write_bytes(b"")
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")


@pytest.mark.usefixtures("latin_names")
@pytest.mark.parametrize(
    ("text", "there", "failed"),
    [
        ("set", ["a.png", "b.tif"], 1),
        ("set/*.png", ["a.png"], 1),
        ("s*/*", ["a.png", "b.tif"], 1),
        ("**/K*", [], 3),
        ("set/a*", ["a.png"], 0),
        ("alone", [], 1),
        ("alone/*", [], 1),
        (LATIN, [], 1),
        (LATIN.replace("png", "txt"), [], 1),
    ],
)
def test_images_whose_names_are_not_utf8_are_named(session: Session, text: str, there: list[str], failed: int) -> None:
    inputs = expand_inputs(session, [text], None)
    assert names(inputs) == there
    assert [(type(error), "not UTF-8" in error.message, "Rename" in error.hint) for _, error in inputs.failures] == [
        (InputError, True, True)
    ] * failed


@pytest.mark.usefixtures("latin_names")
def test_a_list_holds_the_exact_bytes_of_names(session: Session) -> None:
    odd = ["tab\there.png", " ahead.png", "line\u2028.png", "form\x0cfeed.png", "bidi\u202e.png"]
    for name in odd:
        Path(name).write_bytes(b"")
    Path("list").write_bytes(os.fsencode("\n".join([*odd, f"  {LATIN}\r", "  c.png  \r", "set/a.png\t", ""])))
    inputs = expand_inputs(session, None, "list")
    assert names(inputs) == [*odd, "c.png", "a.png"]
    assert [label for label, _ in inputs.failures] == [LATIN]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a.png: cut off", "/x/a.png: cut off"),
        ("no such file: '/x/a.png'", "no such file: '/x/a.png'"),
        ("no room", "/x/a.png: no room"),
    ],
)
def test_a_failed_image_is_named_once_and_whole(message: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work(item: str) -> None:
        if item == "/x/a.png":
            raise ImageError(message)

    with pytest.raises(SomeInputsFailed):
        run_batch(["/x/a.png", "/x/b.png"], work, as_json=False)
    assert capsys.readouterr().err == f"segduo: {line}\n"
