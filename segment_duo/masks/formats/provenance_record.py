"""Provenance and origins as dicts of plain builtins, and back: the second part of a mask set file, and what ``--json`` shows.

Whatever is read here may come from a hostile file: types are checked, and depth and size are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segment_duo.errors import MaskFileError
from segment_duo.masks.load_masks import (
    DamagedMaskFile,
)
from segment_duo.types import Banner, ImageIdentity, ModelIdentity, Origin, PixelSize, Provenance

FORMAT_NAME = "segment_duo mask set"
FORMAT_VERSION = 1

_JSON_DEPTH = 12
_JSON_ITEMS = 200_000


def origin_record(origin: Origin) -> dict[str, Any]:
    """An origin as a dict of plain builtins; :func:`read_origin` is the inverse."""
    return {
        "operation": str(origin.operation),
        "model": _model_record(origin.model),
        "parameters": plain_json(dict(origin.parameters)),
        "program_version": str(origin.program_version),
        "notices": [str(notice) for notice in origin.notices],
        "edits": [str(edit) for edit in origin.edits],
    }


def read_origin(value: Mapping[str, Any]) -> Origin:
    """The inverse of :func:`origin_record`.

    Raises:
        DamagedMaskFile, KeyError, TypeError, AttributeError: it is something else.
    """
    return Origin(
        operation=_text(value["operation"]),
        model=_read_model(value.get("model")),
        parameters=dict(plain_json(value.get("parameters") or {})),
        program_version=_text(value.get("program_version", "")),
        notices=tuple(_text(notice) for notice in value.get("notices") or ()),
        edits=tuple(_text(edit) for edit in value.get("edits") or ()),
    )


def _model_record(model: ModelIdentity | None) -> dict[str, str] | None:
    return None if model is None else {"id": str(model.id), "weights_sha256": str(model.weights_sha256)}


def _read_model(value: Any) -> ModelIdentity | None:
    return None if value is None else ModelIdentity(_text(value["id"]), _text(value["weights_sha256"]))


def provenance_record(provenance: Provenance) -> dict[str, Any]:
    image, model = provenance.image, provenance.model
    banner, size = provenance.banner, provenance.pixel_size
    return {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "image": None
        if image is None
        else {
            "path": str(image.path),
            "sha256": str(image.sha256),
            "width": int(image.width),
            "height": int(image.height),
            "page": int(image.page),
        },
        "model": _model_record(model),
        "models": [str(name) for name in provenance.models],
        "created": str(provenance.created),
        "program_version": str(provenance.program_version),
        "operation": str(provenance.operation),
        "parameters": plain_json(dict(provenance.parameters)),
        "parent": None if provenance.parent is None else str(provenance.parent),
        "banner": None if banner is None else {"height": int(banner.height), "source": str(banner.source)},
        "pixel_size": None
        if size is None
        else {
            "x_nm": float(size.x_nm),
            "y_nm": float(size.y_nm),
            "source": str(size.source),
            "trust": str(size.trust),
        },
        "notices": [str(notice) for notice in provenance.notices],
    }


def plain_json(value: object) -> Any:
    """``value`` with JSON's types only (tuples become lists); bounded in depth and size, since it may come from a file that refers to itself.

    Raises:
        MaskFileError: other types, or too deep or too much.
    """
    left = [_JSON_ITEMS]

    def walk(item: object, depth: int) -> Any:
        left[0] -= 1
        if depth > _JSON_DEPTH or left[0] < 0:
            raise MaskFileError("the parameters are nested too deeply or too many")
        if item is None or isinstance(item, (bool, int, float, str)):
            # Subclasses (enums, NumPy's float64) would need their class to be read again.
            return next((kind(item) for kind in (bool, int, float, str) if isinstance(item, kind)), None)
        if isinstance(item, Mapping):
            return {str(key): walk(inner, depth + 1) for key, inner in item.items()}
        if isinstance(item, Sequence) and not isinstance(item, bytes):
            return [walk(inner, depth + 1) for inner in item]
        raise MaskFileError(f"a parameter is a {type(item).__name__}, which a mask set cannot hold")

    return walk(value, 0)


def integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DamagedMaskFile(f"its {what} is a {type(value).__name__}, not a whole number")
    return value


def read_provenance(value: object) -> Provenance:
    if not isinstance(value, dict) or value.get("format") != FORMAT_NAME:
        raise DamagedMaskFile("its second part is not the provenance of a mask set")
    version = value.get("format_version")
    if type(version) is not int or version > FORMAT_VERSION:
        raise MaskFileError(
            f"is written in version {str(version)[:20]} of the format; this program reads up to {FORMAT_VERSION}",
            "install a newer segment_duo",
        )
    return read_fields(value)


def read_fields(value: Mapping[str, Any]) -> Provenance:
    """The fields of :func:`provenance_record`, whatever format they are part of.

    Raises:
        DamagedMaskFile: they are something else.
    """
    try:
        image, model = value.get("image"), value.get("model")
        banner, size = value.get("banner"), value.get("pixel_size")
        parameters = plain_json(value.get("parameters") or {})
        return Provenance(
            image=None
            if image is None
            else ImageIdentity(
                path=_text(image["path"]),
                sha256=_text(image["sha256"]),
                width=integer(image["width"], "image's width"),
                height=integer(image["height"], "image's height"),
                page=integer(image.get("page", 0), "page"),
            ),
            model=_read_model(model),
            models=tuple(_text(name) for name in value.get("models", [model["id"]] if model else ())),
            created=_text(value.get("created", "")),
            program_version=_text(value.get("program_version", "")),
            operation=_text(value.get("operation", "")),
            parameters=dict(parameters),
            parent=None if value.get("parent") is None else _text(value["parent"]),
            banner=None if banner is None else Banner(integer(banner["height"], "banner"), _text(banner["source"])),  # type: ignore[arg-type]
            pixel_size=None
            if size is None
            else PixelSize(float(size["x_nm"]), float(size["y_nm"]), _text(size["source"]), _text(size["trust"])),  # type: ignore[arg-type]
            notices=tuple(_text(notice) for notice in value.get("notices") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DamagedMaskFile):
            raise
        raise DamagedMaskFile(f"its provenance is damaged ({type(error).__name__}: {str(error)[:80]})") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise DamagedMaskFile(f"its provenance holds a {type(value).__name__} where text is expected")
    return value
