"""Nano's weights: which of them tracking alone needs, and how a checkpoint is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

CONFIG = Path(__file__).resolve().parent.parent.parent / "models" / "nano" / "nano.yaml"

MEMORY = (
    "memory_attention",
    "memory_encoder",
    "maskmem_tpos_enc",
    "obj_ptr",
    "mask_downsample",
    "no_obj",
)
"""Beginnings of the names of weights that only tracking needs: training on images leaves them as they are."""


def write(state: Mapping[str, torch.Tensor], target: Path) -> None:
    """A float16 checkpoint in SAM 2's layout; replaces ``target`` at once."""
    halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    temporary = target.with_suffix(".tmp")
    torch.save({"model": halved}, temporary)
    temporary.replace(target)
