"""Masks of frame after frame become tracks: which mask of a frame is which object of the frames before.

    masks of frame t ─> stage drift ─> predicted places ─> pairs with a cost ─> assignment ─> ids, splits, merges

1. The drift of the whole picture from the last frame: the shift by which the two frames' masks cover each other best (cross-correlation).
2. Each track that is still open is moved to where it should be now, by the drift and its own motion in its last sightings.
3. A track and a mask are a pair when they overlap there or are near; the cost grows with distance, lack of overlap and change of area.
4. The cheapest assignment of all pairs together (Hungarian method, ``scipy.optimize.linear_sum_assignment``), group by group.
5. A new mask that lies mostly in an object of the last frame is split off from it; an object that ends inside a mask has merged with it. Parts that
   moved apart at once lie there with a fifth of their pixels, but their areas add up to the whole's.

Only the last frames are remembered, so memory does not grow with the film, and a run that was broken off goes on from the frames it had written:
:meth:`Linker.replay` brings it to the same state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segment_duo.masks.cropped import CroppedMask, common_pixels
from segment_duo.masks.formats.sequence import Event

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SIGHTINGS = 3
"""Last sightings of a track that its motion is taken from."""
_NEW = 1.0
"""Cost of leaving a track or a mask alone; pairs that cost more are not made."""
_GAP_COST = 0.08
"""Cost of each frame in which a track was not seen, so that those just seen come first."""
_AREA_WEIGHT = 0.25
_PARTLY = 0.2
"""Share of a part's pixels in the whole that does when the areas add up."""
_ADDS_UP = (0.75, 1.3)
"""The parts' area together, by the whole's."""
_LARGEST_CHANGE = 3.0
"""Factor of area from one sighting to the next, beyond which it is another object (times itself for every frame of a gap)."""
_DRIFT_SIDE = 512
"""Longer side in pixels of the pictures that the drift is sought with."""
_DRIFT_GAIN = 1.1
"""How much better than standing still a shift must cover the masks to be believed."""


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """How masks are linked.

    Attributes:
        max_gap: frames in which an object may be unseen and still keep its id.
        max_distance: pixels that an object may be from where it should be; 0 takes its own equivalent diameter, but at least 8.
        share: of a mask's pixels that must lie in another for a split or merge.
        drift: whether the whole picture may shift from frame to frame.
    """

    max_gap: int = 2
    max_distance: float = 0.0
    share: float = 0.5
    drift: bool = True


@dataclass(frozen=True, slots=True)
class _Sighting:
    """Where an object was in a step; ``x``, ``y``: centroid on the ground, that is without the drift."""

    step: int
    x: float
    y: float


@dataclass(slots=True)
class _Track:
    id: int
    mask: CroppedMask
    area: int
    cx: float
    cy: float
    seen: list[_Sighting] = field(default_factory=list)

    @property
    def step(self) -> int:
        return self.seen[-1].step


@dataclass(frozen=True, slots=True)
class Linked:
    """What became of the masks of a frame: an id for each, in their order, and what happened."""

    ids: tuple[int, ...]
    events: tuple[Event, ...] = ()


