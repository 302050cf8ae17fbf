"""Choosing masks by size, shape and place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from segment_duo.boxes import in_pixels
from segment_duo.errors import UsageError
from segment_duo.lengths import Length
from segment_duo.types import Box, ImageData, Mask, MaskSet, PixelSize


@dataclass(frozen=True, slots=True)
class MaskFilter:
    """Conditions a mask must meet; None asks nothing.

    Attributes:
        min_area, max_area: pixels, both included.
        min_diameter, max_diameter: equivalent diameter, both included.
        min_circularity, min_solidity: 0 to 1.
        min_predicted_iou, min_stability_score: 0 to 1; masks without the score do not meet them.
        exclude_edge: leave out masks that reach the image's border or the banner.
        inside_box, inside_mask: at least ``inside_share`` of the mask's pixels lie in the box, or in the mask with that id (itself left out).
        label, source: exactly this.
    """

    min_area: int | None = None
    max_area: int | None = None
    min_diameter: Length | None = None
    max_diameter: Length | None = None
    min_circularity: float | None = None
    min_solidity: float | None = None
    min_predicted_iou: float | None = None
    min_stability_score: float | None = None
    exclude_edge: bool = False
    inside_box: Box | None = None
    inside_mask: int | None = None
    inside_share: float = 0.5
    label: str | None = None
    source: str | None = None

    def parameters(self) -> dict[str, object]:
        """The conditions that are set, as JSON values, for the provenance of the new set."""
        out: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if isinstance(value, Length):
                value = f"{value.value:g}{value.unit}"
            elif isinstance(value, Box):
                value = [value.x0, value.y0, value.x1, value.y1]
            out[field.name] = value
        return out


def apply(
    mask_set: MaskSet, conditions: MaskFilter, image: ImageData | None = None, pixel_size: PixelSize | None = None
) -> tuple[Mask, ...]:
    """The masks that meet all conditions, in their order, unchanged.

    The banner's line counts as an edge; it comes from the image, else from the set's provenance.

    Raises:
        UsageError: a length in nm without a pixel size, or an unknown mask id.
    """
    from segment_duo.masks.measure import analysed_size, known_pixel_size, measure, touches_edge

    size = pixel_size or known_pixel_size(mask_set, image)
    lengths = (conditions.min_diameter, conditions.max_diameter)
    if size is None and any(length is not None and length.unit == "nm" for length in lengths):
        raise UsageError("the pixel size is not known, so nothing can be chosen by nm", "Add --pixel-size, or use px.")
    bottom = analysed_size(mask_set, image)[0]
    inside = _inside(mask_set, conditions)
    kept = [
        mask
        for mask in mask_set.masks
        if _cheap(mask, conditions)
        and not (conditions.exclude_edge and touches_edge(mask, bottom))
        and _within(_diameter(mask, None), "px", conditions)
        and (size is None or _within(_diameter(mask, size), "nm", conditions))
        and (inside is None or inside(mask))
    ]
    if conditions.min_circularity is not None or conditions.min_solidity is not None:
        # Shapes cost the most and are computed for what is left.
        rows = measure(MaskSet(tuple(kept), mask_set.provenance), None, size)
        kept = [
            mask
            for mask, row in zip(kept, rows, strict=True)
            if row.circularity >= (conditions.min_circularity or 0) and row.solidity >= (conditions.min_solidity or 0)
        ]
    return tuple(kept)


def _cheap(mask: Mask, want: MaskFilter) -> bool:
    def reaches(score: float | None, least: float | None) -> bool:
        return least is None or (score is not None and score >= least)

    return (
        (want.min_area is None or mask.area >= want.min_area)
        and (want.max_area is None or mask.area <= want.max_area)
        and reaches(mask.predicted_iou, want.min_predicted_iou)
        and reaches(mask.stability_score, want.min_stability_score)
        and (want.label is None or mask.label == want.label)
        and (want.source is None or mask.source == want.source)
    )


def _diameter(mask: Mask, size: PixelSize | None) -> float:
    area = mask.area * (1.0 if size is None else size.x_nm * size.y_nm)
    return 2 * math.sqrt(area / math.pi)


def _within(diameter: float, unit: str, want: MaskFilter) -> bool:
    low, high = want.min_diameter, want.max_diameter
    return (low is None or low.unit != unit or diameter >= low.value) and (
        high is None or high.unit != unit or diameter <= high.value
    )


def _inside(mask_set: MaskSet, want: MaskFilter) -> Callable[[Mask], bool] | None:
    """A test for a mask, or None."""
    from segment_duo.masks.rle import decode_crop, intersection

    if want.inside_box is None and want.inside_mask is None:
        return None
    box = want.inside_box
    outer = next((mask for mask in mask_set.masks if mask.id == want.inside_mask), None)
    if want.inside_mask is not None and outer is None:
        raise UsageError(f"the set has no mask {want.inside_mask}")

    def test(mask: Mask) -> bool:
        if not mask.area or mask is outer:
            return False
        if outer is not None and intersection(mask.rle, outer.rle) < want.inside_share * mask.area:
            return False
        if box is None:
            return True
        # A pixel lies in the box when its centre does; the centre of the first is 0.
        x, y, w, h = in_pixels(mask.bbox)
        x0, y0 = max(x, math.ceil(box.x0)), max(y, math.ceil(box.y0))
        x1, y1 = min(x + w, math.floor(box.x1) + 1), min(y + h, math.floor(box.y1) + 1)
        if x1 <= x0 or y1 <= y0:
            return False
        return int(decode_crop(mask.rle, x0, y0, x1 - x0, y1 - y0).sum()) >= want.inside_share * mask.area

    return test
