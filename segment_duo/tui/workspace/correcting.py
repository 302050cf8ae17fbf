"""Correcting masks: brush and eraser, points on a mask that is there, and the operations on whole masks. Every one is one undo step.

The geometry is :mod:`segment_duo.masks.edit`'s; what is shown while a stroke is drawn or a split is offered is the desk's ``live`` masks, which
are in no set and no draft until the stroke ends or the split is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from segment_duo.errors import SegduoError
from segment_duo.masks import edit
from segment_duo.masks.rle import area, bounding_box, empty
from segment_duo.tui.canvas.picture_view import PictureView
from segment_duo.tui.errands import Errand
from segment_duo.tui.state import Document
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.types import Mask, Rle

Tool = Literal["", "brush", "eraser", "split"]
RADII = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)
"""Radii of the brush in pixels."""
NECKS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, edit.NECK, 0.9, 0.93, 0.96, 0.98)
"""How wide a neck may be to be cut, as a share of the smaller part's radius."""

Result = tuple[Sequence[int], Sequence[Mask]]


@dataclass
class _Stroke:
    """A stroke that is being drawn. ``mask``: as it was before, None for a new one; ``pen``: drawn by keys."""

    mask: Mask | None
    before: Rle
    shape: Rle
    erases: bool
    at: tuple[float, float]
    pen: bool = False