@dataclass(eq=False)
class Linker:
    """Gives the masks of one frame after the other ids that stay with their objects.

    Args:
        height, width: of the frames in pixels.
    """

    height: int
    width: int
    parameters: LinkParameters = field(default_factory=LinkParameters)
    next_id: int = 1
    _step: int = 0
    _tracks: list[_Track] = field(default_factory=list)
    _drift: tuple[int, int] = (0, 0)

    @property
    def memory(self) -> int:
        """Frames that :meth:`replay` must be given, the last ones, for the same answers as without a break."""
        return (self.parameters.max_gap + 1) * _SIGHTINGS + 1

    def step(self, frame: int, masks: Sequence[CroppedMask]) -> Linked:
        """Link the next frame.

        Args:
            frame: its number, for events.
            masks: none empty.
        """
        self._move(masks)
        found = [_place(mask) for mask in masks]
        moved = [self._predicted(track) for track in self._tracks]
        pairs = self._pairs(moved, masks, found)
        owner = _assigned(pairs, len(self._tracks), len(masks))
        ids = [self._tracks[owner[j]].id if j in owner else -1 for j in range(len(masks))]
        events = self._splits(frame, masks, found, moved, owner, ids)
        for j, one in enumerate(ids):
            if one < 0:
                ids[j] = self.next_id
                self.next_id += 1
        events = self._named(events, ids)
        events += self._ends(frame, masks, found, moved, owner, ids)
        self._keep(masks, found, ids)
        return Linked(tuple(ids), tuple(events))

    def replay(self, masks: Sequence[CroppedMask], ids: Sequence[int]) -> None:
        """Take a frame whose ids are known, such as one that an earlier run wrote. ``next_id`` is raised above them."""
        self._move(masks)
        self._keep(masks, [_place(mask) for mask in masks], ids)
        self.next_id = max([self.next_id, *(one + 1 for one in ids)])

    # -- where things should be -------------------------------------------------------------------------------------------

    def _move(self, masks: Sequence[CroppedMask]) -> None:
        self._step += 1
        before = [track.mask for track in self._tracks if track.step == self._step - 1]
        if self.parameters.drift and before and masks:
            dx, dy = drift(before, masks, self.height, self.width)
            self._drift = self._drift[0] + dx, self._drift[1] + dy

    def _predicted(self, track: _Track) -> tuple[float, float, int, int]:
        """Centroid of a track in this frame, and the whole pixels by which its last mask is moved."""
        first, last = track.seen[0], track.seen[-1]
        steps = self._step - last.step
        vx = vy = 0.0
        if last.step > first.step:
            vx, vy = ((b - a) / (last.step - first.step) for a, b in ((first.x, last.x), (first.y, last.y)))
        x, y = last.x + vx * steps + self._drift[0], last.y + vy * steps + self._drift[1]
        return x, y, round(x - track.cx), round(y - track.cy)

    def _pairs(
        self,
        moved: Sequence[tuple[float, float, int, int]],
        masks: Sequence[CroppedMask],
        found: Sequence[tuple[float, float, int]],
    ) -> list[tuple[float, int, int]]:
        """(cost, track, mask) of what may be the same object."""
        import numpy as np
        from scipy.spatial import cKDTree

        if not self._tracks or not masks:
            return []
        tree = cKDTree(np.array([place[:2] for place in found]))
        boxes = np.array([(mask.left, mask.top, mask.left + mask.pixels.shape[1], mask.top + mask.pixels.shape[0]) for mask in masks])  # fmt: skip
        out = []
        for i, track in enumerate(self._tracks):
            x, y, dx, dy = moved[i]
            gap = self._step - track.step - 1
            reach = self._reach(track) * (1 + 0.5 * gap)
            near = set(tree.query_ball_point((x, y), reach))
            near |= set(_touching(boxes, track.mask, dx, dy))
            for j in sorted(near):
                cx, cy, area = found[j]
                ratio = max(area, track.area) / min(area, track.area)
                shared = common_pixels(track.mask, masks[j], dx, dy)
                distance = math.hypot(cx - x, cy - y)
                if ratio > _LARGEST_CHANGE ** (gap + 1) or not (shared or distance <= reach):
                    continue
                iou = shared / (area + track.area - shared)
                cost = 0.5 * (1 - iou) + 0.5 * min(1.0, distance / reach) + _AREA_WEIGHT * math.log2(ratio) / 2
                cost += _GAP_COST * gap
                if cost <= _NEW:
                    out.append((cost, i, j))
        return out

    def _reach(self, track: _Track) -> float:
        return self.parameters.max_distance or max(8.0, 2 * math.sqrt(track.area / math.pi))

    # -- what happened ----------------------------------------------------------------------------------------------------

    def _splits(
        self,
        frame: int,
        masks: Sequence[CroppedMask],
        found: Sequence[tuple[float, float, int]],
        moved: Sequence[tuple[float, float, int, int]],
        owner: dict[int, int],
        ids: Sequence[int],
    ) -> list[Event]:
        """Masks without a track that lie in an object of the last frame which goes on; targets are positions of masks, named later."""
        goes_on = {i: j for j, i in owner.items() if self._tracks[i].step == self._step - 1}
        parts: dict[int, list[int]] = {}
        for j, mask in enumerate(masks):
            if ids[j] >= 0:
                continue
            shares = [
                (common_pixels(self._tracks[i].mask, mask, *moved[i][2:]) / found[j][2], i)
                for i in goes_on
                if _near(self._tracks[i].mask, mask, *moved[i][2:])
            ]
            if shares and max(shares)[0] >= _PARTLY:
                parts.setdefault(max(shares)[1], []).append(j)
        events = []
        for i, new in parts.items():
            whole, kept = self._tracks[i], goes_on[i]
            inside = common_pixels(whole.mask, masks[kept], *moved[i][2:]) / found[kept][2]
            if inside < self.parameters.share:
                continue
            sure = [
                j
                for j in new
                if common_pixels(whole.mask, masks[j], *moved[i][2:]) >= self.parameters.share * found[j][2]
            ]
            # Beside an object that is as large as before, a new one is not a part of it.
            if _adds_up([found[j][2] for j in (kept, *new)], whole.area) and found[kept][2] < whole.area / 1.1:
                sure = new
            if sure and found[kept][2] + sum(found[j][2] for j in sure) <= 1.5 * whole.area:
                events.append(Event(frame, "split", (whole.id,), (kept, *sure)))
        return events

    @staticmethod
    def _named(events: Sequence[Event], ids: Sequence[int]) -> list[Event]:
        return [Event(one.frame, one.kind, one.sources, tuple(ids[j] for j in one.targets)) for one in events]

    def _ends(
        self,
        frame: int,
        masks: Sequence[CroppedMask],
        found: Sequence[tuple[float, float, int]],
        moved: Sequence[tuple[float, float, int, int]],
        owner: dict[int, int],
        ids: Sequence[int],
    ) -> list[Event]:
        """Objects of the last frame that are not there any more: inside another's mask they have merged, else they are lost; and who is back."""
        taken = set(owner.values())
        events = []
        merged: dict[int, list[int]] = {}
        lost = []
        for i, track in enumerate(self._tracks):
            if i in taken or track.step != self._step - 1:
                continue
            shares = [
                (common_pixels(track.mask, masks[j], *moved[i][2:]) / track.area, j)
                for j in owner
                if _near(track.mask, masks[j], *moved[i][2:])
            ]
            share, j = max(shares, default=(0.0, -1))
            other = self._tracks[owner[j]] if share else None
            if share >= self.parameters.share or (
                share >= _PARTLY
                and other is not None
                and _adds_up([track.area, other.area], found[j][2])
                and found[j][2] > 1.1 * other.area
            ):
                merged.setdefault(j, []).append(track.id)
            else:
                lost.append(track.id)
        for j, others in merged.items():
            events.append(Event(frame, "merge", (ids[j], *others), (ids[j],)))
        back = sorted(self._tracks[i].id for i in taken if self._tracks[i].step < self._step - 1)
        if lost:
            events.append(Event(frame, "lost", tuple(sorted(lost))))
        if back:
            events.append(Event(frame, "returned", tuple(back)))
        return events

    def _keep(
        self, masks: Sequence[CroppedMask], found: Sequence[tuple[float, float, int]], ids: Sequence[int]
    ) -> None:
        by_id = {track.id: track for track in self._tracks}
        for mask, (cx, cy, area), one in zip(masks, found, ids, strict=True):
            track = by_id.setdefault(one, _Track(one, mask, area, cx, cy))
            track.mask, track.area, track.cx, track.cy = mask, area, cx, cy
            track.seen.append(_Sighting(self._step, cx - self._drift[0], cy - self._drift[1]))
            del track.seen[:-_SIGHTINGS]
        oldest = self._step - self.parameters.max_gap
        self._tracks = sorted((track for track in by_id.values() if track.step >= oldest), key=lambda track: track.id)
        for track in self._tracks:  # nothing older than what replay is given
            track.seen = [one for one in track.seen if one.step > self._step - self.memory + 1] or track.seen[-1:]


