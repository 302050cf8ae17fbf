"""LZW inside TIFF through libtiff.

tifffile would call imagecodecs' own LZW decoder, which follows table entries it never wrote when a file is damaged (seen with 2026.3.6) and
takes the whole process with it: one bad file would end a batch, or the engine. libtiff, which imagecodecs carries too, refuses such codes.
"""

from __future__ import annotations

import struct
from typing import Any

from segment_duo.errors import ImageError
from segment_duo.tiff.mended import MendedFile
from segment_duo.tiff.segments import row_bytes, rows_of_segments

_LARGEST_EXPANSION = 4096 * 8 // 12
"""A code of 12 bits stands for less than 4096 bytes."""


def expand_lzw(page: Any, file: MendedFile, name: str) -> None:
    """Decode the LZW segments of ``page``, append them to ``file`` and let the page (a ``tifffile.TiffPage`` of that file) point at them.

    Afterwards the page is one without compression; predictor, byte order and layout stay with tifffile.

    Raises:
        ImageError: a segment is missing.
        imagecodecs.TiffError: a segment is damaged or too short.
    """
    lengths = rows_of_segments(page)
    if min(len(page.dataoffsets), len(page.databytecounts)) < len(lengths):
        raise ImageError(f"{name}: damaged TIFF file, it lists too few strips or tiles", "copy the file again")
    offsets: list[int] = []
    counts: list[int] = []
    bytes_of_row = row_bytes(page)
    if max(lengths, default=0) * bytes_of_row > _LARGEST_EXPANSION * file.size:
        raise ImageError(f"{name}: damaged TIFF file, its strips or tiles are larger than LZW can make them")
    for offset, count, rows in zip(page.dataoffsets, page.databytecounts, lengths, strict=False):
        if not count:
            raise ImageError(f"{name}: damaged TIFF file, a strip or tile is missing", "copy the file again")
        segment = file.bytes_at(int(offset), int(count))
        expanded = _decoded(segment, rows, bytes_of_row, fill_order=int(page.fillorder))
        offsets.append(file.append(expanded))
        counts.append(len(expanded))
    page.dataoffsets, page.databytecounts = tuple(offsets), tuple(counts)
    page.is_contiguous = False  # tifffile applies a predictor to a contiguous page as if it were one row
    page.compression = type(page.compression)(1)
    page.fillorder = type(page.fillorder)(1)


def _decoded(segment: bytes, rows: int, bytes_of_row: int, *, fill_order: int) -> bytes:
    """The bytes of one segment, read as a grey image of 8 bits: nothing but the decompression happens to them."""
    import imagecodecs

    short, long = 3, 4  # TIFF 6.0 field types
    fields = (
        (256, long, bytes_of_row), (257, long, rows), (258, short, 8), (259, short, 5), (262, short, 1),
        (266, short, fill_order), (273, long, 8 + 2 + 10 * 12 + 4), (277, short, 1), (278, long, rows),
        (279, long, len(segment)),
    )  # fmt: skip
    head = struct.pack("<2sHLH", b"II", 42, 8, len(fields))
    head += b"".join(struct.pack("<HHLL", code, kind, 1, value) for code, kind, value in fields) + bytes(4)
    return bytes(imagecodecs.tiff_decode(head + segment))
