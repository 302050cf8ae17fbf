"""One picture of a tracked sequence: diameters over time, how many objects there are, mean squared displacement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from segment_duo.masks.overlay import PALETTE
from segment_duo.masks.plot import Raster, Sheet, Svg, nice_step, plot_format, text_width
from segment_duo.text import safe
from segment_duo.tracking.figures import TrackFigures, TrackRow

_WIDTH, _HEIGHT = 620, 520
_GRID, _INK = (220, 220, 220), (40, 40, 40)
_MEDIAN = (213, 94, 0)
_MOST_CURVES = 500

Curve = Sequence[tuple[float, float]]


def draw_tracks(rows: Sequence[TrackRow], total: TrackFigures, *, title: str = "", suffix: str = ".png") -> bytes:
    """The picture as a file's content.

    Args:
        rows: of all objects; ``total``: their figures.
        suffix: of the file, which says its format; see :data:`segment_duo.masks.plot.FORMATS`.

    Raises:
        UsageError: a format that cannot be written.
    """
    fmt = plot_format(f"plot{suffix}")
    width, height = 3 * _WIDTH, _HEIGHT + 60
    sheet: Sheet = Svg(width, height) if fmt == "SVG" else Raster(width, height, fmt)
    name = safe(title, limit=80)
    growth = "" if total.growth is None else f", median growth {total.growth:.3g} {total.unit}/{total.time_unit}"
    sheet.text(20, 16, f"{name}: {total.objects} objects in {total.frames} frames{growth}", 22)
    timed = total.time_unit == "s"
    across = "time [s]" if timed else "frame"
    _panel(sheet, 0, f"equivalent diameter [{total.unit}]", across, *_diameters(rows, total, timed=timed))
    counts = [(_time(one.frame, one.time_s), float(one.count)) for one in total.population]
    _panel(sheet, 1, "objects", across, [_Line(counts, PALETTE[4], 3)], from_zero=True)
    lags = [(_time(one.frames, one.time_s), one.msd) for one in total.displacement]
    lag = "lag [s]" if timed else "lag [frames]"
    _panel(sheet, 2, f"mean squared displacement [{total.unit}^2]", lag, [_Line(lags, PALETTE[2], 3)], from_zero=True)
    return sheet.data()


@dataclass(frozen=True, slots=True)
class _Line:
    points: Curve
    colour: tuple[int, int, int]
    width: int = 1


def _time(frame: int, seconds: float | None) -> float:
    return float(frame) if seconds is None else seconds


def _diameters(rows: Sequence[TrackRow], total: TrackFigures, *, timed: bool) -> tuple[list[_Line]]:
    """A curve an object, of the first ones where there are many, and the median on top."""
    curves: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.equivalent_diameter_nm if total.unit == "nm" else row.equivalent_diameter_px
        if value is not None and (row.id in curves or len(curves) < _MOST_CURVES):
            curves.setdefault(row.id, []).append((_time(row.frame, row.time_s if timed else None), value))
    lines = [_Line(points, PALETTE[one % len(PALETTE)]) for one, points in curves.items()]
    median = [(_time(one.frame, one.time_s), one.d50) for one in total.population if one.d50 is not None]
    return ([*lines, _Line(median, _MEDIAN, 4)],)


def _panel(
    sheet: Sheet, column: int, title: str, across: str, lines: Sequence[_Line], *, from_zero: bool = False
) -> None:
    left, right = column * _WIDTH + 80, (column + 1) * _WIDTH - 20
    top, bottom = 100, _HEIGHT - 20
    sheet.text(left, top - 36, title, 18)
    points = [point for line in lines for point in line.points]
    if not points:
        sheet.text(left, top, "nothing to draw", 18)
        return
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = min(y for _, y in points), max(y for _, y in points)
    y0 = 0.0 if from_zero else y0
    step = nice_step((y1 - y0) or abs(y1) or 1.0, 5)
    y0, y1 = math.floor(y0 / step) * step, max(math.ceil(y1 / step), math.floor(y0 / step) + 1) * step
    x1 = x1 if x1 > x0 else x0 + 1

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * (x - x0) / (x1 - x0), bottom - (bottom - top) * (y - y0) / (y1 - y0)

    for tick in range(round((y1 - y0) / step) + 1):
        value = y0 + tick * step
        _, y = place(x0, value)
        sheet.line(left, y, right, y, _GRID)
        sheet.text(left - 8 - text_width(f"{value:.6g}", 16), y - 10, f"{value:.6g}", 16)
    for line in lines:
        placed = [place(*point) for point in line.points]
        for (ax, ay), (bx, by) in pairwise(placed):
            sheet.line(ax, ay, bx, by, line.colour, line.width)
        if len(placed) == 1:
            x, y = placed[0]
            sheet.bar(x - 2, y - 2, x + 2, y + 2, line.colour)
    sheet.line(left, bottom, right, bottom, _INK, 2)
    step = nice_step(x1 - x0, 5)
    tick_at = math.ceil(x0 / step) * step
    while tick_at <= x1 * (1 + 1e-9):
        x, _ = place(tick_at, y0)
        sheet.line(x, bottom, x, bottom + 6, _INK, 2)
        sheet.text(x - text_width(f"{tick_at:.6g}", 16) / 2, bottom + 10, f"{tick_at:.6g}", 16)
        tick_at += step
    sheet.text((left + right - text_width(across, 16)) / 2, bottom + 36, across, 16)
