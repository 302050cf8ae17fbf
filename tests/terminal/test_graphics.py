"""Pictures as escape sequences: each method's bytes are read back and compared with the pixels."""

from __future__ import annotations

import base64
import io
import re
import sys

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from segment_duo.terminal import graphics
from segment_duo.terminal.compose import MaskCrops, Overlay, compose
from segment_duo.terminal.graphics import Method, Terminal
from segment_duo.terminal.viewport import Viewport
from segment_duo.types import Box, Mask, Point
from tests.tui_fakes import disc


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_half_cells_show_two_dots_a_cell() -> None:
    pixels = noise(6, 5) & 0xFC
    pixels[2, 1] = pixels[3, 1]
    rows = graphics.half_cells(pixels)
    assert [len(row) for row in rows] == [5, 5, 5]
    for y, row in enumerate(rows):
        for x, segment in enumerate(row):
            lower = tuple(segment.style.bgcolor.triplet)
            upper = tuple(segment.style.color.triplet) if segment.text == "▀" else lower
            assert (upper, lower) == (tuple(pixels[2 * y, x]), tuple(pixels[2 * y + 1, x]))
    assert rows[1][1].text == " "


def test_dither_keeps_the_mean_grey_and_black_black() -> None:
    ramp = np.repeat(np.linspace(40, 250, 64)[None, :, None], 64, axis=0).repeat(3, axis=2).astype(np.uint8)
    out = graphics.dithered(ramp)
    assert set(np.unique(out)) <= {0, 128, 192, 255}
    assert abs(out.mean() - ramp.mean()) < 8
    assert (np.diff(out.mean(axis=(0, 2)).reshape(8, 8).mean(axis=1)) > 0).all()
    dark = np.full((4, 4, 3), 24, np.uint8)
    assert not graphics.dithered(dark).any()
    green = np.full((4, 4, 3), (0, 200, 140), np.uint8)
    assert (graphics.dithered(green) == green).all()


def _kitty_messages(text: str) -> list[tuple[dict[str, str], str]]:
    found = re.findall("\x1b_G([^;\x1b]*)(?:;([^\x1b]*))?\x1b\\\\", text)
    return [(dict(pair.split("=") for pair in keys.rstrip(",").split(",")), payload) for keys, payload in found]


def test_kitty_sends_the_picture_once_and_places_it() -> None:
    pixels = noise(200, 300)
    messages = _kitty_messages(graphics.kitty_transmit(pixels, 77, 30, 10))
    *parts, placement = messages
    assert parts[0][0]["a"] == "t"
    assert all(keys["i"] == "77" and keys["q"] == "2" for keys, _ in messages)
    assert [keys["m"] for keys, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    assert max(len(payload) for _, payload in parts) <= 4096
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(payload for _, payload in parts)))))
    assert (sent == pixels).all()
    assert (placement[0]["a"], placement[0]["U"], placement[0]["c"], placement[0]["r"]) == ("p", "1", "30", "10")


def test_kitty_deletes_by_number_and_frees() -> None:
    ((keys, _),) = _kitty_messages(graphics.kitty_delete(77))
    assert keys == {"a": "d", "d": "I", "i": "77", "q": "2"}


def test_kitty_placeholders_name_row_column_and_picture() -> None:
    rows = graphics.kitty_rows(0x123456, 4, 3)
    segment = rows[2][3]
    assert segment.text == "\U0010eeee" + graphics.MARKS[2] + graphics.MARKS[3]
    assert cell_len(segment.text) == 1
    assert tuple(segment.style.color.triplet) == (0x12, 0x34, 0x56)


def test_marks_are_those_of_the_protocol() -> None:
    from textual_image.renderable import tgp

    known = [chr(number) for number in tgp._NUMBER_TO_DIACRITIC]
    assert list(graphics.MARKS) == known
    assert len(set(graphics.MARKS)) == 297


def test_tmux_passes_kitty_through() -> None:
    plain, wrapped = graphics.kitty_delete(5), graphics.kitty_delete(5, tmux=True)
    assert wrapped == "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def test_sixel_has_the_size_of_the_picture() -> None:
    text = graphics.sixel(noise(40, 60))
    assert text.startswith("\x1bP")
    assert text.endswith("\x1b\\")
    assert '"1;1;60;40' in text
    assert text.count("-") >= 40 // 6


def test_picture_is_drawn_at_a_cell_and_the_cursor_comes_back() -> None:
    assert graphics.at_position("X", 4, 2) == "\x1b[?2026h\x1b7\x1b[3;5HX\x1b8\x1b[?2026l"


