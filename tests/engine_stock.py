"""Stock ``sam2`` beside ours, for the equality tests: one small random model, and a comparison of complete records."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy.typing as npt
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_image_predictor import SAM2ImagePredictor

NANO = Path(__file__).resolve().parent.parent / "segment_duo" / "models" / "nano"


def make_predictor(model: SAM2Base) -> SAM2ImagePredictor:
    """A stock ``SAM2ImagePredictor`` that also works for models whose input is not 1024 x 1024.

    ``sam2`` 1.1.0 hard-codes the feature sizes of a 1024 input; they are image_size / 4, / 8 and / 16.
    """
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = feature_sizes(model)
    return predictor


def feature_sizes(model: SAM2Base) -> list[tuple[int, int]]:
    """Height and width of the three feature maps, finest first (strides 4, 8 and 16)."""
    return [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]


@lru_cache(maxsize=2)
def small_model(trained: bool = True) -> SAM2Base:
    """Nano with its weights if they are there and wanted, else with random ones."""
    weights = NANO / "nano.pt"
    torch.manual_seed(7)
    return build_model(NANO / "nano.yaml", weights if trained and weights.is_file() else None)


@lru_cache(maxsize=2)
def small_predictor(trained: bool = True) -> Predictor:
    return Predictor(small_model(trained))


@lru_cache(maxsize=2)
def loose(trained: bool = True) -> AutoParameters:
    """Thresholds that leave a good third of the candidates, whatever the weights."""
    generous = AutoParameters(
        exact=True, points_per_side=5, pred_iou_thresh=0.0, stability_score_thresh=0.0, stability_score_offset=0.25
    )
    found = [
        c for c in GridRun(small_predictor(trained), generous, picture(200, 260)).decode_all() if c.measured is not None
    ]
    iou = torch.stack([c.predicted_iou for c in found]).quantile(0.4)
    stability = (
        torch.stack([c.measured.stability for c in found if c.measured is not None]).nan_to_num(0.0).quantile(0.4)
    )
    return replace(
        generous,
        points_per_side=6,
        pred_iou_thresh=round(float(iou), 3),
        stability_score_thresh=round(float(stability), 3),
        box_nms_thresh=0.9,
    )


def picture(height: int, width: int, seed: int = 0, count: int = 14) -> npt.NDArray[np.uint8]:
    """Bright discs on a darker, noisy ground; uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width), 70.0)
    for _ in range(count):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        radius = rng.uniform(0.04, 0.13) * min(height, width)
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(130, 230)
    image += rng.normal(0, 6, image.shape)
    grey = image.clip(0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def stock_records(model: SAM2Base, pixels: npt.NDArray[np.uint8], p: AutoParameters) -> list[dict[str, Any]]:
    """What ``SAM2AutomaticMaskGenerator`` makes of the same request."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        generator = SAM2AutomaticMaskGenerator(
            model,
            points_per_side=None if p.point_grids is not None else p.points_per_side,
            points_per_batch=p.points_per_batch or 64,
            pred_iou_thresh=p.pred_iou_thresh,
            stability_score_thresh=p.stability_score_thresh,
            stability_score_offset=p.stability_score_offset,
            mask_threshold=p.mask_threshold,
            box_nms_thresh=p.box_nms_thresh,
            crop_n_layers=p.crop_n_layers,
            crop_nms_thresh=p.crop_nms_thresh,
            crop_overlap_ratio=p.crop_overlap_ratio,
            crop_n_points_downscale_factor=p.crop_n_points_downscale_factor,
            point_grids=None if p.point_grids is None else [np.array(g) for g in p.point_grids],
            output_mode="coco_rle",
            use_m2m=p.use_m2m,
            multimask_output=p.multimask_output,
        )
        generator.predictor._bb_feat_sizes = feature_sizes(model)
        records: list[dict[str, Any]] = generator.generate(pixels)
        return records


def as_stock(mask: Mask) -> dict[str, Any]:
    """Our record in stock's words."""
    return {
        "segmentation": {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts},
        "area": mask.area,
        "bbox": list(mask.bbox),
        "predicted_iou": mask.predicted_iou,
        "point_coords": [list(p) for p in mask.point_coords],
        "stability_score": mask.stability_score,
        "crop_box": list(mask.crop_box or ()),
    }


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """NaN compares equal to itself; everything else exactly."""
    return {k: "nan" if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}
