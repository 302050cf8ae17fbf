"""COCO: the dataset file (``images``, ``annotations``, ``categories``), and SAM 1's bare list of records with COCO runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import (
    DEFAULT_LABEL,
    canvas,
    check_size,
    distinct_labels,
    extras,
    file_name,
    is_numbers,
    new_mask,
    only_dicts,
    read_json,
    write_json,
)
from segment_duo.masks.formats.native import to_record
from segment_duo.types import Mask, MaskSet, Rle


def dump_dataset(sets: Sequence[MaskSet]) -> bytes:
    """A COCO dataset of several images. Scores, points and ids ride along as extra keys of the annotations (``segduo``), which readers ignore."""
    labels = distinct_labels(sets)
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


def load(data: bytes, name: str, height: int, width: int) -> list[Mask]:
    """Masks of one image from either file. In a dataset of several images the one of the same file name (or else stem) is taken."""
    content = read_json(data)
    if isinstance(content, list):
        masks = []
        for position, record in enumerate(only_dicts(content, "records")):
            rle = _segmentation(record.get("segmentation"), height, width, position)
            masks.append(new_mask(rle, position, label=record.get("label", ""), extra=record))
        return masks
    if not isinstance(content, dict) or "annotations" not in content:
        raise MaskFileError("is no COCO file: it has no annotations")
    image = _image_of(only_dicts(content.get("images"), "images"), name)
    if type(image.get("height")) is int and type(image.get("width")) is int:
        check_size((image["height"], image["width"]), height, width)
    categories = only_dicts(content.get("categories", []), "categories")
    # As text: ids of any JSON type can be keys then.
    names = {str(item.get("id")): item.get("name", "") for item in categories}
    masks = []
    for annotation in only_dicts(content["annotations"], "annotations"):
        if annotation.get("image_id") != image.get("id"):
            continue
        rle = _segmentation(annotation.get("segmentation"), height, width, len(masks))
        extra = annotation.get("segduo")
        score = {"predicted_iou": annotation.get("score")}
        label = names.get(str(annotation.get("category_id")), "")
        masks.append(new_mask(rle, len(masks), label=label, extra=extra if isinstance(extra, dict) else score))
    return masks


def _image_of(images: list[dict[str, Any]], name: str) -> dict[str, Any]:
    if len(images) == 1:
        return images[0]

    def bare(path: object) -> str:
        return str(path).replace("\\", "/").rsplit("/", 1)[-1]

    def stem(path: object) -> str:
        return bare(path).rpartition(".")[0] or bare(path)

    for same in (bare, stem):
        found = [image for image in images if same(image.get("file_name")) == same(name)]
        if len(found) == 1:
            return found[0]
    raise MaskFileError(f"holds {len(images)} images, none of them or several called {bare(name)}")


def _segmentation(value: object, height: int, width: int, position: int) -> Rle:
    from segment_duo.masks import rle as codec

    if isinstance(value, dict):
        size, counts = value.get("size"), value.get("counts")
        if not isinstance(size, list) or not is_numbers(size, 2):
            raise MaskFileError(f"mask {position + 1} does not say its size")
        check_size((int(size[0]), int(size[1])), height, width)
        if isinstance(counts, str):
            return codec.from_spans(*codec.spans(Rle(height, width, counts)), height, width)
        if isinstance(counts, list) and is_numbers(counts, len(counts)):
            return codec.from_counts(counts, height, width)
    elif isinstance(value, list) and value:
        return _polygons(value, height, width, position)
    raise MaskFileError(f"mask {position + 1} has no segmentation")


def _polygons(value: list[Any], height: int, width: int, position: int) -> Rle:
    """COCO polygons are filled and united by pycocotools, so that the pixels are those every COCO tool sees."""
    from pycocotools import mask as coco_mask

    from segment_duo.masks.formats.common import ring_array

    flat = []
    for polygon in value:
        if not isinstance(polygon, list) or len(polygon) % 2 or not is_numbers(polygon, len(polygon)):
            raise MaskFileError(f"mask {position + 1} has a polygon that is no list of x, y numbers")
        # Also refuses coordinates for which pycocotools would take memory without bound.
        ring_array([polygon[i : i + 2] for i in range(0, len(polygon), 2)], width, height)
        flat.append([float(n) for n in polygon])
    merged = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return Rle(height, width, merged["counts"].decode("ascii"))
