"""One automatic run: grid points to candidates, candidates to segments. Whole image, crops and tiles are built on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segment_duo.errors import Cancelled
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.base import AutomaticRun, EmbedCrop, OnProgress, Reusable, never, no_progress
from segment_duo.segmenters.sam2 import adaptive
from segment_duo.segmenters.sam2.candidates import Candidates, CropCandidates, GridCandidate, lowest_level
from segment_duo.segmenters.sam2.decoder import DecoderOutput, select_masks
from segment_duo.segmenters.sam2.nms import suppress
from segment_duo.segmenters.sam2.segments import Segment, cleaned, inclusive_box, record
from segment_duo.segmenters.sam2.upsample import Upsampler, cut_out
from segment_duo.types import AutoParameters, Mask

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding
    from segment_duo.segmenters.sam2.predictor import Predictor


STOCK_BATCH = 64
"""``points_per_batch`` of stock. The token side of the decoder rounds by batch size, so ours has the same."""


@dataclass(eq=False)
class Stopwatch:
    """Adds up wall time by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, call: Callable[[], Sam2Embedding]) -> Sam2Embedding:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.add(stage, start)

    def add(self, stage: str, start: float) -> float:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - start
        return now


class GridRun:
    """State of one run."""

    def __init__(
        self,
        predictor: Predictor,
        parameters: AutoParameters,
        pixels: npt.NDArray[np.uint8],
        *,
        embedding: Sam2Embedding | None = None,
        embed_crop: EmbedCrop | None = None,
        on_progress: OnProgress = no_progress,
        should_cancel: Callable[[], bool] = never,
    ) -> None:
        self.predictor = predictor
        self.decoding = predictor.fast() if parameters.fast else predictor
        self.parameters = parameters
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.embedding = embedding
        self.embed_crop = embed_crop
        self.on_progress = on_progress
        self.should_cancel = should_cancel
        self.clock = Stopwatch()
        self.notes: list[str] = []
        self.points_decoded = 0
        self.points_done = 0

    def with_parameters(self, parameters: AutoParameters) -> GridRun:
        """A run over the same picture with other parameters, and with notes and counts of its own."""
        return GridRun(
            self.predictor,
            parameters,
            self.pixels,
            embedding=self.embedding,
            embed_crop=self.embed_crop,
            on_progress=self.on_progress,
            should_cancel=self.should_cancel,
        )

    def absorb(self, *parts: GridRun) -> None:
        """Add up what runs over parts of the work took and noted."""
        for part in parts:
            self.points_decoded += part.points_decoded
            self.points_done += part.points_done
            self.notes += [note for note in part.notes if note not in self.notes]
            for stage, seconds in part.clock.seconds.items():
                self.clock.seconds[stage] = self.clock.seconds.get(stage, 0.0) + seconds
        self.note_fast()

    def check(self) -> None:
        if self.should_cancel():
            raise Cancelled("automatic mask generation was cancelled")

    def note_fast(self) -> None:
        """Write down what the fast mode changed."""
        if self.parameters.fast:
            self.notes += adaptive.notes(self.points_decoded, self.points_done, self.decoding.half)

    def result(self, masks: tuple[Mask, ...], kept: Reusable | None, *, reused: bool) -> AutomaticRun:
        """The answer, with what this run took and noted."""
        return AutomaticRun(masks, tuple(self.notes), kept, self.clock.seconds, self.points_decoded, reused)

    # -- prompts to candidates ----------------------------------------------------------------------------------------

    def decode_all(self) -> Candidates:
        """Decode the whole grid of every crop."""
        grids = self.grids()
        crops = crop_boxes(self.height, self.width, self.parameters)
        points = [self.crop_points(box, grids[layer]) for box, layer in crops]
        total = sum(len(p) for p in points)
        found = Candidates(self.height, self.width, self.parameters, lowest_level(self.parameters))
        self.on_progress("points", 0, total)
        for (box, layer), grid in zip(crops, points, strict=True):
            crop = CropCandidates(box, layer, self.low_size)
            found.crops.append(crop)
            self._decode_grid(crop, grid, lambda: self.on_progress("points", self.points_done, total))
        return found

    def decode_window(
        self, box: tuple[int, int, int, int], core: tuple[int, int, int, int], grid: npt.NDArray[np.float64]
    ) -> CropCandidates:
        """Decode a tile's window: the grid is laid over its core."""
        x0, y0 = box[:2]
        points = self.crop_points(core, grid) + np.array([[core[0] - x0, core[1] - y0]])
        crop = CropCandidates(box, 0, self.low_size)
        self._decode_grid(crop, points, lambda: None)
        return crop

    def grids(self) -> list[npt.NDArray[np.float64]]:
        """Normalised point grids, one per crop layer."""
        return point_grids(self.parameters)

    def _decode_grid(self, crop: CropCandidates, points: npt.NDArray[np.float64], report: Callable[[], None]) -> None:
        """Fill a crop with the candidates of its points (N, 2), in crop pixels."""
        if not len(points):
            return
        embedding = self.embed(crop.box)
        if not self.parameters.fast:
            for batch in batches(points, self.parameters.points_per_batch or STOCK_BATCH):
                crop.masks += self.decode(embedding, batch)
                self.points_done += len(batch)
                report()
            return
        coverage = adaptive.Coverage(self.parameters, crop)
        for level in adaptive.levels(points):
            for batch in batches(coverage.unexplained(level), self.parameters.points_per_batch or STOCK_BATCH):
                fresh = self.decode(embedding, batch)
                crop.masks += fresh
                coverage.add(fresh)
            self.points_done += len(level)
            report()

    def crop_points(self, box: tuple[int, int, int, int], grid: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Grid points of a crop in crop pixels, (N, 2); only those inside ``region``."""
        x0, y0, x1, y1 = box
        points: npt.NDArray[np.float64] = grid * np.array([[x1 - x0, y1 - y0]])
        region = self.parameters.region
        if region is None:
            return points
        x, y = points[:, 0] + x0, points[:, 1] + y0
        inside: npt.NDArray[np.float64] = points[
            (x >= region.x0) & (x < region.x1) & (y >= region.y0) & (y < region.y1)
        ]
        return inside

    def embed(self, box: tuple[int, int, int, int]) -> Sam2Embedding:
        """Embedding of a crop."""
        self.check()
        x0, y0, x1, y1 = box
        whole = box == (0, 0, self.width, self.height)
        if whole and self.embedding is not None:
            return self.embedding

        def compute() -> Sam2Embedding:
            return self.predictor.embed(self.pixels[y0:y1, x0:x1])

        cache = self.embed_crop
        return self.clock.run("encoder", compute if cache is None else lambda: cache(box, compute))

    @property
    def low_size(self) -> tuple[int, int]:
        rows, cols = self.predictor.decoder.prompts.mask_input_size
        return int(rows), int(cols)

    def decode(self, embedding: Sam2Embedding, points: npt.NDArray[np.float64]) -> list[GridCandidate]:
        """Candidates of one batch of points in crop pixels, in stock's order; filtered by predicted IoU only."""
        start = time.perf_counter()
        predictor, p = self.predictor, self.parameters
        in_crop = torch.as_tensor(points, dtype=torch.float32, device=predictor.device)
        decoded = self._decode(embedding, in_crop, wanted=None if p.use_m2m else self._wanted)
        masks, iou = select_masks(
            predictor.decoder.decoder, decoded.masks, decoded.iou[decoded.rows], multimask=p.multimask_output
        )
        per_point = masks.shape[1]
        at = in_crop[decoded.rows].repeat_interleave(per_point, dim=0)
        masks, iou = masks.flatten(0, 1), iou.flatten()
        if p.use_m2m:
            masks, iou = self._refine(embedding, at, masks)
        if p.pred_iou_thresh > 0.0:
            keep = (iou > p.pred_iou_thresh).nonzero().flatten()
            masks, iou, at = masks[keep], iou[keep], at[keep]
        self.points_decoded += len(points)
        start = self.clock.add("decoder", start)
        cuts = cut_out(masks, lowest_level(p))
        out = [GridCandidate(c, i, q) for c, i, q in zip(cuts, iou.cpu(), at.cpu(), strict=True)]
        up = predictor.full_size(self.low_size, embedding.height, embedding.width)
        for candidate in out:
            self.measure(up, candidate)
        self.clock.add("masks", start)
        return out

    def _wanted(self, iou: Tensor) -> Tensor:
        """Prompts that can have a survivor: up-scaling the others would be wasted."""
        p = self.parameters
        if p.pred_iou_thresh <= 0.0:
            return torch.ones(len(iou), dtype=torch.bool, device=iou.device)
        # With single-mask output an unstable mask falls back to the best of the three: any of the four may be chosen.
        scores = iou[:, 1:] if p.multimask_output else iou
        return (scores > p.pred_iou_thresh).any(1)

    def _decode(
        self,
        embedding: Sam2Embedding,
        points: Tensor,
        *,
        mask_input: Tensor | None = None,
        wanted: Callable[[Tensor], Tensor] | None = None,
    ) -> DecoderOutput:
        predictor = self.decoding
        coords = predictor.coordinates(points, embedding.height, embedding.width)[:, None, :]
        labels = torch.ones(coords.shape[:2], dtype=torch.int, device=coords.device)
        sparse = predictor.decoder.embed_prompts(coords, labels)
        image = predictor.prepare(embedding, len(points))
        with predictor.precision():
            return predictor.decoder.decode(image, sparse, mask_input=mask_input, wanted=wanted, check=self.check)

    def _refine(self, embedding: Sam2Embedding, points: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Second pass with the first pass's logits as mask input (``use_m2m``)."""
        size = self.parameters.points_per_batch or STOCK_BATCH
        refined, scores = [], []
        for i in range(0, len(points), size):
            logits = masks[i : i + size, None].clamp(-32.0, 32.0)
            decoded = self._decode(embedding, points[i : i + size], mask_input=logits)
            m, s = select_masks(self.predictor.decoder.decoder, decoded.masks, decoded.iou, multimask=False)
            refined.append(m.squeeze(1))
            scores.append(s.squeeze(1))
        return torch.cat(refined), torch.cat(scores)

    # -- candidates to records ----------------------------------------------------------------------------------------

    def measure(self, up: Upsampler, candidate: GridCandidate) -> None:
        p = self.parameters
        wanted = (p.mask_threshold, p.stability_score_offset)
        if candidate.measured is None or candidate.measured_for != wanted:
            candidate.measured = up.measure(candidate.low_res, *wanted)
            candidate.measured_for = wanted

    def select(self, candidates: Candidates) -> list[Segment]:
        """Apply every filter; what is left in stock's order."""
        start = time.perf_counter()
        kept: list[tuple[CropCandidates, list[GridCandidate]]] = []
        for crop in candidates.crops:
            self.check()
            kept.append((crop, self.select_in_crop(crop)))
        flat = [(crop, c) for crop, masks in kept for c in masks]
        if len(candidates.crops) > 1 and flat:
            flat = [flat[i] for i in self._across_crops(flat)]
        start = self.clock.add("nms", start)
        segments = [self.segment(crop, c) for crop, c in flat]
        if self.parameters.min_mask_region_area > 0:
            segments = self.clean(segments)
        self.clock.add("rle", start)
        return segments

    def select_in_crop(self, crop: CropCandidates, *, drop_at_edge: bool = True) -> list[GridCandidate]:
        """Thresholds, the crop's edge, and NMS within the crop."""
        from sam2.utils.amg import is_box_near_crop_edge

        p = self.parameters
        x0, y0, x1, y1 = crop.box
        up = self.predictor.full_size(crop.low_size, y1 - y0, x1 - x0)
        masks = crop.masks
        if p.pred_iou_thresh > 0.0:
            masks = [c for c in masks if bool(c.predicted_iou > p.pred_iou_thresh)]
        for i, c in enumerate(masks):
            if i % 64 == 0:
                self.check()
            self.measure(up, c)
        if p.stability_score_thresh > 0.0:
            # Compared as float32, as torch does: a Python float would be compared in double precision.
            masks = [
                c for c in masks if c.measured is not None and bool(c.measured.stability >= p.stability_score_thresh)
            ]
        if not masks:
            return []
        boxes = torch.stack([c.measured.box for c in masks if c.measured is not None])
        if drop_at_edge:
            near = is_box_near_crop_edge(boxes, list(crop.box), [0, 0, self.width, self.height])
            masks = [c for c, edge in zip(masks, near.tolist(), strict=True) if not edge]
            boxes = boxes[~near]
        if not masks:
            return []
        order = suppress(boxes, torch.stack([c.predicted_iou for c in masks]), p.box_nms_thresh)
        return [masks[i] for i in order]

    def _across_crops(self, flat: Sequence[tuple[CropCandidates, GridCandidate]]) -> list[int]:
        """NMS across crops, which prefers the masks of smaller ones."""
        crops = torch.tensor([list(crop.box) for crop, _ in flat])
        areas = (crops[:, 2] - crops[:, 0]) * (crops[:, 3] - crops[:, 1])
        offsets = crops[:, [0, 1, 0, 1]]
        boxes = torch.stack([c.measured.box for _, c in flat if c.measured is not None]) + offsets
        return suppress(boxes, 1 / areas, self.parameters.crop_nms_thresh)

    def segment(self, crop: CropCandidates, candidate: GridCandidate) -> Segment:
        """Up-sample a survivor once more, this time for its pixels: keeping those of all candidates would take gigabytes."""
        x0, y0, x1, y1 = crop.box
        up = self.predictor.full_size(crop.low_size, y1 - y0, x1 - x0)
        mask = up.binary(candidate.low_res, self.parameters.mask_threshold)
        measured = candidate.measured
        assert measured is not None
        box = [float(v) for v in measured.box]
        point = candidate.point + torch.tensor([x0, y0])
        return Segment(
            mask=CroppedMask(mask.pixels, mask.left + x0, mask.top + y0),
            box=(box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0),
            predicted_iou=float(candidate.predicted_iou),
            stability_score=float(measured.stability),
            point=(float(point[0]), float(point[1])),
            crop_box=crop.box,
        )

    def clean(self, segments: list[Segment]) -> list[Segment]:
        """Remove small holes and specks, and masks that became duplicates of others by it."""
        size = self.parameters.min_mask_region_area
        changed = [cleaned(s.mask, size) for s in segments]
        untouched = [new is s.mask for new, s in zip(changed, segments, strict=True)]
        for s, new in zip(segments, changed, strict=True):
            if new is not s.mask:
                s.mask, s.box = new, inclusive_box(new)
        if segments and not all(untouched):
            boxes = torch.tensor([s.box for s in segments])
            limit = max(self.parameters.box_nms_thresh, self.parameters.crop_nms_thresh)
            keep = sorted(suppress(boxes, torch.tensor(untouched).float(), limit))
            segments = [segments[i] for i in keep]
        self.notes.append(
            f"holes and specks below {size} pixels were removed from the final masks; stock sam2 without its CUDA extension leaves them"
        )
        return segments

    def records(self, segments: Sequence[Segment]) -> tuple[Mask, ...]:
        start = time.perf_counter()
        masks = tuple(record(s, i, self.height, self.width) for i, s in enumerate(segments))
        self.clock.add("rle", start)
        return masks


def point_grids(p: AutoParameters) -> list[npt.NDArray[np.float64]]:
    """Normalised grids (N, 2), one per crop layer."""
    from sam2.utils.amg import build_all_layer_point_grids

    if p.point_grids is not None:
        return [np.array(g, dtype=np.float64).reshape(-1, 2) for g in p.point_grids]
    return build_all_layer_point_grids(  # type: ignore[no-any-return]
        p.points_per_side, p.crop_n_layers, p.crop_n_points_downscale_factor
    )


def crop_boxes(height: int, width: int, p: AutoParameters) -> list[tuple[tuple[int, int, int, int], int]]:
    """XYXY boxes of all crops with their layer; the whole image first."""
    from sam2.utils.amg import generate_crop_boxes

    boxes, layers = generate_crop_boxes((height, width), p.crop_n_layers, p.crop_overlap_ratio)
    return [((x0, y0, x1, y1), layer) for (x0, y0, x1, y1), layer in zip(boxes, layers, strict=True)]


def batches(points: npt.NDArray[np.float64], size: int) -> Iterator[npt.NDArray[np.float64]]:
    for i in range(0, len(points), size):
        yield points[i : i + size]
