"""What Tab completes, asked as the shells' own scripts ask; and what a newcomer sees first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_shell import Shell

PROGRAM = Path(sys.executable).with_name("segduo")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the program is not installed beside this Python")


@pytest.fixture
def alone(tmp_path: Path) -> Shell:
    """A shell for commands that need no engine, with an image that has three sets."""
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "masks/a.pkl", "masks/a_1.pkl", "masks/a_grain.pkl"):
        (tmp_path / name).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGDUO_")}
    return Shell(tmp_path, environment | {"SEGDUO_HOME": str(tmp_path / "home"), "NO_COLOR": "1"})


def asked(shell: Shell, kind: str, words: list[str]) -> set[str]:
    """The answers to Tab behind ``words``."""
    if kind == "bash":
        question = {"COMP_WORDS": "\n".join(["segduo", *words]), "COMP_CWORD": str(len(words))}
    else:
        question = {"_TYPER_COMPLETE_ARGS": " ".join(["segduo", *words]), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [str(PROGRAM)],
        cwd=shell.folder,
        env=shell.environment | question | {"_SEGDUO_COMPLETE": f"complete_{kind}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stderr == ""
    lines = done.stdout.replace("_arguments '*: :((", "").replace("))'", "").splitlines()
    return {line.strip('"') for line in lines} - {"", "_files"}


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["auto", "--preset", "f"], {"fine"}),
        (["auto", "--model", "sam2.1-t"], {"sam2.1-tiny"}),
        (["models", "pull", ""], {"sam2.1-tiny", "sam2.1-small", "sam2.1-base-plus", "sam2.1-large"}),
        (["models", "show", "na"], {"nano"}),
        (["embed", "--device", "c"], {"cuda", "cpu"}),
        (["masks", "export", "-f", "coco"], {"coco", "coco-rle"}),
        (["masks", "import", "-f", "np"], {"npz"}),
        (["masks", "show", "a.png@g"], {"a.png@grain"}),
        (["measure", "a.png@"], {"a.png@0", "a.png@1", "a.png@grain"}),
        (["measure", "a.p"], set()),
        (["measure", "gone.png@"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_values_are_completed_in_every_shell(alone: Shell, words: list[str], answers: set[str]) -> None:
    for kind in ("bash", "zsh", "fish"):
        assert asked(alone, kind, words) == answers, kind


def test_bash_breaks_words_at_the_at(alone: Shell) -> None:
    assert asked(alone, "bash", ["masks", "show", "a.png", "@", "g"]) == {"@grain"}
    assert asked(alone, "bash", ["masks", "show", "a.png", "@g"]) == {"@grain"}
    assert asked(alone, "bash", ["masks", "show", "a.png", "@"]) == {"@0", "@1", "@grain"}
    assert asked(alone, "bash", ["masks", "keep", "a.png", "@", "grain", "--suf"]) == {"--suffix"}


def test_segduo_alone_greets_and_says_what_nano_is_good_for(alone: Shell) -> None:
    done = alone.run().ok()
    assert done.stderr == ""
    for command in ("segduo demo", "segduo auto IMAGE", "segduo tui IMAGE", "segduo models pull", "segduo --help"):
        assert command in done.stdout
    assert "nano" in done.stdout


def test_demo_needs_nothing_and_shows_masks(shell: Shell) -> None:
    """In an empty folder, from the package alone: no file of the repository is read."""
    done = shell.run("demo", "--keep", "picture.tif").ok()
    assert len(done.lines) > 10
    last = [line for line in done.stderr.splitlines() if " masks by nano in " in line]
    assert len(last) == 1
    assert int(last[0].split()[0]) >= 5
    scale = shell.run("info", "picture.tif", "--json").ok().json["pixel_size"]
    assert scale["x_nm"] == pytest.approx(5.0)
