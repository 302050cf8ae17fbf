"""Correcting masks by keys and mouse: what the document holds, that each is one undo step, and that the masks' origins say so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from textual import events

from segment_duo.masks.rle import decode, encode
from segment_duo.tui.screens.help import HelpScreen
from segment_duo.tui.status.keys_line import KeysLine
from segment_duo.types import Mask
from tests.tui_fakes import disc, pictures
from tests.tui_pilot import Ui, cell_centre, colours, running

__all__ = ["colours"]


def of(bits: np.ndarray, **fields: object) -> Mask:
    from segment_duo.masks.rle import bounding_box

    rle = encode(bits)
    return Mask(rle, int(bits.sum()), bounding_box(rle), **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def with_masks(tmp_path: Path, *masks: Mask) -> AsyncIterator[Ui]:
    async with running(tmp_path, pictures()) as ui:
        ui.work.doc.loaded(masks, "0")
        ui.work.show_document()
        await ui.pilot.pause()
        yield ui


async def test_brush_and_eraser_by_keys_are_undo_steps_in_the_origin(tmp_path: Path) -> None:
    async with with_masks(tmp_path, disc(240, 320, 100, 100, 20)) as ui:
        doc, picture = ui.work.doc, ui.work.picture
        before = doc.masks
        picture.move_cross_hair(125, 100)
        await ui.press("e")
        assert "brush 8 px" in ui.work.status.text
        assert "Space Dot" in ui.lines()[-1]
        await ui.press("f1")
        await ui.dialog(HelpScreen)
        text = ui.text()
        assert text.index("Correcting masks") < text.index("Eraser on the current mask")
        assert "Making a mask" not in text.split("Correcting masks")[0]
        await ui.press("escape")
        await ui.until(lambda: ui.app.screen is ui.screen)
        await ui.press("full_stop", "space")
        assert "brush 12 px" in ui.work.status.text
        bits = decode(doc.mask(0).rle)
        assert bits[100, 131]
        assert not bits[100, 132]
        assert doc.mask(0).origin.edits == ("brush",)
        assert ui.work.live == ()
        # x is the other way round; E the eraser itself.
        await ui.press("x")
        assert not decode(doc.mask(0).rle)[100, 125]
        await ui.press("u", "u")
        assert doc.masks == before
        assert not doc.unsaved
        picture.move_cross_hair(100, 100)
        await ui.press("E", "space")
        assert not decode(doc.mask(0).rle)[100, 100]
        assert doc.mask(0).origin.edits == ("eraser",)
        await ui.press("escape")
        assert ui.screen.correcting.tool == ""
        await ui.press("u")
        assert doc.masks == before


async def test_pen_draws_along_the_arrows_as_one_stroke(tmp_path: Path) -> None:
    async with with_masks(tmp_path, disc(240, 320, 60, 60, 10)) as ui:
        doc, picture = ui.work.doc, ui.work.picture
        await ui.press("plus", "plus", "plus", "plus")
        picture.move_cross_hair(60, 60)
        await ui.press("e", "enter", "shift+right", "shift+right", "shift+right")
        reached = picture.cross_hair[0]
        assert reached > 70
        assert "pen down" in ui.work.status.text
        assert len(ui.work.live) == 1  # shown, not yet in the document
        assert ui.work.live[0].area > doc.masks[0].area
        assert not doc.unsaved
        await ui.press("enter")
        bits = decode(doc.mask(0).rle)
        assert bits[60, 60 : reached + 4].all()
        assert len([1 for _ in iter(doc.undo, None)]) == 1
        ui.work.show_document()
        # A stroke that is dropped leaves nothing.
        await ui.press("enter", "shift+left", "escape")
        assert not doc.unsaved
        assert ui.work.live == ()


async def test_brush_makes_a_new_mask(tmp_path: Path) -> None:
    async with with_masks(tmp_path) as ui:
        ui.work.picture.move_cross_hair(50, 40)
        await ui.press("e", "space")
        assert [m.id for m in ui.work.doc.masks] == [0]
        ui.work.picture.move_cross_hair(200, 40)
        await ui.press("space")  # goes on with the same mask
        assert len(ui.work.doc.masks) == 1
        await ui.press("B", "space")
        assert [m.id for m in ui.work.doc.masks] == [0, 1]
        assert ui.work.doc.mask(1).origin.edits == ("brush",)
        await ui.press("escape", "s")
        await ui.until(lambda: not ui.work.doc.unsaved)


async def test_mouse_draws_with_fractions_and_the_right_button_erases(tmp_path: Path) -> None:
    async with with_masks(tmp_path, disc(240, 320, 100, 100, 20)) as ui:
        doc, picture = ui.work.doc, ui.work.picture
        await ui.press("e", "comma", "comma", "comma", "comma", "comma")
        radius = ui.screen.correcting.radius

        async def drag(button: int, *cells: tuple[int, int]) -> None:
            await ui.pilot._post_mouse_events([events.MouseDown], picture, offset=cells[0], button=button)
            for cell in cells[1:]:
                await ui.pilot._post_mouse_events([events.MouseMove], picture, offset=cell, button=button)
            await ui.pilot._post_mouse_events([events.MouseUp], picture, offset=cells[-1], button=button)
            await ui.pilot.pause()

        view = picture.view
        cells = [tuple(int(v) for v in view.to_cell(x, 100)) for x in (100, 130, 160)]
        at = picture.cross_hair
        await drag(1, *cells)
        end = cell_centre(view, *cells[-1])
        bits = decode(doc.mask(0).rle)
        assert bits[round(end[1]), round(end[0])]
        assert bits[round(end[1]), 120 : int(end[0])].all()
        assert doc.undo() == "brush"
        assert doc.undo() is None
        ui.work.show_document()
        await drag(3, *cells)
        assert not decode(doc.mask(0).rle)[round(end[1]), round(cell_centre(view, *cells[0])[0]) + 1]
        assert doc.mask(0).origin.edits == ("eraser",)
        assert picture.cross_hair == at
        assert picture.view == view  # a drag draws, it does not pan
        assert radius < 4


async def test_a_stroke_redraws_only_the_cells_it_touches(tmp_path: Path) -> None:
    async with with_masks(tmp_path, disc(240, 320, 100, 100, 20)) as ui:
        picture = ui.work.picture
        await ui.painted()
        await ui.press("e")
        picture.move_cross_hair(100, 122)
        await ui.painted()
        redrawn: list[int] = []
        refresh = picture.refresh
        picture.refresh = lambda *regions, **more: (  # type: ignore[method-assign]
            redrawn.append(sum(r.area for r in regions) or 10**9),
            refresh(*regions, **more),
        )[1]
        shown = picture.sent_pictures
        await ui.press("space")
        await ui.until(lambda: picture.sent_pictures > shown)
        await ui.painted()
        assert redrawn
        assert sum(redrawn) < 200


async def test_a_move_of_the_drawing_mouse_redraws_no_other_pane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_masks(tmp_path, disc(240, 320, 100, 100, 20)) as ui:
        picture, desk = ui.work.picture, ui.work
        picture.move_cross_hair(300, 20)  # the loupe looks elsewhere
        await ui.press("e")
        cell = tuple(int(v) for v in picture.view.to_cell(100, 100))
        await ui.pilot._post_mouse_events([events.MouseDown], picture, offset=cell, button=1)
        await ui.painted()
        await ui.pilot.pause()
        redrawn: list[object] = []
        for pane in (desk.mask_list, desk.loupe, desk.header, ui.screen.query_one(KeysLine), ui.screen):
            monkeypatch.setattr(pane, "refresh", lambda *_, pane=pane, **__: redrawn.append(pane))
        shown = picture.sent_pictures
        for step in (1, 2, 3):
            await ui.pilot._post_mouse_events(
                [events.MouseMove], picture, offset=(cell[0] + 2 * step, cell[1]), button=1
            )
        await ui.until(lambda: picture.sent_pictures > shown)
        await ui.pilot.pause()
        assert redrawn == []
        assert not ui.screen.selections  # Textual's selecting of text would draw the whole screen each time
        monkeypatch.undo()
        await ui.pilot._post_mouse_events([events.MouseUp], picture, offset=cell, button=1)


async def test_whole_mask_operations(tmp_path: Path) -> None:
    ring = np.zeros((240, 320), bool)
    ring[50:90, 50:90] = True
    ring[65:75, 65:75] = False
    async with with_masks(tmp_path, of(ring, label="grain"), disc(240, 320, 200, 100, 20, id=1)) as ui:
        doc = ui.work.doc
        before = doc.masks
        for key, step, expected in [
            ("G", "holes filled", 1600),
            ("greater_than_sign", "grown by 1 px", 1600 - 100 + 4 * 40 + 4 * 10 - 4 + 4),
            ("less_than_sign", "shrunk by 1 px", None),
            ("M", "smoothed", None),
        ]:
            await ui.press(key)
            await ui.until(lambda step=step: doc.can_undo and step in ui.work.message.text)
            assert doc.mask(0).origin.edits == (step,)
            assert doc.mask(0).label == "grain"
            assert doc.mask(1) == before[1]
            if key == "G":
                assert doc.mask(0).area == expected
            if step.startswith("grown"):
                assert doc.mask(0).area > before[0].area
            if step.startswith("shrunk"):
                assert doc.mask(0).area < before[0].area
            await ui.press("u")
            assert doc.masks == before
        # On all that are selected.
        await ui.press("A", "greater_than_sign")
        await ui.until(lambda: doc.can_undo)
        assert all(now.area > then.area for now, then in zip(doc.masks, before, strict=True))


async def test_merge_subtract_and_overlap(tmp_path: Path) -> None:
    left, right = disc(240, 320, 100, 100, 20, label="pore"), disc(240, 320, 120, 100, 15, id=4)
    async with with_masks(tmp_path, left, right) as ui:
        doc = ui.work.doc
        await ui.press("j")
        assert "Select two or more" in ui.work.message.text
        await ui.press("A", "j")
        await ui.until(lambda: doc.can_undo)
        assert [(m.id, m.label) for m in doc.masks] == [(0, "pore")]
        assert doc.masks[0].area == int((decode(left.rle) | decode(right.rle)).sum())
        assert doc.masks[0].origin.edits == ("merged 0 and 4",)
        await ui.press("u", "T", "n", "t", "n")  # select the second, go to the first
        assert doc.selected == {4}
        assert doc.current == 0
        await ui.press("slash")
        await ui.until(lambda: doc.can_undo)
        assert doc.mask(0).area == int((decode(left.rle) & ~decode(right.rle)).sum())
        assert doc.mask(4) == right
        await ui.press("u", "O")
        await ui.until(lambda: doc.can_undo)
        assert doc.mask(4) == right  # the smaller one keeps what both had
        assert not (decode(doc.mask(0).rle) & decode(right.rle)).any()


async def test_cut_by_a_line_and_split_with_a_preview(tmp_path: Path) -> None:
    pair = decode(disc(240, 320, 100, 100, 20).rle) | decode(disc(240, 320, 130, 100, 20).rle)
    async with with_masks(tmp_path, of(pair)) as ui:
        doc, picture = ui.work.doc, ui.work.picture
        before = doc.masks
        picture.move_cross_hair(100, 60)
        await ui.press("k")
        assert "┌" in ui.text()
        picture.move_cross_hair(100, 140)
        await ui.press("k")
        await ui.until(lambda: doc.can_undo)
        assert len(doc.masks) == 2
        assert sum(m.area for m in doc.masks) == int(pair.sum())
        await ui.press("u", "k", "escape")
        assert ui.work.cut_from is None
        assert doc.masks == before
        await ui.press("W")
        await ui.until(lambda: len(ui.work.live) == 2)
        assert doc.masks == before  # only offered
        assert "Mask 0 in 2 parts" in ui.work.message.text
        for _ in range(5):
            await ui.press("comma")
        await ui.until(lambda: len(ui.work.live) == 1)
        for _ in range(5):
            await ui.press("full_stop")
        await ui.until(lambda: len(ui.work.live) == 2)
        await ui.press("enter")
        assert len(doc.masks) == 2
        middles = sorted(m.bbox[0] + m.bbox[2] / 2 for m in doc.masks)
        assert abs(middles[0] - 100) < 6
        assert abs(middles[1] - 130) < 6
        assert all(m.origin.edits == ("split",) for m in doc.masks)
        assert ui.work.live == ()
        await ui.press("u", "W")
        await ui.until(lambda: ui.work.live)
        await ui.press("escape")
        assert ui.work.live == ()
        assert doc.masks == before


async def test_refining_a_mask_by_points(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        doc = ui.work.doc
        ui.work.picture.move_cross_hair(120, 40)
        await ui.press("space")
        await ui.until(lambda: doc.candidate)
        await ui.press("enter", "l")
        await ui.pilot.pause()
        await ui.press(*"ore", "enter")
        await ui.until(lambda: doc.masks[0].label == "ore")
        kept = doc.masks
        await ui.press("R")
        assert "correcting mask 0" in ui.work.status.text
        ui.work.picture.move_cross_hair(140, 40)
        await ui.press("x")
        await ui.until(lambda: doc.candidate)
        prompt = ui.session.calls[-1][1][0]
        assert prompt.mask_input == "logits-22"
        assert [point.label for point in prompt.points] == [1, 0]
        await ui.press("enter")
        assert [(m.id, m.label) for m in doc.masks] == [(0, "ore")]
        assert doc.masks[0].area != kept[0].area
        assert doc.masks[0].origin.edits == ("label 'ore'", "points")
        await ui.press("u", "u", "u")
        assert doc.masks == kept
        # Escape leaves the mask as it is.
        await ui.press("R", "escape")
        assert doc.refining is None
        assert doc.masks == kept


async def test_tools_wait_while_a_mask_is_being_made(tmp_path: Path) -> None:
    async with with_masks(tmp_path, disc(240, 320, 100, 100, 20)) as ui:
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        for key in ("e", "W", "G", "R"):
            await ui.press(key)
            assert "A mask is being made" in ui.work.message.text
        assert ui.screen.correcting.tool == ""
        assert ui.work.doc.masks[0].origin is None
