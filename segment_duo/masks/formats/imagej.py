"""ImageJ ROI archives (``RoiSet.zip``) and single ``.roi`` files, through roifile.

A mask in one piece without holes becomes a traced ROI with whole-pixel corners; others become composite ROIs, as ImageJ makes them itself.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from segment_duo.boxes import window
from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import MAX_IMPORT_BYTES, Gathered, canvas, ring_array
from segment_duo.masks.outlines import ellipse, outline_parts, rle_of_rings
from segment_duo.types import Mask, MaskSet, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import roifile

    Floats = npt.NDArray[np.float64]

MAX_ROIS = 100_000
_MAX_CORNER = 32767
"""ROI bounds are 16-bit."""
_SAYS_UTF8 = 0x800
"""Flag of a ZIP entry (APPNOTE, 4.4.4)."""
_STEPS = 16
"""Straight pieces of a curve from one corner to the next."""


def dump(mask_set: MaskSet, colours: Mapping[str, tuple[int, int, int]] | None = None) -> bytes:
    """A ZIP of one ROI per mask, named ``0001-label.roi``; the ROI's name is the mask's label, or its number.

    Args:
        colours: label -> RGB of its outlines; ImageJ's own colour without.

    Raises:
        MaskFileError: the image is larger than ROI coordinates can say.
    """
    height, width = canvas(mask_set)
    if max(height, width) > _MAX_CORNER:
        raise MaskFileError(
            f"ImageJ ROIs end at {_MAX_CORNER} pixels, the image is {width} x {height}", "export geojson instead"
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, mask in enumerate(mask_set.masks, 1):
            roi = _roi(mask, mask.label or f"{number:04d}")
            if roi is None:
                continue
            if colours and mask.label in colours:
                roi.stroke_color = bytes((255, *colours[mask.label]))
            plain = re.sub(r"[^\w.-]+", "_", mask.label)[:60]
            entry = zipfile.ZipInfo(f"{number:04d}{'-' + plain if plain else ''}.roi", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _roi(mask: Mask, name: str) -> roifile.ImagejRoi | None:
    import numpy as np
    import roifile

    parts = outline_parts(mask.rle)
    if not parts:
        return None
    roi = roifile.ImagejRoi()
    roi.name = name
    x, y, roi.right, roi.bottom = window(mask.bbox)
    roi.left, roi.top = x, y
    rings = [ring for part in parts for ring in part]
    if len(rings) == 1 and len(rings[0]) < 2**16:
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.n_coordinates = len(rings[0])
        roi.integer_coordinates = (rings[0] - (x, y)).astype(np.int32)
        return roi
    # java.awt.geom path: 0 = move to, 1 = line to, 4 = close.
    path: list[float] = []
    for ring in rings:
        for corner, (at_x, at_y) in enumerate(ring.tolist()):
            path.extend((0.0 if corner == 0 else 1.0, at_x, at_y))
        path.append(4.0)
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.multi_coordinates = np.array(path, dtype=np.float32)
    roi.shape_roi_size = len(path)
    return roi


def load(
    data: bytes,
    height: int,
    width: int,
    *,
    page: int | None = None,
    pages: int | None = None,
    place: Mapping[str, int] | None = None,
) -> tuple[list[Mask], list[str]]:
    """Masks from a ROI archive or file, and what was left out (lines, points and text have no area).

    Args:
        page: page of the image in its stack, from 0: ROIs whose position is another slice are left out. Position 0 belongs to every slice.
        place: where the page lies in a stack of several axes, axis -> index.
        pages: how many pages the stack has. ROIs that all lie on one slice are taken for an image of one page, which may be that slice.
    """
    import roifile

    # Its remarks on odd files would reach stderr; what cannot be used is said below.
    roifile.logger().addHandler(logging.NullHandler())
    found = Gathered("ROI")
    rois: list[tuple[str, bytes, roifile.ImagejRoi]] = []
    for name, content in _entries(data, found):
        try:
            roi = roifile.ImagejRoi.frombytes(content)
        except Exception as error:
            # roifile raises whatever the damaged bytes lead it into.
            found.leave_out(name, f"is no readable ROI ({type(error).__name__}: {str(error)[:80]})")
            continue
        rois.append((name, content, roi))
    slices = {_slice(roi, name) for name, _, roi in rois} - {None}
    if page is not None and pages == 1 and len(slices) == 1:
        found.notices += [f"the ROIs lie on slice {number} of a stack" for number in slices if number != 1]
        page = None
    for name, content, roi in rois:
        elsewhere = "" if page is None else _elsewhere(roi, name, page, place)
        if page is not None and elsewhere:
            found.leave_out(name, f"lies on {elsewhere}, the image is page {page} (slice {page + 1})")
            continue
        found.take(name, partial(_read, roi, content, height, width), label=_label(roi, name))
    if not rois and not found.left_out:
        raise MaskFileError("holds no ROI")
    return found.result()


_NUMBERED = re.compile(r"\d{4,6}(-\d{4,6}){0,2}(-\d{1,3})?")
"""What ImageJ's ROI manager calls a ROI without a name: slice (in stacks), y and x."""


