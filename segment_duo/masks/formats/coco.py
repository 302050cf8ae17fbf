"""COCO: the dataset file (``images``, ``annotations``, ``categories``), and SAM 1's bare list of records with COCO runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.classes import MaskClass, ordered_labels
from segment_duo.masks.formats.common import (
    DEFAULT_LABEL,
    Gathered,
    bare_name,
    canvas,
    check_stated_size,
    extras,
    file_name,
    is_numbers,
    key_of,
    name_notice,
    new_mask,
    objects_of,
    read_json,
    same_image,
    stem_of,
    whole,
    write_json,
)
from segment_duo.masks.formats.native import to_record
from segment_duo.types import Mask, MaskSet, Rle


def dump_dataset(sets: Sequence[MaskSet], classes: Sequence[MaskClass] = ()) -> bytes:
    """A COCO dataset of several images. Scores, points and ids ride along as extra keys of the annotations (``segduo``), which readers ignore.

    ``classes`` are the first categories, used or not, so that their numbers are the same in every file.
    """
    labels = ordered_labels(sets, classes, DEFAULT_LABEL)
    category = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, mask_set in enumerate(sets, 1):
        height, width = canvas(mask_set)
        name = file_name(mask_set, f"image_{image_id}")
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for mask in mask_set.masks:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[mask.label or DEFAULT_LABEL],
                    "segmentation": {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts},
                    "area": mask.area,
                    "bbox": list(mask.bbox),
                    "iscrowd": 0,
                    **({} if mask.predicted_iou is None else {"score": mask.predicted_iou}),
                    "segduo": extras(mask),
                }
            )
    return write_json(
        {
            "info": {"description": "Instance masks written by segment_duo", "version": "1.0"},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": number, "name": label, "supercategory": DEFAULT_LABEL} for label, number in category.items()
            ],
        }
    )


def dump_records(mask_set: MaskSet) -> bytes:
    """SAM 1's ``--convert-to-rle`` file: a bare list of records, which is not a COCO dataset."""
    return write_json([to_record(mask) for mask in mask_set.masks])


def load(data: bytes, name: str, height: int, width: int, *, image_name: str = "") -> tuple[list[Mask], list[str]]:
    """Masks of one image from a dataset, a list of results or a bare list of records, and what was left out.

    In a dataset of several images the one of the same file name (or else stem) is taken. Ids are compared as text.

    Raises:
        MaskFileError: not that format, for an image of another size, none of its annotations is of this image, or nothing can be used.
    """
    content = read_json(data)
    if isinstance(content, list):
        return _load_records(objects_of(content, "records"), name, height, width)
    if not isinstance(content, dict) or "annotations" not in content:
        raise MaskFileError("is no COCO file: it has no annotations")
    image = _image_of([image for image in objects_of(content.get("images"), "images") if image], name)
    check_stated_size(image.get("height"), image.get("width"), height, width)
    listed = content.get("categories")
    categories = objects_of(listed, "categories") if isinstance(listed, list) else []
    names = {key_of(item.get("id")): item.get("name", "") for item in categories}
    annotations = objects_of(content["annotations"], "annotations")
    wanted = key_of(image.get("id"))
    # An entry that is no object belongs to no image that one could tell; it is named with those of this one.
    own = [entry for entry in annotations if not entry or key_of(entry.get("image_id")) == wanted]
    if annotations and not own:
        raise MaskFileError(f"none of its {len(annotations)} annotations belongs to the image {bare_name(name)}")
    found = Gathered("annotation", notices=name_notice(image.get("file_name"), image_name))
    for annotation in own:
        category = annotation.get("category_id")
        label = names.get(key_of(category), "" if category is None else f"class {key_of(category)[:50]}")
        extra = annotation.get("segduo")
        if not isinstance(extra, dict):
            extra = {"id": annotation.get("id"), "predicted_iou": annotation.get("score")}
        _take(found, annotation, height, width, label=label, extra=extra)
    return _with_crowds(found, own)


