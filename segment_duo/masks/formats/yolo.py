"""YOLO segmentation text: a line per mask, the class number and one polygon in fractions of width and height."""

from __future__ import annotations

from functools import partial

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import (
    DEFAULT_LABEL,
    MAX_IMPORT_BYTES,
    Gathered,
    canvas,
    key_of,
    ring_array,
    whole,
)
from segment_duo.masks.outlines import outline_parts, rle_of_rings, single_ring
from segment_duo.types import Mask, MaskSet, Rle


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


def looks_like(data: bytes) -> bool:
    """Whether the first lines are those of a label file: a class number, then coordinates between 0 and 1."""
    head = data[:65536].decode("utf-8-sig", errors="replace")
    lines = [line.split() for line in (head if len(data) <= 65536 else head.rpartition("\n")[0]).splitlines()]
    lines = [words for words in lines if words]
    try:
        rows = [[float(word) for word in words] for words in lines]
    except ValueError:
        return False
    return bool(rows) and all(
        len(row) >= 5 and row[0] >= 0 and row[0] == int(row[0]) and all(-0.1 <= n <= 1.1 for n in row[1:])
        for row in rows
        if abs(row[0]) < 1e9
    )


def load(data: bytes, height: int, width: int) -> tuple[list[Mask], list[str]]:
    """Masks from a label file, and what was left out, by its line.

    Classes are called by their number (the file does not have their names); in a file of class 0 alone masks have no label. An odd number
    after the polygon is the score that YOLO's predictions end with; behind it those of tracking have the track's id, which becomes the mask's.
    """
    if len(data) > MAX_IMPORT_BYTES:
        raise MaskFileError(f"is too large ({len(data)} bytes)")
    lines = [line.split() for line in data.decode("utf-8-sig", errors="replace").splitlines()]
    single = all(whole(words[0]) == 0 for words in lines if words)
    tracked = _are_ids([words[-1] for words in lines if words])
    found = Gathered("line")
    for number, words in enumerate(lines, 1):
        if words:
            identity = words.pop() if tracked and len(words) > 1 else None
            label = "" if single else f"class {key_of(words[0])[:50]}"
            score = words[-1] if len(words) % 2 == 0 and len(words) > 7 else None
            found.take(
                f"line {number}",
                partial(_polygon, words, height, width),
                label=label,
                extra={"predicted_iou": _score(score), "id": identity},
            )
    return found.result()


def _are_ids(ends: list[str]) -> bool:
    """Whether lines end with tracks' ids: all of them whole numbers from 1, and one at least too large for a coordinate."""
    numbers = [whole(end) or 0 for end in ends]
    return min(numbers, default=0) >= 1 and max(numbers) > 1


def _score(word: str | None) -> float | None:
    try:
        value = float(word or "")
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _polygon(words: list[str], height: int, width: int) -> Rle:
    import numpy as np

    class_number = whole(words[0])
    try:
        values = np.array([float(word) for word in words[1:]])
    except ValueError:
        raise MaskFileError("holds something else than numbers") from None
    if class_number is None or class_number < 0:
        raise MaskFileError(f"does not begin with the number of a class but with {words[0][:20]}")
    if len(values) == 4:
        raise MaskFileError("a box has no outline")
    if len(values) % 2 and len(values) > 6:
        values = values[:-1]
    if len(values) < 6 or len(values) % 2:
        raise MaskFileError(f"is no polygon: {len(values)} numbers after the class")
    if not np.isfinite(values).all() or values.max() > 2 or values.min() < -1:
        raise MaskFileError("holds no fractions of the image's width and height")
    return rle_of_rings([ring_array(values.reshape(-1, 2) * (width, height), width, height)], height, width)
