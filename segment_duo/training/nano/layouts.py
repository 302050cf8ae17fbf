"""Where the objects of a synthetic micrograph are: label images of many kinds, nothing about grey values.

Each layout takes a generator and a size and returns labels, int32 of shape (height, width): 0 is background, 1..n are objects.
Labels hold what is visible: an object under another one loses the covered part. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Size = tuple[int, int]
Outline = Callable[[np.random.Generator, float], Floats]

MIN_AREA = 24
"""Objects with fewer visible pixels are removed: nobody could click on them."""


def _angles(count: int) -> Floats:
    return np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)


def _turned(points: Floats, angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[c, s], [-s, c]]), dtype=np.float64)


def disc(_rng: np.random.Generator, radius: float) -> Floats:
    t = _angles(max(12, int(radius * 2)))
    return radius * np.stack([np.cos(t), np.sin(t)], axis=1)


def ellipse(rng: np.random.Generator, radius: float) -> Floats:
    ratio = rng.uniform(0.4, 0.95)
    points = disc(rng, radius) * np.array([1.0, ratio]) / np.sqrt(ratio)
    return _turned(points, rng.uniform(0, np.pi))


def blob(rng: np.random.Generator, radius: float) -> Floats:
    """A closed curve whose radius is a short random Fourier series: smooth lobes, sometimes concave."""
    t = _angles(max(24, int(radius * 2)))
    orders = np.arange(2, 7)
    amplitude = rng.normal(0, rng.uniform(0.08, 0.3), orders.size) / orders**0.8
    r = 1.0 + (amplitude[:, None] * np.cos(orders[:, None] * t + rng.uniform(0, 2 * np.pi, (orders.size, 1)))).sum(0)
    points = radius * np.clip(r, 0.3, 2.0)[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    return _turned(points * np.array([1.0, rng.uniform(0.5, 1.0)]), rng.uniform(0, np.pi))


def polygon(rng: np.random.Generator, radius: float) -> Floats:
    """A convex facetted outline, 3 to 8 corners."""
    corners = int(rng.integers(3, 9))
    t = _angles(corners) + rng.uniform(-0.25, 0.25, corners) * 2 * np.pi / corners
    points = radius * rng.uniform(0.85, 1.1, corners)[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    return _turned(points * np.array([1.0, rng.uniform(0.55, 1.0)]), rng.uniform(0, 2 * np.pi))


def rectangle(rng: np.random.Generator, radius: float) -> Floats:
    ratio = rng.uniform(0.5, 1.0)
    points = radius * np.array([[-1, -ratio], [1, -ratio], [1, ratio], [-1, ratio]], dtype=float)
    return _turned(points, rng.uniform(0, np.pi))


def rod(rng: np.random.Generator, radius: float) -> Floats:
    """A capsule; ``radius`` is half its length."""
    half = max(2.0, radius * rng.uniform(0.1, 0.35))
    t = np.linspace(-np.pi / 2, np.pi / 2, 9)
    cap = half * np.stack([np.cos(t), np.sin(t)], axis=1)
    points = np.concatenate([cap + np.array([radius - half, 0]), -cap - np.array([radius - half, 0])])
    return _turned(points, rng.uniform(0, np.pi))


def crumb(rng: np.random.Generator, radius: float) -> Floats:
    """A rough, broken outline (fracture debris)."""
    t = _angles(int(rng.integers(9, 20)))
    r = radius * rng.uniform(0.6, 1.15, t.size)
    return _turned(r[:, None] * np.stack([np.cos(t), np.sin(t) * rng.uniform(0.5, 1)], axis=1), rng.uniform(0, np.pi))


OUTLINES: dict[str, Outline] = {
    "disc": disc,
    "ellipse": ellipse,
    "blob": blob,
    "polygon": polygon,
    "rectangle": rectangle,
    "rod": rod,
    "crumb": crumb,
}


class LabelCanvas:
    """Labels under construction. PIL draws the polygons: 10 to 50 microseconds each, far less than a mask per object."""

    def __init__(self, size: Size) -> None:
        from PIL import Image, ImageDraw

        self.height, self.width = size
        self._image = Image.new("I", (self.width, self.height), 0)
        self._draw = ImageDraw.Draw(self._image)
        self.count = 0

    def add(self, points: Floats) -> int:
        """Paint a closed outline, (n, 2) array of x and y, above what is there; returns its label."""
        self.count += 1
        self._draw.polygon([(float(x), float(y)) for x, y in points], fill=self.count)
        return self.count

    def add_line(self, points: Floats, width: float) -> int:
        self.count += 1
        self._draw.line(
            [(float(x), float(y)) for x, y in points], fill=self.count, width=max(1, round(width)), joint="curve"
        )
        return self.count

    def erase(self, points: Floats) -> None:
        self._draw.polygon([(float(x), float(y)) for x, y in points], fill=0)

    def labels(self) -> Labels:
        return np.array(self._image, dtype=np.int32)


def scatter(
    rng: np.random.Generator,
    size: Size,
    outline: Outline,
    radii: Floats,
    gap: float,
    centres: Floats | None = None,
    holes: float = 0.0,
) -> Labels:
    """Place one outline per radius at random, keeping centres ``(r1 + r2) * gap`` apart.

    ``gap`` of 1.2 separates objects, 1.0 lets round ones touch, below 0.9 they overlap. A radius that finds no place in 12 tries is
    left out. ``holes``: probability that an object has a hole in it (the hole is background).
    """
    height, width = size
    canvas = LabelCanvas(size)
    placed = np.empty((len(radii), 3))
    n = 0
    for i, radius in enumerate(radii):
        if centres is None:
            tries = rng.uniform((-0.3 * radius, -0.3 * radius), (width + 0.3 * radius, height + 0.3 * radius), (12, 2))
        else:
            tries = centres[i][None]
        distance = np.hypot(tries[:, None, 0] - placed[None, :n, 0], tries[:, None, 1] - placed[None, :n, 1])
        free = np.flatnonzero((distance >= gap * (radius + placed[None, :n, 2])).all(axis=1))
        if free.size == 0:
            continue
        x, y = tries[free[0]]
        placed[n] = x, y, radius
        n += 1
        centre = np.array([x, y])
        canvas.add(outline(rng, radius) + centre)
        if holes and rng.random() < holes and radius > 8:
            canvas.erase(blob(rng, radius * rng.uniform(0.25, 0.5)) + centre + rng.normal(0, 0.08 * radius, 2))
    return canvas.labels()


def _radii(rng: np.random.Generator, size: Size, cover: float, low: float, high: float, limit: int = 160) -> Floats:
    """Radii of one population (log-normal about a random mean) whose discs would cover the fraction ``cover`` of the image."""
    mean = float(np.clip(np.exp(rng.normal(np.log(low * high) / 2, 0.75)), low, high))
    spread = rng.choice([0.03, 0.15, 0.35, 0.6])
    radii = np.clip(mean * np.exp(rng.normal(0, spread, limit)), max(3.0, low * 0.6), min(size) * 0.4)
    enough = int(np.searchsorted(np.cumsum(np.pi * radii**2), cover * size[0] * size[1])) + 1
    radii = radii[: max(1, min(enough, limit))]
    return np.sort(radii)[::-1] if rng.random() < 0.5 else radii


def _high(size: Size) -> float:
    return 0.2 * min(size)


def particles(rng: np.random.Generator, size: Size, name: str | None = None) -> Labels:
    """Separate or nearly touching objects of one or two outlines."""
    outline = OUTLINES[name or str(rng.choice(list(OUTLINES)))]
    radii = _radii(rng, size, rng.uniform(0.05, 0.6), 5.0, _high(size))
    gap = rng.choice([1.0, 1.05, 1.3, 0.85], p=[0.35, 0.25, 0.25, 0.15])
    return scatter(rng, size, outline, radii, gap, holes=rng.choice([0.0, 0.3], p=[0.85, 0.15]))


def mixture(rng: np.random.Generator, size: Size) -> Labels:
    """Two populations of different outline and size."""
    first = particles(rng, size)
    names = list(OUTLINES)
    radii = _radii(rng, size, rng.uniform(0.03, 0.2), 4.0, 0.08 * min(size))
    second = scatter(rng, size, OUTLINES[str(rng.choice(names))], radii, 1.2)
    return np.where((second > 0) & (first == 0), second + first.max(), first).astype(np.int32)


def agglomerate(rng: np.random.Generator, size: Size) -> Labels:
    """Clusters of overlapping primary particles: each is placed on the rim of an earlier one."""
    outline = OUTLINES[str(rng.choice(["disc", "ellipse", "blob", "polygon", "crumb"], p=[0.4, 0.2, 0.2, 0.15, 0.05]))]
    mean = np.exp(rng.uniform(np.log(7), np.log(0.12 * min(size))))
    clusters = int(rng.integers(1, 6))
    total = int(np.clip(rng.uniform(0.1, 0.7) * size[0] * size[1] / (np.pi * mean**2), 5, 140))
    overlap = rng.uniform(0.65, 1.0)
    points: list[tuple[float, float, float]] = []
    for i in range(total):
        radius = float(mean * np.exp(rng.normal(0, 0.2)))
        if i < clusters:
            x, y = float(rng.uniform(0, size[1])), float(rng.uniform(0, size[0]))
        else:
            px, py, pr = points[int(rng.integers(len(points)))]
            angle, reach = rng.uniform(0, 2 * np.pi), overlap * (radius + pr)
            x, y = px + float(reach * np.cos(angle)), py + float(reach * np.sin(angle))
        points.append((x, y, radius))
    array = np.array(points)
    return scatter(rng, size, outline, array[:, 2], overlap * 0.75, centres=array[:, :2])


def packed(rng: np.random.Generator, size: Size) -> Labels:
    """A near-regular lattice of touching objects (self-assembled spheres, pillars, holes of a membrane)."""
    pitch = float(np.exp(rng.uniform(np.log(14), np.log(0.2 * min(size)))))
    rows, columns = int(size[0] / (pitch * 0.866)) + 3, int(size[1] / pitch) + 3
    y, x = np.mgrid[-1 : rows - 1, -1 : columns - 1].astype(float)
    shift = 0.5 if rng.random() < 0.6 else 0.0
    x, y = (x + shift * (y % 2)) * pitch, y * pitch * (0.866 if shift else 1.0)
    centres = np.stack([x.ravel(), y.ravel()], axis=1) + rng.normal(
        0, rng.choice([0.01, 0.05, 0.1]) * pitch, (x.size, 2)
    )
    centres = centres[rng.random(len(centres)) > rng.choice([0.0, 0.1, 0.3])][:220]
    radii = pitch * rng.uniform(0.3, 0.52) * np.exp(rng.normal(0, 0.03, len(centres)))
    outline = OUTLINES[str(rng.choice(["disc", "disc", "disc", "rectangle", "polygon", "ellipse"]))]
    return scatter(rng, size, outline, radii, 0.0, centres=centres)


def fibres(rng: np.random.Generator, size: Size) -> Labels:
    """Long, slightly bent fibres crossing each other; the upper one is whole."""
    canvas = LabelCanvas(size)
    base = rng.uniform(3, 0.05 * min(size))
    heading = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(3, 22))):
        angle = heading + rng.normal(0, rng.choice([0.1, 1.0]))
        length = rng.uniform(0.3, 1.5) * min(size)
        start = rng.uniform((0, 0), (size[1], size[0])) - 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
        bends = np.cumsum(rng.normal(0, rng.uniform(0.0, 0.08), 20))
        steps = length / 20 * np.stack([np.cos(angle + bends), np.sin(angle + bends)], axis=1)
        canvas.add_line(start + np.cumsum(steps, axis=0), base * rng.uniform(0.7, 1.4))
    return canvas.labels()


def grains(rng: np.random.Generator, size: Size) -> Labels:
    """Voronoi cells that fill the image, with or without a boundary phase between them."""
    from scipy.spatial import cKDTree

    count = int(np.exp(rng.uniform(np.log(5), np.log(120))))
    seeds = rng.uniform((0, 0), (size[1], size[0]), (count, 2))
    stretch = np.array([1.0, rng.uniform(0.5, 2.0) if rng.random() < 0.4 else 1.0])
    yx = np.mgrid[0 : size[0], 0 : size[1]].astype(float)
    pitch = np.sqrt(size[0] * size[1] / count)
    wave = rng.uniform(0, 0.08) * pitch
    if wave > 0.5:
        yx = yx + wave * np.stack([smooth_field(rng, size, 0.6 / pitch), smooth_field(rng, size, 0.6 / pitch)])
    points = np.stack([yx[1].ravel(), yx[0].ravel()], axis=1) * stretch
    distance, nearest = cKDTree(seeds * stretch).query(points, k=2)
    labels = (nearest[:, 0] + 1).reshape(size).astype(np.int32)
    if rng.random() < 0.7:
        wall = rng.choice([1.0, 2.0, 4.0, 8.0], p=[0.3, 0.3, 0.25, 0.15])
        labels[(distance[:, 1] - distance[:, 0]).reshape(size) < wall] = 0
    if rng.random() < 0.2:  # some grains fell out or belong to the other phase
        labels[np.isin(labels, rng.choice(count, count // 4) + 1)] = 0
    return np.asarray(labels, dtype=np.int32)


def pores(rng: np.random.Generator, size: Size) -> Labels:
    """Irregular pores of very different sizes."""
    radii = np.clip(np.exp(rng.normal(np.log(rng.uniform(5, 25)), 0.6, int(rng.integers(4, 90)))), 3, 0.25 * min(size))
    outline = OUTLINES[str(rng.choice(["blob", "crumb", "ellipse", "disc"], p=[0.5, 0.2, 0.15, 0.15]))]
    return scatter(rng, size, outline, np.sort(radii)[::-1], rng.choice([0.9, 1.1, 1.4]))


def cracks(rng: np.random.Generator, size: Size) -> Labels:
    """A few jagged cracks of varying width."""
    canvas = LabelCanvas(size)
    for _ in range(int(rng.integers(1, 6))):
        steps = 30
        angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, steps))
        length = rng.uniform(0.3, 1.2) * min(size) / steps
        path = rng.uniform((0, 0), (size[1], size[0])) + np.cumsum(
            length * np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=0
        )
        t = np.linspace(0, 1, steps)
        half = rng.uniform(1.5, 7) * (np.sin(np.pi * (0.08 + 0.84 * t)) + 0.2) * rng.uniform(0.6, 1.3, steps)
        normal = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * half[:, None]
        canvas.add(np.concatenate([path + normal, (path - normal)[::-1]]))
    return canvas.labels()


def layers(rng: np.random.Generator, size: Size) -> Labels:
    """A cross-section of layers with rough interfaces; some layers may hold particles (a coated electrode)."""
    height, width = size
    count = int(rng.integers(2, 7))
    cuts = np.sort(rng.uniform(0.05, 0.95, count)) * height
    frequency = rng.uniform(0.005, 0.06)
    rough = min(10.0, rng.uniform(0.05, 0.25) / frequency)
    labels = np.zeros(size, np.int32)
    y = np.arange(height)[:, None] + rng.uniform(-0.2, 0.2) * np.arange(width)[None]
    for i, cut in enumerate(cuts):
        line = cut + rough * smooth_field(rng, (1, width), frequency)[0]
        labels[y >= line[None]] = i + 1
    if rng.random() < 0.5:
        labels[labels == int(rng.integers(1, count + 1))] = 0
    if rng.random() < 0.5:
        inner = particles(rng, size)
        host = int(rng.integers(0, count + 1))
        labels = np.where((labels == host) & (inner > 0), inner + count, labels)
    return np.rot90(labels).copy() if height == width and rng.random() < 0.5 else labels


def nothing(_rng: np.random.Generator, size: Size) -> Labels:
    """No object at all."""
    return np.zeros(size, np.int32)


def single(rng: np.random.Generator, size: Size) -> Labels:
    """One to four large objects."""
    radii = rng.uniform(0.1, 0.35, int(rng.integers(1, 5))) * min(size)
    return scatter(rng, size, OUTLINES[str(rng.choice(list(OUTLINES)))], radii, 0.95, holes=0.25)


def pile(rng: np.random.Generator, size: Size) -> Labels:
    """A dense heap of rounded or facetted bodies over each other, all over the image or in the middle of it; the upper ones are whole."""
    outlines = [OUTLINES[str(name)] for name in rng.choice(["disc", "ellipse", "polygon", "blob", "rectangle"], 2)]
    mean = float(np.exp(rng.uniform(np.log(0.015), np.log(0.09)))) * min(size)
    spread = float(rng.choice([0.08, 0.2, 0.4]))
    near = float(rng.uniform(0.5, 0.8))
    heap = rng.random() < 0.4
    canvas = LabelCanvas(size)
    placed = np.empty((220, 3))
    n = 0
    for _ in range(900):
        radius = max(5.0, mean * float(np.exp(rng.normal(0, spread))))
        place = rng.normal(0.5, 0.17, 2) if heap else rng.uniform(-0.02, 1.02, 2)
        x, y = place * (size[1], size[0])
        distance = np.hypot(placed[:n, 0] - x, placed[:n, 1] - y)
        if (distance < near * (radius + placed[:n, 2])).any():
            continue
        placed[n] = x, y, radius
        n += 1
        canvas.add(outlines[int(rng.random() < 0.3)](rng, radius) + np.array([x, y]))
        if n == len(placed):
            break
    return canvas.labels()


def film(rng: np.random.Generator, size: Size) -> Labels:
    """Hundreds of tiny particles, 6 to 14 pixels across in 512, as on a carbon film or a membrane."""
    count = int(rng.integers(80, 250))
    radii = rng.uniform(3.0, 7.0) * min(size) / 512 * np.exp(rng.normal(0, 0.2, count))
    outline = OUTLINES[str(rng.choice(["disc", "ellipse", "polygon", "rectangle"]))]
    return scatter(rng, size, outline, np.maximum(radii, 3.2), float(rng.choice([1.0, 1.2, 1.6])))


def huge(rng: np.random.Generator, size: Size) -> Labels:
    """One or two objects that fill most of the image."""
    radii = rng.uniform(0.3, 0.55, int(rng.integers(1, 3))) * min(size)
    outline = OUTLINES[str(rng.choice(["disc", "ellipse", "blob", "polygon", "rectangle"]))]
    return scatter(rng, size, outline, radii, 0.9)


def transmission(rng: np.random.Generator, size: Size) -> Labels:
    """Particles as transmission microscopes show them: lying apart, touching, or in a layer."""
    return (particles, packed, agglomerate, film)[int(rng.integers(4))](rng, size)


Layout = Callable[[np.random.Generator, Size], Labels]

LAYOUTS: dict[str, tuple[Layout, float]] = {
    "discs": (lambda rng, size: particles(rng, size, "disc"), 0.1),
    "ellipses": (lambda rng, size: particles(rng, size, "ellipse"), 0.07),
    "blobs": (lambda rng, size: particles(rng, size, "blob"), 0.09),
    "polygons": (lambda rng, size: particles(rng, size, "polygon"), 0.07),
    "rods": (lambda rng, size: particles(rng, size, "rod"), 0.07),
    "particles": (particles, 0.05),
    "mixture": (mixture, 0.07),
    "agglomerates": (agglomerate, 0.13),
    "packed": (packed, 0.05),
    "fibres": (fibres, 0.04),
    "grains": (grains, 0.12),
    "pores": (pores, 0.06),
    "cracks": (cracks, 0.02),
    "layers": (layers, 0.04),
    "single": (single, 0.03),
    "nothing": (nothing, 0.02),
    "pile": (pile, 0.0),
    "film": (film, 0.0),
    "huge": (huge, 0.0),
    "transmission": (transmission, 0.0),
}
"""Kind -> (layout, share in a random draw). The shares need not add up to one. Kinds of share 0 came later: drawn by name only, they leave the scene
of every seed what it was."""

REAL_KINDS = ("pile", "film", "huge", "transmission")
"""What published micrographs show most and the first kinds lacked."""


def smooth_field(rng: np.random.Generator, size: Size, frequency: float) -> Floats:
    """Band-limited noise, mean 0 and standard deviation about 1, with ``frequency`` cycles a pixel at most."""
    from PIL import Image

    nodes = (max(2, int(size[0] * frequency * 2)), max(2, int(size[1] * frequency * 2)))
    coarse = rng.standard_normal((nodes[0] + 1, nodes[1] + 1)).astype(np.float32)
    field = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC), dtype=np.float64)
    deviation = float(field.std())
    result: Any = (field - field.mean()) / deviation if deviation > 1e-6 else field * 0.0
    return np.asarray(result, dtype=np.float64)


def tidy(labels: Labels, connected: bool = True) -> Labels:
    """Number the objects 1..n without gaps; drop those under :data:`MIN_AREA`; keep the largest piece of each if ``connected``."""
    out = labels
    if connected:
        pieces, owners = connected_pieces(labels)
        areas = np.bincount(pieces.ravel(), minlength=owners.size)
        areas[0] = 0
        best = np.zeros(int(labels.max()) + 1, np.int64)
        for piece in np.argsort(areas)[::-1]:
            if piece and best[owners[piece]] == 0:
                best[owners[piece]] = piece
        out = np.where(best[labels] == pieces, labels, 0)
    areas = np.bincount(out.ravel())
    keep = np.flatnonzero(areas >= MIN_AREA)
    keep = keep[keep > 0]
    renumber = np.zeros(areas.size, np.int32)
    renumber[keep] = np.arange(1, keep.size + 1)
    return renumber[out]


def connected_pieces(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """4-connected pieces of equal label: the piece image (0 where labels are 0) and the label that owns each piece."""
    from skimage.measure import label as connect

    pieces = np.asarray(connect(labels, background=0, connectivity=1), dtype=np.int64)
    owners = np.zeros(int(pieces.max()) + 1, np.int64)
    owners[pieces.ravel()] = labels.ravel()
    return pieces, owners
