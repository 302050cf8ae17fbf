"""The mask set file: written as plain builtins, read without trusting it.

    pickle 1   list of dicts, SAM's record convention with COCO runs: what ``pickle.load`` alone gives, anywhere
    pickle 2   dict, the provenance, with the format's name and version

Reading takes both generations of the predecessor's files too, and lists of stock SAM 2 records. ``docs/storage-format.md`` describes the
fields. Nothing here knows where files lie.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from segment_duo.boxes import sam, whole
from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.provenance_record import (
    integer,
    origin_record,
    provenance_record,
    read_origin,
    read_provenance,
)
from segment_duo.masks.load_masks import (
    LEGACY_CLASS,
    MAX_BYTES,
    MAX_PIXELS,
    ArrayData,
    DamagedMaskFile,
    Instance,
    boolean_array,
    checked_shape,
    fields_of,
    inflated,
    read_objects,
    records_of,
    spans_of,
)
from segment_duo.provenance import derived, origins
from segment_duo.text import well_formed
from segment_duo.types import Mask, MaskSet, MaskSource, Origin, Provenance, Rle

PICKLE_PROTOCOL = 4
"""Read by every Python since 3.4."""

_T = TypeVar("_T")
_VERBS = frozenset({"asks", "calls", "holds", "is", "says", "uses"})


# --- writing ----------------------------------------------------------------------------------------------------------------


def dumps(mask_set: MaskSet, *, legacy: bool = False) -> bytes:
    """Bytes of a mask set file.

    Args:
        mask_set: masks of one size with unique ids.
        legacy: write ``segmentation`` as the predecessor did (base64 of zlib of int32 pixel indices), with ``shape``, for its web app.

    Raises:
        MaskFileError: sizes differ, ids repeat, or a parameter is not plain data.
    """
    sizes = {(mask.rle.height, mask.rle.width) for mask in mask_set.masks}
    image = mask_set.provenance.image
    if image is not None and mask_set.masks:
        sizes.add((image.height, image.width))
    if len(sizes) > 1:
        raise MaskFileError("masks of one set must have the size of its image, here are " + _sizes(sizes))
    if len({mask.id for mask in mask_set.masks}) != len(mask_set.masks):
        raise MaskFileError("masks of one set must have different ids")
    records, provenance = set_records(mask_set, legacy=legacy)
    return pickle.dumps(records, PICKLE_PROTOCOL) + pickle.dumps(provenance, PICKLE_PROTOCOL)


def set_records(mask_set: MaskSet, *, legacy: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of a set, each with the number of its origin, and the provenance that lists the origins."""
    found = origins(mask_set.masks)
    numbers = {id(mask.origin): found.index(mask.origin) for mask in mask_set.masks if mask.origin is not None}
    records = [to_record(mask, legacy=legacy) | {"origin": numbers.get(id(mask.origin))} for mask in mask_set.masks]
    return records, provenance_record(mask_set.provenance) | {"origins": [origin_record(one) for one in found]}


def to_record(mask: Mask, *, legacy: bool = False) -> dict[str, Any]:
    """One mask as a dict of plain builtins (JSON can hold it too), in SAM's record convention plus id, label, source and point_labels."""
    rle = mask.rle
    crop = mask.crop_box or whole(rle.height, rle.width)
    record: dict[str, Any] = {
        "segmentation": {"size": [int(rle.height), int(rle.width)], "counts": str(rle.counts)},
        "area": int(mask.area),
        "bbox": list(sam(mask.bbox)),
        "predicted_iou": _number(mask.predicted_iou),
        "point_coords": [[float(x), float(y)] for x, y in mask.point_coords],
        "point_labels": [int(n) for n in mask.point_labels],
        "stability_score": _number(mask.stability_score),
        "crop_box": [float(n) for n in crop],
        "id": int(mask.id),
        "label": str(mask.label),
        "source": str(mask.source),
    }
    if legacy:
        import base64
        import zlib

        from segment_duo.masks.rle import to_indices

        packed = zlib.compress(to_indices(rle).astype("<i4").tobytes(), 6)
        record["segmentation"] = base64.b64encode(packed).decode("ascii")
        record["shape"] = [int(rle.height), int(rle.width)]
        # The predecessor's model knows numbers only, -1 for "nobody computed it".
        for key in ("predicted_iou", "stability_score"):
            record[key] = -1.0 if record[key] is None else record[key]
    return record


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


