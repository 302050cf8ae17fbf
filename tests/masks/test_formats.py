"""Every export opened by the library its users use, and read back."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import math
import os
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
import shapely
import shapely.geometry
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools.coco import COCO

from segment_duo.errors import AlreadyExists, InputError, MaskFileError, OutOfSpace, StoreError, UsageError
from segment_duo.masks import outlines, rle
from segment_duo.masks.formats import export, importers
from segment_duo.masks.formats.native import dumps
from segment_duo.types import ImageData, ImageFacts, ImageIdentity, Mask, MaskSet, PixelSize, Provenance

HEIGHT, WIDTH = 40, 56


def make_mask(array: np.ndarray, **fields: Any) -> Mask:
    code = rle.encode(array)
    return Mask(code, rle.area(code), rle.bounding_box(code), **fields)


def arrays() -> list[np.ndarray]:
    """A square, one with holes, one in parts that touch by corners, one at the image's edges, one that overlaps the first."""
    square, holes, parts, edge, over = (np.zeros((HEIGHT, WIDTH), bool) for _ in range(5))
    square[4:10, 5:15] = True
    holes[12:30, 20:40] = True
    holes[14:18, 22:26] = holes[18:20, 26:30] = holes[22:26, 30:38] = False
    parts[1:4, 30:33] = parts[4:7, 33:36] = parts[20:23, 3:5] = True
    edge[35:, 50:] = edge[39, :] = edge[:, 55] = True
    over[7:20, 8:12] = True
    return [square, holes, parts, edge, over]


def full_set(name: str = "/drops/lab/a b.tif") -> MaskSet:
    labels = ["grain", "", "pore", "grain", "ä <x>"]
    masks = tuple(
        make_mask(
            array,
            id=n + 3,
            label=label,
            predicted_iou=0.75 + n / 100,
            stability_score=0.5 + n / 64,
            point_coords=((n + 1.0, 2.0),),
            point_labels=(1,),
            crop_box=(0.0, 0.0, float(WIDTH), float(HEIGHT)),
            source="prompt" if n % 2 else "auto",
        )
        for n, (array, label) in enumerate(zip(arrays(), labels, strict=True))
    )
    return MaskSet(masks, Provenance(image=ImageIdentity(name, "ab", WIDTH, HEIGHT)))


def image() -> ImageData:
    original = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    facts = ImageFacts(WIDTH, HEIGHT, "tiff", "uint16", 1, 0, 1, "ab", 1, pixel_size=PixelSize(10, 10, "test"))
    return ImageData(pixels, original, facts)


def write(fmt: str, folder: Path, *sets: MaskSet, **options: Any) -> Path:
    chosen = sets or (full_set(),)
    target = folder / f"out{export.FORMATS[fmt].extension}"
    return export.export([(mask_set, image()) for mask_set in chosen], fmt, target, **options)[0]


def import_masks(data: bytes, fmt: str | None, **options: Any) -> tuple[Mask, ...]:
    return importers.import_report(data, fmt, **options).masks


def read(path: Path, fmt: str | None = None) -> tuple[Mask, ...]:
    return import_masks(path.read_bytes(), fmt, name=path.name, width=WIDTH, height=HEIGHT)


def runs_of(masks: Any) -> list[Any]:
    return [mask.rle for mask in masks]


# --- what comes back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["coco", "coco-rle", "npz", "geojson"])
def test_lossless_formats_give_the_very_masks(fmt: str, tmp_path: Path) -> None:
    assert export.FORMATS[fmt].cannot_hold in ("", "empty masks")
    assert read(write(fmt, tmp_path)) == full_set().masks


@pytest.mark.parametrize("fmt", ["imagej", "labelme", "yolo"])
def test_outline_formats_give_every_pixel(fmt: str, tmp_path: Path) -> None:
    back = read(write(fmt, tmp_path))
    assert runs_of(back) == runs_of(full_set().masks)
    assert {mask.source for mask in back} == {"import"}
    if fmt != "yolo":
        assert [mask.label for mask in back] == [mask.label for mask in full_set().masks]


