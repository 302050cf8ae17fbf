"""Films of particles that drift, grow, vanish, split and merge, with their truth: for the example stack and for measuring how masks are linked.

A particle is a disc with a wavy rim; its truth in every frame is drawn from the same outline, so areas and ids are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segment_duo.training.nano.layouts import LabelCanvas, Labels, Size
from segment_duo.training.nano.scenes import Look, render

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class DrawnFilm:
    """Frames (T, H, W), uint16 truth labels of the same shape (0 ground, else the particle's id), and what happened.

    ``splits``: (frame, parent, child): from this frame on the child lies where a part of the parent was; ``merges``: (frame, ended, into).
    """

    frames: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint16]
    splits: tuple[tuple[int, int, int], ...] = ()
    merges: tuple[tuple[int, int, int], ...] = ()


@dataclass(slots=True)
class _Particle:
    id: int
    x: float
    y: float
    radius: float
    waves: npt.NDArray[np.float64]
    vx: float = 0.0
    vy: float = 0.0
    growth: float = 0.0
    lobes: list[tuple[float, float, float]] = field(default_factory=list)
    """Particles that stuck to it: where from its middle, and their radius."""

    @property
    def reach(self) -> float:
        return max([self.radius, *(float(np.hypot(x, y)) + r for x, y, r in self.lobes)])

    def outlines(self) -> Iterator[npt.NDArray[np.float64]]:
        t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        rim = 1 + sum(a * np.cos((k + 2) * t + p) for k, (a, p) in enumerate(self.waves))
        for x, y, radius in [(0.0, 0.0, self.radius), *self.lobes]:
            yield np.stack([self.x + x + radius * rim * np.cos(t), self.y + y + radius * rim * np.sin(t)], axis=1)


GROWTH_LOOK = Look(
    level=0.22, contrast=0.42, spread=0.05, edge=0.12, edge_width=2.0, outline=0.0, relief=0.12, seam=-0.25, object_texture=0.01,
    ground_texture=0.015, texture_scale=0.05, gradient=0.03, blur=0.7, noise=0.0, shot=0.0,
)  # fmt: skip


def growth(seed: int = 4, size: Size = (256, 256), frames: int = 12, count: int = 11) -> DrawnFilm:
    """A few particles that grow to half again their size while the stage drifts a little; one appears in the middle. Nothing touches."""
    rng = np.random.default_rng(seed)
    particles = _placed(rng, size, count, radii=(8.5, 12.5), margin=1.55, room=4.0)
    for particle in particles:
        particle.growth = float(rng.uniform(0.025, 0.05)) * particle.radius
        particle.vx, particle.vy = rng.normal(0, 0.15, 2)
    late = particles[0].id  # the largest id is seen from the beginning, so that all frames are rendered alike
    return _filmed(
        rng, size, frames, particles, GROWTH_LOOK, drift=(0.5, -0.3), begins={late: frames // 2}, noise=0.012, levels=64
    )


def swarm(
    seed: int = 1,
    size: Size = (1024, 1024),
    frames: int = 50,
    count: int = 200,
    *,
    events: int = 10,
    drawn: bool = True,
) -> DrawnFilm:
    """Many particles that diffuse and drift: some split in two, some stick together, some are unseen for a frame or two.

    Args:
        events: how many split, and how many stick together.
        drawn: render the frames; without them only labels are made, quickly.
    """
    rng = np.random.default_rng(seed)
    particles = _placed(rng, size, count, radii=(9.0, 15.0), margin=1.35, room=5.0)
    for particle in particles:
        particle.vx, particle.vy = rng.normal(0, 0.25, 2)
        particle.growth = float(rng.uniform(0.0, 0.06))
    return _filmed(
        rng, size, frames, particles, GROWTH_LOOK, drift=(0.8, 0.5), jitter=0.5, splits=events, merges=events, noise=0.02, drawn=drawn
    )  # fmt: skip


def _placed(
    rng: np.random.Generator, size: Size, count: int, *, radii: tuple[float, float], margin: float, room: float
) -> list[_Particle]:
    """Particles beside each other; ``margin`` times their radii and ``room`` pixels stay free between them."""
    found: list[_Particle] = []
    for _ in range(200_000):
        if len(found) == count:
            break
        radius = float(rng.uniform(*radii))
        edge = margin * radius + room
        x, y = float(rng.uniform(edge, size[1] - edge)), float(rng.uniform(edge, size[0] - edge))
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (margin * (radius + o.radius) + room) ** 2 for o in found):
            waves = np.stack([rng.uniform(0, 0.05, 3), rng.uniform(0, 2 * np.pi, 3)], axis=1)
            found.append(_Particle(len(found) + 1, x, y, radius, waves))
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {count} particles have room")
    return found


@dataclass(slots=True)
class _Stage:
    """The particles of a film in motion."""

    rng: np.random.Generator
    size: Size
    particles: list[_Particle]
    drift: tuple[float, float]
    jitter: float
    splits: list[tuple[int, int, int]] = field(default_factory=list)
    merges: list[tuple[int, int, int]] = field(default_factory=list)

    def step(self) -> None:
        """Everybody moves; who would touch another stays where it was, but for the drift."""
        for one in self.particles:
            dx, dy = self.rng.normal((one.vx, one.vy), self.jitter)
            one.radius += one.growth
            if not self._free(one, one.x + dx, one.y + dy):
                one.growth = 0.0 if not self._free(one, one.x, one.y) else one.growth
                dx = dy = 0.0
            one.x, one.y = one.x + dx, one.y + dy
        for one in self.particles:
            one.x, one.y = one.x + self.drift[0], one.y + self.drift[1]

    def _free(self, one: _Particle, x: float, y: float, *, gap: float = 4.0) -> bool:
        return all(
            (x - o.x) ** 2 + (y - o.y) ** 2 > (1.12 * (one.reach + o.reach) + gap) ** 2
            for o in self.particles
            if o is not one
        )

    def split(self, frame: int) -> None:
        """A large particle becomes two beside each other, with its area together; the larger part keeps the id."""
        for one in sorted(self.particles, key=lambda p: -p.radius):
            if one.lobes or one.radius <= 11 or self._used(one):
                continue
            angle = self.rng.uniform(0, np.pi)
            ux, uy = np.cos(angle), np.sin(angle)
            large, small = one.radius * 0.64**0.5, one.radius * 0.36**0.5
            apart = 1.1 * (large + small) + 2.5
            places = [(one.x - 0.36 * apart * ux, one.y - 0.36 * apart * uy, large)]
            places.append((one.x + 0.64 * apart * ux, one.y + 0.64 * apart * uy, small))
            if all(
                (x - o.x) ** 2 + (y - o.y) ** 2 > (1.12 * (radius + o.reach) + 3) ** 2
                for x, y, radius in places
                for o in self.particles
                if o is not one
            ):
                child = _Particle(self._next(), *places[1], one.waves, one.vx, one.vy)
                (one.x, one.y, one.radius), one.growth = places[0], 0.0
                self.particles.append(child)
                self.splits.append((frame, one.id, child.id))
                return

    def merge(self, frame: int) -> None:
        """The two nearest particles stick together; the larger one's id stays."""
        pairs = [
            ((a.x - b.x) ** 2 + (a.y - b.y) ** 2, a, b)
            for i, a in enumerate(self.particles)
            for b in self.particles[:i]
            if not (self._used(a) or self._used(b))
        ]
        for _, a, b in sorted(pairs, key=lambda pair: pair[0]):
            keep, gone = (a, b) if a.radius >= b.radius else (b, a)
            dx, dy = gone.x - keep.x, gone.y - keep.y
            nearer = 0.9 * (keep.radius + gone.radius) / np.hypot(dx, dy)
            # Both move half of the way.
            keep.x, keep.y = keep.x + (1 - nearer) / 2 * dx, keep.y + (1 - nearer) / 2 * dy
            keep.lobes.append((nearer * dx, nearer * dy, gone.radius))
            keep.growth = 0.0
            self.particles.remove(gone)
            self.merges.append((frame, gone.id, keep.id))
            return

    def _used(self, one: _Particle) -> bool:
        return any(one.id in ids for _, *ids in (*self.splits, *self.merges))

    def _next(self) -> int:
        return 1 + max(one for one in (*(p.id for p in self.particles), *(i for _, *ids in self.merges for i in ids)))


def _filmed(
    rng: np.random.Generator,
    size: Size,
    frames: int,
    particles: list[_Particle],
    look: Look,
    *,
    drift: tuple[float, float],
    noise: float,
    levels: int = 256,
    jitter: float = 0.0,
    begins: dict[int, int] | None = None,
    splits: int = 0,
    merges: int = 0,
    drawn: bool = True,
) -> DrawnFilm:
    stage = _Stage(rng, size, particles, drift, jitter)
    when = {int(frame): "split" for frame in np.linspace(4, frames - 6, splits)} if splits else {}
    later = {int(frame) + 1: "merge" for frame in np.linspace(5, frames - 6, merges)} if merges else {}
    out, labels = [], []
    textures = int(rng.integers(2**31))
    for frame in range(frames):
        if frame:
            stage.step()
        if frame in when:
            stage.split(frame)
        if frame in later:
            stage.merge(frame)
        seen = [one for one in stage.particles if (begins or {}).get(one.id, 0) <= frame]
        truth = _drawn(seen, size)
        labels.append(truth.astype(np.uint16))
        if drawn:
            out.append(_photo(rng, truth, look, textures, noise, levels))
    pictures = np.stack(out) if drawn else np.zeros((frames, 0, 0), np.uint8)
    return DrawnFilm(pictures, np.stack(labels), tuple(stage.splits), tuple(stage.merges))


def _drawn(particles: list[_Particle], size: Size) -> Labels:
    canvas, ids = LabelCanvas(size), [0]
    for one in particles:
        for outline in one.outlines():
            canvas.add(outline)
            ids.append(one.id)
    return np.asarray(np.array(ids, np.int32)[canvas.labels()])


def _photo(
    rng: np.random.Generator, truth: Labels, look: Look, textures: int, noise: float, levels: int
) -> npt.NDArray[np.uint8]:
    """A frame: the same ground texture and grey values in all of them, noise anew; ``levels`` grey values, of which fewer make a smaller file."""
    grey, _ = render(np.random.default_rng(textures), truth, look)
    grey = grey + noise * rng.standard_normal(grey.shape)
    step = 256 // levels
    return np.asarray(np.round(np.clip(grey, 0, 1) * 255 / step) * step, dtype=np.float64).clip(0, 255).astype(np.uint8)
