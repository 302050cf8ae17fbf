"""Where output cannot go: a full disk, a reader that went away, an encoding too small; and what it holds of names and times."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image
from rich.emoji import Emoji
from typer.main import get_command

from segment_duo.cli import output
from segment_duo.cli.main import build
from segment_duo.waiting import StillWaiting
from tests.cli_shell import Shell
from tests.drops_server import DropsServer

FULL = Path("/dev/full")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def alone(tmp_path: Path) -> Shell:
    """A shell for commands that need no engine."""
    (tmp_path / "a.txt").touch()
    return Shell(tmp_path, dict(os.environ) | {"SEGDUO_HOME": str(tmp_path / "home"), "NO_COLOR": "1"})


def run(shell: Shell, *arguments: str, **streams: int | IO[bytes]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        shell.command(*arguments), cwd=shell.folder, env=shell.environment, timeout=120, **streams  # type: ignore[call-overload]
    )  # fmt: skip


@needs_full
@pytest.mark.parametrize("arguments", [["ls"], ["config", "show", "--json"], ["--help"]])
def test_a_full_disk_is_told_in_a_line(alone: Shell, arguments: list[str]) -> None:
    with FULL.open("wb") as full:
        done = run(alone, *arguments, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert done.stderr.splitlines() == [
        b"segduo: cannot write the output: No space left on device", b"  Free some space, or send the output elsewhere.",
    ]  # fmt: skip


@needs_full
def test_notes_that_cannot_be_written_change_nothing(alone: Shell) -> None:
    (alone.folder / "list").write_text("a.txt\nb.png\n")
    (alone.folder / "b.png").touch()
    with FULL.open("wb") as full:
        listed = run(alone, "auto", "--from-file", "list", "--dry-run", stdout=subprocess.PIPE, stderr=full)
        missing = run(alone, "ls", "gone", stdout=subprocess.PIPE, stderr=full)
    assert (listed.returncode, listed.stdout.splitlines()) == (0, [bytes(alone.folder / "b.png")])
    assert (missing.returncode, missing.stdout) == (7, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["auto", "--help"], ["--version"], ["ls"]])
def test_a_reader_that_went_away_ends_every_command_with_141(alone: Shell, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(alone, *arguments, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


ODD = ("tab\there.png", "bidi\u202ex.png", "line\u2028.png", "样品.png", "plain.png")


def pictures(folder: Path) -> None:
    for name in ODD:
        Image.new("L", (64, 48), 9).save(folder / name, "PNG")


def on_a_terminal(shell: Shell, *arguments: str, **variables: str) -> str:
    """What the command writes when its stdout and stderr are a terminal."""
    main, side = pty.openpty()
    try:
        with subprocess.Popen(
            shell.command(*arguments),
            cwd=shell.folder,
            env=shell.environment | variables,
            stdout=side,
            stderr=side,
            stdin=side,
        ) as process:
            os.close(side)
            side = -1
            found = b""
            while True:
                try:
                    part = os.read(main, 1 << 16)
                except OSError:  # Linux's way of saying that the other end is closed
                    break
                if not part:
                    break
                found += part
            assert process.wait(120) == 0
    finally:
        os.close(main)
        if side >= 0:
            os.close(side)
    return found.decode()


def test_a_listing_is_exact_in_a_pipe_and_escaped_on_a_terminal(alone: Shell) -> None:
    pictures(alone.folder)
    listed = run(alone, "ls", "-1", "--images", stdout=subprocess.PIPE)
    assert sorted(listed.stdout.split(b"\n")) == sorted([b"", *(bytes(alone.folder / name) for name in ODD)])
    piped = subprocess.run(
        alone.command("auto", "-", "--dry-run"), cwd=alone.folder, env=alone.environment, input=listed.stdout, capture_output=True, timeout=120
    )  # fmt: skip
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert sorted(piped.stdout.split(b"\n")) == sorted(listed.stdout.split(b"\n"))
    shown = on_a_terminal(alone, "ls", "-1", "--images")
    assert "tab\\x09here.png" in shown
    assert "bidi\\u202ex.png" in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252:strict"])
def test_an_output_that_cannot_hold_a_name_escapes_it(alone: Shell, encoding: str) -> None:
    pictures(alone.folder)
    alone.environment["PYTHONIOENCODING"] = encoding
    done = run(alone, "info", "样品.png", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"/\\u6837\\u54c1.png\n" in done.stdout
    failed = run(alone, "info", "没有.png", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert failed.returncode == 7
    assert b"\\u6ca1\\u6709.png" in failed.stderr
    assert run(alone, "--help", stdout=subprocess.PIPE).returncode == 0
    path = run(alone, "auto", "--dry-run", "样品.png", stdout=subprocess.PIPE)
    assert path.stdout == bytes(alone.folder / "样品.png") + b"\n"


def test_names_that_are_not_utf8_are_counted_by_ls_and_named_by_the_others(alone: Shell) -> None:
    pictures(alone.folder)
    try:
        (alone.folder / os.fsdecode(b"K\xf6rnung.png")).write_bytes((alone.folder / "plain.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listed = run(alone, "ls", "-1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (listed.returncode, listed.stderr) == (0, b"1 name is not UTF-8, left out: K\\xf6rnung.png\n")
    done = run(alone, "info", ".", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 8
    assert done.stderr.splitlines()[0] == b"segduo: " + bytes(alone.folder) + b"/K\\xf6rnung.png: the name is not UTF-8"
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record.get("error") for record in records] == ["input"] + [None] * len(ODD)
    one = run(alone, "info", os.fsdecode(b"K\xf6rnung.png"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert one.returncode == 7
    assert b"Rename it" in one.stderr


def test_one_odd_time_leaves_a_folder_listable(alone: Shell) -> None:
    """No file system here keeps such a time for sure, so the entry comes from a Drops server."""
    with DropsServer(alone.folder / "drops") as server:
        alone.environment |= server.environment
        for odd in (8.64e23, -1e303, 1e17):
            rows = [
                {"name": f"//labdaq/{name}", "size": 1, "mtimeMs": time, "is_dir": False}
                for name, time in (("a.png", odd), ("b.png", 1e12))
            ]
            server.faults.listing = rows
            table = run(alone, "ls", "/drops/labdaq", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert (table.returncode, table.stderr) == (0, b"")
            assert {line.split(b"\t")[-1]: line[:2] for line in table.stdout.splitlines()} == {
                b"a.png": b"?\t",
                b"b.png": b"20",
            }
            listed = json.loads(run(alone, "ls", "/drops/labdaq", "--json", stdout=subprocess.PIPE).stdout)
            assert {row["name"]: row["modified"] is None for row in listed} == {"a.png": True, "b.png": False}


def test_where_stderr_is_no_terminal_a_silence_ends_with_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    heard = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        heard.set()

    monkeypatch.setattr(output, "waiting", StillWaiting(tell, 0.05))
    with output.progress("training ours") as report:
        report(7, 240, "loss 1.50")
        heard.clear()
        assert heard.wait(60)
    assert told[-1] == "training ours: loss 1.50 (7 of 240)"


def test_nothing_is_said_while_the_user_is_asked_or_sees_a_bar_move() -> None:
    told: list[str] = []
    waiting = StillWaiting(told.append, 0.02)
    turns = 0

    def what() -> str:
        nonlocal turns
        turns += 1
        return "still waiting"

    with waiting.during(what):
        with waiting.hushed():
            time.sleep(0.2)
            assert (turns, told) == (0, [])
        until = time.monotonic() + 60
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    assert told[0] == "still waiting"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["config", "show"], 0, b""),
        (["ls", "{there}"], 0, b""),
        (["info", "{there}/a.png"], 0, b""),
        (["ls"], 7, b"the current folder does not exist any more"),
        (["info", "a.png"], 7, b"the current folder does not exist any more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_in_a_folder_that_was_removed(alone: Shell, arguments: list[str], code: int, said: bytes) -> None:
    alone.image("a.png")
    words = [word.format(there=alone.folder) for word in arguments]
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *alone.command(*words)], cwd=alone.folder, env=alone.environment, capture_output=True
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False)
    assert said in done.stderr


def _helps(command: Any) -> Iterator[str]:
    """What the help of a command and of all below it is made of."""
    yield from (text for text in (command.help, command.epilog) if text)
    for parameter in command.params:
        if text := getattr(parameter, "help", None):
            yield text
    for below in getattr(command, "commands", {}).values():
        yield from _helps(below)


def test_no_help_holds_what_is_printed_as_a_pictograph() -> None:
    # ``--frame 0:100:10`` came out with a drawn "100".
    texts = list(_helps(get_command(build())))
    assert len(texts) > 200
    assert [text for text in texts if Emoji.replace(text) != text] == []