@pytest.mark.parametrize("fmt", ["labels-tiff", "labels-png"])
def test_label_images_give_the_masks_without_overlap(fmt: str, tmp_path: Path) -> None:
    expected = arrays()
    expected[4] &= ~expected[0] if expected[0].sum() < expected[4].sum() else True
    expected[0] &= ~expected[4] if expected[4].sum() < expected[0].sum() else True
    expected[1] &= ~arrays()[4]
    back = read(write(fmt, tmp_path))
    assert runs_of(back) == [rle.encode(array) for array in expected]


def test_sam1_folder_comes_back(tmp_path: Path) -> None:
    folder = write("sam1", tmp_path)
    assert folder == tmp_path / "out" / "a b"
    header = (folder / "metadata.csv").read_text().splitlines()[0]
    assert header == (
        "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,"
        "crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
    )
    back = importers.import_folder(folder, width=WIDTH, height=HEIGHT).masks
    expected = [replace(mask, id=n, label="", source="import") for n, mask in enumerate(full_set().masks)]
    assert list(back) == expected
    with pytest.raises(MaskFileError, match="the image is 5 x 5"):
        importers.import_folder(folder, width=5, height=5)


def test_one_png_per_mask(tmp_path: Path) -> None:
    folder = write("png", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [f"a b_{n}.png" for n in range(3, 8)]
    with Image.open(folder / "a b_4.png") as picture:
        np.testing.assert_array_equal(np.array(picture), arrays()[1] * np.uint8(255))
    assert runs_of(read(folder / "a b_4.png")) == [rle.encode(arrays()[1])]


@pytest.mark.parametrize("fmt", [name for name, form in export.FORMATS.items() if form.reimport])
def test_what_a_format_says_it_cannot_hold_is_all_that_is_lost(fmt: str, tmp_path: Path) -> None:
    said = export.FORMATS[fmt].cannot_hold
    path = write(fmt, tmp_path)
    if fmt == "sam1":
        back: tuple[Mask, ...] = importers.import_folder(path, width=WIDTH, height=HEIGHT).masks
    elif fmt == "png":
        back = tuple(mask for file in sorted(path.iterdir()) for mask in read(file))
    else:
        back = read(path)
    before = full_set().masks
    if "overlaps" not in said:
        assert runs_of(back) == runs_of(before)
    if "label" not in said:
        assert [mask.label for mask in back] == [mask.label for mask in before]
    if "scores" not in said:
        assert [mask.predicted_iou for mask in back] == [mask.predicted_iou for mask in before]
    if "points" not in said:
        assert [mask.point_coords for mask in back] == [mask.point_coords for mask in before]
    if "ids" not in said and "id" not in said.split():
        assert [mask.id for mask in back] == [mask.id for mask in before]


drawn = hnp.arrays(bool, st.tuples(st.integers(1, 13), st.integers(1, 13)))


@settings(max_examples=100, deadline=None)
@given(drawn)
def test_outlines_are_exact_and_valid(array: np.ndarray) -> None:
    code = rle.encode(array)
    parts = outlines.outline_parts(code)
    rings = [ring.astype(float) for part in parts for ring in part]
    np.testing.assert_array_equal(outlines.fill(rings, *array.shape), array)
    assert outlines.rle_of_rings(rings, *array.shape) == code
    polygons = shapely.geometry.MultiPolygon([(part[0], part[1:]) for part in parts])
    assert polygons.is_valid, shapely.is_valid_reason(polygons)
    assert polygons.area == array.sum()
    slit = outlines.single_ring(parts)
    if slit:
        assert outlines.rle_of_rings([np.array(slit, float)], *array.shape) == code


@settings(max_examples=25, deadline=None)
@given(
    st.lists(hnp.arrays(bool, (11, 9)), max_size=4),
    st.sampled_from(["coco", "imagej", "geojson", "labelme", "yolo", "npz"]),
)
def test_any_masks_come_back(found: list[np.ndarray], fmt: str) -> None:
    masks = tuple(make_mask(array, id=n) for n, array in enumerate(found))
    mask_set = MaskSet(masks, Provenance(image=ImageIdentity("a.tif", "", 9, 11)))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"out{export.FORMATS[fmt].extension}"
        export.export([(mask_set, None)], fmt, target)
        back = import_masks(target.read_bytes(), fmt, name=target.name, width=9, height=11)
    kept = [mask.rle for mask in masks if mask.area or "empty masks" not in export.FORMATS[fmt].cannot_hold]
    assert runs_of(back) == kept


# --- the libraries of the users -----------------------------------------------------------------------------------------------


def test_pycocotools_opens_a_dataset_of_two_images(tmp_path: Path) -> None:
    second = full_set("/x/other.tif")
    path = write("coco", tmp_path, full_set(), second)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(path))
    assert [item["file_name"] for item in dataset.loadImgs(dataset.getImgIds())] == ["a b.tif", "other.tif"]
    annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=[2]))
    for annotation, array in zip(annotations, arrays(), strict=True):
        np.testing.assert_array_equal(dataset.annToMask(annotation), array)
        assert annotation["area"] == array.sum()
    assert len(dataset.getCatIds()) == 4
    report = importers.import_report(
        path.read_bytes(), None, name="masks.json", width=WIDTH, height=HEIGHT, image_name="other.png"
    )
    assert report.masks == second.masks
    with pytest.raises(MaskFileError, match="holds 2 images"):
        read(path)


