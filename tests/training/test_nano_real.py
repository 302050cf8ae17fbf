"""Views of real labelled pictures for nano's training: what may be clicked, what is hidden, what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_duo.training.nano.augment import Cutout, exposure, letters, pile
from segment_duo.training.nano.batches import make_batch, mixed, synthetic_views
from segment_duo.training.nano.feed import Diet, Feed
from segment_duo.training.nano.optimizers import has_bfloat16, orthogonal
from segment_duo.training.nano.real import RealPictures, read_picture, safe_background, window
from segment_duo.training.nano.scenes import generate


def write(folder: Path, name: str, seed: int, end: str = "png", kind: str = "discs") -> None:
    folder.mkdir(exist_ok=True)
    scene = generate(seed, (300, 340), kind)
    Image.fromarray(scene.image).save(folder / f"{name}.{end}")
    labels = scene.labels.astype(np.uint16)
    labels[labels == 1] = 7_000  # numbers need not be dense
    Image.fromarray(labels).save(folder / f"{name}_labels.png")


def test_pictures_of_the_list_are_left_out(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        write(tmp_path / "set", name, number, "jpg" if number else "png")
    pictures = RealPictures([tmp_path / "set"], without=("b",))
    assert [p.name for p in pictures.pictures] == ["a", "c"]
    assert int(pictures.pictures[0].labels.max()) == len(pictures.pictures[0].middles)
    with pytest.raises(FileNotFoundError, match="no labelled pictures"):
        RealPictures([tmp_path / "set"], without=("a", "b", "c"))


def test_labels_without_a_picture_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no a\.png or a\.jpg"):
        read_picture(tmp_path / "a_labels.png")


def test_a_picture_of_many_objects_is_drawn_more_often_but_not_by_number(tmp_path: Path) -> None:
    write(tmp_path, "many", 1, kind="discs")
    labels = np.zeros((300, 340), np.uint16)
    labels[100:200, 100:200] = 1
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "one.png")
    Image.fromarray(labels).save(tmp_path / "one_labels.png")
    pictures = RealPictures([tmp_path])
    many, one = pictures.chances
    count = len(pictures.pictures[0].middles)
    assert count > 4
    assert many / one == pytest.approx(min(8.0, count**0.5))


def test_background_is_safe_only_away_from_labels_and_where_it_is_smooth() -> None:
    rng = np.random.default_rng(0)
    grey = (100 + 3 * rng.standard_normal((200, 200))).astype(np.uint8)
    grey[20:50, 20:50] = 220  # a particle nobody labelled
    taken = np.zeros((200, 200), bool)
    taken[100:140, 100:140] = True
    safe = safe_background(grey, taken)
    assert safe.mean() > 0.2
    assert not safe[22:48, 22:48].any()
    assert not safe[97:143, 97:143].any()


def test_a_view_keeps_labels_on_their_pixels(tmp_path: Path) -> None:
    """A picture whose grey value is its label's: after any window, grey still tells the label."""
    labels = np.zeros((256, 256), np.uint16)
    labels[40:110, 30:100], labels[140:230, 130:220] = 1, 2
    Image.fromarray((labels * 100).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "a_labels.png")
    picture = read_picture(tmp_path / "a_labels.png")
    rng = np.random.default_rng(3)
    seen = 0
    for scale in (0.5, 0.8, 1.0, 1.7, 3.0):
        for _ in range(6):
            grey, found, safe = window(rng, picture, (128, 128), scale)
            assert grey.shape == found.shape == safe.shape == (128, 128)
            inside = np.abs(grey * 255 - 100 * found) < 30
            assert inside.mean() > 0.93  # but for blended border pixels
            assert not (safe & (found > 0)).any()
            seen += int(found.max() > 0)
    assert seen > 20


def test_views_are_made_into_batches(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "set", f"p{number}", number)
    source = mixed(synthetic_views(lambda _rng: (np.zeros((300, 300), np.uint8), np.zeros((300, 300), np.int32))),
                   RealPictures([tmp_path / "set"]).view, 1.0)  # fmt: skip
    for side in (256, 512):
        batch = make_batch(np.random.default_rng(side), source, images=2, prompts=6, side=side, frame=512)
        assert batch.images.shape == (2, 3, side, side)
        assert bool(batch.present.any())
        for owner, (x, y), present in zip(batch.owner, batch.clicks, batch.present, strict=True):
            assert (batch.labels[owner, int(y), int(x)] > 0) == bool(present)


def test_later_copies_hide_earlier_ones() -> None:
    grey = np.full((20, 20), 0.9, np.float32)
    disc = np.hypot(*(np.mgrid[0:20, 0:20] - 9.5)) < 8
    image, labels = pile(
        np.random.default_rng(1),
        np.full((200, 200), 0.1, np.float32),
        np.zeros((200, 200), np.int32),
        [Cutout(grey, disc)],
    )
    shown = np.unique(labels)[1:]
    assert shown.size >= 2
    # The last copy lies on top: it is whole, but for the frame's edge.
    ys, xs = np.nonzero(labels == shown[-1])
    if min(ys.min(), xs.min()) > 0 and max(ys.max(), xs.max()) < 199:
        assert ys.size > 0.6 * (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
    assert image[labels > 0].mean() > image[labels == 0].mean() + 0.3


def test_letters_are_background_for_certain_and_boxes_hide_objects() -> None:
    hidden = 0
    for seed in range(12):
        labels = np.ones((256, 256), np.int32)
        image, after, burned = letters(np.random.default_rng(seed), np.full((256, 256), 0.5, np.float32), labels)
        assert (image[burned] != 0.5).all()
        assert (image[~burned] == 0.5).all()
        assert set(np.unique(after)) <= {0, 1}
        hidden += int((after == 0).any())
    assert hidden >= 3


def test_exposure_gives_bytes_and_keeps_the_picture_recognisable() -> None:
    ramp = np.tile(np.linspace(0.2, 0.8, 128, dtype=np.float32), (128, 1))
    for seed in range(12):
        rgb = exposure(np.random.default_rng(seed), ramp)
        assert rgb.shape == (128, 128, 3)
        assert rgb.dtype == np.uint8
        assert abs(np.corrcoef(rgb.mean(axis=2).mean(axis=0), ramp[0])[0, 1]) > 0.9


def test_a_feed_without_a_process_gives_the_same_batches(tmp_path: Path) -> None:
    from segment_duo.training.nano.pool import Pool

    Pool(tmp_path / "pool", slots=1).fill(first_seed=5)
    diet = Diet(tmp_path / "pool")
    samples = []
    for apart in (False, True):
        feed = Feed(diet, 3, 512, (1, 4, 128), apart)
        samples.append([feed.take((1, 4, 128))[0].images for _ in range(2)])
        feed.executor.shutdown(cancel_futures=True)
    for here, there in zip(*samples, strict=True):
        assert bool((here == there).all())


def test_orthogonal_has_singular_values_near_one() -> None:
    import torch

    torch.manual_seed(0)
    for shape in ((16, 64), (64, 16)):
        found = orthogonal(torch.randn(*shape), (3.4445, -4.775, 2.0315), 5, 1e-7)
        values = torch.linalg.svdvals(found)
        assert found.shape == shape
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.5
    assert isinstance(has_bfloat16(), bool)
