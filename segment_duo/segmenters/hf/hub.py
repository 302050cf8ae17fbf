"""Where a model of ``transformers`` lies on this machine: a folder, or the user's hub cache. Reads files only: no network, no ``transformers``."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment_duo.errors import ModelError
from segment_duo.segmenters.hf import KINDS
from segment_duo.segmenters.sam2.catalogue import IMAGE_MEAN, IMAGE_STD

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MOST_JSON = 2**24
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class HubModel:
    """A model's folder, what it is, its files (config first), and how its input is made."""

    folder: Path
    kind: str
    files: tuple[Path, ...]
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str


def find_model(where: str) -> HubModel:
    """Look up a folder, or ``ORGANISATION/NAME`` in the cache.

    Raises:
        ModelError: it is not here, is no mask-generation model, or has no safetensors.
    """
    folder = Path(where).expanduser()
    if not folder.is_dir():
        cached = _in_cache(where) if _REPOSITORY.fullmatch(where) else None
        if cached is None:
            raise ModelError(
                f"'{where}' is neither a folder nor a model in {hub_cache()}",
                "segduo downloads nothing from the hub: `hf download ORGANISATION/NAME` does, once.",
            )
        folder = cached
    folder = folder.resolve()
    config = _json(folder / CONFIG)
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        raise ModelError(
            f"{folder}: '{kind}' is no mask-generation model known here", f"There are: {', '.join(KINDS)}."
        )
    source = f"hub: {where}" if _REPOSITORY.fullmatch(where) and not Path(where).is_dir() else str(folder)
    mean, std = _normalisation(folder, kind)
    files = (folder / CONFIG, *_weights(folder))
    return HubModel(folder, kind, files, _input_size(config, kind), mean, std, source, _licence(folder))


def hub_cache() -> Path:
    """The hub's cache, as ``huggingface_hub`` finds it."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface") / "hub"


def _in_cache(name: str) -> Path | None:
    """The snapshot of a repository's main branch, else the newest one."""
    place = hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        main = (place / "refs" / "main").read_text(encoding="utf-8").strip()
        if re.fullmatch(r"[0-9a-f]{6,64}", main) and (place / "snapshots" / main).is_dir():
            return place / "snapshots" / main
    except (OSError, UnicodeDecodeError):
        pass
    try:
        snapshots = [entry for entry in (place / "snapshots").iterdir() if (entry / CONFIG).is_file()]
    except OSError:
        return None
    return max(snapshots, key=lambda entry: entry.stat().st_mtime, default=None)


def _weights(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise ModelError(
            f"{folder} has no {WEIGHTS}", "Other kinds of weights can hold code and are not read; convert them."
        )
    named = _json(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    files = [folder / name for name in names]
    if not files or any(Path(name).name != name or not file.is_file() for name, file in zip(names, files, strict=True)):
        raise ModelError(f"{folder / INDEX} names weights that are not beside it", "Fetch the model again.")
    return [folder / INDEX, *files]


def _input_size(config: dict[str, Any], kind: str) -> int:
    """``image_size`` of the prompt encoder, an edge or (height, width); the kind's own where it is not told."""
    part = config.get("prompt_encoder_config")
    size = part.get("image_size") if isinstance(part, dict) else None
    size = size[0] if isinstance(size, list) and size else size
    if isinstance(size, int) and 16 <= size <= 8192:
        return size
    return 1008 if kind.startswith("sam3") else 1024


def _normalisation(folder: Path, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of RGB in [0, 1], as the model's processor says, else as its kind usually has them."""
    usual = ((0.5,) * 3, (0.5,) * 3) if kind.startswith("sam3") else (IMAGE_MEAN, IMAGE_STD)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        told = _json(folder / name)
        inner = told.get("image_processor")
        told = inner if isinstance(inner, dict) else told
        values = [told.get(key) for key in ("image_mean", "image_std")]
        if all(_three_numbers(value) for value in values):
            return tuple(values[0]), tuple(values[1])  # type: ignore[arg-type]
    return usual


def _three_numbers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value)


def _licence(folder: Path) -> str:
    """What the model card says in its header, as an SPDX name where that is plain; empty else."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as stream:
            head = stream.read(4096)
    except OSError:
        return ""
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head, re.M)
    plain = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause"}
    return plain.get(found[1].lower(), found[1]) if found else ""


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST_JSON:
            raise ModelError(f"{file} is larger than any config")
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}", "Give the folder of a model of transformers.") from None
    except ValueError:
        raise ModelError(f"{file} is no JSON", "Fetch the model again.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file} holds no config", "Fetch the model again.")
    return value