# --- reading ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peek:
    """What is known of a file without decoding its masks (and without NumPy).

    ``count``: masks; of a sequence set objects, and ``frames`` how many it holds, which is None for sets of one image.
    """

    count: int
    provenance: Provenance
    generation: Literal["segment_duo", "web", "records"]
    frames: int | None = None


def peek(data: bytes, *, name: str = "") -> Peek:
    """Number of masks and provenance of a file of any generation.

    Raises:
        MaskFileError: as :func:`loads`, short of the masks themselves.
    """
    return _guarded(lambda: _peek(data), data, name)


def loads(
    data: bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    left_out: list[tuple[str, str]] | None = None,
) -> MaskSet:
    """Read a mask set of ours, of either generation of the predecessor, or a pickled list of stock SAM 2 records.

    Areas and boxes are those of the masks themselves; in a file of ours a differing area is damage. The predecessor's ``predicted_iou`` of -1
    becomes None with source ``prompt``; of several stability scores the highest is kept.

    Args:
        data: the file's bytes.
        name: how the user calls it, for messages.
        max_pixels: larger masks are refused before memory is taken for them.
        size: (height, width) of the image the masks are for; others are refused before they are decoded.
        left_out: where masks that cannot be read are noted ("mask 3" and why), in files that are not ours; without it, or in a file of
            ours, they end the reading.

    Raises:
        MaskFileError: it is something else, damaged, hostile, too large or inconsistent; the message names what was found.
    """
    return _guarded(lambda: _loads(data, max_pixels, size, left_out), data, name)


def _guarded(reader: Callable[[], _T], data: bytes, name: str) -> _T:
    try:
        return reader()
    except MemoryError:
        raise MaskFileError(
            f"{name or 'the mask file'} needs more memory than there is", "Read it on a larger machine."
        ) from None
    except (DamagedMaskFile, MaskFileError) as error:
        said = error.message if isinstance(error, MaskFileError) else str(error)
        hint = error.hint if isinstance(error, MaskFileError) else ""
        said = _found(data) or said
        if "(max_pixels)" in said:
            hint = "Allow it with --max-pixels N or the setting max_pixels."
        if LEGACY_CLASS in said:
            hint = "Its own program no longer saves it: make the masks anew with `segduo auto` or `segduo point`."
        # Most messages are a sentence without its subject ("is truncated"); the others ("mask 3: ...") stand for themselves.
        joint = " " if said.partition(" ")[0] in _VERBS else ": "
        raise MaskFileError(f"{name or 'the mask file'}{joint}{said}", hint) from None


