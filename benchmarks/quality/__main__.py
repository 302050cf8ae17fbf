"""Score a model: ``python -m benchmarks.quality [FOLDER...] [--model ID] [--names FILE] [--held-out N] [--coins]``.

FOLDER holds ``NAME.png`` or ``NAME.jpg`` and ``NAME_labels.png`` (16 bit: 0 background, 1..n objects, 65535 ignore).
``--names`` scores only the pictures listed in a file; ``benchmarks/quality/emps_validation.txt`` lists those of EMPS that nano is not trained on.
``--held-out`` scores N scenes of the project's own generator from seeds that training never draws, ``--coins`` the 24 coins of scikit-image
(labels: a ``coins_labels.png`` in a FOLDER, else they are made by marker-based watershed).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.quality.at_scale import Given, ScaledClicks
from benchmarks.quality.scoring import Labelled, score
from segment_duo.config import Config
from segment_duo.models.choice import ModelChoice
from segment_duo.models.registry import resolve_model
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.segmenters import plugins
from segment_duo.segmenters.base import Capability, LoadRequest, Segmenter
from segment_duo.training.nano.scenes import HELD_OUT_SEED, generate


def folder_images(folder: Path, limit: int | None, names: frozenset[str] | None = None) -> Iterator[Labelled]:
    """The labelled pictures of a folder in the order of their names: at most ``limit``, and of ``names`` only, if given.

    Raises:
        SystemExit: a name has no labelled picture here.
    """
    found = {}
    for path in sorted(folder.glob("*_labels.png")):
        stem = path.name.removesuffix("_labels.png")
        for image in (path.with_name(stem + ".png"), path.with_name(stem + ".jpg")):
            if image.exists() and (names is None or stem in names):
                found.setdefault(stem, (image, path))
    missing = sorted((names or frozenset()) - found.keys())
    if missing:
        raise SystemExit(f"{len(missing)} of the names have no labelled picture in {folder}, {missing[0]} first")
    for image, path in list(found.values())[:limit]:
        yield Labelled(image.name, rgb(np.asarray(Image.open(image).convert("RGB"))), read_labels(path))


def held_out_images(count: int, first: int = HELD_OUT_SEED) -> Iterator[Labelled]:
    for seed in range(first, first + count):
        scene = generate(seed, (512, 512))
        yield Labelled(f"seed {seed} ({scene.kind})", rgb(scene.image), scene.labels)


def coins(folders: list[Path]) -> Labelled:
    """``skimage.data.coins()`` and its labels."""
    from skimage.data import coins as picture

    grey = np.asarray(picture())
    for folder in folders:
        if (folder / "coins_labels.png").exists():
            return Labelled("coins", rgb(grey), read_labels(folder / "coins_labels.png"))
    return Labelled("coins", rgb(grey), coin_labels(grey))


def coin_labels(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """The coins by watershed on the gradient, from markers in the histogram's extremes, holes filled."""
    from scipy import ndimage
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    markers = np.zeros(grey.shape, np.int32)
    markers[grey < 30], markers[grey > 150] = 1, 2
    filled = ndimage.binary_fill_holes(watershed(sobel(grey), markers) - 1)
    pieces, _ = ndimage.label(filled)
    sizes = np.bincount(pieces.ravel())
    pieces[np.isin(pieces, np.flatnonzero(sizes < 200))] = 0
    return np.asarray(np.unique(pieces, return_inverse=True)[1].reshape(pieces.shape), np.int32)


def rgb(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels)


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    return np.asarray(Image.open(path)).astype(np.int32)


def load_segmenter(choice: ModelChoice, checkpoint: Path | None = None) -> Segmenter:
    """The model as the engine would load it, on the CPU; ``checkpoint``: other weights for a SAM 2 model's config."""
    weights = str(checkpoint or choice.checkpoint)
    return plugins.load(choice.family, LoadRequest(choice.name, choice.config, weights, options=choice.options))


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a model on labelled images.")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path, help="score these weights with the model's config")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="an automatic parameter")
    parser.add_argument("--names", type=Path, metavar="FILE", help="score only the pictures named here, one a line")
    parser.add_argument(
        "--most", type=int, metavar="N", help="click at most so many objects of an image, evenly chosen"
    )
    parser.add_argument("--calibration", action="store_true", help="print predicted against reached IoU")
    parser.add_argument("--limit", type=int, help="at most so many images of a folder")
    parser.add_argument("--held-out", type=int, default=0, metavar="N")
    parser.add_argument("--coins", action="store_true")
    parser.add_argument(
        "--scale", choices=["whole", "closer"], help="click as `segduo point --scale` does, by a whole session"
    )
    parser.add_argument(
        "--given", choices=get_args(Given), default="refined", help="with --scale: how further clicks are given"
    )
    parser.add_argument("--no-clicks", action="store_true")
    parser.add_argument("--no-auto", action="store_true")
    options = parser.parse_args()

    names = frozenset(options.names.read_text(encoding="utf-8").split()) if options.names else None
    choice = resolve_model(Config(), Paths.default(), options.model)
    segmenter = load_segmenter(choice, options.checkpoint)
    clicks = Capability.POINTS in choice.capabilities and not options.no_clicks
    scaled = ScaledClicks(options.model, options.scale, options.given) if options.scale and clicks else None
    chosen = {name: float(value) for name, value in (pair.split("=") for pair in options.set)}
    parameters = None if options.no_auto else AutoParameters(**{**choice.auto_defaults, **chosen})
    sets: list[tuple[str, Iterator[Labelled]]] = [
        (folder.name, folder_images(folder, options.limit, names)) for folder in options.folders
    ]
    if options.held_out:
        sets.append(("held-out", held_out_images(options.held_out)))
    if options.coins:
        sets.append(("coins", iter([coins(options.folders)])))
    for name, images in sets:
        start = time.perf_counter()
        result = score(
            segmenter,
            images,
            parameters,
            clicks,
            lambda line: print(line, file=sys.stderr),
            options.most,
            scaled,
        )
        row = {"set": name, "model": choice.id, **result.row(), "seconds": round(time.perf_counter() - start, 1)}
        print(json.dumps(row), flush=True)
        if options.calibration:
            for name_, table in result.calibration().items():
                print(json.dumps({"set": name, "prompts": name_, "reliability": table}), flush=True)


if __name__ == "__main__":
    main()
