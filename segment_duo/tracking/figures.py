"""Figures of tracks: one row an object and frame, displacement and speed, counts over time, mean squared displacement.

    displacement            from the object's first sighting to this one
    speed                   step from its last sighting, divided by the time in between
    mean squared displacement of a lag L: the mean, over all objects and all pairs of frames L apart, of the squared distance

Lengths are in pixels, and in nm where the pixel size is known; times in s where the time from frame to frame is known.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.masks.measure import csv_line, touches_edge
from segment_duo.types import Mask, PixelSize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_LAG = 0.25
"""Share of the sequence up to which mean squared displacements are given, but at least four steps: longer lags have few pairs."""
_BATCH = 500
"""Rows of the CSV that are written at once."""


@dataclass(frozen=True, slots=True)
class TrackRow:
    """One object in one frame. ``*_nm``, ``*_s`` are None where the scale or the time is not known; the first sighting has no step."""

    frame: int
    time_s: float | None
    id: int
    area_px: int
    centroid_x_px: float
    centroid_y_px: float
    equivalent_diameter_px: float
    displacement_px: float
    step_px: float | None
    speed_px_per_frame: float | None
    touches_edge: bool
    parent: int | None
    merged_into: int | None
    area_nm2: float | None
    centroid_x_nm: float | None
    centroid_y_nm: float | None
    equivalent_diameter_nm: float | None
    displacement_nm: float | None
    speed_nm_per_s: float | None
    predicted_iou: float | None
    label: str


COLUMNS: tuple[str, ...] = tuple(one.name for one in dataclasses.fields(TrackRow))
"""Columns of the CSV; the order is stable, new ones are added at the end."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What pixels and frames are; None where it is not known."""

    pixel_size: PixelSize | None
    frame_seconds: float | None

    @classmethod
    def of(
        cls, found: SequenceSet, *, pixel_size: PixelSize | None = None, frame_seconds: float | None = None
    ) -> Scale:
        """What was given, else what the set records."""
        return cls(pixel_size or found.head.provenance.pixel_size, frame_seconds or found.head.axes.frame_seconds)

    def nm(self, dx: float, dy: float) -> float | None:
        """Length in nm of a step in pixels."""
        size = self.pixel_size
        return None if size is None else math.hypot(dx * size.x_nm, dy * size.y_nm)


def track_rows(found: SequenceSet, scale: Scale) -> Iterator[TrackRow]:
    """Rows of all objects, frame by frame; of each object only the first and the last place are remembered."""
    lives = {life.id: life for life in found.lives()}
    banner = found.head.provenance.banner
    bottom = found.head.size[0] - (banner.height if banner else 0)
    first: dict[int, tuple[float, float]] = {}
    last: dict[int, tuple[int, float, float]] = {}
    for seen in found:
        for mask in seen.masks:
            if not mask.area:
                continue
            x, y = centroid(mask)
            start = first.setdefault(mask.id, (x, y))
            row = _row(mask, seen.frame, (x, y), start, last.get(mask.id), scale)
            life = lives[mask.id]
            yield dataclasses.replace(
                row, touches_edge=touches_edge(mask, bottom), parent=life.parent, merged_into=life.merged_into
            )
            last[mask.id] = seen.frame, x, y


def _row(
    mask: Mask,
    frame: int,
    place: tuple[float, float],
    start: tuple[float, float],
    before: tuple[int, float, float] | None,
    scale: Scale,
) -> TrackRow:
    x, y = place
    size, seconds = scale.pixel_size, scale.frame_seconds
    dx, dy = x - start[0], y - start[1]
    step = speed = speed_nm = None
    if before is not None:
        sx, sy, frames = x - before[1], y - before[2], frame - before[0]
        step = math.hypot(sx, sy)
        speed = step / frames
        length = scale.nm(sx, sy)
        speed_nm = None if length is None or seconds is None else length / (frames * seconds)
    area_nm2 = None if size is None else mask.area * size.x_nm * size.y_nm
    return TrackRow(
        frame=frame,
        time_s=None if seconds is None else frame * seconds,
        id=mask.id,
        area_px=mask.area,
        centroid_x_px=x,
        centroid_y_px=y,
        equivalent_diameter_px=2 * math.sqrt(mask.area / math.pi),
        displacement_px=math.hypot(dx, dy),
        step_px=step,
        speed_px_per_frame=speed,
        touches_edge=False,
        parent=None,
        merged_into=None,
        area_nm2=area_nm2,
        centroid_x_nm=None if size is None else x * size.x_nm,
        centroid_y_nm=None if size is None else y * size.y_nm,
        equivalent_diameter_nm=None if area_nm2 is None else 2 * math.sqrt(area_nm2 / math.pi),
        displacement_nm=scale.nm(dx, dy),
        speed_nm_per_s=speed_nm,
        predicted_iou=mask.predicted_iou,
        label=mask.label,
    )


def centroid(mask: Mask) -> tuple[float, float]:
    """x and y in pixels; the centre of the first pixel is 0, 0."""
    import numpy as np

    from segment_duo.masks.rle import cut_out

    pixels, left, top = cut_out(mask.rle)
    rows, columns = np.nonzero(pixels)
    return float(columns.mean()) + left, float(rows.mean()) + top


