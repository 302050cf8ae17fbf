"""``segduo auto``: what it says about images it does not do, and of thresholds that leave nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segment_duo.models.known import NANO_DIR
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.presets import preset_parameters
from tests.cli_shell import Shell

OWN = json.loads((NANO_DIR / "defaults.json").read_text())


def test_thresholds_that_leave_no_mask_are_named_beside_the_models_own(shell: Shell) -> None:
    shell.image("a.png")
    strict = ("--points-per-side", "4", "--pred-iou-thresh", "1", "--stability-score-thresh", "1")
    done = shell.run("auto", "a.png", *strict, "--json").ok()
    assert done.json["masks"] == 0
    own = f"{OWN['pred_iou_thresh']:g}, {OWN['stability_score_thresh']:g}"
    told = f"no masks were left; in force are --pred-iou-thresh 1, --stability-score-thresh 1 (nano's own: {own})"
    assert told in done.stderr
    loose = shell.run("auto", "a.png", "--points-per-side", "4", "--pred-iou-thresh", "0.01", "--stability-score-thresh", "0.01")  # fmt: skip
    assert "no masks" not in loose.ok().stderr


def test_web_is_the_predecessors_with_every_model() -> None:
    own = {"pred_iou_thresh": 0.11, "stability_score_thresh": 0.12, "box_nms_thresh": 0.13}
    assert preset_parameters("web", own) == AutoParameters(stability_score_thresh=0.9)
    assert preset_parameters("default", own) == AutoParameters(**own)


def test_a_models_own_defaults_are_shown(shell: Shell) -> None:
    shown = {row["id"]: row["auto_defaults"] for row in shell.run("models", "ls", "--json").ok().json}
    assert (shown["nano"], shown["sam2.1-tiny"]) == (OWN, {"exact": False})


def test_skipped_images_are_counted_in_one_line_off_a_terminal(shell: Shell) -> None:
    for name in ("a.png", "b.png"):
        shell.image(name)
    command = ("auto", "a.png", "b.png", "--points-per-side", "4", "--skip-existing")
    assert "sets already" not in shell.run(*command).ok().stderr
    again = shell.run(*command).ok()
    assert [line for line in again.stderr.splitlines() if "sets already" in line] == [
        "2 images have sets already, skipped"
    ]


def test_a_dry_run_does_not_promise_a_missing_image(shell: Shell) -> None:
    shell.image("a.png")
    alone = shell.run("auto", "gone.png", "--dry-run")
    assert (alone.code, alone.stdout) == (7, "")
    assert f"no such file: '{shell.folder / 'gone.png'}'" in alone.stderr
    among = shell.run("auto", "gone.png", "a.png", "--dry-run")
    assert (among.code, among.lines) == (8, [str(shell.folder / "a.png")])


@pytest.mark.parametrize(
    ("option", "value", "code", "complaint"),
    [
        ("--mask-threshold", "nan", 2, "--mask-threshold: nan is not a finite number"),
        ("--stability-score-offset", "inf", 2, "--stability-score-offset: inf is not a finite number"),
        ("--region", "5", 7, "Example: --region 10,20,110,90"),
        ("--point-grids", "gone.json", 7, "--point-grids gone.json: No such file or directory\n"),
        ("--point-grids", "bad.json", 7, "Expected JSON like"),
        ("--from-file", "gone.txt", 7, "segduo: gone.txt: No such file or directory\n"),
    ],
)
def test_a_wrong_value_is_named_with_its_option(
    shell: Shell, option: str, value: str, code: int, complaint: str
) -> None:
    Path(shell.folder, "bad.json").write_text("[[0.5]]")
    done = shell.run("auto", shell.image("a.png"), option, value, "--dry-run")
    assert (done.code, done.stdout) == (code, "")
    assert complaint in done.stderr


@pytest.mark.parametrize("name", ["tab\there.png", "bidi\u202ex.png"])
def test_the_path_of_a_saved_set_is_exact_off_a_terminal(shell: Shell, name: str) -> None:
    shell.image(name)
    done = shell.run("auto", name, "--points-per-side", "2").ok()
    saved = Path(done.stdout.removesuffix("\n"))
    assert saved.is_file()
    assert saved.name.startswith(Path(name).stem)
