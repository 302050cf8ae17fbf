"""The benchmark of long films in small: objects followed by memory (random weights), the command killed up to three times, then its engine too."""

from __future__ import annotations

from pathlib import Path

from benchmarks.tracking.long import measure


def test_a_film_followed_by_memory_survives_kills(tmp_path: Path) -> None:
    result = measure("memory", tmp_path, frames=12, kills=3, size=64, seed=1)
    assert result.kills
    assert (result.lost, result.twice) == (0, 0)
