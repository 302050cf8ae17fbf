"""Which set a command takes: the latest, be it one mask, and what is said of it; the files of sets; stdout as a file."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest
from PIL import Image

from tests.cli_shell import DISCS, Shell


def make_sets(shell: Shell) -> None:
    """Four masks (@0, ids 0 to 3), then one (@1), as README's own sequence leaves them."""
    shell.image("a.png")
    rows = [f"{x},{y},1,{index}" for index, (x, y, _) in enumerate(DISCS)]
    (shell.folder / "clicks.csv").write_text("x,y,label,object\n" + "\n".join(rows))
    shell.run("point", "a.png", "--points", "clicks.csv", "--label", "disc").ok()
    second = shell.run("point", "a.png", "-p", "30,30").ok()
    assert second.stderr.splitlines()[-1] == "1 mask; the set before has 4: --append adds to it"


def test_the_set_that_was_taken_is_named_and_a_larger_one_pointed_at(shell: Shell) -> None:
    make_sets(shell)
    image = shell.folder / "a.png"
    warned = f"{image}@1: 1 mask, the latest set; {image}@0 has 4: name it if you mean it\n"
    assert shell.run("measure", "a.png", "--summary").ok().stderr == warned
    assert shell.run("masks", "export", "a.png", "-f", "csv", "-t", "-").ok().stderr == warned
    assert shell.run("measure", "a.png@0", "--summary").ok().stderr == ""
    # What was cut on purpose is meant.
    shell.run("masks", "keep", "a.png@0", "2").ok()
    assert shell.run("measure", "a.png", "--summary").ok().stderr == f"{image}@2: 1 mask\n"


def test_append_keeps_the_series(shell: Shell) -> None:
    shell.image("a.png")
    shell.run("point", "a.png", "-p", "30,30", "-s", "grain").ok()
    names = [
        shell.run("point", "a.png", "-p", "90,34", *flags, "--json").ok().json["version"]
        for flags in (("--append",), ("--onto", "grain"), ("--append", "-s", "other"), ("--onto", "grain", "-s", ""))
    ]
    assert names == ["grain_1", "grain_2", "other", "0"]
    appended = shell.run("point", "a.png", "-p", "40,92", "--append").ok()
    assert "the set before" not in appended.stderr


def test_what_is_cut_stays_in_the_series(shell: Shell) -> None:
    make_sets(shell)
    grain = ("--suffix", "grain")
    shell.run("point", "a.png", "--points", "clicks.csv", *grain).ok()

    def version(*arguments: str) -> str:
        return str(shell.run("masks", *arguments, "--json").ok().json["version"])

    assert version("keep", "a.png@grain", "0", "1", "2") == "grain_1"
    assert version("rm-mask", "masks/a_grain_1.pkl", "1") == "grain_2"
    assert version("filter", "a.png@grain_2", "--min-area", "1", "--suffix", "") == "2"
    assert version("filter", "a.png@0", "--min-area", "1", *grain) == "grain_3"


def test_the_file_of_a_set_is_taken_wherever_a_set_is(shell: Shell) -> None:
    make_sets(shell)
    file = "masks/a.pkl"
    assert len(shell.run("masks", "show", file).ok().lines) == 4
    assert [row["masks"] for row in shell.run("masks", "ls", file, "--json").ok().json] == [4]
    assert shell.run("measure", file, "--json").ok().json["image"] == str(shell.folder / file)
    kept = shell.run("masks", "keep", file, "1", "--json").ok().json
    assert (kept["masks"], kept["version"], kept["image"]) == (1, "2", str(shell.folder / "a.png"))
    assert len(json.loads(shell.run("masks", "export", file, "-f", "coco-rle", "-t", "-").ok().stdout)) == 4
    rows = shell.run("measure", "masks/*.pkl").ok().lines
    assert len(rows) == 1 + 4 + 1 + 1
    shown = shell.run("show", file, "--width", "40").ok()
    assert (len(shown.lines) > 5, shown.stderr) == (True, f"{shell.folder / file}: 4 masks\n")
    added = shell.run("point", "a.png", "-p", "30,30", "--onto", file, "--json").ok().json
    assert (added["masks"], added["new"]) == (5, 1)
    shell.image("b.png", seed=1)
    foreign = shell.run("point", "b.png", "-p", "30,30", "--onto", file)
    assert (foreign.code, "is not a set of" in foreign.stderr) == (7, True)
    by_image = shell.run("measure", "a.png@0", "--json").ok().json
    assert by_image["rows"] == shell.run("measure", file, "--json").ok().json["rows"]


def test_a_set_without_its_image_is_measured_all_the_same(shell: Shell) -> None:
    make_sets(shell)
    (shell.folder / "a.png").unlink()
    done = shell.run("measure", "masks/a.pkl").ok()
    first = next(csv.DictReader(io.StringIO(done.stdout)))
    assert (first["intensity_mean"], float(first["area_px"]) > 100) == ("", True)
    assert "its image cannot be read" in done.stderr
    missing = shell.run("masks", "show", "masks/gone.pkl")
    assert (missing.code, missing.stdout) == (7, "")


def test_a_dash_is_stdout(shell: Shell) -> None:
    make_sets(shell)
    table = shell.run("measure", "a.png@0").ok().stdout
    assert shell.run("measure", "a.png@0", "--csv", "-").ok().stdout == table
    assert not (shell.folder / "-").exists()
    command = [*shell.command("masks", "export", "a.png@0", "-f", "imagej", "-t", "-")]
    assert len(zipfile.ZipFile(io.BytesIO(raw(shell, command))).namelist()) == 4
    drawn = raw(shell, shell.command("measure", "a.png@0", "--summary", "--plot", "-"))
    assert Image.open(io.BytesIO(drawn)).format == "PNG"
    both = shell.run("measure", "a.png@0", "--plot", "-")
    assert (both.code, both.stdout) == (2, "")
    folder = shell.run("masks", "export", "a.png@0", "-f", "png", "-t", "-")
    assert (folder.code, folder.stdout) == (2, "")


def raw(shell: Shell, command: list[str]) -> bytes:
    import subprocess

    return subprocess.run(command, cwd=shell.folder, env=shell.environment, check=True, capture_output=True).stdout


def test_measure_takes_the_conditions_of_filter(shell: Shell) -> None:
    make_sets(shell)
    shell.run("point", "a.png", "-p", "90,34", "--onto", "0", "--label", "big").ok()

    def ids(*conditions: str) -> list[int]:
        return [row["id"] for row in shell.run("measure", "a.png@2", "--json", *conditions).ok().json["rows"]]

    assert ids("--label", "big") == [4]
    assert ids("--inside", "0,0,60,60") == [0]
    assert ids("--label", "disc", "--inside", "0,0,60,60") == [0]
    assert shell.run("measure", "a.png@2", "--min-solidity", "nan").code == 2


@pytest.mark.parametrize("given", [("-p", "40,40,0"), ("--points", "no.csv"), ("-p", "40,40,0", "-p", "9,9,0")])
def test_excludes_alone_are_refused(shell: Shell, given: tuple[str, ...]) -> None:
    shell.image("a.png")
    (shell.folder / "no.csv").write_text("x,y,label,object\n30,30,1,yes\n9,9,0,no\n")
    done = shell.run("point", "a.png", *given)
    assert (done.code, done.stdout) == (7, "")
    assert "a prompt of excludes alone asks for nothing" in done.stderr
    assert not (shell.folder / "masks").exists()
