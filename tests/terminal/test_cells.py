"""Characters of 4, 6 and 8 dots."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from segment_duo.terminal.cells import SIGNS, fine_cells

NUMBERS = {2: 16, 3: 64, 4: 256}


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_every_pattern_has_a_character_of_its_own(rows: int) -> None:
    assert len(set(SIGNS[rows])) == NUMBERS[rows] == len(SIGNS[rows])


def test_the_characters_are_those_of_their_names() -> None:
    for bits, sign in enumerate(SIGNS[3]):
        name = unicodedata.name(sign, "")
        if name.startswith("BLOCK SEXTANT-"):
            assert name == "BLOCK SEXTANT-" + "".join(str(dot + 1) for dot in range(6) if bits >> dot & 1)
    # From the names list of Unicode 16, which this Python may not know: octants 3, 23, 14, 25, 2345678.
    known = {
        0x04: 0x1CD00,
        0x06: 0x1CD01,
        0x09: 0x1CD04,
        0x12: 0x1CD0B,
        0xFE: 0x1CDE5,
        0x0F: 0x2580,
        0x55: 0x258C,
        0x05: 0x2598,
    }
    assert {bits: ord(SIGNS[4][bits]) for bits in known} == known


@pytest.mark.parametrize("rows", [2, 4])
def test_two_colours_come_out_as_they_went_in(rows: int) -> None:
    """Every pattern, in white on black; sextants, whose rows do not fit four of pixels, are below."""
    for bits, sign in enumerate(SIGNS[rows]):
        lit = np.array([bits >> dot & 1 for dot in range(2 * rows)]).reshape(rows, 2)
        pixels = np.repeat(np.repeat(lit, 4 // rows, axis=0)[..., None], 3, axis=2).astype(np.uint8) * 252
        ((cell,),) = fine_cells(pixels, rows)
        assert cell.style is not None
        if bits in (0, 2 ** (2 * rows) - 1):
            assert cell.text == " "
            continue
        assert cell.style.color is not None
        if cell.style.color.triplet == (0, 0, 0):  # the half block, upside down
            assert (cell.text, sign) == ("▀", "▄")
        else:
            assert cell.text == sign
            assert cell.style.color.triplet == (252, 252, 252)


def test_sextants_part_a_cell_in_three_rows() -> None:
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[0] = 240
    ((cell,),) = fine_cells(pixels, 3)
    assert cell.text == SIGNS[3][0b000011]


def test_smooth_and_noisy_ground_stays_in_half_blocks() -> None:
    noisy = np.random.default_rng(0).normal(120, 4, (400, 200)).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(noisy[..., None], 3, axis=2)
    signs = [cell.text for row in fine_cells(pixels, 4) for cell in row]
    assert sum(sign in "▀ " for sign in signs) > 0.95 * len(signs)


def test_a_hue_is_an_edge_too() -> None:
    pixels = np.full((4, 2, 3), 100, np.uint8)
    pixels[:, 1] = (160, 60, 100)
    ((cell,),) = fine_cells(pixels, 4)
    assert cell.text in "▌▐"
