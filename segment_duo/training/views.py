"""What fine-tuning sees of a labelled picture: windows at the scales that the model will meet, turned and shaded at random.

    LabelledPicture --draw_window--> Window --View--> pixels (S, S, 3), and any object's crop, coverage or distance map when it is asked for

Objects are kept as their rectangles, one bit a pixel; nothing of the size of the picture or of the model's input exists for each of them. (A distance
map and a mask of input size for every object and view once took 10 GB for five pictures with 1,200 masks.) Nothing here knows a model.

S is the side of the model's input in pixels. View coordinates are those of its input frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from segment_duo.boxes import in_pixels
from segment_duo.masks import rle as run_lengths
from segment_duo.training.clicks import STRIDE
from segment_duo.types import Rle

MIN_AREA = 16
"""Objects of which a view shows fewer pixels than this are not prompted there."""

MARGIN = 3
"""Source pixels around every object in which no click counts as background: labelled borders are not exact."""

SMALLEST_WINDOW = 0.25
"""Share of the picture's sides that a window has at least."""

ASPECT = 0.15
"""Half range of the logarithm of a window's aspect, against the picture's own."""

TRIES = 40
"""Random pixels that are tried for one click on background."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMask:
    """One object: its rectangle, one bit a pixel. ``left``, ``top``: of the rectangle in the picture; ``bits``: rows packed to bytes."""

    left: int
    top: int
    height: int
    width: int
    bits: npt.NDArray[np.uint8]
    area: int

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> ObjectMask | None:
        """From a mask of the picture's size; None when it is empty."""
        return cls.of_rle(run_lengths.encode(mask))

    @classmethod
    def of_rle(cls, rle: Rle, rows: int | None = None) -> ObjectMask | None:
        """From a run-length code; pixels from row ``rows`` on (the info banner) do not count. None when nothing is left."""
        left, top, width, height = in_pixels(run_lengths.bounding_box(rle))
        height = height if rows is None else min(height, rows - top)
        if width < 1 or height < 1:
            return None
        crop = run_lengths.decode_crop(rle, left, top, width, height)
        area = int(crop.sum())
        return cls(left, top, height, width, np.packbits(crop, axis=1), area) if area else None

    @property
    def pixels(self) -> npt.NDArray[np.bool_]:
        """bool, shape (height, width)."""
        return np.unpackbits(self.bits, axis=1, count=self.width).astype(bool)


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """One picture to learn from.

    Attributes:
        image: uint8, shape (height, width, 3), as the model is to see it.
        objects: every object in the picture if ``complete``; they may overlap.
        name: for the card and messages.
        sha256: of the image file, for the card.
        complete: pixels outside all objects are background, where a click must find nothing.
    """

    image: npt.NDArray[np.uint8]
    objects: Sequence[ObjectMask]
    name: str
    sha256: str
    complete: bool = True

    @classmethod
    def of(
        cls,
        image: npt.NDArray[np.uint8],
        masks: Iterable[npt.NDArray[np.bool_]],
        name: str,
        sha256: str,
        complete: bool = True,
    ) -> LabelledPicture:
        """From masks of the picture's size; empty ones are left out. They are taken one by one and not kept."""
        return cls(image, [o for o in map(ObjectMask.of, masks) if o is not None], name, sha256, complete)

    @cached_property
    def boxes(self) -> npt.NDArray[np.int64]:
        """XYXY of all objects, ends exclusive, shape (n, 4)."""
        rows = [(o.left, o.top, o.left + o.width, o.top + o.height) for o in self.objects]
        return np.array(rows, np.int64).reshape(-1, 4)

    @cached_property
    def free(self) -> npt.NDArray[np.bool_]:
        """Pixels farther than :data:`MARGIN` from every object, shape (height, width)."""
        from scipy import ndimage

        taken = np.zeros(self.image.shape[:2], bool)
        for o in self.objects:
            taken[o.top : o.top + o.height, o.left : o.left + o.width] |= o.pixels
        return np.asarray(ndimage.maximum_filter(taken, size=2 * MARGIN + 1) == 0)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a picture (XYXY, ends exclusive) and how it is turned: first transposed, then mirrored."""

    box: tuple[int, int, int, int]
    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False


def whole(picture: LabelledPicture) -> Window:
    """The picture as one pass of ``auto`` sees it: squeezed to the model's input."""
    height, width = picture.image.shape[:2]
    return Window((0, 0, width, height))


