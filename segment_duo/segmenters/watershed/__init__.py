"""Thresholding and watershed: what is done in ImageJ today, in a second and without weights. A baseline for the models.

This module says what the method is; ``method`` does it. Light: every command that names a model imports it.
"""

from __future__ import annotations

from segment_duo.segmenters.base import Capability, Option, SegmenterInfo, fingerprint

INFO = SegmenterInfo(
    id="watershed",
    sha256=fingerprint("watershed", "1"),  # raise the number when results change
    capabilities=frozenset({Capability.AUTOMATIC}),
    licence="BSD-3-Clause",
    description="threshold and watershed (scikit-image), no weights: a baseline in a second",
    source="scikit-image; Meyer and Beucher 1990 (watershed), Otsu 1979 (threshold)",
    options={
        "denoise": Option(2.0, "sigma in pixels of the Gaussian blur before the threshold; 0 for none", least=0, most=50),
        "threshold": Option("otsu", "one threshold for the image, or one for each pixel's surroundings", ("otsu", "local")),
        "window": Option(0, "side in pixels of these surroundings; 0: a quarter of the image's shorter side", least=0, most=10_001),
        "objects": Option("auto", "brighter or darker than the ground; auto: what touches less of the image's edge", ("auto", "bright", "dark")),
        "split": Option("h-maxima", "how touching objects are parted, if at all", ("h-maxima", "distance", "none")),
        "depth": Option(3.0, "pixels a neck must be narrower than the bodies (radii) for h-maxima to part them", least=0.1, most=1000),
        "distance": Option(8, "least pixels between the middles of two objects, for split=distance", least=1, most=10_000),
        "min_size": Option(30, "objects of fewer pixels are left out", least=0, most=100_000_000),
    },
)  # fmt: skip
