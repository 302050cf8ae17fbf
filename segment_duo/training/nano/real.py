"""Views of real labelled pictures for training: windows at many scales, mosaics of several pictures, piles of their objects.

A folder holds ``NAME.png`` or ``NAME.jpg`` and ``NAME_labels.png`` (16 bit: 0 background, 1..n objects, 65535 ignore). Annotators leave objects
out: a click on background is trusted only at some distance from all labels, where the picture is as smooth as its background mostly is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segment_duo.training.nano.augment import Cutout, Grey, Mask, exposure, letters, pile
from segment_duo.training.nano.batches import LabelledCrop
from segment_duo.training.nano.layouts import Labels

IGNORE = 65535
FRAME = 512
"""Side to which a whole picture is squeezed, pixels: the input of nano."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """``grey`` uint8 (H, W), ``labels`` int32 (H, W), ``safe`` bool (H, W): background for certain; ``middles`` (n, 2) y and x of the objects."""

    name: str
    grey: npt.NDArray[np.uint8]
    labels: Labels
    safe: Mask
    middles: npt.NDArray[np.float64]


def read_picture(labels_file: Path) -> Picture:
    """The picture that belongs to a ``NAME_labels.png``.

    Raises:
        FileNotFoundError: there is neither NAME.png nor NAME.jpg.
    """
    from PIL import Image
    from scipy import ndimage

    stem = labels_file.name.removesuffix("_labels.png")
    found = [
        labels_file.with_name(stem + end) for end in (".png", ".jpg") if labels_file.with_name(stem + end).exists()
    ]
    if not found:
        raise FileNotFoundError(f"no {stem}.png or {stem}.jpg beside {labels_file}")
    with Image.open(found[0]) as image:
        grey = np.asarray(image.convert("L"))
    with Image.open(labels_file) as stored:
        raw = np.asarray(stored).astype(np.int32)
    labels = np.where(raw == IGNORE, 0, raw)
    numbers, labels = np.unique(labels, return_inverse=True)
    labels = labels.reshape(raw.shape).astype(np.int32) + (0 if numbers[0] == 0 else 1)
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, np.arange(1, int(labels.max()) + 1))).reshape(-1, 2)
    return Picture(stem, grey, labels, safe_background(grey, (labels > 0) | (raw == IGNORE)), middles)


def safe_background(grey: npt.NDArray[np.uint8], taken: Mask, distance: int = 6) -> Mask:
    """Pixels at least ``distance`` from ``taken``, no rougher than 70 % of the background is and of the grey values that most of it has."""
    from scipy import ndimage

    free = ndimage.distance_transform_edt(~taken) >= distance if taken.any() else ~taken
    if not free.any():
        return np.asarray(free)
    values = grey.astype(np.float32)
    mean = ndimage.uniform_filter(values, 9)
    rough = np.sqrt(np.maximum(ndimage.uniform_filter(values * values, 9) - mean * mean, 0))
    low, high = np.percentile(mean[free], [10, 75])
    return np.asarray(free & (rough <= np.percentile(rough[free], 70)) & (mean >= low) & (mean <= high))


class RealPictures:
    """Draws views of the pictures of ``folders`` but those named in ``without``.

    A picture is drawn in proportion to the root of its number of objects, between 1 and ``most``: pictures of one large object are half of EMPS and
    would drown those of hundreds, and one of 500 must not fill the run.
    """

    def __init__(self, folders: Sequence[Path], without: Collection[str] = (), most: float = 8.0) -> None:
        files = [path for folder in folders for path in sorted(folder.glob("*_labels.png"))]
        read = (read_picture(path) for path in files if path.name.removesuffix("_labels.png") not in set(without))
        self.pictures = [picture for picture in read if len(picture.middles)]
        if not self.pictures:
            raise FileNotFoundError(f"no labelled pictures in {', '.join(map(str, folders))}")
        weights = np.array([min(most, len(picture.middles) ** 0.5) for picture in self.pictures])
        self.chances = weights / weights.sum()

    def pick(self, rng: np.random.Generator) -> Picture:
        return self.pictures[int(rng.choice(len(self.pictures), p=self.chances))]

    def view(self, rng: np.random.Generator, side: int) -> LabelledCrop:
        """A square of ``side`` pixels as the model would see it within a picture squeezed to :data:`FRAME`, augmented."""
        scale = float(np.exp(rng.normal(0, 0.15) if rng.random() < 0.45 else rng.uniform(np.log(0.3), np.log(3))))
        across = int(np.clip(np.ceil(side / (FRAME * scale) - 0.15), 1, 3))
        cuts = np.linspace(0, side, across + 1) + np.pad(rng.uniform(-0.1, 0.1, across - 1) * side / across, 1)
        edges = cuts.round().astype(int)
        grey, labels, safe = (
            np.zeros((side, side), np.float32),
            np.zeros((side, side), np.int32),
            np.zeros((side, side), bool),
        )
        picture = self.pick(rng)
        for top, bottom in pairwise(edges):
            for left, right in pairwise(edges):
                place = (slice(top, bottom), slice(left, right))
                part = window(rng, picture, (bottom - top, right - left), scale)
                grey[place], safe[place] = part[0], part[2]
                labels[place] = np.where(part[1] > 0, part[1] + labels.max(), 0)
                if rng.random() < 0.7:
                    picture = self.pick(rng)
        if rng.random() < 0.25:
            pieces = cutouts(rng, picture if rng.random() < 0.5 else self.pick(rng))
            if pieces:
                grey, labels = pile(rng, grey, labels, pieces)
                safe &= labels == 0
        burned = np.zeros_like(safe)
        if rng.random() < 0.2:
            grey, labels, burned = letters(rng, grey, labels)
        return LabelledCrop(
            exposure(rng, grey), labels, (eroded(safe) & (labels == 0)) | (burned & eroded(labels == 0, 1))
        )


def cutouts(rng: np.random.Generator, picture: Picture, most: int = 4) -> list[Cutout]:
    """Up to ``most`` objects of a picture that its edge does not cut, of at least 80 pixels."""
    from scipy import ndimage

    found = []
    boxes = ndimage.find_objects(picture.labels)
    for label in rng.permutation(len(boxes))[: 4 * most] + 1:
        box = boxes[label - 1]
        if box is None or any(
            part.start == 0 or part.stop == n for part, n in zip(box, picture.labels.shape, strict=True)
        ):
            continue
        mask = picture.labels[box] == label
        if mask.sum() >= 80 and max(mask.shape) < 300:
            grey = np.pad(picture.grey[box].astype(np.float32) / 255.0, 1, mode="edge")
            found.append(Cutout(grey, np.pad(mask, 1)))
        if len(found) == most:
            break
    return found


def eroded(mask: Mask, margin: int = 3) -> Mask:
    from scipy import ndimage

    return np.asarray(ndimage.minimum_filter(mask.astype(np.uint8), size=2 * margin + 1) > 0)


def window(
    rng: np.random.Generator, picture: Picture, size: tuple[int, int], scale: float
) -> tuple[Grey, Labels, Mask]:
    """A piece of ``size`` (height, width) of a picture: grey in [0, 1], labels, safe background.

    ``scale`` is in target pixels a pixel of the picture squeezed to :data:`FRAME`; it rises where the picture is too small. Mostly the piece lies
    about an object. It is turned by a right angle, or by any angle where the picture is large enough, and mirrored.
    """
    from PIL import Image

    height, width = picture.labels.shape
    scale = max(scale, max(size) / FRAME)
    aspect = float(np.exp(rng.uniform(-0.15, 0.15)))
    turns = int(rng.integers(4))
    if turns % 2:
        size = (size[1], size[0])
    h = min(float(height), size[0] / scale * height / FRAME * aspect)
    w = min(float(width), size[1] / scale * width / FRAME / aspect)
    angle = float(rng.uniform(-45, 45)) if rng.random() < 0.5 else 0.0
    reach = abs(np.cos(np.radians(angle))) + abs(np.sin(np.radians(angle)))
    if angle and (max(h, w) * reach > min(height, width)):
        angle, reach = 0.0, 1.0
    outer_h, outer_w = (max(h, w) * reach,) * 2 if angle else (h, w)
    if rng.random() < 0.7:
        middle = picture.middles[int(rng.integers(len(picture.middles)))] + rng.normal(0, 0.25, 2) * (h, w)
    else:
        middle = rng.uniform(0, 1, 2) * (height, width)
    top = float(np.clip(middle[0] - outer_h / 2, 0, height - outer_h))
    left = float(np.clip(middle[1] - outer_w / 2, 0, width - outer_w))
    if angle:
        y0, x0 = int(top), int(left)
        side = int(outer_h)
        box = (slice(y0, y0 + side), slice(x0, x0 + side))
        turned = [
            Image.fromarray(layer).rotate(angle, mode)
            for layer, mode in (
                (picture.grey[box], Image.Resampling.BICUBIC),
                (picture.labels[box], Image.Resampling.NEAREST),
                (picture.safe[box].astype(np.uint8), Image.Resampling.NEAREST),
            )
        ]
        grey, labels, safe = np.asarray(turned[0]), np.asarray(turned[1]), np.asarray(turned[2]) > 0
        top, left = (side - h) / 2, (side - w) / 2
        top, left = max(0.0, top), max(0.0, left)
        h, w = min(h, side - top), min(w, side - left)
    else:
        grey, labels, safe = picture.grey, picture.labels, picture.safe
    resized = Image.fromarray(grey).resize(
        (size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)
    )
    rows = np.clip((top + (np.arange(size[0]) + 0.5) * h / size[0]).astype(int), 0, labels.shape[0] - 1)
    columns = np.clip((left + (np.arange(size[1]) + 0.5) * w / size[1]).astype(int), 0, labels.shape[1] - 1)
    layers = [np.asarray(resized, np.float32) / 255.0, labels[np.ix_(rows, columns)], safe[np.ix_(rows, columns)]]
    if rng.random() < 0.5:
        layers = [layer[:, ::-1] for layer in layers]
    grey_out, labels_out, safe_out = (np.rot90(layer, turns) for layer in layers)
    return grey_out, labels_out, safe_out
