"""Looking: zoom, pan, cross-hair, loupe, contrast. None of it changes the document."""

from __future__ import annotations

import re

from segment_duo.terminal.graphics import TEXT_METHODS, Method
from segment_duo.terminal.viewport import ZOOM_STEP
from segment_duo.tui.screens.ask import TypeLine
from segment_duo.tui.workspace.desk import Desk

PAN = 0.25
"""Share of the view that one pan key moves."""
WINDOWS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Contrast windows: percent of the grey values that are cut at either end."""
_METHODS = {
    Method.HALFCELL: "Half cells: 1 × 2 dots a character, for every font.",
    Method.QUADRANT: 'Quadrants: 2 × 2 dots a character. P goes on; config.toml keeps a choice: graphics = "quadrant".',
    Method.SEXTANT: "Sextants: 2 × 3 dots. Boxes or gaps in the picture: the font lacks them, P goes on.",
    Method.OCTANT: "Octants: 2 × 4 dots. Boxes or gaps in the picture: the font lacks them, P goes on.",
}
TINTS = (1.0, 2.0, 0.0)
"""Strengths of the masks' tints, in the order in which the key goes through them."""


class Viewing:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def action_move(self, right: int, down: int) -> None:
        at, view = self.desk.picture.cross_hair, self.desk.picture.view
        if at is not None and view is not None:
            self.desk.picture.move_cross_hair(at[0] + right * view.step, at[1] + down * view.step)
            self.desk.moved(*(self.desk.picture.cross_hair or at))
            self.desk.show_cross_hair()

    def action_zoom(self, direction: int) -> None:
        at, view = self.desk.picture.cross_hair, self.desk.picture.view
        if at is not None and view is not None:
            self.desk.picture.set_view(view.zoomed(ZOOM_STEP**direction, *at))

    def action_fit(self) -> None:
        if self.desk.picture.view is not None:
            self.desk.picture.set_view(self.desk.picture.view.fit())

    def action_one_to_one(self) -> None:
        at, view = self.desk.picture.cross_hair, self.desk.picture.view
        if at is not None and view is not None:
            self.desk.picture.set_view(view.one_to_one(*at))

    def action_pan(self, right: int, down: int) -> None:
        view = self.desk.picture.view
        if view is None:
            return
        moved = view.panned(right * PAN * view.pixel_columns, down * PAN * view.pixel_rows)
        self.desk.picture.set_view(moved)
        at = self.desk.picture.cross_hair
        if at is not None and not moved.contains(*at):
            # The keys act at the cross-hair, so it stays where one looks.
            column, row = moved.to_cell(*at)
            inside = moved.to_image(min(max(column, 1), moved.columns - 1), min(max(row, 1), moved.rows - 1))
            self.desk.picture.move_cross_hair(*inside)
        self.desk.show_cross_hair()

    def action_contrast(self) -> None:
        self._stretch(0.0 if self.desk.picture.stretch else WINDOWS[1])

    def action_window(self, by: int) -> None:
        """A narrower (1) or a wider (-1) contrast window."""
        place = WINDOWS.index(self.desk.picture.stretch) + by
        self._stretch(WINDOWS[min(max(place, 0), len(WINDOWS) - 1)])

    def _stretch(self, cut: float) -> None:
        if self.desk.need_image():
            self.desk.picture.set_stretch(cut)
            self.desk.say(
                f"Contrast stretched between the percentiles {cut:g} and {100 - cut:g}; ) narrows the window, ( widens it."
                if cut
                else "Grey values as they are."
            )
            self.desk.show_cross_hair()

    def action_cells(self) -> None:
        """The next finer kind of characters, then half cells again."""
        method = self.desk.picture.terminal.method
        if not method.is_text:
            self.desk.say(f"This terminal shows real pixels ({method}); characters are for those that cannot.")
            return
        following = TEXT_METHODS[(TEXT_METHODS.index(method) + 1) % len(TEXT_METHODS)]
        self.desk.picture.set_method(following)
        self.desk.say(_METHODS[following])
        self.desk.show_document()

    def action_overlay(self) -> None:
        self.desk.overlay_on = not self.desk.overlay_on
        self.desk.say("Masks are shown." if self.desk.overlay_on else "Masks are hidden; h shows them again.")
        self.desk.show_document()

    def action_tint(self) -> None:
        self.desk.tint = TINTS[(TINTS.index(self.desk.tint) + 1) % len(TINTS)]
        self.desk.say({1.0: "Tints as designed.", 2.0: "Strong tints.", 0.0: "Outlines only."}[self.desk.tint])
        self.desk.show_document()

    def action_closer(self) -> None:
        self.desk.looks_closer = not self.desk.looks_closer
        self.desk.say(
            "Zoomed in, the model is shown the part in view."
            if self.desk.looks_closer
            else "The model is always shown the whole image; Y shows it the part in view again."
        )
        self.desk.show_cross_hair()

    def action_ids(self) -> None:
        self.desk.picture.numbered = not self.desk.picture.numbered
        self.desk.say("Ids in the picture." if self.desk.picture.numbered else "No ids in the picture.")
        self.desk.show_document()

    def action_scale_bar(self) -> None:
        if self.desk.image is not None and self.desk.image.data.facts.pixel_size is None:
            self.desk.say("The image does not tell the size of its pixels.", "warning")
            return
        self.desk.scale_bar = not self.desk.scale_bar
        self.desk.show_document()

    def action_measure(self) -> None:
        """From here to the cross-hair, until the key is pressed again."""
        starts = self.desk.measure_from is None
        self.desk.measure_from = self.desk.picture.cross_hair if starts else None
        self.desk.say("Measuring from here: the line above tells the distance; X ends it." if starts else "Measured.")
        self.desk.show_document()

    def action_full(self) -> None:
        full = not self.desk.screen.has_class("-full")
        self.desk.screen.set_class(full, "-full")
        if full:
            self.desk.canvas.focus()
            self.desk.say("The picture alone; F brings folder and masks back.")

    def action_zoom_mask(self) -> None:
        found, view = self.desk.doc.mask(self.desk.doc.current), self.desk.picture.view
        if found is None or view is None:
            self.desk.say("No mask is the current one; n goes to the next.")
            return
        x, y, width, height = found.bbox
        self.desk.picture.set_view(view.around(x, y, width, height))
        self.desk.go_to(found)

    def action_loupe(self) -> None:
        self.desk.loupe.next_zoom()

    def action_goto(self) -> None:
        if not self.desk.need_image() or self.desk.picture.view is None:
            return
        view = self.desk.picture.view
        width, height = view.image_width, view.image_height
        at = self.desk.picture.cross_hair or (0, 0)

        def wrong(text: str) -> str:
            found = parse_coordinates(text)
            if found is None:
                return "Two numbers, please: x,y"
            if not (0 <= found[0] < width and 0 <= found[1] < height):
                return f"x runs from 0 to {width - 1}, y from 0 to {height - 1}."
            return ""

        def go(text: str | None) -> None:
            found = parse_coordinates(text) if text else None
            if found is not None:
                self.desk.picture.move_cross_hair(*found)
                self.desk.show_cross_hair()
                self.desk.canvas.focus()

        question = f"x,y in pixels; the image has {width} × {height}."
        self.desk.ask(TypeLine("Go to", question, value=f"{at[0]},{at[1]}", check=wrong), go)

    def viewed(self) -> None:
        self.desk.show_cross_hair()

    def failed(self, error: Exception) -> None:
        self.desk.say(
            f'The picture cannot be drawn: {error}. Half cells work in every terminal: graphics = "halfcell" in config.toml.',
            "error",
        )


def parse_coordinates(text: str) -> tuple[float, float] | None:
    """``x,y`` or ``x y`` -> two numbers, or None."""
    fields = [field for field in re.split(r"[,;\s]+", text.strip()) if field]
    try:
        x, y = (float(field) for field in fields)
    except ValueError:
        return None
    return (x, y) if x == x and y == y and abs(x) < 1e9 and abs(y) < 1e9 else None  # noqa: PLR0124 - NaN
