"""Short forms of ``benchmarks/reliability``: nothing is lost, torn, doubled, hung or left unexplained."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.reliability import kills, mutants, sockets
from benchmarks.reliability.ground import Row
from tests.engine_fixtures import Home, ThreadedEngine, home, threaded  # noqa: F401


def test_a_killed_save_leaves_a_whole_version_or_none(tmp_path: Path) -> None:
    row = kills.command(tmp_path, 3)
    assert row.good, row


def test_mutated_files_are_read_or_refused() -> None:
    row = mutants.mutants(100)
    assert (row.good, row.tries) == (True, 100), row


def test_a_row_that_counts_anything_is_not_good() -> None:
    row = Row("x", tries=1)
    row.count("torn", "a set")
    assert not row.good
    assert not Row("nothing was tried").good


def test_malformed_requests_are_answered_and_leave_the_engine_as_it_was(
    threaded: Callable[..., ThreadedEngine], home: Home
) -> None:
    client = threaded().client()
    pixels = np.zeros((96, 96, 3), np.uint8)
    known = client.ensure_image(pixels).id
    row = Row("malformed requests")
    sockets.attack(home.settings.socket, 150, row, known=known)
    assert (row.good, row.tries) == (True, 150), row
    assert client.ensure_image(pixels).id == known
