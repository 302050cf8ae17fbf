"""Large images in overlapping tiles: every window is segmented by itself, then masks are merged across the seams.

    +-----------+-----------+     cores (``tile``) share the image without overlap; a window is its core and ``halo`` pixels around it
    |  core A   |  core B   |     points are prompted in the core, masks may reach through the window
    |        [==|==]        |     [====] the overlap of the two windows, 2 * halo wide

A mask that ends inside its window is complete; found again in a neighbouring window it is a duplicate, and the one whose centre lies in its own core
stays. A mask that reaches an inner edge of its window is a fragment: it is dropped where a complete mask explains it, else joined with
the neighbours' fragments that agree with it in the overlap. Memory depends on the window and on the number of masks, never on the image:
masks live in their rectangles, one bit a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from segment_duo.boxes import Window, ends
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.base import AutomaticRun
from segment_duo.segmenters.sam2.candidates import MAX_BYTES, Candidates, CropCandidates, lowest_level
from segment_duo.segmenters.sam2.grid import GridRun
from segment_duo.segmenters.sam2.segments import Segment

if TYPE_CHECKING:
    import numpy.typing as npt


EDGE = 20
"""Distance in pixels at which a box counts as touching its window's edge; that of stock for crops."""

AGREE = 0.5
"""IoU in the common part of two windows from which two masks are the same object."""


CELL = 256
"""Edge in pixels of the cells in which neighbours are looked up."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile. ``core`` is its share of the image, ``box`` what the model sees."""

    box: Window
    core: Window


def windows(height: int, width: int, tile: int, halo: int) -> list[Tile]:
    """Equally large cores of at most ``tile`` pixels an edge, row by row, each with its halo."""
    ys, xs = _cuts(height, tile), _cuts(width, tile)
    out = []
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            box = (max(x0 - halo, 0), max(y0 - halo, 0), min(x1 + halo, width), min(y1 + halo, height))
            out.append(Tile(box, (x0, y0, x1, y1)))
    return out


@dataclass(eq=False, slots=True)
class Piece:
    """A mask of one window. ``bits``: its rectangle, one bit a pixel; ``sides``: inner edges of the window it touches (of ``l t r b``)."""

    segment: Segment
    window: Tile
    rectangle: Window
    bits: npt.NDArray[np.uint8]
    sides: str

    @classmethod
    def of(cls, segment: Segment, window: Tile, height: int, width: int) -> Piece:
        mask = segment.mask
        rectangle = mask.window
        bits = np.packbits(mask.pixels, axis=1)
        # The bits replace the segment's own pixels, which take eight times as much.
        light = replace(segment, mask=CroppedMask(mask.pixels[:0, :0].copy(), mask.left, mask.top))
        return cls(light, window, rectangle, bits, _sides(rectangle, window.box, height, width))

    @property
    def pixels(self) -> npt.NDArray[np.bool_]:
        x0, _, x1, _ = self.rectangle
        return np.unpackbits(self.bits, axis=1, count=x1 - x0).astype(bool)

    @property
    def owned(self) -> bool:
        """Whether its centre lies in its window's core."""
        x0, y0, x1, y1 = self.rectangle
        cx0, cy0, cx1, cy1 = self.window.core
        return cx0 <= (x0 + x1) / 2 < cx1 and cy0 <= (y0 + y1) / 2 < cy1

    def within(self, area: Window) -> npt.NDArray[np.bool_]:
        """Its pixels in a rectangle of the image."""
        x0, y0, x1, y1 = area
        out = np.zeros((y1 - y0, x1 - x0), dtype=bool)
        common = _common(area, self.rectangle)
        if common is not None:
            left, top, right, bottom = common
            mx, my = self.rectangle[:2]
            rows = np.unpackbits(self.bits[top - my : bottom - my], axis=1, count=self.rectangle[2] - mx)
            out[top - y0 : bottom - y0, left - x0 : right - x0] = rows[:, left - mx : right - mx]
        return out


def generate_tiled(run: GridRun, known: Candidates | None) -> AutomaticRun:
    """Segment window by window and merge. ``known``: candidates of an earlier run that can answer, else None."""
    p = run.parameters
    segments, kept, count = tiled_segments(run, known)
    run.note_mode()
    run.notes.append(
        f"segmented in {count} tiles of up to {p.tile} pixels with a halo of {p.halo}; stock sam2 has no tiles"
    )
    return run.result(run.records(segments), kept, reused=known is not None)