def rows_csv(rows: Iterable[TrackRow]) -> Iterator[str]:
    """Lines of the CSV with their heading, in batches, written as :func:`segment_duo.masks.measure.measures_csv` writes them."""
    yield csv_line(COLUMNS)
    rest = iter(rows)
    while batch := [csv_line(getattr(row, column) for column in COLUMNS) for row in itertools.islice(rest, _BATCH)]:
        yield "".join(batch)


@dataclass(frozen=True, slots=True)
class FramePopulation:
    """The objects of one frame. Diameters are equivalent diameters in ``unit`` of :class:`TrackFigures`; None where there is no object."""

    frame: int
    time_s: float | None
    count: int
    mean_diameter: float | None
    d10: float | None
    d50: float | None
    d90: float | None


@dataclass(frozen=True, slots=True)
class Displacement:
    """Mean squared displacement of a lag of ``frames`` frames, in ``unit`` squared, over ``pairs`` pairs of sightings."""

    frames: int
    time_s: float | None
    msd: float
    pairs: int


@dataclass(frozen=True, slots=True)
class TrackFigures:
    """A sequence in numbers; lengths in ``unit`` (``nm`` or ``px``).

    ``growth``: median over the objects of the slope of the equivalent diameter over time, by least squares, for those seen in at least
    three frames; in ``unit`` a second where the time is known, else a frame.
    """

    unit: str
    time_unit: str
    objects: int
    frames: int
    median_life: float | None
    growth: float | None
    median_speed: float | None
    population: tuple[FramePopulation, ...]
    displacement: tuple[Displacement, ...]


SUMMARY = tuple(one.name for one in fields(TrackFigures) if one.name not in ("population", "displacement"))
"""The fields that are one value."""


def figures(rows: Iterable[TrackRow], frames: list[int], scale: Scale) -> TrackFigures:
    """Figures of a sequence from its rows.

    Args:
        frames: all frames of the set, also those without objects.
    """
    import numpy as np

    scaled = scale.pixel_size is not None
    timed = scale.frame_seconds is not None
    table = np.array(
        [
            (
                row.frame,
                row.id,
                (row.equivalent_diameter_nm if scaled else row.equivalent_diameter_px) or 0.0,
                (row.centroid_x_nm if scaled else row.centroid_x_px) or 0.0,
                (row.centroid_y_nm if scaled else row.centroid_y_px) or 0.0,
            )
            for row in rows
        ],
        dtype=np.float64,
    ).reshape(-1, 5)
    per_frame = scale.frame_seconds or 1.0
    tracks = [table[table[:, 1] == one] for one in np.unique(table[:, 1])] if len(table) else []
    slopes = [_slope(track[:, 0] * per_frame, track[:, 2]) for track in tracks if len(track) >= 3]
    speeds = np.concatenate([_speeds(track) / per_frame for track in tracks]) if tracks else np.zeros(0)
    return TrackFigures(
        unit="nm" if scaled else "px",
        time_unit="s" if timed else "frame",
        objects=len(tracks),
        frames=len(frames),
        median_life=float(np.median([len(track) for track in tracks])) if tracks else None,
        growth=float(np.median(slopes)) if slopes else None,
        median_speed=float(np.median(speeds)) if speeds.size else None,
        population=tuple(_population(table, frame, scale.frame_seconds) for frame in frames),
        displacement=tuple(_displacements(tracks, frames, scale.frame_seconds)),
    )


def _slope(times: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float:
    centred = times - times.mean()
    # From the first value on: an object that does not change has a slope of exactly 0.
    return float((centred * (values - values[0])).sum() / (centred**2).sum())


def _speeds(track: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    import numpy as np

    steps = np.diff(track, axis=0)
    return np.asarray(np.hypot(steps[:, 3], steps[:, 4]) / np.maximum(steps[:, 0], 1))


def _population(table: npt.NDArray[np.float64], frame: int, seconds: float | None) -> FramePopulation:
    import numpy as np

    values = table[table[:, 0] == frame, 2]
    d10, d50, d90 = np.percentile(values, (10, 50, 90)).tolist() if values.size else (None, None, None)
    mean = float(values.mean()) if values.size else None
    return FramePopulation(frame, None if seconds is None else frame * seconds, len(values), mean, d10, d50, d90)


def _displacements(
    tracks: list[npt.NDArray[np.float64]], frames: list[int], seconds: float | None
) -> Iterator[Displacement]:
    import numpy as np

    if len(frames) < 2:
        return
    step = int(np.diff(frames).min())
    for lag in range(step, max(4 * step, int((frames[-1] - frames[0]) * MAX_LAG)) + 1, step):
        squares = []
        for track in tracks:
            at = {int(frame): index for index, frame in enumerate(track[:, 0])}
            pairs = [(index, at[frame + lag]) for frame, index in at.items() if frame + lag in at]
            if pairs:
                first, second = (track[list(part), 3:5] for part in zip(*pairs, strict=True))
                squares.append(((second - first) ** 2).sum(axis=1))
        if squares:
            every = np.concatenate(squares)
            yield Displacement(lag, None if seconds is None else lag * seconds, float(every.mean()), len(every))
