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

_SMALLEST_SHARE, _SMALLEST_ROWS = 0.02, 8
_TOLERANCES = (0, 2, 6, 12)  # grey levels of 255: exact files first, then resampled and JPEG copies
_FLAT_ROW = 0.30  # least share of the background level in a banner row
_CLEAR_ROW = 0.85  # share in the empty rows above and below the text, and in drawn lines
_SPECIMEN_ROW = 0.35  # largest share of the background level in the row above an edge that has no line
_TEXT_CONTRAST = 56  # text differs from the background by at least this many levels of 255
_TEXT_SHARE = (0.002, 0.55)  # part of the banner that is text, logo or scale bar
_TEXT_ONE_LEVEL = 0.35  # part of it within the tolerance of one level
_MOST_COLUMNS = 4096
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
    if not 0 < height < rows:
        return False
    for tolerance in _TOLERANCES:
        found = _Rows.of(levels, tolerance, height + 32)
        if found.bears_out(height):
            return True
    return False


def grey_levels(samples: npt.NDArray[Any], palette: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
    """``samples`` as uint8 (H, W) for the tests of this module: only the lower part of the image keeps its meaning.

    8-bit samples stay exact. Others are scaled so that the bulk of the specimen (the upper 60 % of the rows) spans 24..231 and the pure
    black and white of a banner, however far away, end at 0 and 255.
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
    upper = samples[: max(1, len(samples) * 3 // 5)].reshape(-1)
    part = upper[:: max(1, upper.size // 500_000)].astype(np.float64)
    part = part[np.isfinite(part)]
    low, high = (float(v) for v in np.percentile(part, (0.5, 99.5))) if part.size else (0.0, 0.0)
    lower = samples[len(samples) * 3 // 5 :]
    finite = lower[np.isfinite(lower)] if samples.dtype.kind == "f" else lower
    if low == high and finite.size:
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low == high:
        return np.zeros(samples.shape, np.uint8)
    out = np.empty(samples.shape, np.uint8)
    step = max(1, 4_000_000 // max(1, samples.shape[1]))
    for start in range(0, len(samples), step):
        chunk = samples[start : start + step].astype(np.float32)
        scaled = (chunk - np.float32(low)) * np.float32(207 / (high - low)) + np.float32(24)
        out[start : start + step] = np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Row statistics of the bottom part of an image for one tolerance; index 0 is the uppermost row looked at.

    ``share`` is the largest share of one level (within the tolerance) per row, ``mode`` that level, ``background`` the banner's
    background level and ``own`` the share of it per row. ``total`` is the height of the whole image.
    """

    levels: npt.NDArray[np.int16]
    share: npt.NDArray[np.float64]
    mode: npt.NDArray[np.int64]
    own: npt.NDArray[np.float64]
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
        return cls(part.astype(np.int16), share, mode, near[:, background] / width, background, tolerance, total)

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
        flat = np.median(np.maximum(self.own[row:], np.where(self.share[row:] >= _CLEAR_ROW, 1.0, 0.0)))
        return bool(flat >= _FLAT_ROW) and self._is_sharp(row, blur=0)

    def _run_top(self) -> int:
        """First row of the flat run that ends at the bottom; up to two rows below the frame and single rows inside may differ."""
        flat = (self.own >= _FLAT_ROW) | (self.share >= _CLEAR_ROW)
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

        starts = [top, *(top + i for i in range(1, _BLUR_ROWS + 1)), top - 1]
        apart = np.abs(self.mode - self.background) > _TEXT_CONTRAST
        lines = np.flatnonzero((self.share >= _CLEAR_ROW) & apart)
        starts += [int(y) for y in lines if y > top and not (self.share[y - 1] >= _CLEAR_ROW and apart[y - 1])]
        return [y for y in starts if 0 < y < self.depth]

    def _has_line(self, row: int) -> bool:
        """A drawn line at ``row``: one level across, far from the row above."""
        import numpy as np

        if self.share[row] < _CLEAR_ROW:
            return False
        step = np.abs(self.levels[row] - self.levels[row - 1]) > max(_TEXT_CONTRAST, self.tolerance)
        return bool(step.mean() >= 0.6)

    def _is_sharp(self, row: int, blur: int = _BLUR_ROWS) -> bool:
        """Specimen directly above ``row``, an empty banner row or a line directly below: the step takes at most ``blur`` rows more."""
        import numpy as np

        inside = max(self.own[row : row + 1 + blur].max(initial=0), self.share[row])
        if inside < _CLEAR_ROW:
            return False
        if self._has_line(row):
            return True
        above = self.own[max(0, row - 1 - blur) : row]
        further = self.own[max(0, row - 10) : max(1, row - blur)]
        if above.min(initial=1.0) > _SPECIMEN_ROW or np.median(further) > _SPECIMEN_ROW:
            return False
        upper = self.levels[max(0, row - 1 - blur)]
        lower = self.levels[min(self.depth - 1, row + blur)]
        return bool((np.abs(upper - lower) > max(2, self.tolerance)).mean() >= 0.6)

    def _has_margins(self, row: int) -> bool:
        """Empty rows (or the frame) directly below the upper edge and near the bottom."""
        clear = (self.own >= _CLEAR_ROW) | (self.share >= _CLEAR_ROW)
        return bool(clear[row : row + 4].any() and clear[-4:].any())

    def _has_text(self, row: int) -> bool:
        """What is not background is drawn: much of it has one level, far from the background, and it spares the margins."""
        import numpy as np

        body = self.levels[row:]
        body = body[(self.share[row:] < _CLEAR_ROW) | (self.own[row:] >= _CLEAR_ROW)]
        body = body[: max(1, len(body) - 1)]  # the last row may be specimen below the frame
        if body.size == 0:
            return False
        apart = body[np.abs(body - self.background) > _TEXT_CONTRAST]
        share = apart.size / body.size
        if not _TEXT_SHARE[0] <= share <= _TEXT_SHARE[1]:
            return False
        counts = np.bincount(apart, minlength=256)
        reach = self.tolerance + 6
        sums = np.convolve(counts, np.ones(2 * reach + 1, np.int64), mode="same")
        return bool(sums.max() / apart.size >= _TEXT_ONE_LEVEL)
