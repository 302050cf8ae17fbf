"""Where output cannot go: a full disk, a reader that went away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO

import pytest

from .cli_shell import Shell

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
