"""What the formats share: the size of a set, making masks from what was read, safe JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from segment_duo.errors import MaskFileError
from segment_duo.types import Mask, MaskSet, MaskSource, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_IMPORT_BYTES = 512 * 1024**2
"""Largest import file, and largest sum of what an archive unpacks to."""
DEFAULT_LABEL = "object"
"""Written where a format wants a class and the mask has no label; read back as no label."""


def canvas(mask_set: MaskSet) -> tuple[int, int]:
    """``(height, width)`` of the uncut image.

    Raises:
        MaskFileError: the set is empty and does not name its image.
    """
    if mask_set.masks:
        return mask_set.masks[0].rle.height, mask_set.masks[0].rle.width
    if mask_set.provenance.image is not None:
        return mask_set.provenance.image.height, mask_set.provenance.image.width
    raise MaskFileError("the set is empty and does not say the size of its image")


def file_name(mask_set: MaskSet, fallback: str) -> str:
    """Bare name of the image a set belongs to."""
    image = mask_set.provenance.image
    name = image.path.replace("\\", "/").rsplit("/", 1)[-1] if image else ""
    return name or fallback


def new_mask(
    rle: Rle,
    position: int,
    *,
    label: object = "",
    extra: Mapping[str, Any] | None = None,
) -> Mask:
    """A mask from an import; ``extra`` may hold the fields of a record, which are taken where they are sound."""
    from segment_duo.masks.rle import area, bounding_box

    extra = extra or {}
    name = label if isinstance(label, str) else ""
    source: MaskSource = "import"
    if extra.get("source") in ("auto", "prompt", "import"):
        source = extra["source"]
    crop = extra.get("crop_box")
    points = tuple((float(p[0]), float(p[1])) for p in _list(extra.get("point_coords")) if is_numbers(p, 2))
    labels = tuple(int(n) for n in _list(extra.get("point_labels")) if n in (0, 1))
    identity = extra.get("id")
    return Mask(
        rle=rle,
        area=area(rle),
        bbox=bounding_box(rle),
        id=identity if type(identity) is int and abs(identity) < 2**53 else position,
        predicted_iou=_float(extra.get("predicted_iou")),
        stability_score=_float(extra.get("stability_score")),
        point_coords=points,
        point_labels=labels if len(labels) == len(points) else (),
        crop_box=(float(crop[0]), float(crop[1]), float(crop[2]), float(crop[3]))
        if crop is not None and is_numbers(crop, 4)
        else None,
        label="" if name == DEFAULT_LABEL else name[:1000],
        source=source,
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def extras(mask: Mask) -> dict[str, Any]:
    """The fields of a mask that formats have no place for, for their free-form part; read back by :func:`new_mask`."""
    return {
        "id": mask.id,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
        "point_coords": [list(point) for point in mask.point_coords],
        "point_labels": list(mask.point_labels),
        "crop_box": None if mask.crop_box is None else list(mask.crop_box),
        "source": str(mask.source),
    }


def is_numbers(value: object, count: int) -> bool:
    """A list or tuple of ``count`` numbers, none of them NaN or beyond any image."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == count
        and all(isinstance(n, (int, float)) and abs(n) < 1e15 for n in value)
    )


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e15 else None


def ring_array(points: object, width: int, height: int) -> npt.NDArray[np.float64]:
    """A ring from a list of x, y pairs, float64, shape (N, 2).

    Raises:
        MaskFileError: other things, fewer than three points, or far outside the image.
    """
    import numpy as np

    try:
        ring = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        raise MaskFileError("a polygon holds something else than numbers") from None
    if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3:
        raise MaskFileError(f"a polygon has the shape {ring.shape}; three points or more of x and y are needed")
    ring = ring[:, :2]
    if not np.isfinite(ring).all() or abs(ring).max() > 100 * max(width, height) + 1000:
        raise MaskFileError(f"a polygon lies far outside the image of {width} x {height}")
    return ring


def read_json(data: bytes) -> Any:
    """Parse JSON of an import file.

    Raises:
        MaskFileError: too large, nested too deeply, or not JSON; with line and column.
    """
    if len(data) > MAX_IMPORT_BYTES:
        raise MaskFileError(f"is too large ({len(data)} bytes, the limit is {MAX_IMPORT_BYTES})")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise MaskFileError("is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise MaskFileError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        # Whole numbers of thousands of digits, which Python refuses to convert.
        raise MaskFileError(f"holds a number that cannot be read ({str(error)[:80]})") from None
    except RecursionError:
        raise MaskFileError("is nested too deeply") from None


def write_json(value: object) -> bytes:
    """Compact UTF-8 JSON; NaN and infinities are refused, as JSON has none."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def only_dicts(value: object, what: str) -> list[dict[str, Any]]:
    """A list of objects.

    Raises:
        MaskFileError: something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MaskFileError(f"has no list of {what}")
    return value


def check_size(found: tuple[int, int], height: int, width: int) -> None:
    """Raise MaskFileError unless ``found`` (height, width) is the image's size."""
    if found != (height, width):
        raise MaskFileError(f"is for an image of {found[1]} x {found[0]}, the image is {width} x {height}")


def distinct_labels(sets: Iterable[MaskSet]) -> list[str]:
    """Labels in use, sorted, "object" for none; at least one."""
    return sorted({mask.label or DEFAULT_LABEL for mask_set in sets for mask in mask_set.masks}) or [DEFAULT_LABEL]
