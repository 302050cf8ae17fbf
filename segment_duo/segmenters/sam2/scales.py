"""A picture at two scales: shrunk whole, for large objects, and in windows of native size, for small ones; merged into one set.

A model squeezes every picture to its input size. An object of 20 pixels in a picture of 2,000 is then 5 pixels wide for a model of 512, and touching
ones become one mask. Windows as large as the model's input show it at its own size, but cut what is larger than they are. So both are done:

    of a mask found at both scales     the native one stays while it is small against a window, else the whole picture's
    a whole-picture mask that several native masks fill      is a pile taken for one object: the native ones stay
    a native mask nearly as large as its window              is part of something larger, where the whole picture has a mask: that one stays

Nothing is cut at a seam: a native mask that ends at its window's edge is joined or dropped by the tiles' own rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.base import AutomaticRun
from segment_duo.segmenters.sam2.candidates import MAX_BYTES, Candidates
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.segments import Segment
from segment_duo.segmenters.sam2.tiles import tiled_segments
from segment_duo.types import AutoParameters

CORE_SHARE = 0.75
"""Share of the model's input that a tile's core takes; the halo around it fills the window."""

GRID_SHARE = 0.5
"""Grid points along a tile's side, as a share of those along the whole picture's."""

SAME = 0.5
"""IoU from which two masks are one object."""

INSIDE = 0.8
"""Share of a native mask's pixels from which it lies in a whole-picture mask."""

FILLED = 0.5
"""Share of a whole-picture mask that native masks inside it must fill to be what is really there."""

LARGE = 0.6
"""Longer side of a native mask, as a share of the window, from which the whole picture sees the object better."""


@dataclass(eq=False, slots=True)
class ScaledCandidates:
    """Candidates of both passes, for the next run with other thresholds."""

    whole: Candidates
    native: Candidates
    scale: str

    @property
    def height(self) -> int:
        return self.whole.height

    @property
    def width(self) -> int:
        return self.whole.width

    @property
    def nbytes(self) -> int:
        return self.whole.nbytes + self.native.nbytes


def is_scaled(parameters: AutoParameters, height: int, width: int, input_size: int) -> bool:
    """Whether a run works at both scales: asked for, not in tiles or crops already, and the picture is larger than the model's input."""
    if parameters.scale == "whole" or parameters.tile or parameters.crop_n_layers or parameters.point_grids is not None:
        return False
    return max(height, width) > input_size


def generate_at_both_scales(run: GridRun, known: ScaledCandidates | None) -> AutomaticRun:
    """Segment the whole picture and its native windows, and merge.

    Args:
        run: of parameters with ``scale`` ``both``.
        known: candidates of an earlier run.
    """
    size = run.predictor.image_size
    p = run.parameters
    core = round(CORE_SHARE * size)
    native = replace(
        p,
        scale="whole",
        tile=core,
        halo=(size - core) // 2,
        points_per_side=max(1, round(GRID_SHARE * p.points_per_side)),
    )
    first = run.with_parameters(replace(p, scale="whole"))
    second = run.with_parameters(native)
    usable = known if known is not None and answers(known, first.parameters, native) else None
    found = usable.whole if usable is not None else first.decode_all()
    large = first.select(found)
    small, kept, windows = tiled_segments(second, usable.native if usable is not None else None)
    segments, split = merge_scales(large, small, size)
    run.absorb(first, second)
    run.notes.append(
        f"segmented whole and in {windows} windows of native size ({size} pixels); stock sam2 sees the whole picture only"
    )
    if split:
        run.notes.append(f"{split} masks of the whole picture gave way to the smaller ones that fill them")
    together = None if kept is None else ScaledCandidates(found, kept, p.scale)
    if together is not None and together.nbytes > MAX_BYTES:
        together = None
    return run.result(run.records(segments), together, reused=usable is not None)


def answers(known: ScaledCandidates, whole: AutoParameters, native: AutoParameters) -> bool:
    """Whether candidates of an earlier run answer this one."""
    return known.whole.answers(whole) and known.native.answers(native)


def merge_scales(whole: Sequence[Segment], native: Sequence[Segment], window: int) -> tuple[list[Segment], int]:
    """One set from both passes, and how many whole-picture masks gave way to several native ones.

    Args:
        whole, native: segments in image coordinates.
        window: side of a native window in pixels.
    """
    boxes = np.array([_rectangle(s.mask) for s in native], dtype=np.int64).reshape(-1, 4)
    areas = np.array([s.mask.area for s in native], dtype=np.int64)
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    gone = np.zeros(len(native), dtype=bool)
    kept: list[Segment] = []
    split = 0
    for segment in whole:
        area = segment.mask.area
        if not area:
            continue
        x0, y0, x1, y1 = _rectangle(segment.mask)
        near = np.flatnonzero(~gone & (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0))
        shared = np.array([_shared(segment.mask, native[int(i)].mask) for i in near], dtype=np.int64)
        same = near[shared >= SAME * (area + areas[near] - shared)] if len(near) else near
        small = same[sides[same] < LARGE * window]
        if len(small):
            continue  # the native mask of the same object is the finer one
        inside = near[shared >= INSIDE * areas[near]] if len(near) else near
        pieces = inside[sides[inside] < LARGE * window]
        if len(pieces) > 1 and areas[pieces].sum() >= FILLED * area:
            split += 1
            continue
        # What is as large as a window and lies here, or is this very object, is seen better in the whole picture.
        gone[same] = True
        gone[inside[sides[inside] >= LARGE * window]] = True
        kept.append(segment)
    return kept + [segment for segment, out in zip(native, gone, strict=True) if not out], split


def _rectangle(mask: CroppedMask) -> tuple[int, int, int, int]:
    rows, cols = mask.pixels.shape
    return mask.left, mask.top, mask.left + cols, mask.top + rows


def _shared(a: CroppedMask, b: CroppedMask) -> int:
    """Pixels that two masks have in common."""
    ax0, ay0, ax1, ay1 = _rectangle(a)
    bx0, by0, bx1, by1 = _rectangle(b)
    x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    if x0 >= x1 or y0 >= y1:
        return 0
    mine = a.pixels[y0 - ay0 : y1 - ay0, x0 - ax0 : x1 - ax0]
    return int(np.count_nonzero(mine & b.pixels[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0]))
