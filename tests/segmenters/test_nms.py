"""Box NMS: torchvision's own results, without torchvision's import."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from segment_duo.segmenters.sam2.nms import suppress


def boxes_and_scores(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 300
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 60], dim=1)
    scores = (torch.rand(count, generator=generator) * 20).round() / 20  # many are equal: their order counts too
    return boxes, scores


@pytest.mark.parametrize("count", [0, 1, 60, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("limit", [0.2, 0.7])
def test_it_keeps_what_torchvision_keeps_in_its_order(count: int, limit: float) -> None:
    from torchvision.ops import batched_nms

    boxes, scores = boxes_and_scores(count)
    expected = batched_nms(boxes, scores, torch.zeros(count), limit).tolist()
    assert suppress(boxes, scores, limit) == expected
    if count > 50 and limit < 0.5:
        assert 1 < len(expected) < count


def test_torchvision_is_not_imported() -> None:
    code = (
        "import sys, torch; from segment_duo.segmenters.sam2.nms import suppress;"
        "print(suppress(torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]), torch.tensor([0.5, 0.9, 0.1]), 0.5));"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["[1, 2]", "False"]


def test_without_the_library_the_package_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from segment_duo.segmenters.sam2 import nms

    monkeypatch.setattr(torch.ops, "load_library", lambda path: (_ for _ in ()).throw(OSError(path)))
    nms._operator.cache_clear()
    boxes, scores = boxes_and_scores(60)
    try:
        fallen_back = suppress(boxes, scores, 0.5)
    finally:
        nms._operator.cache_clear()
        monkeypatch.undo()
    assert fallen_back == suppress(boxes, scores, 0.5)
