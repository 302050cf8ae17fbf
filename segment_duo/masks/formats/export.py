"""Mask sets into files of other programs: which formats there are, what each cannot hold, and writing them without overwriting."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segment_duo.durable import create_file, make_folders
from segment_duo.errors import AlreadyExists, InputError, OutOfSpace, StoreError, UsageError
from segment_duo.masks.overlap import OVERLAP_RULES
from segment_duo.types import MaskSet

if TYPE_CHECKING:
    from segment_duo.types import ImageData

Pair = tuple[MaskSet, "ImageData | None"]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format.

    Attributes:
        layout: ``one`` file for every set; ``joint``: all sets in one file; ``folder``: a folder of files for every set.
        cannot_hold: what is lost, for the help and the documentation; empty when nothing but provenance is.
        reimport: the key of ``IMPORTS`` that reads it back, or an empty string.
    """

    name: str
    description: str
    extension: str
    layout: Literal["one", "joint", "folder"]
    cannot_hold: str
    reimport: str
    needs_image: bool = False

    @property
    def is_text(self) -> bool:
        return self.extension in (".json", ".geojson", ".txt", ".svg", ".csv")


_NO_SCORES = "scores, prompt points, ids"
FORMATS: dict[str, ExportFormat] = {
    entry.name: entry
    for entry in (
        ExportFormat("coco", "COCO dataset JSON (images, annotations, categories)", ".json", "joint", "", "coco"),
        ExportFormat("coco-rle", "bare JSON list of SAM records with COCO runs", ".json", "one", "", "coco"),
        ExportFormat(
            "labels-tiff",
            "label image, TIFF, 16 or 32 bit, zlib",
            ".tif",
            "one",
            f"overlaps, wholly covered masks, labels' names, {_NO_SCORES}",
            "labels",
        ),
        ExportFormat(
            "labels-png",
            "label image, 16-bit PNG, up to 65 535 masks",
            ".png",
            "one",
            f"overlaps, wholly covered masks, labels' names, {_NO_SCORES}",
            "labels",
        ),
        ExportFormat(
            "png",
            "one PNG for every mask (0 and 255)",
            "",
            "folder",
            f"labels' names, {_NO_SCORES} (only the file's name has it)",
            "labels",
        ),
        ExportFormat(
            "sam1",
            "SAM 1 folder: 0.png ... and metadata.csv",
            "",
            "folder",
            "labels, ids, sources, prompt points after the first and whether points exclude",
            "sam1",
        ),
        ExportFormat("npz", "NumPy archive without pickle: masks (N, height, width)", ".npz", "one", "", "npz"),
        ExportFormat(
            "imagej", "ImageJ ROI archive", ".zip", "one", f"empty masks, {_NO_SCORES}; up to 32 767 pixels", "imagej"
        ),
        ExportFormat("geojson", "GeoJSON for QuPath", ".geojson", "one", "empty masks", "geojson"),
        ExportFormat("labelme", "LabelMe JSON", ".json", "one", "empty masks, scores, prompt points", "labelme"),
        ExportFormat(
            "yolo",
            "YOLO segmentation text",
            ".txt",
            "one",
            f"empty masks, labels' names (classes are numbered by their sorted names), {_NO_SCORES}",
            "yolo",
        ),
        ExportFormat("svg", "outlines as SVG", ".svg", "one", "it is a drawing and is not read back", ""),
        ExportFormat(
            "overlay",
            "image with masks and a scale bar, PNG",
            ".png",
            "one",
            "it is a picture and is not read back",
            "",
            needs_image=True,
        ),
        ExportFormat("csv", "table of measures, one row a mask", ".csv", "joint", "the masks themselves", ""),
    )
}


