"""From a file's bytes to samples: what kind of file it is, and one clear error whatever a decoder raised.

The type is told by the content, never by the name. Sizes are checked against our own limit before anything is allocated. Every
failure leaves this module as one :class:`ImageError` that names the file and what was found.

This module must not interpret instrument tags, cut banners or stretch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segment_duo.errors import ImageError, SegduoError
from segment_duo.images.decoded import Decoded
from segment_duo.text import what_it_said

IMAGE_SUFFIXES: frozenset[str] = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Lower-case extensions, with the dot, of the files we open."""

FILM = "a film (MP4, AVI, MOV or Matroska)"
"""What :func:`sniff` calls the files that :mod:`segment_duo.images.film` reads."""

_READ = frozenset({"TIFF", "PNG", "JPEG", "BMP", "WebP"})
_MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "a GIF file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive (or an Office file)"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 file"),
    (b"8BPS", "a Photoshop file"),
    *((bytes((0x80, protocol)), "a Python pickle") for protocol in range(2, 6)),
)


def decode(data: bytes, *, name: str, page: int, max_pixels: int) -> Decoded:
    """Decode page ``page`` (counted from 0) of ``data``.

    Raises:
        ImageError: not an image, damaged, of a kind we do not read, without that page, or larger than ``max_pixels``.
    """
    kind = sniff(data)
    with explained(name, kind):
        if kind == "TIFF":
            from segment_duo.images.tiff import decode_tiff

            return decode_tiff(data, name, page, max_pixels)
        if kind in _READ:
            from segment_duo.images.raster import decode_raster

            return decode_raster(data, kind, name, page, max_pixels)
    hint = "PNG, JPEG, TIFF, BMP and WebP can be read"
    if kind == FILM:
        hint = "a film is read as a sequence of frames, not as one image"
    if kind == "a web page (HTML)":
        hint = "the server sent a page instead of the file: check the path and the login"
    raise ImageError(f"{name}: not an image; found {kind}", hint)


@contextmanager
def explained(name: str, kind: str) -> Iterator[None]:
    """Let whatever a decoder raises leave as one ImageError that names the file; our own errors pass."""
    try:
        yield
    except SegduoError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode this image") from error
    except Exception as error:  # broken files raise whatever a decoder happens to raise
        raise ImageError(
            f"{name}: damaged or unreadable {kind} file ({type(error).__name__}{what_it_said(error)})",
            "copy the file again, or export it anew from the program that made it",
        ) from error


def sniff(data: bytes) -> str:
    """Name the kind of ``data``: ``TIFF``, ``PNG``, ``JPEG``, ``BMP``, ``WebP``, or a phrase for an error message."""
    if data[8:12] == b"WEBP" and data.startswith(b"RIFF"):
        return "WebP"
    if data[4:8] == b"ftyp" or (data[8:11] == b"AVI" and data.startswith(b"RIFF")) or data.startswith(b"\x1aE\xdf\xa3"):
        return FILM
    if data.startswith(b"BM") and len(data) >= 26:
        return "BMP"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    return _describe_text(data) if data.strip(b"\0") else "nothing but zero bytes" if data else "an empty file"


def _describe_text(data: bytes) -> str:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<html" in head or head.startswith((b"<!doctype html", b"<head", b"<body")):
        return "a web page (HTML)"
    if not all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "unknown binary data"
    if head.startswith(b"<"):
        return "XML text"
    return "JSON text" if head.startswith((b"{", b"[")) else "text"
