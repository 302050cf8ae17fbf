"""``docs/load_masks.py``: one file that works without the program."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segment_duo.masks import load_masks, rle
from segment_duo.masks.formats import native
from segment_duo.types import Mask, MaskSet, Provenance

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = Path(load_masks.__file__)


def two_masks() -> tuple[MaskSet, list[np.ndarray]]:
    arrays = [np.zeros((9, 14), bool) for _ in range(2)]
    arrays[0][2:5, 3:8] = True
    arrays[1][4:9, 6:14:2] = True
    codes = [rle.encode(array) for array in arrays]
    masks = tuple(
        Mask(code, rle.area(code), rle.bounding_box(code), id=n, label=f"p{n}", predicted_iou=0.5 + n / 10)
        for n, code in enumerate(codes)
    )
    return MaskSet(masks, Provenance(operation="auto", parameters={"a": 1})), arrays


def run_bare(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run where only the loader and NumPy can be imported."""
    shutil.copy(SOURCE, folder / "load_masks.py")
    start = f"import sys; sys.modules['segment_duo'] = None; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-c", start + script, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
    )


def test_the_copy_in_docs_is_the_same_file() -> None:
    assert (REPOSITORY / "docs" / "load_masks.py").read_bytes() == SOURCE.read_bytes()


@pytest.mark.parametrize("legacy", [False, True])
def test_arrays_in_a_bare_environment(tmp_path: Path, legacy: bool) -> None:
    mask_set, arrays = two_masks()
    (tmp_path / "a.pkl").write_bytes(native.dumps(mask_set, legacy=legacy))
    done = run_bare(
        tmp_path,
        "import numpy, load_masks\n"
        "masks = load_masks.load('a.pkl')\n"
        "numpy.save('out.npy', numpy.stack([mask.array for mask in masks]))\n"
        "print([(m.id, m.label, m.area, m.predicted_iou) for m in masks])\n"
        "print(load_masks.load_provenance('a.pkl')['operation'])\n",
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.stack(arrays))
    assert done.stdout == "[(0, 'p0', 15, 0.5), (1, 'p1', 20, 0.6)]\nauto\n"


def test_nothing_of_a_hostile_file_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return open, (str(tmp_path / "made"), "w")

    (tmp_path / "a.pkl").write_bytes(pickle.dumps([Evil()]))
    done = run_bare(tmp_path, "import load_masks; load_masks.load('a.pkl')")
    assert re.search(r"DamagedMaskFile: asks for _?io\.open", done.stderr)  # Python 3.12 calls it _io.open
    assert not (tmp_path / "made").exists()


def test_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(native.dumps(two_masks()[0]))
    done = run_bare(tmp_path, "import runpy; runpy.run_path('load_masks.py', run_name='__main__')", "a.pkl")
    assert done.stdout.splitlines()[0] == "0\t15 px\t[3.0, 2.0, 4.0, 2.0]", done.stderr


def test_arrays_of_stock_records_and_uncompressed_runs() -> None:
    array = np.arange(6).reshape(2, 3) % 2 == 0
    objects = load_masks.read_objects(pickle.dumps([{"segmentation": array}]))
    np.testing.assert_array_equal(load_masks.LoadedMask(objects[0][0], 0).array, array)
    runs = {"segmentation": {"size": [2, 3], "counts": [1, 2, 3]}}
    expected = np.array([[False, True, False], [True, False, False]])
    np.testing.assert_array_equal(load_masks.mask_array(runs), expected)
    with pytest.raises(load_masks.DamagedMaskFile, match="runs of 3 pixels"):
        load_masks.mask_array({"segmentation": {"size": [2, 3], "counts": [1, 2]}})
