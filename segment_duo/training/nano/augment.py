"""What may happen to a labelled picture before a model sees it: piles of pasted objects, burned-in letters and banners, other grey values.

Images are float32 grey values in [0, 1], shape (H, W); labels int32 of the same shape, 0 for background.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segment_duo.training.nano.layouts import Labels

Grey = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """One object cut out of a picture: ``grey`` float32 (h, w) with its surroundings and ``mask`` bool (h, w)."""

    grey: Grey
    mask: Mask


def posed(cutout: Cutout, factor: float, angle: float, mirrored: bool) -> Cutout:
    """The cutout at another size, mirrored or not, then turned by ``angle`` degrees."""
    from PIL import Image

    h, w = cutout.mask.shape
    size = (max(6, round(w * factor)), max(6, round(h * factor)))
    grey = Image.fromarray(cutout.grey).resize(size, Image.Resampling.BILINEAR)
    mask = Image.fromarray(cutout.mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    if mirrored:
        grey, mask = (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (grey, mask))
    grey, mask = (part.rotate(angle, Image.Resampling.BILINEAR, expand=True) for part in (grey, mask))
    return Cutout(np.asarray(grey, np.float32), np.asarray(mask) > 127)


def turned(rng: np.random.Generator, cutout: Cutout, factor: float) -> Cutout:
    """The cutout at another size, turned by any angle, perhaps mirrored, with other brightness and contrast."""
    angle = float(rng.uniform(0, 360))
    piece = posed(cutout, factor, angle, bool(rng.random() < 0.5))
    values = (piece.grey - 0.5) * float(rng.uniform(0.8, 1.2)) + 0.5 + float(rng.normal(0, 0.05))
    return Cutout(values, piece.mask)


def paste(image: Grey, labels: Labels, piece: Cutout, corner: tuple[int, int], label: int, shade: float) -> None:
    """Put ``piece`` with its upper left ``corner`` (y, x) into both arrays, what lies inside; ``shade``: how dark the shadow about it is, 0 to 1."""
    from scipy import ndimage

    h, w = piece.mask.shape
    y, x = corner
    top, left, bottom, right = max(0, y), max(0, x), min(image.shape[0], y + h), min(image.shape[1], x + w)
    if bottom - top < 4 or right - left < 4:
        return
    inner = (slice(top - y, bottom - y), slice(left - x, right - x))
    place = (slice(top, bottom), slice(left, right))
    mask = piece.mask[inner]
    if shade:
        image[place] *= 1 - shade * ndimage.gaussian_filter(mask.astype(np.float32), max(1.0, 0.06 * min(h, w)))
    alpha = ndimage.gaussian_filter(mask.astype(np.float32), 0.6)
    image[place] += alpha * (piece.grey[inner] - image[place])
    labels[place][mask] = label


def pile(rng: np.random.Generator, image: Grey, labels: Labels, cutouts: list[Cutout]) -> tuple[Grey, Labels]:
    """Paste copies of ``cutouts`` over each other into the image: a heap, or all over it. Labels hold what is visible.

    Later objects hide earlier ones, and often throw a shadow on them, as secondary electrons show it at contacts.
    """
    image, labels = image.copy(), labels.copy()
    side = min(image.shape)
    wanted = float(np.exp(rng.uniform(np.log(14), np.log(0.28 * side))))  # diameter of the copies, pixels
    count = int(np.clip(rng.uniform(0.1, 0.9) * side * side / wanted**2, 2, 70))
    heap = rng.random() < 0.6
    middle, spread = rng.uniform(0.25, 0.75, 2) * image.shape, float(rng.uniform(0.1, 0.3)) * side
    shade = float(rng.uniform(0.1, 0.5)) if rng.random() < 0.6 else 0.0
    sizes = float(rng.uniform(0.05, 0.4))
    for _ in range(count):
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        factor = float(np.clip(wanted / max(cutout.mask.shape) * float(np.exp(rng.normal(0, sizes))), 0.25, 2.5))
        piece = turned(rng, cutout, factor)
        h, w = piece.mask.shape
        y, x = (rng.normal(middle, spread) if heap else rng.uniform(0, 1, 2) * image.shape).astype(int) - (
            h // 2,
            w // 2,
        )
        paste(image, labels, piece, (int(y), int(x)), int(labels.max()) + 1, shade)
    return image, labels


def letters(rng: np.random.Generator, image: Grey, labels: Labels) -> tuple[Grey, Labels, Mask]:
    """Burn in letters, scale bars, arrows, boxes or a banner, and tell where: what lies there is background for certain.

    Opaque boxes and banners hide objects, letters do not.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape
    marks, hidden = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    canvas = Image.fromarray(np.asarray(np.clip(image, 0, 1) * 255).astype(np.uint8))
    draws = [ImageDraw.Draw(layer) for layer in (canvas, marks, hidden)]
    ink, paper = (255, 0) if rng.random() < 0.6 else (0, 255)

    def box(corners: tuple[float, float, float, float], fill: int, hides: bool) -> None:
        for draw, value in zip(draws, (fill, 255, 255 if hides else 0), strict=True):
            if value or draw is draws[0]:
                draw.rectangle(corners, fill=value)

    def text(x: float, y: float, words: str, size: float) -> None:
        font = ImageFont.load_default(size=size)
        for draw, value in zip(draws[:2], (ink, 255), strict=True):
            draw.text((x, y), words, fill=value, font=font)

    if rng.random() < 0.3:
        strip = float(rng.uniform(0.04, 0.12)) * height
        top = height - strip if rng.random() < 0.85 else 0.0
        box((0, top, width, top + strip), paper, True)
        text(0.02 * width, top + 0.2 * strip, f"{rng.uniform(1, 30):.1f} kV x{int(rng.integers(1, 99))}k", 0.5 * strip)
        bar = float(rng.uniform(0.1, 0.3)) * width
        box((0.95 * width - bar, top + 0.4 * strip, 0.95 * width, top + 0.6 * strip), ink, True)
    for _ in range(int(rng.integers(0, 4))):
        size = float(rng.uniform(0.03, 0.11)) * height
        words = str(rng.choice(["a", "(b)", "C", "D", "200 nm", "1 um", "50 nm", "A1", "d)", "10", "SEM"]))
        x, y = float(rng.uniform(0, 0.8)) * width, float(rng.choice([0.02, 0.85, float(rng.random())])) * height
        if rng.random() < 0.3:
            box((x - 3, y - 1, x + 0.6 * size * len(words) + 3, y + 1.3 * size), paper, True)
        text(x, y, words, size)
        if rng.random() < 0.4:
            long, thick = float(rng.uniform(0.1, 0.3)) * width, float(rng.uniform(2, 7))
            box((x, y + 1.4 * size, x + long, y + 1.4 * size + thick), ink, False)
    if rng.random() < 0.2:
        ends = [float(v) for v in rng.uniform(0, 1, 4) * (width, height, width, height)]
        for draw, value in zip(draws[:2], (ink, 255), strict=True):
            draw.line(ends, fill=value, width=int(rng.integers(1, 4)))
    burned = np.asarray(marks) > 127
    out = np.where(burned, np.asarray(canvas, np.float32) / 255.0, image).astype(np.float32)
    return out, np.where(np.asarray(hidden) > 127, 0, labels).astype(np.int32), burned


