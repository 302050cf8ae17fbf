"""Short films for training nano's memory: a camera that pans, zooms and drifts over a labelled picture, and objects that move on their own.

Pictures are real ones or scenes of the pool. Objects leave the picture, vanish, appear late, grow, turn and pass over each other; copies of one
object lie side by side, so that a memory of looks alone is not enough. Labels hold what is visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segment_duo.training.nano.augment import Cutout, Grey, exposure, letters, paste, posed
from segment_duo.training.nano.layouts import Labels
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.real import Picture, RealPictures, cutouts, window

SIDE = 512
"""Side of a clip's frames, pixels: nano's input."""

MOST_LABELS = 60_000


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """``frames`` uint8 (T, S, S, 3) and ``labels`` int32 (T, S, S): 0 ground, else the object's number, the same in all frames."""

    frames: npt.NDArray[np.uint8]
    labels: Labels


Clips = Callable[[np.random.Generator, int], Clip]
"""Gives a clip of so many frames."""


@dataclass(frozen=True, slots=True, eq=False)
class _Mover:
    """A cutout on its way: places and sizes a frame, 0 where it is not there."""

    cutout: Cutout
    places: npt.NDArray[np.float64]
    factors: npt.NDArray[np.float64]
    angles: npt.NDArray[np.float64]
    mirrored: bool


def clips_of(pool: Pool | None, real: RealPictures | None, share: float) -> Clips:
    """Clips over scenes of ``pool``, and over real pictures with probability ``share``; without a pool over these alone."""

    def draw(rng: np.random.Generator, frames: int) -> Clip:
        if real is not None and (pool is None or rng.random() < share):
            picture = real.pick(rng)
            scale = float(np.exp(rng.uniform(np.log(0.7), np.log(3.0))))
            grey, labels, _ = window(rng, picture, (SIDE, SIDE), scale)
            others = real.pick(rng) if rng.random() < 0.3 else picture
        else:
            assert pool is not None
            image, labels = pool.draw(rng)
            grey = image.astype(np.float32) / 255.0
            others = Picture("", image, labels, labels == 0, np.zeros((0, 2)))
        return clip(rng, np.ascontiguousarray(grey), np.ascontiguousarray(labels), cutouts(rng, others), frames)

    return draw


