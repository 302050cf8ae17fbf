"""NumPy archives: ``masks`` (N, height, width) bool and one array per figure; no pickle inside."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import canvas, check_size, new_mask
from segment_duo.types import Mask, MaskSet

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_PIXELS = 4 * 1024**3
"""Largest ``masks`` array in bytes: whoever loads it needs that much memory."""


def dump(mask_set: MaskSet) -> bytes:
    """The archive. Masks are written one after the other, so that the whole array never is in memory.

    Raises:
        MaskFileError: the array would be larger than 4 GiB.
    """
    import numpy as np

    from segment_duo.masks.rle import decode

    height, width = canvas(mask_set)
    masks = mask_set.masks
    if len(masks) * height * width > MAX_PIXELS:
        size = len(masks) * height * width / 1024**3
        raise MaskFileError(f"the masks would take {size:.1f} GiB as arrays", "export labels-tiff or coco instead")

    def figures(values: list[float | None]) -> npt.NDArray[np.float64]:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    arrays: dict[str, npt.NDArray[Any]] = {
        "id": np.array([mask.id for mask in masks], dtype=np.int64),
        "area": np.array([mask.area for mask in masks], dtype=np.int64),
        "bbox_xywh": np.array([mask.bbox for mask in masks], dtype=np.float64).reshape(-1, 4),
        "predicted_iou": figures([mask.predicted_iou for mask in masks]),
        "stability_score": figures([mask.stability_score for mask in masks]),
        "label": np.array([mask.label for mask in masks], dtype=np.str_),
        "source": np.array([mask.source for mask in masks], dtype=np.str_),
        "prompts": np.array(
            [json.dumps([mask.point_coords, mask.point_labels, mask.crop_box]) for mask in masks], dtype=np.str_
        ),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        header = {"descr": "|b1", "fortran_order": False, "shape": (len(masks), height, width)}
        with archive.open(_entry("masks"), "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for mask in masks:
                stream.write(decode(mask.rle).tobytes())
        for name, array in arrays.items():
            with archive.open(_entry(name), "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return out.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def load(data: bytes, height: int, width: int) -> tuple[list[Mask], list[str]]:
    """Masks of an archive, and what was left out.

    ``masks`` has the shape (N, height, width) or (height, width); one plane with several values besides 0 is a label image. The other arrays
    may be missing; those that hold Python objects are not read.
    """
    import numpy as np

    from segment_duo.masks.formats.label_images import masks_of_labels
    from segment_duo.masks.rle import encode

    notices: list[str] = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_header(archive, height, width)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            stack = arrays["masks"].reshape(-1, height, width)
            figures = _figures(arrays, len(stack), notices)
    except MaskFileError:
        raise
    except Exception as error:
        # zipfile, zlib and NumPy's header parser each have their own idea of how damaged bytes fail.
        raise MaskFileError(f"is a damaged NPZ archive ({type(error).__name__}: {str(error)[:80]})") from None
    if len(stack) == 1 and stack.dtype != bool and len(np.unique(stack[stack != 0])) > 1:
        if stack.min() < 0:
            raise MaskFileError("holds negative values; the labels begin at 0, the background")
        return [replace(mask, id=position) for position, mask in enumerate(masks_of_labels(stack[0]))], notices
    masks = []
    for position, array in enumerate(stack):
        extra = {name: values[position] for name, values in figures.items() if name != "prompts"}
        extra |= _prompts(figures.get("prompts", [""] * len(stack))[position])
        masks.append(new_mask(encode(array != 0), position, label=extra.get("label", ""), extra=extra))
    return masks, notices


def _figures(arrays: Mapping[str, npt.NDArray[Any]], count: int, notices: list[str]) -> dict[str, list[Any]]:
    """The arrays of one value a mask."""
    found = {}
    for name in ("id", "label", "source", "predicted_iou", "stability_score", "prompts"):
        try:
            array = arrays.get(name)
        except ValueError:
            notices.append(f"its array {name} holds Python objects and is left out")
            continue
        if array is not None and array.shape == (count,):
            found[name] = array.tolist()
    return found


def _prompts(text: object) -> dict[str, Any]:
    try:
        points, labels, crop = json.loads(str(text))
    except ValueError:
        return {}
    return {"point_coords": points, "point_labels": labels, "crop_box": crop}


def _check_header(archive: zipfile.ZipFile, height: int, width: int) -> None:
    """Shape and type before anything is unpacked."""
    import numpy as np

    if "masks.npy" not in archive.namelist():
        raise MaskFileError("has no array called masks")
    with archive.open("masks.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.kind not in "biu" or len(shape) not in (2, 3):
        raise MaskFileError(f"its masks have the type {dtype} and the shape {shape}")
    check_size((int(shape[-2]), int(shape[-1])), height, width)
    total = sum(info.file_size for info in archive.infolist())
    if total > MAX_PIXELS + 1024**2:
        raise MaskFileError(f"unpacks to {total} bytes, the limit is {MAX_PIXELS}")
