"""Between masks and polygons, without loss: outlines run along pixel edges.

Polygon coordinates here have the origin at the **top-left corner** of the first pixel (its centre is (0.5, 0.5)): the convention of ImageJ,
QuPath, LabelMe, YOLO and SVG. Prompt points and centroids elsewhere in the program lie half a pixel off, see ``types.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segment_duo.boxes import in_pixels
from segment_duo.types import Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ring = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]


def outline_parts(rle: Rle) -> list[list[Ring]]:
    """Outlines of a mask, one entry for every 4-connected part: its outer ring, then its holes.

    Rings are int64, shape (N, 2) as x, y pixel corners, not closed, simple (no corner twice), outer rings clockwise on the screen, holes
    counter-clockwise: valid polygons in OGC's sense. Empty masks give no part.
    """
    import numpy as np

    from segment_duo.masks.rle import bounding_box, decode_crop

    x, y, w, h = in_pixels(bounding_box(rle))
    if not w:
        return []
    return [[ring + np.array((x, y)) for ring in rings] for rings in crop_parts(decode_crop(rle, x, y, w, h))]


def crop_parts(crop: Bools) -> list[list[Ring]]:
    """:func:`outline_parts` of a boolean array, shape (h, w), in its own coordinates."""
    import numpy as np
    from scipy import ndimage

    w = crop.shape[1]
    component, count = ndimage.label(crop)
    shells: list[Ring | None] = [None] * (count + 1)
    holes: list[list[Ring]] = [[] for _ in range(count + 1)]
    for ring, part in _trace(crop, component):
        for simple in _split(ring):
            corners = np.array([divmod(corner, w + 1)[::-1] for corner in simple], dtype=np.int64)
            if _doubled_area(corners) > 0:
                shells[part] = corners
            else:
                holes[part].append(corners)
    return [[shell, *inner] for shell, inner in zip(shells, holes, strict=True) if shell is not None]


def _trace(crop: Bools, component: npt.NDArray[np.int32]) -> list[tuple[list[int], int]]:
    """Closed walks along the edges between mask and ground, mask on the right, as corner indices ``y * (w + 1) + x``, with their part.

    Where two mask pixels touch by a corner only, the walk turns right, so that it stays on its own part.
    """
    import numpy as np

    h, w = crop.shape
    padded = np.pad(crop, 1)
    ways = np.zeros((h + 1, w + 1), dtype=np.uint8)
    # Bits 1, 2, 4, 8: an edge leaves this corner to the east, south, west, north.
    ways[:-1, :-1] |= crop & ~padded[:-2, 1:-1]
    ways[:-1, 1:] |= (crop & ~padded[1:-1, 2:]) * np.uint8(2)
    ways[1:, 1:] |= (crop & ~padded[2:, 1:-1]) * np.uint8(4)
    ways[1:, :-1] |= (crop & ~padded[1:-1, :-2]) * np.uint8(8)
    begins = (ways & 1).astype(bool)
    begins[:, 1:] &= (ways[:, :-1] & 1) == 0
    open_ways = bytearray(ways.tobytes())
    step = (1, w + 1, -1, -(w + 1))
    walks = []
    for start in np.flatnonzero(begins).tolist():
        if not open_ways[start] & 1:
            continue
        corners, at, heading = [start], start, 0
        while True:
            if (at, heading) != (start, 0):
                open_ways[at] &= ~(1 << heading)
            at += step[heading]
            turn = next(way for way in ((heading + 1) % 4, heading, (heading + 3) % 4) if open_ways[at] >> way & 1)
            if at == start and turn == 0:
                open_ways[start] &= ~1
                break
            if turn != heading:
                corners.append(at)
            heading = turn
        y, x = divmod(start, w + 1)
        walks.append((corners, int(component[y, x])))
    return walks


def _split(corners: list[int]) -> list[list[int]]:
    """Cut a closed walk at corners it passes twice, into walks that pass every corner once."""
    found: list[list[int]] = []
    path: list[int] = []
    place: dict[int, int] = {}
    for corner in corners:
        if corner in place:
            loop = path[place[corner] :]
            del path[place[corner] :]
            for gone in loop:
                del place[gone]
            found.append(loop)
        place[corner] = len(path)
        path.append(corner)
    found.append(path)
    return found


def _doubled_area(ring: Ring) -> int:
    x, y = ring[:, 0], ring[:, 1]
    return int((x * y[[*range(1, len(y)), 0]] - x[[*range(1, len(x)), 0]] * y).sum())


def single_ring(parts: Sequence[Sequence[Ring]]) -> list[tuple[int, int]]:
    """All rings as one polygon, joined by slits of no width: for formats that hold one ring a mask. Filled even-odd it is the mask, exactly."""
    rings = [ring for part in parts for ring in part]
    if not rings:
        return []
    first = (int(rings[0][0][0]), int(rings[0][0][1]))
    out: list[tuple[int, int]] = []
    for number, ring in enumerate(rings):
        corners = [(int(x), int(y)) for x, y in ring]
        out.extend(corners)
        if len(rings) > 1:
            out.append(corners[0])
            if number:
                out.append(first)
    return out


def fill(rings: Sequence[npt.NDArray[np.float64]], height: int, width: int) -> Bools:
    """Boolean array, shape (height, width), of the pixels whose **centres** lie inside the rings by the even-odd rule.

    Args:
        rings: float64, shape (N, 2), x, y from the corner of the first pixel; closed or not; may reach outside.
    """
    import numpy as np

    toggles = np.zeros((height, width + 1), dtype=np.uint8)
    for ring in rings:
        x0, y0 = ring[:, 0], ring[:, 1]
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
        lengths = last - first
        edge = np.repeat(np.arange(len(ring)), lengths)
        rows = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[edge]
        # Both directions of an edge must give the same crossing to the last bit: slits have no width.
        low = np.where(y0 <= y1, x0, x1)[edge], np.minimum(y0, y1)[edge]
        high = np.where(y0 <= y1, x1, x0)[edge], np.maximum(y0, y1)[edge]
        crossing = low[0] + (high[0] - low[0]) * ((rows + 0.5 - low[1]) / (high[1] - low[1]))
        columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
        np.bitwise_xor.at(toggles, (rows, columns), 1)
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool)


def ellipse(centre: npt.ArrayLike, half: npt.ArrayLike, other: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Outline of an ellipse by its centre and the ends of two conjugate half axes from there, each x, y.

    Shape (360, 2): so many corners keep within 1/1000 of the radius.
    """
    import numpy as np

    angle = np.deg2rad(np.arange(360.0))[:, None]
    return np.asarray(centre + np.cos(angle) * np.asarray(half) + np.sin(angle) * np.asarray(other))


def rle_of_rings(rings: Sequence[npt.NDArray[np.float64]], height: int, width: int) -> Rle:
    """:func:`fill` and encode, on the rings' bounding box only."""
    import numpy as np

    from segment_duo.masks.rle import encode_crop

    corners = np.concatenate([np.zeros((0, 2)), *rings])
    if not len(corners):
        return encode_crop(np.zeros((1, 1), dtype=bool), 0, 0, height, width)
    low = np.clip(np.floor(corners.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), low + 1, (width, height)).astype(int)
    crop = fill([ring - low for ring in rings], int(high[1] - low[1]), int(high[0] - low[0]))
    return encode_crop(crop, int(low[0]), int(low[1]), height, width)


def rle_of_polygons(polygons: Sequence[Sequence[npt.NDArray[np.float64]]], height: int, width: int) -> Rle:
    """The union of polygons, each an outer ring and its holes: what overlaps counts once, in holes as well."""
    from segment_duo.masks.rle import combine, empty, union

    parts = []
    for shell, *holes in polygons:
        part = rle_of_rings([shell], height, width)
        if holes:
            part = combine(part, union([rle_of_rings([hole], height, width) for hole in holes]), "minus")
        parts.append(part)
    return union(parts or [empty(height, width)])
