"""A film of a tracked sequence: its frames with the objects in colour, for a look. MP4 by PyAV (extra ``[video]``), GIF or animated PNG without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.errors import InputError, UsageError
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.masks.overlay import colour_of, overlay
from segment_duo.types import ImageData, Mask, PixelSize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

SUFFIXES = (".gif", ".png", ".mp4")
FRAMES_A_SECOND = 8
MOST_PICTURES = 600
"""Pillow holds all pictures of a GIF or PNG in memory before it writes them."""


def check_film(target: Path, frames: int) -> None:
    """Refuse a film that cannot be written before it is drawn.

    Raises:
        UsageError: another suffix, or too many pictures for a GIF or PNG.
        InputError: MP4 without PyAV.
    """
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"a film cannot be written as '{suffix}'", f"Name a file with {', '.join(SUFFIXES)}.")
    if suffix == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise InputError(
                "MP4 needs PyAV, which is not installed", "pip install 'segment-duo[video]', or name a .gif or .png."
            ) from None
    elif frames > MOST_PICTURES:
        raise UsageError(
            f"{frames} frames are too many for a {suffix}, which takes up to {MOST_PICTURES}",
            "Name an .mp4 (extra [video]), or track fewer frames.",
        )


def write_film(
    target: Path,
    suffix: str,
    found: SequenceSet,
    frame: Callable[[int], ImageData],
    *,
    pixel_size: PixelSize | None = None,
    ids: bool = True,
) -> None:
    """Write the film.

    Args:
        suffix: one of :data:`SUFFIXES`; says what is written.
        frame: reads a frame of the sequence.
        ids: write each object's id on it.
    """
    pictures = (_picture(frame(seen.frame), seen.masks, pixel_size, ids) for seen in found)
    if suffix == ".mp4":
        _write_mp4(target, pictures)
        return
    first = next(pictures)
    # A list, for Pillow goes through the pictures of a PNG twice.
    first.save(
        target,
        format="GIF" if suffix == ".gif" else "PNG",
        save_all=True,
        append_images=list(pictures),
        duration=round(1000 / FRAMES_A_SECOND),
        loop=0,
    )


def _picture(image: ImageData, masks: tuple[Mask, ...], pixel_size: PixelSize | None, ids: bool) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(overlay(image.pixels, masks, scale_bar=pixel_size))
    if ids:
        size = max(9, min(picture.size) // 40)
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
        for mask in masks:
            x, y, w, h = mask.bbox
            at = (x + w / 2, y + h / 2)
            draw.text(
                at, str(mask.id), fill=colour_of(mask), font=font, anchor="mm", stroke_width=1, stroke_fill="black"
            )
    return picture


def _write_mp4(target: Path, pictures: Iterator[Image.Image]) -> None:
    import av
    import numpy as np

    with av.open(str(target), "w", format="mp4") as container:
        stream = None
        for picture in pictures:
            array = _even(np.asarray(picture))
            if stream is None:
                stream = container.add_stream("libx264", rate=FRAMES_A_SECOND)
                stream.height, stream.width, stream.pix_fmt = array.shape[0], array.shape[1], "yuv420p"
                stream.options = {"crf": "18"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def _even(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """With an even number of rows and columns, which the colour format needs: the last ones twice."""
    import numpy as np

    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
