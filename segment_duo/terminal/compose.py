"""What the canvas shows, as screen pixels: the image, the masks as tints and outlines, the box.

    unselected   blue outline, faint tint          current     yellow outline
    selected     green outline and tint            candidate   green tint, white outline

Masks of frames (``by_id``) have each their object's colour instead, the same on every frame; the current one's outline is white.

Without colours (``plain``) outlines are the opposite of what they lie on, black or white; the current mask's is dotted.
The colours are those of Okabe and Ito, which people with any colour vision can tell apart; outlines and marks carry the same
information by shape. Masks are drawn at the screen's resolution from crops of their own size, so the cost is that of what is visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.boxes import in_pixels
from segment_duo.lru import BoundedLru
from segment_duo.masks.overlay import PALETTE
from segment_duo.types import Box, Mask, Point, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.terminal.viewport import Viewport

    Pixels = npt.NDArray[np.uint8]
    Bits = npt.NDArray[np.bool_]

BLUE = (86, 180, 233)
GREEN = (0, 200, 140)
YELLOW = (240, 228, 66)
WHITE = (255, 255, 255)
INCLUDE = (0, 158, 115)
EXCLUDE = (213, 94, 0)

_UNSELECTED, _SELECTED, _CURRENT, _CANDIDATE = 1, 2, 3, 4
_MOST_CLASSES = 100
"""That have a colour on the screen; the layers have room for so many."""
_TINT = {_UNSELECTED: (BLUE, 0.14), _SELECTED: (GREEN, 0.42), _CANDIDATE: (GREEN, 0.42)}
# Unselected outlines let the image through: many small masks would hide it on half cells.
_OUTLINE = {_UNSELECTED: (BLUE, 0.6), _SELECTED: (GREEN, 1.0), _CURRENT: (YELLOW, 1.0), _CANDIDATE: (WHITE, 1.0)}


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn over the image.

    Attributes:
        burn_points: draw the points into the picture, for sixel, which text would erase.
        tint: how strong the tints are: 1 as designed, 0 none (outlines only).
        plain: for screens without colours.
        colours: label -> RGB of the outline and the tint of masks with that label.
        ids: write each mask's id into the picture, for sixel.
        by_id: masks without a class have a colour by their id, that of :func:`segment_duo.masks.overlay.colour_of`.
    """

    masks: tuple[Mask, ...] = ()
    selected: frozenset[int] = frozenset()
    current: int | None = None
    candidate: Mask | None = None
    points: tuple[Point, ...] = ()
    box: Box | None = None
    burn_points: bool = False
    tint: float = 1.0
    plain: bool = False
    colours: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    ids: bool = False
    by_id: bool = False


