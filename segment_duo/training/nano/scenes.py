"""Synthetic micrographs with exact instance labels, from a seed.

A scene is a layout (:mod:`segment_duo.training.nano.layouts`: where the objects are) seen through a look (this module: grey values as a
scanning electron or light microscope would show them). The same seed gives the same scene, on any machine with the same NumPy
and Pillow. Nothing here reads files except :func:`texture`, which cuts pieces of pictures inside the scikit-image package.

    scene = generate(seed=7, size=(512, 512))
    scene.image   # uint8 or uint16, (512, 512)
    scene.labels  # int32, 0 = background, 1..n objects
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from segment_duo.training.nano.layouts import LAYOUTS, Floats, Labels, Size, smooth_field, tidy

HELD_OUT_SEED = 900_000
"""Seeds from here on are for measuring only: training draws below it."""

# Pictures without countable things of their own: bricks and pebbles would be objects that the truth does not know.
_TEXTURES = ("grass.png", "camera.png", "moon.png", "rocket.jpg")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image and its truth.

    Attributes:
        image: uint8 or uint16, shape (height, width); with a banner, its rows are the last ``banner`` rows.
        labels: int32, same shape, 0 background (and banner), 1..n objects without gaps.
        kind: name of the layout.
        banner: height of the burned-in info banner in pixels, 0 without one.
    """

    image: npt.NDArray[Any]
    labels: Labels
    kind: str
    banner: int = 0

    @property
    def masks(self) -> list[npt.NDArray[np.bool_]]:
        return [self.labels == i for i in range(1, int(self.labels.max()) + 1)]


@dataclass(frozen=True, slots=True)
class Look:
    """How a layout is rendered. Amplitudes are fractions of the full grey range, lengths are pixels.

    ``contrast``: objects minus background, either sign; ``spread``: difference from object to object; ``edge``: bright (+) or dark (-) rim
    of width ``edge_width``, as of secondary electrons; ``outline``: the same on the background side; ``seam``: the line
    between two touching objects, without which nobody could tell them apart; ``relief``: slope shading of domed objects lit from
    ``light`` (radians); ``gradient``: linear and blotchy illumination; ``charging``: streaks along scan lines; ``drift``: sideways shift of lines.
    """

    level: float = 0.35
    contrast: float = 0.3
    spread: float = 0.05
    edge: float = 0.1
    edge_width: float = 2.0
    outline: float = 0.0
    relief: float = 0.1
    light: float = 0.8
    halo: float = 0.0
    seam: float = -0.2
    object_texture: float = 0.03
    ground_texture: float = 0.03
    texture_scale: float = 0.1
    picture: float = 0.0
    gradient: float = 0.05
    charging: float = 0.0
    drift: float = 0.0
    blur: float = 0.7
    noise: float = 0.03
    shot: float = 0.02
    depth: int = 8


