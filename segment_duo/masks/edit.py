"""Geometry of corrections: what an annotator does to a mask that is there. Run-length codes in, run-length codes out; nothing is changed in place.

    one mask      fill_holes, smooth, grow, shrink, split_by_line, split_by_watershed
    several       merge, subtract, intersect, resolve_overlap
    by hand       stroke (the pixels under a round brush), paint, erase

Coordinates are the program's own (``types.py``): the centre of the first pixel is (0, 0), fractions count. Everything works on runs and on the
boxes it touches, never on the whole image. Every function may answer with an empty mask; whether to keep one is the caller's business. Nothing
here knows provenance, undo, screens or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from segment_duo.masks import rle as codec
from segment_duo.types import Mask, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]

Path = Sequence[tuple[float, float]]
"""x, y of the pointer, in order; one point is a dot."""

NECK = 0.85
"""Default of :func:`split_by_watershed`: two discs of one size part when their centres are more than 1.05 radii apart."""
_PIECE = 128.0
"""Strokes are drawn in pieces of at most this many pixels, so that a long slanted one never needs its whole box."""
_CUT = 0.7072
"""Half the width of a cut: a step to any of the eight neighbours that crosses the line has an end within half a diagonal of it."""

_CRUMB = 1.5
"""A part no pixel of which is further from the cut than this (pixels) is a crumb of it."""
_NEAR = 4.0
"""Pixels under a cut look for their part this far from it."""


def with_shape(mask: Mask, rle: Rle) -> Mask:
    """``mask`` with other pixels: area and box are computed, the model's scores go (they were of another shape), prompts and label stay."""
    return replace(
        mask,
        rle=rle,
        area=codec.area(rle),
        bbox=codec.bounding_box(rle),
        predicted_iou=None,
        stability_score=None,
    )


# --- one mask ---------------------------------------------------------------------------------------------------------------


def fill_holes(rle: Rle, largest: int | None = None) -> Rle:
    """Fill what is enclosed by the mask (ground that is not connected to the outside by pixel edges).

    Args:
        largest: only holes of at most this many pixels; None for all.
    """
    import numpy as np
    from scipy import ndimage

    crop, x, y = codec.cut_out(rle)
    if not crop.size:
        return rle
    holes = ndimage.binary_fill_holes(crop) & ~crop
    if largest is not None:
        labels, _ = ndimage.label(holes)
        holes &= np.bincount(labels.ravel())[labels] <= largest
    return codec.encode_crop(crop | holes, x, y, rle.height, rle.width)


def smooth(rle: Rle, radius: float = 1.5) -> Rle:
    """Round the outline: a Gaussian of ``radius`` pixels (its sigma), cut at one half. Spurs and gaps thinner than about that vanish.

    Straight edges stay where they are, also where the image's border cuts the mask.
    """
    import numpy as np
    from scipy import ndimage

    if radius <= 0:
        return rle
    # "nearest" at a side that is the image's border; at the others the margin of zeros is wider than the kernel.
    crop, x, y = codec.cut_out(rle, margin=math.ceil(4 * radius) + 1)
    if not crop.size:
        return rle
    soft = ndimage.gaussian_filter(crop.astype(np.float32), radius, mode="nearest", truncate=4.0)
    return codec.encode_crop(soft > 0.5, x, y, rle.height, rle.width)


def grow(rle: Rle, pixels: float = 1.0) -> Rle:
    """Add every pixel within ``pixels`` of the mask (distance between centres); 1 adds the neighbours along edges."""
    from scipy import ndimage

    crop, x, y = codec.cut_out(rle, margin=math.ceil(pixels))
    if not crop.size or pixels <= 0:
        return rle
    # A pixel's worth is the usual wish, and a tenth of the work without distances.
    near = ndimage.binary_dilation(crop) if pixels == 1 else ndimage.distance_transform_edt(~crop) <= pixels
    return codec.encode_crop(near, x, y, rle.height, rle.width)


def shrink(rle: Rle, pixels: float = 1.0) -> Rle:
    """Take away every pixel within ``pixels`` of the ground; the image's border is no ground. A thin mask becomes empty."""
    from scipy import ndimage

    crop, x, y = codec.cut_out(rle, margin=1)
    if not crop.size or pixels <= 0:
        return rle
    if crop.all():  # the whole image: no ground anywhere
        return rle
    left = (
        ndimage.binary_erosion(crop, border_value=1) if pixels == 1 else ndimage.distance_transform_edt(crop) > pixels
    )
    return codec.encode_crop(left, x, y, rle.height, rle.width)


