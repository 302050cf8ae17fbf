"""The generator: same seed, same scene; labels say what is in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segment_duo.training.nano.examples import write_examples
from segment_duo.training.nano.layouts import LAYOUTS, MIN_AREA, tidy
from segment_duo.training.nano.scenes import HELD_OUT_SEED, Look, contact_sheet, generate


@pytest.mark.parametrize("kind", [*LAYOUTS])
def test_every_kind_makes_consistent_labels(kind: str) -> None:
    scene = generate(3, (160, 192), kind)
    assert scene.image.shape == scene.labels.shape == (160, 192)
    assert scene.image.dtype == np.uint8
    numbers = np.unique(scene.labels)
    assert set(numbers) - {0} == set(range(1, int(scene.labels.max()) + 1))
    if kind == "nothing":
        assert scene.labels.max() == 0
    else:
        areas = np.bincount(scene.labels.ravel())[1:]
        assert areas.size >= 1
        assert areas.min() >= MIN_AREA


def test_a_seed_gives_one_scene() -> None:
    first, again, other = generate(7, (128, 128)), generate(7, (128, 128)), generate(8, (128, 128))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("contrast", [0.3, -0.3])
def test_contrast_has_the_sign_asked_for(contrast: float) -> None:
    look = Look(level=0.5, contrast=contrast, edge=0.0, relief=0.0, seam=0.0, noise=0.0)
    scene = generate(5, (256, 256), "discs", look=look)
    inside, outside = scene.image[scene.labels > 0].mean(), scene.image[scene.labels == 0].mean()
    assert np.sign(inside - outside) == np.sign(contrast)
    assert abs(inside - outside) > 30


def test_sixteen_bit_uses_more_than_eight_bits() -> None:
    scene = generate(2, (128, 128), "blobs", depth=16)
    assert scene.image.dtype == np.uint16
    assert scene.image.max() > 2000
    assert np.unique(scene.image).size > 256


def test_banner_is_below_the_picture_and_holds_no_object() -> None:
    scene = generate(4, (256, 256), "discs", banner=True)
    assert scene.banner >= 24
    assert scene.image.shape == (256 + scene.banner, 256)
    assert scene.labels[-scene.banner :].max() == 0
    assert scene.image[-scene.banner :].max() == 255
    assert (scene.image[-scene.banner :] == 0).mean() > 0.5


def test_unknown_kind_and_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        generate(1, kind="galaxies")
    with pytest.raises(ValueError, match="depth"):
        generate(1, depth=12)


def test_tidy_numbers_drops_specks_and_keeps_the_largest_piece() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[2:12, 2:12] = 9
    labels[20:24, 20:27] = 9  # a second, smaller piece of object 9
    labels[30:32, 30:32] = 4  # a speck
    assert int(tidy(labels).max()) == 1
    assert int((tidy(labels) == 1).sum()) == 100
    assert int((tidy(labels, connected=False) == 1).sum()) == 128


def test_held_out_seeds_are_beyond_those_of_training() -> None:
    from segment_duo.training.nano.run import Recipe

    assert Recipe().ema < 1
    assert HELD_OUT_SEED > 100 * 5000  # a pool of 5,000 slots could be refreshed a hundred times


def test_contact_sheet_has_room_for_all() -> None:
    sheet = contact_sheet([generate(i, (64, 64), "discs") for i in range(5)], columns=3)
    assert sheet.shape == (128, 192, 3)


def test_examples_are_small_and_carry_a_pixel_size(tmp_path: Path) -> None:
    import tifffile

    paths = write_examples(tmp_path)
    assert sum(p.stat().st_size for p in paths) < 3_200_000
    with tifffile.TiffFile(tmp_path / "particles.tif") as tif:
        assert tif.imagej_metadata is not None
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.pages[0].tags["XResolution"].value == (200, 1)  # 200 pixels a micrometre: 5 nm
        assert tif.pages[0].dtype == np.uint16
    labels = tifffile.imread(tmp_path / "particles_labels.tif")
    lines = (tmp_path / "points.csv").read_text().splitlines()
    assert lines[0] == "x,y,label,object"
    for line in lines[1:]:
        x, y, label, _ = line.split(",")
        assert (labels[int(y), int(x)] > 0) == (label == "1")
