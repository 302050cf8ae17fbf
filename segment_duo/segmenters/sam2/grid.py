"""One automatic run: grid points to candidates, candidates to segments. Whole image, crops and tiles are built on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segment_duo.boxes import ends
from segment_duo.errors import Cancelled
from segment_duo.masks.cropped import CroppedMask
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import AutomaticRun, EmbedCrop, OnProgress, Reusable, never, no_progress
from segment_duo.segmenters.sam2 import adaptive, screened
from segment_duo.segmenters.sam2.candidates import Candidates, CropCandidates, GridCandidate, Margins, lowest_level
from segment_duo.segmenters.sam2.nested import without_nested
from segment_duo.segmenters.sam2.nms import suppress
from segment_duo.segmenters.sam2.segments import Segment, cleaned, record
from segment_duo.segmenters.sam2.upsample import Upsampler, cut_out
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding
    from segment_duo.segmenters.sam2.prompting import PointModel


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
        predictor: PointModel,
        parameters: AutoParameters,
        pixels: npt.NDArray[np.uint8],
        *,
        embedding: Sam2Embedding | None = None,
        embed_crop: EmbedCrop | None = None,
        on_progress: OnProgress = no_progress,
        should_cancel: Callable[[], bool] = never,
    ) -> None:
        self.predictor = predictor
        self.exact = parameters.exact and not parameters.fast
        self.decoding = predictor if self.exact else predictor.reassociated
        self.screening = None if self.exact else predictor.screening
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
        self.points_again = 0
        self.margins: Margins | None = None
        self._last: tuple[tuple[int, int, int, int], Sam2Embedding] | None = None

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
            self.points_again += part.points_again
            self._widen(part.margins)
            self.notes += [note for note in part.notes if note not in self.notes]
            for stage, seconds in part.clock.seconds.items():
                self.clock.seconds[stage] = self.clock.seconds.get(stage, 0.0) + seconds
        self.note_mode()

    def check(self) -> None:
        if self.should_cancel():
            raise Cancelled("automatic mask generation was cancelled")

    def note_mode(self) -> None:
        """Write down what was not done as in the exact mode."""
        if self.parameters.fast:
            self.notes.append(adaptive.note(self.points_decoded, self.points_done))
        if self.decoding is not self.predictor:
            half = None if self.screening is None else self.screening.half
            self.notes += screened.notes(self.points_again, self.points_decoded, self.margins, half)

    def _widen(self, margins: Margins | None) -> None:
        if margins is not None:
            self.margins = margins if self.margins is None else self.margins.merged(margins)

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
            crop = CropCandidates(box, layer, self.predictor.low_size)
            found.crops.append(crop)
            self._decode_grid(crop, grid, lambda: self.on_progress("points", self.points_done, total))
            self.final(crop)
        return found

    def decode_window(
        self, box: tuple[int, int, int, int], core: tuple[int, int, int, int], grid: npt.NDArray[np.float64]
    ) -> CropCandidates:
        """Decode a tile's window: the grid is laid over its core."""
        x0, y0 = box[:2]
        points = self.crop_points(core, grid) + np.array([[core[0] - x0, core[1] - y0]])
        crop = CropCandidates(box, 0, self.predictor.low_size)
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
        if self.screening is not None and len(points) >= screened.LEAST_POINTS:
            start = time.perf_counter()
            crop.screen = screened.calibrated(self.screening, self.decoding, embedding, points, self.check)
            self.clock.add("decoder", start)
        if not self.parameters.fast:
            for batch in self.batches(points):
                crop.masks += self._first_pass(crop, embedding, batch)
                self.points_done += len(batch)
                report()
            return
        up = self.predictor.upsampler(crop.low_size, embedding.height, embedding.width)
        coverage = adaptive.Coverage(self.parameters, crop.low_size, up.canvas)
        for level in adaptive.levels(points):
            for batch in self.batches(coverage.unexplained(level)):
                fresh = self._first_pass(crop, embedding, batch)
                crop.masks += fresh
                coverage.add(fresh)
            self.points_done += len(level)
            report()

    def batches(self, points: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[np.float64]]:
        size = self.parameters.points_per_batch or STOCK_BATCH
        for i in range(0, len(points), size):
            yield points[i : i + size]

    def _first_pass(
        self, crop: CropCandidates, embedding: Sam2Embedding, points: npt.NDArray[np.float64]
    ) -> list[GridCandidate]:
        self.points_decoded += len(points)
        if crop.screen is None:
            return self.decode(self.decoding, embedding, points)
        assert self.screening is not None
        return self.decode(self.screening, embedding, points, slack=crop.screen.margins.predicted_iou)

    def final(self, crop: CropCandidates, *, drop_at_edge: bool = True) -> list[GridCandidate]:
        """A crop's candidates in float32: those that its first pass made, or what the screen lets through, decoded again."""
        screen = crop.screen
        if screen is None:
            return crop.masks

        def decode(points: npt.NDArray[np.float64]) -> list[GridCandidate]:
            embedding = self.embed(crop.box)
            return [c for batch in self.batches(points) for c in self.decode(self.decoding, embedding, batch)]

        def near_edge(boxes: npt.NDArray[np.float64], inwards: float) -> npt.NDArray[np.bool_]:
            moved = torch.from_numpy(boxes + inwards * np.array([1, 1, -1, -1]))
            return self._near_edge(crop, moved).numpy() if drop_at_edge else np.zeros(len(boxes), dtype=bool)

        before = screen.again
        self._measure_all(crop, crop.masks)
        found = screened.confirm(screen, crop.masks, self.parameters, decode, near_edge)
        self.points_again += screen.again - before
        self._widen(screen.margins)
        return found

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
        if self._last is not None and self._last[0] == box:
            return self._last[1]

        def compute() -> Sam2Embedding:
            return self.predictor.embed(self.pixels[y0:y1, x0:x1])

        cache = self.embed_crop
        embedding = self.clock.run("encoder", compute if cache is None else lambda: cache(box, compute))
        self._last = (box, embedding)
        return embedding

    def decode(
        self, predictor: PointModel, embedding: Sam2Embedding, points: npt.NDArray[np.float64], *, slack: float = 0.0
    ) -> list[GridCandidate]:
        """Candidates of one batch of points in crop pixels, in stock's order; filtered by predicted IoU only.

        Args:
            predictor: decodes them.
            slack: how far below the threshold predicted IoU may be.
        """
        start = time.perf_counter()
        p = self.parameters
        limit = p.pred_iou_thresh - slack if p.pred_iou_thresh > 0.0 else None
        in_crop = torch.as_tensor(points, dtype=torch.float32, device=predictor.device)
        # Up-scaling masks that the filter drops would be wasted, unless a second pass is to improve them.
        least = None if p.use_m2m else limit
        found = predictor.decode_points(
            embedding, in_crop, multimask_output=p.multimask_output, least_iou=least, check=self.check
        )
        masks, iou = found.masks, found.iou
        per_point = masks.shape[1]
        at = in_crop[found.rows].repeat_interleave(per_point, dim=0)
        tokens = torch.arange(per_point, device=at.device).repeat(len(masks))
        masks, iou = masks.flatten(0, 1), iou.flatten()
        if p.use_m2m:
            masks, iou = self._refine(predictor, embedding, at, masks)
        if limit is not None:
            keep = (iou > limit).nonzero().flatten()
            masks, iou, at, tokens = masks[keep], iou[keep], at[keep], tokens[keep]
        start = self.clock.add("decoder", start)
        cuts = cut_out(masks, lowest_level(p))
        scores, at, tokens = iou.cpu(), at.cpu(), tokens.cpu()
        out = [GridCandidate(cut, scores[i], at[i], token=int(tokens[i])) for i, cut in enumerate(cuts)]
        up = self.predictor.upsampler(self.predictor.low_size, embedding.height, embedding.width)
        for candidate in out:
            self.measure(up, candidate)
        self.clock.add("masks", start)
        return out

    def _refine(
        self, predictor: PointModel, embedding: Sam2Embedding, points: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Second pass with the first pass's logits as mask input (``use_m2m``)."""
        size = self.parameters.points_per_batch or STOCK_BATCH
        refined, scores = [], []
        for i in range(0, len(points), size):
            previous = masks[i : i + size, None].clamp(-32.0, 32.0)
            found = predictor.decode_points(
                embedding, points[i : i + size], multimask_output=False, mask_input=previous, check=self.check
            )
            refined.append(found.masks.squeeze(1))
            scores.append(found.iou.squeeze(1))
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
        p = self.parameters
        masks = self.final(crop, drop_at_edge=drop_at_edge)
        if p.pred_iou_thresh > 0.0:
            masks = [c for c in masks if bool(c.predicted_iou > p.pred_iou_thresh)]
        self._measure_all(crop, masks)
        if p.stability_score_thresh > 0.0:
            # Compared as float32, as torch does: a Python float would be compared in double precision.
            masks = [
                c for c in masks if c.measured is not None and bool(c.measured.stability >= p.stability_score_thresh)
            ]
        if not masks:
            return []
        boxes = torch.stack([c.measured.box for c in masks if c.measured is not None])
        if drop_at_edge:
            near = self._near_edge(crop, boxes)
            masks = [c for c, edge in zip(masks, near.tolist(), strict=True) if not edge]
            boxes = boxes[~near]
        if not masks:
            return []
        order = suppress(boxes, torch.stack([c.predicted_iou for c in masks]), p.box_nms_thresh)
        return [masks[i] for i in order]

    def _near_edge(self, crop: CropCandidates, boxes: Tensor) -> Tensor:
        """Which boxes (N, 4), XYXY in crop pixels, end at the crop's edge, and not at the image's."""
        from sam2.utils.amg import is_box_near_crop_edge

        return is_box_near_crop_edge(boxes, list(crop.box), [0, 0, self.width, self.height])  # type: ignore[no-any-return]

    def _measure_all(self, crop: CropCandidates, masks: Sequence[GridCandidate]) -> None:
        x0, y0, x1, y1 = crop.box
        up = self.predictor.upsampler(crop.low_size, y1 - y0, x1 - x0)
        for i, c in enumerate(masks):
            if i % 64 == 0:
                self.check()
            self.measure(up, c)

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
        up = self.predictor.upsampler(crop.low_size, y1 - y0, x1 - x0)
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
                s.mask, s.box = new, ends(new.box)
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
        """What is returned of the segments of all crops, tiles and scales: without nested ones, numbered in their order."""
        start = time.perf_counter()
        limit = self.parameters.containment_thresh
        if limit < 1:
            before, segments = len(segments), without_nested(segments, limit)
            if len(segments) < before:
                self.notes.append(
                    f"{before - len(segments)} masks that lay in better ones were dropped; stock sam2 keeps them"
                )
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