def test_coco_polygons_are_filled_as_pycocotools_does() -> None:
    polygon = [[2.0, 3.0, 20.5, 3.0, 20.5, 9.25, 2.0, 9.25], [30, 30, 40, 30, 40, 39]]
    content = {
        "images": [{"id": 7, "file_name": "x.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 2, "segmentation": polygon}],
        "categories": [{"id": 2, "name": "pore"}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = content
        dataset.createIndex()
    (mask,) = import_masks(json.dumps(content).encode(), None, name="x.json", width=WIDTH, height=HEIGHT)
    np.testing.assert_array_equal(rle.decode(mask.rle), dataset.annToMask(content["annotations"][0]))
    assert mask.label == "pore"


def test_tifffile_opens_labels(tmp_path: Path) -> None:
    path = write("labels-tiff", tmp_path)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression.name == "ADOBE_DEFLATE"
        labels = tiff.asarray()
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 5}
    large = write("labels-tiff", tmp_path / "area", overlap="area")
    assert (tifffile.imread(large)[14, 9], tifffile.imread(large)[8, 9]) == (5, 1)
    assert labels[8, 9] == 5, "the smaller one is on top"


def test_more_masks_than_16_bit(tmp_path: Path) -> None:
    none = make_mask(np.zeros((1, 1), bool))
    many = tuple(replace(none, id=n) for n in range(65_535))
    mask_set = MaskSet((*many, make_mask(np.ones((1, 1), bool), id=65_535)), Provenance())
    path = export.export([(mask_set, None)], "labels-tiff", tmp_path / "a.tif")[0]
    labels = tifffile.imread(path)
    assert (labels.dtype, labels.item()) == (np.uint32, 65_536)
    with pytest.raises(MaskFileError, match="PNG cannot hold 65536 labels"):
        export.export([(mask_set, None)], "labels-png", tmp_path / "a.png")


def test_roifile_opens_the_archive(tmp_path: Path) -> None:
    rois = roifile.roiread(write("imagej", tmp_path))
    assert [roi.name for roi in rois] == ["grain", "0002", "pore", "grain", "ä <x>"]
    assert rois[0].roitype == roifile.ROI_TYPE.TRACED
    assert sorted(map(tuple, rois[0].coordinates().tolist())) == [(5, 4), (5, 10), (15, 4), (15, 10)]
    assert rois[1].composite
    rings = [shapely.geometry.Polygon(ring) for ring in rois[1].coordinates(multi=True)]
    outer = max(rings, key=lambda ring: ring.area)
    assert outer.area - sum(ring.area for ring in rings if ring is not outer) == arrays()[1].sum()
    assert (rois[1].left, rois[1].top, rois[1].right, rois[1].bottom) == (20, 12, 40, 30)


def test_imagej_shapes_of_other_hands(tmp_path: Path) -> None:
    rectangle, oval, line = roifile.ImagejRoi(), roifile.ImagejRoi(), roifile.ImagejRoi()
    for roi, kind in ((rectangle, "RECT"), (oval, "OVAL"), (line, "LINE")):
        roi.roitype = roifile.ROI_TYPE[kind]
        roi.left, roi.top, roi.right, roi.bottom = 5, 6, 25, 16
        roi.name = kind.lower()
    polygon = roifile.ImagejRoi.frompoints(np.array([[1.5, 1.5], [9.5, 1.5], [9.5, 5.5], [1.5, 5.5]]), name="sub")
    path = tmp_path / "r.zip"
    roifile.roiwrite(path, [rectangle, oval, line, polygon])
    report = importers.import_report(path.read_bytes(), None, name="r.zip", width=WIDTH, height=HEIGHT)
    assert [mask.label for mask in report.masks] == ["rect", "oval", "sub"]
    assert report.masks[0].area == 200
    assert abs(report.masks[1].area - math.pi * 10 * 5) < 8
    assert report.masks[2].area == 32
    assert len(report.notices) == 1
    assert "line" in report.notices[0]
    single = import_masks(rectangle.tobytes(), None, name="r.roi", width=WIDTH, height=HEIGHT)
    assert single[0].bbox == (5, 6, 20, 10)


def test_shapely_opens_the_geojson(tmp_path: Path) -> None:
    content = json.loads(write("geojson", tmp_path).read_text())
    assert content["type"] == "FeatureCollection"
    for feature, array in zip(content["features"], arrays(), strict=True):
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area == array.sum()
        y, x = np.nonzero(array)
        assert geometry.bounds == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert feature["properties"]["objectType"] == "annotation"
    assert content["features"][0]["properties"]["classification"]["name"] == "grain"
    assert write("geojson", tmp_path / "b").read_text() == (tmp_path / "out.geojson").read_text(), "the same each time"


def test_labelme_mask_shapes(tmp_path: Path) -> None:
    content = json.loads(write("labelme", tmp_path).read_text())
    assert [shape["shape_type"] for shape in content["shapes"]] == ["polygon", "mask", "mask", "polygon", "polygon"]
    shape = content["shapes"][1]
    assert shape["points"] == [[20, 12], [39, 29]]
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
        np.testing.assert_array_equal(np.array(picture), arrays()[1][12:30, 20:40])
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("a b.tif", HEIGHT, WIDTH)


def test_labelme_shapes_of_other_hands() -> None:
    shapes = [
        {"label": "r", "shape_type": "rectangle", "points": [[10, 4], [2, 9]]},
        {"label": "c", "shape_type": "circle", "points": [[20, 20], [20, 30]]},
        {"label": "p", "shape_type": "point", "points": [[1, 1]]},
        {"label": "old", "points": [[0, 0], [4, 0], [4, 4]]},
    ]
    data = json.dumps({"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH}).encode()
    report = importers.import_report(data, None, name="x.json", width=WIDTH, height=HEIGHT)
    assert [mask.label for mask in report.masks] == ["r", "c", "old"]
    assert report.masks[0].bbox == (2, 4, 8, 5)
    assert abs(report.masks[1].area - math.pi * 100) < 6
    assert report.notices == ("shape 3 is left out: a point has no area",)


def test_yolo_lines_are_fractions(tmp_path: Path) -> None:
    lines = write("yolo", tmp_path).read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "0", "3"]
    numbers = [float(word) for line in lines for word in line.split()[1:]]
    assert min(numbers) >= 0
    assert max(numbers) <= 1
    back = read(tmp_path / "out.txt")
    assert [mask.label for mask in back] == ["class 0", "class 1", "class 2", "class 0", "class 3"]


def test_numpy_opens_the_archive_without_pickle(tmp_path: Path) -> None:
    with np.load(write("npz", tmp_path), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["masks"], np.stack(arrays()))
        assert found["area"].tolist() == [int(array.sum()) for array in arrays()]
        assert found["label"].tolist() == [mask.label for mask in full_set().masks]


def test_svg_is_xml_with_a_path_for_every_mask(tmp_path: Path) -> None:
    root = ET.parse(write("svg", tmp_path)).getroot()
    name = {"svg": "http://www.w3.org/2000/svg"}
    paths = root.findall(".//svg:path", name)
    assert [path.get("id") for path in paths] == [f"mask-{n}" for n in range(3, 8)]
    assert paths[0].get("d") == "M5,4L15,4L15,10L5,10Z"
    assert [title.text for title in root.findall(".//svg:path/svg:title", name)] == ["grain", "pore", "grain", "ä <x>"]
    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"


def test_table_and_overlay(tmp_path: Path) -> None:
    lines = write("csv", tmp_path).read_text().splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("/drops/lab/a b.tif,3,grain,auto,60,")
    with Image.open(write("overlay", tmp_path)) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert len(picture.convert("RGB").getcolors()) > 6
    with pytest.raises(UsageError, match="draws on the image"):
        export.export([(full_set(), None)], "overlay", tmp_path / "x.png")


# --- names and disk -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", list(export.FORMATS))
def test_nothing_is_overwritten(fmt: str, tmp_path: Path) -> None:
    target = write(fmt, tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(AlreadyExists, match="exists already"):
        write(fmt, tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")], "no leftovers"


def test_several_sets_get_their_images_names(tmp_path: Path) -> None:
    sets = [
        full_set("/a/x.tif"),
        full_set("/b/x.tif"),
        full_set("C:\\data\\..\\.hid:den.tif"),
        replace(full_set(), provenance=Provenance()),
    ]
    written = export.export([(one, None) for one in sets], "geojson", tmp_path / "new")
    assert [path.name for path in written] == ["x.geojson", "x_1.geojson", "hid_den.geojson", "masks_4.geojson"]
    assert export.export([(sets[0], None)], "svg", tmp_path)[0] == tmp_path / "x.svg"
    assert export.export([(one, None) for one in sets], "coco", tmp_path)[0] == tmp_path / "masks.json"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out.svg").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyExists):
        write("svg", tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_disk_errors_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OutOfSpace):
            write("svg", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        write("geojson", tmp_path / "file")


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert write("svg", tmp_path).stat().st_size > 100
    with pytest.raises(AlreadyExists):
        write("svg", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out.svg"]


@pytest.mark.parametrize(
    ("fmt", "name"),
    [
        ("svg", "a.json"),
        ("coco", "a.svg"),
        ("csv", "a.xlsx"),
        ("imagej", "a.roi"),
        ("geojson", "a.csv"),
        ("npz", "a.npy"),
    ],
)
def test_a_name_that_promises_other_content_is_refused(fmt: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="writes"):
        export.export([(full_set(), None)], fmt, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fmt", "name"), [("geojson", "a.json"), ("csv", "a.txt"), ("svg", "a.v2"), ("labels-tiff", "a.tiff")]
)
def test_a_name_that_suits_or_promises_nothing_is_taken(fmt: str, name: str, tmp_path: Path) -> None:
    assert export.export([(full_set(), None)], fmt, tmp_path / name) == [tmp_path / name]


def test_unknown_words() -> None:
    with pytest.raises(UsageError, match="bogus"):
        export.export([(full_set(), None)], "bogus", Path("x"))
    with pytest.raises(UsageError, match="bogus"):
        export.export([(full_set(), None)], "svg", Path("x"), overlap="bogus")
    with pytest.raises(InputError, match="no mask set"):
        export.export([], "svg", Path("x"))
    with pytest.raises(UsageError, match="bogus"):
        import_masks(b"", "bogus", name="x", width=1, height=1)


# --- imports that cannot be ---------------------------------------------------------------------------------------------------


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG")
    return out.getvalue()


def tiff(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array)
    return out.getvalue()


def zipped(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def npz(**found: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **found)
    return out.getvalue()


FAR = [[0, 0], [1e9, 0], [1e9, 1e9]]


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"", "a.xyz", "no mask file"),
        (b"what", "a.bin", "no mask file"),
        (b"{", "a.json", "is not JSON.*line 1, column 2"),
        (b"[" * 100_000, "a.json", "nested too deeply"),
        (b"{}", "a.json", "no annotations"),
        (b"[" + b"9" * 5000 + b"]", "a.json", "number that cannot be read"),
        (b"[1]", "a.json", "no list of records"),
        (b'[{"segmentation": {"size": [3, 3], "counts": "9"}}]', "a.json", "image of 3 x 3, the image is 56 x 40"),
        (b'[{"segmentation": {"counts": "9"}}]', "a.json", "record 1: does not say its size"),
        (b'[{"segmentation": {"size": [40, 56], "counts": [1, 2]}}]', "a.json", "do not cover"),
        (b'[{"segmentation": [[1, 2, 3]]}]', "a.json", "outline that is no list"),
        (json.dumps([{"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}]).encode(), "a.json", "far outside"),
        (b'[{"segmentation": [[0, 0, NaN, 0, 1, 1]]}]', "a.json", "outline that is no list"),
        (b'{"images": [], "annotations": []}', "a.json", "holds 0 images"),
        (png(np.zeros((3, 3), np.uint8)), "a.png", "image of 3 x 3"),
        (png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "a.png", "colour image"),
        (png(np.zeros((HEIGHT, WIDTH), np.uint8))[:60], "a.png", "not a readable label image"),
        (tiff(np.zeros((3, 3), np.uint16)), "a.tif", "the image is 56 x 40"),
        (tiff(np.zeros((2, HEIGHT, WIDTH), np.uint16)), "a.tif", "has the shape"),
        (tiff(np.full((HEIGHT, WIDTH), 0.5, np.float32)), "a.tif", "fractions"),
        (tiff(np.full((HEIGHT, WIDTH), -1, np.int32)), "a.tif", "negative"),
        (tiff(np.zeros((HEIGHT, WIDTH), np.uint16))[:300], "a.tif", "not a readable label image"),
        (b"II*\0\0\0\0\0", "a.tif", "not a readable label image"),
        (b"Iout\0\0", "a.roi", "no readable ROI"),
        (zipped(a__roi=b"Ioutxx"), "a.zip", "no readable ROI"),
        (b"PK\x03\x04garbage", "a.zip", "damaged ZIP"),
        (b'{"shapes": 3}', "a.json", "no list of shapes"),
        (b'{"shapes": [{"points": [[0, 0]]}]}', "a.json", "shape 1: an outline of 1 points"),
        (json.dumps({"shapes": [{"points": FAR}]}).encode(), "a.json", "far outside"),
        (b'{"shapes": [], "imageHeight": 3, "imageWidth": 3}', "a.json", "image of 3 x 3"),
        (
            b'{"shapes": [{"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "####"}]}',
            "a.json",
            "damaged mask shape",
        ),
        (
            b'{"shapes": [{"shape_type": "mask", "points": [[0, 0], [99, 1]], "mask": ""}]}',
            "a.json",
            "in an image of 56 x 40",
        ),
        (
            b'{"shapes": [{"shape_type": "line", "points": [[0, 0], [9, 1]]}]}',
            "a.json",
            "nothing that can be used: shape 1: a line has no area",
        ),
        (b'{"features": [{"geometry": {"type": "Point"}}]}', "a.geojson", "feature 1: a Point has no area"),
        (b'{"features": [{"geometry": {"type": "Polygon", "coordinates": 4}}]}', "a.geojson", "no coordinates"),
        (
            b'{"features": [{"geometry": {"type": "Polygon", "coordinates": [["a"]]}}]}',
            "a.geojson",
            "something else than numbers",
        ),
        (b"0 0.1 0.1 0.2", "a.txt", "line 1: is no polygon"),
        (b"0 x\n0 0.1", "a.txt", r"line 1: holds something else than numbers \(and 1 more\)"),
        (b"0 0 0 1e9 0 1e9 1e9", "a.txt", "line 1: holds no fractions"),
        (npz(other=np.zeros(3)), "a.npz", "no array called masks"),
        (npz(masks=np.zeros((2, 3, 3), bool)), "a.npz", "image of 3 x 3"),
        (npz(masks=np.zeros((HEIGHT, WIDTH), float)), "a.npz", "the type float64"),
        (zipped(masks__npy=b"\x93NUMPYxx"), "a.npz", "damaged NPZ"),
        (b"\x80\x04N.", "a.pkl", "NoneType where the list"),
        (dumps(MaskSet((make_mask(np.ones((3, 3), bool)),), Provenance())), "a.pkl", "image of 3 x 3"),
    ],
)
def test_damaged_imports_are_named(data: bytes, name: str, said: str) -> None:
    with pytest.raises(MaskFileError, match=said) as caught:
        import_masks(data, None, name=name, width=WIDTH, height=HEIGHT)
    assert caught.value.message.startswith(name + ": ")


JUNK = [None, True, -1, 10**30, 1e308, "x", [], {}, [[]], [None], {"a": 1}, [[1, 2], [3, "y"]], "0" * 50]


@pytest.mark.parametrize("fmt", ["coco", "coco-rle", "labelme", "geojson"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_junk_anywhere_in_json_is_named_or_left_out(fmt: str, data: st.DataObject) -> None:
    content = json.loads(exported(fmt))
    place, walk = content, 0
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        walk += 1
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(st.sampled_from(JUNK))
            break
        place = place[key]
    with contextlib.suppress(MaskFileError):
        masks = import_masks(json.dumps(content).encode(), None, name="a.json", width=WIDTH, height=HEIGHT)
        assert dumps(MaskSet(masks, Provenance())), "what is read can be saved"


@pytest.mark.parametrize("fmt", ["labels-tiff", "labels-png", "npz", "imagej", "yolo", "coco"])
@settings(max_examples=25, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5))
def test_flipped_bytes_are_named_or_masks(fmt: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(exported(fmt))
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(MaskFileError):
        name = f"a{export.FORMATS[fmt].extension}"
        import_masks(bytes(content), None, name=name, width=WIDTH, height=HEIGHT)


@functools.cache
def exported(fmt: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(fmt, Path(folder)).read_bytes()


def test_an_npz_that_claims_more_than_it_may_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from segment_duo.masks.formats import npz as codec

    data = npz(masks=np.zeros((600, HEIGHT, WIDTH), bool))
    monkeypatch.setattr(codec, "MAX_PIXELS", 1000)
    with pytest.raises(MaskFileError, match="unpacks to"):
        import_masks(data, None, name="a.npz", width=WIDTH, height=HEIGHT)


def test_label_images_of_other_hands() -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint32)
    labels[2:4, 2:9], labels[10:12, 3:5] = 7, 4_000_000_000
    for data in (tiff(labels), tiff((labels > 0).astype(np.uint8) * 255), tiff((labels // 7 % 5).astype(np.float32))):
        values = np.unique(tifffile.imread(io.BytesIO(data)))
        masks = import_masks(data, None, name="a.tif", width=WIDTH, height=HEIGHT)
        assert len(masks) == np.count_nonzero(values)
        whole = np.logical_or.reduce([rle.decode(mask.rle) for mask in masks])
        np.testing.assert_array_equal(whole, tifffile.imread(io.BytesIO(data)) != 0)
    empty = import_masks(png(np.zeros((HEIGHT, WIDTH), np.uint8)), None, name="a.png", width=WIDTH, height=HEIGHT)
    assert empty == ()


def test_every_format_is_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    for form in export.FORMATS.values():
        assert f"| `{form.name}` |" in text
        assert form.cannot_hold in text, form.name
    for name in importers.IMPORTS:
        assert f"`{name}`" in text