def export(
    sets: Sequence[Pair],
    fmt: str,
    destination: Path,
    *,
    overlap: str = "small-on-top",
    several: bool | None = None,
) -> list[Path]:
    """Write mask sets, each with its image where there is one.

    Joint formats write one file. Of the others, one set goes to ``destination`` (into it, when that is a folder), several go into the folder
    ``destination`` under their images' stems. Folder formats make ``destination/<stem>/``. Files appear whole or not at all.

    Args:
        overlap: a key of ``OVERLAP_RULES``, for label images.
        several: whether ``destination`` is the folder of several sets, even if only one of them could be had.

    Returns:
        what was written: files, and folders of folder formats.

    Raises:
        UsageError: unknown format or rule, an image is needed, or the file's name promises another kind of content.
        AlreadyExists: a name is taken; nothing is ever overwritten.
        MaskFileError: the set does not fit the format.
        StoreError: it could not be written.
    """
    if fmt not in FORMATS:
        raise UsageError(f"no export format is called {fmt!r}", "known: " + ", ".join(FORMATS))
    if overlap not in OVERLAP_RULES:
        raise UsageError(f"no overlap rule is called {overlap!r}", "known: " + ", ".join(OVERLAP_RULES))
    if not sets:
        raise InputError("there is no mask set to export")
    form = FORMATS[fmt]
    if form.needs_image and any(image is None for _, image in sets):
        raise UsageError(f"the format {fmt} draws on the image, which is not at hand")
    stems = _stems([mask_set for mask_set, _ in sets])
    several = len(sets) > 1 if several is None else several
    if form.layout != "folder" and not (several and form.layout == "one") and not destination.is_dir():
        check_extension(fmt, destination)
    if form.layout == "joint":
        target = destination / f"{'masks' if several else stems[0]}{form.extension}"
        target = target if destination.is_dir() else destination
        write_new(target, _JOINT[fmt](sets))
        return [target]
    labels = _labels([mask_set for mask_set, _ in sets])
    jobs = [_SetToWrite(*pair, stem, overlap, labels) for pair, stem in zip(sets, stems, strict=True)]
    if form.layout == "folder":
        return [_write_folder(destination / job.stem, _FOLDER[fmt](job)) for job in jobs]
    written = []
    for job in jobs:
        into = several or destination.is_dir()
        target = destination / f"{job.stem}{form.extension}" if into else destination
        write_new(target, _ONE[fmt](job))
        written.append(target)
    return written


def render(sets: Sequence[Pair], fmt: str, *, overlap: str = "small-on-top") -> bytes:
    """What :func:`export` would write, for the formats that are one file: one set, or several in a joint format."""
    form = FORMATS[fmt]
    if form.layout == "folder" or not sets or (form.layout != "joint" and len(sets) > 1):
        raise UsageError(f"the format {fmt} is not one file")
    if form.layout == "joint":
        return _JOINT[fmt](sets)
    mask_set, image = sets[0]
    return _ONE[fmt](_SetToWrite(mask_set, image, _stems([mask_set])[0], overlap, _labels([mask_set])))


_ALSO = {".tif": {".tiff"}, ".geojson": {".json"}, ".csv": {".txt"}}
"""Further extensions for the same content."""
_CONTENTS = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".tiff",
        ".bmp",
        ".webp",
        ".gif",
        ".pdf",
        ".npy",
        ".npz",
        ".zip",
        ".pkl",
        ".roi",
        ".h5",
    }
    | {
        ".json",
        ".geojson",
        ".csv",
        ".tsv",
        ".txt",
        ".svg",
        ".html",
        ".xml",
        ".yaml",
        ".xls",
        ".xlsx",
        ".ods",
        ".parquet",
    }
)
"""Extensions that promise a kind of content; a file of another kind under such a name would not open. Others promise nothing."""


def check_extension(fmt: str, destination: Path) -> None:
    """Raise UsageError when a file's name promises other content than the format writes."""
    form, suffix = FORMATS[fmt], destination.suffix.lower()
    if suffix in _CONTENTS and suffix not in {form.extension, *_ALSO.get(form.extension, ())}:
        raise UsageError(
            f"the format {form.name} writes {form.extension} files, not {suffix}", f"Name a {form.extension} file."
        )


def _stems(sets: Sequence[MaskSet]) -> list[str]:
    """File names for the sets: their images' stems without separators, made different by numbers."""
    used: set[str] = set()
    out = []
    for position, mask_set in enumerate(sets, 1):
        image = mask_set.provenance.image
        name = image.path.replace("\\", "/").rsplit("/", 1)[-1] if image else ""
        stem = re.sub(r"[\x00-\x1f\x7f/\\:]", "_", name.rpartition(".")[0] or name).lstrip(".") or f"masks_{position}"
        unique, number = stem, 1
        while unique.lower() in used:
            unique, number = f"{stem}_{number}", number + 1
        used.add(unique.lower())
        out.append(unique)
    return out


def _labels(sets: Sequence[MaskSet]) -> list[str]:
    from segment_duo.masks.formats.common import distinct_labels

    return distinct_labels(sets)


