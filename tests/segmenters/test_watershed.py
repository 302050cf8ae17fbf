"""Threshold and watershed: what it finds, its options, and its way through the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from segment_duo.config import load_config
from segment_duo.errors import Cancelled, UsageError
from segment_duo.masks.rle import decode
from segment_duo.models import registry
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import Option
from segment_duo.segmenters.options import check_options
from segment_duo.segmenters.watershed import INFO
from segment_duo.segmenters.watershed.method import Watershed
from segment_duo.session import Session
from segment_duo.types import Box
from tests.cli_shell import DISCS, draw_discs
from tests.engine_fixtures import Home


def found(image: np.ndarray, parameters: AutoParameters | None = None, **options: Any) -> list[np.ndarray]:
    values = {name: option.default for name, option in INFO.options.items()} | options
    pixels = np.repeat(image[:, :, None], 3, axis=2)
    run = Watershed(values).automatic(pixels, parameters or AutoParameters())
    return [decode(mask.rle) for mask in run.masks]


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, cols = np.ogrid[:height, :width]
    inside: np.ndarray = (cols - x) ** 2 + (rows - y) ** 2 <= radius**2
    return inside


@pytest.mark.parametrize("options", [{}, {"threshold": "local"}, {"split": "distance"}])
def test_every_disc_is_found_and_nothing_else(options: Mapping[str, Any]) -> None:
    masks = found(draw_discs(), **options)
    assert len(masks) == len(DISCS)
    for x, y, radius in DISCS:
        truth = disc(124, 180, x, y, radius)
        best = max((truth & mask).sum() / (truth | mask).sum() for mask in masks)
        assert best > (0.9 if options.get("threshold") != "local" else 0.75)


def test_dark_objects_are_found_by_themselves_or_when_told() -> None:
    dark = 255 - draw_discs()
    assert len(found(dark)) == 4
    assert len(found(dark, objects="dark")) == 4
    (ground,) = found(dark, objects="bright")
    assert ground[0, 0]


def test_touching_discs_are_parted_unless_told_otherwise() -> None:
    image = np.full((100, 160), 50, np.uint8)
    image[disc(100, 160, 50, 50, 30) | disc(100, 160, 105, 50, 30)] = 200
    left, right = found(image)
    assert not (left & right).any()
    assert left[50, 50] != right[50, 50]
    assert len(found(image, split="none")) == 1
    assert len(found(image, split="distance")) == 2
    assert len(found(image, depth=25.0)) == 1


def test_holes_are_filled_and_specks_left_out() -> None:
    image = np.full((80, 80), 40, np.uint8)
    image[disc(80, 80, 40, 40, 20) & ~disc(80, 80, 40, 40, 6)] = 220
    image[5:9, 5:9] = 220
    (ring,) = found(image, denoise=0.0)
    assert ring[40, 40]
    assert len(found(image, denoise=0.0, min_size=0)) == 2
    assert found(image, AutoParameters(min_mask_region_area=5000), denoise=0.0) == []


def test_region_keeps_objects_whose_middle_lies_in_it() -> None:
    (only,) = found(draw_discs(), AutoParameters(region=Box(0, 0, 60, 60)))
    assert only[30, 30]


@pytest.mark.parametrize(
    "image", [np.zeros((20, 30), np.uint8), np.full((1, 1), 7, np.uint8), np.full((3, 200), 9, np.uint8)]
)
def test_nothing_to_see_gives_nothing(image: np.ndarray) -> None:
    assert found(image) == []


def test_it_stops_when_asked() -> None:
    pixels = np.repeat(draw_discs()[:, :, None], 3, axis=2)
    values = {name: option.default for name, option in INFO.options.items()}
    asked = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        Watershed(values).automatic(pixels, AutoParameters(), should_cancel=cancel)
    assert len(asked) == 3


def test_the_engine_runs_it_with_options_and_the_set_tells_them(home: Home, tmp_path: Any) -> None:
    from PIL import Image

    Image.fromarray(draw_discs()).save(tmp_path / "a.png")
    flags = {"model": "watershed:min_size=1000,split=none", "in_process": True, "device": "cpu"}
    session = Session(load_config(flags, paths=home.paths), home.paths)
    image = session.open_image(session.reference(str(tmp_path / "a.png")))
    result = session.auto(image, AutoParameters())
    assert [mask.area > 1000 for mask in result.masks] == [True, True]
    assert "Otsu's threshold" in result.notes[0]
    assert result.model is not None
    assert result.model.id == "watershed:min_size=1000,split=none"
    plain = registry.resolve_model(session.config, home.paths, "watershed")
    assert result.model.weights_sha256 != plain.sha256
    saved = session.save(image, result.masks, operation="auto")
    assert saved.version is not None
    provenance = session.sets.load(image.ref, None).mask_set.provenance
    assert provenance.model == result.model


def test_texts_become_values_of_the_options_kind() -> None:
    options = {"flag": Option(False), "size": Option(3, least=1), "share": Option(0.5, most=1), "name": Option("a")}
    given = {"flag": "yes", "size": "4", "share": "0.25", "name": "b"}
    assert check_options("m", options, given) == {"flag": True, "size": 4, "share": 0.25, "name": "b"}
    assert check_options("m", options, {}) == {"flag": False, "size": 3, "share": 0.5, "name": "a"}
    for wrong in ({"flag": "maybe"}, {"size": "4.5"}, {"size": "0"}, {"share": "nan"}, {"share": "1.1"}, {"nam": "b"}):
        with pytest.raises(UsageError):
            check_options("m", options, wrong)