def tiled_segments(run: GridRun, known: Candidates | None) -> tuple[list[Segment], Candidates | None, int]:
    """Segments of the whole image found window by window, what the next run can reuse, and the number of windows."""
    p = run.parameters
    plan = windows(run.height, run.width, p.tile, p.halo)
    kept: Candidates | None = Candidates(run.height, run.width, p, lowest_level(p))
    pieces: list[Piece] = []
    run.on_progress("tiles", 0, len(plan))
    for i, (window, crop) in enumerate(zip(plan, _crops(run, plan, known), strict=True)):
        run.check()
        chosen = run.select_in_crop(crop, drop_at_edge=False)
        pieces += [Piece.of(run.segment(crop, c), window, run.height, run.width) for c in chosen]
        if kept is not None:
            kept.crops.append(crop)
            if kept.nbytes > MAX_BYTES:
                kept = None
        run.on_progress("tiles", i + 1, len(plan))
    segments, dropped = merge(pieces)
    if p.min_mask_region_area > 0:
        segments = run.clean(segments)
    if dropped:
        run.notes.append(
            f"{dropped} masks that ended at a tile's edge without a continuation in the next tile were dropped"
        )
    return segments, kept, len(plan)


def _crops(run: GridRun, plan: Sequence[Tile], known: Candidates | None) -> Iterator[CropCandidates]:
    if known is not None:
        yield from known.crops
        return
    grid = run.grids()[0]
    for window in plan:
        yield run.decode_window(window.box, window.core, grid)


def merge(pieces: Sequence[Piece]) -> tuple[list[Segment], int]:
    """Masks of all windows as one set, and how many fragments had no continuation.

    Order: complete masks and joined ones by the position of their window, then as the window had them.
    """
    complete = _without_duplicates([p for p in pieces if not p.sides])
    explained = _Neighbours(complete)
    fragments = [
        p for p in pieces if p.sides and not any(_same(p, c) for c in explained.of(p) if c.window is not p.window)
    ]
    joined, dropped = _join(fragments)
    place = {id(p): i for i, p in enumerate(pieces)}
    found = [(place[id(p)], _restored(p)) for p in complete] + [(place[id(p)], s) for p, s in joined]
    return [s for _, s in sorted(found, key=lambda pair: pair[0])], dropped


def _without_duplicates(pieces: Sequence[Piece]) -> list[Piece]:
    """Keep one of the masks that different windows have of the same object: the owner's, else the best one."""
    order = sorted(range(len(pieces)), key=lambda i: (not pieces[i].owned, -pieces[i].segment.predicted_iou, i))
    kept = _Neighbours()
    for i in order:
        if not any(_same(pieces[i], other) for other in kept.of(pieces[i]) if other.window is not pieces[i].window):
            kept.add(pieces[i])
    return kept.all