def _found(data: bytes) -> str:
    """A better word for things that are often mistaken for mask files."""
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html")):
        return "is an HTML page, not a mask set"
    if head.startswith((b"{", b"[")) and not head.startswith(b"]"):
        return "is JSON, not a mask set"
    signatures = {
        b"\x89png": "a PNG image",
        b"ii*\x00": "a TIFF image",
        b"mm\x00*": "a TIFF image",
        b"\xff\xd8\xff": "a JPEG image",
        b"pk\x03\x04": "a ZIP archive (a torch checkpoint, an NPZ or a ROI archive)",
    }
    for signature, what in signatures.items():
        if head.startswith(signature):
            return f"is {what}, not a mask set"
    if head[:1] == b"x" and data[:2] in (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"):
        with contextlib.suppress(DamagedMaskFile):
            if LEGACY_CLASS.encode() in next(inflated(data, MAX_BYTES), b""):
                return f"holds the web app's oldest form of masks ({LEGACY_CLASS}), which is not read"
    return ""


def _peek(data: bytes) -> Peek:
    objects = read_objects(data)
    records = records_of(objects)
    for record in records:
        fields_of(record)
    if len(objects) > 1:
        return Peek(len(records), read_provenance(objects[1]), "segment_duo")
    web = any(isinstance(record, Instance) for record in records)
    return Peek(len(records), Provenance(), "web" if web else "records")


def _loads(
    data: bytes, max_pixels: int, size: tuple[int, int] | None, left_out: list[tuple[str, str]] | None
) -> MaskSet:
    objects = read_objects(data)
    ours = len(objects) > 1
    provenance = read_provenance(objects[1]) if ours else Provenance()
    origin_of = _origins(objects[1], provenance) if ours else (lambda _number: None)
    masks = []
    for position, record in enumerate(records_of(objects)):
        try:
            fields = fields_of(record)
            if size is not None:
                _check_size(fields, *size)
            mask = _read_record(fields, position, ours=ours, max_pixels=max_pixels)
            masks.append(replace(mask, origin=origin_of(fields.get("origin"))))
        except (DamagedMaskFile, MaskFileError) as error:
            if left_out is not None and not ours:
                left_out.append((f"mask {position + 1}", str(error)))
                continue
            raise DamagedMaskFile(f"mask {position + 1}: {error}") from None
    if not ours:
        masks = [replace(mask, id=position) for position, mask in enumerate(masks)]
    _check_consistent(masks, provenance)
    return MaskSet(tuple(masks), provenance)


def read_masks(
    records: Sequence[dict[str, Any]],
    origins: Sequence[Origin],
    *,
    size: tuple[int, int],
    max_pixels: int | None = None,
) -> tuple[Mask, ...]:
    """Masks of the records of one frame of a sequence set; ``size`` is (height, width) of the frame.

    Raises:
        DamagedMaskFile: a record is damaged, for a frame of another size, or of an id that is there already.
    """
    masks: list[Mask] = []
    for position, fields in enumerate(records):
        try:
            _check_size(fields, *size)
            mask = _read_record(fields, position, ours=True, max_pixels=max_pixels or MAX_PIXELS)
            masks.append(replace(mask, origin=_origin_of(origins, fields.get("origin"))))
        except (DamagedMaskFile, MaskFileError) as error:
            raise DamagedMaskFile(f"mask {position + 1}: {error}") from None
    if len({mask.id for mask in masks}) != len(masks):
        raise DamagedMaskFile("holds two masks with the same id")
    return tuple(masks)


def _check_size(fields: dict[str, Any], height: int, width: int) -> None:
    """Raise DamagedMaskFile when a record says that its mask has another size."""
    value = fields["segmentation"]
    said = value.get("size") if isinstance(value, dict) else fields.get("shape")
    if said is None and isinstance(value, ArrayData):
        said = value.shape[-2:]
    if said is None:
        return
    found = checked_shape(said)
    if found != (height, width):
        raise DamagedMaskFile(f"is for an image of {found[1]} x {found[0]}, the image is {width} x {height}")


def _origins(value: Mapping[str, Any], provenance: Provenance) -> Callable[[object], Origin | None]:
    """Tells the origin of a record by its number; in files of before there were origins, the one that the whole set has."""
    listed = value.get("origins")
    if listed is None:
        whole = derived(provenance)
        return lambda _number: whole
    try:
        known = [read_origin(one) for one in listed]
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedMaskFile(f"its origins are damaged ({type(error).__name__}: {str(error)[:80]})") from None

    return lambda number: _origin_of(known, number)


def _origin_of(known: Sequence[Origin], number: object) -> Origin | None:
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(known):
        raise DamagedMaskFile(f"its origin is {str(number)[:20]}, the set lists {len(known)}")
    return known[number]


def _check_consistent(masks: list[Mask], provenance: Provenance) -> None:
    sizes = {(mask.rle.height, mask.rle.width) for mask in masks}
    if len(sizes) > 1:
        raise DamagedMaskFile("holds masks of different sizes: " + _sizes(sizes))
    image = provenance.image
    if image is not None and sizes and sizes != {(image.height, image.width)}:
        raise DamagedMaskFile(f"holds masks of {_sizes(sizes)} for an image of {image.width} x {image.height}")
    if len({mask.id for mask in masks}) != len(masks):
        raise DamagedMaskFile("holds two masks with the same id")


def _sizes(sizes: set[tuple[int, int]]) -> str:
    return ", ".join(f"{width} x {height}" for height, width in sorted(sizes)[:4])


def _read_record(fields: dict[str, Any], position: int, *, ours: bool, max_pixels: int) -> Mask:
    from segment_duo.masks.rle import area, bounding_box

    rle = _read_segmentation(fields, max_pixels)
    pixels = area(rle)
    if ours and fields.get("area") != pixels:
        raise DamagedMaskFile(f"its area is said to be {str(fields.get('area'))[:20]}, it has {pixels} pixels")
    predicted, stability = _score(fields.get("predicted_iou")), _score(fields.get("stability_score"))
    prompted = not ours and fields.get("predicted_iou") is not None and predicted is None
    points = _points(fields.get("point_coords"))
    labels = _numbers(fields.get("point_labels")) or []
    crop = _numbers(fields.get("crop_box"))
    source = fields.get("source")
    return Mask(
        rle=rle,
        area=pixels,
        bbox=bounding_box(rle),
        id=integer(fields.get("id", position), "id"),
        predicted_iou=predicted,
        stability_score=stability,
        point_coords=points,
        point_labels=tuple(int(n) for n in labels) if len(labels) == len(points) else (),
        crop_box=(crop[0], crop[1], crop[2], crop[3]) if crop and len(crop) == 4 and any(crop) else None,
        label=well_formed(str(fields.get("label") or "")[:1000]),
        source=cast(MaskSource, source)
        if source in ("auto", "prompt", "import")
        else ("prompt" if prompted else "auto"),
    )


def _read_segmentation(fields: dict[str, Any], max_pixels: int) -> Rle:
    from segment_duo.masks import rle as codec

    value = fields["segmentation"]
    if isinstance(value, dict):
        height, width = checked_shape(value.get("size"), max_pixels)
        counts = value.get("counts")
        if isinstance(counts, list):
            return codec.from_counts(_numbers(counts) or [], height, width)
        text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
        if not isinstance(text, str):
            raise DamagedMaskFile(f"its run-length code is a {type(counts).__name__}")
        # Through the spans: another writer's empty runs become the one spelling that ours are compared by.
        return codec.from_spans(*codec.spans(Rle(height, width, text)), height, width)
    found = spans_of(fields, max_pixels)
    if found is not None:
        (starts, ends), height, width = found
        return codec.from_row_spans(starts, ends, height, width)
    array = boolean_array(value, fields, max_pixels)
    shape = fields.get("shape")
    if shape is not None and checked_shape(shape) != array.shape:
        raise DamagedMaskFile(f"its array has the shape {array.shape}, its record says {str(shape)[:40]}")
    return codec.encode(array)


def _numbers(value: object, limit: int = 100_000_000) -> list[float] | None:
    """A flat list of numbers from a list, tuple or array; None for anything else."""
    items = value.to_numpy().ravel().tolist() if isinstance(value, ArrayData) else value
    if not isinstance(items, (list, tuple)) or len(items) > limit:
        return None
    return [item for item in items if isinstance(item, (int, float))] if all(map(_is_number, items)) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _score(value: object) -> float | None:
    """One score from a number, or the highest of several; None when there is none or it is the predecessor's -1."""
    if isinstance(value, (int, float)):
        return float(value) if value >= 0 else None
    items = value
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], (list, tuple, ArrayData)):
        items = value[0]
    numbers = [number for number in _numbers(items) or [] if number >= 0]
    return float(max(numbers)) if numbers else None


def _points(value: object) -> tuple[tuple[float, float], ...]:
    """Points from a list of pairs, an array, or one bare pair."""
    items = value.to_numpy().tolist() if isinstance(value, ArrayData) else value
    if not isinstance(items, (list, tuple)):
        return ()
    flat = _numbers(items)
    pairs: list[object] = [flat] if flat and len(flat) == 2 else list(items)
    found = []
    for pair in pairs[:100_000]:
        numbers = _numbers(pair, 4)
        if numbers is None or len(numbers) != 2:
            return ()
        found.append((float(numbers[0]), float(numbers[1])))
    return tuple(found)
