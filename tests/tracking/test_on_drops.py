"""``segduo track`` of sequences on the file server: stacks, folders, patterns, and a server that goes away."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from segment_duo.masks.formats.sequence import SequenceSet
from tests.cli_shell import Shell
from tests.drops_server import DropsServer
from tests.tracking.films import growing, write_stack

WATERSHED = ("--link", "--model", "watershed")
FRAMES = 4


@pytest.fixture
def drops(tmp_path: Path) -> Iterator[DropsServer]:
    pictures, _ = growing(FRAMES)
    with DropsServer(tmp_path / "drops") as server:
        server.put("/labdaq/film.tif", write_stack(tmp_path / "film.tif", pictures).read_bytes())
        for number, picture in enumerate(pictures):
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "PNG")
            server.put(f"/labdaq/scan/t_{number}.png", content.getvalue())
        yield server


@pytest.fixture
def lab(shell: Shell, drops: DropsServer) -> Shell:
    shell.environment |= drops.environment
    return shell


def sets(drops: DropsServer) -> list[str]:
    return sorted(path for path in drops.files() if path.endswith(".pkl"))


def frames(drops: DropsServer, path: str) -> list[int]:
    """How many masks each frame of a delivered set has."""
    with SequenceSet.open(drops.root / path.lstrip("/")) as found:
        assert found.finished
        return [len(seen.masks) for seen in found]


def test_stacks_folders_and_patterns(lab: Shell, drops: DropsServer) -> None:
    done = lab.run("track", "/drops/labdaq/film.tif", *WATERSHED).ok()
    assert done.lines == ["/drops/labdaq/masks/film.pkl"]
    lab.run("track", "/drops/labdaq/scan", *WATERSHED).ok()
    lab.run("track", "/drops/labdaq/scan/t_*.png", *WATERSHED, "--frames", "1:4").ok()
    assert sets(drops) == ["/labdaq/masks/film.pkl", "/labdaq/masks/scan.pkl", "/labdaq/scan/masks/t.pkl"]
    assert frames(drops, "/labdaq/masks/film.pkl") == frames(drops, "/labdaq/masks/scan.pkl") == [2] * FRAMES
    assert frames(drops, "/labdaq/scan/masks/t.pkl") == [2] * (FRAMES - 1)
    # What is made of a set goes there too, under the next version.
    lab.run("masks", "label", "/drops/labdaq/film.tif", "2", "rod").ok()
    lab.run("track", "/drops/labdaq/film.tif", "--onto", "0", "-p", "66,34,1,2@2", "--model", "nano").ok()
    assert sets(drops)[:3] == ["/labdaq/masks/film.pkl", "/labdaq/masks/film_1.pkl", "/labdaq/masks/film_2.pkl"]
    table = lab.run("masks", "export", "/drops/labdaq/film.tif@1", "-f", "tracks-csv", "-t", "-").ok()
    assert [line.rsplit(",", 1)[1] for line in table.lines] == ["label", *["", "rod"] * FRAMES]


def test_a_server_away_while_the_set_is_saved_loses_nothing(lab: Shell, drops: DropsServer) -> None:
    drops.faults.routes, drops.faults.status = ("/upload/",), 503
    failed = lab.run("track", "/drops/labdaq/film.tif", *WATERSHED)
    assert failed.code == 5
    assert "What was found is kept: the same command saves it." in failed.stderr
    assert sets(drops) == []
    drops.faults.clear()
    again = lab.run("track", "/drops/labdaq/film.tif", *WATERSHED, "--json").ok().json
    assert (again["saved"], again["resumed"]) == ("/drops/labdaq/masks/film.pkl", FRAMES)
    assert sets(drops) == ["/labdaq/masks/film.pkl"]
    assert frames(drops, "/labdaq/masks/film.pkl") == [2] * FRAMES
    # A label is given again as easily as it was given: nothing is left behind.
    drops.faults.status = 503
    left = set(lab.folder.parent.rglob("*.part"))
    assert lab.run("masks", "label", "/drops/labdaq/film.tif", "2", "rod").code == 5
    assert set(lab.folder.parent.rglob("*.part")) == left
