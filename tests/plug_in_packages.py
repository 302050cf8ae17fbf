"""Packages that bring a segmenter, written into a folder as ``pip install --target`` leaves them: a module and its metadata with an entry point."""

from __future__ import annotations

from pathlib import Path

TOY = '''
"""A toy segmenter: bright pixels are objects."""

from segment_duo.segmenters.base import AutomaticRun, CandidateMask, Capability, Family, Segmenter, SegmenterInfo, fingerprint

INFO = SegmenterInfo(
    id="toy",
    sha256=fingerprint("toy", "1"),
    capabilities=frozenset({Capability.POINTS, Capability.AUTOMATIC}),
    licence="MIT",
    description="bright connected regions",
)


class Labels:
    def __init__(self, labels):
        self.labels = labels
        self.height, self.width = labels.shape
        self.nbytes = labels.nbytes

    def to_arrays(self):
        return {"labels": self.labels}


class Toy(Segmenter):
    info = INFO

    def embed(self, pixels):
        import numpy as np
        from scipy import ndimage

        return Labels(ndimage.label(pixels.mean(axis=2) > 120)[0].astype(np.int32))

    def restore(self, arrays):
        return Labels(arrays["labels"])

    def predict(self, embedding, prompts, *, preview_max_side=None, check=lambda: None):
        answers = []
        for prompt in prompts:
            check()
            x, y = prompt.points[0].round().astype(int)
            number = embedding.labels[y, x]
            answers.append((CandidateMask.of((embedding.labels == number) & (number > 0), 0.9),))
        return answers

    def automatic(self, pixels, parameters, *, embedding=None, **_):
        labels = self.embed(pixels).labels if embedding is None else embedding.labels
        return AutomaticRun.of_labels(labels, ["toy: pixels above 120"])


FAMILY = Family(load=lambda request: Toy(), info=INFO)
'''
"""Clicks and automatic masks."""

AUTOMATIC_ONLY = """
from segment_duo.segmenters.base import AutomaticRun, Capability, Family, Option, Segmenter, SegmenterInfo, fingerprint

INFO = SegmenterInfo(
    id="bright", sha256=fingerprint("bright", "1"), capabilities=frozenset({Capability.AUTOMATIC}), licence="MIT",
    options={"above": Option(120, "grey value", least=0, most=255)},
)


class Bright(Segmenter):
    info = INFO

    def __init__(self, above):
        self.above = above

    def automatic(self, pixels, parameters, **_):
        from scipy import ndimage

        return AutomaticRun.of_labels(ndimage.label(pixels[..., 0] > self.above)[0])


FAMILY = Family(load=lambda request: Bright(request.options["above"]), info=INFO)
"""
"""No clicks, nothing kept of an image, one option."""


TEXTUAL = """
from segment_duo.errors import UsageError
from segment_duo.segmenters.base import AutomaticRun, Capability, Family, Segmenter, SegmenterInfo, fingerprint

INFO = SegmenterInfo(
    id="words", sha256=fingerprint("words", "1"), capabilities=frozenset({Capability.AUTOMATIC, Capability.TEXT}), licence="MIT",
)


class Words(Segmenter):
    info = INFO

    def automatic(self, pixels, parameters, **_):
        from scipy import ndimage

        bright = pixels[..., 0] > 120
        if parameters.text not in {"particle", "ground"}:
            raise UsageError("words knows particle and ground", "Give --text particle.")
        return AutomaticRun.of_labels(ndimage.label(bright if parameters.text == "particle" else ~bright)[0])


FAMILY = Family(load=lambda request: Words(), info=INFO)
"""
"""All masks of what is named in words."""


def install(folder: Path, name: str, source: str, *, version: str = "1.0", attribute: str = "FAMILY") -> None:
    """A package ``segduo-NAME`` whose module ``segduo_NAME`` is the entry point ``NAME``."""
    module = f"segduo_{name.replace('-', '_')}"
    metadata = folder / f"{module}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: segduo-{name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[segment_duo.segmenters]\n{name} = {module}:{attribute}\n")