def draw_look(rng: np.random.Generator) -> Look:
    """A random look. About one in six scenes is hard: low contrast, strong noise or strong texture."""
    hard = rng.random() < 0.17
    size = float(np.exp(rng.uniform(np.log(0.06 if hard else 0.12), np.log(0.55))))
    sign = 1.0 if rng.random() < 0.6 else -1.0
    outlined = rng.random() < 0.08  # objects that differ from the background by their rims only

    def some(probability: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < probability else 0.0

    rim = float(rng.uniform(0.2, 0.4)) if outlined else some(0.7, 0.05, 0.35)
    return Look(
        level=float(rng.uniform(0.1 + max(0.0, -sign * size), 0.9 - max(0.0, sign * size))),
        contrast=0.0 if outlined else sign * size,
        spread=some(0.7, 0.0, 0.5) * size,
        edge=float(rng.choice([1, -1], p=[0.7, 0.3])) * rim,
        edge_width=float(rng.uniform(0.8, 4.0)),
        outline=float(rng.choice([1, -1], p=[0.3, 0.7])) * some(0.35, 0.05, 0.25),
        relief=some(0.5, 0.05, 0.45),
        light=float(rng.uniform(0, 2 * np.pi)),
        halo=float(rng.choice([1, -1], p=[0.3, 0.7])) * some(0.3, 0.03, 0.15),
        object_texture=some(0.6, 0.01, 0.35 * size + 0.03),
        ground_texture=some(0.6, 0.01, 0.35 * size + 0.03),
        texture_scale=float(np.exp(rng.uniform(np.log(0.02), np.log(0.4)))),
        seam=float(rng.choice([1, -1], p=[0.25, 0.75]) * rng.uniform(0.12, 0.35)),
        picture=some(0.12, 0.02, 0.3 * size + 0.03),
        gradient=some(0.5, 0.03, 0.3),
        charging=some(0.12, 0.02, 0.12),
        drift=some(0.12, 0.3, 2.0),
        blur=float(rng.choice([0.0, rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.5)], p=[0.25, 0.5, 0.25])),
        noise=float(rng.uniform(0.08, 0.18)) if hard and rng.random() < 0.5 else float(rng.uniform(0.0, 0.06)),
        shot=some(0.5, 0.01, 0.08),
    )


def generate(
    seed: int,
    size: Size = (512, 512),
    kind: str | None = None,
    depth: int = 8,
    banner: bool = False,
    look: Look | None = None,
) -> Scene:
    """The scene of a seed.

    Args:
        seed: any non-negative integer; use seeds below :data:`HELD_OUT_SEED` for training.
        size: (height, width) without the banner, pixels.
        kind: a name of :data:`segment_duo.training.nano.layouts.LAYOUTS`; drawn if None.
        depth: 8 gives uint8, 16 gives uint16 (12 significant bits in half of the seeds).
        banner: burn an info banner with a scale bar in below the picture.
        look: drawn if None.

    Raises:
        ValueError: unknown kind, or a depth other than 8 and 16.
    """
    if depth not in (8, 16):
        raise ValueError(f"depth must be 8 or 16, not {depth}")
    rng = np.random.default_rng(seed)
    names = list(LAYOUTS)
    shares = np.array([LAYOUTS[name][1] for name in names])
    drawn = str(rng.choice(names, p=shares / shares.sum()))
    name = drawn if kind is None else kind
    if name not in LAYOUTS:
        raise ValueError(f"unknown kind {name!r}; known are {', '.join(names)}")
    labels = tidy(LAYOUTS[name][0](rng, size), connected=name != "fibres")
    chosen = draw_look(rng) if look is None else look
    if name == "nothing":
        chosen = replace(chosen, drift=0.0)
    grey, labels = render(rng, labels, chosen)
    labels = tidy(labels, connected=False)
    image = quantize(rng, grey, depth)
    if not banner:
        return Scene(image, labels, name)
    strip = draw_banner(rng, size[1], image.dtype)
    below = np.zeros(strip.shape, np.int32)
    return Scene(np.concatenate([image, strip]), np.concatenate([labels, below]), name, banner=strip.shape[0])


