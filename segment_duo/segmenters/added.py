"""The card of a model that the user added: which family loads its files, what they are, and what was recorded of them.

``<models folder>/NAME/card.json``, with the files beside it or in ``folder``. Light: every command that names a model imports it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segment_duo.errors import ModelError
from segment_duo.segmenters.base import Capability, SegmenterInfo, fingerprint

CARD = "card.json"
LICENCE = "LICENCE"
"""The licence's text, beside the card."""

_MOST_CARD = 2**20
_MOST_TERMS = 2**18


class ModelFile(BaseModel):
    """``name`` has no folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(pattern=r"^[^/\\]+$")
    bytes: int
    sha256: str


class Card(BaseModel):
    """What is kept of an added model.

    Attributes:
        family: ``onnx`` or ``hf``.
        folder: absolute path of its files where they are not beside the card.
        licence, source, description: as in :class:`~segment_duo.segmenters.base.SegmenterInfo`.
        capabilities: what it can.
        input_size: pixels a side of its input.
        run: what the family needs to run it; only the family looks inside.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    family: Literal["onnx", "hf"]
    files: tuple[ModelFile, ...] = Field(min_length=1)
    folder: str = ""
    licence: str = ""
    source: str = ""
    description: str = ""
    added: str = ""
    capabilities: tuple[Capability, ...]
    input_size: int = Field(1024, ge=0)
    run: dict[str, Any] = Field(default_factory=dict)

    def info(self, name: str, place: Path) -> SegmenterInfo:
        """What ``segduo models ls`` says of it; ``place`` is the folder of the card."""
        return SegmenterInfo(
            id=name,
            sha256=self.sha256,
            capabilities=frozenset(self.capabilities),
            licence=self.licence,
            terms=_terms(place),
            description=self.description,
            source=self.source,
            input_size=self.input_size,
        )

    @property
    def sha256(self) -> str:
        """Of all that decides its results: the files' hashes, and how they are run."""
        return fingerprint(self.family, *(one.sha256 for one in self.files), json.dumps(self.run, sort_keys=True))

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files)

    def paths(self, place: Path) -> list[Path]:
        """Where its files are."""
        folder = Path(self.folder) if self.folder else place
        return [folder / one.name for one in self.files]


def read_card(place: Path) -> Card | None:
    """The card in a folder; None where there is none.

    Raises:
        ModelError: it cannot be understood.
    """
    file = place / CARD
    try:
        if file.stat().st_size > _MOST_CARD:
            raise ModelError(f"{file} is larger than any card")
        content = file.read_bytes()
    except OSError:
        return None
    if b'"family"' not in content:
        return None  # of a trained model
    try:
        return Card.model_validate_json(content)
    except ValidationError:
        raise ModelError(f"{file} cannot be understood", f"Remove {place} and add the model again.") from None


def checked_files(card: Card, place: Path) -> list[Path]:
    """The files of a card, each compared with what was recorded of it.

    Raises:
        ModelError: one is missing or was changed.
    """
    files = card.paths(place)
    for one, file in zip(card.files, files, strict=True):
        try:
            if file.stat().st_size != one.bytes or file_digest(file) != one.sha256:
                raise ModelError(
                    f"{file} is not the file that was added: its size or SHA-256 differs",
                    f"Remove {place} and add the model again.",
                )
        except OSError as error:
            raise ModelError(f"{file}: {error.strerror or error}", f"Remove {place} and add the model again.") from None
    return files


def file_digest(file: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits. Raises ``OSError``."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _terms(place: Path) -> str:
    try:
        with (place / LICENCE).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_MOST_TERMS)
    except OSError:
        return ""
