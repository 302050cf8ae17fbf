"""What the header of a JPEG, PNG or BMP file promises, held against its bytes before memory and time are spent on it.

libjpeg fills what a file lacks with grey and says nothing: a file of 380 bytes whose header claimed 20,000 x 20,000 pixels took half a minute and
gigabytes, and looked like a picture. The bounds are what the formats allow at best, so no true file is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_ZLIB_BEST = 1032
"""Bytes that one byte of deflate data can stand for at most (zlib's own figure)."""

_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PROGRESSIVE = 0xC2
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(frozen=True, slots=True)
class Promise:
    """Size by the header, and the least bytes of file that such an image can take."""

    width: int
    height: int
    least_bytes: int


def read_promise(data: bytes, kind: str) -> Promise | None:
    """What the header says; None where it cannot be read, or for kinds (WebP, arithmetic JPEG) whose data have no least size."""
    readers = {"JPEG": _jpeg, "PNG": _png, "BMP": _bmp}
    try:
        return readers[kind](data) if kind in readers else None
    except (struct.error, IndexError, ValueError):
        return None


def _jpeg(data: bytes) -> Promise | None:
    """ITU T.81: every block of 8 x 8 samples of every component has a code for its mean, in sequential files one more for the rest."""
    frame: tuple[int, int, list[tuple[int, int]]] | None = None
    shortest: dict[int, int] = {}
    kind, position = 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in {0xFF, 0x01} or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        (size,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + size]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and frame is None:
            height, width, count = struct.unpack_from(">HHB", body, 1)
            factors = [(body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(count)]
            kind, frame = marker, (width, height, factors)
        elif marker == 0xC4:
            _shortest_codes(body, shortest)
        elif marker == 0xDA:
            break
        position += 2 + size
    else:
        return None
    if frame is None or not (kind in _SEQUENTIAL or kind == _PROGRESSIVE):
        return None
    width, height, factors = frame
    if body[0] != len(factors):  # components in scans of their own, whose tables may come later
        shortest = {}
    bits = shortest.get(0, 1) + (shortest.get(1, 1) if kind in _SEQUENTIAL else 0)
    return Promise(width, height, _jpeg_blocks(width, height, factors) * bits // 8)


def _jpeg_blocks(width: int, height: int, factors: list[tuple[int, int]]) -> int:
    widest, highest = max(h for h, _ in factors), max(v for _, v in factors)
    return sum(-(-width * h // (8 * widest)) * -(-height * v // (8 * highest)) for h, v in factors)


def _shortest_codes(body: bytes, shortest: dict[int, int]) -> None:
    """DHT: a class (0 mean, 1 rest) and a count of codes for each length of 1 to 16 bits."""
    position = 0
    while position + 17 <= len(body):
        table, counts = body[position] >> 4, body[position + 1 : position + 17]
        length = next((i + 1 for i, count in enumerate(counts) if count), 16)
        shortest[table & 1] = min(shortest.get(table & 1, 16), length)
        position += 17 + sum(counts)


def _png(data: bytes) -> Promise:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    row = (width * depth * _PNG_CHANNELS.get(colour, 1) + 7) // 8
    packed = -(-row * height // _ZLIB_BEST)
    return Promise(width, height, packed)


def _bmp(data: bytes) -> Promise | None:
    (header,) = struct.unpack_from("<I", data, 14)
    if header < 40:
        return None
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    rows = (width * bits + 31) // 32 * 4 * abs(height) if compression in {0, 3, 6} else 0
    return Promise(width, abs(height), rows)
