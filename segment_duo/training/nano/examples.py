"""Make the repository's example images: ``python -m segment_duo.training.nano.examples OUT``.

| file | what it shows |
|---|---|
| particles.tif | 16-bit TIFF, 1 megapixel, 5 nm a pixel (ImageJ metadata) |
| particles_labels.tif | its truth, 16-bit labels |
| points.csv | clicks on eight of its particles, two for some: ``x,y,label,object`` |
| grains.png | grains that fill the picture |
| pores.jpg | dark pores, JPEG |
| pile.jpg | a heap of particles over each other, as powders look |
| banner.tif | 8-bit TIFF with a burned-in info banner |
| large.png | 3 megapixels, for timing |
| growth.tif | OME-TIFF stack, 12 frames 0.5 s apart, 4 nm a pixel: particles that grow |
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from segment_duo.training.nano.layouts import Labels, tidy
from segment_duo.training.nano.scenes import Look, Scene, generate

PIXEL_NM = 5.0
GROWTH_NM, GROWTH_SECONDS = 4.0, 0.5
MAX_BYTES = 1_500_000

CLEAR = Look(
    level=0.25,
    contrast=0.35,
    spread=0.08,
    edge=0.15,
    edge_width=2.5,
    seam=-0.25,
    relief=0.2,
    outline=-0.05,
    blur=0.8,
    noise=0.015,
    shot=0.02,
)
GRAINS = Look(level=0.3, contrast=0.3, spread=0.12, edge=0.0, seam=-0.25, relief=0.0, blur=0.7, noise=0.02, shot=0.01)
PORES = Look(
    level=0.65,
    contrast=-0.35,
    spread=0.04,
    edge=-0.05,
    outline=0.15,
    relief=0.0,
    ground_texture=0.03,
    blur=1.0,
    noise=0.02,
)
HEAP = Look(
    level=0.12,
    contrast=0.33,
    spread=0.04,
    edge=0.2,
    edge_width=2.5,
    seam=-0.3,
    relief=0.22,
    object_texture=0.03,
    gradient=0.1,
    blur=0.8,
    noise=0.02,
    shot=0.02,
)
SMOOTH = Look(
    level=0.3,
    contrast=0.35,
    spread=0.05,
    edge=0.1,
    seam=-0.2,
    relief=0.15,
    object_texture=0,
    ground_texture=0,
    gradient=0,
    blur=1.0,
    noise=0,
    shot=0,
)


def write_examples(out: Path) -> list[Path]:
    """Write all examples into ``out``; returns their paths."""
    import tifffile
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    particles = generate(19, (1000, 1024), "ellipses", depth=16, look=CLEAR)
    per_micron = 1000.0 / PIXEL_NM
    tifffile.imwrite(
        out / "particles.tif",
        particles.image,
        imagej=True,
        resolution=(per_micron, per_micron),
        metadata={"unit": "um", "axes": "YX"},
    )
    tifffile.imwrite(out / "particles_labels.tif", particles.labels.astype(np.uint16), compression="zlib")
    _write_points(out / "points.csv", particles.labels)
    Image.fromarray(generate(23, (512, 640), "grains", look=GRAINS).image).save(out / "grains.png", optimize=True)
    Image.fromarray(generate(7, (512, 640), "pores", look=PORES).image).save(out / "pores.jpg", quality=88)
    Image.fromarray(generate(12, (512, 640), "pile", look=HEAP).image).save(out / "pile.jpg", quality=88)
    banner = generate(9, (640, 768), "agglomerates", banner=True, look=CLEAR)
    tifffile.imwrite(out / "banner.tif", banner.image, compression="zlib", predictor=True)
    large = generate(33, (1536, 2048), "discs", look=SMOOTH)
    Image.fromarray(_few_grey_values(large)).save(out / "large.png", optimize=True)
    _write_growth(out / "growth.tif")
    names = (
        "particles.tif",
        "particles_labels.tif",
        "points.csv",
        "grains.png",
        "pores.jpg",
        "pile.jpg",
        "banner.tif",
        "large.png",
        "growth.tif",
    )
    return [out / name for name in names]


def _write_growth(path: Path) -> None:
    import tifffile

    from segment_duo.training.nano.films import growth

    metadata = {
        "axes": "TYX", "TimeIncrement": GROWTH_SECONDS, "TimeIncrementUnit": "s", "PhysicalSizeX": GROWTH_NM / 1000,
        "PhysicalSizeXUnit": "µm", "PhysicalSizeY": GROWTH_NM / 1000, "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(growth().frames, photometric="minisblack", compression="zlib", predictor=True, metadata=metadata)


def _few_grey_values(scene: Scene) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The image with 32 grey values, which makes a 3-megapixel PNG small enough for a repository."""
    return np.asarray((scene.image.astype(np.uint8) // 8) * 8, dtype=np.uint8)


def _write_points(path: Path, labels: Labels, objects: int = 8) -> None:
    """Clicks on the largest objects: the middle of each, and for every other one an exclude click just outside."""
    from segment_duo.training.nano.batches import object_depth  # torch, which `segduo demo` does without here

    labels = tidy(labels)
    depth = object_depth(labels)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "label", "object"])
        for number, label in enumerate(np.argsort(-areas, kind="stable")[:objects], start=1):
            y, x = np.unravel_index(int(np.argmax(np.where(labels == label, depth, 0))), labels.shape)
            writer.writerow([int(x), int(y), 1, f"particle-{number}"])
            if number % 2 == 0:
                row = np.flatnonzero((labels[y] == 0) & (np.arange(labels.shape[1]) > x))
                if row.size:
                    writer.writerow([int(row[min(6, row.size - 1)]), int(y), 0, f"particle-{number}"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the example images.")
    parser.add_argument("out", type=Path)
    for path in write_examples(parser.parse_args().out):
        sys.stdout.write(f"{path}  {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