def draw_window(rng: np.random.Generator, picture: LabelledPicture, side: int) -> Window:
    """A random window: in half of all cases the whole picture, else a part of any size down to half the model's input, as tiles and zoomed-in
    clicks show it. A part holds at least a piece of an object."""
    height, width = picture.image.shape[:2]
    box = (0, 0, width, height)
    if rng.random() < 0.5:
        least = min(1.0, max(SMALLEST_WINDOW, 0.5 * side / max(height, width)))
        share = float(np.exp(rng.uniform(np.log(least), 0.0)))
        stretch = float(np.exp(rng.uniform(-ASPECT, ASPECT)))
        if rng.random() < 0.5:  # square, as tiles are, instead of the picture's own shape
            edge = share * float(np.sqrt(height * width))
            w, h = edge * stretch, edge / stretch
        else:
            w, h = share * width * stretch, share * height / stretch
        w, h = int(np.clip(w, 1, width)), int(np.clip(h, 1, height))
        x0, y0, x1, y1 = picture.boxes[int(rng.integers(len(picture.boxes)))]
        x, y = (
            int(rng.integers(x0, x1)),
            int(rng.integers(y0, y1)),
        )  # a pixel of an object's rectangle lies in the window
        left = int(np.clip(x - rng.integers(w), 0, width - w))
        top = int(np.clip(y - rng.integers(h), 0, height - h))
        box = (left, top, left + w, top + h)
    turns = rng.random(3) < 0.5
    return Window(box, *(bool(t) for t in turns))


@dataclass(frozen=True, eq=False)
class Crop:
    """An object's rectangle in a view: ``pixels`` bool (h, w), of which the first is (``x``, ``y``)."""

    pixels: npt.NDArray[np.bool_]
    x: int
    y: int

    def click(self, rng: np.random.Generator, middle: float) -> tuple[float, float]:
        """A pixel of the object: the one farthest from its border with probability ``middle``, else any."""
        if rng.random() < middle:
            from scipy import ndimage

            depth = ndimage.distance_transform_edt(np.pad(self.pixels, 1))[1:-1, 1:-1]
            y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
        else:
            ys, xs = np.nonzero(self.pixels)
            i = int(rng.integers(ys.size))
            y, x = ys[i], xs[i]
        return float(x) + self.x, float(y) + self.y


