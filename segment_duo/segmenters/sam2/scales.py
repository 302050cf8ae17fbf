"""A picture at two scales: shrunk whole, for large objects, and in windows of native size, for small ones; merged into one set.

A model squeezes every picture to its input size. An object of 20 pixels in a picture of 2,000 is then 5 pixels wide for a model of 512, and
touching ones become one mask. Windows as large as the model's input show it at its own size, but cut what is larger than they are. So both are done,
and of masks that lie in each other the one with the higher predicted IoU stays; where they are about equal the native one, whose border
is finer. So a pile that the whole picture took for one object gives way to what fills it, and pieces of an object too large for a window
give way to the object.
Nothing is cut at a seam: a native mask that ends at its window's edge is joined or dropped by the tiles' own rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import AutomaticRun
from segment_duo.segmenters.sam2.candidates import MAX_BYTES, Candidates
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.nested import without_nested
from segment_duo.segmenters.sam2.segments import Segment
from segment_duo.segmenters.sam2.tiles import tiled_segments

CORE_SHARE = 0.75
"""Share of the model's input that a tile's core takes; the halo around it fills the window."""

GRID_SHARE = 0.5
"""Grid points along a tile's side, as a share of those along the whole picture's."""

FROM = 1.25
"""Longer side of a picture, as a multiple of the model's input, from which windows of native size show more."""

NESTED = 0.5
"""Share of the smaller of two masks from which they are the same object, or one is part of the other, where the run has no limit of its own."""

FINER = 0.05
"""What a native mask is ahead by in predicted IoU."""


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
    """Whether a run works at both scales: asked for, not in tiles or crops already, and the picture is clearly larger than the model's input."""
    if parameters.scale == "whole" or parameters.tile or parameters.crop_n_layers or parameters.point_grids is not None:
        return False
    return max(height, width) > FROM * input_size


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
    segments = merge_scales(large, small, min(p.containment_thresh, NESTED))
    run.absorb(first, second)
    run.notes.append(
        f"segmented whole and in {windows} windows of native size ({size} pixels); stock sam2 sees the whole picture only"
    )
    together = None if kept is None else ScaledCandidates(found, kept, p.scale)
    if together is not None and together.nbytes > MAX_BYTES:
        together = None
    return run.result(run.records(segments), together, reused=usable is not None)


def answers(known: ScaledCandidates, whole: AutoParameters, native: AutoParameters) -> bool:
    """Whether candidates of an earlier run answer this one."""
    return known.whole.answers(whole) and known.native.answers(native)


def merge_scales(whole: Sequence[Segment], native: Sequence[Segment], limit: float) -> list[Segment]:
    """One set of both passes, those of the whole picture first.

    Args:
        whole, native: segments in image coordinates.
        limit: as for :func:`~segment_duo.segmenters.sam2.nested.without_nested`.
    """
    together = [*whole, *native]
    ranks = np.array([s.predicted_iou for s in together])
    ranks[len(whole) :] += FINER
    return without_nested(together, limit, ranks)
