"""Imports of other hands: what each program means by its file, and what an import does with what it cannot use."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from segment_duo.errors import MaskFileError
from segment_duo.masks import rle
from segment_duo.masks.classes import labelled
from segment_duo.masks.formats import export, importers
from segment_duo.types import FrameAxes, ImageIdentity, Mask, MaskSet, Provenance

HEIGHT, WIDTH = 60, 90


def read(content: object, name: str = "a.json", **options: Any) -> importers.Imported:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return importers.import_report(data, None, name=name, width=WIDTH, height=HEIGHT, **options)


def square(x: float, y: float, side: float = 20) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def flat(ring: Sequence[Sequence[float]]) -> list[float]:
    return [n for point in ring for n in point]


def areas(found: importers.Imported) -> list[int]:
    return [mask.area for mask in found.masks]


# --- COCO -------------------------------------------------------------------------------------------------------------------


def coco(*annotations: dict[str, Any], image: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "img.png", "width": WIDTH, "height": HEIGHT} | (image or {})
    common = {"image_id": 1, "category_id": 1, "segmentation": [flat(square(10, 10))]}
    return {
        "images": [image],
        "annotations": [common | {"id": n} | annotation for n, annotation in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "grain"}],
    } | more


@pytest.mark.parametrize(("image", "image_id"), [(1, "1"), ("1", 1), (1.0, 1), ("1.0", 1), ("a", "a"), (7, "7")])
def test_ids_are_compared_as_text(image: object, image_id: object) -> None:
    found = read(coco({"image_id": image_id, "category_id": "1"}, image={"id": image}))
    assert [(mask.area, mask.label, mask.id) for mask in found.masks] == [(400, "grain", 1)]


def test_ids_of_many_digits_and_with_underscores_stay_apart() -> None:
    long = 2**53
    for one, other in ((f"{long}", f"{long + 1}"), ("2024_01", "202401"), ("12e3", "12000")):
        images = [{"id": one, "file_name": "img.png"}, {"id": other, "file_name": "b.png"}]
        content = coco({"image_id": one}, {"image_id": other}, {"image_id": other}) | {"images": images}
        assert len(read(content, image_name="img.png").masks) == 1
        assert len(read(content, image_name="b.png").masks) == 2
    assert len(read(coco({"image_id": f"{long + 1}"}, image={"id": long + 1})).masks) == 1


def test_entries_that_are_no_objects_are_left_out() -> None:
    """Of any list: the rest of the file is as good as ever."""
    content = coco({}, {})
    content = {key: [None, *content[key], "x"] for key in content}
    found = read(content)
    assert [mask.label for mask in found.masks] == ["grain", "grain"]
    assert found.notices[0] == "annotation 1 is left out: has no segmentation"
    assert found.notices[-1] == "2 of 4 annotations are left out"
    assert len(read(coco({}, categories=None)).masks) == len(read(coco({}, categories={"1": "grain"})).masks) == 1
    assert areas(read([7, {"segmentation": [flat(square(1, 1))]}])) == [400]
    for content in (labelme({"points": square(1, 1)}), features(polygon(1, 1))):
        key = "shapes" if "shapes" in content else "features"
        content[key].insert(0, None)
        found = read(content)
        assert areas(found) == [400]
        assert len(found.notices) == 1


def test_runs_are_whole_numbers() -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [10.5, 20, HEIGHT * WIDTH - 30]}
    found = read(coco({"segmentation": runs}, {}))
    assert len(found.masks) == 1
    assert "no whole numbers" in found.notices[0]


def test_a_file_whose_annotations_all_miss_the_image_is_an_error() -> None:
    with pytest.raises(MaskFileError, match="none of its 2 annotations belongs to the image img"):
        read(coco({"image_id": 2}, {"image_id": "b"}), image_name="img.png")
    assert read(coco()).masks == (), "nothing was found, and the file says so"


@pytest.mark.parametrize("size", [{"width": 400.0}, {"height": "300"}, {"width": 90.5}, {"height": 61, "width": None}])
def test_another_size_is_refused_however_it_is_written(size: dict[str, object]) -> None:
    with pytest.raises(MaskFileError, match=r"is for an image of .*, the image is 90 x 60"):
        read(coco({}, image=size))


def test_the_same_size_is_taken_however_it_is_written() -> None:
    assert areas(read(coco({}, image={"width": 90.0, "height": "60"}))) == [400]
    assert areas(read(coco({}, image={"width": None, "height": {}}))) == [400]


@pytest.mark.parametrize("bad", [[], None, {}, "x", [[]], [["a", 1]], [[1, 2, 3, 4]], {"size": [9, 9], "counts": [81]}])
def test_an_annotation_without_a_mask_is_named_and_the_rest_is_taken(bad: object) -> None:
    found = read(coco({}, {"id": 33, "segmentation": bad}, {}))
    assert areas(found) == [400, 400]
    assert len(found.notices) == 1
    assert found.notices[0].startswith("annotation 2 (id 33) is left out: ")


def test_many_that_are_left_out_are_counted() -> None:
    found = read(coco({}, *[{"segmentation": []}] * 25))
    assert len(found.notices) == 11
    assert found.notices[-1] == "25 of 26 annotations are left out"
    with pytest.raises(MaskFileError, match=r"annotation 1 \(id 1\): has no segmentation \(and 24 more\)"):
        read(coco(*[{"segmentation": []}] * 25))


def test_a_degenerate_outline_does_not_spoil_its_mask() -> None:
    found = read(coco({"segmentation": [flat(square(10, 10)), [40, 40, 41, 41]]}))
    assert areas(found) == [400]
    assert found.notices == (
        "annotation 1 (id 1): 1 of its outlines left out: an outline of 2 points; it needs three or more of x and y",
    )


def test_a_lone_flat_polygon() -> None:
    assert areas(read(coco({"segmentation": flat(square(10, 10))}))) == [400]


def test_crowds_are_taken_and_said() -> None:
    runs = {"counts": [610, 20, HEIGHT * WIDTH - 630], "size": [HEIGHT, WIDTH]}
    found = read(coco({"segmentation": runs, "iscrowd": 1}, {}))
    assert areas(found) == [20, 400]
    assert found.notices == ("1 of 2 are marked iscrowd (a group of objects); each is taken as one mask",)


def test_classes_without_a_name_keep_their_number() -> None:
    numbered = coco({"iscrowd": True}, categories=[{"id": 1, "name": 3}])
    assert read(numbered).masks[0].label == "3"
    assert read(numbered).notices[0].startswith("1 of 1 are marked iscrowd")
    found = read(coco({"category_id": 1}, {"category_id": 5.0}, {"category_id": None}))
    assert [mask.label for mask in found.masks] == ["grain", "class 5", ""]


def test_results_of_several_images() -> None:
    runs = {"counts": [610, 20, HEIGHT * WIDTH - 630], "size": [HEIGHT, WIDTH]}
    results = [{"image_id": name, "category_id": 2, "segmentation": runs, "score": 0.5} for name in ("img", "other")]
    found = read(results, image_name="img.png")
    assert [(mask.area, mask.label, mask.predicted_iou) for mask in found.masks] == [(20, "class 2", 0.5)]
    with pytest.raises(MaskFileError, match="results of several images"):
        read(results, image_name="third.png")
    assert areas(read(results[:1], image_name="third.png")) == [20]


@pytest.mark.parametrize("said", ["img.png", "C:\\files\\img.png", "/data/img.tif", "1f2e3d4c-img.png", "img"])
def test_the_images_name_in_other_words(said: str) -> None:
    both = coco({}, image={"file_name": said})
    both["images"].append({"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT})
    found = read(both, image_name="img.png")
    assert (areas(found), found.notices) == ([400], ())


def test_a_file_for_an_image_of_another_name_says_so() -> None:
    assert read(coco({}, image={"file_name": "x/b.png"}), image_name="img.png").notices == (
        "the file was made for b.png",
    )
    assert read(coco({}, image={"file_name": "b.png"})).notices == (), "nobody says what the image is called"


# --- LabelMe ----------------------------------------------------------------------------------------------------------------


def labelme(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    common = {"label": "grain", "shape_type": "polygon", "group_id": None}
    return {"shapes": [common | shape for shape in shapes], "imageHeight": HEIGHT, "imageWidth": WIDTH} | more


def test_one_label_and_one_group_are_one_object() -> None:
    shapes = [
        {"points": square(10, 10), "group_id": 7},
        {"points": square(20, 20), "group_id": 7.0},
        {"points": square(60, 10, 10), "group_id": 8},
        {"points": square(60, 30, 10), "group_id": 7, "label": "pore"},
        {"points": square(70, 40, 10)},
        {"points": square(0, 40, 10)},
    ]
    found = read(labelme(*shapes))
    assert [(mask.area, mask.label, mask.bbox) for mask in found.masks] == [
        (700, "grain", (10, 10, 30, 30)),
        (100, "grain", (60, 10, 10, 10)),
        (100, "pore", (60, 30, 10, 10)),
        (100, "grain", (70, 40, 10, 10)),
        (100, "grain", (0, 40, 10, 10)),
    ]
    assert len({mask.id for mask in found.masks}) == 5


@pytest.mark.parametrize("size", [{"imageHeight": 300.0}, {"imageWidth": "400"}])
def test_labelme_of_another_size_is_refused(size: dict[str, object]) -> None:
    with pytest.raises(MaskFileError, match=r"is for an image of .*, the image is 90 x 60"):
        read(labelme({"points": square(1, 1)}, **size))


def test_labelme_takes_what_is_good() -> None:
    found = read(
        labelme(
            {"points": [[1, 1]]},
            {"points": square(10, 10)},
            {"points": square(500, 500)},
            {"shape_type": "line", "points": [[0, 0], [9, 9]]},
            {"points": [[1, 1], [1, 1], [1, 1]]},
            {"shape_type": "rectangle", "points": square(50, 10)},
            {"shape_type": "rotation", "points": square(70, 30)},
        )
    )
    assert areas(found) == [400, 400, 400]
    assert found.notices == (
        "shape 1 is left out: an outline of 1 points; it needs three or more of x and y",
        "shape 3 is left out: covers no pixel of the image of 90 x 60",
        "shape 4 is left out: a line has no area",
        "shape 5 is left out: covers no pixel of the image of 90 x 60",
        "4 of 7 shapes are left out",
    )


def mask_shape(points: list[list[float]], array: np.ndarray) -> dict[str, Any]:
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "PNG")
    text = base64.b64encode(stored.getvalue()).decode()
    return {"shape_type": "mask", "points": points, "mask": text}


def test_a_mask_shape_that_was_moved_lies_where_labelme_puts_it() -> None:
    """LabelMe cuts its corners down to whole pixels, rounding would make 10.5 and 29.5 a pixel further apart."""
    array = np.zeros((11, 20), np.uint8)
    array[2:9, 3:15] = 255
    for part in (0.0, 0.25, 0.5, 0.75):
        shape = mask_shape([[10 + part, 20 + part], [29 + part, 30 + part]], array)
        [mask] = read(labelme(shape)).masks
        assert (mask.area, mask.bbox) == (7 * 12, (13, 22, 12, 7))


def test_base64_in_lines_is_read_as_labelme_reads_it() -> None:
    shape = mask_shape([[10, 20], [29, 30]], np.full((11, 20), 255, np.uint8))
    text = shape["mask"]
    assert areas(read(labelme(shape | {"mask": f"{text[:20]}\r\n{text[20:]}\n"}))) == [220]


def test_a_mask_shape_is_cut_at_the_images_edge() -> None:
    full = np.full((20, 30), 255, np.uint8)
    for (x, y), pixels in {(-10, -5): 300, (80, 50): 100, (-29, 0): 20, (0, 59): 30, (-10, 59): 20}.items():
        [mask] = read(labelme(mask_shape([[x, y], [x + 29, y + 19]], full))).masks
        assert (mask.area, mask.bbox[:2]) == (pixels, (max(0, x), max(0, y)))
    for x, y in ((-30, 0), (90, 0), (0, -20), (0, 60), (500, 500)):
        found = read(labelme({"points": square(1, 1)}, mask_shape([[x, y], [x + 29, y + 19]], full)))
        assert found.notices == ("shape 2 is left out: covers no pixel of the image of 90 x 60",)


# --- GeoJSON ----------------------------------------------------------------------------------------------------------------


def closed(ring: list[list[float]]) -> list[list[float]]:
    return [*ring, ring[0]]


def polygon(x: float, y: float, side: float = 20) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [closed(square(x, y, side))]}


def features(*geometries: Any, **properties: Any) -> dict[str, Any]:
    found = [{"type": "Feature", "geometry": geometry, "properties": properties} for geometry in geometries]
    return {"type": "FeatureCollection", "features": found}


@pytest.mark.parametrize(
    ("properties", "label"),
    [
        ({"classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]}}, "Tumor: Positive"),
        ({"classification": {"name": "Tumor", "colorRGB": -1}, "name": "x"}, "Tumor"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": ["Tumor", "Positive"]}, "Tumor: Positive"),
        ({"name": "Annotation 7"}, "Annotation 7"),
        ({"classification": None, "name": "b"}, "b"),
        ({"segduo": {"label": ""}, "name": "mask 3"}, ""),
        ({"classification": {"names": []}, "segduo": {"label": "grain"}}, "grain"),
        ({}, ""),
    ],
)
def test_labels_of_features(properties: dict[str, Any], label: str) -> None:
    assert read(features(polygon(10, 10), **properties)).masks[0].label == label


def test_polygons_of_a_collection_and_overlapping_parts() -> None:
    line = {"type": "LineString", "coordinates": [[1, 1], [5, 5]]}
    inner = {"type": "GeometryCollection", "geometries": [polygon(20, 20), line]}
    collection = {"type": "GeometryCollection", "geometries": [polygon(10, 10), inner]}
    multi = {"type": "MultiPolygon", "coordinates": [polygon(10, 10)["coordinates"], polygon(20, 20)["coordinates"]]}
    found = read(features(collection, multi, polygon(60, 10)))
    assert areas(found) == [700, 700, 400]
    assert found.notices == ("feature 1: a LineString in it has no area and is left out",)


def test_overlapping_holes_count_once() -> None:
    holed = polygon(10, 10, 30)
    holed["coordinates"] += [closed(square(15, 15, 10)), closed(square(20, 20, 10))]
    assert areas(read(features(holed))) == [900 - 175]


def test_features_without_a_mask_are_left_out() -> None:
    found = read(
        features(
            {"type": "Point", "coordinates": [1, 1]},
            polygon(10, 10),
            {"type": "Polygon", "coordinates": [[["a"]]]},
            {"type": "MultiPolygon", "coordinates": [[]]},
            None,
            polygon(900, 900),
            {"type": "GeometryCollection", "geometries": []},
        )
    )
    assert areas(found) == [400]
    assert [notice.partition(" is left out")[0] for notice in found.notices] == [
        "feature 1", "feature 3", "feature 4", "feature 5", "feature 6", "feature 7", "6 of 7 features are left out",
    ]  # fmt: skip


def test_a_bare_geometry_and_one_feature() -> None:
    assert areas(read(polygon(10, 10))) == [400]
    assert areas(read(features(polygon(10, 10))["features"][0])) == [400]
    assert areas(read({"type": "GeometryCollection", "geometries": [polygon(10, 10)]})) == [400]


def test_features_inside_others_are_taken() -> None:
    """Collections in collections, lists of collections, and the objects that QuPath keeps inside an annotation."""
    outer, inner = features(polygon(0, 0, 40)), features(polygon(5, 5, 10), name="inner")
    for content in (
        {"type": "FeatureCollection", "features": [*outer["features"], inner]},
        [outer, inner],
        features(polygon(0, 0, 40), childObjects=inner["features"]),
        features(polygon(0, 0, 40), children=[*inner["features"], 7, "a name"]),
    ):
        found = read(content)
        assert (found.format, areas(found), found.notices) == ("geojson", [1600, 100], ())
        assert found.masks[1].label == "inner"
    with pytest.raises(MaskFileError, match="no list of features"):
        read({"type": "FeatureCollection", "features": None})


def test_damaged_parts_do_not_spoil_their_feature() -> None:
    good, line = closed(square(10, 10)), [[1, 1], [2, 2]]
    for geometry in (
        {"type": "MultiPolygon", "coordinates": [[good], [line]]},
        {"type": "MultiPolygon", "coordinates": [[], [good]]},
        {"type": "Polygon", "coordinates": [good, line]},
        {"type": "GeometryCollection", "geometries": [None, polygon(10, 10)]},
    ):
        found = read(features(geometry, polygon(40, 10)))
        assert areas(found) == [400, 400]
        [notice] = found.notices
        assert notice.startswith("feature 1: 1 of its parts left out: ")
    found = read(features({"type": "Polygon", "coordinates": [line, good]}, polygon(40, 10)))
    assert areas(found) == [400], "a hole without the outline around it is nothing"


def test_points_of_a_ring_with_and_without_a_height() -> None:
    ring = [point + [5.0] * (place % 2) for place, point in enumerate(closed(square(10, 10)))]
    assert areas(read(features({"type": "Polygon", "coordinates": [ring]}))) == [400]


def test_qupaths_ellipse_is_the_one_in_its_box() -> None:
    diamond = closed([[45, 10], [75, 30], [45, 50], [15, 30]])
    [mask] = read(features({"type": "Polygon", "coordinates": [diamond], "isEllipse": True})).masks
    assert mask.area == pytest.approx(math.pi * 30 * 20, rel=0.01)
    [mask] = read(features({"type": "Polygon", "coordinates": [diamond], "isEllipse": False})).masks
    assert mask.area == pytest.approx(30 * 40, rel=0.01)


def test_deep_collections_end() -> None:
    deep: dict[str, Any] = polygon(10, 10)
    for _ in range(60):
        deep = {"type": "GeometryCollection", "geometries": [deep]}
    with pytest.raises(MaskFileError, match="a GeometryCollection has no area"):
        read(features(deep))


def test_planes_of_a_stack() -> None:
    second = polygon(30, 10) | {"plane": {"c": -1, "z": 1, "t": 0}}
    both = features(polygon(10, 10), second)
    assert [mask.bbox[0] for mask in read(both, page=1, pages=3).masks] == [30]
    assert [mask.bbox[0] for mask in read(both, page=0, pages=3).masks] == [10]
    assert len(read(both).masks) == 2
    assert len(read(features(polygon(10, 10)), page=2, pages=3).masks) == 1


# --- YOLO -------------------------------------------------------------------------------------------------------------------

LINE = "0 " + " ".join(f"{x / WIDTH:.8g} {y / HEIGHT:.8g}" for x, y in square(10, 10))


@pytest.mark.parametrize("name", ["a.txt", "labels", "a.label", "b.TXT"])
def test_yolo_is_told_by_content(name: str) -> None:
    found = read(f"\n{LINE}\n{LINE}\n".encode(), name)
    assert (found.format, areas(found)) == ("yolo", [400, 400])


@pytest.mark.parametrize("text", ["x,y\n1,2\n", "12 40 88 1 2\n", "0.5 0.1 0.1 0.2 0.2 0.3\n", "hello", "1 2"])
def test_other_text_is_no_yolo(text: str) -> None:
    with pytest.raises(MaskFileError, match="no mask file that is known"):
        read(text.encode(), "points.dat")


def test_yolo_classes_boxes_and_scores() -> None:
    found = read(
        f"{LINE}\n2{LINE[1:]} 0.75\n1.0{LINE[1:]}\n0 0.5 0.5 0.1 0.1\n0 10 10 30 10 30 30\nx 1\n".encode(), "a.txt"
    )
    assert [(mask.label, mask.predicted_iou) for mask in found.masks] == [
        ("class 0", None),
        ("class 2", 0.75),
        ("class 1", None),
    ]
    assert found.notices == (
        "line 4 is left out: a box has no outline",
        "line 5 is left out: holds no fractions of the image's width and height",
        "line 6 is left out: does not begin with the number of a class but with x",
        "3 of 6 lines are left out",
    )
    assert read(f"{LINE}\n0{LINE[1:]}".encode(), "a.txt").masks[0].label == "", "one class says nothing"
    assert read(b"", "a.txt").masks == (), "an image without objects"


@pytest.mark.parametrize("score", ["", " 0.75"])
def test_yolo_tracks_end_with_their_id(score: str) -> None:
    """As a tracking run writes them; read as a corner, the score and the id would be a spike."""
    found = read("".join(f"{LINE}{score} {number}\n" for number in (1, 2, 12)).encode(), "a.txt")
    assert [(mask.area, mask.id) for mask in found.masks] == [(400, 1), (400, 2), (400, 12)]
    assert {mask.predicted_iou for mask in found.masks} == ({0.75} if score else {None})
    found = read(f"{LINE}{score} 7\n7\n".encode(), "a.txt")
    assert found.notices == ("line 2 is left out: is no polygon: 0 numbers after the class",)
    edge = f"0 0.2 0.2 0.5 0.2 0.5 1\n{LINE}\n"
    assert areas(read(edge.encode(), "a.txt"))[1] == 400


# --- ImageJ -----------------------------------------------------------------------------------------------------------------


def freehand(x: int, y: int, side: int = 20, **fields: Any) -> roifile.ImagejRoi:
    roi = roifile.ImagejRoi.frompoints(np.array(square(x, y, side), np.int32))
    roi.roitype, roi.name = roifile.ROI_TYPE.FREEHAND, ""
    for name, value in fields.items():
        setattr(roi, name, value)
    return roi


def box(kind: roifile.ROI_TYPE = roifile.ROI_TYPE.RECT, **fields: Any) -> roifile.ImagejRoi:
    roi = roifile.ImagejRoi(roitype=kind, left=10, top=10, right=50, bottom=50)
    for name, value in fields.items():
        setattr(roi, name, value)
    return roi


def archive(**rois: roifile.ImagejRoi | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, roi in rois.items():
            target.writestr(name, roi if isinstance(roi, bytes) else roi.tobytes())
    return out.getvalue()


def test_a_zip_of_the_finder() -> None:
    entries = {
        "Körnung 1.roi": freehand(10, 10),
        "__MACOSX/._K.roi": b"\0\5\x16\7junk",
        "._b.roi": b"\0",
        ".DS_Store": b"x",
    }
    found = read(archive(**entries), "umlaut.zip")
    assert (areas(found), found.masks[0].label, found.notices) == ([400], "Körnung 1", ())


def test_names_of_a_zip_that_does_not_say_they_are_utf_8() -> None:
    """As the Finder writes them: composed of letter and accent, and without the flag. Other names stay as they are."""
    roi = freehand(10, 10)
    roi.name = ""
    for written, label in (("Ko\u0308rner".encode(), "Körner"), (b"K\x94rnerx", "Körnerx")):
        plain = b"x" * len(written)
        data = archive(**{f"{plain.decode()}.roi": roi}).replace(plain, written)
        assert read(data, "a.zip").masks[0].label == label


def test_rois_that_cannot_be_unpacked_are_named_and_the_rest_is_taken() -> None:
    data = archive(**{"a.roi": freehand(10, 10), "b.roi": freehand(40, 10)})
    first, listed = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    damaged = bytearray(data)
    damaged[first + 30 + len("a.roi") + 8] ^= 0xFF  # in the packed bytes
    encrypted = bytearray(data)
    encrypted[first + 6] |= 1
    encrypted[listed + 8] |= 1
    unknown = bytearray(data)
    unknown[first + 8] = unknown[listed + 10] = 97
    for broken in (damaged, encrypted, unknown):
        found = read(bytes(broken), "a.zip")
        assert areas(found) == [400]
        [notice] = found.notices
        assert notice.startswith("a.roi is left out: ")
    with pytest.raises(MaskFileError, match=r"holds nothing that can be used: a\.roi: cannot be unpacked"):
        read(bytes(encrypted[: encrypted.index(b"PK\x03\x04", 4)] + encrypted[listed:]), "a.zip")


def test_damaged_rois_are_named_and_the_rest_is_taken() -> None:
    entries = {
        "a.roi": freehand(10, 10),
        "b.roi": b"Iout\0",
        "c.roi": b"junk",
        "d.roi": roifile.ImagejRoi(roitype=roifile.ROI_TYPE.LINE, x1=1, y1=1, x2=9, y2=9),
        "e.roi": freehand(300, 300),
        "f.roi": box(subtype=roifile.ROI_SUBTYPE.TEXT, version=217),
    }
    found = read(archive(**entries), "a.zip")
    assert areas(found) == [400]
    assert [notice.partition(":")[0] for notice in found.notices] == [
        "b.roi is left out", "c.roi is left out", "d.roi is left out", "e.roi is left out", "f.roi is left out",
        "5 of 6 ROIs are left out",
    ]  # fmt: skip
    with pytest.raises(MaskFileError, match="covers no pixel of the image of 90 x 60"):
        read(freehand(300, 300).tobytes(), "outside.roi")
    with pytest.raises(MaskFileError, match="holds no ROI"):
        read(archive(readme=b"x"), "a.zip")


def test_rounded_rectangles_and_ovals() -> None:
    assert areas(read(box().tobytes(), "a.roi")) == [1600]
    rounded = areas(read(box(rounded_rect_arc_size=30).tobytes(), "a.roi"))[0]
    assert rounded == pytest.approx(1600 - (4 - math.pi) * 15**2, abs=12)
    assert areas(read(box(roifile.ROI_TYPE.OVAL).tobytes(), "a.roi"))[0] == pytest.approx(math.pi * 400, abs=15)
    full = areas(read(box(rounded_rect_arc_size=999).tobytes(), "a.roi"))[0]
    assert full == pytest.approx(math.pi * 400, abs=15)


@pytest.mark.parametrize(("kind", "expected"), [(roifile.ROI_TYPE.RECT, 201), (roifile.ROI_TYPE.OVAL, 158)])
def test_boxes_between_pixels(kind: roifile.ROI_TYPE, expected: int) -> None:
    roi = box(kind, version=228, options=roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION)
    roi.xd, roi.yd, roi.widthd, roi.heightd = 10.25, 10.25, 20.0, 10.05
    assert areas(read(roi.tobytes(), "a.roi"))[0] == pytest.approx(expected, abs=3)


def parametric(subtype: roifile.ROI_SUBTYPE, across: float) -> bytes:
    """A rotated ROI as ImageJ keeps it: the ends of its axis, and the ratio of the axes or the width as a float."""
    roi = freehand(20, 20)
    roi.subtype, roi.x1, roi.y1, roi.x2, roi.y2 = subtype, 20.0, 20.0, 60.0, 40.0
    data = bytearray(roi.tobytes())
    data[18:34] = np.array([20, 20, 60, 40], ">f4").tobytes()
    data[52:56] = np.array([across], ">f4").tobytes()
    return bytes(data)


def test_rotated_ellipses_and_rectangles() -> None:
    length = math.hypot(40, 20)
    ellipse = read(parametric(roifile.ROI_SUBTYPE.ELLIPSE, 0.5), "a.roi")
    assert areas(ellipse)[0] == pytest.approx(math.pi / 4 * length * length * 0.5, rel=0.02)
    turned = read(parametric(roifile.ROI_SUBTYPE.ROTATED_RECT, 12.0), "a.roi")
    assert areas(turned)[0] == pytest.approx(length * 12, rel=0.04)


def test_splines_and_curves() -> None:
    ring = np.array([[30, 10], [50, 30], [30, 50], [10, 30]], np.int32)
    roi = roifile.ImagejRoi.frompoints(ring)
    roi.roitype, roi.options = roifile.ROI_TYPE.POLYGON, roifile.ROI_OPTIONS.SPLINE_FIT
    assert areas(read(roi.tobytes(), "a.roi"))[0] == pytest.approx(math.pi * 400, rel=0.03), (
        "a circle, not a square of 800"
    )
    # A circle of radius 20 from four cubic curves, and a half-moon of one quadratic curve.
    k = 20 * 0.5522847
    path = [
        0,
        50,
        30,
        3,
        50,
        30 + k,
        30 + k,
        50,
        30,
        50,
        3,
        30 - k,
        50,
        10,
        30 + k,
        10,
        30,
        3,
        10,
        30 - k,
        30 - k,
        10,
        30,
        10,
    ]
    path += [3, 30 + k, 10, 50, 30 - k, 50, 30, 4]
    composite = box(multi_coordinates=np.array(path, np.float32), shape_roi_size=len(path))
    assert areas(read(composite.tobytes(), "a.roi"))[0] == pytest.approx(math.pi * 400, rel=0.02)
    moon = [0, 10, 10, 2, 30, 50, 50, 10, 4]
    composite = box(multi_coordinates=np.array(moon, np.float32), shape_roi_size=len(moon))
    assert areas(read(composite.tobytes(), "a.roi"))[0] == pytest.approx(2 / 3 * 40 * 20, rel=0.03)


@pytest.mark.parametrize("how", ["position", "z", "t", "name", "entry"])
def test_position_in_a_stack(how: str) -> None:
    def roi(number: int) -> roifile.ImagejRoi:
        fields: dict[str, dict[str, Any]] = {
            "position": {"position": number, "name": f"{number:04d}-0020-0020"},
            "z": {"c_position": 1, "z_position": number, "t_position": 1},
            "t": {"t_position": number},
            "name": {"name": f"{number:04d}-0020-0020-1"},
            "entry": {},
        }
        return freehand(10 * number, 10, **fields[how])

    rois = {f"{number:04d}-0020-0020.roi": roi(number) for number in (1, 2, 3)}
    rois["every.roi"] = freehand(50, 30)
    data = archive(**rois)
    for page in (0, 1, 2):
        found = read(data, "a.zip", page=page, pages=3)
        assert [mask.bbox[0] for mask in found.masks] == [10 * (page + 1), 50]
        assert found.notices[-1] == "2 of 4 ROIs are left out"
        assert "lies on slice" in found.notices[0]
    assert len(read(data, "a.zip").masks) == 4, "nobody says which page"
    assert read(data, "a.zip", page=0, pages=3).masks[0].label == ""


def test_rois_of_one_slice_may_be_for_the_slice_alone() -> None:
    found = read(archive(a=b"", **{"a.roi": freehand(10, 10, position=5)}), "a.zip", page=0, pages=1)
    assert (areas(found), found.notices) == ([400], ("the ROIs lie on slice 5 of a stack",))
    with pytest.raises(MaskFileError, match="lies on slice 5, the image is page 1"):
        read(freehand(10, 10, position=5).tobytes(), "a.roi", page=1, pages=9)
    placed = freehand(10, 10, c_position=2, z_position=3, t_position=1)
    with pytest.raises(MaskFileError, match="lies on slice channel 2, slice 3, frame 1"):
        read(placed.tobytes(), "a.roi", page=1, pages=9)


HYPERSTACK = FrameAxes("T", (("T", 2), ("Z", 3), ("C", 2)))
"""Channels fastest, then slices, then frames, as ImageJ stores them."""


def test_position_in_a_hyperstack() -> None:
    places = [(t, z, c) for t in range(2) for z in range(3) for c in range(2)]
    rois = {
        f"{t}{z}{c}.roi": freehand(3 * n, 10, c_position=c + 1, z_position=z + 1, t_position=t + 1)
        for n, (t, z, c) in enumerate(places)
    }
    rois |= {"z.roi": freehand(50, 30, z_position=2), "all.roi": freehand(60, 30)}
    for page, (_, z, _) in enumerate(places):
        found = read(archive(**rois), "a.zip", page=page, pages=12, axes=HYPERSTACK)
        assert [mask.bbox[0] for mask in found.masks] == [3 * page, *([50] if z == 1 else []), 60]
        assert "is left out: lies on channel " in found.notices[0]
    stacked = archive(**{f"{n}.roi": freehand(3 * n, 10, position=n + 1) for n in range(12)})
    for page in range(12):
        [mask] = read(stacked, "a.zip", page=page, pages=12, axes=HYPERSTACK).masks
        assert mask.bbox[0] == 3 * page


def test_planes_of_a_hyperstack() -> None:
    def placed(n: int, c: int, z: int, t: int) -> dict[str, Any]:
        return polygon(3 * n, 10) | {"plane": {"c": c, "z": z, "t": t}}

    content = features(placed(0, -1, 0, 0), placed(1, -1, 1, 0), placed(2, -1, 1, 1), placed(3, 1, 1, 1))
    taken = {0: [0], 1: [0], 2: [3], 3: [3], 4: [], 8: [6], 9: [6, 9], 10: []}
    for page, left in taken.items():
        if left:
            found = read(content, page=page, pages=12, axes=HYPERSTACK)
            assert [mask.bbox[0] for mask in found.masks] == left
        else:
            with pytest.raises(MaskFileError, match="lies in plane c -1, z 0, t 0, the image is page"):
                read(content, page=page, pages=12, axes=HYPERSTACK)


def test_names_of_rois() -> None:
    rois = {
        "pore.roi": freehand(10, 10),
        "0007.roi": freehand(20, 10),
        "0001-0002.roi": freehand(30, 10, group=3),
        "x.roi": freehand(40, 10, name="grain"),
    }
    assert [mask.label for mask in read(archive(**rois), "a.zip").masks] == ["pore", "", "group 3", "grain"]


# --- label images, sets -----------------------------------------------------------------------------------------------------


def test_a_stack_of_labels_is_for_the_stack_of_images() -> None:
    labels = np.zeros((3, HEIGHT, WIDTH), np.uint16)
    for page in range(3):
        labels[page, 5 : 10 + page, 5:10] = page + 1
    out = io.BytesIO()
    tifffile.imwrite(out, labels, photometric="minisblack")
    assert [areas(read(out.getvalue(), "a.tif", page=page, pages=3)) for page in range(3)] == [[25], [30], [35]]
    for other in ({"page": 0, "pages": 5}, {"page": 0, "pages": 1}, {}):
        with pytest.raises(MaskFileError, match="has the shape"):
            read(out.getvalue(), "a.tif", **other)


def test_sets_say_for_whom_they_were_made() -> None:
    from segment_duo.masks.formats import native

    code = rle.encode_crop(np.ones((5, 5), bool), 3, 3, HEIGHT, WIDTH)
    mask = Mask(code, 25, rle.bounding_box(code), id=4)
    image = ImageIdentity("/drops/lab/b.tif", "ab" * 32, WIDTH, HEIGHT, 2)
    data = native.dumps(MaskSet((mask,), Provenance(image=image)))
    found = read(data, "a.pkl", image_name="img.png", page=0, pages=3)
    assert found.notices == ("the file was made for b.tif", "the file was made for page 2 of its image")
    assert read(data, "a.pkl", image_name="b.tif", page=2, pages=3).notices == ()


def test_broken_records_of_other_programs_are_left_out() -> None:
    good = np.zeros((HEIGHT, WIDTH), bool)
    good[2:4, 2:4] = True
    data = pickle.dumps([{"segmentation": good}, {"segmentation": 3}, {"segmentation": np.ones(4, bool)}])
    found = read(data, "a.pkl")
    assert areas(found) == [4]
    assert found.notices[0] == "mask 2 is left out: holds a mask as int"
    assert found.notices[-1] == "2 of 3 masks are left out"
    with pytest.raises(MaskFileError, match="mask 1: is for an image of 4 x 3, the image is 90 x 60"):
        read(pickle.dumps([{"segmentation": np.ones((3, 4), bool)}]), "a.pkl")
    with pytest.raises(MaskFileError, match="nothing that can be used: mask 1: holds a mask as int"):
        read(pickle.dumps([{"segmentation": 3}]), "a.pkl")


def test_a_folder_of_sam1_with_gaps(tmp_path: Path) -> None:
    code = rle.encode_crop(np.ones((5, 5), bool), 3, 3, HEIGHT, WIDTH)
    masks = tuple(Mask(code, 25, rle.bounding_box(code), id=n) for n in range(4))
    mask_set = MaskSet(masks, Provenance(image=ImageIdentity("img.png", "", WIDTH, HEIGHT)))
    (folder,) = export.export([(mask_set, None)], "sam1", tmp_path)
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes(b"junk")  # Pillow would name the object it was given
    (folder / "._0.png").write_bytes(b"junk of the Finder")
    found = importers.import_folder(folder, width=WIDTH, height=HEIGHT)
    assert areas(found) == [25, 25]
    assert [notice[:17] for notice in found.notices] == ["1.png is left out", "2.png is left out", "2 of 4 masks are "]
    assert found.notices[1].endswith("is not a readable label image (UnidentifiedImageError)")
    with pytest.raises(MaskFileError, match=r"nothing that can be used: 0\.png: is for an image of 90 x 60"):
        importers.import_folder(folder, width=WIDTH, height=HEIGHT + 1)


def test_a_table_of_sam1_that_a_spreadsheet_saved(tmp_path: Path) -> None:
    """With semicolons and decimal commas, as in half the world."""
    code = rle.encode_crop(np.ones((5, 5), bool), 3, 3, HEIGHT, WIDTH)
    mask = Mask(code, 25, rle.bounding_box(code), predicted_iou=0.75, point_coords=((4.5, 5.0),), point_labels=(1,))
    mask_set = MaskSet((mask,), Provenance(image=ImageIdentity("img.png", "", WIDTH, HEIGHT)))
    (folder,) = export.export([(mask_set, None)], "sam1", tmp_path)
    table = folder / "metadata.csv"
    plain = importers.import_folder(folder, width=WIDTH, height=HEIGHT)
    table.write_text(table.read_text().replace(",", ";").replace(".", ","))
    found = importers.import_folder(folder, width=WIDTH, height=HEIGHT)
    assert found == plain
    assert (found.masks[0].predicted_iou, found.masks[0].point_coords) == (0.75, ((4.5, 5.0),))


# --- what we write comes back -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["coco", "coco-rle", "imagej", "geojson", "labelme", "npz"]),
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(["", "grain", "Tumor: Positive", "7"])),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 3),
)
def test_masks_labels_and_numbers_come_back(fmt: str, drawn: list[tuple[int, str]], first: int) -> None:
    import tempfile

    from segment_duo.masks.formats.common import canvas

    masks = []
    for number, (seed, label) in enumerate(drawn):
        array = gaussian_filter(np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH)), 2) > 0.1
        code = rle.encode(array)
        masks.append(Mask(code, rle.area(code), rle.bounding_box(code), id=first + 2 * number, label=label))
    mask_set = MaskSet(tuple(masks), Provenance(image=ImageIdentity("img.png", "", WIDTH, HEIGHT)))
    assert canvas(mask_set) == (HEIGHT, WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"a{export.FORMATS[fmt].extension}"
        export.export([(mask_set, None)], fmt, target)
        found = read(target.read_bytes(), target.name, image_name="img.png", page=0, pages=4)
    assert found.notices == ()
    assert [mask.rle for mask in found.masks] == [mask.rle for mask in masks]
    assert [mask.label for mask in found.masks] == [mask.label for mask in masks]
    if fmt not in ("imagej",):
        assert [mask.id for mask in found.masks] == [mask.id for mask in masks]


def test_words_in_odd_places_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    assert areas(read(labelme({"points": square(1, 1)}, {"shape_type": [0], "points": square(1, 1)}))) == [400]
    data = bytearray(freehand(10, 10).tobytes())
    data[6] = 102
    with pytest.raises(MaskFileError, match="a ROI of the kind unknown has no area"):
        read(bytes(data), "a.roi")
    assert capfd.readouterr().err == "", "remarks of the ROI library"


def test_pages_that_lead_back_to_themselves_are_not_followed_for_ever() -> None:
    """The second page of a label image names itself as the next one."""
    stored = io.BytesIO()
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[2:5, 3:7] = 1
    with tifffile.TiffWriter(stored) as writer:
        for page in (labels, labels[::2]):
            writer.write(page, metadata=None, contiguous=False, compression="zlib")
    data = bytearray(stored.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        second = tiff.pages[1].offset
    entries = int.from_bytes(data[second : second + 2], "little")
    after = second + 2 + 12 * entries
    assert data[after : after + 4] == bytes(4)
    data[after : after + 4] = second.to_bytes(4, "little")
    assert [mask.area for mask in read(bytes(data), "labels.tif").masks] == [12]


def label_tiff(labels: np.ndarray, **options: Any) -> bytes:
    stored = io.BytesIO()
    tifffile.imwrite(stored, labels, metadata=None, **options)
    return stored.getvalue()


def with_values(data: bytes, code: int, values: Callable[[int], Sequence[int]]) -> bytes:
    """The file with the values of one tag of its first page replaced; ``values`` is given their number."""
    out = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag, order = tiff.pages[0].tags[code], tiff.byteorder
    kind = {2: "H", 4: "I"}[tag.valuebytecount // tag.count]
    struct.pack_into(f"{order}{tag.count}{kind}", out, tag.valueoffset, *values(tag.count))
    return bytes(out)


LABELS = np.zeros((HEIGHT, WIDTH), np.uint16)
LABELS[10:30, 10:30], LABELS[50:60, 50:80] = 1, 300
STRIP_COUNTS, STRIP_OFFSETS, TILE_COUNTS = 279, 273, 325


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (STRIP_COUNTS, {"rowsperstrip": 7}),
        (STRIP_COUNTS, {"rowsperstrip": 7, "compression": "lzw", "predictor": 2}),
        (STRIP_COUNTS, {"compression": "zlib", "byteorder": ">"}),
        (TILE_COUNTS, {"tile": (32, 32)}),
    ],
)
def test_labels_without_byte_counts_are_no_background(code: int, options: dict[str, Any]) -> None:
    data = label_tiff(LABELS, **options)
    assert areas(read(data, "a.tif")) == [400, 300]
    assert areas(read(with_values(data, code, lambda n: [0] * n), "a.tif")) == [400, 300]


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
def test_labels_of_which_strips_are_missing_are_refused(compression: str | None) -> None:
    data = label_tiff(LABELS.astype(np.uint8), rowsperstrip=7, compression=compression)
    with pytest.raises(MaskFileError, match="pixels are missing"):
        read(with_values(data, STRIP_OFFSETS, lambda n: [0] * n), "a.tif")


def test_labels_of_odd_types_say_nothing_beside_their_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert areas(read(label_tiff((LABELS > 0).astype(np.float16)), "a.tif")) == [700]
    with pytest.raises(MaskFileError, match="samples of the type complex64"):
        read(label_tiff(LABELS.astype(np.complex64)), "a.tif")
    data = bytearray(label_tiff(LABELS))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        software = tiff.pages[0].tags[305].offset
    struct.pack_into("<H", data, software + 2, 99)  # a field type that does not exist
    assert areas(read(bytes(data), "a.tif")) == [400, 300]
    assert capfd.readouterr().err == ""


def test_labels_in_an_npz_are_several_masks() -> None:
    for array in (LABELS, LABELS[None], LABELS.astype(np.int64)):
        stored = io.BytesIO()
        np.savez_compressed(stored, masks=array)
        assert areas(read(stored.getvalue(), "a.npz")) == [400, 300]
    for array in (LABELS > 0, (LABELS > 0) * np.uint8(255)):
        stored = io.BytesIO()
        np.savez(stored, masks=array)
        assert areas(read(stored.getvalue(), "a.npz")) == [700]
    stored = io.BytesIO()
    np.savez(stored, masks=LABELS.astype(np.int16) - 1)
    with pytest.raises(MaskFileError, match="negative values"):
        read(stored.getvalue(), "a.npz")


def test_an_npz_with_python_objects_gives_its_masks() -> None:
    stored = io.BytesIO()
    np.savez(stored, masks=np.stack([LABELS == 1, LABELS == 300]), label=np.array(["a", None], object), id=[4, 9])
    found = read(stored.getvalue(), "a.npz")
    assert [(mask.id, mask.area, mask.label) for mask in found.masks] == [(4, 400, ""), (9, 300, "")]
    assert found.notices == ("its array label holds Python objects and is left out",)


def test_half_a_character_in_a_label_does_not_spoil_the_exports(tmp_path: Path) -> None:
    """JSON can escape one: a name with an emoji that was cut in two."""
    content = coco({}, categories=[{"id": 1, "name": "grain \ud83d"}])
    [mask] = read(content).masks
    assert mask.label == "grain \N{REPLACEMENT CHARACTER}"
    identity = ImageIdentity("img.png", "", WIDTH, HEIGHT)
    for fmt in export.FORMATS:
        if fmt != "overlay":  # needs the picture
            export.export([(MaskSet((mask,), Provenance(image=identity)), None)], fmt, tmp_path / fmt)
    stored = pickle.dumps([{"segmentation": np.ones((HEIGHT, WIDTH), bool), "label": "\ud83d\ude00 \udcf6"}])
    assert read(stored, "a.pkl").masks[0].label == "\N{GRINNING FACE} \N{REPLACEMENT CHARACTER}"
    relabelled = labelled([mask], {mask.id}, "K\udcf6rnung")
    assert relabelled[0].label == "K\N{REPLACEMENT CHARACTER}rnung"
