"""Sets of the predecessor that lie beside an image, through the real commands in this process."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_duo.errors import MaskFileError, SegduoError

HEIGHT, WIDTH = 40, 60
Run = Callable[..., "Told"]


class Told:
    """What a command wrote, and the error it ended with."""

    def __init__(self, stdout: str, stderr: str, error: SegduoError | None) -> None:
        self.stdout, self.stderr, self.error = stdout, stderr, error


@pytest.fixture
def run(empty_home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    Image.fromarray(np.full((HEIGHT, WIDTH), 90, np.uint8)).save(empty_home / "a.png")

    def run_command(*arguments: object) -> Told:
        from segment_duo.cli.main import app

        error = None
        try:
            app([str(argument) for argument in arguments], standalone_mode=False)
        except SegduoError as raised:
            error = raised
        said = capsys.readouterr()
        return Told(said.out, said.err, error)

    return run_command


def web_set(compressed: bool) -> bytes:
    """Two masks as the web app's second class keeps them: flat pixel indices, and how many pixels the image has."""
    arrays = [np.zeros((HEIGHT, WIDTH), bool) for _ in range(2)]
    arrays[0][3:9, 4:14] = True
    arrays[1][: HEIGHT // 2, : WIDTH // 2] = True
    records = []
    for array in arrays:
        indices = np.flatnonzero(array).astype(np.int32)
        records.append(
            {
                "segmentation": zlib.compress(indices.tobytes()) if compressed else indices,
                "area": float(array.sum()),
                "shape": array.shape,
                "compressed": compressed,
                "N_pix": array.size,
                "predicted_iou": 0.9,
                "stability_score": 0.95,
            }
        )
    return pickle.dumps(records)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("folder", ["masks", "."])
def test_read_beside_the_image_and_by_import(run: Run, empty_home: Path, compressed: bool, folder: str) -> None:
    place = empty_home / folder / ("a.pkl" if folder == "masks" else "other.pkl")
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(web_set(compressed))
    if folder == ".":
        assert run("masks", "import", "a.png", place).error is None
    told = run("masks", "show", "a.png")
    assert told.error is None
    assert [line.split("\t")[2] for line in told.stdout.splitlines()] == ["60", "600"]
    assert run("measure", "a.png").stdout.count("\n") == 3


def test_a_set_that_cannot_be_read_sends_nobody_in_a_circle(run: Run, empty_home: Path) -> None:
    (empty_home / "masks").mkdir()
    (empty_home / "masks" / "a.pkl").write_bytes(pickle.dumps([{"segmentation": 5}]))
    told = run("masks", "show", "a.png")
    assert isinstance(told.error, MaskFileError)
    assert "its only saved set cannot be read" in told.error.message
    assert "holds a mask as int" in told.error.message
    # What ends at the same error is not advised.
    assert "@" not in told.error.hint
    assert "segduo auto" in told.error.hint
    (empty_home / "masks" / "a_1.pkl").write_bytes(b"junk")
    told = run("masks", "show", "a.png")
    assert told.error is not None
    assert "none of its 2 saved sets can be read" in told.error.message


def test_a_set_that_cannot_be_read_does_not_count_as_done(empty_home: Path, run: Run) -> None:
    from segment_duo.config import load_config
    from segment_duo.session import Session

    (empty_home / "masks").mkdir()
    file = empty_home / "masks" / "a.pkl"
    told: list[str] = []
    session = Session(load_config({}), notify=told.append)
    ref = session.reference("a.png")
    file.write_bytes(pickle.dumps([{"segmentation": 5}]))
    assert not session.sets.has_sets(ref)
    assert "holds a mask as int" in told[0]
    file.write_bytes(web_set(True))
    assert session.sets.has_sets(ref)