def split_by_line(rle: Rle, path: Path) -> list[Rle]:
    """Cut a mask along a line; no pixel is lost.

    Pixels under the line go to the nearest part. Pieces of the mask that the line does not cut stay with the nearest part of those it cuts.

    Args:
        path: two points or more, meant to lead across the mask.

    Returns:
        the parts, the largest first; only the mask itself when the line does not cut it in two.
    """
    import numpy as np
    from scipy import ndimage
    from scipy.spatial import cKDTree

    crop, x, y = codec.cut_out(rle)
    if not crop.size or len(path) < 2:
        return [rle]
    size = crop.shape[1], crop.shape[0]
    under, beside, around = (
        codec.decode_crop(stroke(path, radius, rle.height, rle.width), x, y, *size)
        for radius in (_CUT, _CUT + _CRUMB, _CUT + _NEAR)
    )
    eight = np.ones((3, 3), dtype=bool)
    before, pieces = ndimage.label(crop, eight)
    after, count = ndimage.label(crop & ~under, eight)
    # Which piece of the uncut mask each part lies in, and how many parts that piece has now.
    piece_of = np.zeros(count + 1, dtype=np.int64)
    piece_of[after.ravel()] = before.ravel()
    parts_of = np.bincount(piece_of[1:], minlength=pieces + 1)
    cut = [part for part in range(1, count + 1) if parts_of[piece_of[part]] > 1]
    # Crumbs that a slanted line leaves along itself belong to the line, unless there is nothing else.
    solid = set(np.unique(after[~beside]).tolist())
    cut = [part for part in cut if part in solid] if len(solid & set(cut)) > 1 else cut
    if len(cut) < 2:
        return [rle]
    owner = np.where(np.isin(after, cut), after, 0)
    seeds = np.argwhere(around & (owner > 0))
    seeds_owner = owner[tuple(seeds.T)]
    left = np.argwhere(crop & (owner == 0))
    distance, nearest = cKDTree(seeds).query(left)
    chosen = seeds_owner[nearest]
    # A piece that was not cut goes to one part as a whole, that of its nearest pixel.
    piece = before[tuple(left.T)]
    order = np.lexsort((distance, piece))
    found, first = np.unique(piece[order], return_index=True)
    whole = np.zeros(pieces + 1, dtype=np.int64)
    whole[found] = chosen[order[first]]
    owner[tuple(left.T)] = np.where(parts_of[piece] < 2, whole[piece], chosen)
    return _parts(np.where(crop, owner, 0), cut, x, y, rle)


def split_by_watershed(rle: Rle, *, neck: float = NECK, smallest: float = 3.0) -> list[Rle]:
    """Cut a mask at its necks: watershed on the distance to the ground, then basins without a real neck between them are joined again.

    Args:
        neck: 0 to 1; parts stay apart when the half width of the neck between them is at most this share of the smaller part's radius.
            A higher value cuts more.
        smallest: parts whose inner radius (pixels) is less are never cut off.

    Returns:
        the parts, the largest first; only the mask itself when there is nothing to cut. Separate pieces of the mask become parts of their own.
    """
    import numpy as np
    from scipy import ndimage
    from skimage.segmentation import watershed

    crop, x, y = codec.cut_out(rle, margin=1)
    if not crop.size:
        return [rle]
    # Half a pixel less: the ground begins at the pixel's edge, not at its centre.
    distance = ndimage.distance_transform_edt(np.pad(crop, 1))[1:-1, 1:-1].astype(np.float32) - np.float32(0.5)
    basins = watershed(-distance, mask=crop, connectivity=2).astype(np.int64)
    count = int(basins.max())
    root = _joined(basins, distance, count, neck, smallest)
    return _parts(root[basins], sorted(set(root[1:].tolist())), x, y, rle)


