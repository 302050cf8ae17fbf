"""COCO's compressed run-length encoding on whole images and on crops.

Runs are column-major, background first. Everything works on the runs themselves: a thousand masks of a 100-megapixel image are
measured, moved and drawn without one full-size array per mask. Results equal pycocotools', byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from segment_duo.boxes import EMPTY, Xywh, in_pixels, of_ends
from segment_duo.errors import MaskFileError
from segment_duo.masks.load_masks import MAX_PIXELS, DamagedMaskFile, runs_of_counts
from segment_duo.types import Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]


_BLOCK = 4_000_000
"""Pixels that are encoded at once."""


def runs(rle: Rle) -> Ints:
    """Run lengths, int64, background first, of which the sum is ``height * width``.

    Raises:
        MaskFileError: the text is no such code, or does not fit the size.
    """
    if rle.height < 1 or rle.width < 1 or rle.height * rle.width > MAX_PIXELS:
        raise MaskFileError(f"a mask of {rle.width} x {rle.height} pixels cannot be")
    try:
        values = runs_of_counts(rle.counts)
    except DamagedMaskFile as error:
        raise MaskFileError(f"the mask {error}") from None
    if int(values.sum()) != rle.height * rle.width:
        raise MaskFileError(f"the mask's runs cover {int(values.sum())} pixels, its size is {rle.width} x {rle.height}")
    return values


def spans(rle: Rle) -> tuple[Ints, Ints]:
    """First and one-past-last column-major index of every foreground run, non-empty ones only, int64."""
    import numpy as np

    edges = np.cumsum(runs(rle))
    starts, ends = edges[0::2], edges[1::2]
    starts = starts[: len(ends)]
    keep = ends > starts
    return starts[keep], ends[keep]


def from_spans(starts: Ints, ends: Ints, height: int, width: int) -> Rle:
    """Encode ascending, disjoint foreground spans of column-major indices; touching ones are merged."""
    import numpy as np

    if len(starts):
        apart = starts[1:] != ends[:-1]
        starts = starts[np.concatenate(([True], apart))]
        ends = ends[np.concatenate((apart, [True]))]
    edges = np.empty(2 * len(starts), dtype=np.int64)
    edges[0::2], edges[1::2] = starts, ends
    # A mask that reaches the last pixel has no background run after it, as pycocotools writes it.
    tail = [height * width] if not len(edges) or edges[-1] != height * width else []
    bounds = np.concatenate(([0], edges, tail)).astype(np.int64)
    return Rle(height, width, _text(bounds[1:] - bounds[:-1]))


def _text(lengths: Ints) -> str:
    """``counts`` of run lengths; see :func:`segment_duo.masks.load_masks.runs_of_counts` for the code."""
    import numpy as np

    left = lengths.copy()
    left[3:] -= lengths[1:-2]
    out = np.zeros((len(left), 8), dtype=np.uint8)
    active = np.ones(len(left), dtype=bool)
    for place in range(8):
        group = left & 0x1F
        left >>= 5
        more = np.where(group & 0x10, left != -1, left != 0)
        out[active, place] = ((group | np.where(more, 0x20, 0)) + 48)[active]
        active &= more
        if not active.any():
            break
    return out[out > 0].tobytes().decode("ascii")


def encode(array: npt.NDArray[np.bool_]) -> Rle:
    """Encode a boolean array, shape (height, width); any layout."""
    import numpy as np

    array = np.asarray(array, dtype=bool)
    height, width = array.shape
    box = _occupied(array)
    if box is None:
        return empty(height, width)
    x0, y0, x1, y1 = box
    return encode_crop(array[y0:y1, x0:x1], x0, y0, height, width)


def encode_crop(crop: npt.NDArray[np.bool_], x: int, y: int, height: int, width: int) -> Rle:
    """Encode a boolean crop, shape (h, w), whose top-left pixel is (x, y) of an otherwise empty height x width image."""
    import numpy as np

    rows, columns = crop.shape
    if x < 0 or y < 0 or y + rows > height or x + columns > width:
        raise ValueError("the crop does not lie inside the image")
    starts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    # In blocks of columns: the steps below need some 20 bytes a pixel.
    block = max(1, _BLOCK // max(1, rows))
    for left in range(0, columns, block):
        part = crop[:, left : left + block]
        # One empty row under every column: no run can wrap into the next column, so crop indices map to image indices run by run.
        padded = np.zeros((part.shape[1], rows + 1), dtype=np.int8)
        padded[:, :rows] = part.T
        steps = np.diff(padded.ravel(), prepend=np.int8(0))
        begin, end = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        column = begin // (rows + 1)
        shift = (column + x + left) * height + y - column * (rows + 1)
        starts.append(begin + shift)
        ends.append(end + shift)
    return from_spans(np.concatenate(starts), np.concatenate(ends), height, width)


def empty(height: int, width: int) -> Rle:
    """A mask without a pixel."""
    import numpy as np

    none = np.zeros(0, np.int64)
    return from_spans(none, none, height, width)


def _occupied(array: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 (exclusive) of the True pixels."""
    import numpy as np

    rows = np.flatnonzero(array.any(axis=1))
    if not rows.size:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(array[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """Boolean array, shape (height, width), C-contiguous."""
    import numpy as np

    # The runs are checked first: a damaged size must not take memory.
    x, y, w, h = in_pixels(bounding_box(rle))
    out = np.zeros((rle.height, rle.width), dtype=bool)
    if w:
        out[y : y + h, x : x + w] = decode_crop(rle, x, y, w, h)
    return out


def decode_crop(rle: Rle, x: int, y: int, w: int, h: int) -> npt.NDArray[np.bool_]:
    """The window XYWH of the mask as a boolean array, shape (h, w); the window must lie inside the image."""
    import numpy as np

    starts, ends = spans(rle)
    low, high = x * rle.height, (x + w) * rle.height
    inside = (ends > low) & (starts < high)
    starts, ends = np.maximum(starts[inside], low) - low, np.minimum(ends[inside], high) - low
    edges = np.empty(2 * len(starts) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, high - low
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    flat = np.repeat(np.arange(len(edges) - 1) % 2 == 1, np.diff(edges))
    return np.ascontiguousarray(flat.reshape(w, rle.height).T[y : y + h])


def cut_out(rle: Rle, margin: int = 0) -> tuple[npt.NDArray[np.bool_], int, int]:
    """The mask's box, grown by ``margin`` and cut at the image's border: bool array (h, w), and x, y of its first pixel; (0, 0) for an empty mask."""
    import numpy as np

    x, y, w, h = in_pixels(bounding_box(rle))
    if not w:
        return np.zeros((0, 0), dtype=bool), 0, 0
    x0, y0 = max(0, x - margin), max(0, y - margin)
    x1, y1 = min(rle.width, x + w + margin), min(rle.height, y + h + margin)
    return decode_crop(rle, x0, y0, x1 - x0, y1 - y0), x0, y0


def area(rle: Rle) -> int:
    """Number of mask pixels."""
    return int(runs(rle)[1::2].sum())


def bounding_box(rle: Rle) -> Xywh:
    """The smallest box around the mask; four zeros when it is empty."""
    starts, ends = spans(rle)
    if not len(starts):
        return EMPTY
    height = rle.height
    x0, x1 = int(starts[0]) // height, (int(ends[-1]) - 1) // height
    top, bottom = starts % height, (ends - 1) % height
    # A run that crosses into the next column touches the last row and the first.
    wraps = starts // height != (ends - 1) // height
    y0 = 0 if wraps.any() else int(top.min())
    y1 = height - 1 if wraps.any() else int(bottom.max())
    return of_ends(x0, y0, x1, y1)


def resize_canvas(rle: Rle, height: int, width: int) -> Rle:
    """The same mask on a canvas of another size with the same origin: rows and columns are added or cut at the bottom and the right."""
    import numpy as np

    starts, ends = spans(rle)
    first, last = starts // rle.height, (ends - 1) // rle.height
    pieces = last - first + 1
    column = np.repeat(first, pieces) + np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    top = np.maximum(np.repeat(starts, pieces) - column * rle.height, 0)
    bottom = np.minimum(np.minimum(np.repeat(ends, pieces) - column * rle.height, rle.height), height)
    keep = (column < width) & (bottom > top)
    column, top, bottom = column[keep], top[keep], bottom[keep]
    return from_spans(column * height + top, column * height + bottom, height, width)


def from_row_spans(starts: Ints, ends: Ints, height: int, width: int) -> Rle:
    """Encode ascending, disjoint spans of row-major pixel indices, with a boolean array of the mask's box only."""
    import numpy as np

    if not len(starts):
        return empty(height, width)
    first, last = starts // width, (ends - 1) // width
    top, rows = int(first[0]), int(last[-1]) - int(first[0]) + 1
    wraps = bool((first != last).any())
    left = 0 if wraps else int((starts % width).min())
    columns = width if wraps else int(((ends - 1) % width).max()) + 1 - left
    # In the box one column more than the mask has: no run begins where another ends.
    begin, end = first - top, last - top
    stride = columns + (not wraps)
    turns = np.zeros(rows * stride + 1, dtype=np.int8)
    turns[begin * stride + starts - first * width - left] += 1
    turns[end * stride + ends - last * width - left] -= 1
    inside = np.cumsum(turns[:-1], dtype=np.int8).astype(bool).reshape(rows, stride)[:, :columns]
    return encode_crop(inside, left, top, height, width)


def from_counts(counts: Sequence[float], height: int, width: int) -> Rle:
    """Encode COCO's uncompressed run lengths (``counts`` as a list, background first).

    Raises:
        MaskFileError: the runs do not fit the size.
    """
    import numpy as np

    exact = np.array(counts, dtype=np.float64)
    lengths = exact.astype(np.int64)
    if (lengths.size and (lengths.min() < 0 or lengths.max() > height * width)) or lengths.sum() != height * width:
        raise MaskFileError(f"the mask's runs do not cover its size of {width} x {height}")
    if (lengths != exact).any():
        raise MaskFileError("the mask's runs are no whole numbers of pixels")
    edges = np.cumsum(lengths)
    ends = edges[1::2]
    starts = edges[0::2][: len(ends)]
    keep = ends > starts
    return from_spans(starts[keep], ends[keep], height, width)


def to_indices(rle: Rle) -> Ints:
    """Flat row-major pixel indices of the mask, ascending, int64."""
    import numpy as np

    starts, ends = spans(rle)
    lengths = ends - starts
    flat = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    columns, rows = np.divmod(flat, rle.height)
    return np.asarray(np.sort(rows * rle.width + columns), dtype=np.int64)


def intersection(a: Rle, b: Rle) -> int:
    """Pixels that two masks of the same size share."""
    import numpy as np

    _same_size(a, b)
    (a0, a1), (b0, b1) = spans(a), spans(b)
    if not len(a0) or not len(b0):
        return 0
    # Foreground of b before index i, at the ends of a's runs: a step function of b's runs.
    total = np.concatenate(([0], np.cumsum(b1 - b0)))

    def before(index: Ints) -> Ints:
        at = np.searchsorted(b0, index, side="right")
        return np.asarray(total[at] - np.maximum(np.where(at > 0, b1[at - 1], 0) - index, 0) * (at > 0))

    return int((before(a1) - before(a0)).sum())


def union(masks: Sequence[Rle]) -> Rle:
    """Pixels of any of the masks (at least one, of one size).

    Raises:
        MaskFileError: sizes differ.
    """
    import numpy as np

    first = masks[0]
    for other in masks[1:]:
        _same_size(first, other)
    found = [spans(mask) for mask in masks]
    starts = np.sort(np.concatenate([starts for starts, _ in found]))
    ends = np.sort(np.concatenate([ends for _, ends in found]))
    if not len(starts):
        return empty(first.height, first.width)
    # A run of the union begins where as many runs have ended as have begun before.
    begins = np.flatnonzero(np.searchsorted(ends, starts, side="left") >= np.arange(len(starts)))
    stops = np.concatenate((begins[1:], [len(starts)])) - 1
    return from_spans(starts[begins], ends[stops], first.height, first.width)


def combine(a: Rle, b: Rle, operation: Literal["and", "or", "minus", "xor"]) -> Rle:
    """``a`` and, or, minus, xor ``b``, pixel by pixel.

    Raises:
        MaskFileError: sizes differ.
    """
    import numpy as np

    _same_size(a, b)
    sides = [np.stack(spans(mask), axis=1).ravel() for mask in (a, b)]
    edges = np.unique(np.concatenate(sides))
    # Between two edges nothing changes; an odd number of own edges passed means inside.
    in_a, in_b = ((np.searchsorted(side, edges, side="right") & 1).astype(bool) for side in sides)
    inside = {"and": in_a & in_b, "or": in_a | in_b, "minus": in_a & ~in_b, "xor": in_a ^ in_b}[operation]
    turns = np.diff(inside.astype(np.int8), prepend=np.int8(0))
    return from_spans(edges[turns == 1], edges[turns == -1], a.height, a.width)


def _same_size(a: Rle, b: Rle) -> None:
    if (a.height, a.width) != (b.height, b.width):
        raise MaskFileError(f"masks of {a.width} x {a.height} and {b.width} x {b.height} cannot be compared")
