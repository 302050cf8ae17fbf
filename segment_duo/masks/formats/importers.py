"""Masks from files of other programs: which formats there are, and telling them apart by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segment_duo.errors import InputError, MaskFileError, NotFound, UsageError
from segment_duo.masks.ids import unique_ids
from segment_duo.types import FrameAxes, Mask

IMPORTS: dict[str, str] = {
    "coco": "COCO dataset JSON, or a bare list of records with COCO runs",
    "labels": "label image, TIFF or PNG: 0 background, one value a mask",
    "imagej": "ImageJ ROI archive (.zip) or single ROI (.roi)",
    "labelme": "LabelMe JSON: polygons, rectangles, circles, mask shapes",
    "geojson": "GeoJSON in pixels, as QuPath writes it",
    "yolo": "YOLO segmentation text",
    "npz": "NumPy archive with an array called masks: one a mask, or a label image",
    "pkl": "mask set of segment_duo, of the web app (both generations), or pickled SAM 2 records",
}
"""Format names and what they read. SAM 1's folder layout is read by :func:`import_folder`."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Masks with unique ids, and one sentence for each thing that was left out."""

    masks: tuple[Mask, ...]
    format: str
    notices: tuple[str, ...] = ()


def import_report(
    data: bytes,
    fmt: str | None,
    *,
    name: str,
    width: int,
    height: int,
    image_name: str = "",
    page: int | None = None,
    pages: int | None = None,
    axes: FrameAxes | None = None,
) -> Imported:
    """Read masks for an image of ``width`` x ``height`` (uncut).

    Good masks are taken, the others named and counted in the notices; a file of which nothing is left is refused.

    Args:
        data: the file's bytes.
        fmt: a key of :data:`IMPORTS`, or None to tell by content.
        name: the file's name, for messages and for telling formats apart.
        image_name: picks the image in a COCO file of several; ``name`` does when empty.
        page: which page of a stack the image is, from 0; masks that lie on other slices are left out. None: position does not count.
        pages: how many pages the stack has.
        axes: how they are arranged, by which the place of a mask along channel, depth and time is told.

    Raises:
        UsageError: unknown format.
        MaskFileError: not that format, damaged, or of another size; or nothing in it can be used; the message begins with ``name``.
    """
    if fmt is not None and fmt not in IMPORTS:
        raise UsageError(f"no import format is called {fmt!r}", "known: " + ", ".join(IMPORTS))
    # Along a single axis the page is the place.
    place = axes.place_of(page) if page is not None and axes is not None and len(axes.sizes) > 1 else None
    try:
        kind = fmt or guess_format(data, name)
        masks, notices = _READERS[kind](_File(data, image_name, name, height, width, page, pages, place))
    except MemoryError:
        raise MaskFileError(f"{name} needs more memory than there is", "Read it on a larger machine.") from None
    except InputError as error:
        raise MaskFileError(f"{name}: {error.message}", error.hint) from None
    return Imported(unique_ids(masks), kind, tuple(notices))


def import_folder(folder: Path, *, width: int, height: int) -> Imported:
    """Masks of a folder in SAM 1's layout (``0.png`` ... and ``metadata.csv``).

    Raises:
        NotFound: no such folder.
        MaskFileError: not that layout, or of another size.
    """
    from segment_duo.masks.formats import label_images

    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".png", ".csv"}}
    try:
        masks, notices = label_images.load_sam1(files, height, width)
    except InputError as error:
        raise MaskFileError(f"{folder}: {error.message}", error.hint) from None
    return Imported(unique_ids(masks), "sam1", tuple(notices))


def guess_format(data: bytes, name: str) -> str:
    """Format by content, with the extension's help between look-alikes.

    Raises:
        MaskFileError: nothing known.
    """
    from segment_duo.masks.formats import yolo

    suffix = name.lower().rpartition(".")[2]
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG"):
        return "labels"
    if data.startswith(b"Iout"):
        return "imagej"
    if data.startswith(b"PK\x03\x04"):
        return "npz" if b".npy" in data[:300] else "imagej"
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"{", b"[")):
        return _guess_json(data, suffix)
    if data[:1] == b"\x80" or suffix in {"pkl", "pickle"}:
        return "pkl"
    if suffix == "txt" or yolo.looks_like(data):
        return "yolo"
    raise MaskFileError("is no mask file that is known here", "known: " + ", ".join(IMPORTS))


def _guess_json(data: bytes, suffix: str) -> str:
    from segment_duo.masks.formats.common import read_json

    content = read_json(data)
    keys: set[str] = set(content) if isinstance(content, dict) else set()
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}
    if "shapes" in keys:
        return "labelme"
    geometry = isinstance(content, dict) and content.get("type") in _GEOMETRIES
    if content and (suffix == "geojson" or geometry or {"features", "geometry"} & (keys | set(first))):
        return "geojson"
    return "coco"


_GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection")
_Found = tuple[list[Mask], list[str]]


@dataclass(frozen=True, slots=True)
class _File:
    """``image_name`` is empty when nobody says; ``page`` and ``pages`` None, and ``place`` where the page tells it."""

    data: bytes
    image_name: str
    name: str
    height: int
    width: int
    page: int | None
    pages: int | None
    place: Mapping[str, int] | None


def _coco(file: _File) -> _Found:
    from segment_duo.masks.formats import coco

    return coco.load(file.data, file.image_name or file.name, file.height, file.width, image_name=file.image_name)


def _labels(file: _File) -> _Found:
    from segment_duo.masks.formats import label_images

    return label_images.load(file.data, file.height, file.width, page=file.page, pages=file.pages), []


def _imagej(file: _File) -> _Found:
    from segment_duo.masks.formats import imagej

    return imagej.load(file.data, file.height, file.width, page=file.page, pages=file.pages, place=file.place)


def _labelme(file: _File) -> _Found:
    from segment_duo.masks.formats import labelme

    return labelme.load(file.data, file.height, file.width, image_name=file.image_name)


def _geojson(file: _File) -> _Found:
    from segment_duo.masks.formats import geojson

    return geojson.load(file.data, file.height, file.width, page=file.page, place=file.place)


def _yolo(file: _File) -> _Found:
    from segment_duo.masks.formats import yolo

    return yolo.load(file.data, file.height, file.width)


def _npz(file: _File) -> _Found:
    from segment_duo.masks.formats import npz

    return npz.load(file.data, file.height, file.width)


def _pkl(file: _File) -> _Found:
    from segment_duo.masks.formats.common import Gathered, name_notice
    from segment_duo.masks.formats.native import loads

    found = Gathered("mask")
    mask_set = loads(file.data, size=(file.height, file.width), left_out=found.left_out)
    found.masks.extend(mask_set.masks)
    image = mask_set.provenance.image
    if image is not None:
        found.notices += name_notice(image.path, file.image_name)
        if file.page not in (None, image.page) and (file.pages or 2) > 1:
            found.notices.append(f"the file was made for page {image.page} of its image")
    return found.result()


_READERS: dict[str, Callable[[_File], _Found]] = {
    "coco": _coco,
    "labels": _labels,
    "imagej": _imagej,
    "labelme": _labelme,
    "geojson": _geojson,
    "yolo": _yolo,
    "npz": _npz,
    "pkl": _pkl,
}
