"""ImageJ ROI archives (``RoiSet.zip``) and single ``.roi`` files, through roifile.

A mask in one piece without holes becomes a traced ROI with whole-pixel corners; others become composite ROIs, as ImageJ makes them itself.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.formats.common import MAX_IMPORT_BYTES, canvas, new_mask, ring_array
from segment_duo.masks.outlines import outline_parts, rle_of_rings
from segment_duo.types import Mask, MaskSet

if TYPE_CHECKING:
    import roifile

MAX_ROIS = 100_000
_MAX_CORNER = 32767
"""ROI bounds are 16-bit."""


def dump(mask_set: MaskSet) -> bytes:
    """A ZIP of one ROI per mask, named ``0001-label.roi``; the ROI's name is the mask's label, or its number.

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
    x, y, w, h = (int(n) for n in mask.bbox)
    roi.left, roi.top, roi.right, roi.bottom = x, y, x + w, y + h
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


def load(data: bytes, height: int, width: int) -> tuple[list[Mask], list[str]]:
    """Masks from a ROI archive or file, and what was left out (lines, points and text have no area)."""
    masks: list[Mask] = []
    notices: list[str] = []
    for name, content in _entries(data):
        import roifile

        try:
            roi = roifile.ImagejRoi.frombytes(content)
            rings = _rings(roi, width, height)
        except MaskFileError as error:
            raise MaskFileError(f"{name}: {error.message}") from None
        except Exception as error:
            # roifile raises whatever the damaged bytes lead it into.
            raise MaskFileError(f"{name}: is no readable ROI ({type(error).__name__}: {str(error)[:80]})") from None
        if rings is None:
            notices.append(f"{name}: a {roi.roitype.name.lower()} ROI has no area and is left out")
            continue
        label = "" if re.fullmatch(r"\d{4}(-\d{4})*", roi.name) else roi.name
        masks.append(new_mask(rle_of_rings(rings, height, width), len(masks), label=label))
    if notices and not masks:
        raise MaskFileError("holds no ROI with an area")
    return masks, notices


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    if not data.startswith(b"PK"):
        return [("the file", data)]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if info.filename.lower().endswith(".roi")]
            if len(infos) > MAX_ROIS or sum(info.file_size for info in infos) > MAX_IMPORT_BYTES:
                raise MaskFileError(f"unpacks to more than {MAX_ROIS} ROIs or {MAX_IMPORT_BYTES} bytes")
            entries = []
            for info in infos:
                with archive.open(info) as stream:
                    # Asked for by number: a header that lies about the size cannot make more of it.
                    entries.append((info.filename, stream.read(info.file_size)))
            return entries
    except MaskFileError:
        raise
    except Exception as error:
        # zipfile and its decompressors each have their own idea of how damaged bytes fail.
        raise MaskFileError(f"is a damaged ZIP archive ({error})") from None


def _rings(roi: roifile.ImagejRoi, width: int, height: int) -> list[Any] | None:
    """Rings of a ROI in pixel-corner coordinates; None when it has no area."""
    import numpy as np
    import roifile

    kind = roifile.ROI_TYPE
    if roi.composite:
        found = roi.coordinates(multi=True)
    elif roi.roitype in {kind.POLYGON, kind.FREEHAND, kind.TRACED, kind.RECT}:
        found = [roi.coordinates()]
    elif roi.roitype == kind.OVAL:
        # roifile's own outline of ovals has few corners; 360 keep within 1/1000 of the radius.
        angle = np.deg2rad(np.arange(360.0))
        rx, ry = (roi.right - roi.left) / 2, (roi.bottom - roi.top) / 2
        centre = (roi.left + rx, roi.top + ry)
        found = [np.stack((centre[0] + rx * np.cos(angle), centre[1] + ry * np.sin(angle)), axis=1)]
    else:
        return None
    return [ring_array(ring, width, height) for ring in found]
