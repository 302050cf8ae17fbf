"""Training batches from scenes: crops, flips, grey-value jitter, and the first prompt of each object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from segment_duo.training.clicks import any_of, away_from_objects, coverage, first_click, loose_box
from segment_duo.training.forward import normalize
from segment_duo.training.nano.layouts import Floats, Labels


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCrop:
    """What a model is shown: ``pixels`` uint8 (S, S, 3), ``labels`` int32 (S, S), ``blank`` bool (S, S): where a click must find nothing."""

    pixels: npt.NDArray[np.uint8]
    labels: Labels
    blank: npt.NDArray[np.bool_]


Source = Callable[[np.random.Generator, int], LabelledCrop]
"""Gives a view of the side asked for, pixels."""

Scenes = Callable[[np.random.Generator], tuple[npt.NDArray[np.uint8], Labels]]
"""Gives an image, uint8 (H, W), and its labels."""

SMALLEST = 32
"""Objects with fewer pixels than this in a crop are not prompted."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """I crops and their prompts.

    ``images`` (I, 3, S, S) normalised; ``labels`` (I, S, S); ``offsets`` (I, 2) place in the input frame; per prompt: ``owner`` (P,) image
    index, ``clicks`` (P, 2), ``boxes`` (P, 4) XYXY (NaN for background), ``target`` (P, 1, S / 4, S / 4), ``present`` (P,).
    """

    images: torch.Tensor
    labels: npt.NDArray[np.int32]
    offsets: torch.Tensor
    owner: torch.Tensor
    clicks: torch.Tensor
    boxes: torch.Tensor
    target: torch.Tensor
    present: torch.Tensor


def make_batch(
    rng: np.random.Generator, source: Source, images: int, prompts: int, side: int, frame: int, background: int = 2
) -> Batch:
    """Draw ``images`` crops of ``side`` pixels with ``prompts`` prompts each, ``background`` of them on background."""
    pixels, truths, offsets = [], [], []
    owner, clicks, boxes, present = [], [], [], []
    targets: list[npt.NDArray[np.bool_]] = []
    for i in range(images):
        view = source(rng, side)
        labels = view.labels
        pixels.append(view.pixels)
        truths.append(labels)
        free = (frame - side) // 32 + 1
        offsets.append([32 * int(rng.integers(free)), 32 * int(rng.integers(free))])
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        usable = np.flatnonzero(areas >= SMALLEST)
        blank = any_of(rng, view.blank, prompts if usable.size == 0 else background)
        wanted = prompts - len(blank)
        if usable.size:
            depth = object_depth(labels)
            chosen = rng.permutation(usable)[:wanted]
            if chosen.size < wanted:
                chosen = np.concatenate([chosen, rng.choice(usable, wanted - chosen.size)])
            for label in chosen:
                mask = labels == label
                targets.append(mask)
                clicks.append(first_click(rng, mask, depth))
                boxes.append(loose_box(rng, mask, rng.choice([0.0, 0.05, 0.1])))
                owner.append(i)
                present.append(True)
        for click in blank:
            targets.append(np.zeros_like(labels, dtype=bool))
            clicks.append(click)
            boxes.append((float("nan"),) * 4)
            owner.append(i)
            present.append(False)
    return Batch(
        images=normalize(torch.from_numpy(np.stack(pixels))),
        labels=np.stack(truths),
        offsets=torch.tensor(offsets),
        owner=torch.tensor(owner),
        clicks=torch.tensor(clicks),
        boxes=torch.tensor(boxes),
        target=coverage(np.stack(targets)),
        present=torch.tensor(present),
    )


def synthetic_views(scenes: Scenes) -> Source:
    """Views of exactly labelled scenes: everything at some distance from the objects is blank."""

    def view(rng: np.random.Generator, side: int) -> LabelledCrop:
        image, labels = crop(rng, *scenes(rng), side)
        return LabelledCrop(colour(rng, image), labels, away_from_objects(labels))

    return view


def mixed(first: Source, second: Source, share: float) -> Source:
    """Views of ``first``, and of ``second`` with probability ``share``."""
    return lambda rng, side: (second if rng.random() < share else first)(rng, side)


def object_depth(labels: Labels) -> Floats:
    """Distance of each pixel from the nearest pixel with another label or the image's edge."""
    from scipy import ndimage

    padded = np.pad(labels, 1, constant_values=-1)
    border = np.zeros(padded.shape, bool)
    border[1:] |= padded[1:] != padded[:-1]
    border[:-1] |= padded[1:] != padded[:-1]
    border[:, 1:] |= padded[:, 1:] != padded[:, :-1]
    border[:, :-1] |= padded[:, 1:] != padded[:, :-1]
    return np.asarray(ndimage.distance_transform_edt(~border)[1:-1, 1:-1], dtype=np.float64)


def crop(
    rng: np.random.Generator, image: npt.NDArray[np.uint8], labels: Labels, side: int
) -> tuple[npt.NDArray[np.uint8], Labels]:
    """A flipped or turned piece of random scale and aspect, resampled to ``side`` x ``side``.

    Scale is between 0.6 and 1.7 target pixels a source pixel (or what fits); aspect up to 1.4, as images are squeezed to a square.
    """
    from PIL import Image

    height, width = labels.shape
    scale = float(np.exp(rng.normal(0, 0.3)))
    aspect = float(np.exp(rng.uniform(-0.17, 0.17)))
    h = int(np.clip(side / np.clip(scale, 0.6, 1.7) * aspect, 64, height))
    w = int(np.clip(side / np.clip(scale, 0.6, 1.7) / aspect, 64, width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    piece, truth = image[y : y + h, x : x + w], labels[y : y + h, x : x + w]
    resampled = np.asarray(Image.fromarray(piece).resize((side, side), Image.Resampling.BILINEAR))
    rows, columns = ((np.arange(side) + 0.5) * h / side).astype(int), ((np.arange(side) + 0.5) * w / side).astype(int)
    moved = truth[rows[:, None], columns[None]]
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    resampled, moved = np.rot90(resampled, turns), np.rot90(moved, turns)
    if flip:
        resampled, moved = resampled[:, ::-1], moved[:, ::-1]
    return np.ascontiguousarray(resampled), np.ascontiguousarray(moved).astype(np.int32)


def colour(rng: np.random.Generator, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey (H, W) to RGB (H, W, 3) with random gamma, exposure, noise, sometimes inverted or tinted."""
    grey = image.astype(np.float32) / 255.0
    if rng.random() < 0.1:
        grey = 1.0 - grey
    if rng.random() < 0.4:
        grey = grey ** float(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.4:
        grey = (grey - grey.mean()) * float(rng.uniform(0.5, 1.5)) + grey.mean() + float(rng.normal(0, 0.08))
    if rng.random() < 0.2:
        grey = grey + rng.standard_normal(grey.shape, dtype=np.float32) * float(rng.uniform(0, 0.05))
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    if rng.random() < 0.08:
        rgb = rgb * rng.uniform(0.6, 1.2, 3).astype(np.float32)
    return np.asarray(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