def render(rng: np.random.Generator, labels: Labels, look: Look) -> tuple[Floats, Labels]:
    """Grey values in [0, 1] for a layout, and the labels, moved along where scan lines drift."""
    from scipy import ndimage

    size: Size = (labels.shape[0], labels.shape[1])
    inside = labels > 0
    count = int(labels.max())
    depth = _depth(labels)
    grey = np.full(size, look.level)
    grey += look.ground_texture * texture_field(rng, size, look.texture_scale) * ~inside
    own = look.contrast + look.spread * rng.standard_normal(count + 1)
    floor = np.sign(look.contrast) * 0.35 * abs(look.contrast)  # no object may take the background's grey by chance
    own = np.where(np.sign(own) == np.sign(look.contrast), own, floor) if look.contrast else own * 0.3
    own[0] = 0.0
    grey += own[labels]
    grey += look.object_texture * texture_field(rng, size, look.texture_scale * rng.uniform(0.5, 2)) * inside
    if look.picture:
        where = inside if rng.random() < 0.5 else ~inside
        grey += look.picture * texture(rng, size) * where
    if look.edge:
        grey += look.edge * np.exp(-np.maximum(depth - 1, 0) / look.edge_width) * inside
    if look.outline or look.halo:
        away = ndimage.distance_transform_edt(~inside) if count else np.full(size, 1e3)
        grey += look.outline * np.exp(-np.maximum(away - 1, 0) / look.edge_width) * ~inside
        grey += look.halo * np.exp(-away / (6 * look.edge_width)) * ~inside
    seams = _seams(labels)
    if seams.any():
        grey += look.seam * np.clip(
            ndimage.gaussian_filter(seams.astype(float), 0.6 * rng.uniform(0.8, 2.0)) * 1.6, 0, 1
        )
    if look.relief and count:
        grey += look.relief * _slope_shading(labels, depth, look.light, rng.random() < 0.5)
    if look.gradient:
        y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size) - 0.5
        angle = rng.uniform(0, 2 * np.pi)
        grey += look.gradient * (np.cos(angle) * x + np.sin(angle) * y)
        grey += 0.3 * look.gradient * smooth_field(rng, size, 2.0 / max(size))
    if look.charging:
        lines = ndimage.gaussian_filter1d(rng.standard_normal(size[0]), 1.5) * (rng.random(size[0]) < 0.5)
        grey += look.charging * lines[:, None] * (0.6 + 0.4 * smooth_field(rng, size, 0.01))
    if look.drift:
        grey, labels = _drifted(rng, grey, labels, look.drift)
    if look.blur:
        grey = ndimage.gaussian_filter(grey, look.blur)
    if look.shot:
        grey = grey + look.shot * np.sqrt(np.clip(grey, 0.02, 1)) * rng.standard_normal(size)
    grey = grey + look.noise * rng.standard_normal(size)
    if look.noise > 0.05 and rng.random() < 0.4:  # slow-scan averaging correlates the noise
        grey = ndimage.gaussian_filter(grey, 0.6)
    return np.clip(grey, 0.0, 1.0), labels


def _depth(labels: Labels) -> Floats:
    """Distance of every object pixel from the border of its own object, pixels (1 on the border itself)."""
    from scipy import ndimage

    border = np.zeros(labels.shape, bool)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    if not border.any():
        return np.where(labels > 0, float(max(labels.shape)), 0.0)
    return np.asarray((ndimage.distance_transform_edt(~border) + 1.0) * (labels > 0), dtype=np.float64)


