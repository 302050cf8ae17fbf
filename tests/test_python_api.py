"""The Python API: the page's examples as they stand, and what notebooks do wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import segment_duo as sd
from segment_duo.errors import ImageError, InputError, PromptError, UsageError
from segment_duo.provenance import of_set

ROOT = Path(__file__).resolve().parents[1]
DISC = np.where((np.arange(120)[None, :] - 60) ** 2 + (np.arange(100)[:, None] - 50) ** 2 < 400, 50_000, 9_000).astype(
    np.uint16
)


def test_the_pages_examples_run_in_an_empty_home(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 5
    shutil.copy(ROOT / "examples" / "particles.tif", tmp_path)
    script = tmp_path / "page.py"
    # A coarse grid in the one example that is slow with the full one.
    script.write_text(
        "\n".join(examples).replace('sd.auto("particles.tif")', 'sd.auto("particles.tif", points_per_side=12)')
    )
    environment = {**os.environ, "SEGDUO_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"disc.pkl", "masks"} <= {entry.name for entry in tmp_path.iterdir()}
    assert {"particles_python.pkl", "particles_large.pkl"} <= {entry.name for entry in (tmp_path / "masks").iterdir()}


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import segment_duo, sys; print(sorted({'numpy', 'torch', 'pydantic', 'segment_duo.api'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from segment_duo import api

    monkeypatch.setenv("SEGDUO_HOME", str(tmp_path))
    api._session.cache_clear()
    return tmp_path


def test_a_click_on_a_disc_of_an_array_is_the_disc(home: Path) -> None:
    found = sd.point(DISC, [[60, 50]])
    truth = DISC > 20_000
    overlap = np.logical_and(found.masks[0], truth).sum() / np.logical_or(found.masks[0], truth).sum()
    assert overlap > 0.8
    assert len(sd.point(DISC, [[60, 50]], multimask_output=True)) == 3
    assert found[0].origin is not None
    assert found[0].origin.operation == "point"
    # Two saves of one array never meet.
    target = home / "x" / "disc.pkl"
    found.save(target)
    with pytest.raises(Exception, match="exists"):
        found.save(target)
    assert np.array_equal(sd.open(target).masks[0], found.masks[0])


def test_what_goes_wrong_says_what_to_do(home: Path) -> None:
    with pytest.raises(ImageError, match="shape"):
        sd.auto(np.zeros((3, 4, 5, 6)))
    with pytest.raises(ImageError, match="complex"):
        sd.auto(np.zeros((30, 40), complex))
    with pytest.raises(UsageError, match="1 points, but 2 labels"):
        sd.point(DISC, [[60, 50]], [1, 1])
    with pytest.raises(PromptError, match="outside"):
        sd.point(DISC, [[600, 50]])
    with pytest.raises(TypeError, match="no_such"):
        sd.auto(DISC, no_such=1)
    with pytest.raises(InputError, match="no image file"):
        sd.point(DISC, [[60, 50]]).save()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32, np.float64])
def test_any_depth_gives_the_same_picture(home: Path, dtype: type) -> None:
    from segment_duo.images import read_array

    samples = (DISC > 20_000).astype(dtype)
    pixels = read_array(samples, name="a").pixels
    assert pixels.shape == (100, 120, 3)
    assert pixels[50, 60, 0] > pixels[0, 0, 0]
    assert np.array_equal(read_array(np.dstack([samples] * 4), name="a").pixels[..., 0] > 0, pixels[..., 0] > 0)


def test_an_empty_result_still_knows_its_model() -> None:
    from segment_duo.images import read_array
    from segment_duo.types import ImageIdentity, ModelIdentity

    facts = read_array(DISC, name="a").facts
    model = ModelIdentity("nano", "0" * 64)
    provenance = of_set(ImageIdentity("/a", "0", 120, 100), facts, (), operation="auto", model=model)
    assert provenance.model == model
    assert of_set(ImageIdentity("/a", "0", 120, 100), facts, (), operation="point").model is None