def clip(rng: np.random.Generator, grey: Grey, labels: Labels, pieces: list[Cutout], frames: int) -> Clip:
    """A film over ``grey`` and ``labels`` (S, S), with copies of ``pieces`` that move over it."""
    pace = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0))))  # of everything in this clip
    camera = _camera(rng, frames, pace)
    movers = _movers(rng, pieces, frames, pace) if pieces and rng.random() < 0.6 else []
    warp = _warp(rng, frames, pace)
    look, marks = int(rng.integers(2**31)), int(rng.integers(2**31)) if rng.random() < 0.12 else None
    noise = float(rng.uniform(0.0, 0.05))
    gains = 1 + 0.03 * pace * rng.normal(0, 1, frames).cumsum().clip(-5, 5)
    shade = float(rng.uniform(0.1, 0.4)) if rng.random() < 0.4 else 0.0
    seen, truths = [], []
    for t in range(frames):
        image, truth = _shot(grey, labels, camera[t], warp[t])
        for number, mover in enumerate(movers):
            if mover.factors[t]:
                piece = posed(mover.cutout, mover.factors[t], mover.angles[t], mover.mirrored)
                h, w = piece.mask.shape
                y, x = mover.places[t].astype(int) - (h // 2, w // 2)
                paste(image, truth, piece, (int(y), int(x)), MOST_LABELS + number, shade)
        image = image * gains[t] + noise * rng.standard_normal(image.shape, dtype=np.float32)
        if marks is not None:
            image, truth, _ = letters(np.random.default_rng(marks), image, truth)
        seen.append(exposure(np.random.default_rng(look), image))
        truths.append(truth)
    return Clip(np.stack(seen), np.stack(truths))


def _camera(rng: np.random.Generator, frames: int, pace: float) -> npt.NDArray[np.float64]:
    """(T, 4): middle y and x in the picture, pixels of it a pixel of the frame, angle in radians."""
    t = np.arange(frames)[:, None]
    still = rng.random() < 0.15
    zoom = float(rng.uniform(0.45, 0.9))
    drift = rng.normal(0, 6.0 * pace, 2) * (0 if still else 1)
    middle = SIDE / 2 + rng.uniform(-0.5, 0.5, 2) * SIDE * (1 - zoom) + t * drift
    middle = middle + (0 if still else 1) * rng.normal(0, 1.5 * pace, (frames, 2))
    growth = np.exp(t * rng.normal(0, 0.015 * pace)) * zoom
    angle = rng.uniform(-0.3, 0.3) + t * rng.normal(0, 0.02 * pace)
    return np.concatenate([middle, growth, angle], axis=1)


def _warp(rng: np.random.Generator, frames: int, pace: float) -> npt.NDArray[np.float32]:
    """(T, 2, 6, 6): displacements on a coarse grid, pixels, that change smoothly."""
    strength = float(rng.uniform(0, 5)) * pace if rng.random() < 0.6 else 0.0
    ends = rng.normal(0, strength, (2, 2, 6, 6))
    share = np.linspace(0, 1, frames)[:, None, None, None]
    return np.asarray(ends[0] * share + 0.3 * ends[1] * np.sin(3 * share), np.float32)


def _shot(
    grey: Grey, labels: Labels, camera: npt.NDArray[np.float64], warp: npt.NDArray[np.float32]
) -> tuple[Grey, Labels]:
    """What the camera sees: the picture goes on mirrored beyond its edges, its objects do not."""
    from PIL import Image
    from scipy import ndimage

    y0, x0, zoom, angle = camera
    v = (np.arange(SIDE, dtype=np.float32) - SIDE / 2) * np.float32(zoom)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = v[:, None] * cos - v[None] * sin + np.float32(y0), v[:, None] * sin + v[None] * cos + np.float32(x0)
    if warp.any():
        bent = [
            np.asarray(Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) * np.float32(zoom)
            for part in warp
        ]
        y, x = y + bent[0], x + bent[1]
    image = ndimage.map_coordinates(grey, (y, x), order=1, mode="mirror")
    rows, columns = np.rint(y).astype(np.int32), np.rint(x).astype(np.int32)
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    truth = np.where(inside, labels[rows.clip(0, labels.shape[0] - 1), columns.clip(0, labels.shape[1] - 1)], 0)
    return image, truth.astype(np.int32)


def _movers(rng: np.random.Generator, pieces: list[Cutout], frames: int, pace: float) -> list[_Mover]:
    """A handful of copies; mostly of one size, on ways of their own."""
    t = np.arange(frames)
    wanted = float(np.exp(rng.uniform(np.log(16), np.log(150))))
    together = rng.normal(0, 5 * pace, 2)
    found = []
    for _ in range(int(rng.integers(1, 10))):
        cutout = pieces[int(rng.integers(len(pieces)))]
        start = float(np.clip(wanted / max(cutout.mask.shape) * np.exp(rng.normal(0, 0.2)), 0.25, 2.5))
        ways = together + rng.normal(0, 4 * pace, 2) + rng.normal(0, 2 * pace, (frames, 2))
        places = rng.uniform(-0.05, 1.05, 2) * SIDE + ways.cumsum(axis=0)
        factors = np.asarray(start * np.exp(t * rng.normal(0, 0.03 * pace)), np.float64)
        if rng.random() < 0.25 and frames > 2:
            gone = int(rng.integers(1, frames))
            back = gone + int(rng.integers(1, 4)) if rng.random() < 0.5 else frames
            factors[gone:back] = 0
        angles = np.asarray(rng.uniform(0, 360) + t * rng.normal(0, 4 * pace), np.float64)
        found.append(_Mover(cutout, places, factors, angles, bool(rng.random() < 0.5)))
    return found
