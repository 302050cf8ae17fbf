"""The picture: shows one view of the image, sent to the terminal once, and text cells on top for the cross-hair and the points.

    UI thread   wants a view ──> Painter thread: render, overlay, encode ──> UI thread: rows of cells (+ bytes for kitty or sixel)

Only the latest wish is painted. Moving the cross-hair changes text cells and nothing else; ``sent_pictures`` and ``sent_bytes`` count what went out.
With sixel no text may stand on the picture (it would erase it), so the cross-hair shows on the rulers and in the loupe only.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from segment_duo.terminal import graphics
from segment_duo.terminal.compose import MaskCrops, Overlay
from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.terminal.marks import Cells, Marks
from segment_duo.terminal.viewport import Viewport
from segment_duo.tui.canvas.painter import Painted, Wish, paint
from segment_duo.types import PixelSize

if TYPE_CHECKING:
    from segment_duo.images.view import Pyramid


class PictureView(Widget, can_focus=False):
    """The picture of one image; empty without one."""

    ALLOW_SELECT = False  # Textual's selecting of text draws the whole screen anew at every move of a pressed mouse
    DEFAULT_CSS = """
    PictureView { width: 1fr; height: 1fr; background: $background; }
    """

    class Viewed(Message):
        """The view changed (zoom, pan, resize)."""

    class Clicked(Message):
        """A click at image pixel (x, y)."""

        def __init__(self, x: int, y: int, button: int, shift: bool) -> None:
            super().__init__()
            self.x, self.y, self.button, self.shift = x, y, button, shift

    class Stroked(Message):
        """The mouse draws, while ``painting`` is set: at image point (x, y), fractions count. ``button``: 1 or 3."""

        def __init__(self, x: float, y: float, button: int, phase: Literal["begin", "go", "end"]) -> None:
            super().__init__()
            self.x, self.y, self.button, self.phase = x, y, button, phase

    class _Ready(Message):
        bubble = False

        def __init__(self, painted: Painted | None, error: Exception | None) -> None:
            super().__init__()
            self.painted = painted
            self.error = error

    class Failed(Message):
        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

    def __init__(self, terminal: Terminal, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.terminal = terminal
        self.view: Viewport | None = None
        self.cross_hair: tuple[int, int] | None = None
        self.stretch = 0.0
        self.sent_pictures = 0
        self.sent_bytes = 0
        self._pyramid: Pyramid | None = None
        self._overlay = Overlay()
        self._corner: tuple[int, int] | None = None
        self._crops = MaskCrops()
        self._wanted: Wish | None = None
        self._painting = False
        self._painted: Painted | None = None
        self._marks: Cells = {}
        self._drag: tuple[float, float] | None = None
        self._dragged = False
        self.painting = False
        self.pixel_size: PixelSize | None = None
        """For the scale bar; None: no bar."""
        self.numbered = False
        """Whether the masks' ids stand in the picture."""
        self._stroke_button = 0
        self._sixel_queued = False

    # What is shown

    def show_image(self, pyramid: Pyramid | None, *, keep_view: bool = False) -> None:
        """Show another image, whole; ``keep_view``: it is the same one with or without its banner."""
        self._pyramid = pyramid
        if pyramid is None:
            self.view = self.cross_hair = self._painted = None
            self._marks = {}
            self.refresh()
            return
        if keep_view and self.view is not None:
            self.view = self.view.for_image(*pyramid.size)
        else:
            width, height = pyramid.size
            self.view = Viewport.fitted((width, height), self._cells(), self.terminal.screen_pixels)
            self.cross_hair = (width // 2, height // 2)
        if self.cross_hair is not None:
            self.cross_hair = self.view.limited(*self.cross_hair)
        self._view_changed()

    def show_overlay(self, overlay: Overlay, corner: tuple[int, int] | None) -> None:
        """Draw these masks and points from now on."""
        self._corner = corner
        colourless = self.app.console.color_system is None or self.app.no_color
        sixel = self.terminal.method is Method.SIXEL
        overlay = replace(overlay, burn_points=sixel, ids=sixel and self.numbered, plain=colourless)
        before, self._overlay = self._overlay, overlay
        # Points are text on top of the picture and need no new one, unless they are part of it (sixel).
        if overlay != before and (overlay.burn_points or replace(overlay, points=()) != replace(before, points=())):
            self._paint()
        self._place_marks()

    def set_view(self, view: Viewport) -> None:
        if view != self.view:
            self.view = view
            self._view_changed()

    def set_method(self, method: Method) -> None:
        """Show pictures by other means from now on."""
        self.terminal = replace(self.terminal, method=method, reason="as chosen by key")
        if self.view is not None:
            self.view = self.view.resized(*self._cells(), self.terminal.screen_pixels)
            self._view_changed()

    def set_stretch(self, cut: float) -> None:
        """Percent of the grey values that are cut at either end; 0 shows them as they are."""
        self.stretch = cut
        self._paint()

    def move_cross_hair(self, x: float, y: float) -> bool:
        """Put the cross-hair on the nearest pixel of the image; pans when that is not visible. True when the view moved."""
        if self.view is None:
            return False
        self.cross_hair = self.view.limited(x, y)
        before = self.view
        self.view = self.view.showing(*self.cross_hair) if not self.view.contains(*self.cross_hair) else self.view
        if self.view != before:
            self._view_changed()
            return True
        self._place_marks()
        return False

    def on_unmount(self) -> None:
        if self._painted and self._painted.image_id:
            self._write(graphics.kitty_delete(self._painted.image_id, tmux=self.terminal.tmux))

    def on_resize(self) -> None:
        cell = graphics.cell_size()
        if cell and cell != self.terminal.cell:
            self.terminal = replace(self.terminal, cell=cell)
        if self.view is not None:
            self.view = self.view.resized(*self._cells(), self.terminal.screen_pixels)
            self._view_changed()

    def _cells(self) -> tuple[int, int]:
        width, height = self.size
        limit = graphics.LARGEST_KITTY if self.terminal.method is Method.KITTY else 10_000
        return max(1, min(width, limit)), max(1, min(height, limit))

    def _view_changed(self) -> None:
        self._paint()
        self._place_marks()
        self.post_message(self.Viewed())

    # Painting: one thread at a time, always for the latest wish

    def _paint(self) -> None:
        if self._pyramid is None or self.view is None or not self.size:
            return
        self._wanted = Wish(self._pyramid, self.view, self._overlay, self.stretch)
        if not self._painting:
            self._painting = True
            threading.Thread(target=self._paint_wanted, args=(self._wanted,), name="segduo-paint", daemon=True).start()

    def _paint_wanted(self, wish: Wish) -> None:
        try:
            few_colours = self.app.console.color_system in (None, "standard", "windows")
            painted = paint(wish, self.terminal, self._crops, few_colours=few_colours)
            self.post_message(self._Ready(painted, None))
        except Exception as error:
            self.post_message(self._Ready(None, error))

    def on_picture_view__ready(self, message: _Ready) -> None:
        self._painting = False
        wanted = self._wanted
        if message.error is not None:
            self._wanted = None
            self.post_message(self.Failed(message.error))
            return
        painted = message.painted
        if painted is None or self._pyramid is None:
            return
        if wanted is not None and painted.wish is not wanted:
            self._paint()  # a newer wish came meanwhile; what was made is shown until it is there
        if painted.wish.pyramid is self._pyramid:
            self._show(painted)
        if wanted is painted.wish:
            self._wanted = None

    def _show(self, painted: Painted) -> None:
        old = self._painted
        self._painted = painted
        self.sent_pictures += 1
        if self.terminal.method is Method.KITTY:
            self._send(painted.sequence)
        self._place_marks()
        self._refresh_changed(old, painted)
        if old is not None and old.image_id:
            old_id = old.image_id
            # After the new placeholders are out, or the picture would flicker.
            self.call_after_refresh(lambda: self._write(graphics.kitty_delete(old_id, tmux=self.terminal.tmux)))

    def _refresh_changed(self, old: Painted | None, new: Painted) -> None:
        """Redraw the cells that differ from the last picture, row by row: a brush stroke touches few."""
        rows = list(zip(old.cells, new.cells, strict=False)) if old else []
        if not self.terminal.method.is_text or len(rows) != len(new.cells) or not self.screen.is_active:
            self.refresh()
            return
        regions = []
        for number, (before, now) in enumerate(rows):
            if len(before) != len(now):
                self.refresh()
                return
            changed = [column for column, (a, b) in enumerate(zip(before, now, strict=True)) if a is not b and a != b]
            if changed:
                regions.append(Region(changed[0], number, changed[-1] - changed[0] + 1, 1))
        if regions:
            self.refresh(*regions)

    def _send(self, sequence: str) -> None:
        self.sent_bytes += len(sequence)
        self._write(sequence)

    def _write(self, sequence: str) -> None:
        driver = self.app._driver
        if driver is not None and not self.app.is_headless:
            driver.write(sequence)
            driver.flush()

    # Text cells

    def _place_marks(self) -> None:
        """Compute the text cells on top of the picture and redraw those that changed, and only those."""
        marks = self._text_cells()
        changed = {cell for cell in marks.keys() | self._marks.keys() if marks.get(cell) != self._marks.get(cell)}
        self._marks = marks
        rows: dict[int, list[int]] = {}
        for column, row in changed:
            rows.setdefault(row, []).append(column)
        if rows:
            self.refresh(*(Region(min(cs), row, max(cs) - min(cs) + 1, 1) for row, cs in rows.items()))

    def _text_cells(self) -> Cells:
        view, painted = self.view, self._painted
        if view is None or painted is None or self.terminal.method is Method.SIXEL:
            return {}
        marks = Marks(view, painted.plain, {})
        marks.points(self._overlay.points)
        if self.numbered:
            marks.numbers(self._overlay.masks)
        if self.pixel_size is not None:
            marks.scale_bar(self.pixel_size, self.cross_hair)
        if self._corner is not None:
            marks.corner(*self._corner)
        if self.cross_hair is not None:
            marks.cross(self.cross_hair, dot=self.terminal.method.is_text)
        return marks.cells

    # Drawing

    def render_line(self, y: int) -> Strip:
        style = self.rich_style
        width = self.size.width
        painted = self._painted
        if painted is None:
            return Strip.blank(width, style)
        # The background of a dialog is tinted, which changes the colours that carry kitty's ids; sixel cannot be tinted at all.
        covered = not self.screen.is_active
        rows = painted.plain if covered else painted.cells
        if y >= len(rows):
            return Strip.blank(width, style)
        cells = rows[y]
        marks = [(column, segment) for (column, row), segment in self._marks.items() if row == y]
        if marks:
            cells = list(cells)
            for column, segment in marks:
                if column < len(cells):
                    cells[column] = segment
        if self.terminal.method is Method.SIXEL and not covered:
            self._queue_sixel()
        strip = Strip(cells[:width], min(len(cells), width))
        return strip.extend_cell_length(width, style)

    def _queue_sixel(self) -> None:
        """Text was (re)drawn where the picture is: the picture has to be drawn over it, after this frame."""
        if not self._sixel_queued:
            self._sixel_queued = True
            self.call_after_refresh(self._send_sixel)

    def _send_sixel(self) -> None:
        self._sixel_queued = False
        if self._painted is not None and self.screen.is_active:
            region = self.content_region
            self._send(graphics.at_position(self._painted.sequence, region.x, region.y))

    # The mouse

    def _image_at(self, event: events.MouseEvent) -> tuple[float, float] | None:
        if self.view is None:
            return None
        column, row = event.pointer_x, event.pointer_y
        if column == int(column) and row == int(row):  # a terminal that reports whole cells: take their middle
            column, row = column + 0.5, row + 0.5
        return self.view.to_image(column, row)

    def _stroke(self, event: events.MouseEvent, phase: Literal["begin", "go", "end"]) -> None:
        at = self._image_at(event)
        if at is not None:
            self.post_message(self.Stroked(*at, self._stroke_button, phase))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if self.painting and self.view is not None and event.button in (1, 3) and not event.shift:
            self._stroke_button = event.button
            self.capture_mouse()
            self._stroke(event, "begin")
            return
        if self.view is not None and event.button in (1, 2) and not event.shift:
            self._drag = (event.pointer_screen_x, event.pointer_screen_y)
            self._dragged = False
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._stroke_button:
            self._stroke(event, "go")
            return
        if self._drag is None or self.view is None:
            return
        right = event.pointer_screen_x - self._drag[0]
        down = event.pointer_screen_y - self._drag[1]
        if abs(right) >= 1 or abs(down) >= 1 or self._dragged:
            self._dragged = True
            self._drag = (event.pointer_screen_x, event.pointer_screen_y)
            self.set_view(self.view.panned(-right * self.view.cell_width, -down * self.view.cell_height))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._stroke_button:
            self._stroke(event, "end")
            self._stroke_button = 0
            self.release_mouse()
            return
        dragging, self._drag = self._drag is not None, None
        if dragging:
            self.release_mouse()
        if self._dragged:
            self._dragged = False
            return
        at = self._image_at(event)
        if at is not None and self.view is not None and event.button in (1, 3):
            self.post_message(self.Clicked(*self.view.limited(*at), event.button, event.shift))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: events.MouseEvent, direction: int) -> None:
        from segment_duo.terminal.viewport import ZOOM_STEP

        event.stop()
        at = self._image_at(event)
        if at is not None and self.view is not None:
            self.set_view(self.view.zoomed(ZOOM_STEP**direction, *at))
