"""Classes: their table, and their colours and order in files of other programs."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import roifile

from segment_duo.config import ClassSettings, Config
from segment_duo.masks.classes import classes_of, counts
from segment_duo.masks.formats.export import render
from segment_duo.masks.overlay import overlay
from segment_duo.types import MaskSet, Provenance
from tests.tui_fakes import disc

CLASSES = classes_of(
    {"pore": ClassSettings(colour="#010203"), "grain": ClassSettings(key="1"), "dust": ClassSettings()}
)
SET = MaskSet(
    (
        disc(100, 100, 20, 20, 9, id=0, label="grain"),
        disc(100, 100, 70, 20, 9, id=1, label="other"),
        disc(100, 100, 20, 70, 9, id=2, label="pore"),
        disc(100, 100, 70, 70, 9, id=3),
    ),
    Provenance(),
)


def test_colours_and_keys_are_given_by_place_where_none_are_named() -> None:
    assert [(one.name, one.key) for one in CLASSES] == [("pore", "2"), ("grain", "1"), ("dust", "3")]
    assert CLASSES[0].colour == (1, 2, 3)
    assert len({one.colour for one in CLASSES}) == 3
    assert counts(SET.masks) == {"grain": 1, "other": 1, "pore": 1, "": 1}


@pytest.mark.parametrize(
    "table",
    [{"": {}}, {"a\n": {}}, {"a": {"colour": "red"}}, {"a": {"key": "0"}}, {"a": {"key": "1"}, "b": {"key": "1"}}],
)
def test_a_wrong_table_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="classes"):
        Config.model_validate({"classes": table})


def test_numbered_formats_keep_the_classes_order() -> None:
    content = json.loads(render([(SET, None)], "coco", classes=CLASSES))
    names = [one["name"] for one in content["categories"]]
    assert names == ["pore", "grain", "dust", "object", "other"]
    assert [names[one["category_id"] - 1] for one in content["annotations"]] == ["grain", "other", "pore", "object"]
    yolo = render([(SET, None)], "yolo", classes=CLASSES).decode()
    assert [line.split()[0] for line in yolo.splitlines()] == ["1", "4", "0", "3"]


def test_drawings_have_the_colours() -> None:
    assert b'id="mask-2" fill="#010203"' in render([(SET, None)], "svg", classes=CLASSES)
    features = json.loads(render([(SET, None)], "geojson", classes=CLASSES))["features"]
    assert features[2]["properties"]["classification"] == {"name": "pore", "color": [1, 2, 3]}
    with zipfile.ZipFile(io.BytesIO(render([(SET, None)], "imagej", classes=CLASSES))) as archive:
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
    assert bytes(rois[2].stroke_color) == bytes((255, 1, 2, 3))
    blank = np.zeros((100, 100, 3), np.uint8)
    drawn = overlay(blank, SET.masks, fill=False, colours={"pore": (1, 2, 3)})
    assert tuple(drawn[61, 20]) == (1, 2, 3)
    numbered = overlay(blank, SET.masks, fill=False, ids=True)
    assert (numbered[66:75, 66:75] > 150).all(axis=2).any()
