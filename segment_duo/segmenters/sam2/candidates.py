"""Raw candidates of an automatic run, kept so that other thresholds are answered without the decoder.

A candidate is a mask that passed the run's predicted-IoU threshold: its scores, its point, and its low-res logits cut down to what can be
mask. Stability, boxes, NMS and RLE are computed from these again. Frozen containers; no thresholds are applied here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.upsample import FilterValues, LowRes

if TYPE_CHECKING:
    from torch import Tensor

DECODER_FIELDS = frozenset(
    {
        "points_per_side", "crop_n_layers", "crop_overlap_ratio", "crop_n_points_downscale_factor", "use_m2m", "multimask_output",
        "point_grids", "region", "tile", "halo", "scale", "exact", "fast", "points_per_batch",
    }
)  # fmt: skip
"""Parameters that decide which prompts are decoded and how. The others are thresholds, applied afterwards."""

MAX_BYTES = 512 * 2**20
"""Candidates larger than this are not kept: the next run decodes again. 1,024 points of an official model need 20 to 200 MiB."""


@dataclass(eq=False, slots=True)
class GridCandidate:
    """One mask before thresholds.

    Attributes:
        low_res: its logits, cut at the run's lowest threshold.
        predicted_iou: float32 (), as the decoder gave it.
        point: float32 (2,), the prompt in crop coordinates.
        measured: stability and box for ``measured_for`` = (mask_threshold, stability_score_offset), computed when first asked for.
        token: which of its point's masks.
    """

    low_res: LowRes
    predicted_iou: Tensor
    point: Tensor
    measured: FilterValues | None = None
    measured_for: tuple[float, float] | None = None
    token: int = 0


@dataclass(frozen=True, slots=True)
class Margins:
    """How far cheap numbers may be off. ``overlap``: of the box IoU of two masks; ``pixels``: of a box's sides."""

    predicted_iou: float
    stability: float = 0.0
    overlap: float = 0.0
    pixels: float = 0.0

    def merged(self, other: Margins) -> Margins:
        """The larger ones of both."""
        return Margins(
            max(self.predicted_iou, other.predicted_iou),
            max(self.stability, other.stability),
            max(self.overlap, other.overlap),
            max(self.pixels, other.pixels),
        )

    def __str__(self) -> str:
        return f"predicted IoU {self.predicted_iou:.2g}, stability {self.stability:.2g}, box IoU {self.overlap:.2g}"


@dataclass(eq=False, slots=True)
class Screen:
    """What is known of a crop beside its cheap candidates.

    Attributes:
        margins: of this crop.
        confirmed: by point, its candidates in float32.
    """

    margins: Margins
    confirmed: dict[tuple[float, float], list[GridCandidate]] = field(default_factory=dict)

    @property
    def again(self) -> int:
        """Points that were decoded twice."""
        return len(self.confirmed)

    @property
    def candidates(self) -> list[GridCandidate]:
        """All in float32."""
        return [c for found in self.confirmed.values() for c in found]


@dataclass(eq=False, slots=True)
class CropCandidates:
    """Candidates of one crop or tile window, in stock's order (point by point, token by token).

    Attributes:
        box: XYXY in image pixels.
        screen: if these candidates are cheap ones: what is known of them in float32.
    """

    box: tuple[int, int, int, int]
    layer: int
    low_size: tuple[int, int]
    masks: list[GridCandidate] = field(default_factory=list)
    screen: Screen | None = None


@dataclass(eq=False, slots=True)
class Candidates:
    """All candidates of an image.

    Attributes:
        parameters: those of the run that made them.
        level: logits at or below this at image size were cut away.
    """

    height: int
    width: int
    parameters: AutoParameters
    level: float
    crops: list[CropCandidates] = field(default_factory=list)

    def __iter__(self) -> Iterator[GridCandidate]:
        for crop in self.crops:
            yield from crop.masks

    @property
    def nbytes(self) -> int:
        """Memory they hold: logits, and about 1 KiB for the rest of each."""
        again = (c for crop in self.crops if crop.screen is not None for c in crop.screen.candidates)
        return sum(c.low_res.nbytes + 1024 for c in (*self, *again))

    def answers(self, parameters: AutoParameters) -> bool:
        """Whether a run with these parameters would give the same masks from here as from the decoder."""
        if any(getattr(parameters, f) != getattr(self.parameters, f) for f in DECODER_FIELDS):
            return False
        mine, theirs = self.parameters.pred_iou_thresh, parameters.pred_iou_thresh
        # 0 and below switch the filter off, which lets NaN through as well.
        iou_fits = mine <= 0 or theirs >= mine
        if parameters.fast:
            # Adaptive prompting stops early where masks were good enough for its own thresholds.
            fixed = ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset", "mask_threshold")
            if any(getattr(parameters, f) != getattr(self.parameters, f) for f in fixed):
                return False
        return iou_fits and lowest_level(parameters) >= self.level


def lowest_level(parameters: AutoParameters) -> float:
    """The lowest logit that any threshold of a run asks about."""
    threshold, offset = parameters.mask_threshold, parameters.stability_score_offset
    return min(threshold, threshold - offset, threshold + offset)
