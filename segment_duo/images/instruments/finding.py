"""What passes between the instrument readers and their caller, and the small parsers they share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segment_duo.lengths import length_nm, parse_number, parse_quantity
from segment_duo.types import Instrument, PixelSize

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_TEXT = 4 * 2**20  # metadata of real files is below 64 KiB (OME: a few MiB)


MAKER_TAGS = (34118, 34680, 34682, 34683, 50431)
"""Private TIFF tags of Zeiss, FEI S-FEG, FEI Helios, FEI Titan and Phenom, Tescan."""


@dataclass(frozen=True, slots=True)
class Source:
    """All an instrument reader may look at. ``raw``: bytes of :data:`MAKER_TAGS`; ``sidecars``: lower-case file name to content.

    ``width`` and ``height`` are those of the file's page as stored, banner included.
    """

    width: int
    height: int
    raw: Mapping[int, bytes] = field(default_factory=dict)
    sidecars: Mapping[str, bytes] = field(default_factory=dict)
    make: str = ""
    model: str = ""
    description: str = ""
    x_resolution: float | None = None
    y_resolution: float | None = None
    is_ome: bool = False
    page: int = 0
    embedded_xml: bytes = b""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one reader found. ``banner_rows``: height by the metadata, 0 = it says there is none, None = it does not say."""

    pixel_size: PixelSize | None = None
    banner_rows: int | None = None
    instrument: Instrument = field(default_factory=Instrument)
    warnings: tuple[str, ...] = ()


def text_of(raw: bytes) -> str:
    """Metadata as text: UTF-16 (with or without a mark), UTF-8, else Windows-1252; without NULs."""
    return without_nuls(_decoded(raw[:_MAX_TEXT]))


def without_nuls(text: str) -> str:
    """The text without the NULs that C programs pad their lines with; alone between two lines they end the first."""
    return re.sub(r"\0+", "\n", re.sub(r"^\0+|(?<=[\r\n])\0+|\0+(?=[\r\n])|\0+$", "", text))


def _decoded(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    if len(raw) >= 8 and raw[1:64:2].count(0) > len(raw[1:64:2]) * 3 // 4:
        return raw.decode("utf-16-le", "replace")
    if len(raw) >= 8 and raw[0:64:2].count(0) > len(raw[0:64:2]) * 3 // 4:
        return raw.decode("utf-16-be", "replace")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def unescaped(unit: str) -> str:
    r"""A unit of ImageJ's, which writes ``\u00B5m`` for what is not ASCII."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unit.strip())


def ini_sections(text: str) -> dict[str, dict[str, str]]:
    """INI text as lower-case section -> lower-case key -> value; lines before any section are in ``""``; the first of equal keys counts.

    Python's configparser refuses what real files contain (equal keys, lines without ``=``).
    """
    sections: dict[str, dict[str, str]] = {"": {}}
    current = sections[""]
    for raw_line in text.splitlines():
        line = raw_line.strip()
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1].strip().lower(), {})
        elif "=" in line:
            key, _, value = line.partition("=")
            current.setdefault(key.strip().lower(), value.strip())
    return sections


def number(text: str | None) -> float | None:
    """The finite number that ``text`` is, with a point or a comma; None if anything stands beside it."""
    return parse_number(text or "")


def positive(text: str | None) -> float | None:
    """Like :func:`number`, but None unless it is above zero."""
    value = number(text)
    return value if value is not None and value > 0 else None


def whole(text: str | None) -> int | None:
    """A count of pixels, or None."""
    value = number(text)
    return int(value) if value is not None and 0 <= value < 10**7 and value.is_integer() else None


def counts(text: str | None) -> tuple[int, int]:
    """``1280x960``, ``1280, 960``, ``1280*960`` as two counts of pixels; (0, 0) if they are not that."""
    found = [whole(part) for part in re.split(r"\s*[xX×*,;]\s*|\s+", (text or "").strip())]
    return (found[0] or 0, found[1] or 0) if len(found) == 2 else (0, 0)


_VOLTS = {"v": 1.0, "volt": 1.0, "volts": 1.0, "kv": 1e3, "kilovolt": 1e3, "kilovolts": 1e3, "mv": 1e6}


def kilovolts(text: str | None, unit: str) -> float | None:
    """A positive voltage: ``15000 Volt``, ``15,0 kV``; ``unit`` is that of a bare number."""
    found = parse_quantity(text or "")
    factor = _VOLTS.get((found[1] or unit).lower()) if found else None
    return found[0] * factor / 1e3 if found and factor and found[0] > 0 else None


def millimetres(text: str | None, unit: str) -> float | None:
    """A positive length: ``8100 um``, ``8,1 mm``; ``unit`` is that of a bare number."""
    nm = length_nm(text or "", unit)
    return None if nm is None else nm / 1e6


def magnification(text: str | None) -> float | None:
    """``50000``, ``x50.0k``, ``105 X``, ``50,00 K X``, ``1.20 M X``. ``10,000`` is unknown: ten thousand is likelier, ten is what it says."""
    written = re.sub(r"^\s*[xX×]\s*", "", text or "")
    found = parse_quantity(written)
    if found is None or found[0] <= 0 or re.match(r"\s*\d{1,3},\d{3}(?!\d)", written):
        return None
    prefix = re.fullmatch(r"([kKM]?)\s*[xX×]?", found[1])
    return None if prefix is None else found[0] * {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}[prefix[1]]


def unreadable(maker: str, key: str, text: str) -> str:
    """The warning for a scale that is there but not understood. Nothing is guessed from a part of it."""
    return f"{maker}: {key} is {text!r}, which is not understood, so it is not used"


def rescaled(full_width: float, full_height: float, width: int, height: int) -> float | None:
    """How many recorded pixels one pixel of the file covers; None if the file is no scaled copy (it was cropped, or nothing is known).

    A scaled copy keeps the ratio of the sides, within the rounding to whole pixels.
    """
    if min(full_width, full_height, width, height) <= 0:
        return None
    across, down = full_width / width, full_height / height
    slack = across / min(width, height) * 1.5 + 1e-6
    return across if abs(across - down) <= slack else None


def safe_xml(text: str) -> Element | None:
    """Parse XML without document types, so that no entity can be declared, let alone expanded. None if it is not well-formed."""
    from xml.etree import ElementTree

    start = text.find("<")
    if start < 0 or re.search(r"<!\s*(?:DOCTYPE|ENTITY)", text, re.IGNORECASE):
        return None
    try:
        return ElementTree.fromstring(re.sub(r"^<\?xml[^>]*\?>", "", text[start:].strip()))
    except ElementTree.ParseError:
        return None


def local_name(element: Element) -> str:
    """The tag without its namespace, in lower case."""
    return element.tag.rsplit("}", 1)[-1].lower() if isinstance(element.tag, str) else ""


def joined(*parts: str) -> str:
    """Non-empty parts with one space between them."""
    return " ".join(p for p in (q.strip() for q in parts) if p)