def _load_records(records: list[dict[str, Any]], name: str, height: int, width: int) -> tuple[list[Mask], list[str]]:
    """SAM's records, or COCO's list of results, which may be of several images."""
    images = {key_of(record["image_id"]) for record in records if "image_id" in record}
    if len(images) > 1:
        images = {image for image in images if same_image(image, name)}
        if len(images) != 1:
            raise MaskFileError(f"holds results of several images, none of them or several called {bare_name(name)}")
        records = [record for record in records if key_of(record.get("image_id")) in images]
    found = Gathered("record")
    for record in records:
        category = record.get("category_id")
        label = record.get("label", "" if category is None else f"class {key_of(category)[:50]}")
        score = {"predicted_iou": record.get("score")} if "score" in record else {}
        _take(found, record, height, width, label=label, extra=score | record)
    return _with_crowds(found, records)


def _with_crowds(found: Gathered, annotations: list[dict[str, Any]]) -> tuple[list[Mask], list[str]]:
    crowds = sum(
        annotation.get("iscrowd") is True or whole(annotation.get("iscrowd")) == 1 for annotation in annotations
    )
    if crowds:
        found.notices.append(
            f"{crowds} of {len(annotations)} are marked iscrowd (a group of objects); each is taken as one mask"
        )
    return found.result()


def _take(
    found: Gathered, annotation: dict[str, Any], height: int, width: int, *, label: object, extra: dict[str, Any]
) -> None:
    what = f"{found.thing} {len(found.masks) + len(found.left_out) + 1}"
    if "id" in annotation:
        what += f" (id {key_of(annotation['id'])[:50]})"
    value = annotation.get("segmentation")
    if isinstance(value, dict):
        # Runs may say that a mask is empty; outlines may not.
        try:
            rle = _runs(value, height, width)
        except MaskFileError as error:
            found.leave_out(what, error.message)
            return
        found.masks.append(new_mask(rle, len(found.masks), label=label, extra=extra))
        return
    degenerate: list[str] = []
    if found.take(what, lambda: _polygons(value, height, width, degenerate), label=label, extra=extra) and degenerate:
        found.notices.append(f"{what}: {len(degenerate)} of its outlines left out: {degenerate[0]}")


def _image_of(images: list[dict[str, Any]], name: str) -> dict[str, Any]:
    if len(images) == 1:
        return images[0]
    bare = bare_name(name)
    named = [(image, bare_name(image.get("file_name"))) for image in images]
    for found in (
        [image for image, path in named if path == bare],
        [image for image, path in named if stem_of(path) == stem_of(bare)],
        [image for image, path in named if same_image(path, bare)],
    ):
        if len(found) == 1:
            return found[0]
    raise MaskFileError(f"holds {len(images)} images, none of them or several called {bare}")


def _runs(value: dict[str, Any], height: int, width: int) -> Rle:
    from segment_duo.masks import rle as codec

    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or None in map(whole, size):
        raise MaskFileError("does not say its size")
    check_stated_size(size[0], size[1], height, width)
    if isinstance(counts, str):
        return codec.from_spans(*codec.spans(Rle(height, width, counts)), height, width)
    if isinstance(counts, list) and is_numbers(counts, len(counts)):
        return codec.from_counts(counts, height, width)
    raise MaskFileError("has no run lengths")


def _polygons(value: object, height: int, width: int, degenerate: list[str]) -> Rle:
    """COCO polygons are filled and united by pycocotools, so that the pixels are those every COCO tool sees.

    Args:
        value: list of polygons, each a flat list of x, y; a single one may stand alone.
        degenerate: receives why parts were left out, as long as one is left.
    """
    from pycocotools import mask as coco_mask

    from segment_duo.masks.formats.common import ring_array

    if not isinstance(value, list) or not value:
        raise MaskFileError("has no segmentation")
    polygons = [value] if all(isinstance(item, (int, float)) for item in value) else value
    flat = []
    for polygon in polygons:
        try:
            if not isinstance(polygon, list) or len(polygon) % 2 or not is_numbers(polygon, len(polygon)):
                raise MaskFileError("has an outline that is no list of x, y numbers")
            # Also refuses coordinates for which pycocotools would take memory without bound, and two points, which it takes for a box.
            ring_array([polygon[i : i + 2] for i in range(0, len(polygon), 2)], width, height)
        except MaskFileError as error:
            degenerate.append(error.message)
            continue
        flat.append([float(n) for n in polygon])
    if not flat:
        raise MaskFileError(degenerate[0])
    merged = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return Rle(height, width, merged["counts"].decode("ascii"))
