"""What the engine takes of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from segment_duo.engine.device import allowed_threads


@pytest.mark.parametrize(
    ("text", "threads"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None), ("1 0", None)]
)
def test_no_more_threads_than_the_containers_quota_pays_for(tmp_path: Path, text: str, threads: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert allowed_threads(file) == threads
    assert allowed_threads(tmp_path / "none") is None
