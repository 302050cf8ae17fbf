"""``segduo masks label``."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.cli_shell import Shell, shell

__all__ = ["shell"]


@pytest.fixture
def labelled(shell: Shell) -> Shell:
    """An image with a set of four discs, ids 0 to 3 of growing size."""
    shell.image("discs.png")
    y, x = np.mgrid[:124, :180]
    labels = np.zeros((124, 180), np.uint8)
    for number, (at_x, at_y, radius) in enumerate([(20, 20, 4), (70, 20, 9), (140, 60, 20), (40, 80, 30)], 1):
        labels[(x - at_x) ** 2 + (y - at_y) ** 2 <= radius**2] = number
    Image.fromarray(labels).save(shell.folder / "labels.png")
    shell.run("masks", "import", "discs.png", "labels.png").ok()
    return shell


def test_by_ids_and_by_conditions(labelled: Shell) -> None:
    before = labelled.run("masks", "show", "discs.png", "--json").ok().json["records"]
    small, large = before[0]["id"], before[2]["id"]
    assert labelled.run("masks", "label", "discs.png", small, large, "big pore", "--json").ok().json["changed"] == 2
    assert (
        labelled.run("masks", "label", "discs.png", "dust", "--max-area", "300", "--dry-run").ok().stdout == "2 of 4\n"
    )
    labelled.run("masks", "label", "discs.png", "dust", "--max-area", "300").ok()
    shown = labelled.run("masks", "show", "discs.png", "--json").ok().json
    assert shown["labels"] == {"dust": 2, "big pore": 1, "": 1}
    assert shown["provenance"]["operation"] == "label"
    assert shown["provenance"]["parameters"] == {"label": "dust", "conditions": {"max_area": 300}}
    after = shown["records"]
    origins = [shown["provenance"]["origins"][one["origin"]] for one in after]
    edits = [origin["edits"] for origin in origins]
    assert [edits[0], edits[2]] == [["label 'big pore'", "label 'dust'"], ["label 'big pore'"]]
    assert sum(edit == ["label 'dust'"] for edit in edits) == 1
    assert {origin["operation"] for origin in origins} == {"import"}
    assert [one["segmentation"] for one in after] == [one["segmentation"] for one in before]
    assert "big pore: 1" in labelled.run("masks", "show", "discs.png").ok().stderr


def test_what_is_not_clear_is_refused(labelled: Shell) -> None:
    for words, code, text in [
        (("dust",), 2, "say which masks"),
        (("99", "dust"), 7, "has no mask 99"),
        (("pore", "dust"), 2, "'pore' is no id"),
    ]:
        refused = labelled.run("masks", "label", "discs.png", *words)
        assert refused.code == code
        assert text in refused.stderr
    assert len(labelled.run("masks", "ls", "discs.png", "--json").ok().json) == 1
