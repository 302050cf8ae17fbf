"""Working at the scale one looks at: which part the model is shown, and that the masks come back in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_duo.config import Resolved
from segment_duo.masks.part import cut_pixels, into_part, out_of_part
from segment_duo.masks.rle import decode
from segment_duo.parameters import AutoParameters
from segment_duo.session import Session
from segment_duo.terminal.viewport import Viewport
from segment_duo.tui.closer import part_in_view
from segment_duo.tui.screens.auto import AutoDialog
from segment_duo.tui.workspace.editing import advice
from segment_duo.types import Box, Point, Prompt
from tests.engine_fixtures import Home, real_engine
from tests.tui_fakes import FakeModel, disc, micrograph, pictures
from tests.tui_pilot import PARTICLES, colours, running

__all__ = ["colours", "real_engine"]


def test_prompts_go_in_and_masks_come_out_where_they_were() -> None:
    part = Box(30, 20, 79, 59)
    pixels = np.arange(100 * 120 * 3, dtype=np.uint32).reshape(100, 120, 3).astype(np.uint8)
    assert (cut_pixels(pixels, part) == pixels[20:60, 30:80]).all()
    mask = disc(100, 120, 50, 40, 9)
    inside = into_part(Prompt((Point(50, 40),), Box(10, 25, 70, 90), mask=mask.rle), part)
    assert inside.points == (Point(20, 20),)
    assert inside.box == Box(0, 5, 40, 39)
    assert inside.mask is not None
    small = decode(inside.mask)
    assert small.shape == (40, 50)
    found = disc(40, 50, 20, 20, 9, point_coords=((20.0, 20.0),))
    assert (small == decode(found.rle)).all()
    back = out_of_part(found, part, 100, 120)
    assert back.rle == mask.rle
    assert back.bbox == mask.bbox
    assert back.point_coords == ((50.0, 40.0),)
    assert back.crop_box == (30, 20, 50, 40)


@pytest.mark.parametrize(("scale", "side"), [(100, None), (40, 5000), (20, 2500), (10, 1250), (5, 625), (1, 313)])
def test_the_part_follows_the_zoom_and_stays_for_small_steps(scale: float, side: int | None) -> None:
    view = Viewport.fitted((10_000, 10_000), (100, 50))
    view = view.zoomed(view.scale / scale, 5000, 5000)
    part = part_in_view(view, 512, (5000, 5000))
    if side is None:
        assert part is None
        return
    assert part is not None
    assert abs(part.x1 - part.x0 + 1 - side) <= 1
    assert part.x0 <= 5000 <= part.x1
    assert part_in_view(view.panned(1, 1), 512) == part_in_view(view, 512)
    edge = part_in_view(view.panned(-10_000, -10_000), 512)
    assert edge is not None
    assert (edge.x0, edge.y0) == (0, 0)


def test_no_part_where_it_would_not_help() -> None:
    near = Viewport.fitted((10_000, 10_000), (100, 50)).zoomed(50, 5000, 5000)
    assert part_in_view(near, 0) is None  # a model that shrinks nothing
    assert part_in_view(near, 512, (10, 10), (9000, 9000)) is None  # no part holds both
    assert part_in_view(Viewport.fitted((500, 400), (100, 50)).zoomed(3, 250, 200), 512) is None
    far = part_in_view(near, 512, (4000, 5000))  # moved so that the point is inside
    assert far is None or far.x0 <= 4000 <= far.x1


async def test_prompts_and_automatic_masks_go_to_the_part_in_view(tmp_path: Path) -> None:
    session = pictures()
    session.images[PARTICLES] = micrograph(2000, 2000)
    async with running(tmp_path, session) as ui:
        picture = ui.work.picture
        await ui.until(lambda: ui.work.model)
        assert "model sees" not in ui.work.status.text
        picture.move_cross_hair(1000, 1000)
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        assert session.parts == [None]
        await ui.press("escape", *["plus"] * 7)
        assert "model sees" in ui.work.status.text
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        part = session.parts[-1]
        assert part is not None
        assert part.x0 <= 1000 <= part.x1
        # Further points stay with the part while they are in it, wherever one looks; outside of it the question is a new one.
        await ui.press("0")
        picture.move_cross_hair(1020, 1000)
        await ui.press("space")
        await ui.until(lambda: len(session.parts) == 3 and ui.work.doc.candidate)
        assert session.parts[-1] == part
        assert session.calls[-1][1][0].mask_input == "logits-22"
        picture.move_cross_hair(5, 5)
        await ui.press("x")
        await ui.until(lambda: len(session.parts) == 4 and ui.work.doc.candidate)
        assert session.parts[-1] is None
        assert session.calls[-1][1][0].mask_input is None
        await ui.press("escape", *["plus"] * 7, "Y", "space")
        await ui.until(lambda: len(session.parts) == 5)
        assert session.parts[-1] is None
        await ui.press("escape", "a")
        await ui.dialog(AutoDialog)
        from textual.widgets import Select

        ui.app.screen.query_one("#where", Select).value = "view"
        await ui.pilot.pause()
        await ui.press("enter")
        await ui.until(lambda: len(session.parts) == 6)
        assert session.parts[-1] is not None


async def test_the_part_that_a_first_click_was_answered_from_is_gone_on_with(tmp_path: Path) -> None:
    session = pictures()
    session.images[PARTICLES] = micrograph(2000, 2000)
    session.closer = Box(896, 896, 1279, 1279)
    async with running(tmp_path, session) as ui:
        await ui.until(lambda: ui.work.model)
        ui.work.picture.move_cross_hair(1000, 1000)
        await ui.press("space")
        await ui.until(lambda: ui.work.doc.candidate)
        assert "model sees 384" in ui.work.status.text
        ui.work.picture.move_cross_hair(1020, 1000)
        await ui.press("x")
        await ui.until(lambda: len(session.parts) == 2 and ui.work.doc.candidate)
        assert session.parts == [session.closer] * 2
        assert session.calls[-1][1][0].mask_input == "logits-22"
        await ui.press("escape", "Y", "space")
        await ui.until(lambda: len(session.parts) == 3 and ui.work.doc.candidate)
        assert session.parts[-1] is None


async def test_a_click_on_the_ground_is_told_and_the_mask_can_be_kept_all_the_same(tmp_path: Path) -> None:
    session = pictures()
    session.predicted_iou = 0.02
    async with running(tmp_path, session) as ui:
        await ui.until(lambda: ui.work.model)
        await ui.press("space")
        await ui.until(lambda: "sees no object here" in ui.work.message.text)
        await ui.press("enter")
        assert len(ui.work.doc.masks) == 1


async def test_a_mask_without_logits_is_itself_the_prompt(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        await ui.until(lambda: ui.work.model)
        mask = disc(240, 320, 120, 120, 20)
        ui.work.doc.loaded([mask], "0")
        ui.work.show_document()
        ui.work.picture.move_cross_hair(140, 120)
        await ui.press("R", "space")
        await ui.until(lambda: ui.work.doc.candidate)
        prompt = ui.session.calls[-1][1][0]
        assert prompt.mask == mask.rle
        assert prompt.box is not None


def test_a_small_disc_in_a_large_picture_is_found_by_looking_closer(real_engine: Home, tmp_path: Path) -> None:
    large = np.random.default_rng(0).normal(80, 8, (2400, 2400)).clip(0, 255)
    yy, xx = np.ogrid[:2400, :2400]
    truth = (xx - 1500) ** 2 + (yy - 900) ** 2 <= 12**2
    large[truth] = 190
    Image.fromarray(large.astype(np.uint8)).save(tmp_path / "large.png")
    session = Session(Resolved(real_engine.config, {}), real_engine.paths)
    image = session.open_image(session.reference(str(tmp_path / "large.png")))
    part = Box(1300, 700, 1699, 1099)

    def iou(part: Box | None) -> float:
        (found,) = session.predict(image, [Prompt((Point(1500, 900),))], multimask_output=False, part=part)
        mask = found.candidates[0].mask
        bits = decode(mask.rle)
        assert bits.shape == truth.shape
        if part is not None:
            assert mask.origin is not None
            assert mask.origin.parameters["part"] == [1300, 700, 1699, 1099]
            assert mask.crop_box == (1300, 700, 400, 400)
        return float((bits & truth).sum() / (bits | truth).sum())

    assert session.embed(image, part).height == 400
    # Of the shipped weights more is asked than of those of chance.
    closer = iou(part)
    bitten = disc(2400, 2400, 1500, 900, 12)
    (refined,) = session.predict(image, [Prompt((Point(1500, 900),), mask=bitten.rle)], part=part)
    assert refined.candidates
    if session.model.id == "nano":
        assert closer > 0.8
        assert closer > iou(None)


def test_more_scales_are_advised_where_the_dialog_has_one() -> None:
    assert "both scales" in advice((1200, 1000), FakeModel(), AutoParameters(scale="whole"))
    assert advice((1200, 1000), FakeModel(), AutoParameters(scale="all")) == ""
    assert advice((900, 900), FakeModel(), AutoParameters(scale="whole")) == ""
