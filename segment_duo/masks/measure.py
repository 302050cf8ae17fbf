"""Sizes, shapes and brightness of masks, in pixels and, when the pixel size is known, in nanometres.

Everything is computed on the mask's box, from its runs. Formulas:

    area                  number of pixels
    equivalent diameter   2 sqrt(area / pi)
    perimeter             Crofton's formula with the four directions of the pixel lattice (for square pixels scikit-image's ``perimeter_crofton``)
    circularity           4 pi area / perimeter^2, at most 1 (as in ImageJ); of the figures in nm where the pixel size is known
    Feret min, max        smallest and largest distance of parallel tangents of the convex hull of the pixels' corners
    axes, orientation     of the ellipse with the same second moments; a pixel is a square, hence 1/12 is added (as in ImageJ, unlike scikit-image)
    solidity              area / area of that convex hull
    intensity             mean and standard deviation (of the pixels, N in the denominator) of the **original** samples

Lengths in nm are taken on coordinates scaled by the pixel's two edge lengths, so pixels need not be square. Figures in pixels and the orientation
are those of the picture, whose pixels are drawn square; the solidity is the same in both.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segment_duo.boxes import in_pixels
from segment_duo.text import safe
from segment_duo.types import ImageData, Mask, MaskSet, PixelSize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of one mask. ``*_nm`` and ``*_nm2`` are None without a pixel size, intensities without an image.

    Centroid and box are in image coordinates (the centre of the first pixel is 0, 0). ``orientation_deg`` is that of the major axis,
    counter-clockwise on the screen from the x axis, in (-90, 90]. ``touches_edge`` says that the mask reaches the image's border or the row above
    the info banner: its true size is unknown.
    """

    id: int
    label: str
    source: str
    area_px: int
    perimeter_px: float
    equivalent_diameter_px: float
    feret_max_px: float
    feret_min_px: float
    major_axis_px: float
    minor_axis_px: float
    orientation_deg: float
    solidity: float
    circularity: float
    centroid_x_px: float
    centroid_y_px: float
    bbox_x_px: int
    bbox_y_px: int
    bbox_width_px: int
    bbox_height_px: int
    touches_edge: bool
    intensity_mean: float | None
    intensity_sd: float | None
    predicted_iou: float | None
    stability_score: float | None
    area_nm2: float | None
    perimeter_nm: float | None
    equivalent_diameter_nm: float | None
    feret_max_nm: float | None
    feret_min_nm: float | None
    major_axis_nm: float | None
    minor_axis_nm: float | None


COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Measures))
"""Columns of the CSV after ``image``; the order is stable, new ones are added at the end."""


def measure(mask_set: MaskSet, image: ImageData | None = None, pixel_size: PixelSize | None = None) -> list[Measures]:
    """Figures of every mask, in the set's order; empty masks have zeros.

    Args:
        mask_set: masks of the uncut image.
        image: for intensities, the banner and the pixel size; without it the set's provenance says the latter two.
        pixel_size: overrides the image's and the set's.
    """
    size = pixel_size or known_pixel_size(mask_set, image)
    bottom = analysed_size(mask_set, image)[0]
    original = None if image is None else _grey(image.original)
    return [_measure(mask, bottom, original, size) for mask in mask_set.masks]


def known_pixel_size(mask_set: MaskSet, image: ImageData | None) -> PixelSize | None:
    """The image's pixel size, else the one recorded in the set."""
    if image is not None and image.facts.pixel_size is not None:
        return image.facts.pixel_size
    return mask_set.provenance.pixel_size


def analysed_size(mask_set: MaskSet, image: ImageData | None = None) -> tuple[int, int]:
    """Height and width in pixels of what was analysed: the image without its banner. ``(0, 0)`` when nobody says."""
    if image is not None:
        return image.facts.cut_height, image.facts.width
    provenance = mask_set.provenance
    height, width = 0, 0
    if provenance.image is not None:
        height, width = provenance.image.height, provenance.image.width
    elif mask_set.masks:
        height, width = mask_set.masks[0].rle.height, mask_set.masks[0].rle.width
    return height - (provenance.banner.height if provenance.banner else 0), width


