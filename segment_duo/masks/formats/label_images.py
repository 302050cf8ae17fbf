"""Label images (0 background, 1..N masks) as TIFF or PNG, one PNG per mask, and SAM 1's folder layout."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segment_duo.boxes import in_pixels, whole
from segment_duo.errors import MaskFileError
from segment_duo.lengths import parse_number
from segment_duo.masks.formats.common import Gathered, canvas, check_size, new_mask
from segment_duo.masks.overlap import label_image
from segment_duo.text import what_it_said
from segment_duo.types import Mask, MaskSet, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAM1_COLUMNS = (
    "id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y", "predicted_iou", "stability_score",
    "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h",
)  # fmt: skip


def dump_tiff(mask_set: MaskSet, rule: str) -> bytes:
    """Label image as zlib-compressed TIFF, uint16, or uint32 above 65 535 masks."""
    import tifffile

    labels = label_image(mask_set.masks, *canvas(mask_set), rule)
    out = io.BytesIO()
    tifffile.imwrite(out, labels, photometric="minisblack", compression="zlib", metadata=None, description="")
    return out.getvalue()


def dump_png(mask_set: MaskSet, rule: str) -> bytes:
    """Label image as 16-bit grey PNG.

    Raises:
        MaskFileError: more than 65 535 masks.
    """
    import numpy as np

    labels = label_image(mask_set.masks, *canvas(mask_set), rule)
    if labels.dtype != np.uint16:
        raise MaskFileError(f"a PNG cannot hold {len(mask_set.masks)} labels", "export labels-tiff instead")
    return _png(labels)


def _png(array: npt.NDArray[Any]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG")
    return out.getvalue()


def dump_mask_png(mask: Mask) -> bytes:
    """One mask as 8-bit grey PNG, 0 and 255."""
    import numpy as np

    from segment_duo.masks.rle import decode

    return _png(decode(mask.rle).astype(np.uint8) * np.uint8(255))


def dump_folder(mask_set: MaskSet, stem: str) -> dict[str, bytes]:
    """One PNG per mask, named by the mask's id."""
    digits = len(str(max((mask.id for mask in mask_set.masks), default=0)))
    return {f"{stem}_{mask.id:0{digits}d}.png": dump_mask_png(mask) for mask in mask_set.masks}


