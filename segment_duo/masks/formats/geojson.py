"""GeoJSON as QuPath reads and writes it: one feature per mask, coordinates in pixels from the corner of the first pixel."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import Gathered, extras, read_json, ring_array, whole, write_json
from segment_duo.masks.outlines import ellipse, outline_parts, rle_of_polygons
from segment_duo.masks.overlay import PALETTE
from segment_duo.types import Mask, MaskSet, Rle

_DEPTH = 20
"""Collections inside collections that are looked into."""


def dump(mask_set: MaskSet, colours: Mapping[str, tuple[int, int, int]] | None = None) -> bytes:
    """A FeatureCollection of valid (Multi)Polygons; measurements hold the scores, ``segduo`` the rest. Empty masks are left out.

    ``colours``: label -> RGB; a label without one has the same colour on all its masks.
    """
    image = mask_set.provenance.image
    labels = sorted({mask.label for mask in mask_set.masks if mask.label})
    inks = {label: PALETTE[place % len(PALETTE)] for place, label in enumerate(labels)} | dict(colours or {})
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
            properties["classification"] = {"name": mask.label, "color": list(inks[mask.label])}
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


def load(
    data: bytes, height: int, width: int, *, page: int | None = None, place: Mapping[str, int] | None = None
) -> tuple[list[Mask], list[str]]:
    """Masks from a FeatureCollection, a list of features, one feature or one geometry, and what was left out (points and lines).

    A feature is one mask, the union of its polygons. Its label is its class (of QuPath's subclasses ``Tumor: Positive``), or else its name.

    Args:
        page: features that QuPath puts into another plane are left out.
        place: where the page lies in a stack of several axes, axis -> index.
    """
    features = _features(read_json(data))
    planes = [_plane(feature) for feature in features]
    # QuPath writes no plane for the first one: without any plane in the file it says nothing.
    staggered = page is not None and any(max(plane if place else plane[1:]) > 0 for plane in planes)
    found = Gathered("feature")
    for position, (feature, plane) in enumerate(zip(features, planes, strict=True), 1):
        what = f"feature {position}"
        elsewhere = _elsewhere(plane, page, place) if staggered else ""
        if elsewhere:
            found.leave_out(what, f"lies in plane {elsewhere}, the image is page {page}")
            continue
        geometry = feature if "coordinates" in feature or "geometries" in feature else feature.get("geometry")
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        extra = properties.get("segduo")
        extra = extra if isinstance(extra, dict) else {}
        kinds: list[str] = []
        damaged: list[str] = []
        taken = found.take(
            what,
            partial(_rle, geometry, height, width, kinds, damaged),
            label=_label(properties, extra),
            extra=extra,
        )
        if taken and kinds:
            found.notices.append(f"{what}: a {kinds[0]} in it has no area and is left out")
        if taken and damaged:
            found.notices.append(f"{what}: {len(damaged)} of its parts left out: {damaged[0]}")
    return found.result()


def _features(content: object) -> list[dict[str, Any]]:
    """Features in the order of the file, also those of collections inside collections, and the objects that QuPath keeps inside others."""
    if isinstance(content, dict) and not isinstance(content.get("features", []), list):
        raise MaskFileError("has no list of features")
    found: list[dict[str, Any]] = []
    waiting: list[object] = [content]
    while waiting:
        part = waiting.pop()
        feature = part if isinstance(part, dict) else {}
        inner = part if isinstance(part, list) else feature.get("features")
        if isinstance(inner, list):
            waiting.extend(reversed(inner))
            continue
        found.append(feature)
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        children = properties.get("childObjects", properties.get("children"))
        if isinstance(children, list):
            waiting.extend(child for child in reversed(children) if isinstance(child, dict) and "geometry" in child)
    return found


def _plane(feature: dict[str, Any]) -> tuple[int, int, int]:
    """Channel (-1: all), slice and time of the plane of a stack that QuPath puts a feature into, from 0; the first where the file does not say."""
    geometry = feature.get("geometry")
    plane = geometry.get("plane") if isinstance(geometry, dict) else None
    channel, z, t = (whole(plane.get(axis)) if isinstance(plane, dict) else None for axis in ("c", "z", "t"))
    return -1 if channel is None else channel, z or 0, t or 0


def _elsewhere(plane: tuple[int, int, int], page: int | None, place: Mapping[str, int] | None) -> str:
    """The plane in words, if it is not the page's."""
    channel, z, t = plane
    if place is None:
        return "" if max(z, t) == page else str(max(z, t))
    here = z == place.get("Z", 0) and t == place.get("T", 0) and channel in (-1, place.get("C", 0))
    return "" if here else f"c {channel}, z {z}, t {t}"


def _label(properties: dict[str, Any], extra: dict[str, Any]) -> object:
    classification = properties.get("classification")
    if isinstance(classification, str):
        return classification
    names = classification.get("names") if isinstance(classification, dict) else classification
    if isinstance(names, list) and names:
        return ": ".join(str(name) for name in names)
    if isinstance(classification, dict) and classification.get("name"):
        return classification["name"]
    # Our own files name masks without a label "mask 7".
    return extra.get("label", "") if extra else properties.get("name", "")


def _rle(geometry: object, height: int, width: int, kinds: list[str], damaged: list[str]) -> Rle:
    """The union of a geometry's polygons.

    Args:
        kinds: receives the geometries without an area that a collection holds besides its polygons.
        damaged: receives why parts were left out, as long as one is left.
    """
    polygons: list[list[Any]] = []
    waiting: list[tuple[object, int]] = [(geometry, 0)]
    while waiting:
        part, depth = waiting.pop()
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str):
            damaged.append("has no geometry")
        elif kind == "GeometryCollection" and depth < _DEPTH and isinstance(part.get("geometries"), list):
            waiting.extend((inner, depth + 1) for inner in part["geometries"])
        elif kind in ("Polygon", "MultiPolygon"):
            coordinates = part.get("coordinates")
            listed = coordinates if isinstance(coordinates, list) and kind == "MultiPolygon" else [coordinates]
            found = [_outlines(one, width, height, damaged) for one in listed]
            polygons.extend(_as_meant(part, rings) for rings in found if rings)
        else:
            kinds.append(kind[:30])
    if not polygons:
        raise MaskFileError(damaged[0] if damaged else f"a {kinds[0]} has no area" if kinds else "has no polygon")
    return rle_of_polygons(polygons, height, width)


def _outlines(rings: object, width: int, height: int, damaged: list[str]) -> list[Any]:
    """A polygon's outer ring and those of its holes that are sound; none without the outer one."""
    found: list[Any] = []
    for position, ring in enumerate(rings if isinstance(rings, list) and rings else [None]):
        try:
            if not isinstance(ring, list):
                raise MaskFileError("has no coordinates")
            # Some points of a ring may have a height, others none.
            found.append(ring_array([point[:2] if isinstance(point, list) else point for point in ring], width, height))
        except MaskFileError as error:
            damaged.append(error.message)
            if not position:
                return []
    return found


def _as_meant(part: dict[str, Any], rings: list[Any]) -> list[Any]:
    """QuPath writes an ellipse as a polygon beside a remark, and reads back the ellipse in its box."""
    if part.get("isEllipse") is not True:
        return rings
    low, high = rings[0].min(axis=0), rings[0].max(axis=0)
    half_x, half_y = (high - low) / 2
    return [ellipse((low + high) / 2, (half_x, 0.0), (0.0, half_y))]