def _label(roi: roifile.ImagejRoi, entry: str) -> str:
    name = str(roi.name)
    if name and not _NUMBERED.fullmatch(name):
        return name
    if not name and entry != _ALONE and not _NUMBERED.match(_entry_name(entry)):
        # The manager calls a ROI by its file's name.
        return _entry_name(entry)
    return f"group {roi.group}" if roi.group else ""


def _entry_name(entry: str) -> str:
    return entry.rsplit("/", 1)[-1].removesuffix(".roi").removesuffix(".ROI")


def _elsewhere(roi: roifile.ImagejRoi, entry: str, page: int, place: Mapping[str, int] | None) -> str:
    """Where a ROI lies, if that is not the page. Positions count from 1 along each axis; 0 is all of it."""
    positions = {"C": int(roi.c_position), "Z": int(roi.z_position), "T": int(roi.t_position)}
    if place is not None and any(positions.values()):
        off = any(number and number != place.get(axis, 0) + 1 for axis, number in positions.items())
        return "channel {}, slice {}, frame {}".format(*positions.values()) if off else ""
    number = _slice(roi, entry)
    return "" if number in (None, page + 1) else f"slice {number}"


def _slice(roi: roifile.ImagejRoi, entry: str) -> int | str | None:
    """The slice a ROI belongs to, from 1; None for every one; a text when channel, slice and frame do not tell the page."""
    places = [int(n) for n in (roi.c_position, roi.z_position, roi.t_position)]
    if any(places):
        far = [n for n in places if n > 1]
        if len(far) > 1:
            return "channel {}, slice {}, frame {}".format(*places)
        # Channel 1 alone says nothing about a stack of slices.
        return far[0] if far else (1 if any(places[1:]) else None)
    if roi.position > 0:
        return int(roi.position)
    # Older ROI managers kept the slice in the name only; it must be one of three numbers of the same length.
    named = re.fullmatch(r"(?P<slice>\d{4,6})-(\d{4,6})-(\d{4,6})(-\d{1,3})?", roi.name or _entry_name(entry))
    if named is None or len({len(number) for number in named.group(1, 2, 3)}) > 1:
        return None
    return int(named["slice"]) or None


_ALONE = "the ROI"


def _entries(data: bytes, found: Gathered) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the ROIs; ``found`` is told of those that cannot be unpacked."""
    if not data.startswith(b"PK"):
        yield _ALONE, data
        return
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:
        # zipfile has its own idea of how damaged bytes fail.
        raise MaskFileError(f"is a damaged ZIP archive ({error})") from None
    with archive:
        infos = [info for info in archive.infolist() if _is_roi(info.filename)]
        if len(infos) > MAX_ROIS or sum(info.file_size for info in infos) > MAX_IMPORT_BYTES:
            raise MaskFileError(f"unpacks to more than {MAX_ROIS} ROIs or {MAX_IMPORT_BYTES} bytes")
        for info in infos:
            try:
                with archive.open(info) as stream:
                    # Asked for by number: a header that lies about the size cannot make more of it.
                    content = stream.read(info.file_size)
            except Exception as error:
                # So have the decompressors.
                found.leave_out(_name_of(info), f"cannot be unpacked ({type(error).__name__}: {str(error)[:80]})")
                continue
            yield _name_of(info), content


def _name_of(info: zipfile.ZipInfo) -> str:
    """The entry's name. The Finder writes UTF-8 and does not say so; zipfile then reads it as that of a DOS machine."""
    name = info.filename
    if not info.flag_bits & _SAYS_UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return unicodedata.normalize("NFC", name)


def _is_roi(name: str) -> bool:
    """The Finder adds a shadow of every file (``__MACOSX/._a.roi``), which is no ROI."""
    parts = name.split("/")
    return name.lower().endswith(".roi") and "__MACOSX" not in parts and not parts[-1].startswith("._")


def _read(roi: roifile.ImagejRoi, content: bytes, height: int, width: int) -> Rle:
    try:
        rings = _rings(roi, content)
    except MaskFileError:
        raise
    except Exception as error:
        # Damaged bytes again: coordinates are only looked at here.
        raise MaskFileError(f"is no readable ROI ({type(error).__name__}: {str(error)[:80]})") from None
    return rle_of_rings([ring_array(ring, width, height) for ring in rings], height, width)


