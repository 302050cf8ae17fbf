"""``segduo models add``: models of other runtimes, looked at and tried before they get a name.

files --allowed? known signature? one run--> copies (or, for ``transformers``, a reference) and a card in <models folder>/NAME
"""

from __future__ import annotations

import datetime
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.durable import create_file, make_private_folders, sync_folder
from segment_duo.errors import ModelError, OutOfSpace, StoreError, UsageError
from segment_duo.segmenters import hf, onnx
from segment_duo.segmenters.added import CARD, LICENCE, Card, ModelFile, file_digest

if TYPE_CHECKING:
    from segment_duo.paths import Paths

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def add_onnx(
    paths: Paths,
    name: str,
    encoder: Path,
    decoder: Path,
    *,
    taken: Sequence[str],
    layout: str | None = None,
    preparation: onnx.Preparation | None = None,
    licence: str = "",
    terms: str = "",
    source: str = "",
) -> Card:
    """Try a pair of ONNX files and copy it into the models folder.

    Args:
        taken: names of other models.
        layout, preparation: see :class:`~segment_duo.segmenters.onnx.Signature`; None finds out.
        licence: SPDX name; ``terms`` the licence's text; ``source`` where the files are from.

    Raises:
        UsageError: the name cannot be taken.
        ModelError: the pair does not fit, or asks for what is not allowed.
        StoreError: the models folder cannot be written to.
    """
    from segment_duo.segmenters.onnx.contents import external_files
    from segment_duo.segmenters.onnx.probe import probe

    _check_name(name, taken)
    beside = {file: external_files(file) for file in (encoder, decoder)}
    signature = probe(encoder, decoder, layout, preparation)
    wanted = {onnx.ENCODER: encoder, onnx.DECODER: decoder}
    for file in (one for files in beside.values() for one in files):
        if wanted.setdefault(file.name, file) != file:
            raise ModelError(f"{encoder} and {decoder} both have weights in {file.name}", "Export them again.")
    with _new_folder(paths, name) as place:
        files = [_copied(source_file, place / target) for target, source_file in wanted.items()]
        card = Card(
            family="onnx",
            files=tuple(files),
            licence=licence,
            source=source,
            description=f"ONNX pair in SAM {signature.layout[-1]}'s layout",
            added=_now(),
            capabilities=tuple(sorted(signature.capabilities)),
            input_size=signature.size,
            run=signature.model_dump(mode="json"),
        )
        _write(place, card, terms)
    return card


def add_hf(
    paths: Paths, name: str, where: str, *, taken: Sequence[str], licence: str = "", terms: str = "", source: str = ""
) -> Card:
    """Take a folder of ``transformers``, or a model of the user's hub cache, as it is: its weights stay where they are.

    Args:
        where: a folder with ``config.json`` and ``model.safetensors``, or ``ORGANISATION/NAME`` in the cache.

    Raises:
        As :func:`add_onnx`.
    """
    from segment_duo.segmenters.hf.hub import find_model

    _check_name(name, taken)
    found = find_model(where)
    with _new_folder(paths, name) as place:
        card = Card(
            family="hf",
            files=tuple(ModelFile(name=f.name, bytes=f.stat().st_size, sha256=file_digest(f)) for f in found.files),
            folder=str(found.folder),
            licence=licence or found.licence,
            source=source or found.source,
            description=f"{found.kind} of transformers",
            added=_now(),
            capabilities=tuple(sorted(hf.CAPABILITIES)),
            input_size=found.input_size,
            run={"kind": found.kind, "mean": found.mean, "std": found.std},
        )
        _write(place, card, terms)
    return card


def _check_name(name: str, taken: Sequence[str]) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be the name of a model", "Use letters, digits and . _ + -, a letter or digit first."
        )
    if name in taken:
        raise UsageError(f"there is a model '{name}' already", "Choose another name; `segduo models show` tells of it.")


@contextmanager
def _new_folder(paths: Paths, name: str) -> Iterator[Path]:
    """A folder that gets its name when everything is in it, and goes if something fails."""
    target = paths.models_dir / name
    place = paths.models_dir / f".{name}-{secrets.token_hex(4)}"
    try:
        make_private_folders(paths.models_dir)
        place.mkdir(mode=0o700)
        try:
            yield place
            sync_folder(place)
            place.rename(target)
            sync_folder(paths.models_dir)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        if target.exists():
            raise UsageError(f"there is a folder {target} already", "Choose another name, or remove it.") from None
        raise _storage_error(error, paths.models_dir) from None


def _storage_error(error: OSError, folder: Path) -> StoreError:
    import errno

    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutOfSpace(f"{folder}: no space is left for the model", "Make room, or set SEGDUO_HOME.")
    return StoreError(f"{folder}: {error.strerror or error}", "Make the folder writable, or set SEGDUO_HOME.")


def _copied(source: Path, target: Path) -> ModelFile:
    """Copy a file to the disk; what is recorded is what was written."""
    with source.open("rb") as taken, target.open("xb") as given:
        shutil.copyfileobj(taken, given, 2**20)
        given.flush()
        os.fsync(given.fileno())
    return ModelFile(name=target.name, bytes=target.stat().st_size, sha256=file_digest(target))


def _write(place: Path, card: Card, terms: str) -> None:
    if terms:
        create_file(place / LICENCE, terms.encode())
    create_file(place / CARD, card.model_dump_json(indent=1).encode() + b"\n")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
