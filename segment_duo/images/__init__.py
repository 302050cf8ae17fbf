"""Images: decoding, instrument facts, the info banner, pixel sizes and the stretch to 8 bits.

Bytes go in, an :class:`~segment_duo.types.ImageData` comes out; where the bytes come from is the stores' business. Importing this package
is light: NumPy, tifffile and Pillow are loaded when a picture is decoded.
"""

from __future__ import annotations

from segment_duo.images.decode import IMAGE_SUFFIXES
from segment_duo.images.instruments import sidecar_names
from segment_duo.images.pixel_size import parse_pixel_size
from segment_duo.images.read import read_array, read_image
from segment_duo.images.stretch import Stretched, stretch_to_uint8

__all__ = [
    "IMAGE_SUFFIXES",
    "Stretched",
    "parse_pixel_size",
    "read_array",
    "read_image",
    "sidecar_names",
    "stretch_to_uint8",
]
