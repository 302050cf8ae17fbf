"""Sequence sets as files of other programs: label stacks, Cell Tracking Challenge folders, DAVIS folders, YouTube-VIS JSON.

Everything is written frame by frame. Paths are given by the caller, who sees to it that nothing is overwritten.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.masks.overlay import PALETTE
from segment_duo.tracking.figures import Scale
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Labels = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

_CLASSIC = 2 * 1024**3
"""Bytes of samples from which a TIFF is written with 64-bit offsets."""
DAVIS_IDS = 253


def label_frames(found: SequenceSet, rule: str = "small-on-top", dtype: str = "") -> Iterator[Labels]:
    """One label image a frame, (height, width), whose values are the objects' ids; uint16 where all ids fit, else uint32.

    Raises:
        UsageError: unknown rule.
    """
    import numpy as np

    from segment_duo.masks.overlap import label_image

    height, width = found.head.size
    for seen in found:
        positions = label_image(seen.masks, height, width, rule)
        ids = np.array([0, *(mask.id for mask in seen.masks)], dtype=dtype or label_dtype(found))
        yield ids[positions]


def label_dtype(found: SequenceSet) -> str:
    """``uint16``, or ``uint32`` when an id is above 65 535."""
    return "uint16" if max((one for chunk in found.chunks for one in chunk.ids), default=0) <= 65535 else "uint32"


def write_label_stack(target: Path, found: SequenceSet, scale: Scale, rule: str = "small-on-top", *, ome: bool) -> None:
    """A TIFF with one page a frame, axes TYX (or ZYX), ids as values.

    OME-TIFF is zlib-compressed; an ImageJ hyperstack cannot be, for ImageJ reads the pages as one block.
    """
    import tifffile

    height, width = found.head.size
    dtype, count = label_dtype(found), len(found.frames)
    axis = "Z" if found.head.axes.axis == "Z" else "T"
    size, seconds = scale.pixel_size, scale.frame_seconds
    metadata: dict[str, Any] = {"axes": f"{axis}YX"}
    resolution = None
    if ome:
        if size is not None:
            metadata |= {"PhysicalSizeX": size.x_nm / 1000, "PhysicalSizeXUnit": "µm"}
            metadata |= {"PhysicalSizeY": size.y_nm / 1000, "PhysicalSizeYUnit": "µm"}
        if seconds is not None:
            metadata |= {"TimeIncrement": seconds, "TimeIncrementUnit": "s"}
        if found.head.axes.spacing_nm is not None:
            metadata |= {"PhysicalSizeZ": found.head.axes.spacing_nm / 1000, "PhysicalSizeZUnit": "µm"}
    else:
        if dtype != "uint16":
            raise MaskFileError("an ImageJ stack cannot hold ids above 65 535", "Export labels-ome instead.")
        if size is not None:
            metadata["unit"] = "um"
            resolution = (1000 / size.x_nm, 1000 / size.y_nm)
        if seconds is not None:
            metadata |= {"finterval": seconds, "tunit": "sec"}
        if found.head.axes.spacing_nm is not None:
            metadata["spacing"] = found.head.axes.spacing_nm / 1000
    large = ome and count * height * width * (2 if dtype == "uint16" else 4) > _CLASSIC
    with tifffile.TiffWriter(target, ome=ome, imagej=not ome, bigtiff=large) as tiff:
        tiff.write(
            label_frames(found, rule, dtype),
            shape=(count, height, width),
            dtype=dtype,
            photometric="minisblack",
            compression="zlib" if ome else None,
            resolution=resolution,
            metadata=metadata,
        )


@dataclass(frozen=True, slots=True)
class TrackPiece:
    """A piece of a track without gaps and splits, as the Cell Tracking Challenge counts: label, first and last image, parent's label or 0."""

    label: int
    first: int
    last: int
    parent: int


def ctc_segments(found: SequenceSet) -> tuple[list[TrackPiece], dict[tuple[int, int], int]]:
    """The pieces of all tracks, and the label of each (object, frame).

    There a track has no gaps and ends where it splits: what comes after is a track of its own, whose parent it is.
    """
    place = {frame: position for position, frame in enumerate(found.frames)}
    parents: dict[tuple[int, int], int] = {}
    for event in found.events():
        if event.kind == "split":
            parents |= {(event.frame, target): event.sources[0] for target in event.targets}
    open_pieces: dict[int, TrackPiece] = {}
    done: list[TrackPiece] = []
    labels: dict[tuple[int, int], int] = {}
    last_label = 0
    for chunk in found.chunks:
        at = place[chunk.frame]
        before = dict(open_pieces)
        for one in chunk.ids:
            piece = open_pieces.get(one)
            parent = parents.get((chunk.frame, one))
            if piece is not None and parent is None and piece.last == at - 1:
                open_pieces[one] = TrackPiece(piece.label, piece.first, at, piece.parent)
            else:
                source = before.get(parent if parent is not None else one)
                if piece is not None:
                    done.append(piece)
                last_label += 1
                open_pieces[one] = TrackPiece(last_label, at, at, source.label if source is not None else 0)
            labels[one, chunk.frame] = open_pieces[one].label
    return sorted([*done, *open_pieces.values()], key=lambda piece: piece.label), labels