class View:
    """A window of a picture, resampled to the model's input."""

    def __init__(self, picture: LabelledPicture, window: Window, side: int) -> None:
        self.picture, self.window, self.side = picture, window, side
        x0, y0, x1, y1 = window.box
        # Nearest source pixel of each input row and column: objects keep exact borders, and a lookup needs no resampled mask.
        self._columns = x0 + ((np.arange(side) + 0.5) * (x1 - x0) / side).astype(np.int64)
        self._rows = y0 + ((np.arange(side) + 0.5) * (y1 - y0) / side).astype(np.int64)
        boxes = picture.boxes
        touching = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
        scale = side * side / ((x1 - x0) * (y1 - y0))
        areas = np.array([o.area for o in picture.objects]) if len(boxes) else np.zeros(0)
        self.candidates: npt.NDArray[np.int64] = np.flatnonzero(touching & (areas * scale >= MIN_AREA))
        """Indices of the objects that may be prompted; :meth:`crop` tells how much of one is in view."""

    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8, shape (S, S, 3)."""
        from PIL import Image

        x0, y0, x1, y1 = self.window.box
        piece = Image.fromarray(self.picture.image[y0:y1, x0:x1])
        return self._turned(np.array(piece.resize((self.side, self.side), Image.Resampling.BILINEAR)))

    def crop(self, index: int) -> Crop | None:
        """The part of an object in view; None when it has fewer than :data:`MIN_AREA` pixels."""
        o = self.picture.objects[index]
        r0, r1 = np.searchsorted(self._rows, [o.top, o.top + o.height])
        c0, c1 = np.searchsorted(self._columns, [o.left, o.left + o.width])
        rows, columns = self._rows[r0:r1] - o.top, self._columns[c0:c1] - o.left
        inside = o.pixels[rows[:, None], columns[None]]
        if int(inside.sum()) < MIN_AREA:
            return None
        x, y, w, h = int(c0), int(r0), int(c1 - c0), int(r1 - r0)
        if self.window.transposed:
            x, y, w, h = y, x, h, w
        x = self.side - x - w if self.window.mirrored_x else x
        y = self.side - y - h if self.window.mirrored_y else y
        return Crop(self._turned(inside), x, y)

    def background(self, rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
        """Up to ``count`` pixels on background; none when the picture's objects are not complete."""
        if not self.picture.complete:
            return []
        found: list[tuple[float, float]] = []
        for _ in range(TRIES * count):
            if len(found) == count:
                break
            row, column = (int(v) for v in rng.integers(self.side, size=2))
            if self.picture.free[self._rows[row], self._columns[column]]:
                x, y = (row, column) if self.window.transposed else (column, row)
                x = self.side - 1 - x if self.window.mirrored_x else x
                y = self.side - 1 - y if self.window.mirrored_y else y
                found.append((float(x), float(y)))
        return found

    def _turned(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.window.transposed:
            array = np.swapaxes(array, 0, 1)
        rows, columns = -1 if self.window.mirrored_y else 1, -1 if self.window.mirrored_x else 1
        return np.ascontiguousarray(array[::rows, ::columns])


def coverages(crops: Sequence[Crop], side: int) -> npt.NDArray[np.float32]:
    """Share of each low-res pixel that belongs to the object, shape (n, 1, S / 4, S / 4)."""
    out = np.zeros((len(crops), 1, side // STRIDE, side // STRIDE), np.float32)
    for target, crop in zip(out[:, 0], crops, strict=True):
        h, w = crop.pixels.shape
        x, y = crop.x // STRIDE, crop.y // STRIDE
        right, bottom = -(-(crop.x + w) // STRIDE), -(-(crop.y + h) // STRIDE)
        block = np.zeros(((bottom - y) * STRIDE, (right - x) * STRIDE), np.float32)
        block[crop.y - y * STRIDE :, crop.x - x * STRIDE :][:h, :w] = crop.pixels
        target[y:bottom, x:right] = block.reshape(bottom - y, STRIDE, right - x, STRIDE).mean(axis=(1, 3))
    return out


def shade(rng: np.random.Generator, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Other grey values, as other settings of the same microscope give: gamma, contrast, brightness, noise, blur; never inverted."""
    from scipy import ndimage

    out = pixels.astype(np.float32) / 255.0
    if rng.random() < 0.5:
        out = out ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.5:
        mean = out.mean(dtype=np.float32)
        out = (out - mean) * np.float32(rng.uniform(0.7, 1.3)) + mean + np.float32(rng.normal(0, 0.06))
    if rng.random() < 0.2:
        out = ndimage.gaussian_filter(out, (rng.uniform(0.3, 1.0),) * 2 + (0,))
    if rng.random() < 0.3:
        out = out + rng.standard_normal((*out.shape[:2], 1), dtype=np.float32) * np.float32(rng.uniform(0, 0.04))
    return np.asarray(np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8)