class MaskCrops:
    """Decoded masks, each as the crop that its box names, least recently used ones dropped. Used by one thread at a time.

    Args:
        bound: bytes to keep.
    """

    def __init__(self, bound: int = 256 * 2**20) -> None:
        self._crops: BoundedLru[Rle, tuple[int, int, Bits]] = BoundedLru(bound)
        self.drawn: tuple[object, tuple[Mask, ...], npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None
        """What was drawn last: how it was looked at, the masks, the layer of tints, the layer of outlines."""

    def get(self, rle: Rle) -> tuple[int, int, Bits]:
        """x, y and the crop, bool, shape (h, w)."""
        found = self._crops.get(rle)
        if found is not None:
            return found
        from segment_duo.masks.rle import bounding_box, decode_crop

        x, y, w, h = in_pixels(bounding_box(rle))
        found = (x, y, decode_crop(rle, x, y, max(w, 1), max(h, 1)))
        self._crops.put(rle, found, found[2].nbytes)
        return found


def compose(base: Pixels, view: Viewport, overlay: Overlay, crops: MaskCrops) -> Pixels:
    """Draw the overlay on the rendered image.

    Args:
        base: uint8, shape (view.pixel_rows, view.pixel_columns, 3); changed in place.

    Returns:
        ``base``.
    """
    import numpy as np

    width = 1 if view.cell_height <= 4 else 2
    inks = _Inks(overlay)
    # Larger ones first, so that a small mask on a large one stays visible.
    ordered = sorted(overlay.masks, key=lambda mask: -mask.area)
    fill, edge = _unselected(base, view, overlay, crops, inks, ordered, width)
    layers = _Layers(view, fill, edge, width)
    # Selected masks cover what they covered unselected.
    for mask in (mask for mask in ordered if mask.id in overlay.selected):
        _draw(layers, crops.get(mask.rle), *inks.kinds(mask, selected=True))
    for mask in (mask for mask in ordered if mask.id == overlay.current):
        _draw(layers, crops.get(mask.rle), 0, _CURRENT)
    if overlay.candidate is not None:
        _draw(layers, crops.get(overlay.candidate.rle), _CANDIDATE, _CANDIDATE)
    for kind, (colour, strength) in inks.tints.items():
        where = fill == kind
        if overlay.tint and where.any():
            share = min(strength * overlay.tint, 0.9)
            ink = WHITE if overlay.plain else colour
            base[where] = (base[where] * (1 - share) + np.array(ink) * share).astype(np.uint8)
    if overlay.plain:
        _plain_outlines(base, edge, inks)
    else:
        for kind, (colour, strength) in inks.outlines.items():
            where = edge == kind
            if where.any():
                base[where] = (base[where] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)
    if overlay.box is not None:
        _draw_box(base, view, overlay.box, width)
    if overlay.ids:
        _draw_ids(base, view, overlay.masks)
    if overlay.burn_points:
        for point in overlay.points:
            _draw_point(base, view, point)
    return base


def _unselected(
    base: Pixels, view: Viewport, overlay: Overlay, crops: MaskCrops, inks: _Inks, ordered: Sequence[Mask], width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Layers of tints and of outlines with all masks as they look unselected. They are kept; where few masks have changed, only there drawn anew."""
    import numpy as np

    key = (view, overlay.colours, overlay.by_id, base.shape)
    before = crops.drawn
    window = (0, 0, *base.shape[:2])
    if before is not None and before[0] == key:
        changed = _changed(before[1], overlay.masks)
        if not changed:
            return before[2].copy(), before[3].copy()
        boxes = [_extent(view, crops.get(mask.rle)) for mask in changed]
        tops, lefts, bottoms, rights = zip(*boxes, strict=True)
        window = (max(min(tops), 0), max(min(lefts), 0), min(max(bottoms), window[2]), min(max(rights), window[3]))
    fill, edge = np.zeros(base.shape[:2], np.uint8), np.zeros(base.shape[:2], np.uint8)
    layers = _Layers(view, fill, edge, width)
    top, left, bottom, right = window
    for mask in ordered:
        crop = crops.get(mask.rle)
        own = _extent(view, crop)
        if own[0] < bottom and own[2] > top and own[1] < right and own[3] > left:
            _draw(layers, crop, *inks.kinds(mask, selected=False))
    if before is not None and before[0] == key:
        part = (slice(top, max(top, bottom)), slice(left, max(left, right)))
        drawn, fill, edge = (fill, edge), before[2].copy(), before[3].copy()
        fill[part], edge[part] = drawn[0][part], drawn[1][part]
    crops.drawn = (key, overlay.masks, fill, edge)
    return fill.copy(), edge.copy()


def _changed(before: Sequence[Mask], now: Sequence[Mask]) -> list[Mask]:
    """Masks that are new or gone; all where their order has changed, as it decides which of two masks of a size is seen."""
    old, new = {id(mask) for mask in before}, {id(mask) for mask in now}
    stayed = [id(mask) for mask in before if id(mask) in new]
    if stayed != [id(mask) for mask in now if id(mask) in old]:
        return [*before, *now]
    return [mask for mask in before if id(mask) not in new] + [mask for mask in now if id(mask) not in old]


class _Inks:
    """Which number in the layers stands for which colour: the fixed ones, and for every labelled class an unselected and a selected one."""

    def __init__(self, overlay: Overlay) -> None:
        self.tints = dict(_TINT)
        self.outlines = dict(_OUTLINE)
        self._first: dict[str, int] = {}
        for place, (label, colour) in enumerate(overlay.colours[:_MOST_CLASSES]):
            self._first[label] = self._pair(place, colour)
        self._of_ids: list[int] = []
        if overlay.by_id:
            self.outlines[_CURRENT] = (WHITE, 1.0)
            self._of_ids = [self._pair(_MOST_CLASSES + place, colour) for place, colour in enumerate(PALETTE)]

    def _pair(self, place: int, colour: tuple[int, int, int]) -> int:
        """The two numbers of a colour: unselected, and selected behind it."""
        number = _CANDIDATE + 1 + 2 * place
        self.tints |= {number: (colour, 0.2), number + 1: (colour, 0.5)}
        self.outlines |= {number: (colour, 0.9), number + 1: (GREEN, 1.0)}
        return number

    def kinds(self, mask: Mask, *, selected: bool) -> tuple[int, int]:
        """Numbers of a mask's tint and outline."""
        own = self._first.get(mask.label)
        if own is None and self._of_ids:
            own = self._of_ids[mask.id % len(self._of_ids)]
        kind = (_SELECTED if selected else _UNSELECTED) if own is None else own + selected
        return kind, kind


def _plain_outlines(base: Pixels, edge: npt.NDArray[np.uint8], inks: _Inks) -> None:
    """Outlines that are seen without colours: the opposite of their ground, a faint line half-way to it, the current one dotted."""
    import numpy as np

    opposite = np.where(base.mean(axis=2) > 110, 0, 255)
    rows, columns = np.ogrid[: edge.shape[0], : edge.shape[1]]
    dots = (rows // 2 + columns) % 2 * 255
    for kind in inks.outlines:
        where = edge == kind
        if where.any():
            ink = dots[where] if kind == _CURRENT else opposite[where]
            base[where] = ink[:, None]


def _draw_ids(base: Pixels, view: Viewport, masks: Sequence[Mask]) -> None:
    import numpy as np
    from PIL import Image

    from segment_duo.masks.overlay import draw_ids

    picture = Image.fromarray(base)
    size = max(10, round(0.7 * view.cell_height))
    draw_ids(picture, masks, scale=view.magnification, origin=(view.left, view.top), size=size)
    base[:] = np.asarray(picture)


@dataclass(frozen=True, slots=True)
class _Layers:
    """Which tint and which outline every screen pixel gets. ``line``: thickness of outlines in screen pixels."""

    view: Viewport
    fill: npt.NDArray[np.uint8]
    edge: npt.NDArray[np.uint8]
    line: int


def _extent(view: Viewport, crop: tuple[int, int, Bits]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right (the last two not included) of a mask in screen pixels, one more on every side, so that its outline closes."""
    x, y, bits = crop
    height, columns = bits.shape
    return (
        int((y - view.top) / view.scale) - 1,
        int((x - view.left) / view.scale) - 1,
        int((y + height - view.top) / view.scale) + 2,
        int((x + columns - view.left) / view.scale) + 2,
    )


def _draw(layers: _Layers, crop: tuple[int, int, Bits], tint: int, outline: int) -> None:
    import numpy as np

    view, fill, edge = layers.view, layers.fill, layers.edge
    x, y, bits = crop
    height, columns = bits.shape
    rows_total, columns_total = fill.shape
    top, left, bottom, right = _extent(view, crop)
    left, right = max(left, -1), min(right, columns_total + 1)
    top, bottom = max(top, -1), min(bottom, rows_total + 1)
    if left >= right or top >= bottom:
        return
    xs = np.floor(view.left + (np.arange(left, right) + 0.5) * view.scale).astype(np.int64) - x
    ys = np.floor(view.top + (np.arange(top, bottom) + 0.5) * view.scale).astype(np.int64) - y
    good_x, good_y = (xs >= 0) & (xs < columns), (ys >= 0) & (ys < height)
    seen = bits[np.clip(ys, 0, height - 1)[:, None], np.clip(xs, 0, columns - 1)[None, :]]
    seen = seen & good_y[:, None] & good_x[None, :]
    if not seen.any():
        # Smaller than a screen pixel and between the samples: one dot in its middle.
        middle_x = int((x + columns / 2 - view.left) / view.scale)
        middle_y = int((y + height / 2 - view.top) / view.scale)
        if bits.any() and left <= middle_x < right and top <= middle_y < bottom:
            seen[middle_y - top, middle_x - left] = True
    inner = seen
    for _ in range(layers.line):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(right, columns_total), min(bottom, rows_total)
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    whole, line = seen[part], (seen & ~inner)[part]
    if tint:
        fill[y0:y1, x0:x1][whole] = tint
        edge[y0:y1, x0:x1][whole] = 0
    edge[y0:y1, x0:x1][line] = outline


def _draw_box(base: Pixels, view: Viewport, box: Box, width: int) -> None:
    rows, columns = base.shape[:2]
    x0, y0 = (int(value) for value in view.to_screen_pixel(box.x0, box.y0))
    x1, y1 = (int(value) for value in view.to_screen_pixel(box.x1, box.y1))
    left, right = max(x0, 0), min(x1 + 1, columns)
    top, bottom = max(y0, 0), min(y1 + 1, rows)
    for i in range(width):
        for row in (y0 + i, y1 - i):
            if 0 <= row < rows and left < right:
                base[row, left:right] = YELLOW
        for column in (x0 + i, x1 - i):
            if 0 <= column < columns and top < bottom:
                base[top:bottom, column] = YELLOW


def _draw_point(base: Pixels, view: Viewport, point: Point) -> None:
    import numpy as np

    x, y = view.to_screen_pixel(point.x, point.y)
    radius = max(2.0, view.cell_width * 0.6)
    rows, columns = base.shape[:2]
    yy, xx = np.ogrid[:rows, :columns]
    distance = np.hypot(xx + 0.5 - x, yy + 0.5 - y)
    base[distance <= radius + 1.5] = WHITE
    base[distance <= radius] = INCLUDE if point.label else EXCLUDE