def write_ctc(folder: Path, found: SequenceSet, rule: str = "small-on-top") -> None:
    """``mask000.tif`` ... and ``res_track.txt``: what the Cell Tracking Challenge takes as a result."""
    import numpy as np
    import tifffile

    from segment_duo.masks.overlap import label_image

    segments, labels = ctc_segments(found)
    if len(segments) > np.iinfo(np.uint16).max:
        raise MaskFileError(f"the Cell Tracking Challenge's images hold 65 535 tracks, here are {len(segments)}")
    digits = max(3, len(str(max(0, len(found.frames) - 1))))
    height, width = found.head.size
    hidden: dict[int, int] = {}
    for position, seen in enumerate(found):
        values = np.array([0, *(labels[mask.id, seen.frame] for mask in seen.masks)], dtype=np.uint16)
        image = values[label_image(seen.masks, height, width, rule)]
        for label in set(values[1:].tolist()) - set(np.unique(image).tolist()):
            hidden[label] = hidden.get(label, 0) + 1
        tifffile.imwrite(folder / f"mask{position:0{digits}d}.tif", image, compression="zlib", metadata=None)
    if hidden:
        raise MaskFileError(
            f"{len(hidden)} objects lie wholly under others in some frame, which the Cell Tracking Challenge does not allow",
            "Track without --keep-overlaps, or choose another --overlap.",
        )
    lines = [f"{piece.label} {piece.first} {piece.last} {piece.parent}\n" for piece in segments]
    (folder / "res_track.txt").write_text("".join(lines), encoding="ascii")


def write_davis(folder: Path, found: SequenceSet, rule: str = "small-on-top") -> None:
    """``00000.png`` ...: palette images as DAVIS has them; ids as they are, up to 253."""
    from PIL import Image

    ids = sorted({one for chunk in found.chunks for one in chunk.ids})
    if ids and ids[-1] > DAVIS_IDS:
        raise MaskFileError(
            f"DAVIS images hold ids up to {DAVIS_IDS}, here is {ids[-1]}", "Export labels-ome or ctc instead."
        )
    palette = davis_palette()
    for position, labels in enumerate(label_frames(found, rule, "uint8")):
        image = Image.fromarray(labels, mode="P")
        image.putpalette(palette)
        image.save(folder / f"{position:05d}.png")


def davis_palette() -> bytes:
    """RGB of 256 values: black, then this program's colours, so that an object has the same colour everywhere."""
    colours = [(0, 0, 0), *(PALETTE[one % len(PALETTE)] for one in range(1, 256))]
    return bytes(value for colour in colours for value in colour)


def youtube_vis(found: SequenceSet, name: str) -> dict[str, Any]:
    """The JSON document of YouTube-VIS: one video, one category, an annotation an object with one segmentation (or null) a frame."""
    frames = found.frames
    height, width = found.head.size
    tracks: dict[int, list[Mask | None]] = {}
    for position, seen in enumerate(found):
        for mask in seen.masks:
            tracks.setdefault(mask.id, [None] * len(frames))[position] = mask
    return {
        "videos": [
            {
                "id": 1,
                "width": width,
                "height": height,
                "length": len(frames),
                "file_names": [f"{name}/{frame:05d}" for frame in frames],
            }
        ],
        "categories": [{"id": 1, "name": "object", "supercategory": "object"}],
        "annotations": [
            {
                "id": one,
                "video_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "width": width,
                "height": height,
                "length": len(frames),
                "segmentations": [
                    mask and {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts} for mask in masks
                ],
                "bboxes": [mask and list(mask.bbox) for mask in masks],
                "areas": [mask and mask.area for mask in masks],
            }
            for one, masks in sorted(tracks.items())
        ],
    }


def write_youtube_vis(target: Path, found: SequenceSet, name: str) -> None:
    """:func:`youtube_vis` as a file."""
    with io.TextIOWrapper(target.open("wb"), encoding="utf-8") as file:
        json.dump(youtube_vis(found, name), file)