def _rings(roi: roifile.ImagejRoi, content: bytes) -> list[Any]:
    """Rings of a ROI in pixel-corner coordinates, to be filled even-odd as ImageJ does.

    Raises:
        MaskFileError: it has no area.
    """
    import numpy as np
    import roifile

    kind, sub = roifile.ROI_TYPE, roifile.ROI_SUBTYPE
    if roi.subtype in {sub.TEXT, sub.IMAGE}:
        # Stored as rectangles, but they select nothing.
        raise MaskFileError(f"a ROI of the kind {roi.subtype.name.lower()} has no area")
    if roi.composite:
        return _path(roi.multi_coordinates.tolist())
    if roi.roitype == kind.FREEHAND and roi.subtype in {sub.ELLIPSE, sub.ROTATED_RECT}:
        # Kept by their axis: its two ends, and the ratio of the axes or the width across.
        across = struct.unpack(">f", content[52:56])[0]
        start, end = np.array((roi.x1, roi.y1), float), np.array((roi.x2, roi.y2), float)
        axis = end - start
        normal = np.array((-axis[1], axis[0]))
        if roi.subtype == sub.ELLIPSE:
            return [ellipse((start + end) / 2, axis / 2, normal / 2 * across)]
        half = normal / (np.hypot(*axis) or 1.0) * across / 2
        return [np.stack((start + half, end + half, end - half, start - half))]
    if roi.roitype in {kind.RECT, kind.OVAL}:
        x, y = float(roi.left), float(roi.top)
        w, h = float(roi.right) - x, float(roi.bottom) - y
        if roi.subpixelrect:
            x, y, w, h = (float(n) for n in (roi.xd, roi.yd, roi.widthd, roi.heightd))
        if roi.roitype == kind.OVAL:
            return [ellipse(np.array((x + w / 2, y + h / 2)), np.array((w / 2, 0.0)), np.array((0.0, h / 2)))]
        return [_rectangle(x, y, w, h, roi.rounded_rect_arc_size / 2)]
    if roi.roitype in {kind.POLYGON, kind.FREEHAND, kind.TRACED}:
        ring = roi.coordinates()
        fitted = roi.options & roifile.ROI_OPTIONS.SPLINE_FIT and len(ring) > 2
        return [_spline(np.asarray(ring, float)) if fitted else ring]
    raise MaskFileError(f"a ROI of the kind {roi.roitype.name.lower()} has no area")


def _rectangle(x: float, y: float, w: float, h: float, radius: float) -> Floats:
    import numpy as np

    rx, ry = min(radius, w / 2), min(radius, h / 2)
    if rx <= 0 or ry <= 0:
        return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
    angle = np.deg2rad(np.arange(0.0, 91.0, 3.0))
    centres = ((x + w - rx, y + h - ry), (x + rx, y + h - ry), (x + rx, y + ry), (x + w - rx, y + ry))
    return np.concatenate(
        [
            np.stack((cx + rx * np.cos(angle + turn), cy + ry * np.sin(angle + turn)), axis=1)
            for (cx, cy), turn in zip(centres, np.pi / 2 * np.arange(4), strict=True)
        ]
    )


def _spline(ring: Floats) -> Floats:
    """The closed cubic spline through the corners, one unit of its parameter from each to the next, as ImageJ fits it."""
    import numpy as np
    from scipy.interpolate import CubicSpline

    if (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    closed = np.concatenate((ring, ring[:1]))
    curve = CubicSpline(np.arange(len(closed)), closed, bc_type="periodic")
    return np.asarray(curve(np.arange(0, len(ring), 1 / _STEPS)))


def _path(values: list[float]) -> list[Any]:
    """Rings of a composite ROI: Java's path of moves (0), lines (1), quadratic (2) and cubic (3) curves, and closings (4)."""
    import numpy as np

    rings: list[list[Any]] = []
    at = 0
    share = np.arange(1, _STEPS + 1)[:, None] / _STEPS
    while at < len(values):
        command = int(values[at])
        length = {0: 2, 1: 2, 2: 4, 3: 6, 4: 0}.get(command)
        points = np.array(values[at + 1 : at + 1 + (length or 0)]).reshape(-1, 2) if length is not None else None
        if points is None or 2 * len(points) != length or (command and not rings):
            raise MaskFileError("is no readable ROI (its path is damaged)")
        at += 1 + (length or 0)
        if command == 0:
            rings.append([points[0]])
        elif command == 1:
            rings[-1].append(points[0])
        elif command in (2, 3):
            start = rings[-1][-1]
            if command == 2:
                curve = (1 - share) ** 2 * start + 2 * share * (1 - share) * points[0] + share**2 * points[1]
            else:
                curve = (
                    (1 - share) ** 3 * start
                    + 3 * share * (1 - share) ** 2 * points[0]
                    + 3 * share**2 * (1 - share) * points[1]
                    + share**3 * points[2]
                )
            rings[-1].extend(curve)
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        raise MaskFileError("has no outline")
    return [np.array(ring) for ring in rings]