def _join(fragments: Sequence[Piece]) -> tuple[list[tuple[Piece, Segment]], int]:
    """Groups of fragments that agree in their overlaps, as one segment each; and the number of fragments left over."""
    parent = list(range(len(fragments)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    near = _Neighbours()
    number = {id(f): i for i, f in enumerate(fragments)}
    for i, fragment in enumerate(fragments):
        for other in near.of(fragment):
            j = number[id(other)]
            if other.window is not fragment.window and root(i) != root(j) and _same(fragment, other):
                parent[root(i)] = root(j)
        near.add(fragment)
    groups: dict[int, list[Piece]] = {}
    for i, fragment in enumerate(fragments):
        groups.setdefault(root(i), []).append(fragment)
    joined, dropped = [], 0
    for group in groups.values():
        mask = _union(group)
        if _continues(group, mask):
            joined.append((group[0], _joined_segment(group, mask)))
        else:
            dropped += len(group)
    return joined, dropped


def _continues(group: Sequence[Piece], mask: CroppedMask) -> bool:
    """Whether the union goes on (or ends) beyond every window edge that one of its parts touched."""
    rows, cols = mask.pixels.shape
    left, top, right, bottom = mask.left, mask.top, mask.left + cols, mask.top + rows
    for piece in group:
        x0, y0, x1, y1 = piece.window.box
        passed = {"l": left < x0, "t": top < y0, "r": right > x1, "b": bottom > y1}
        if len(group) == 1:
            # Alone, near the edge but not at it, and nobody else's: it ends there.
            px0, py0, px1, py1 = piece.rectangle
            passed = {"l": px0 > x0 + 2, "t": py0 > y0 + 2, "r": px1 < x1 - 2, "b": py1 < y1 - 2}
            if not piece.owned:
                return False
        if not all(passed[side] for side in piece.sides):
            return False
    return True


def _joined_segment(group: Sequence[Piece], mask: CroppedMask) -> Segment:
    """The best part's record with the union's pixels."""
    best = max(group, key=lambda p: (p.segment.predicted_iou, -p.rectangle[0]))
    return replace(best.segment, mask=mask, box=ends(mask.box))


def _restored(piece: Piece) -> Segment:
    return replace(piece.segment, mask=CroppedMask(piece.pixels, piece.rectangle[0], piece.rectangle[1]))


def _union(group: Sequence[Piece]) -> CroppedMask:
    x0, y0 = min(p.rectangle[0] for p in group), min(p.rectangle[1] for p in group)
    x1, y1 = max(p.rectangle[2] for p in group), max(p.rectangle[3] for p in group)
    out = np.zeros((y1 - y0, x1 - x0), dtype=bool)
    for p in group:
        left, top, right, bottom = p.rectangle
        out[top - y0 : bottom - y0, left - x0 : right - x0] |= p.pixels
    return CroppedMask(out, x0, y0)


def _same(a: Piece, b: Piece) -> bool:
    """Whether two masks of different windows agree in what both windows saw."""
    seen = _common(a.window.box, b.window.box)
    if seen is None or _common(a.rectangle, b.rectangle) is None:
        return False
    area = _common(seen, _hull(a.rectangle, b.rectangle))
    if area is None:
        return False
    in_a, in_b = a.within(area), b.within(area)
    either = int(np.count_nonzero(in_a | in_b))
    return either > 0 and int(np.count_nonzero(in_a & in_b)) >= AGREE * either


class _Neighbours:
    """Pieces by the cells their rectangles touch, so that 10,000 masks are not compared with each other pair by pair."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self.all: list[Piece] = []
        self._cells: dict[tuple[int, int], list[Piece]] = {}
        for p in pieces:
            self.add(p)

    def add(self, piece: Piece) -> None:
        self.all.append(piece)
        for cell in self._touched(piece.rectangle):
            self._cells.setdefault(cell, []).append(piece)

    def of(self, piece: Piece) -> list[Piece]:
        """Pieces whose rectangle overlaps that of ``piece``, in the order they were added."""
        found = {id(p): p for cell in self._touched(piece.rectangle) for p in self._cells.get(cell, ())}
        return [p for p in found.values() if _common(p.rectangle, piece.rectangle) is not None]

    @staticmethod
    def _touched(rectangle: Window) -> Iterator[tuple[int, int]]:
        x0, y0, x1, y1 = rectangle
        for cy in range(y0 // CELL, (max(y1 - 1, y0)) // CELL + 1):
            for cx in range(x0 // CELL, (max(x1 - 1, x0)) // CELL + 1):
                yield cy, cx


def _cuts(length: int, tile: int) -> list[int]:
    count = max(1, math.ceil(length / tile))
    return [round(i * length / count) for i in range(count + 1)]


def _sides(rectangle: Window, box: Window, height: int, width: int) -> str:
    """Inner edges of a window that a mask touches: those of the image do not count."""
    x0, y0, x1, y1 = rectangle
    if x1 <= x0 or y1 <= y0:
        return ""
    bx0, by0, bx1, by1 = box
    touched = {
        "l": bx0 > 0 and x0 - bx0 <= EDGE,
        "t": by0 > 0 and y0 - by0 <= EDGE,
        "r": bx1 < width and bx1 - x1 <= EDGE,
        "b": by1 < height and by1 - y1 <= EDGE,
    }
    return "".join(side for side, hit in touched.items() if hit)


def _common(a: Window, b: Window) -> Window | None:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _hull(a: Window, b: Window) -> Window:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
