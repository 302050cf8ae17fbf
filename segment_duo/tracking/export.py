"""Sequence sets into files of other programs: which formats there are, and writing them whole or not at all, never over something."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.durable import make_folders
from segment_duo.errors import AlreadyExists, OutOfSpace, StoreError, UsageError
from segment_duo.masks.overlap import OVERLAP_RULES
from segment_duo.tracking import film, stacks
from segment_duo.tracking.figures import Scale, rows_csv, track_rows

if TYPE_CHECKING:
    from segment_duo.masks.formats.sequence import SequenceSet
    from segment_duo.types import ImageData


@dataclass(frozen=True, slots=True)
class SequenceFormat:
    """A format for sequence sets; ``extension`` is empty for a folder of files, ``reimport`` the format that reads it back or empty."""

    name: str
    description: str
    extension: str
    cannot_hold: str
    reimport: str
    also: tuple[str, ...] = ()


_LOSES = "overlaps, scores, events"
SEQUENCE_FORMATS: dict[str, SequenceFormat] = {
    one.name: one
    for one in (
        SequenceFormat("labels-ome", "label stack, OME-TIFF, zlib", ".tif", _LOSES, "labels", (".tiff",)),
        SequenceFormat(
            "labels-imagej",
            "label stack, ImageJ hyperstack",
            ".tif",
            f"{_LOSES}; ids above 65 535",
            "labels",
            (".tiff",),
        ),
        SequenceFormat("tracks-csv", "table, one row an object and frame", ".csv", "the masks", "", (".txt",)),
        SequenceFormat(
            "ctc", "Cell Tracking Challenge folder", "", f"{_LOSES}; gaps and splits begin new labels", "ctc"
        ),
        SequenceFormat("davis", "DAVIS folder of palette PNGs", "", f"{_LOSES}; ids above 253", "labels"),
        SequenceFormat("youtube-vis", "YouTube-VIS JSON", ".json", "scores, events", ""),
        SequenceFormat(
            "film",
            "frames with objects in colour: GIF, animated PNG, MP4",
            ".gif",
            "it is a picture",
            "",
            (".png", ".mp4"),
        ),
    )
}


def export_sequence(
    found: SequenceSet,
    fmt: str,
    target: Path,
    *,
    scale: Scale | None = None,
    overlap: str = "small-on-top",
    name: str = "sequence",
    frame: Callable[[int], ImageData] | None = None,
) -> Path:
    """Write a sequence set in another program's format.

    Args:
        target: the file or folder to make; its folder is made when missing.
        scale: what pixels and frames are; None takes what the set records.
        overlap: a key of ``OVERLAP_RULES``, for label images.
        name: of the sequence, for formats that hold it.
        frame: reads a frame, for the format ``film``.

    Raises:
        UsageError: unknown format or rule, or a file's name that promises something else.
        AlreadyExists: the name is taken.
        MaskFileError: the set does not fit the format.
        OutOfSpace, StoreError: it could not be written.
    """
    form = SEQUENCE_FORMATS.get(fmt)
    if form is None:
        raise UsageError(f"no format for sequences is called {fmt!r}", "known: " + ", ".join(SEQUENCE_FORMATS))
    if overlap not in OVERLAP_RULES:
        raise UsageError(f"no overlap rule is called {overlap!r}", "known: " + ", ".join(OVERLAP_RULES))
    suffix = target.suffix.lower()
    if form.extension and suffix not in {form.extension, *form.also}:
        raise UsageError(f"the format {fmt} writes {form.extension} files, not '{suffix}'", f"Name a {form.extension} file.")  # fmt: skip
    if fmt == "film":
        film.check_film(target, len(found.frames))
        if frame is None:
            raise UsageError("the format film draws on the frames, which are not at hand")
    if os.path.lexists(target):
        raise AlreadyExists(f"{target} exists already", "Choose another name; exports never overwrite.")
    scale = scale or Scale.of(found)

    def fill(part: Path) -> None:
        if fmt in ("labels-ome", "labels-imagej"):
            stacks.write_label_stack(part, found, scale, overlap, ome=fmt == "labels-ome")
        elif fmt == "tracks-csv":
            with part.open("w", encoding="utf-8", newline="") as file:
                file.writelines(rows_csv(track_rows(found, scale)))
        elif fmt == "ctc":
            stacks.write_ctc(part, found, overlap)
        elif fmt == "davis":
            stacks.write_davis(part, found, overlap)
        elif fmt == "youtube-vis":
            stacks.write_youtube_vis(part, found, name)
        elif frame is not None:
            film.write_film(part, suffix, found, frame, pixel_size=scale.pixel_size)

    _write(target, fill, folder=not form.extension)
    return target


def _write(target: Path, fill: Callable[[Path], None], *, folder: bool) -> None:
    """Fill a hidden file or folder beside ``target`` and give it that name, which must be free."""
    part = target.with_name(f".{target.name[:180]}.{secrets.token_hex(4)}.part")
    try:
        make_folders(target.parent)
        if folder:
            part.mkdir()
            fill(part)
            part.rename(target)  # refused when somebody made it meanwhile, unless it is empty
            return
        fill(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(part, target)
        except FileExistsError:
            raise
        except OSError:  # no hard links here
            if os.path.lexists(target):
                raise FileExistsError from None
            part.rename(target)
    except FileExistsError:
        raise AlreadyExists(f"{target} exists already", "Choose another name; exports never overwrite.") from None
    except OSError as error:
        import errno

        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no space left to write {target}", "Free some space, or choose another folder.") from None
        raise StoreError(f"{target} could not be written: {error.strerror or error}") from None
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