@pytest.mark.parametrize("wanted", ["kitty", "sixel", "halfcell"])
def test_override_wins(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert graphics.detect(wanted).method == Method(wanted)


def test_no_color_means_half_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    terminal = graphics.detect("kitty")
    assert terminal.method is Method.HALFCELL
    assert "NO_COLOR" in terminal.reason


def test_not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    assert graphics.detect().reason == "not a terminal"


@pytest.mark.parametrize(
    ("chosen", "method"), [("SixelImage", Method.SIXEL), ("TGPImage", Method.KITTY), ("HalfcellImage", Method.HALFCELL)]
)
def test_the_librarys_verdict_counts(chosen: str, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    from textual_image import renderable

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError("no descriptor")

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "__stdout__", Tty())
    monkeypatch.setattr(renderable, "Image", getattr(renderable, chosen))
    assert graphics.detect().method is method


def test_report_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "")
    rows = {what: (value, advice) for what, value, advice in graphics.terminal_report()}
    assert set(rows) == {"pictures", "terminal", "cell size"}
    assert "COLORTERM=truecolor" in rows["terminal"][1]


def test_screen_pixels() -> None:
    assert Terminal(Method.HALFCELL, (8, 17)).screen_pixels == (1, 2)
    assert Terminal(Method.KITTY, (8, 17)).screen_pixels == (8, 17)


# Overlays


def grey(view: Viewport) -> np.ndarray:
    return np.full((view.pixel_rows, view.pixel_columns, 3), 100, np.uint8)


def test_selected_mask_is_tinted_green_and_outlined() -> None:
    view = Viewport.fitted((100, 100), (100, 50))
    one = disc(100, 100, 50, 50, 20, id=1)
    out = compose(grey(view), view, Overlay((one,), frozenset({1})), MaskCrops())
    assert tuple(out[50, 50]) == (58, 142, 116)  # 58 % grey, 42 % green
    assert tuple(out[50, 30]) == (0, 200, 140)  # the outline is on the mask's own edge
    assert tuple(out[50, 29]) == (100, 100, 100)


def test_current_candidate_box_and_points() -> None:
    view = Viewport.fitted((100, 100), (100, 50))
    one, two = disc(100, 100, 25, 25, 10, id=1), disc(100, 100, 70, 70, 15)
    overlay = Overlay(
        (one,), frozenset(), 1, two, (Point(70, 70), Point(10, 90, 0)), Box(5, 5, 45, 45), burn_points=True
    )
    out = compose(grey(view), view, overlay, MaskCrops())
    assert tuple(out[25, 15]) == (240, 228, 66)
    assert tuple(out[70, 55]) == (255, 255, 255)
    assert tuple(out[5, 20]) == (240, 228, 66)
    assert tuple(out[70, 70]) == (0, 158, 115)
    assert tuple(out[90, 10]) == (213, 94, 0)


def test_mask_smaller_than_a_dot_stays_visible() -> None:
    view = Viewport.fitted((1000, 1000), (20, 10))
    small = disc(1000, 1000, 520, 510, 2, id=1)
    out = compose(grey(view), view, Overlay((small,)), MaskCrops())
    assert (out != 100).any(axis=2).sum() == 1


def test_only_the_visible_part_is_drawn() -> None:
    view = Viewport.fitted((1000, 1000), (50, 25)).zoomed(10, 100, 100)
    far = disc(1000, 1000, 900, 900, 30, id=1)
    assert (compose(grey(view), view, Overlay((far,)), MaskCrops()) == 100).all()


def test_large_mask_does_not_hide_a_small_one() -> None:
    view = Viewport.fitted((100, 100), (100, 50))
    large, small = disc(100, 100, 50, 50, 40, id=1), disc(100, 100, 50, 50, 8, id=2)
    for order in ((large, small), (small, large)):
        out = compose(grey(view), view, Overlay(order), MaskCrops())
        assert int(out[50, 42, 2]) > int(out[50, 46, 2]) + 40  # its blue outline


def test_crops_are_bounded() -> None:
    crops = MaskCrops(bound=5000)
    masks = [disc(100, 100, 50, 50, radius) for radius in range(10, 30)]
    for mask in masks:
        crops.get(mask.rle)
    assert crops._crops.used <= 5000
    x, y, bits = crops.get(masks[0].rle)
    assert bits.sum() == masks[0].area
    assert (x, y) == (40, 40)


def test_empty_mask_draws_nothing() -> None:
    view = Viewport.fitted((10, 10), (10, 5))
    from segment_duo.masks.rle import encode

    empty = Mask(encode(np.zeros((10, 10), bool)), 0, (0, 0, 0, 0), id=1)
    assert (compose(grey(view), view, Overlay((empty,)), MaskCrops()) == 100).all()
