"""PNG, JPEG, BMP and WebP through Pillow, and PNG of 16-bit colour through imagecodecs."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import replace
from typing import Any

from segment_duo.images.decoded import TRANSPARENT, Decoded, check_page, check_size, too_short, upright
from segment_duo.images.promises import read_promise

# Pillow has only a global limit on pixels, checked while a header is read.
_pillow_limit = threading.Lock()


def decode_raster(data: bytes, kind: str, name: str, page: int, max_pixels: int) -> Decoded:
    import numpy as np
    from PIL import Image

    # Pillow warns of odd tags and palettes; on a terminal that would appear as stray lines. Entries that are there already are not added again.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # the header's size is compared with our own limit just below
        try:
            image = Image.open(io.BytesIO(data), formats=[kind.upper()])
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image:
        check_size(name, image.width, image.height, 4, max_pixels)
        promise = read_promise(data, kind)
        if promise is not None and promise.least_bytes > len(data):
            raise too_short(name, kind, image.width, image.height, len(data))
        pages = int(getattr(image, "n_frames", 1)) if kind in {"PNG", "WebP"} else 1
        check_page(name, page, pages)
        if page:
            image.seek(page)
        wide = kind == "PNG" and pages == 1 and data[24:26] in {b"\x10\x02", b"\x10\x04", b"\x10\x06"}
        orientation = int(image.getexif().get(274, 1)) if kind != "BMP" else 1
        if wide:
            found = _wide_png(data)
        else:
            image.load()
            found = _from_pillow(image, kind)
    samples, sideways = upright(found.samples, orientation)
    return replace(found, samples=np.ascontiguousarray(samples), format=kind, pages=pages, sideways=sideways)


def _wide_png(data: bytes) -> Decoded:
    """PNG with 16-bit colour or alpha, which Pillow reduces to 8 bits."""
    import imagecodecs

    stored = imagecodecs.png_decode(data)
    channels = 1 if stored.ndim == 2 else int(stored.shape[2])
    opaque = channels in {1, 3} or stored[..., -1].min() == stored[..., -1].max()
    samples = stored[..., 0] if channels == 2 else stored[..., :3] if channels == 4 else stored
    return Decoded(samples, None, "PNG", str(stored.dtype), channels, 1, warnings=() if opaque else (TRANSPARENT,))


def _from_pillow(image: Any, kind: str) -> Decoded:
    import numpy as np

    told: list[str] = []
    mode = image.mode
    if mode == "P":
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        if "transparency" in image.info:
            told.append(TRANSPARENT)
        indices = np.array(image)
        colours = np.vstack([colours, np.zeros((max(0, int(indices.max(initial=0)) + 1 - len(colours)), 3), np.uint8)])
        return Decoded(indices, colours, kind, "uint8", 1, 1, warnings=tuple(told))
    if mode == "CMYK":
        image = image.convert("RGB")
        told.append("CMYK colours were converted to RGB without a colour profile")
    elif mode not in {"1", "L", "I;16", "I;16B", "I", "F", "LA", "RGB", "RGBA"}:
        image = image.convert("RGBA" if "A" in mode or "a" in mode else "RGB")
    array = np.array(image)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    channels = 4 if mode == "CMYK" else 1 if array.ndim == 2 else array.shape[2]
    dtype = str(array.dtype)
    if array.ndim == 3 and array.shape[2] in {2, 4}:
        if array[..., -1].min() != array[..., -1].max():
            told.append(TRANSPARENT)
        array = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    return Decoded(array, None, kind, dtype, channels, 1, warnings=tuple(told))