class Correcting:
    """Args:
    edited: called after every change of the document.
    drawn: called when a stroke grows, and when one is given up; see :meth:`in_hand`.
    """

    def __init__(self, desk: Desk, edited: Callable[[], None], drawn: Callable[[], None] = lambda: None) -> None:
        self.desk = desk
        self._edited = edited
        self._drawn = drawn
        self.tool: Tool = ""
        self.radius = 4.0
        self._neck = edit.NECK
        self._new = False
        self._stroke: _Stroke | None = None
        self._split: tuple[int, tuple[Mask, ...]] | None = None
        desk.moved = self._pen_moved

    @property
    def doc(self) -> Document:
        return self.desk.doc

    # Brush and eraser

    def action_brush(self, erases: int = 0) -> None:
        """Take the brush or the eraser; the same key puts it away."""
        tool: Tool = "eraser" if erases else "brush"
        if not self._may_begin() or self.tool == tool:
            self.leave()
            return
        target = self.doc.mask(self.doc.current)
        if target is None and erases:
            self.desk.say("No mask is the current one: n goes to the next, Enter takes the one at the cross-hair.")
            return
        self._take(tool, new=target is None)

    def action_new_mask(self) -> None:
        """Paint a mask that is not there yet."""
        if self._may_begin():
            self._take("brush", new=True)

    def _may_begin(self) -> bool:
        if not self.desk.need_image():
            return False
        if self.doc.pointing:
            self.desk.say("A mask is being made: Enter keeps it, Escape drops it; then correct.", "warning")
            return False
        return True

    def _take(self, tool: Tool, *, new: bool) -> None:
        self.leave(quietly=True)
        self.tool, self._new = tool, new
        self.desk.picture.painting = True
        what = "a new mask" if new else f"mask {self.doc.current}"
        self.desk.say(
            f"{tool.capitalize()} on {what}: Space dots, Enter sets the pen down and lifts it, the mouse draws (right button: the other way). "
            "Comma and full stop change the size, Escape ends."
        )
        self._show()

    def leave(self, *, quietly: bool = False) -> None:
        """Put the tool away; a stroke that is not finished and a split that was not taken are dropped."""
        had = self.tool
        self.tool, self._new, self._stroke, self._split = "", False, None, None
        self.desk.picture.painting = False
        if had:
            self._drawn()
        if had and not quietly:
            self.desk.say("Back to pointing: Space includes, x excludes.")
        if had:
            self._show()

    def drop(self) -> None:
        """Escape: the stroke goes, or else the tool."""
        if self._stroke is not None:
            self._stroke = None
            self._drawn()
            self.desk.say("Stroke dropped. Escape again ends the tool.")
            self._show()
        else:
            self.leave()

    def stroked(self, message: PictureView.Stroked) -> None:
        """The mouse draws."""
        if message.phase == "begin":
            self.settle()
            if not self.begin(message.x, message.y, opposite=message.button == 3):
                self.desk.say("No mask is the current one to erase from.")
        elif message.phase == "go":
            self.go_on(message.x, message.y)
        else:
            self.end()

    def stamp(self, label: int) -> None:
        """One dot at the cross-hair; label 0 does the opposite of the tool."""
        at = self.desk.picture.cross_hair
        if self.tool == "split" or at is None:
            return
        self.settle()
        if self.begin(float(at[0]), float(at[1]), opposite=not label):
            self.end()

    def enter(self) -> None:
        """Take the split that is shown, or set the pen down, or lift it."""
        if self.tool == "split":
            self._take_split()
            return
        if self._stroke is not None:
            self.settle()
            return
        at = self.desk.picture.cross_hair
        if at is not None and self.begin(float(at[0]), float(at[1]), pen=True):
            self.desk.say("The pen is down: the arrows draw, Enter lifts it, Escape drops the stroke.")

    def begin(self, x: float, y: float, *, opposite: bool = False, pen: bool = False) -> bool:
        """Begin a stroke at an image point; False when there is nothing to draw on."""
        image = self.desk.image
        mask = None if self._new else self.doc.mask(self.doc.current)
        erases = (self.tool == "eraser") is not opposite
        if image is None or (mask is None and erases):
            return False
        facts = image.data.facts
        before = mask.rle if mask else empty(facts.height, facts.width)
        self._stroke = _Stroke(mask, before, before, erases, (x, y), pen)
        self.go_on(x, y)
        return True

    def go_on(self, x: float, y: float) -> None:
        """Draw on to an image point."""
        stroke = self._stroke
        if stroke is None:
            return
        path = [stroke.at, (x, y)] if stroke.at != (x, y) else [(x, y)]
        change = edit.erase if stroke.erases else edit.paint
        stroke.shape = change(stroke.shape, path, self.radius)
        stroke.at = (x, y)
        self._drawn()
        self._show()

    def in_hand(self) -> tuple[Mask, ...] | None:
        """All masks as they would be if the stroke that is being drawn ended now; None without one."""
        if self._stroke is None or self._stroke.shape == self._stroke.before:
            return None
        scratch = Document()
        scratch.loaded(self.doc.masks, None)
        self._into(scratch, self._stroke)
        return scratch.masks

    def _into(self, doc: Document, stroke: _Stroke) -> tuple[int, ...]:
        step = "eraser" if stroke.erases else "brush"
        return doc.correct(step, [((stroke.mask.id,) if stroke.mask else (), [self._shaped(stroke)])])

    def end(self) -> None:
        """The stroke becomes an undo step."""
        stroke, self._stroke = self._stroke, None
        if stroke is None:
            return
        if stroke.shape == stroke.before:
            self._show()
            return
        made = self._into(self.doc, stroke)
        if made:
            self.doc.current = made[0]
        self._new = self._new and not made
        found = self.doc.mask(made[0]) if made else None
        gone = f"Nothing is left of mask {stroke.mask.id}; u brings it back." if stroke.mask else "Nothing was painted."
        self.desk.say(f"Mask {found.id}: {found.area:,} px. u takes the stroke back." if found else gone)
        self._done()

    def settle(self) -> None:
        """What is being drawn is done."""
        if self._stroke is not None:
            self.end()

    def _pen_moved(self, x: float, y: float) -> None:
        if self._stroke is not None and self._stroke.pen:
            self.go_on(x, y)

    def _shaped(self, stroke: _Stroke) -> Mask:
        if stroke.mask is not None:
            return edit.with_shape(stroke.mask, stroke.shape)
        return Mask(stroke.shape, area(stroke.shape), bounding_box(stroke.shape), source="prompt")

    def action_size(self, by: int) -> None:
        """A larger or smaller brush; while a split is offered: cut more or less."""
        if self.tool == "split":
            place = NECKS.index(self._neck) + by
            self._neck = NECKS[min(max(place, 0), len(NECKS) - 1)]
            self._offer_split()
            return
        place = min(max(RADII.index(self.radius) + by, 0), len(RADII) - 1)
        self.radius = RADII[place]
        self.desk.say(f"Brush {2 * self.radius:g} px wide.")
        self._show()

    # Points on a mask that is there

    def action_refine(self) -> None:
        """Let points correct the current mask."""
        if not self._may_begin():
            return
        current = self.doc.current
        if current is None or not self.doc.refine(current):
            self.desk.say("No mask is the current one: n goes to the next.")
            return
        self.leave(quietly=True)
        self.desk.say(f"Correct mask {current}: Space adds, x takes away, Enter takes the result, Escape leaves it.")
        self._edited()

    # Whole masks

    def action_fill_holes(self) -> None:
        self._each("holes filled", lambda mask: [edit.fill_holes(mask.rle)])

    def action_smooth(self) -> None:
        self._each("smoothed", lambda mask: [edit.smooth(mask.rle)])

    def action_grow(self, by: int) -> None:
        if by > 0:
            self._each("grown by 1 px", lambda mask: [edit.grow(mask.rle)])
        else:
            self._each("shrunk by 1 px", lambda mask: [edit.shrink(mask.rle)])

    def action_merge(self) -> None:
        """One mask of the selected ones; it keeps the id and the label of the current one, or else of the first."""
        chosen = [mask for mask in self.doc.masks if mask.id in self.doc.selected]
        if len(chosen) < 2:
            self.desk.say("Select two or more masks to merge: t, or Space in the list.", "warning")
            return
        chosen.sort(key=lambda mask: mask.id != self.doc.current)
        ids = [mask.id for mask in chosen]
        step = f"merged {', '.join(map(str, ids[:-1]))} and {ids[-1]}"

        def work() -> list[Result]:
            return [(ids, [edit.with_shape(chosen[0], edit.merge([mask.rle for mask in chosen]))])]

        self._run(step, work)

    def action_subtract(self) -> None:
        """Cut the selected masks out of the current one."""
        mask = self.doc.mask(self.doc.current)
        others = [other for other in self.doc.masks if other.id in self.doc.selected and other is not mask]
        if mask is None or not others:
            self.desk.say("Select what to cut out, then go to the mask to cut it out of (n), then /.", "warning")
            return
        names = ", ".join(str(other.id) for other in others)

        def work() -> list[Result]:
            return [([mask.id], [edit.with_shape(mask, edit.subtract(mask.rle, [other.rle for other in others]))])]

        self._run(f"without {names}", work)

    def action_no_overlap(self) -> None:
        """Give every shared pixel to the smaller mask."""
        masks = self.doc.masks

        def work() -> list[Result]:
            shapes = edit.resolve_overlap(masks)
            pairs = [(mask, shape) for mask, shape in zip(masks, shapes, strict=True) if shape != mask.rle]
            return [([mask.id], [edit.with_shape(mask, shape)]) for mask, shape in pairs]

        self._run("overlap removed", work)

    def action_cut(self) -> None:
        """First the one end of a line, then the other: the current mask is cut along it."""
        at, mask = self.desk.picture.cross_hair, self.doc.mask(self.doc.current)
        if at is None or not self._may_begin():
            return
        if self.desk.cut_from is None:
            if mask is None:
                self.desk.say("No mask is the current one: n goes to the next, Enter takes the one at the cross-hair.")
                return
            self.desk.cut_from = at
            self.desk.say(
                f"The cut through mask {mask.id} begins here. Go to its other end and press k again; Esc gives up."
            )
            self.desk.show_document()
            return
        start, self.desk.cut_from = self.desk.cut_from, None
        if mask is None:
            self.desk.show_document()
            return

        def work() -> list[Result]:
            return [([mask.id], [edit.with_shape(mask, part) for part in edit.split_by_line(mask.rle, [start, at])])]

        self._run("cut by a line", work, nothing="The line does not cut the mask in two; let it begin and end outside.")

    def action_split(self) -> None:
        """Offer to split the current mask at its necks."""
        if not self._may_begin():
            return
        if self.doc.mask(self.doc.current) is None:
            self.desk.say("No mask is the current one: n goes to the next.")
            return
        self.leave(quietly=True)
        self.tool = "split"
        self._offer_split()

    def _offer_split(self) -> None:
        mask, neck = self.doc.mask(self.doc.current), self._neck
        if mask is None:
            self.leave()
            return

        def work(_: Errand) -> list[Rle]:
            return edit.split_by_watershed(mask.rle, neck=neck)

        def done(parts: list[Rle]) -> None:
            if self.tool != "split" or self.doc.mask(mask.id) is not mask:
                return
            self._split = (mask.id, tuple(edit.with_shape(mask, part) for part in parts))
            more = "full stop cuts more, comma less" if len(parts) > 1 else "full stop cuts more"
            take = "Enter takes them, " if len(parts) > 1 else ""
            self.desk.say(f"Mask {mask.id} in {counted(len(parts), 'part')}: {take}{more}, Escape leaves it whole.")
            self._show()

        self.desk.errands.start("split", work, done, what="Splitting the mask")

    def _take_split(self) -> None:
        if self._split is None:
            return
        mask_id, parts = self._split
        self.leave(quietly=True)
        if len(parts) < 2:
            self.desk.say("There is nothing to cut; full stop cuts more, k cuts by a line.", "warning")
            return
        self.doc.correct("split", [((mask_id,), parts)])
        self.desk.say(f"Mask {mask_id} is now {counted(len(parts), 'mask')}; u takes it back.", "good")
        self._done()

    # How an operation runs

    def _each(self, step: str, change: Callable[[Mask], list[Rle]]) -> None:
        """Change the selected masks, or else the current one."""
        ids = self.doc.selected or ({self.doc.current} if self.doc.current is not None else set())
        chosen = [mask for mask in self.doc.masks if mask.id in ids]
        if not chosen:
            self.desk.say("No mask is the current one and none is selected.")
            return

        def work() -> list[Result]:
            made = [(mask, change(mask)) for mask in chosen]
            return [([m.id], [edit.with_shape(m, part) for part in parts]) for m, parts in made if parts != [m.rle]]

        self._run(step, work)

    def _run(self, step: str, work: Callable[[], list[Result]], nothing: str = "Nothing to change there.") -> None:
        """Do the geometry in a thread, then make it one undo step, unless the masks have changed meanwhile."""
        before = self.doc.masks
        if not self._may_begin():
            return

        def done(results: list[Result]) -> None:
            if self.doc.masks is not before:
                self.desk.say("The masks have changed meanwhile; nothing was done.", "warning")
                return
            changed = [result for result in results if len(result[0]) != 1 or self._differs(result)]
            if not changed:
                self.desk.say(nothing)
                self.desk.show_document()
                return
            lost = sum(not any(child.area for child in children) for _, children in changed)
            self.doc.correct(step, changed)
            text = f"{counted(len(changed), 'mask')}: {step}; u takes it back."
            self.desk.say(text + (f" {counted(lost, 'mask')} vanished." if lost else ""), "warning" if lost else "good")
            self._done()

        def failed(error: SegduoError) -> None:
            self.desk.show_document()
            self.desk.report(error)

        self.desk.errands.start("correct", lambda _: work(), done, what="Correcting the masks", failed=failed)

    def _differs(self, result: Result) -> bool:
        (mask_id,), children = result
        mask = self.doc.mask(mask_id)
        return mask is None or [child.rle for child in children] != [mask.rle]

    def _done(self) -> None:
        self._show(show=False)
        self._edited()

    def _show(self, *, show: bool = True) -> None:
        """Bring the desk up to date with the tool."""
        desk, stroke = self.desk, self._stroke
        desk.live, desk.replaced = (), frozenset()
        if stroke is not None:
            shaped = self._shaped(stroke)
            desk.live = (shaped,) if stroke.mask else (_numbered(shaped, -1),)
            desk.replaced = frozenset({stroke.mask.id}) if stroke.mask else frozenset()
        elif self._split is not None:
            mask_id, parts = self._split
            desk.live = tuple(_numbered(part, -1 - index) for index, part in enumerate(parts))
            desk.replaced = frozenset({mask_id})
        width = f" {2 * self.radius:g} px" if self.tool in ("brush", "eraser") else ""
        pen = ", pen down" if stroke is not None and stroke.pen else ""
        desk.tool_text = f"{self.tool}{width}{pen}"
        if show:
            desk.show_document()


def _numbered(mask: Mask, number: int) -> Mask:
    from dataclasses import replace

    return replace(mask, id=number)
