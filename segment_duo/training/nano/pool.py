"""A ring of scenes on disk, so that training never waits for the generator.

Writers fill numbered slots for as long as they run; readers map the same files and draw any filled slot. A slot that is rewritten
while it is read mixes two scenes in one sample, once in many thousands; that does no harm and saves a lock.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segment_duo.training.nano.layouts import Labels
from segment_duo.training.nano.scenes import generate

MAX_OBJECTS = 255
"""Labels are stored in one byte; scenes with more objects are skipped."""


class Pool:
    """Scenes of ``side`` x ``side`` pixels under ``folder``: ``img.npy``, ``lab.npy`` (uint8) and ``meta.npy`` (seed, -1 where empty)."""

    def __init__(self, folder: Path, slots: int = 0, side: int = 512) -> None:
        """Open the pool, or create it with ``slots`` slots if there is none."""
        self.folder = folder
        if not (folder / "meta.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name, dtype, shape in (
                ("img", np.uint8, (slots, side, side)),
                ("lab", np.uint8, (slots, side, side)),
                ("meta", np.int64, (slots,)),
            ):
                array = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
                if name == "meta":
                    array[:] = -1
                array.flush()
        self.images, self.labels, self.seeds = (
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in ("img", "lab", "meta")
        )

    def __len__(self) -> int:
        return int((self.seeds >= 0).sum())

    def fill(self, first_seed: int, start: int = 0, step: int = 1, duty: float = 1.0) -> None:
        """Write every ``step``-th slot once, from ``start``; ``duty`` below 1 sleeps between scenes to leave the processor to training."""
        side = self.images.shape[1]
        for slot in range(start, len(self.seeds), step):
            began = time.monotonic()
            scene = generate(first_seed + slot, (side, side))
            if int(scene.labels.max()) <= MAX_OBJECTS:
                self.images[slot], self.labels[slot], self.seeds[slot] = scene.image, scene.labels, first_seed + slot
            time.sleep((time.monotonic() - began) * (1 / duty - 1))

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Labels]:
        """A random scene: uint8 image and int32 labels."""
        filled = np.flatnonzero(self.seeds >= 0)
        slot = int(filled[rng.integers(filled.size)])
        return np.array(self.images[slot]), self.labels[slot].astype(np.int32)
