"""Masks drawn over what is kept of the last picture look as if drawn anew."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.viewport import Viewport
from segment_duo.types import Mask
from tests.tui_fakes import disc

HEIGHT, WIDTH = 240, 320


@pytest.mark.parametrize("seed", range(4))
def test_edits_and_selections_are_drawn_as_if_anew(seed: int) -> None:
    rng = random.Random(seed)

    def mask(number: int) -> Mask:
        made = disc(HEIGHT, WIDTH, rng.randrange(WIDTH), rng.randrange(HEIGHT), rng.randrange(1, 40), id=number)
        return replace(made, label=rng.choice(["", "pore"]))

    masks = [mask(number) for number in range(30)]
    kept = MaskCrops()
    whole = Viewport.fitted((WIDTH, HEIGHT), (60, 30), (1, 2))
    for step in range(60):
        place = rng.randrange(len(masks))
        edit = rng.choice(["add", "remove", "change", "shuffle", "none"])
        if edit == "add":
            masks.insert(place, mask(100 + step))
        elif edit == "remove" and len(masks) > 5:
            del masks[place]
        elif edit == "change":
            masks[place] = mask(masks[place].id)
        elif edit == "shuffle":
            rng.shuffle(masks)
        overlay = Overlay(
            masks=tuple(masks),
            selected=frozenset(one.id for one in rng.sample(masks, rng.randrange(5))),
            current=masks[0].id,
            colours=(("pore", (200, 90, 10)),),
            by_id=step > 40,
        )
        view = whole.zoomed(1.5, 160, 100) if step % 20 > 12 else whole
        base = np.full((view.pixel_rows, view.pixel_columns, 3), 90, np.uint8)
        assert (compose(base.copy(), view, overlay, kept) == compose(base.copy(), view, overlay, MaskCrops())).all()
