"""Review: the order of the list, what it shows, and verdicts with their counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from textual.widgets import Input

from segment_duo.tui.listing import ORDERS, SizeFilter
from segment_duo.tui.screens.size_filter import SizeFilterDialog
from segment_duo.tui.state import Document
from segment_duo.types import Mask
from tests.tui_fakes import disc
from tests.tui_pilot import colours, running

__all__ = ["colours"]


def masks() -> tuple[Mask, ...]:
    sizes = [(40, 0.9, 0.95, "b"), (9, 0.5, 0.9, ""), (11, 0.8, 0.6, "a"), (10, None, None, "b")]
    return tuple(
        disc(240, 320, 50 + 60 * i, 60, radius, id=i, predicted_iou=iou, stability_score=stability, label=label)
        for i, (radius, iou, stability, label) in enumerate(sizes)
    )


def test_orders() -> None:
    document = Document()
    document.loaded(masks(), "0")
    found = {}
    for order in ORDERS:
        document.order = order
        found[order] = [mask.id for mask in document.shown]
    assert found == {
        "in order of ids": [0, 1, 2, 3],
        "least certain first": [1, 2, 0, 3],  # 0.5, 0.6, 0.9; without scores last
        "odd sizes first": [0, 1, 3, 2],
        "largest first": [0, 2, 3, 1],
        "by label": [2, 0, 3, 1],
    }
    document.order = "least certain first"
    document.current = 1
    assert [document.step(1), document.step(1)] == [2, 0]
    document.set_filter(SizeFilter(largest=400))
    assert [mask.id for mask in document.shown] == [1, 2, 3]
    document.delete([2])
    assert [mask.id for mask in document.shown] == [1, 3]


def test_filter_by_score_and_label() -> None:
    assert [m.id for m in masks() if SizeFilter(iou_most=0.8).accepts(m)] == [1, 2]
    assert [m.id for m in masks() if SizeFilter(label="B").accepts(m)] == [0, 3]
    assert str(SizeFilter(100, None, 0.8, "b")) == "from 100 px, IoU ≤ 0.8, “b”"
    assert not SizeFilter()


def test_verdicts_go_with_their_masks() -> None:
    document = Document()
    document.loaded(masks(), "0")
    document.judge(1, False)
    document.judge(2, True)
    assert document.judged() == (1, 1, 2)
    document.current = 1
    assert document.next_unjudged().id == 3
    document.current = 3
    document.judge(3, True)
    assert document.next_unjudged().id == 0
    assert not document.unsaved
    document.delete([1])
    assert document.judged() == (2, 0, 1)
    document.undo()
    assert document.verdicts[1] is False
    document.correct("brush", [((2,), [replace(document.mask(2), area=5)])])
    assert 2 not in document.verdicts  # another shape wants another look
    document.judge(0, None)
    assert document.judged() == (1, 1, 2)


async def test_review_by_keys(tmp_path: Path) -> None:
    async with running(tmp_path) as ui:
        doc = ui.work.doc
        doc.loaded(masks(), "0")
        ui.work.show_document()
        await ui.press("V")
        assert doc.order == "least certain first"
        assert doc.current == 1
        assert ui.work.picture.cross_hair == (110, 60)
        assert "least certain first" in ui.work.mask_list.border_title
        await ui.press("w", "y")
        assert doc.verdicts == {1: False, 2: True}
        assert doc.current == 0
        assert "1 accepted, 1 rejected, 2 left" in ui.work.message.text
        assert "1✓ 1✗" in ui.work.mask_list.border_title
        assert "1✗" in ui.text()
        await ui.press("N", "y")  # the same verdict again takes it back
        assert doc.verdicts == {1: False}
        assert doc.current == 2
        await ui.press("D")
        assert [mask.id for mask in doc.masks] == [0, 2, 3]
        await ui.press("u")
        assert len(doc.masks) == 4
        assert doc.verdicts == {1: False}
        await ui.press("f")
        await ui.dialog(SizeFilterDialog)
        ui.app.screen.query_one("#label", Input).value = "b"
        await ui.pilot.pause()
        assert "2 of 4 masks" in ui.text()
        await ui.press("enter")
        await ui.until(lambda: [mask.id for mask in doc.shown] == [0, 3])
