"""Read-only presets for automatic mask generation.

``default`` is upstream's set of defaults, with the thresholds that a model's own card gives (only nano and trained models have any). ``web`` is
what the predecessor's page ran. ``fine`` looks for small objects with a denser grid and one layer of crops; ``coarse`` is quick and
rough. Flags go on top of a preset.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from segment_duo.errors import UsageError
from segment_duo.parameters import AutoParameters

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    # All three by which a model's card may differ from upstream: what the predecessor ran is to be had with every model.
    "web": {"pred_iou_thresh": 0.8, "stability_score_thresh": 0.9, "box_nms_thresh": 0.7},
    "fine": {"points_per_side": 48, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "coarse": {"points_per_side": 16, "min_mask_region_area": 100},
}


def preset_parameters(name: str, model_defaults: Mapping[str, Any]) -> AutoParameters:
    """The parameters of a preset.

    Args:
        name: one of :data:`PRESETS`.
        model_defaults: fields of :class:`AutoParameters` that the model's card sets.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        raise UsageError(
            f"no preset '{name}'", f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(PRESETS)}."
        )
    return dataclasses.replace(AutoParameters(), **{**model_defaults, **PRESETS[name]})