def _joined(
    basins: npt.NDArray[np.int64], distance: npt.NDArray[np.float32], count: int, neck: float, smallest: float
) -> npt.NDArray[np.int64]:
    """For each basin the one it ends up in. Passes are gone through from the widest down, as in a tree of maxima."""
    import numpy as np
    from scipy import ndimage

    peaks = np.concatenate(([0.0], np.atleast_1d(ndimage.maximum(distance, basins, np.arange(1, count + 1)))))
    pairs: list[npt.NDArray[np.int64]] = []
    widths: list[npt.NDArray[np.float32]] = []
    h, w = basins.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(0, h - dy), slice(max(0, -dx), w - max(0, dx)))
        there = (slice(dy, h), slice(max(0, dx), w - max(0, -dx)))
        a, b = basins[here], basins[there]
        border = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.sort(np.stack((a[border], b[border]), axis=1), axis=1))
        widths.append(np.minimum(distance[here], distance[there])[border])
    pair, width = np.concatenate(pairs), np.concatenate(widths)
    order = np.argsort(-width, kind="stable")
    first = np.sort(np.unique(pair[order], axis=0, return_index=True)[1])
    root = list(range(count + 1))

    def top(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = root[root[basin]]
            basin = root[basin]
        return basin

    for (one, other), wide in zip(pair[order][first].tolist(), width[order][first].tolist(), strict=True):
        low, high = sorted((top(one), top(other)), key=lambda basin: peaks[basin])
        if low != high and (wide > neck * peaks[low] or peaks[low] < smallest):
            root[low] = high
    return np.array([top(basin) for basin in range(count + 1)], dtype=np.int64)


def _parts(labels: npt.NDArray[np.int64], wanted: Sequence[int], x: int, y: int, whole: Rle) -> list[Rle]:
    """Codes of the wanted labels of a crop at (x, y), the largest first."""
    import numpy as np
    from scipy import ndimage

    if len(wanted) < 2:
        return [whole]
    # Numbered anew: find_objects takes memory by the largest label.
    new = np.zeros(int(max(labels.max(), *wanted)) + 1, dtype=np.int64)
    new[list(wanted)] = np.arange(1, len(wanted) + 1)
    labels = new[labels]
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            rows, columns = box
            inside = labels[box] == number
            found.append(codec.encode_crop(inside, x + columns.start, y + rows.start, whole.height, whole.width))
    return sorted(found, key=codec.area, reverse=True)


# --- several masks ----------------------------------------------------------------------------------------------------------


def merge(masks: Sequence[Rle]) -> Rle:
    """All pixels of the masks (one or more, of one size)."""
    return codec.union(masks)


def subtract(rle: Rle, others: Sequence[Rle]) -> Rle:
    """The pixels of ``rle`` that no other mask has."""
    return codec.combine(rle, codec.union(others), "minus") if others else rle


def resolve_overlap(masks: Sequence[Mask], rule: str = "small-on-top") -> list[Rle]:
    """The masks without shared pixels, in the same order; one that lies wholly under others becomes empty.

    Args:
        rule: who keeps a shared pixel, a key of ``overlap.OVERLAP_RULES``.

    Raises:
        UsageError: unknown rule.
    """
    from segment_duo.masks.overlap import paint_order

    out: list[Rle] = [mask.rle for mask in masks]
    above: list[int] = []
    for position in reversed(paint_order(masks, rule)):
        box = masks[position].bbox
        out[position] = subtract(
            masks[position].rle, [masks[other].rle for other in above if _touch(box, masks[other].bbox)]
        )
        above.append(position)
    return out


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


# --- by hand ----------------------------------------------------------------------------------------------------------------


def stroke(path: Path, radius: float, height: int, width: int) -> Rle:
    """The pixels under a round brush that is drawn along a line: those whose centre is within ``radius`` of it.

    The pixels that the path's own points lie in always belong, so that the smallest brush still paints. What lies outside the image is left out.

    Args:
        path: one point or more; must be finite.
        radius: in pixels; 0.5 is a pixel wide.
    """
    import numpy as np

    pieces = [_dot(point, radius, height, width) for point in path[:1]]
    for start, end in pairwise(path):
        steps = max(1, math.ceil(max(abs(end[0] - start[0]), abs(end[1] - start[1])) / _PIECE))
        corners = np.linspace(start, end, steps + 1)
        pieces += [_capsule(a, b, radius, height, width) for a, b in pairwise(corners)]
        pieces.append(_dot(end, 0.0, height, width))
    return codec.union([piece for piece in pieces if piece is not None] or [codec.empty(height, width)])


def paint(rle: Rle, path: Path, radius: float) -> Rle:
    """``rle`` with the pixels of a :func:`stroke` added."""
    return codec.combine(rle, stroke(path, radius, rle.height, rle.width), "or")


def erase(rle: Rle, path: Path, radius: float) -> Rle:
    """``rle`` without the pixels of a :func:`stroke`."""
    return codec.combine(rle, stroke(path, radius, rle.height, rle.width), "minus")


def _dot(point: tuple[float, float], radius: float, height: int, width: int) -> Rle | None:
    import numpy as np

    x, y = math.floor(point[0] + 0.5), math.floor(point[1] + 0.5)
    if radius >= 0.5:
        return _capsule(np.array(point), np.array(point), radius, height, width, also=(x, y))
    if not (0 <= x < width and 0 <= y < height):
        return None
    return codec.encode_crop(np.ones((1, 1), dtype=bool), x, y, height, width)


def _capsule(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    radius: float,
    height: int,
    width: int,
    *,
    also: tuple[int, int] | None = None,
) -> Rle | None:
    """Pixels whose centre is within ``radius`` of the segment from ``start`` to ``end`` (x, y); None when there are none in the image."""
    import numpy as np

    low, high = np.minimum(start, end) - radius, np.maximum(start, end) + radius
    x0, y0 = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    x1, y1 = min(width, math.ceil(high[0]) + 1), min(height, math.ceil(high[1]) + 1)
    if x0 >= x1 or y0 >= y1:
        return None
    dx, dy = np.arange(x0, x1)[None, :] - start[0], np.arange(y0, y1)[:, None] - start[1]
    along = end - start
    length = float(along @ along)
    if length:
        # Where on the segment the nearest point lies, 0 to 1.
        share = np.clip((dx * along[0] + dy * along[1]) / length, 0.0, 1.0)
        dx, dy = dx - share * along[0], dy - share * along[1]
    inside = dx * dx + dy * dy <= radius * radius
    if also is not None and x0 <= also[0] < x1 and y0 <= also[1] < y1:
        inside[also[1] - y0, also[0] - x0] = True
    return codec.encode_crop(inside, x0, y0, height, width) if inside.any() else None
