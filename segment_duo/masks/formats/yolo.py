"""YOLO segmentation text: a line per mask, the class number and one polygon in fractions of width and height."""

from __future__ import annotations

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import DEFAULT_LABEL, MAX_IMPORT_BYTES, canvas, new_mask, ring_array
from segment_duo.masks.outlines import outline_parts, rle_of_rings, single_ring
from segment_duo.types import Mask, MaskSet


def dump(mask_set: MaskSet, labels: list[str]) -> bytes:
    """Lines of a label file; the class number is the label's place in ``labels``. Parts and holes are joined by slits of no width."""
    height, width = canvas(mask_set)
    lines = []
    for mask in mask_set.masks:
        ring = single_ring(outline_parts(mask.rle))
        if ring:
            # 8 digits are 1/1000 of a pixel at 100 000 pixels: pixel centres stay on their side.
            numbers = " ".join(f"{x / width:.8g} {y / height:.8g}" for x, y in ring)
            lines.append(f"{labels.index(mask.label or DEFAULT_LABEL)} {numbers}\n")
    return "".join(lines).encode()


def load(data: bytes, height: int, width: int) -> list[Mask]:
    """Masks from a label file. Without the names of the classes, class 0 has no label and others are called by their number.

    Raises:
        MaskFileError: with the line's number.
    """
    import numpy as np

    if len(data) > MAX_IMPORT_BYTES:
        raise MaskFileError(f"is too large ({len(data)} bytes)")
    masks: list[Mask] = []
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            class_number, values = int(words[0]), np.array([float(word) for word in words[1:]])
        except ValueError:
            raise MaskFileError(f"line {number} holds something else than numbers") from None
        if len(values) < 6 or len(values) % 2:
            raise MaskFileError(f"line {number} is no polygon: {len(values)} numbers after the class")
        try:
            ring = ring_array(values.reshape(-1, 2) * (width, height), width, height)
        except MaskFileError as error:
            raise MaskFileError(f"line {number}: {error.message}") from None
        label = f"class {class_number}" if class_number else ""
        masks.append(new_mask(rle_of_rings([ring], height, width), len(masks), label=label))
    return masks
