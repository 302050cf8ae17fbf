"""The info banner ("databar") that microscopes burn into the bottom of an image: how high it is.

A banner is a flat fill with drawn text on it, pasted under the picture: one level owns most of every row of it, its upper edge is
straight across the image, and what is not background is text of (nearly) one other level. Specimen rows have noise, so one level owns a
few percent of them. Dark voids, saturated rows and charging bands can look flat too, therefore four things are required together: a run of
flat rows to the bottom, a sharp upper edge, empty margins above and below the text, and text. What fails a test is not cut: a
banner left in costs a few false masks, a false cut loses specimen.

Shares measured on real files: specimen rows 0.02 to 0.06, banner rows 0.56 to 1.00 (text rows are the lowest).

This module must not read tags or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LARGEST_SHARE = 0.25
"""A banner found in the pixels is at most this part of the height (real ones: 6 to 11 %)."""

_LOWER_PART = 0.5  # of the rows are mapped to levels
_SMALLEST_SHARE, _SMALLEST_ROWS = 0.02, 8
_TOLERANCES = (0, 2, 6, 12)  # grey levels of 255: exact files first, then resampled and JPEG copies
_FLAT_ROW = 0.30  # least share of the background level in a banner row
_CLEAR_ROW = 0.85  # share in the empty rows above and below the text, and in drawn lines
_MARGIN_ROW = 0.93  # share in the clearest rows at the upper and the lower end of the banner
_SPECIMEN_ROW = 0.5  # largest share of the background level above an edge that has no line
_STEP = 0.5  # least rise of that share across the edge
_TEXT_CONTRAST = 56  # text differs from the background by at least this many levels of 255
_TEXT_SHARE = (0.002, 0.55)  # part of the banner that is text, logo or scale bar
_INK_SHARE = 0.5  # part of the text close to one level, or
_INK_AT_LIMIT = (
    0.33  # close to the furthest level from the background (blurred text: 0.1 to 0.3, grains and noise: 0.07 to 0.12)
)
_STROKES_PER_ROW = 8  # else at least so many strokes in the fullest quarter of the rows,
_STROKE_WIDTH = 0.09  # at most this part of the banner's height wide,
_STROKE_GOES_ON = 0.4  # and this part of their pixels with ink below (noise: its own share, 0.05 to 0.1)
_LINE_ROWS = 6  # a drawn line is at most this high
_MOST_COLUMNS = 4096
_TEXT_ROWS = 4  # the smallest fonts seen are 5 px high
_BLUR_ROWS = 2  # resampling spreads an edge over this many rows


def find_banner(levels: npt.NDArray[np.uint8]) -> int:
    """Height in pixels of the banner at the bottom of ``levels`` (uint8, shape (H, W), see :func:`grey_levels`), 0 for none."""
    for tolerance in _TOLERANCES:
        height = _Rows.of(levels, tolerance).banner()
        if height:
            return height
    return 0


def banner_agrees(levels: npt.NDArray[np.uint8], height: int) -> bool:
    """Whether the pixels bear out a banner of exactly ``height`` rows, as a tag says.

    Weaker than :func:`find_banner`, since the height is not in question, only whether the bar is (still) there: the rows below the edge are
    flat, and the edge is a straight step or a drawn line.
    """
    rows = len(levels)
    if not 0 < height < rows * (_LOWER_PART - 0.1):
        return False
    return any(_Rows.of(levels, tolerance, height + 16).bears_out(height) for tolerance in _TOLERANCES)


def grey_levels(samples: npt.NDArray[Any], palette: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
    """``samples`` as uint8 (H, W) for the tests of this module, of which only the lower half has a meaning.

    8-bit samples stay exact. Others are mapped in three straight pieces: the bulk of the specimen (the upper 60 % of the rows) to 64..191, what
    is below and above it to the rest, so that the black and white of a banner end at 0 and 255, however far away they are.
    """
    import numpy as np

    if palette is not None:
        grey = np.rint(palette.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
        looked_up: npt.NDArray[np.uint8] = grey[samples]
        return looked_up
    if samples.ndim == 3:
        if samples.dtype == np.uint8:
            weights = (77, 150, 29)  # Rec. 601 luma in 256ths
            total = sum(samples[..., i].astype(np.uint16) * np.uint16(w) for i, w in enumerate(weights))
            return (np.asarray(total) >> 8).astype(np.uint8)
        samples = samples[..., 1]
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    return _scaled_levels(samples)


def _scaled_levels(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    import numpy as np

    flat = samples.reshape(-1)
    part = flat[:: max(1, flat.size // 1_000_000)]
    bulk = part[: max(1, part.size * 3 // 5)].astype(np.float64)  # the upper rows: no banner there
    bulk = bulk[np.isfinite(bulk)]
    finite = flat[np.isfinite(flat)] if samples.dtype.kind == "f" else flat
    if finite.size == 0:
        return np.zeros(samples.shape, np.uint8)
    least, most = float(finite.min()), float(finite.max())
    low, high = (float(v) for v in np.percentile(bulk, (0.5, 99.5))) if bulk.size else (least, most)
    known = [least, low, high, most]
    out = np.empty(samples.shape, np.uint8)
    step = max(1, 2_000_000 // max(1, samples.shape[1]))
    first = int(len(samples) * (1 - _LOWER_PART))  # what lies above is never looked at
    out[:first] = 0
    for start in range(first, len(samples), step):
        chunk = np.nan_to_num(samples[start : start + step].astype(np.float64), nan=least, posinf=most, neginf=least)
        out[start : start + step] = np.interp(chunk, known, [0, 64, 191, 255]).astype(np.uint8)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Row statistics of the bottom part of an image for one tolerance; index 0 is the uppermost row looked at.

    ``share`` is the largest share of one level (within the tolerance) per row, ``mode`` that level, ``background`` the banner's
    background level and ``own`` the share of it per row. ``line`` marks rows of one other level, at most ``_LINE_ROWS`` together. ``total`` is the
    height of the whole image.
    """

    levels: npt.NDArray[np.int16]
    share: npt.NDArray[np.float64]
    mode: npt.NDArray[np.int64]
    own: npt.NDArray[np.float64]
    line: npt.NDArray[np.bool_]
    background: int
    tolerance: int
    total: int

    @classmethod
    def of(cls, levels: npt.NDArray[np.uint8], tolerance: int, depth: int = 0) -> _Rows:
        import numpy as np

        total, width = levels.shape
        depth = min(total, max(depth, int(total * LARGEST_SHARE) + 16))
        part = levels[total - depth :, :: max(1, -(-width // _MOST_COLUMNS))]
        width = part.shape[1]
        index = np.arange(depth, dtype=np.int64)[:, None] * 256 + part
        counts = np.bincount(index.ravel(), minlength=depth * 256).reshape(depth, 256)
        summed = np.concatenate([np.zeros((depth, 1), np.int64), np.cumsum(counts, axis=1)], axis=1)
        low = np.clip(np.arange(256) - tolerance, 0, 256)
        high = np.clip(np.arange(256) + tolerance + 1, 0, 256)
        near = summed[:, high] - summed[:, low]
        mode = np.argmax(near, axis=1)
        share = near[np.arange(depth), mode] / width
        # The lowest rows may be a frame line or, in Zeiss files, specimen; the background is the commonest level just above.
        band = near[max(0, depth - max(10, total // 40)) : depth - 2] if depth > 4 else near
        background = int(np.argmax(band.sum(axis=0)))
        line = _short_runs((share >= _CLEAR_ROW) & (np.abs(mode - background) > _TEXT_CONTRAST), _LINE_ROWS)
        own = near[:, background] / width
        return cls(part.astype(np.int16), share, mode, own, line, background, tolerance, total)

    @property
    def depth(self) -> int:
        return len(self.share)

    def banner(self) -> int:
        """The height that passes all tests, else 0."""
        smallest = max(_SMALLEST_ROWS, round(self.total * _SMALLEST_SHARE))
        largest = int(self.total * LARGEST_SHARE)
        if self.depth <= smallest:
            return 0
        top = self._run_top()
        if self.depth - top < smallest:
            return 0
        for row in self._edges(top):
            height = self.depth - row
            if smallest <= height <= largest and self._is_sharp(row) and self._has_margins(row) and self._has_text(row):
                return height
        return 0

    def bears_out(self, height: int) -> bool:
        import numpy as np

        row = self.depth - height
        if row < 1:
            return False
        flat = np.median(np.maximum(self.own[row:], self.line[row:]))
        return bool(flat >= _FLAT_ROW) and self._is_sharp(row, blur=0)

    def _run_top(self) -> int:
        """First row of the flat run that ends at the bottom; up to two rows below the frame and single rows inside may differ."""
        flat = (self.own >= _FLAT_ROW) | self.line
        row = self.depth
        misses = 0
        for y in range(self.depth - 1, -1, -1):
            if flat[y]:
                row, misses = y, 0
                continue
            misses += 1
            if misses > (2 if self.depth - y <= 3 else 1):
                break
        return row

    def _edges(self, top: int) -> list[int]:
        """Rows where a banner may begin, best first: the run's top, then drawn lines inside it (a dark void above a dark banner)."""
        import numpy as np

        lines = [int(y) for y in np.flatnonzero(self.line) if y > top and not self.line[y - 1]]
        # A line below nothing but background is the divider, and what is above it a void in the specimen.
        dividers = [y for y in lines if y > top + _BLUR_ROWS and (self.own[top + _BLUR_ROWS : y] >= _CLEAR_ROW).all()]
        # Dark specimen rows can belong to the run; the steepest step near its top is the edge.
        near = np.arange(max(1, top - 1), min(self.depth, top + 6))
        steepest = int(near[np.argmax(self.own[near] - self.own[near - 1])])
        tops = [top, steepest] if self.line[top] else [steepest, top]
        starts = [*dividers, *tops, top + 1, top - 1, top + 2, *lines]
        return [y for y in dict.fromkeys(starts) if 0 < y < self.depth]

    def _has_line(self, row: int) -> bool:
        """A drawn line at ``row``: one level across, far from the row above."""
        import numpy as np

        if not self.line[row]:
            return False
        if self.share[row - 1] <= _SPECIMEN_ROW:
            return True
        step = np.abs(self.levels[row] - self.levels[row - 1]) > max(_TEXT_CONTRAST, self.tolerance)
        return bool(step.mean() >= 0.6)

    def _is_sharp(self, row: int, blur: int = _BLUR_ROWS) -> bool:
        """Specimen directly above ``row``, an empty banner row or a line directly below: the step takes at most ``blur`` rows more."""
        import numpy as np

        if not (self.line[row] or self.own[row : row + 1 + blur].max(initial=0) >= _CLEAR_ROW):
            return False
        if self._has_line(row):
            return True
        above = self.own[max(0, row - 1 - blur) : row].min()
        further = np.median(self.own[max(0, row - 10) : max(1, row - blur)])
        if max(above, further) > min(_SPECIMEN_ROW, self.own[row : row + 1 + blur].max() - _STEP):
            return False
        upper = self.levels[max(0, row - 1 - blur)]
        lower = self.levels[min(self.depth - 1, row + blur)]
        return bool((np.abs(upper - lower) > max(2, self.tolerance)).mean() >= 0.6)

    def _has_margins(self, row: int) -> bool:
        """Two empty rows (or frame) directly below the upper edge and two near the bottom; one can be a saturated scan row."""
        import numpy as np

        clear = (self.own >= _MARGIN_ROW) | self.line
        upper, lower = clear[row : row + 5], clear[-5:]
        return bool(np.count_nonzero(upper) >= 2 and np.count_nonzero(lower) >= 2)

    def _has_text(self, row: int) -> bool:
        """What is not background is drawn: it fills several rows, has largely one level, far from the background, and spares the margins."""
        import numpy as np

        # A blurred edge and a last row of specimen below the frame are not text, nor are lines across the image.
        inner = slice(row + 1 + _BLUR_ROWS, self.depth - 2)
        body = self.levels[inner][~self.line[inner]]
        apart = np.abs(body - self.background) > _TEXT_CONTRAST
        if np.count_nonzero(apart.any(axis=1)) < _TEXT_ROWS:
            return False
        found = body[apart]
        if not _TEXT_SHARE[0] <= found.size / body.size <= _TEXT_SHARE[1]:
            return False
        return self._is_one_ink(found) or _has_strokes(np.abs(body - self.background) > _TEXT_CONTRAST // 2)

    def _is_one_ink(self, found: npt.NDArray[np.int16]) -> bool:
        """Text that is not (or hardly) blurred has one level; grains and noise spread out."""
        import numpy as np

        reach = min(12, self.tolerance + 6)
        counts = np.bincount(found, minlength=256)
        commonest = np.convolve(counts, np.ones(2 * reach + 1, np.int64), mode="same").max() / found.size
        distance = np.abs(found - self.background)
        furthest = np.mean(distance >= np.percentile(distance, 95) - reach)
        return bool(commonest >= _INK_SHARE or furthest >= _INK_AT_LIMIT)


def _has_strokes(ink: npt.NDArray[np.bool_]) -> bool:
    """Whether ``ink`` (rows of a banner) is writing: many runs in the fullest rows, thin, and going on in the next row, unlike noise."""
    import numpy as np

    padded = np.zeros((len(ink), ink.shape[1] + 2), np.int8)
    padded[:, 1:-1] = ink
    steps = np.diff(padded, axis=1)
    starts, ends = np.nonzero(steps == 1), np.nonzero(steps == -1)
    if starts[1].size == 0:
        return False
    fullest = np.percentile(np.bincount(starts[0], minlength=len(ink)), 75)
    lengths = ends[1] - starts[1]
    goes_on = np.mean(ink[1:][ink[:-1]]) if ink[:-1].any() else 0.0
    thin = np.median(lengths) <= max(3, _STROKE_WIDTH * len(ink))
    return bool(fullest >= _STROKES_PER_ROW and thin and goes_on >= _STROKE_GOES_ON)


def _short_runs(marks: npt.NDArray[np.bool_], longest: int) -> npt.NDArray[np.bool_]:
    """``marks`` without its runs of more than ``longest``."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    out = np.zeros_like(marks)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        out[start:end] = end - start <= longest
    return out
