"""A picture seen from farther away: in the middle of a frame twice as wide, its surroundings mirrored, for objects too large to be seen near.

    +-----------------+
    |  mirrored       |    A small model sees objects well that take a tenth of its frame. What fills half of it comes out in ragged pieces;
    |   +---------+   |    here it fills a quarter. Points are asked in the picture only, masks are cut off at its edge.
    |   | picture |   |
    |   +---------+   |
    |                 |
    +-----------------+

The frame is never made at the picture's own size: only what the model would see of it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from segment_duo.boxes import ends
from segment_duo.masks.cropped import CroppedMask, trim
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.segments import Segment
from segment_duo.types import Box

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in its frame, and how large that is, in pixels of the picture."""

    left: int
    top: int
    width: int
    height: int


def farther(run: GridRun) -> tuple[GridRun, Placement]:
    """The same run over the frame of its picture; :func:`brought_back` puts its segments into the picture."""
    pixels = mirrored(run.pixels, run.predictor.image_size)
    frame = Placement(run.width // 2, run.height // 2, 2 * run.width, 2 * run.height)
    inside = Box(frame.left, frame.top, frame.left + run.width, frame.top + run.height)
    region = run.parameters.region
    if region is not None:
        dx, dy = frame.left, frame.top
        inside = Box(region.x0 + dx, region.y0 + dy, region.x1 + dx, region.y1 + dy)
    run.check()
    embedding = run.clock.run("encoder", lambda: run.predictor.embed(pixels))
    whole = GridRun(
        run.predictor,
        replace(run.parameters, scale="whole", region=inside),
        np.broadcast_to(np.uint8(0), (frame.height, frame.width, 3)),  # its size is all that is asked for
        embedding=replace(embedding, height=frame.height, width=frame.width),
        on_progress=run.on_progress,
        should_cancel=run.should_cancel,
    )
    return whole, frame


def mirrored(pixels: npt.NDArray[np.uint8], input_size: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3) in the middle of its frame, (2 h, 2 w, 3); of a large picture no more than the model's input can show."""
    height, width = pixels.shape[:2]
    share = min(1.0, input_size / max(height, width))
    if share < 1:
        height, width = max(1, round(height * share)), max(1, round(width * share))
        planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
        planes = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)
        pixels = planes[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    rows = (height // 2, height - height // 2)
    columns = (width // 2, width - width // 2)
    return np.pad(pixels, (rows, columns, (0, 0)), mode="symmetric")


def brought_back(segments: list[Segment], frame: Placement, run: GridRun, least: float) -> list[Segment]:
    """Segments of a frame in the picture of ``run``; those that are smaller (root of the area) than ``least`` pixels are left out."""
    found = []
    for one in segments:
        mask = _inside(one.mask, frame, run)
        if mask.area >= least**2:
            point = one.point[0] - frame.left, one.point[1] - frame.top
            whole = (0, 0, run.width, run.height)
            found.append(replace(one, mask=mask, box=ends(mask.box), point=point, crop_box=whole))
    return found


def _inside(mask: CroppedMask, frame: Placement, run: GridRun) -> CroppedMask:
    left, top = mask.left - frame.left, mask.top - frame.top
    rows = slice(max(0, -top), max(0, run.height - top))
    columns = slice(max(0, -left), max(0, run.width - left))
    return trim(CroppedMask(mask.pixels[rows, columns], max(left, 0), max(top, 0)))