@dataclass(frozen=True, slots=True)
class _SetToWrite:
    """One set to be written; ``labels`` are those of all sets of the run."""

    mask_set: MaskSet
    image: ImageData | None
    stem: str
    overlap: str
    labels: list[str]


# --- the formats ------------------------------------------------------------------------------------------------------------


def _coco(sets: Sequence[Pair]) -> bytes:
    from segment_duo.masks.formats import coco

    return coco.dump_dataset([mask_set for mask_set, _ in sets])


def _csv(sets: Sequence[Pair]) -> bytes:
    from segment_duo.masks.formats.common import file_name
    from segment_duo.masks.measure import measure, measures_csv

    tables = [
        (
            mask_set.provenance.image.path if mask_set.provenance.image else file_name(mask_set, ""),
            measure(mask_set, image),
        )
        for mask_set, image in sets
    ]
    return measures_csv(tables).encode()


def _coco_rle(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import coco

    return coco.dump_records(job.mask_set)


def _labels_tiff(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import label_images

    return label_images.dump_tiff(job.mask_set, job.overlap)


def _labels_png(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import label_images

    return label_images.dump_png(job.mask_set, job.overlap)


def _npz(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import npz

    return npz.dump(job.mask_set)


def _imagej(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import imagej

    return imagej.dump(job.mask_set)


def _geojson(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import geojson

    return geojson.dump(job.mask_set)


def _labelme(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import labelme

    return labelme.dump(job.mask_set)


def _yolo(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import yolo

    return yolo.dump(job.mask_set, job.labels)


def _svg(job: _SetToWrite) -> bytes:
    from segment_duo.masks.formats import svg

    return svg.dump(job.mask_set)


def _overlay(job: _SetToWrite) -> bytes:
    import io

    from PIL import Image

    from segment_duo.masks.overlay import overlay

    mask_set, image = job.mask_set, job.image
    if image is None:
        raise UsageError("an overlay needs the image")
    size = image.facts.pixel_size or mask_set.provenance.pixel_size
    out = io.BytesIO()
    Image.fromarray(overlay(image.pixels, mask_set.masks, scale_bar=size)).save(out, format="PNG")
    return out.getvalue()


def _png_folder(job: _SetToWrite) -> Mapping[str, bytes]:
    from segment_duo.masks.formats import label_images

    return label_images.dump_folder(job.mask_set, job.stem)


def _sam1_folder(job: _SetToWrite) -> Mapping[str, bytes]:
    from segment_duo.masks.formats import label_images

    return label_images.dump_sam1(job.mask_set)


_JOINT: dict[str, Callable[[Sequence[Pair]], bytes]] = {"coco": _coco, "csv": _csv}
_FOLDER: dict[str, Callable[[_SetToWrite], Mapping[str, bytes]]] = {"png": _png_folder, "sam1": _sam1_folder}
_ONE: dict[str, Callable[[_SetToWrite], bytes]] = {
    "coco-rle": _coco_rle,
    "labels-tiff": _labels_tiff,
    "labels-png": _labels_png,
    "npz": _npz,
    "imagej": _imagej,
    "geojson": _geojson,
    "labelme": _labelme,
    "yolo": _yolo,
    "svg": _svg,
    "overlay": _overlay,
}


# --- the disk ---------------------------------------------------------------------------------------------------------------


def write_new(target: Path, data: bytes) -> None:
    """Create ``target`` with ``data``, whole or not at all, never over something that is there; its folder is made when missing.

    Raises:
        AlreadyExists: the name is taken.
        OutOfSpace, StoreError: it could not be written.
    """
    try:
        make_folders(target.parent)
        create_file(target, data)
    except FileExistsError:
        raise AlreadyExists(f"{target} exists already", "Choose another name; exports never overwrite.") from None
    except OSError as error:
        raise _store_error(target, error) from None


def _write_folder(target: Path, files: Mapping[str, bytes]) -> Path:
    """Fill a hidden folder beside ``target`` and rename it; a folder that is there, even an empty one, is left alone."""
    if os.path.lexists(target):
        raise AlreadyExists(f"{target} exists already", "Choose another folder; exports never overwrite.")
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        for name, data in files.items():
            (part / name).write_bytes(data)
        # A folder made meanwhile by somebody else is refused by rename, unless it is empty.
        part.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise AlreadyExists(f"{target} exists already", "Choose another folder; exports never overwrite.") from None
        raise _store_error(target, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _store_error(target: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"no space left to write {target}")
    return StoreError(f"{target} could not be written: {error.strerror or error}")