def _seams(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels with another object to their right or below."""
    seam = np.zeros(labels.shape, bool)
    seam[:-1] |= (labels[1:] != labels[:-1]) & (labels[1:] > 0) & (labels[:-1] > 0)
    seam[:, :-1] |= (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    return seam


def _slope_shading(labels: Labels, depth: Floats, light: float, domed: bool) -> Floats:
    """Cosine-like shading of objects seen as domes (round profile) or as flat tops with bevelled rims; in [-1, 1]."""
    from scipy import ndimage

    index = np.arange(int(labels.max()) + 1)
    deepest = np.maximum(ndimage.maximum(depth, labels, index), 2.0)
    reach = deepest[labels] if domed else np.minimum(deepest, 6.0)[labels]
    rim = 1.0 - np.clip(depth / reach, 0, 1)
    height = ndimage.gaussian_filter(np.sqrt(np.clip(1.0 - rim**2, 0, 1)) * reach * (labels > 0), 1.0)
    dy, dx = np.gradient(height)
    return np.asarray((dx * np.cos(light) + dy * np.sin(light)) / np.sqrt(1.0 + dx**2 + dy**2) * (labels > 0))


def _drifted(rng: np.random.Generator, grey: Floats, labels: Labels, amplitude: float) -> tuple[Floats, Labels]:
    rows = grey.shape[0]
    shift = np.round(amplitude * smooth_field(rng, (rows, 2), 0.03)[:, 0]).astype(int)
    columns = np.clip(np.arange(grey.shape[1])[None] + shift[:, None], 0, grey.shape[1] - 1)
    at = np.arange(rows)[:, None]
    return grey[at, columns], labels[at, columns]


def texture_field(rng: np.random.Generator, size: Size, scale: float) -> Floats:
    """Noise of two octaves about ``scale`` cycles a pixel, sometimes stretched to fibrous streaks; standard deviation 1."""
    field = smooth_field(rng, size, scale) + 0.6 * smooth_field(rng, size, min(0.5, scale * 2.7))
    return np.asarray(field / max(float(field.std()), 1e-6))


@cache
def _picture(name: str) -> npt.NDArray[np.float32]:
    from importlib import resources

    from PIL import Image

    with resources.as_file(resources.files("skimage.data") / name) as path, Image.open(path) as image:
        grey = np.asarray(image.convert("L"), dtype=np.float32)
    return np.asarray((grey - grey.mean()) / grey.std(), dtype=np.float32)


def texture(rng: np.random.Generator, size: Size) -> Floats:
    """A random piece of a real picture inside scikit-image, mean about 0 and standard deviation about 1, as surface texture."""
    from PIL import Image

    picture = _picture(str(rng.choice(_TEXTURES)))
    side = int(rng.integers(96, min(picture.shape) + 1))
    y, x = (int(rng.integers(0, n - side + 1)) for n in picture.shape)
    piece = Image.fromarray(picture[y : y + side, x : x + side]).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(piece, dtype=np.float64), -2.5, 2.5)


def quantize(rng: np.random.Generator, grey: Floats, depth: int) -> npt.NDArray[Any]:
    """Grey values in [0, 1] to stored samples that use a random part of the range, as real exposures do."""
    low, high = rng.uniform(0.0, 0.15), rng.uniform(0.75, 1.0)
    exposed = low + (high - low) * grey
    if depth == 8:
        return np.asarray(np.round(exposed * 255), dtype=np.uint8)
    top = 4095 if rng.random() < 0.5 else 65535
    return np.asarray(np.round(exposed * top), dtype=np.uint16)


def draw_banner(rng: np.random.Generator, width: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An info banner as microscopes burn in: dark strip, bright text, scale bar. Shape (about width / 16, width)."""
    from PIL import Image, ImageDraw, ImageFont

    height = max(24, width // 16)
    strip = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=height * 0.45)
    kv, wd, mag = rng.choice([2, 5, 10, 15]), rng.uniform(3, 10), rng.choice([5, 10, 20, 50])
    draw.text((height * 0.3, height * 0.25), f"{kv}.0 kV  WD {wd:.1f} mm  {mag}.0 kx  SE", fill=255, font=font)
    bar = int(width * 0.15)
    draw.rectangle((width - bar - height, int(height * 0.72), width - height, int(height * 0.82)), fill=255)
    draw.text((width - bar - height, height * 0.12), "2 um", fill=255, font=font)
    grey = np.asarray(strip, dtype=np.float64) / 255.0
    top = 255 if np.dtype(dtype) == np.uint8 else 65535
    return np.asarray(grey * top).astype(dtype)


def contact_sheet(scenes: list[Scene], columns: int, outlines: bool = True) -> npt.NDArray[np.uint8]:
    """Scenes side by side, uint8 RGB, object borders in colour; for looking at what the generator makes."""
    from skimage.segmentation import find_boundaries

    tiles = []
    for scene in scenes:
        grey = scene.image.astype(float) / max(1, int(scene.image.max())) * 255
        tile = np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)
        if outlines:
            tile[find_boundaries(scene.labels, mode="inner")] = (255, 160, 0)
        tiles.append(tile)
    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * height, (i % columns) * width
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet
