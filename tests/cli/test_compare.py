"""``segduo compare``: several models on the same images, in one table and one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_duo.cli.compare import split_models
from tests.cli_shell import DISCS, Shell


def truth(file: Path) -> None:
    y, x = np.mgrid[:124, :180]
    labels = np.zeros((124, 180), np.uint16)
    for number, (centre_x, centre_y, radius) in enumerate(DISCS, start=1):
        labels[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2] = number
    Image.fromarray(labels).save(file)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("nano,watershed", ["nano", "watershed"]),
        ("nano, watershed:a=1,b=2,nano", ["nano", "watershed:a=1,b=2", "nano"]),
        ("watershed:a=1,watershed:b=2", ["watershed:a=1", "watershed:b=2"]),
        (" ,", []),
    ],
)
def test_a_list_of_models_is_told_apart_from_their_options(text: str, names: list[str]) -> None:
    assert split_models(text) == names


def test_three_methods_on_two_images_with_truth_and_a_picture(shell: Shell) -> None:
    for name in ("a", "b"):
        shell.image(f"{name}.png", seed=ord(name))
        truth(shell.folder / f"{name}_labels.png")
    models = "watershed,watershed:min_size=1000,objects=bright,watershed:objects=dark"
    arguments = ("compare", "a.png", "b.png", "--models", models, "--truth", ".")
    done = shell.run(*arguments, "--picture", "out.png").ok()
    rows = [line.split("\t") for line in done.lines]
    assert [row[:2] for row in rows[:3]] == [
        ["a.png", "watershed"],
        ["a.png", "watershed:min_size=1000,objects=bright"],
        ["a.png", "watershed:objects=dark"],
    ]
    masks, shared, precision, recall = ([row[i] for row in rows[:3]] for i in (2, 5, 6, 7))
    assert masks[:2] == ["4", "2"]
    assert shared[:2] == ["4", "2"]
    assert precision[:2] == ["1.000", "1.000"]
    assert recall == ["1.000", "0.500", "0.000"]
    assert all("MiB" in row[4] or "GiB" in row[4] for row in rows)
    with Image.open(shell.folder / "out.png") as picture:
        assert picture.width == 3 * 180 + 2 * 4
        assert picture.height == 2 * (124 + 21)
    assert not (shell.folder / "masks").exists()
    again = shell.run(*arguments, "--picture", "out.png")
    assert (again.code, "exists already" in again.stderr) == (6, True)


def test_nano_beside_watershed_as_json(shell: Shell) -> None:
    shell.image("a.png")
    done = shell.run("compare", "a.png", "--models", "nano,watershed", "--preset", "coarse", "--json").ok()
    import json

    nano, watershed = (json.loads(line) for line in done.lines)
    assert (nano["model"], watershed["model"]) == ("nano", "watershed")
    assert nano["matched"] == {"model": "nano", "masks": nano["masks"]}
    assert watershed["masks"] == 4
    assert 0 <= watershed["matched"]["masks"] <= 4
    assert watershed["scores"] is None
    assert nano["memory_bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--models", "nano"), 2, "two models or more"),
        ((), 2, "two models or more"),
        (("--models", "nano,nanu"), 2, "Did you mean 'nano'?"),
        (("--models", "watershed,watershed:split=no"), 2, "'no' is none of"),
        (("--models", "watershed,watershed:split=none", "--truth", "gone.png"), 7, "gone.png"),
    ],
)
def test_what_cannot_be_compared_is_said(shell: Shell, arguments: tuple[str, ...], code: int, said: str) -> None:
    shell.image("a.png")
    done = shell.run("compare", "a.png", *arguments)
    assert (done.code, done.stdout) == (code, "")
    assert said in done.stderr