def dump_sam1(mask_set: MaskSet) -> dict[str, bytes]:
    """SAM 1's layout: ``0.png`` ... and ``metadata.csv``. Its point is the mask's first; unknown figures are empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(SAM1_COLUMNS)
    files = {}
    for position, mask in enumerate(mask_set.masks):
        files[f"{position}.png"] = dump_mask_png(mask)
        point = mask.point_coords[0] if mask.point_coords else ("", "")
        crop = mask.crop_box or in_pixels(whole(mask.rle.height, mask.rle.width))
        scores = [("" if score is None else score) for score in (mask.predicted_iou, mask.stability_score)]
        table.writerow([position, mask.area, *mask.bbox, *point, *scores, *crop])
    files["metadata.csv"] = text.getvalue().encode()
    return files


def load_sam1(files: Mapping[str, bytes], height: int, width: int) -> tuple[list[Mask], list[str]]:
    """Masks of SAM 1's layout from its files by name, and what was left out."""
    if "metadata.csv" not in files:
        raise MaskFileError("has no metadata.csv")
    try:
        text = files["metadata.csv"].decode("utf-8-sig")
        # Spreadsheets of countries with a decimal comma save it with semicolons.
        rows = list(csv.DictReader(io.StringIO(text), delimiter=";" if ";" in text.partition("\n")[0] else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise MaskFileError(f"its metadata.csv is damaged ({error})") from None
    found = Gathered("mask")
    for row in rows:
        name = f"{row.get('id')}.png"
        if name not in files:
            found.leave_out(name[:100], "is named in metadata.csv but is not there")
            continue
        try:
            masks = load(files[name], height, width)
        except MaskFileError as error:
            found.leave_out(name, error.message)
            continue
        if len(masks) > 1:
            found.leave_out(name, f"is no mask: it holds {len(masks)} values besides 0")
            continue
        rle = masks[0].rle if masks else _empty(height, width)
        found.masks.append(new_mask(rle, len(found.masks), extra=_sam1_fields(row)))
    return found.result()


def _empty(height: int, width: int) -> Rle:
    from segment_duo.masks.rle import empty

    return empty(height, width)


def _sam1_fields(row: Mapping[str, str | None]) -> dict[str, Any]:
    def number(column: str) -> float | None:
        return parse_number(row.get(column) or "")

    point = [number("point_input_x"), number("point_input_y")]
    crop = [number("crop_box_" + part) for part in ("x0", "y0", "w", "h")]
    return {
        "predicted_iou": number("predicted_iou"),
        "stability_score": number("stability_score"),
        "point_coords": [point] if None not in point else [],
        "point_labels": [1] if None not in point else [],
        "crop_box": crop if None not in crop else None,
    }


def load(data: bytes, height: int, width: int, *, page: int | None = None, pages: int | None = None) -> list[Mask]:
    """Masks from a label image (TIFF or PNG), one for every value besides 0, in ascending order; a mask of 0 and 255 is one mask.

    Args:
        page: of a stack of labels the page that is wanted, from 0.
        pages: how many pages the image's own stack has; a stack of labels must have as many.

    Raises:
        MaskFileError: another size, several channels, values that are no whole numbers.
    """
    labels = _labels_array(data, height, width, page if (pages or 0) > 1 else None, pages)
    return [replace(mask, id=position) for position, mask in enumerate(masks_of_labels(labels))]


def masks_of_labels(labels: npt.NDArray[np.integer[Any]]) -> list[Mask]:
    """A mask for every value besides 0 of a label image (height, width), in ascending order; the value is its id."""
    import numpy as np
    from scipy import ndimage

    from segment_duo.masks.rle import encode_crop

    height, width = labels.shape
    values = names = np.unique(labels[labels != 0])
    if values.size and int(values[-1]) > 4 * values.size + 1000:
        # find_objects takes memory by the largest value; far-apart values are numbered first.
        labels = np.where(labels == 0, 0, np.searchsorted(values, labels) + 1)
        values = np.arange(1, values.size + 1)
    boxes = ndimage.find_objects(labels.astype(np.int64))
    masks = []
    for value, name in zip(values.tolist(), names.tolist(), strict=True):
        rows, columns = boxes[value - 1]
        rle = encode_crop(labels[rows, columns] == value, columns.start, rows.start, height, width)
        masks.append(replace(new_mask(rle, 0), id=int(name)))
    return masks


def labels_array(data: bytes, height: int, width: int, *, name: str = "") -> npt.NDArray[np.integer[Any]]:
    """The label image itself, non-negative integers, shape (height, width); ``name`` begins the message of a MaskFileError."""
    try:
        return _labels_array(data, height, width)
    except MaskFileError as error:
        raise MaskFileError(f"{name}: {error.message}" if name else error.message, error.hint) from None


def _labels_array(
    data: bytes, height: int, width: int, page: int | None = None, pages: int | None = None
) -> npt.NDArray[np.integer[Any]]:
    import numpy as np

    try:
        array = _read_tiff(data, height, width, page, pages) if data[:4] in _TIFF else _read_png(data, height, width)
    except MaskFileError:
        raise
    except Exception as error:
        # Broken images raise nearly anything from the depths of their decoders.
        raise MaskFileError(
            f"is not a readable label image ({type(error).__name__}{what_it_said(error, 100)})"
        ) from None
    if array.ndim != 2:
        raise MaskFileError(f"has the shape {array.shape}; a label image has one channel and one page")
    check_size((int(array.shape[0]), int(array.shape[1])), height, width)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        wide = array.astype(np.float64)  # 2**31 is beyond half precision
        if not np.isfinite(wide).all() or (wide != np.floor(wide)).any() or abs(wide).max() > 2**31:
            raise MaskFileError("holds fractions; the values of a label image are whole numbers")
        array = wide.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise MaskFileError(f"holds samples of the type {array.dtype}; the values of a label image are whole numbers")
    if array.dtype.kind == "i" and array.min() < 0:
        raise MaskFileError("holds negative values; the labels begin at 0, the background")
    return array


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _read_tiff(data: bytes, height: int, width: int, page: int | None, pages: int | None) -> npt.NDArray[Any]:
    import numpy as np
    import tifffile

    from segment_duo.tiff.mended import MendedFile
    from segment_duo.tiff.quiet import quiet_tifffile
    from segment_duo.tiff.samples import samples_of

    file = MendedFile(io.BytesIO(data))
    with quiet_tifffile(), tifffile.TiffFile(file) as tiff:
        # Counted first: only that finds a chain of pages that leads back to itself, which the series would follow for ever.
        count = len(tiff.pages)
        series = tiff.series[0]
        shape = tuple(n for n in series.shape if n != 1)
        of_stack = page is not None and count == pages and shape == (pages, height, width)
        # Sizes first: a small file can claim any size.
        if not of_stack and (shape != tuple(n for n in (height, width) if n != 1) or len(series.pages) > 1):
            raise MaskFileError(f"has the shape {series.shape}, the image is {width} x {height}")
        return np.asarray(samples_of(tiff.pages[page] if of_stack else series.pages[0], file)).reshape(height, width)


def _read_png(data: bytes, height: int, width: int) -> npt.NDArray[Any]:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["PNG", "BMP", "GIF"]) as image:
        check_size((image.height, image.width), height, width)
        if image.mode not in {"1", "L", "P", "I;16", "I;16B", "I"}:
            raise MaskFileError(f"is a colour image ({image.mode}); a label image has one channel")
        return np.array(image)
