"""What is measured: the image, the models and their parameters. The same in every process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_duo.parameters import AutoParameters

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from sam2.modeling.sam2_base import SAM2Base

    from segment_duo.segmenters.sam2.predictor import Predictor

NANO = Path(__file__).resolve().parents[2] / "segment_duo" / "models" / "nano"
CONFIGS = {
    "nano": str(NANO / "nano.yaml"),
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base-plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
SIZES = {1: (896, 1152), 3: (1536, 2048), 12: (3072, 4096)}
"""Rows and columns by megapixels."""

SURVIVING = 0.06
"""Share of the three masks a point that pass both thresholds of a model with random weights. Trained nano on the example images: 4 to 9 %."""


def image(megapixels: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Some 150 bright particles on a darker ground with noise; uint8 (H, W, 3)."""
    height, width = SIZES[megapixels]
    rng = np.random.default_rng(seed)
    grey = np.full((height, width), 80.0, dtype=np.float32)
    for _ in range(150):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        a, b = rng.uniform(0.012, 0.035, 2) * height
        reach = int(max(a, b)) + 2
        y0, y1, x0, x1 = (
            int(v) for v in (max(cy - reach, 0), min(cy + reach, height), max(cx - reach, 0), min(cx + reach, width))
        )
        y, x = np.mgrid[y0:y1, x0:x1]
        inside = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
        grey[y0:y1, x0:x1][inside] = rng.uniform(140, 220)
    grey += rng.normal(0, 7, grey.shape).astype(np.float32)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def model(name: str) -> SAM2Base:
    """Nano with its weights; the official sizes with random ones, the same in every process."""
    import torch

    from segment_duo.segmenters.sam2.build import build_model

    torch.manual_seed(0)
    return build_model(CONFIGS[name], NANO / "nano.pt" if name == "nano" else None)


def defaults(name: str) -> dict[str, Any]:
    """Nano's own parameters; nothing for the others, which have stock's."""
    found: dict[str, Any] = json.loads((NANO / "defaults.json").read_text()) if name == "nano" else {}
    return found


def parameters(name: str, predictor: Predictor, pixels: npt.NDArray[np.uint8], points_per_side: int) -> AutoParameters:
    """Nano's own defaults; for random weights thresholds at which :data:`SURVIVING` of the masks are left.

    Such masks are speckles all over the image, the worst case of everything that looks only where a mask can be.
    """
    import torch

    from segment_duo.segmenters.sam2.grid import GridRun

    p = AutoParameters(points_per_side=points_per_side)
    if name == "nano":
        # Without what stock has not: it is to answer the same request.
        return replace(p, **{**defaults(name), "scale": "whole", "containment_thresh": 1.0, "exact": True})
    rng = np.random.default_rng(0)
    grid = tuple((float(x), float(y)) for x, y in rng.random((32, 2)))
    sample = replace(p, exact=True, point_grids=(grid,), pred_iou_thresh=0.0)
    run = GridRun(predictor, replace(sample, mask_threshold=-1e6), pixels)
    logits = run.decode_all()
    values = torch.cat([c.low_res.logits.flatten()[::97] for c in logits])
    threshold = round(_quantile(values, 0.97), 5)
    offset = round(_quantile(values, 0.975) - threshold, 6)
    p = replace(p, mask_threshold=threshold, stability_score_offset=offset)
    run = GridRun(predictor, replace(sample, mask_threshold=threshold, stability_score_offset=offset), pixels)
    found = run.decode_all()
    iou = torch.stack([c.predicted_iou for c in found])
    p = replace(p, pred_iou_thresh=round(_quantile(iou, 1 - 3 * SURVIVING), 5))
    left = [c.measured.stability for c in found if c.measured is not None and bool(c.predicted_iou > p.pred_iou_thresh)]
    return replace(p, stability_score_thresh=round(_quantile(torch.stack(left), 2 / 3), 5))


def _quantile(values: torch.Tensor, share: float) -> float:
    return float(values.float().quantile(share))
