"""Measures against known shapes, scikit-image and arithmetic; summary, table, plot."""

from __future__ import annotations

import base64
import csv
import io
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.measure import perimeter_crofton, regionprops

from segment_duo.errors import UsageError
from segment_duo.masks import rle
from segment_duo.masks.filters import MaskFilter, apply
from segment_duo.masks.measure import (
    COLUMNS,
    analysed_size,
    measure,
    measures_csv,
    summarize,
    summarize_images,
)
from segment_duo.masks.plot import histogram, plot, plot_format
from segment_duo.types import Banner, ImageData, ImageFacts, ImageIdentity, Mask, MaskSet, PixelSize, Provenance

HEIGHT, WIDTH, BANNER = 300, 320, 20
YY, XX = np.mgrid[:HEIGHT, :WIDTH]


def make_mask(array: np.ndarray, **fields: Any) -> Mask:
    code = rle.encode(array)
    return Mask(code, rle.area(code), rle.bounding_box(code), **fields)


def set_of(*arrays: np.ndarray, **provenance: Any) -> MaskSet:
    return MaskSet(tuple(make_mask(array, id=n) for n, array in enumerate(arrays)), Provenance(**provenance))


def ellipse(cx: float, cy: float, a: float, b: float, degrees: float = 0.0) -> np.ndarray:
    """Counter-clockwise on the screen."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = (XX - cx) * cos - (YY - cy) * sin, (XX - cx) * sin + (YY - cy) * cos
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def image(size: PixelSize | None = None, channels: int = 1) -> ImageData:
    original = (np.arange(HEIGHT * WIDTH, dtype=np.uint32) % 60_000).astype(np.uint16).reshape(HEIGHT, WIDTH)[:-BANNER]
    if channels > 1:
        original = np.stack([original] * channels, axis=2)
    facts = ImageFacts(
        WIDTH, HEIGHT, "tiff", "uint16", channels, 0, 1, "ab", 1, banner=Banner(BANNER, "tag"), pixel_size=size
    )
    return ImageData(np.full((HEIGHT - BANNER, WIDTH, 3), 70, np.uint8), original, facts)


@pytest.mark.parametrize("radius", [12, 30, 80])
def test_disc(radius: int) -> None:
    (row,) = measure(set_of(ellipse(150.25, 140.5, radius, radius)), None, PixelSize(2.5, 2.5, "test"))
    assert row.equivalent_diameter_px == pytest.approx(2 * radius, rel=0.01)
    assert row.perimeter_px == pytest.approx(2 * math.pi * radius, rel=0.02)
    assert row.feret_max_px == pytest.approx(2 * radius, abs=1.5)
    assert row.feret_min_px == pytest.approx(2 * radius, abs=1.5)
    assert row.major_axis_px == pytest.approx(2 * radius, rel=0.01)
    assert row.circularity > 0.97
    assert row.solidity > 0.94
    assert (row.centroid_x_px, row.centroid_y_px) == pytest.approx((150.25, 140.5), abs=0.2)
    assert row.equivalent_diameter_nm == pytest.approx(2.5 * row.equivalent_diameter_px)
    assert row.area_nm2 == pytest.approx(6.25 * row.area_px)
    assert row.perimeter_nm == pytest.approx(2.5 * row.perimeter_px)
    assert not row.touches_edge


@pytest.mark.parametrize("degrees", [-60, -30, 0, 15, 45, 90])
def test_ellipse(degrees: int) -> None:
    (row,) = measure(set_of(ellipse(150, 140, 60, 20, degrees)))
    assert (row.major_axis_px, row.minor_axis_px) == pytest.approx((120, 40), rel=0.01)
    assert (row.feret_max_px, row.feret_min_px) == pytest.approx((120, 40), abs=2.5)
    turned = (row.orientation_deg - degrees + 90) % 180 - 90
    assert abs(turned) < 0.5
    # Ramanujan's first formula for the circumference.
    circumference = math.pi * (3 * 80 - math.sqrt((3 * 60 + 20) * (60 + 3 * 20)))
    assert row.perimeter_px == pytest.approx(circumference, rel=0.02)
    assert row.area_nm2 is None
    assert row.feret_max_nm is None
    assert row.intensity_mean is None


def test_rectangle_is_exact() -> None:
    array = np.zeros((HEIGHT, WIDTH), bool)
    array[10:40, 20:60] = True
    (row,) = measure(set_of(array))
    assert row.area_px == 1200
    assert row.feret_max_px == pytest.approx(50)
    assert row.feret_min_px == pytest.approx(30)
    assert row.solidity == pytest.approx(1)
    assert (row.centroid_x_px, row.centroid_y_px) == pytest.approx((39.5, 24.5))
    assert (row.bbox_x_px, row.bbox_y_px, row.bbox_width_px, row.bbox_height_px) == (20, 10, 40, 30)
    assert row.orientation_deg == pytest.approx(0)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, (9, 6)))
def test_mirrored_masks_lie_at_0_or_90_degrees(half: np.ndarray) -> None:
    whole = np.concatenate((half, half[:, ::-1]), axis=1)
    if not whole.any():
        return
    for array in (whole, whole.T):
        (row,) = measure(set_of(array), None, PixelSize(0.7, 1.3, "test"))
        assert str(row.orientation_deg) in ("0.0", "90.0")


def test_equal_values_have_no_spread() -> None:
    squares = [np.zeros((HEIGHT, WIDTH), bool) for _ in range(7)]
    for n, array in enumerate(squares):
        array[10:15, 10 + 20 * n : 17 + 20 * n] = True
    opened = image(PixelSize(1.7, 1.7, "tag"))
    opened = replace(opened, original=np.full(opened.original.shape, 0.1))
    rows = measure(set_of(*squares), opened)
    assert {row.intensity_sd for row in rows} == {0.0}
    assert summarize(rows, analysed=(280, 320), pixel_size=opened.facts.pixel_size).sd == 0.0


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, (9, 11)))
def test_figures_equal_scikit_image(array: np.ndarray) -> None:
    if not array.any():
        return
    (row,) = measure(set_of(array))
    (region,) = regionprops(array.astype(np.uint8))
    # scikit-image takes pixels for points, we for squares of the second moment 1/12.
    assert row.major_axis_px == pytest.approx(4 * math.sqrt((region.axis_major_length / 4) ** 2 + 1 / 12))
    assert row.minor_axis_px == pytest.approx(4 * math.sqrt((region.axis_minor_length / 4) ** 2 + 1 / 12))
    assert row.perimeter_px == pytest.approx(perimeter_crofton(np.pad(array, 1), directions=4))
    assert (row.centroid_y_px, row.centroid_x_px) == pytest.approx(region.centroid)
    assert row.equivalent_diameter_px == pytest.approx(region.equivalent_diameter_area)
    assert 0 < row.solidity <= 1
    assert 0 < row.circularity <= 1
    assert row.feret_min_px <= row.feret_max_px + 1e-9


def test_pixels_that_are_not_square() -> None:
    size = PixelSize(2.0, 6.0, "test")
    # A circle in nm: three times as wide in pixels as it is high.
    (row,) = measure(set_of(ellipse(150, 140, 90, 30)), None, size)
    assert row.equivalent_diameter_nm == pytest.approx(360, rel=0.01)
    assert row.feret_max_nm == pytest.approx(360, rel=0.03)
    assert row.feret_min_nm == pytest.approx(360, rel=0.03)
    assert row.major_axis_nm == pytest.approx(360, rel=0.01)
    assert row.perimeter_nm == pytest.approx(math.pi * 360, rel=0.03)
    assert row.area_nm2 == 12 * row.area_px
    assert row.circularity > 0.95, "it is a circle on the specimen, though an ellipse in the picture"
    assert measure(set_of(ellipse(150, 140, 90, 30)))[0].circularity < 0.7
    assert len(apply(set_of(ellipse(150, 140, 90, 30)), MaskFilter(min_circularity=0.9), None, size)) == 1


def test_intensity_is_that_of_the_original_depth() -> None:
    array = np.zeros((HEIGHT, WIDTH), bool)
    array[5:25, 7:30] = True
    for channels in (1, 3, 4):
        opened = image(channels=channels)
        (row,) = measure(set_of(array), opened)
        samples = opened.original[5:25, 7:30].astype(float)
        assert row.intensity_mean == pytest.approx(samples.mean())
        assert row.intensity_sd == pytest.approx(samples.std())
    # Rows under the banner have no samples.
    banner_only = np.zeros((HEIGHT, WIDTH), bool)
    banner_only[-5:, 4:9] = True
    assert measure(set_of(banner_only), image())[0].intensity_mean is None


@pytest.mark.parametrize(
    ("rows", "columns", "touches"),
    [
        (slice(5, 20), slice(5, 20), False),
        (slice(0, 20), slice(5, 20), True),
        (slice(5, 20), slice(0, 20), True),
        (slice(5, 20), slice(300, WIDTH), True),
        (slice(200, HEIGHT - BANNER - 1), slice(5, 20), False),
        (slice(200, HEIGHT - BANNER), slice(5, 20), True),
    ],
)
def test_edges_are_the_border_and_the_banner(rows: slice, columns: slice, touches: bool) -> None:
    array = np.zeros((HEIGHT, WIDTH), bool)
    array[rows, columns] = True
    assert measure(set_of(array), image())[0].touches_edge is touches
    known = set_of(array, image=ImageIdentity("a", "", WIDTH, HEIGHT), banner=Banner(BANNER, "pixels"))
    assert measure(known)[0].touches_edge is touches, "from the provenance, without the image"


def test_empty_mask_and_pixel_size_of_the_image() -> None:
    empty, disc = np.zeros((HEIGHT, WIDTH), bool), ellipse(100, 100, 9, 9)
    rows = measure(set_of(empty, disc), image(PixelSize(4, 4, "tag")))
    assert (rows[0].area_px, rows[0].perimeter_px, rows[0].area_nm2) == (0, 0, 0)
    assert rows[1].area_nm2 == 16 * rows[1].area_px
    total = summarize(rows, analysed=(280, 320), pixel_size=PixelSize(4, 4, "tag"))
    assert (total.count, total.smallest) == (1, rows[1].equivalent_diameter_nm), "nothing is no object"
    recorded = set_of(disc, pixel_size=PixelSize(3, 3, "tag"))
    assert measure(recorded, image())[0].area_nm2 == 9 * disc.sum()
    assert measure(recorded, image(), PixelSize(5, 5, "flag"))[0].area_nm2 == 25 * disc.sum()


def test_summary() -> None:
    discs = [ellipse(40 + 50 * n, 60, radius, radius) for n, radius in enumerate((5, 8, 10, 12, 15))]
    opened = image(PixelSize(10, 10, "tag"))
    mask_set = set_of(*discs)
    rows = measure(mask_set, opened)
    summary = summarize(rows, analysed=analysed_size(mask_set, opened), pixel_size=opened.facts.pixel_size)
    diameters = [row.equivalent_diameter_nm for row in rows]
    assert summary.count == 5
    assert summary.unit == "nm"
    assert summary.analysed_area_px == (HEIGHT - BANNER) * WIDTH
    assert summary.analysed_area_um2 == pytest.approx((HEIGHT - BANNER) * WIDTH * 1e-4)
    assert summary.number_per_um2 == pytest.approx(5 / summary.analysed_area_um2)
    assert (summary.d10, summary.d50, summary.d90) == pytest.approx(np.percentile(diameters, (10, 50, 90)))
    assert summary.mean == pytest.approx(np.mean(diameters))
    assert summary.sd == pytest.approx(np.std(diameters, ddof=1))
    assert summary.covered_fraction == pytest.approx(sum(disc.sum() for disc in discs) / summary.analysed_area_px)
    plain = summarize(rows, analysed=(HEIGHT, WIDTH))
    assert (plain.unit, plain.number_per_um2) == ("px", None)
    assert plain.d50 == pytest.approx(summary.d50 / 10)
    both = summarize_images([(rows, (280, 320), PixelSize(10, 10, "a")), (rows, (280, 320), PixelSize(10, 10, "b"))])
    assert (both.count, both.number_per_um2) == (10, pytest.approx(summary.number_per_um2))
    none = summarize([], analysed=(0, 0))
    assert (none.count, none.d50, none.mean, none.sd, none.number_per_megapixel) == (0, None, None, None, 0)


def test_table() -> None:
    mask_set = set_of(ellipse(60, 60, 20, 20), ellipse(150, 150, 20, 20))
    mask_set = replace(mask_set, masks=(replace(mask_set.masks[0], label='=cmd|"x"'), mask_set.masks[1]))
    rows = measure(mask_set, image(), PixelSize(2, 2, "flag"))
    table = list(csv.DictReader(io.StringIO(measures_csv([("a.tif", rows), ("-b.tif", rows[:1])]))))
    assert list(table[0]) == ["image", *COLUMNS]
    assert [row["image"] for row in table] == ["a.tif", "a.tif", "'-b.tif"]
    assert table[0]["label"] == '\'=cmd|"x"'
    assert float(table[1]["equivalent_diameter_nm"]) == pytest.approx(rows[1].equivalent_diameter_nm, rel=1e-5)
    assert table[0]["predicted_iou"] == ""
    assert table[0]["touches_edge"] == "false"
    assert COLUMNS[:4] == ("id", "label", "source", "area_px")


def test_documented_columns_are_the_columns() -> None:
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    table = text[text.index("## The table") : text.index("## Comparing")]
    for column in COLUMNS:
        assert column in table or (column.endswith("_nm") and column[:-3] + "_px" in table), column


def test_plot_shows_outlines_and_bars() -> None:
    discs = [ellipse(30 + 12 * n, 40 + 10 * n, 6 + n, 6 + n) for n in range(12)]
    opened = image(PixelSize(300, 300, "tag"))
    mask_set = set_of(*discs)
    rows = measure(mask_set, opened)
    summary = summarize(rows, analysed=(280, 320), pixel_size=opened.facts.pixel_size)
    with Image.open(io.BytesIO(plot(opened, mask_set.masks, rows, summary, title="a\x1b.tif"))) as picture:
        pixels = np.array(picture.convert("RGB"))
    blue = (pixels == (0, 114, 178)).all(axis=2)
    assert blue[:, pixels.shape[1] // 2 :].sum() > 20_000, "bars"
    assert len(np.unique(pixels[60:900, 20:900].reshape(-1, 3), axis=0)) > 50, "outlines"
    empty = summarize([], analysed=(280, 320))
    assert plot(opened, (), [], empty)[:4] == b"\x89PNG"


def measured_discs(pixel_size: PixelSize | None) -> tuple[Any, ...]:
    discs = [ellipse(30 + 12 * n, 40 + 10 * n, 6 + n, 6 + n) for n in range(12)]
    opened = image(pixel_size)
    mask_set = set_of(*discs)
    rows = measure(mask_set, opened)
    return opened, mask_set.masks, rows, summarize(rows, analysed=(280, 320), pixel_size=opened.facts.pixel_size)


def test_a_plot_is_what_its_name_says() -> None:
    opened, masks, rows, summary = measured_discs(PixelSize(300, 300, "tag"))
    for name, kind in (("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.tiff", "TIFF"), ("a", "PNG")):
        data = plot(opened, masks, rows, summary, fmt=plot_format(name))
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == kind
    assert plot(opened, masks, rows, summary, fmt=plot_format("a.pdf"))[:5] == b"%PDF-"
    for name in ("a.eps", "a.csv", "a.xlsx"):
        with pytest.raises(UsageError, match="cannot be written as"):
            plot_format(name)


def test_an_svg_plot_has_outlines_and_bars_as_such() -> None:
    opened, masks, rows, summary = measured_discs(PixelSize(300, 300, "tag"))
    data = plot(opened, masks, rows, summary, title="a <b>\x1b.tif", fmt="SVG")
    root = ET.fromstring(data)
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg"
    assert len(root.findall(f".//{name}path")) == len(masks)
    texts = [item.text or "" for item in root.iter(f"{name}text")]
    assert texts[-1].startswith("a <b>\\x1b.tif: 12 masks, mean diameter")
    assert {"D10", "D50", "D90", "equivalent diameter [um]", "10 um"} <= set(texts)
    bars = [item for item in root.iter(f"{name}rect") if item.get("fill") == "#0072b2"]
    assert len(bars) == sum(count > 0 for count in histogram([row.equivalent_diameter_px for row in rows])[1])
    picture = next(root.iter(f"{name}image")).get("href") or ""
    with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as shown:
        assert shown.size == (1029, 900)


@pytest.mark.parametrize(("nm", "unit"), [(0.02, "nm"), (30, "nm"), (300, "um"), (300_000, "mm")])
def test_the_axis_takes_a_unit_that_suits(nm: float, unit: str) -> None:
    opened, masks, rows, summary = measured_discs(PixelSize(nm, nm, "tag"))
    assert f"equivalent diameter [{unit}]".encode() in plot(opened, masks, rows, summary, fmt="SVG")


def test_histogram_counts_everything_once() -> None:
    values = [1.0, 2.0, 2.5, 9.0, 9.0]
    edges, counts = histogram(values)
    assert (edges[0], edges[-1], sum(counts)) == (1.0, 9.0, 5)
    assert sum(histogram([3.0, 3.0])[1]) == 2
