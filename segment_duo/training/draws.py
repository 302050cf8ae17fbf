"""What each step of fine-tuning is trained on: a view of one of the pictures, its embedding, and clicks in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segment_duo.training.forward import Features
from segment_duo.training.views import Crop, LabelledPicture, View, draw_window, shade

POOL = 24
"""Embeddings of views kept at a time (2 MB each for nano, 16 MB for an official model); the oldest makes room for a new one."""

FRESH = 3
"""Steps between two new views when the encoder is not trained: on a CPU an embedding costs a third of a step."""


@dataclass(frozen=True, eq=False)
class EncodedView:
    """A view that has been encoded. ``features`` are None when the encoder is trained; then ``pixels`` are encoded anew."""

    view: View
    pixels: npt.NDArray[np.uint8]
    features: Features | None


class Draws:
    """Draws views and prompts, all from one generator of random numbers."""

    def __init__(
        self,
        rng: np.random.Generator,
        pictures: Sequence[LabelledPicture],
        kept_apart: Mapping[int, npt.NDArray[np.int64]],
        side: int,
        prompts: int,
        features: Callable[[npt.NDArray[np.uint8]], Features] | None,
    ) -> None:
        """Args:
        kept_apart: by ``id`` of a picture, indices of its objects that are validated on and never trained on.
        side: pixels a side of the model's input.
        prompts: clicks for a view, of which a quarter may lie on background.
        features: embeds a view; None when the encoder is trained too, so that each step needs a view of its own.
        """
        self.rng, self.pictures, self.kept_apart = rng, pictures, kept_apart
        self.side, self.prompts, self.features = side, prompts, features
        weights = np.sqrt([float(len(self.objects(picture))) for picture in pictures])
        self.shares = weights / weights.sum()
        self.pool: list[EncodedView] = []

    def objects(self, picture: LabelledPicture) -> npt.NDArray[np.int64]:
        """Indices of a picture's objects that are trained on."""
        return np.setdiff1d(np.arange(len(picture.objects)), self.kept_apart.get(id(picture), np.zeros(0, np.int64)))

    def view(self, step: int) -> EncodedView:
        """A view to train on; now and then a new one."""
        if self.features is None or len(self.pool) < 2 or step % FRESH == 0:
            picture = self.pictures[int(self.rng.choice(len(self.pictures), p=self.shares))]
            view = View(picture, draw_window(self.rng, picture, self.side), self.side)
            pixels = shade(self.rng, view.pixels())
            seen = EncodedView(view, pixels, None if self.features is None else self.features(pixels))
            if self.features is None:
                return seen
            self.pool = [*self.pool[-(POOL - 1) :], seen]
            return seen
        return self.pool[int(self.rng.integers(len(self.pool)))]

    def clicks(self, view: View) -> tuple[list[Crop], list[tuple[float, float]], list[tuple[float, float]]]:
        """Objects and a click on each, and clicks on background.

        Half of the objects are drawn one as likely as the other, half by their area, as a grid of points meets them.
        """
        blank = view.background(self.rng, self.prompts // 4)
        usable = np.setdiff1d(view.candidates, self.kept_apart.get(id(view.picture), np.zeros(0, np.int64)))
        wanted = min(self.prompts - len(blank), len(usable))
        areas = np.array([float(view.picture.objects[int(i)].area) for i in usable])
        even = self.rng.permutation(usable)[: -(-wanted // 2)]
        by_area = self.rng.choice(usable, wanted // 2, replace=False, p=areas / areas.sum()) if wanted > 1 else even[:0]
        crops: list[Crop] = []
        clicks: list[tuple[float, float]] = []
        for i, middle in [*((int(i), 0.4) for i in even), *((int(i), 0.0) for i in by_area)]:
            crop = view.crop(i)
            if crop is not None:
                crops.append(crop)
                clicks.append(crop.click(self.rng, middle))
        return crops, clicks, blank
