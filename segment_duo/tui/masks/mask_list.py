"""The list of masks: a check mark, number, label, area, score; only the visible lines are made, however many masks there are."""

from __future__ import annotations

from collections.abc import Mapping

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from segment_duo.masks.overlay import colour_of
from segment_duo.text import safe
from segment_duo.tui.keys import bindings
from segment_duo.types import Mask

EMPTY = ("No masks yet.", "", "Space  point at one", "a      find all")


class MaskList(ScrollView, can_focus=True):
    """Masks in document order. The current one is the cursor; it is the document's, not the widget's."""

    BINDINGS = bindings("masks")
    COMPONENT_CLASSES = {"mask-list--current", "mask-list--selected", "mask-list--dim"}  # noqa: RUF012 - Textual's convention
    DEFAULT_CSS = """
    MaskList { scrollbar-size-vertical: 1; scrollbar-background: $surface; scrollbar-color: $border; }
    MaskList { height: 1fr; background: $surface; border-title-color: $text-muted; border-title-align: left; border-top: solid $border; }
    MaskList:focus { border-top: solid $primary; border-title-color: $primary; }
    MaskList .mask-list--current { background: $primary 25%; }
    MaskList .mask-list--selected { color: $success; }
    MaskList .mask-list--dim { color: $secondary; }
    """

    class Chosen(Message):
        """The cursor went to a mask; ``toggle``: its check mark was clicked."""

        def __init__(self, mask_id: int, toggle: bool) -> None:
            super().__init__()
            self.mask_id = mask_id
            self.toggle = toggle

    def __init__(self) -> None:
        super().__init__(id="masks")
        self._masks: tuple[Mask, ...] = ()
        self._selected: frozenset[int] = frozenset()
        self._current: int | None = None
        self._verdicts: Mapping[int, bool] = {}
        self._inks: dict[str, tuple[int, int, int]] = {}
        self._by_id = False
        self.border_title = "masks"
        self._shown: object = None

    def show(
        self,
        masks: tuple[Mask, ...],
        selected: frozenset[int],
        current: int | None,
        title: str,
        verdicts: Mapping[int, bool],
        inks: tuple[tuple[str, tuple[int, int, int]], ...] = (),
        *,
        by_id: bool = False,
    ) -> None:
        """``inks``: label -> RGB, as pairs. ``by_id``: each id in its object's colour."""
        # A step of a stroke changes nothing here. Masks are compared by identity first, so a thousand cost little.
        wanted = (masks, selected, current, title, dict(verdicts), inks, by_id)
        if wanted == self._shown:
            return
        self._shown = wanted
        self.border_title = title
        self._inks, self._by_id = dict(inks), by_id
        moved = current != self._current
        self._masks, self._selected, self._current, self._verdicts = masks, selected, current, verdicts
        self.virtual_size = Size(0, len(masks) + 1)  # the heading stays at the top
        if moved:
            row = self._row_of(current)
            if row is not None:
                self.scroll_to_region(Region(0, row, 1, 2), animate=False)
        self.refresh()

    def _row_of(self, mask_id: int | None) -> int | None:
        return next((row for row, mask in enumerate(self._masks) if mask.id == mask_id), None)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if not self._masks:
            text = EMPTY[y] if y < len(EMPTY) else ""
            return self._strip(Text(" " + text, style=self.get_component_rich_style("mask-list--dim")), width)
        if y == 0:
            heading = "    id label".ljust(max(12, width - 10)) + "area  IoU"
            return self._strip(Text(heading[:width], style=self.get_component_rich_style("mask-list--dim")), width)
        row = y - 1 + self.scroll_offset.y
        if row >= len(self._masks):
            return Strip.blank(width, self.rich_style)
        mask = self._masks[row]
        selected = mask.id in self._selected
        style = self.rich_style
        if mask.id == self._current:
            style += self.get_component_rich_style("mask-list--current")
        line = Text(style=style, no_wrap=True)
        line.append(
            " ▣ " if selected else " □ ",
            Style(color=self.get_component_rich_style("mask-list--selected").color) if selected else "",
        )
        verdict = self._verdicts.get(mask.id)
        own = Style(color=Color.from_rgb(*colour_of(mask, self._inks))) if self._by_id else ""
        line.append(f"{mask.id:>3}", own)
        line.append(" " if verdict is None else "✓" if verdict else "✗")
        score = "    " if mask.predicted_iou is None else f"{mask.predicted_iou:.2f}"
        area = f"{mask.area:,}"
        room = width - line.cell_len - len(area) - len(score) - 3
        label = Text(safe(mask.label, limit=100))
        if mask.label in self._inks:
            label.stylize(Style(color=Color.from_rgb(*self._inks[mask.label])))
        label.truncate(max(0, room), overflow="ellipsis", pad=True)
        line.append_text(label)
        line.append(f" {area} ")
        line.append(score, "dim" if mask.id != self._current else "")
        return self._strip(line, width)

    def _strip(self, line: Text, width: int) -> Strip:
        # A Text without spans renders without its own style, so it is applied here.
        base = self.rich_style + line.style if isinstance(line.style, Style) else self.rich_style
        segments = [Segment(s.text, base + s.style if s.style else base) for s in line.render(self.app.console)]
        return Strip([s for s in segments if s.text and s.text != "\n"]).adjust_cell_length(width, base)

    def _go(self, row: int) -> None:
        if self._masks:
            mask = self._masks[min(max(row, 0), len(self._masks) - 1)]
            self.post_message(self.Chosen(mask.id, False))

    def on_key(self, event: events.Key) -> None:
        row = self._row_of(self._current) or 0
        page = max(1, self.scrollable_content_region.height - 1)
        steps = {"up": row - 1, "down": row + 1, "pageup": row - page, "pagedown": row + page}
        steps |= {"home": 0, "end": len(self._masks) - 1}
        if event.key in steps:
            self._go(steps[event.key])
        else:
            return
        event.stop()
        event.prevent_default()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        row = -1 if offset is None or offset.y == 0 else offset.y - 1 + self.scroll_offset.y
        if 0 <= row < len(self._masks):
            self.post_message(self.Chosen(self._masks[row].id, offset is not None and offset.x < 3))
