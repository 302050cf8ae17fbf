"""Small sequences for tests: frames with bright discs, and their truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from segment_duo.masks.cropped import CroppedMask

SIZE = (64, 96)
"""Height and width."""

Disc = tuple[float, float, float]
"""x, y, radius."""


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def masks(discs: Sequence[Disc], size: tuple[int, int] = SIZE) -> list[CroppedMask]:
    return [CroppedMask.of(disc(*one, size)) for one in discs]


def growing(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two discs that grow while the stage drifts: frames (T, H, W) uint8 and truth labels 1 and 2."""
    rng = np.random.default_rng(seed)
    pictures, labels = [], []
    for frame in range(frames):
        grow = 4 * frame / frames
        truth = np.zeros(SIZE, np.uint16)
        truth[disc(24 + 0.3 * (frame % 12), 30, 8 + grow)] = 1
        truth[disc(66 + 0.3 * (frame % 12), 34, 10 + grow)] = 2
        pictures.append(np.clip(np.where(truth > 0, 190, 50) + rng.normal(0, 4, SIZE), 0, 255).astype(np.uint8))
        labels.append(truth)
    return np.stack(pictures), np.stack(labels)


def write_stack(file: Path, frames: np.ndarray, *, seconds: float | None = 0.5, pixel_um: float = 0.004) -> Path:
    """An OME-TIFF with axes TYX."""
    metadata: dict[str, object] = {"axes": "TYX"}
    for axis in "XY":
        metadata |= {f"PhysicalSize{axis}": pixel_um, f"PhysicalSize{axis}Unit": "µm"}
    if seconds is not None:
        metadata |= {"TimeIncrement": seconds, "TimeIncrementUnit": "s"}
    with tifffile.TiffWriter(file, ome=True) as tiff:
        tiff.write(frames, photometric="minisblack", compression="zlib", metadata=metadata)
    return file
