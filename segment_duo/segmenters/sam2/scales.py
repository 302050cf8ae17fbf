"""A picture at several scales: shrunk whole, in windows of native size for small objects, and from farther away for large ones; merged into one set.

A model squeezes every picture to its input size. An object of 20 pixels in a picture of 2,000 is then 5 pixels wide for a model of 512, and
touching ones become one mask. Windows as large as the model's input show it at its own size, but cut what is larger than they are; and what fills
the frame is better seen in a wider one (``farther``). So all are done, and of masks that lie in each other the one with the higher predicted
IoU stays; where they are about equal the native one, whose border is finer, and for a large object the one from farther away. So a pile that the
whole picture took for one object gives way to what fills it, and pieces of an object too large for a window or for the frame give way to the object.
Nothing is cut at a seam: a native mask that ends at its window's edge is joined or dropped by the tiles' own rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import AutomaticRun
from segment_duo.segmenters.sam2.candidates import MAX_BYTES, Candidates
from segment_duo.segmenters.sam2.farther import brought_back, farther
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

FULLER = 0.15
"""What a mask from farther away is ahead by in predicted IoU: more than a native one, whose pieces of a large object are surer than they should be.
On EMPS validation pictures 0.05 to 0.15 score alike; of `examples/particles.tif` 0.15 leaves fewer ellipses in pieces."""

LARGE = 0.15
"""Size (root of the area) as a share of the picture's longer side from which masks from farther away count."""


@dataclass(eq=False, slots=True)
class ScaledCandidates:
    """Candidates of all passes, for the next run with other thresholds."""

    whole: Candidates
    native: Candidates | None
    far: Candidates | None
    scale: str

    @property
    def height(self) -> int:
        return self.whole.height

    @property
    def width(self) -> int:
        return self.whole.width

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in (self.whole, self.native, self.far) if one is not None)


def is_scaled(parameters: AutoParameters, height: int, width: int, input_size: int) -> bool:
    """Whether a run works at several scales: asked for, not in tiles, crops or points of the user's, and another scale shows more."""
    if parameters.scale == "whole" or parameters.tile or parameters.crop_n_layers or parameters.point_grids is not None:
        return False
    return parameters.scale == "all" or _has_windows(height, width, input_size)


def _has_windows(height: int, width: int, input_size: int) -> bool:
    return max(height, width) > FROM * input_size


def generate_at_scales(run: GridRun, known: ScaledCandidates | None) -> AutomaticRun:
    """Segment the whole picture, its native windows where it is larger than the input, and with ``scale`` ``all`` from farther away; merge.

    Args:
        known: candidates of an earlier run.
    """
    p, size = run.parameters, run.predictor.image_size
    first = run.with_parameters(replace(p, scale="whole"))
    usable = known if known is not None and known.scale == p.scale and known.whole.answers(first.parameters) else None
    found = ScaledCandidates(usable.whole if usable else first.decode_all(), None, None, p.scale)
    whole, parts, complete = first.select(found.whole), [first], True
    native: list[Segment] = []
    far: list[Segment] = []
    if _has_windows(run.height, run.width, size):
        second = run.with_parameters(_native(p, size))
        native, found.native, windows = tiled_segments(second, usable.native if usable else None)
        complete = found.native is not None
        parts.append(second)
        run.notes.append(
            f"segmented whole and in {windows} windows of native size ({size} pixels); stock sam2 sees the whole picture only"
        )
    if p.scale == "all":
        third, frame = farther(run)
        found.far = usable.far if usable and usable.far else third.decode_all()
        far = brought_back(third.select(found.far), frame, run, LARGE * max(run.height, run.width))
        parts.append(third)
        run.notes.append("segmented from farther away too, in a frame twice as wide; stock sam2 sees the picture alone")
    segments = merge_scales(whole, native, min(p.containment_thresh, NESTED), far)
    run.absorb(*parts)
    kept = found if complete and found.nbytes <= MAX_BYTES else None
    return run.result(run.records(segments), kept, reused=usable is not None)


def _native(p: AutoParameters, size: int) -> AutoParameters:
    core = round(CORE_SHARE * size)
    points = max(1, round(GRID_SHARE * p.points_per_side))
    return replace(p, scale="whole", tile=core, halo=(size - core) // 2, points_per_side=points)


def merge_scales(
    whole: Sequence[Segment], native: Sequence[Segment], limit: float, far: Sequence[Segment] = ()
) -> list[Segment]:
    """One set of all passes, those of the whole picture first.

    Args:
        whole, native, far: segments in image coordinates.
        limit: as for :func:`~segment_duo.segmenters.sam2.nested.without_nested`.
    """
    ahead = [*[0.0] * len(whole), *[FINER] * len(native), *[FULLER] * len(far)]
    together = [*whole, *native, *far]
    ranks = np.array([s.predicted_iou for s in together]) + np.array(ahead)
    return without_nested(together, limit, ranks)