def drift(before: Sequence[CroppedMask], after: Sequence[CroppedMask], height: int, width: int) -> tuple[int, int]:
    """Whole pixels (x, y) by which the picture moved from one frame to the next, from where there are masks; (0, 0) where no shift is clearly better.

    Shifts of up to a quarter of the frame are found.
    """
    import numpy as np
    from scipy import fft

    factor = max(1, math.ceil(max(height, width) / _DRIFT_SIDE))
    size = math.ceil(height / factor), math.ceil(width / factor)
    shape = tuple(fft.next_fast_len(n + n // 4, real=True) for n in size)
    first, second = (_occupied(masks, size, factor) for masks in (before, after))
    both = fft.irfft2(np.conj(fft.rfft2(first, shape)) * fft.rfft2(second, shape), shape)
    limits = size[0] // 4, size[1] // 4
    window = np.roll(both, limits, axis=(0, 1))[: 2 * limits[0] + 1, : 2 * limits[1] + 1]
    y, x = np.unravel_index(int(window.argmax()), window.shape)
    if window[y, x] <= _DRIFT_GAIN * max(window[limits], 1e-9):
        return 0, 0
    return (int(x) - limits[1]) * factor, (int(y) - limits[0]) * factor


def _occupied(masks: Sequence[CroppedMask], size: tuple[int, int], factor: int) -> npt.NDArray[np.float32]:
    import numpy as np

    out = np.zeros(size, np.float32)
    for mask in masks:
        rows, columns = np.nonzero(mask.pixels[::factor, ::factor])
        out[
            np.minimum(rows + mask.top // factor, size[0] - 1), np.minimum(columns + mask.left // factor, size[1] - 1)
        ] = 1
    return out


def _adds_up(parts: Sequence[int], whole: int) -> bool:
    return _ADDS_UP[0] * whole <= sum(parts) <= _ADDS_UP[1] * whole


def _near(a: CroppedMask, b: CroppedMask, dx: int, dy: int) -> bool:
    left, top = a.left + dx, a.top + dy
    return bool(
        left < b.left + b.pixels.shape[1]
        and b.left < left + a.pixels.shape[1]
        and top < b.top + b.pixels.shape[0]
        and b.top < top + a.pixels.shape[0]
    )


def _touching(boxes: npt.NDArray[np.int64], mask: CroppedMask, dx: int, dy: int) -> list[int]:
    """Positions of the boxes (x0, y0, x1, y1) that a moved mask's box overlaps."""
    import numpy as np

    left, top = mask.left + dx, mask.top + dy
    right, bottom = left + mask.pixels.shape[1], top + mask.pixels.shape[0]
    hit = (boxes[:, 0] < right) & (left < boxes[:, 2]) & (boxes[:, 1] < bottom) & (top < boxes[:, 3])
    return [int(n) for n in np.flatnonzero(hit)]


def _place(mask: CroppedMask) -> tuple[float, float, int]:
    """Centroid and area in pixels."""
    import numpy as np

    rows, columns = np.nonzero(mask.pixels)
    return float(columns.mean()) + mask.left, float(rows.mean()) + mask.top, len(rows)


def _assigned(pairs: Sequence[tuple[float, int, int]], tracks: int, masks: int) -> dict[int, int]:
    """Mask -> track, of the least total cost; each group of connected pairs by itself, so that thousands of objects stay quick."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return {}
    costs, rows, columns = (np.array(values) for values in zip(*pairs, strict=True))
    graph = coo_matrix((np.ones(len(pairs)), (rows, columns + tracks)), shape=(tracks + masks,) * 2)
    group = connected_components(graph, directed=False)[1][rows]
    out: dict[int, int] = {}
    order = np.argsort(group, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        own, theirs = np.unique(rows[part]), np.unique(columns[part])
        # One more column a track stands for leaving it alone; unmatched masks cost nothing more.
        matrix = np.full((len(own), len(theirs) + len(own)), 1e6)
        matrix[np.searchsorted(own, rows[part]), np.searchsorted(theirs, columns[part])] = costs[part]
        matrix[np.arange(len(own)), len(theirs) + np.arange(len(own))] = _NEW
        for i, j in zip(*linear_sum_assignment(matrix), strict=True):
            if j < len(theirs):
                out[int(theirs[j])] = int(own[i])
    return out