def exposure(rng: np.random.Generator, image: Grey) -> npt.NDArray[np.uint8]:
    """Another microscope's grey values: gamma, contrast of either sign, shading, blur, noise, JPEG, tint. Gives RGB (H, W, 3)."""
    from PIL import Image
    from scipy import ndimage

    grey = image.astype(np.float32)
    if rng.random() < 0.15:
        grey = 1.0 - grey
    if rng.random() < 0.5:
        grey = np.clip(grey, 0, 1) ** float(np.exp(rng.normal(0, 0.35)))
    if rng.random() < 0.5:
        grey = (grey - grey.mean()) * float(rng.uniform(0.45, 1.5)) + grey.mean() + float(rng.normal(0, 0.08))
    if rng.random() < 0.15:
        ramp = np.linspace(-0.5, 0.5, grey.shape[0], dtype=np.float32) * float(rng.uniform(-0.3, 0.3))
        grey = grey + (ramp[:, None] if rng.random() < 0.5 else ramp[None, :])
    chance = rng.random()
    if chance < 0.2:
        grey = ndimage.gaussian_filter(grey, float(rng.uniform(0.4, 1.6)))
    elif chance < 0.27:
        grey = grey + float(rng.uniform(0.5, 1.5)) * (grey - ndimage.gaussian_filter(grey, 1.5))
    if rng.random() < 0.3:
        noise = rng.standard_normal(grey.shape, dtype=np.float32) * float(rng.uniform(0.01, 0.09))
        grey = grey + (ndimage.gaussian_filter(noise, 0.7) if rng.random() < 0.3 else noise)
    pixels: npt.NDArray[Any] = np.asarray(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.2:
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=int(rng.integers(25, 90)))
        pixels = np.asarray(Image.open(packed))
    rgb = np.repeat(pixels[:, :, None], 3, axis=2)
    if rng.random() < 0.06:
        rgb = np.clip(rgb * rng.uniform(0.6, 1.2, 3), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)
