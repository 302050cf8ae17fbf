"""What a command loads: the shell stays quick because nothing heavy is imported by the client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "sam2",
    "hydra",
    "textual",
    "textual_image",
    "scipy",
    "skimage",
    "tifffile",
    "PIL",
    "pycocotools",
    "fastapi",
}

SCRIPT = """
import sys, json
sys.argv = ["segduo", *json.loads(sys.argv[1])]
from segment_duo.cli.main import main
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def run_in_clean_interpreter(arguments: list[str], folder: Path) -> tuple[int, set[str]]:
    environment = {"HOME": str(folder), "SEGDUO_HOME": str(folder / "segduo"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = json.loads(done.stderr.splitlines()[-1])
    return report["code"] or 0, {name.partition(".")[0] for name in report["modules"]}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["ls", "."], 0),
        (["masks", "ls", "image.tif"], 7),
        (["engine", "status"], 3),
        (["config", "show"], 0),
        (["auto", "--help"], 0),
    ],
)
def test_light_commands_load_nothing_heavy(arguments: list[str], code: int, tmp_path: Path) -> None:
    found, modules = run_in_clean_interpreter(arguments, tmp_path)
    assert found == code
    assert not modules & (HEAVY | {"numpy"})
    if arguments in (["--help"], ["--version"]):
        # Settings, and the versions of packages (importlib.metadata reads them with email): some commands need them, these do not.
        assert not modules & {"pydantic", "email"}


def test_a_command_reads_no_other_commands_module(tmp_path: Path) -> None:
    script = "import sys; from segment_duo.cli.main import build; build(['ls']); print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    modules = done.stdout.split()
    assert "segment_duo.cli.ls" in modules
    assert not {"segment_duo.cli.auto", "segment_duo.cli.sets", "segment_duo.cli.measure"} & set(modules)


def test_every_command_is_in_the_table() -> None:
    from typer.main import get_command

    from segment_duo.cli.main import COMMANDS, build

    assert set(get_command(build()).commands) == set(COMMANDS)
    for name in COMMANDS:
        assert name in get_command(build([name])).commands


def test_masks_ls_of_a_saved_set_does_without_numpy(tmp_path: Path) -> None:
    from segment_duo.masks.formats.native import dumps
    from segment_duo.types import Mask, MaskSet, Provenance, Rle

    folder = tmp_path / "masks"
    folder.mkdir()
    mask = Mask(rle=Rle(2, 2, "04"), area=4, bbox=(0, 0, 2, 2))
    (folder / "image.pkl").write_bytes(dumps(MaskSet((mask,), Provenance())))
    found, modules = run_in_clean_interpreter(["masks", "ls", "image.tif"], tmp_path)
    assert found == 0
    assert not modules & (HEAVY | {"numpy"})
