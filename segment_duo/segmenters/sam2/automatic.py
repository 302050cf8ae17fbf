"""Automatic mask generation: stock ``SAM2AutomaticMaskGenerator``'s records, to the bit in exact mode, in a fraction of its time and memory.

    grid points --decoder, 64 at a time--> predicted IoU filter --up-scale survivors--> low-res logits, cut out   = Candidates
    Candidates --stability, box (their rectangle only)--> filters --NMS per crop, NMS across crops--> RLE of what is left

Cancelling and progress are per chunk of prompts. Tiles are put together in ``tiles``, several scales in ``scales``; judging points
cheaply first is in ``screened``, adaptive prompting in ``adaptive``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from segment_duo.errors import UsageError
from segment_duo.parameters import AutoParameters, AutoScale
from segment_duo.segmenters.base import AutomaticRun, EmbedCrop, OnProgress, never, no_progress
from segment_duo.segmenters.sam2.candidates import MAX_BYTES, Candidates
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.scales import ScaledCandidates, generate_at_scales, is_scaled
from segment_duo.segmenters.sam2.tiles import generate_tiled

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding
    from segment_duo.segmenters.sam2.prompting import PointModel


class AutomaticMaskGenerator:
    """Generates all masks of an image.

    Args:
        predictor: the model.
        parameters: as ``SAM2AutomaticMaskGenerator`` has them, plus ours.

    Raises:
        UsageError: parameters that contradict each other.
    """

    def __init__(self, predictor: PointModel, parameters: AutoParameters | None = None) -> None:
        self.predictor = predictor
        self.parameters = parameters or AutoParameters()
        check_parameters(self.parameters)

    @torch.inference_mode()
    def generate(
        self,
        pixels: npt.NDArray[np.uint8],
        *,
        embedding: Sam2Embedding | None = None,
        embed_crop: EmbedCrop | None = None,
        on_progress: OnProgress = no_progress,
        should_cancel: Callable[[], bool] = never,
        candidates: Candidates | ScaledCandidates | None = None,
    ) -> AutomaticRun:
        """Segment everything.

        Args:
            pixels: uint8 (H, W, 3).
            embedding: of the whole image, if it is at hand.
            embed_crop: cache for the embeddings of crops and tiles (and of the whole image when ``embedding`` is None).
            on_progress: see :data:`OnProgress`.
            should_cancel: asked between chunks of prompts.
            candidates: of an earlier run on the same image with the same model; used if they can answer.

        Raises:
            Cancelled: ``should_cancel`` said so.
        """
        run = GridRun(
            self.predictor,
            self.parameters,
            pixels,
            embedding=embedding,
            embed_crop=embed_crop,
            on_progress=on_progress,
            should_cancel=should_cancel,
        )
        fitting = candidates if candidates is not None and _fits(candidates, pixels) else None
        if is_scaled(self.parameters, run.height, run.width, self.predictor.image_size):
            return generate_at_scales(run, fitting if isinstance(fitting, ScaledCandidates) else None)
        known = fitting if isinstance(fitting, Candidates) and fitting.answers(self.parameters) else None
        if self.parameters.tile:
            return generate_tiled(run, known)
        found = known or run.decode_all()
        run.note_mode()
        masks = run.records(run.select(found))
        return run.result(masks, found if found.nbytes <= MAX_BYTES else None, reused=known is not None)


def check_parameters(p: AutoParameters) -> None:
    """Raise :class:`UsageError` for parameters that cannot be."""
    if p.point_grids is None and p.points_per_side < 1:
        raise UsageError("points_per_side must be at least 1")
    if p.points_per_batch < 0 or p.min_mask_region_area < 0:
        raise UsageError("points_per_batch and min_mask_region_area cannot be negative")
    if p.crop_n_layers < 0 or p.crop_n_points_downscale_factor < 1:
        raise UsageError("crop_n_layers cannot be negative, crop_n_points_downscale_factor must be at least 1")
    if p.point_grids is not None and len(p.point_grids) < p.crop_n_layers + 1:
        raise UsageError(f"point_grids must hold one grid for each of the {p.crop_n_layers + 1} crop layers")
    if p.tile and p.crop_n_layers:
        raise UsageError("tile and crop_n_layers exclude each other", "Tiles are crops already; leave one of them out.")
    if p.scale not in get_args(AutoScale):
        raise UsageError(f"scale is whole, both or all, not '{p.scale}'")
    if p.tile < 0 or p.halo < 0:
        raise UsageError("tile and halo cannot be negative")


def _fits(candidates: Candidates | ScaledCandidates, pixels: npt.NDArray[np.uint8]) -> bool:
    return (candidates.height, candidates.width) == pixels.shape[:2]