def touches_edge(mask: Mask, cut_height: int) -> bool:
    """Whether a mask reaches the image's border or the last row above the banner."""
    x, y, w, h = mask.bbox
    return bool(w) and (x <= 0 or y <= 0 or x + w >= mask.rle.width or y + h >= cut_height)


def _grey(original: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Samples to average: grey as stored; colour images keep their channels, an alpha channel is dropped."""
    if original.ndim == 3 and original.shape[2] in (2, 4):
        return original[:, :, :-1]
    return original


def _measure(mask: Mask, bottom: int, original: npt.NDArray[Any] | None, size: PixelSize | None) -> Measures:
    from segment_duo.masks.rle import decode_crop

    x, y, w, h = in_pixels(mask.bbox)
    if not w:
        shape = dict.fromkeys(_SHAPE_FIELDS, 0.0)
        return _assemble(
            mask,
            pixels=0,
            shape=shape,
            scaled=None if size is None else shape,
            centroid=(0.0, 0.0),
            shades=(None, None),
            edge=False,
        )
    crop = decode_crop(mask.rle, x, y, w, h)
    pixels = int(crop.sum())
    shape, centre = _shape(crop, pixels, 1.0, 1.0)
    scaled = None if size is None else _shape(crop, pixels, size.x_nm, size.y_nm)[0]
    centroid = (centre[0] + x, centre[1] + y)
    shades = _intensity(crop, original, x, y)
    return _assemble(
        mask,
        pixels=pixels,
        shape=shape,
        scaled=scaled,
        centroid=centroid,
        shades=shades,
        edge=touches_edge(mask, bottom),
    )


_SHAPE_FIELDS = (
    "area", "perimeter", "equivalent_diameter", "feret_max", "feret_min", "major_axis", "minor_axis", "orientation_deg", "solidity",
)  # fmt: skip


def _assemble(
    mask: Mask,
    *,
    pixels: int,
    shape: dict[str, float],
    scaled: dict[str, float] | None,
    centroid: tuple[float, float],
    shades: tuple[float | None, float | None],
    edge: bool,
) -> Measures:
    x, y, w, h = in_pixels(mask.bbox)

    def in_nm(name: str) -> float | None:
        return None if scaled is None else scaled[name]

    return Measures(
        id=mask.id,
        label=mask.label,
        source=str(mask.source),
        area_px=pixels,
        orientation_deg=shape["orientation_deg"],
        solidity=shape["solidity"],
        circularity=_circularity(shape if scaled is None else scaled),
        centroid_x_px=centroid[0],
        centroid_y_px=centroid[1],
        bbox_x_px=x,
        bbox_y_px=y,
        bbox_width_px=w,
        bbox_height_px=h,
        touches_edge=edge,
        intensity_mean=shades[0],
        intensity_sd=shades[1],
        predicted_iou=mask.predicted_iou,
        stability_score=mask.stability_score,
        perimeter_px=shape["perimeter"],
        equivalent_diameter_px=shape["equivalent_diameter"],
        feret_max_px=shape["feret_max"],
        feret_min_px=shape["feret_min"],
        major_axis_px=shape["major_axis"],
        minor_axis_px=shape["minor_axis"],
        area_nm2=in_nm("area"),
        perimeter_nm=in_nm("perimeter"),
        equivalent_diameter_nm=in_nm("equivalent_diameter"),
        feret_max_nm=in_nm("feret_max"),
        feret_min_nm=in_nm("feret_min"),
        major_axis_nm=in_nm("major_axis"),
        minor_axis_nm=in_nm("minor_axis"),
    )


def _circularity(shape: dict[str, float]) -> float:
    area, perimeter = shape["area"], shape["perimeter"]
    return min(1.0, 4 * math.pi * area / perimeter**2) if perimeter else 0.0


def _shape(
    crop: npt.NDArray[np.bool_], pixels: int, sx: float, sy: float
) -> tuple[dict[str, float], tuple[float, float]]:
    """Figures of a crop whose pixels measure ``sx`` by ``sy``, and the centroid in pixels of the crop."""
    import numpy as np

    rows, columns = np.nonzero(crop)
    # In whole numbers, so that a mask that is its own mirror image lies at exactly 0 or 90 degrees.
    x, y = int(columns.sum()), int(rows.sum())
    xx = (int((columns * columns).sum()) * pixels - x * x) / pixels**2 * sx * sx + sx * sx / 12
    yy = (int((rows * rows).sum()) * pixels - y * y) / pixels**2 * sy * sy + sy * sy / 12
    xy = (int((columns * rows).sum()) * pixels - x * y) / pixels**2 * sx * sy
    spread = math.hypot((xx - yy) / 2, xy)
    # y points down, the angle is that on the screen, hence the sign.
    angle = math.degrees(math.atan2(-2 * xy, xx - yy)) / 2
    hull = _hull(crop) * (sx, sy)
    area = pixels * sx * sy
    figures = {
        "area": area,
        "perimeter": _perimeter(crop, sx, sy),
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "feret_max": _largest_distance(hull),
        "feret_min": _smallest_width(hull),
        "major_axis": 4 * math.sqrt((xx + yy) / 2 + spread),
        "minor_axis": 4 * math.sqrt(max(0.0, (xx + yy) / 2 - spread)),
        "orientation_deg": angle + 0.0 if angle > -90 else 90.0,  # never -0
        "solidity": min(1.0, area / _polygon_area(hull)),
    }
    return figures, (x / pixels, y / pixels)


def _perimeter(crop: npt.NDArray[np.bool_], sx: float, sy: float) -> float:
    """Half the sum, over the lattice's four directions, of angle x line distance x crossings of the outline."""
    import numpy as np

    padded = np.pad(crop, 1)
    crossings = (
        np.count_nonzero(padded[:, 1:] != padded[:, :-1]),
        np.count_nonzero(padded[1:] != padded[:-1]),
        np.count_nonzero(padded[1:, 1:] != padded[:-1, :-1]) + np.count_nonzero(padded[1:, :-1] != padded[:-1, 1:]),
    )
    slope, cell = math.atan2(sy, sx), sx * sy
    # Each direction stands for the angles nearer to it than to its neighbours; they sum up to pi.
    angles = (slope, math.pi / 2 - slope, math.pi / 4)
    steps = (sx, sy, math.hypot(sx, sy))
    return sum(n * angle * cell / step for n, angle, step in zip(crossings, angles, steps, strict=True)) / 2


def _hull(crop: npt.NDArray[np.bool_]) -> Floats:
    """Corners of the convex hull of the pixels (squares, not points), float64, shape (N, 2) as x, y, in order."""
    import numpy as np
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(crop.any(axis=1))
    left = crop[rows].argmax(axis=1)
    right = crop.shape[1] - crop[rows, ::-1].argmax(axis=1)
    corners = np.concatenate(
        [np.stack((edge, rows + below), axis=1) for edge in (left, right) for below in (0, 1)]
    ).astype(np.float64)
    return np.asarray(corners[ConvexHull(corners).vertices])


def _polygon_area(points: Floats) -> float:
    import numpy as np

    x, y = points[:, 0], points[:, 1]
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def _largest_distance(hull: Floats) -> float:
    from scipy.spatial.distance import pdist

    return float(pdist(hull).max())


def _smallest_width(hull: Floats) -> float:
    """Smallest width of a convex polygon: it is reached with one tangent along an edge (Houle and Toussaint, 1988)."""
    import numpy as np

    edges = np.roll(hull, -1, axis=0) - hull
    normals = np.stack((-edges[:, 1], edges[:, 0]), axis=1) / np.hypot(edges[:, 0], edges[:, 1])[:, None]
    return float(np.ptp(hull @ normals.T, axis=0).min())


def _intensity(
    crop: npt.NDArray[np.bool_], original: npt.NDArray[Any] | None, x: int, y: int
) -> tuple[float | None, float | None]:
    import numpy as np

    if original is None:
        return None, None
    window = original[y : y + crop.shape[0], x : x + crop.shape[1]]
    samples = window[crop[: window.shape[0], : window.shape[1]]].astype(np.float64)
    samples = samples[np.isfinite(samples)]
    if not samples.size:
        return None, None
    return float(samples.mean()), deviation(samples)


def deviation(values: Floats, ddof: int = 0) -> float:
    """Standard deviation of float64 values, with N - ``ddof`` in the denominator; exactly 0 of equal ones, whose mean may be rounded."""
    return float((values - values[0]).std(ddof=ddof))


# --- summary and table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a population. Diameters are equivalent diameters in ``unit`` (``nm`` or ``px``); None where there are no masks.

    Masks without a pixel do not count: there is no object. D10, D50 and D90 are percentiles of the **number** distribution (linear interpolation).
    ``sd`` has N - 1 in its denominator. The analysed area leaves the banner out; ``covered_fraction`` counts overlapping pixels once for every
    mask, so it can exceed 1 for overlapping sets.
    """

    count: int
    touching_edge: int
    unit: str
    analysed_area_px: int
    analysed_area_um2: float | None
    number_per_um2: float | None
    number_per_megapixel: float
    covered_fraction: float
    d10: float | None
    d50: float | None
    d90: float | None
    mean: float | None
    sd: float | None
    smallest: float | None
    largest: float | None


def summarize(
    measures: Sequence[Measures], *, analysed: tuple[int, int], pixel_size: PixelSize | None = None
) -> Summary:
    """Summary of measures from one image.

    Args:
        analysed: height and width of :func:`analysed_size`.
        pixel_size: as used for the measures; None gives figures in pixels.
    """
    return summarize_images([(measures, analysed, pixel_size)])


def summarize_images(
    images: Sequence[tuple[Sequence[Measures], tuple[int, int], PixelSize | None]],
) -> Summary:
    """Summary over several images: in nm when every image has a pixel size, else in pixels."""
    import numpy as np

    scaled = bool(images) and all(size is not None for _, _, size in images)
    rows = [row for measures, _, _ in images for row in measures if row.area_px]
    pixels = sum(height * width for _, (height, width), _ in images)
    square_um = (
        sum(height * width * size.x_nm * size.y_nm / 1e6 for _, (height, width), size in images if size is not None)
        if scaled
        else None
    )
    values = np.array(
        [(row.equivalent_diameter_nm if scaled else row.equivalent_diameter_px) or 0.0 for row in rows],
        dtype=np.float64,
    )
    d10, d50, d90 = np.percentile(values, (10, 50, 90)).tolist() if rows else (None, None, None)
    return Summary(
        count=len(rows),
        touching_edge=sum(row.touches_edge for row in rows),
        unit="nm" if scaled else "px",
        analysed_area_px=pixels,
        analysed_area_um2=square_um,
        number_per_um2=len(rows) / square_um if square_um else None,
        number_per_megapixel=len(rows) / pixels * 1e6 if pixels else 0.0,
        covered_fraction=sum(row.area_px for row in rows) / pixels if pixels else 0.0,
        d10=d10,
        d50=d50,
        d90=d90,
        mean=float(values.mean()) if rows else None,
        sd=deviation(values, ddof=1) if len(rows) > 1 else None,
        smallest=float(values.min()) if rows else None,
        largest=float(values.max()) if rows else None,
    )


def measures_csv(tables: Iterable[tuple[str, Sequence[Measures]]]) -> str:
    """CSV text (RFC 4180, ``\\n``), one row a mask: ``image``, then :data:`COLUMNS`.

    Args:
        tables: image name and its measures, for any number of images.

    Unknown figures are empty. Text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    lines = [csv_line(("image", *COLUMNS))]
    for image, measures in tables:
        lines += [csv_line((image, *(getattr(row, column) for column in COLUMNS))) for row in measures]
    return "".join(lines)


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV as :func:`measures_csv` writes it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([_cell(value) for value in values])
    return out.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.10g}"
    text = safe(value) if isinstance(value, str) else str(value)
    return "'" + text if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
