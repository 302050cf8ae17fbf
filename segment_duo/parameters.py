"""The parameters of automatic masks: names, defaults, help texts and ranges, said once for the options, the terminal UI, the API and the wire.

This module must not import NumPy, torch or anything slow: every command imports it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from segment_duo.errors import UsageError
from segment_duo.types import Box


def _parameter(
    default: Any,
    text: str,
    *,
    group: str,
    least: float | None = None,
    most: float | None = None,
    shown: str | None = None,
) -> Any:
    """A field of :class:`AutoParameters`.

    Args:
        default: its value.
        text: what it does, in a line.
        group: those of one kind have the same.
        least, most: its range, both included.
        shown: the default in words where the value says too little; empty to say nothing.
    """
    told = ("" if default is None else f"{default:.3g}") if shown is None else shown
    return field(default=default, metadata={"help": text, "group": group, "least": least, "most": most, "shown": told})


GRID = "Point grid and crops"
FILTERS = "Filters"
WHAT = "What to look for"
LARGE = "Large images and speed"


AutoScale: TypeAlias = Literal["whole", "both", "all"]
"""How a picture is shown to the model; see :mod:`segment_duo.segmenters.sam2.scales`."""


@dataclass(frozen=True, slots=True)
class AutoParameters:
    """Parameters of automatic mask generation, with the names and defaults of ``SAM2AutomaticMaskGenerator`` (sam2 1.1.0).

    ``min_mask_region_area`` (pixels) removes holes and specks from the final masks on the CPU. ``region`` (XYXY) restricts the point grid;
    ``tile`` and ``halo`` (pixels) cut a large image into overlapping tiles; ``scale`` ``both`` adds windows of native size to the whole
    picture (only where it is clearly larger than the model's input), ``all`` a look from farther away too (neither with tiles, crops and grids);
    ``containment_thresh`` below 1 drops masks that lie in better ones; ``exact`` asks for stock's very bits, else points are screened
    (``segmenters/sam2/screened.py``); ``fast`` screens and allows announced approximations. 0 for ``points_per_batch`` lets the engine
    choose by pixels and free memory, which does not change any result.

    A field added here is an option of ``segduo auto`` by that, with this help text and range (:mod:`segment_duo.cli.auto_options`).
    """

    points_per_side: int = _parameter(
        32, "Grid points along each side; 32 means 1,024 prompts.", group=GRID, least=1, most=1024
    )
    points_per_batch: int = _parameter(0, "Prompts decoded together.", shown="by size and memory", group=GRID, least=1)
    pred_iou_thresh: float = _parameter(
        0.8,
        "Drop masks whose predicted IoU is lower.",
        shown="the model's own, else 0.8",
        group=FILTERS,
        least=0,
        most=1,
    )
    stability_score_thresh: float = _parameter(
        0.95,
        "Drop masks that change more when the logit threshold moves.",
        shown="the model's own, else 0.95",
        group=FILTERS,
        least=0,
        most=1,
    )
    stability_score_offset: float = _parameter(1.0, "How far it moves, in logits.", group=FILTERS, least=0)
    mask_threshold: float = _parameter(0.0, "Logit above which a pixel is in.", group=FILTERS)
    box_nms_thresh: float = _parameter(
        0.7,
        "Of masks whose boxes overlap more (IoU), keep the best.",
        shown="the model's own, else 0.7",
        group=FILTERS,
        least=0,
        most=1,
    )
    containment_thresh: float = _parameter(
        1.0,
        "Of two masks of which the smaller lies in the other by more than this share, keep the better; 1 keeps both.",
        shown="the model's own, else 1",
        group=FILTERS,
        least=0,
        most=1,
    )
    crop_n_layers: int = _parameter(
        0, "Layers of crops that are done as well; 1 adds 4 crops, 2 adds 20.", group=GRID, least=0, most=4
    )
    crop_nms_thresh: float = _parameter(0.7, "The same between crops.", group=FILTERS, least=0, most=1)
    crop_overlap_ratio: float = _parameter(
        512 / 1500, "Overlap of crops, as a share of the image.", group=GRID, least=0, most=0.9
    )
    crop_n_points_downscale_factor: int = _parameter(
        1, "Divide the grid by this in each layer of crops.", group=GRID, least=1
    )
    point_grids: tuple[tuple[tuple[float, float], ...], ...] | None = _parameter(
        None, "JSON file with a list of x, y pairs from 0 to 1, instead of a grid.", group=GRID
    )
    min_mask_region_area: int = _parameter(
        0, "Fill holes and drop specks below this many pixels.", group=FILTERS, least=0
    )
    use_m2m: bool = _parameter(False, "Refine each mask once with itself as prompt.", shown="off", group=GRID)
    multimask_output: bool = _parameter(True, "Three candidates a point, or one.", shown="three", group=GRID)
    region: Box | None = _parameter(None, "Prompt only inside this box.", group=GRID)  # noqa: RUF009 - makes a field
    scale: AutoScale = _parameter(  # noqa: RUF009 - makes a field
        "whole",
        "See the picture whole; both: also in windows of the model's input size where it is larger, for small objects; "
        "all: also from farther away, for large ones.",
        shown="the model's own, else whole",
        group=LARGE,
    )
    tile: int = _parameter(0, "Work in tiles of this many pixels.", shown="off", group=LARGE, least=0)
    halo: int = _parameter(128, "Pixels by which tiles overlap.", group=LARGE, least=0)
    exact: bool = _parameter(
        True,
        "Stock sam2's masks to the last bit, or (no) judge points cheaply first and decode again what may stay.",
        shown="no for SAM 2 models",
        group=LARGE,
    )
    fast: bool = _parameter(
        False, "Judge cheaply and skip points that masks explain already; the set records it.", shown="", group=LARGE
    )
    text: str | None = _parameter(
        None, 'What to look for, in words such as "particle"; for models that take text.', group=WHAT
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{one.name}: {value} is not a finite number")
