"""The files of models on this machine: where a pulled one lies, and its SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segment_duo.durable import make_private_folders, replace_file
from segment_duo.errors import ModelError
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.catalogue import ModelSpec


def checkpoint_path(paths: Paths, spec: ModelSpec) -> Path:
    """Where a pulled checkpoint lives."""
    return paths.models_dir / spec.checkpoint_file


def partial_path(paths: Paths, spec: ModelSpec) -> Path:
    """Where an unfinished download lives until it is complete and verified."""
    return paths.models_dir / (spec.checkpoint_file + ".part")


def file_sha256(path: Path, paths: Paths) -> str:
    """SHA-256 of a checkpoint, remembered by path, size and modification time (hashing the large one takes seconds).

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        facts = path.stat()
        key = f"{path}\n{facts.st_size}\n{facts.st_mtime_ns}\n{facts.st_ino}"
        notebook = paths.cache_dir / "checkpoint-hashes.json"
        remembered = read_json(notebook)
        found = remembered.get(key)
        if isinstance(found, str):
            return found
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"{path}: {error.strerror or error}", "`segduo models ls` shows which models are here."
        ) from None
    _remember(notebook, {**remembered, key: digest})
    return digest


def size_of(path: Path) -> int | None:
    """Bytes of a file, None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says; empty where it cannot be read or is no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(notebook: Path, entries: Mapping[str, str]) -> None:
    # Only a speed-up: a home that cannot be written to must not stop anything. The newest entries are kept.
    kept = dict(list(entries.items())[-64:])
    try:
        make_private_folders(notebook.parent)
        replace_file(notebook, json.dumps(kept).encode())
        for leftover in notebook.parent.glob(".hashes-*"):  # of versions before 0.2, after a full disk
            leftover.unlink(missing_ok=True)
    except OSError:
        return
