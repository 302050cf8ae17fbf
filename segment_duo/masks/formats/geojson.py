"""GeoJSON as QuPath reads and writes it: one feature per mask, coordinates in pixels from the corner of the first pixel."""

from __future__ import annotations

import uuid
from typing import Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import extras, new_mask, only_dicts, read_json, ring_array, write_json
from segment_duo.masks.outlines import outline_parts, rle_of_rings
from segment_duo.masks.overlay import colour_of
from segment_duo.types import Mask, MaskSet


def dump(mask_set: MaskSet) -> bytes:
    """A FeatureCollection of valid (Multi)Polygons; measurements hold the scores, ``segduo`` the rest. Empty masks are left out."""
    image = mask_set.provenance.image
    features = []
    for mask in mask_set.masks:
        polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in part] for part in outline_parts(mask.rle)]
        if not polygons:
            continue
        geometry: dict[str, Any] = (
            {"type": "Polygon", "coordinates": polygons[0]}
            if len(polygons) == 1
            else {"type": "MultiPolygon", "coordinates": polygons}
        )
        scores = {"Predicted IoU": mask.predicted_iou, "Stability score": mask.stability_score}
        properties: dict[str, Any] = {
            "objectType": "annotation",
            "name": mask.label or f"mask {mask.id}",
            "measurements": {"Area px^2": mask.area} | {key: n for key, n in scores.items() if n is not None},
            "segduo": extras(mask) | {"label": mask.label},
        }
        if mask.label:
            properties["classification"] = {"name": mask.label, "color": list(colour_of(mask))}
        # QuPath wants a UUID; one made from the content keeps the file the same each time.
        name = f"{image.sha256 if image else ''}/{mask.id}/{mask.rle.counts}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
                "geometry": geometry,
                "properties": properties,
            }
        )
    return write_json({"type": "FeatureCollection", "features": features})


def load(data: bytes, height: int, width: int) -> tuple[list[Mask], list[str]]:
    """Masks from a FeatureCollection, a list of features or one feature, and what was left out (points and lines)."""
    content = read_json(data)
    if isinstance(content, dict):
        content = content.get("features", [content])
    masks: list[Mask] = []
    notices: list[str] = []
    for position, feature in enumerate(only_dicts(content, "features")):
        geometry = feature.get("geometry")
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if kind not in ("Polygon", "MultiPolygon") or not isinstance(geometry, dict):
            notices.append(f"feature {position + 1} is a {kind}, which has no area, and is left out")
            continue
        coordinates: Any = geometry.get("coordinates")
        polygons = [coordinates] if kind == "Polygon" else coordinates
        try:
            rings = [ring_array(ring, width, height) for polygon in polygons for ring in polygon]
        except TypeError:
            raise MaskFileError(f"feature {position + 1} has no coordinates") from None
        extra, classification = properties.get("segduo"), properties.get("classification")
        extra = extra if isinstance(extra, dict) else {}
        label = classification.get("name", "") if isinstance(classification, dict) else extra.get("label", "")
        masks.append(new_mask(rle_of_rings(rings, height, width), len(masks), label=label, extra=extra))
    if notices and not masks:
        raise MaskFileError("holds no polygon")
    return masks, notices
