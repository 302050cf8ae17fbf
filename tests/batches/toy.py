"""A segmenter that costs nothing and misbehaves on demand: what it does with an image is drawn in the image's first pixel.

It computes in the process that uses it (``in_process``), so that a poison image kills a worker as a damaged file or a lack of memory would.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli_shell import Shell
from tests.plug_in_packages import install

PLAIN, HOLD, POISON = 10, 240, 250

SOURCE = f"""
import os, pathlib, signal, time
from segment_duo.segmenters.base import AutomaticRun, Capability, Family, Segmenter, SegmenterInfo, fingerprint

INFO = SegmenterInfo(
    id="toy", sha256=fingerprint("toy", "1"), capabilities=frozenset({{Capability.AUTOMATIC}}), licence="MIT"
)
CONTROL = pathlib.Path(os.environ["TOY_CONTROL"])


class Toy(Segmenter):
    info = INFO

    def automatic(self, pixels, parameters, **_):
        kind = pixels[0, 0, 0]
        if kind == {POISON}:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == {HOLD} and not (CONTROL / "go").exists():
            (CONTROL / f"holding-{{os.getpid()}}").touch()
            while not (CONTROL / "go").exists():
                time.sleep(0.02)
        return AutomaticRun.of_labels((pixels[..., 0] > 100).astype("int32"))


FAMILY = Family(load=lambda request: Toy(), info=INFO)
"""


NO_TORCH = """
# What the engine asks torch for before it loads a model. Importing the real one takes a toy's process seconds of processor time.
class device(str):
    @property
    def type(self):
        return str(self)

def set_num_threads(count): pass
def get_num_threads(): return 1

class _Absent:
    def is_available(self): return False

cuda = _Absent()
class backends:
    mps = _Absent()
"""


class ToyShell(Shell):
    """A shell whose model is the toy; images in ``images/``, control files in ``control/``."""

    def draw(self, name: str, kind: int = PLAIN) -> Path:
        pixels = np.full((12, 16), 10, np.uint8)
        pixels[4:8, 4:10] = 200
        pixels[0, 0] = kind
        # What makes each image another: equal pixels are computed once.
        pixels[11] = [sum(name.encode()) % 90] * 16
        file = self.folder / "images" / name
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
        return file

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def holders(self) -> list[int]:
        """Process ids of those that hold."""
        return [int(file.name.partition("-")[2]) for file in self.control.glob("holding-*")]

    def go_on(self) -> None:
        (self.control / "go").touch()

    def sets(self) -> list[str]:
        """Names of all saved sets, sorted."""
        return sorted(file.name for file in (self.folder / "images/masks").glob("*.pkl"))


@pytest.fixture
def toy(tmp_path: Path) -> ToyShell:
    folder, packages, home = tmp_path / "work", tmp_path / "packages", tmp_path / "home"
    for new in (folder, folder / "control", packages, home):
        new.mkdir()
    install(packages, "toy", SOURCE)
    (packages / "torch.py").write_text(NO_TORCH)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return ToyShell(
        folder,
        kept
        | {
            "HOME": str(home),
            "SEGDUO_HOME": str(home / "segduo"),
            "SEGDUO_IN_PROCESS": "1",
            "SEGDUO_MODEL": "toy",
            "PYTHONPATH": os.pathsep.join([str(packages), *sys.path[:1]]),
            "TOY_CONTROL": str(folder / "control"),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        },
    )
