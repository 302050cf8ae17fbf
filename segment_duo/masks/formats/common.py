"""What the formats share: the size of a set, making masks from what was read, safe JSON."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segment_duo.errors import MaskFileError
from segment_duo.text import well_formed
from segment_duo.types import Mask, MaskSet, MaskSource, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_IMPORT_BYTES = 512 * 1024**2
"""Largest import file, and largest sum of what an archive unpacks to."""
NAMED = 10
"""Things an import leaves out that are named one by one; the rest is counted."""
DEFAULT_LABEL = "object"
"""Written where a format wants a class and the mask has no label; read back as no label."""


@dataclass(slots=True)
class Gathered:
    """What an import takes, and what it leaves out: one policy for every format.

    Good masks are taken; what is not good is named and counted; the file is refused only when nothing is left of it.

    Attributes:
        thing: what the format calls an entry: shape, feature, ROI, ...
        notices: sentences about what was taken.
    """

    thing: str
    masks: list[Mask] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def leave_out(self, what: str, why: str) -> None:
        """Note an entry that is not taken."""
        self.left_out.append((what, why))

    def take(
        self, what: str, read: Callable[[], Rle], *, label: object = "", extra: Mapping[str, Any] | None = None
    ) -> bool:
        """Add the mask that ``read`` gives, or note why it has none; outlines without a pixel of the image are no masks."""
        try:
            rle = read()
        except MaskFileError as error:
            self.leave_out(what, error.message)
            return False
        mask = new_mask(rle, len(self.masks), label=label, extra=extra)
        if not mask.area:
            self.leave_out(what, f"covers no pixel of the image of {rle.width} x {rle.height}")
            return False
        self.masks.append(mask)
        return True

    def result(self) -> tuple[list[Mask], list[str]]:
        """Masks and notices.

        Raises:
            MaskFileError: things were left out and nothing is left.
        """
        lost = len(self.left_out)
        if lost and not self.masks:
            what, why = self.left_out[0]
            also = f" (and {lost - 1} more)" if lost > 1 else ""
            raise MaskFileError(f"holds nothing that can be used: {what}: {why}{also}")
        notices = [f"{what} is left out: {why}" for what, why in self.left_out[:NAMED]]
        if lost > 1:
            notices.append(f"{lost} of {lost + len(self.masks)} {self.thing}s are left out")
        return self.masks, [*self.notices, *notices]


_WHOLE = re.compile(r"\s*([-+]?\d+)(?:\.0*)?\s*", re.ASCII)


def whole(value: object) -> int | None:
    """A whole number, however it is written (``7``, ``7.0``, ``"7"``); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        # Digit by digit: as a float a long id would become its neighbour, and Python reads 2024_01 and 1e5 as numbers too.
        written = _WHOLE.fullmatch(value) if len(value) < 40 else None
        return int(written[1]) if written else None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and math.isfinite(value) and value == int(value) else None


def key_of(value: object) -> str:
    """An id as text that can be compared: files write the same one as ``1``, ``1.0`` and ``"1"``."""
    number = whole(value)
    return str(value) if number is None else str(number)


def bare_name(path: object) -> str:
    """The last component of a path of any system, in one Unicode form."""
    return unicodedata.normalize("NFC", str(path)).replace("\\", "/").rsplit("/", 1)[-1]


def stem_of(path: object) -> str:
    name = bare_name(path)
    return name.rpartition(".")[0] or name


_UPLOADED = re.compile(r"^[0-9a-f]{6,}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""


def same_image(path: object, name: str) -> bool:
    """Whether a file's word for its image may mean ``name``: folder and extension do not count."""
    return name in (bare_name(path), stem_of(path)) or stem_of(name) in (
        stem_of(path),
        _UPLOADED.sub("", stem_of(path)),
    )


def name_notice(path: object, image_name: str) -> list[str]:
    """A sentence when a file says that it was made for an image of another name."""
    if not image_name or not isinstance(path, str) or not path or same_image(path, image_name):
        return []
    return [f"the file was made for {bare_name(path)[:200]}"]


def check_stated_size(height: object, width: object, image_height: int, image_width: int) -> None:
    """Raise MaskFileError when a file states another size, in whatever way it writes numbers; a size it does not state is not checked."""
    stated = [_number(value) for value in (height, width)]
    if any(number not in (None, size) for number, size in zip(stated, (image_height, image_width), strict=True)):
        h, w = ("?" if number is None else f"{number:g}" for number in stated)
        raise MaskFileError(f"is for an image of {w} x {h}, the image is {image_width} x {image_height}")


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 40 else None
        except ValueError:
            return None
    return (
        float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 else None
    )


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
    numeric = isinstance(label, (int, float)) and not isinstance(label, bool)
    name = label if isinstance(label, str) else key_of(label)[:50] if numeric else ""
    source: MaskSource = "import"
    if extra.get("source") in ("auto", "prompt", "import"):
        source = extra["source"]
    crop = extra.get("crop_box")
    points = tuple((float(p[0]), float(p[1])) for p in _list(extra.get("point_coords")) if is_numbers(p, 2))
    labels = tuple(int(n) for n in _list(extra.get("point_labels")) if n in (0, 1))
    identity = whole(extra.get("id"))
    return Mask(
        rle=rle,
        area=area(rle),
        bbox=bounding_box(rle),
        id=identity if identity is not None and abs(identity) < 2**53 else position,
        predicted_iou=_float(extra.get("predicted_iou")),
        stability_score=_float(extra.get("stability_score")),
        point_coords=points,
        point_labels=labels if len(labels) == len(points) else (),
        crop_box=(float(crop[0]), float(crop[1]), float(crop[2]), float(crop[3]))
        if crop is not None and is_numbers(crop, 4)
        else None,
        label="" if name == DEFAULT_LABEL else well_formed(name[:1000]),
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
        raise MaskFileError("an outline holds something else than numbers") from None
    if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3:
        raise MaskFileError(f"an outline of {len(ring) if ring.ndim else 0} points; it needs three or more of x and y")
    ring = ring[:, :2]
    if not np.isfinite(ring).all() or abs(ring).max() > 100 * max(width, height) + 1000:
        raise MaskFileError(f"an outline lies far outside the image of {width} x {height}")
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


def objects_of(value: object, what: str) -> list[dict[str, Any]]:
    """The objects of a list. An entry that is none is given as an empty one, so that its reader leaves it out by its place.

    Raises:
        MaskFileError: something else than a list, or nothing in it is an object.
    """
    if not isinstance(value, list) or (value and not any(isinstance(item, dict) for item in value)):
        raise MaskFileError(f"has no list of {what}")
    return [item if isinstance(item, dict) else {} for item in value]


def check_size(found: tuple[int, int], height: int, width: int) -> None:
    """Raise MaskFileError unless ``found`` (height, width) is the image's size."""
    if found != (height, width):
        raise MaskFileError(f"is for an image of {found[1]} x {found[0]}, the image is {width} x {height}")
