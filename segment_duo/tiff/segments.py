"""Strips and tiles of a TIFF page: their sizes by its geometry, and tags about them that say nothing, too little or what is not so.

Some scanners and cameras write a StripByteCounts of 0, a count of samples for one of bytes, or a negative number. Where the data are
not compressed the geometry tells the true count, and libtiff reads by it; so do we, if the bytes are in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_UNCOMPRESSED = 1
_ENDS_ITSELF = frozenset({5, 7, 8, 32946})
"""LZW, JPEG and deflate data hold their own end, so bytes behind it do no harm. (tifffile does the same for fax data.)"""

_LARGEST_EXPANSION = {5: 4096 * 8 // 12, 8: 1032, 32946: 1032, 32773: 64}
"""Bytes that one byte of LZW, deflate and PackBits data can stand for at most: codes of 12 bits for less than 4096 bytes; zlib's own figure;
two bytes for a run of 128."""


def rows_of_segments(page: Any) -> list[int]:
    """Rows that each strip or tile of a ``tifffile.TiffPage`` holds, in the order of the file."""
    height, width = int(page.imagelength), int(page.imagewidth)
    planes = int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1
    if page.is_tiled:
        tile_height = int(page.tilelength)
        return [tile_height] * (planes * -(-height // tile_height) * -(-width // int(page.tilewidth)))
    strip = min(int(page.rowsperstrip), height)
    return [min(strip, height - top) for top in range(0, height, strip)] * planes


def row_bytes(page: Any) -> int:
    """Bytes of one row of a strip or tile, when it is not compressed."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    samples = int(page.samplesperpixel) if int(page.planarconfig) == 1 else 1
    width = int(page.tilewidth if page.is_tiled else page.imagewidth)
    return (width * samples * int(bits) + 7) // 8


def is_incomplete(page: Any) -> bool:
    """Whether a strip or tile is not listed, or listed without bytes or a place; tifffile would fill it with zeros or the file's head."""
    if not (page.rowsperstrip or page.is_tiled):
        return False
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    pairs = zip(page.dataoffsets, page.databytecounts, strict=False)
    return listed < len(rows_of_segments(page)) or not all(offset > 0 and count > 0 for offset, count in pairs)


def too_few_bytes(page: Any) -> bool:
    """Whether the page's data, however well compressed, cannot make as many pixels as it claims; tells it before anything is allocated."""
    largest = _LARGEST_EXPANSION.get(int(page.compression))
    if largest is None or (not page.rowsperstrip and not page.is_tiled):
        return False
    needed = sum(rows_of_segments(page)) * row_bytes(page)
    return needed > largest * (sum(int(count) for count in page.databytecounts) + 16)


def mend_byte_counts(page: Any, length: int) -> None:
    """Replace byte counts that are missing, zero, too small or beyond the end where the file holds the bytes that the geometry asks for.

    Args:
        page: a ``tifffile.TiffPage``; its ``databytecounts`` may be replaced.
        length: bytes of the file.
    """
    compression = int(page.compression)
    offsets = [int(offset) for offset in page.dataoffsets]
    subsampled = int(page.photometric) == 6  # the rows of YCbCr are shorter than their samples
    if not offsets or compression not in {_UNCOMPRESSED, *_ENDS_ITSELF} or (compression == 1 and subsampled):
        return
    if not (page.rowsperstrip or page.is_tiled):
        return
    rows = rows_of_segments(page)
    counts = [int(count) for count in page.databytecounts][: len(offsets)]
    counts += [0] * (len(offsets) - len(counts))
    if len(rows) != len(offsets):
        return
    if compression == _UNCOMPRESSED:
        needed = [number * row_bytes(page) for number in rows]
        mended = [
            need if offset > 0 and offset + need <= length and (count < need or offset + count > length) else count
            for offset, count, need in zip(offsets, counts, needed, strict=True)
        ]
    else:
        ends = _next_starts(page, offsets, length)
        mended = [
            end - offset if count == 0 and offset > 0 else count
            for offset, count, end in zip(offsets, counts, ends, strict=True)
        ]
    if mended != [int(count) for count in page.databytecounts]:
        page.databytecounts = tuple(mended)
        page.__dict__.pop("is_contiguous", None)  # tifffile remembers it


def mend_predictor(page: Any) -> None:
    """Forget a predictor that stands beside no compression: nothing was predicted, and libtiff does not look at it either."""
    if int(page.compression) == _UNCOMPRESSED and int(page.predictor) != 1:
        page.predictor = type(page.predictor)(1)
        page.__dict__.pop("is_contiguous", None)


def _next_starts(page: Any, offsets: list[int], length: int) -> Iterator[int]:
    """For each segment where the next known thing of the page begins: another segment, its directory, or the end of the file."""
    starts = sorted({*offsets, int(page.offset), length})
    for offset in offsets:
        yield next((start for start in starts if start > offset), offset)
