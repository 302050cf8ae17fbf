"""Which models there are on this machine, and which one runs. No torch here: every command may ask.

nano                   shipped in the package: works at once, offline
sam2.1-tiny ... -large Meta's checkpoints, pulled on request
NAME                   trained by the user: ``<models folder>/NAME/{model.yaml,model.pt,card.json}``
custom                 a pair of absolute paths: ``model_config_path`` and ``checkpoint_path``
PLUG-IN                what other packages bring (:mod:`segment_duo.segmenters.plugins`); imported only when it is used or listed
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segment_duo.config import Config
from segment_duo.durable import make_private_folders, replace_file
from segment_duo.errors import ConfigError, ModelError
from segment_duo.paths import Paths
from segment_duo.segmenters import plugins
from segment_duo.segmenters.plugins import SAM2
from segment_duo.segmenters.sam2.catalogue import CAPABILITIES, SAM21, SAM_INPUT, ModelSpec

NANO = "nano"
CUSTOM = "custom"
NANO_DIR = Path(__file__).resolve().parent / "nano"

Origin = Literal["flag", "configured", "pulled", "fallback"]
State = Literal["packaged", "pulled", "partial", "missing", "damaged", "trained", "custom", "plug-in"]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as ``segduo models ls`` shows it.

    ``bytes``: size of the checkpoint, for a partial one of what is here; ``sha256`` is empty for damaged models. ``family``: the plug-in that
    loads it; ``capabilities``, ``licence`` and ``input_size`` as in :class:`~segment_duo.segmenters.base.SegmenterInfo`.
    """

    id: str
    description: str
    state: State
    config: str
    checkpoint: Path
    bytes: int
    sha256: str = ""
    spec: ModelSpec | None = None
    family: str = SAM2
    capabilities: frozenset[str] = CAPABILITIES
    licence: str = ""
    input_size: int = SAM_INPUT

    @property
    def usable(self) -> bool:
        return self.state in {"packaged", "pulled", "trained", "custom", "plug-in"}


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that runs.

    Attributes:
        id: nano, sam2.1-..., custom or a trained model's name.
        config: absolute path of a yaml, or the name of one inside the ``sam2`` package.
        checkpoint: absolute path.
        sha256: of the checkpoint file.
        origin: why this one: named by a flag, configured, the largest one pulled, or nano for want of better.
        notice: one line for the user, or empty.
        auto_defaults: the model's own parameters for automatic masks, by name (fields of ``AutoParameters``).
        family: the plug-in that loads it.
        capabilities: what it can be asked for; empty when an engine does not tell.
        input_size: pixels a side that an image is shrunk to, 0 if it is taken as it is.
    """

    id: str
    config: str
    checkpoint: str
    sha256: str
    origin: Origin = "configured"
    notice: str = ""
    auto_defaults: Mapping[str, Any] = field(default_factory=dict)
    family: str = SAM2
    capabilities: frozenset[str] = CAPABILITIES
    input_size: int = SAM_INPUT


FALLBACK_NOTICE = "Using the small built-in model 'nano'. For better masks: `segduo models pull sam2.1-large` (898 MB)."


def spec_of(model_id: str) -> ModelSpec:
    """The checkpoint to pull for ``model_id``.

    Raises:
        ModelError: none of that name; suggests the nearest.
    """
    for spec in SAM21:
        if spec.id == model_id:
            return spec
    raise _unknown(model_id, [spec.id for spec in SAM21])


def checkpoint_path(paths: Paths, spec: ModelSpec) -> Path:
    """Where a pulled checkpoint lives."""
    return paths.models_dir / spec.checkpoint_file


def partial_path(paths: Paths, spec: ModelSpec) -> Path:
    """Where an unfinished download lives until it is complete and verified."""
    return paths.models_dir / (spec.checkpoint_file + ".part")


def known_models(paths: Paths, config: Config | None = None) -> list[KnownModel]:
    """Every model this machine knows: nano, SAM 2.1 smallest first, trained ones by name, the custom pair if it is configured, plug-ins."""
    models = _without_plug_ins(paths, config)
    taken = {model.id for model in models}
    return models + [_plug_in(name) for name in plugins.names() if name not in taken]


def _without_plug_ins(paths: Paths, config: Config | None) -> list[KnownModel]:
    models = [_nano(paths)]
    models += [_official(paths, spec) for spec in SAM21]
    models += _trained(paths)
    if config is not None and config.model_config_path and config.checkpoint_path:
        models.append(_custom(paths, config.model_config_path, config.checkpoint_path))
    return models


def resolve_model(config: Config, paths: Paths, flag: str | None = None) -> ModelChoice:
    """Which model runs: the flag, else the configured one, else the largest SAM 2.1 checkpoint already pulled, else nano with a notice.

    Raises:
        ModelError: unknown name, not pulled yet, or files missing.
        ConfigError: only one half of the custom pair is set.
    """
    if bool(config.model_config_path) != bool(config.checkpoint_path):
        given, missing = (
            ("model_config_path", "checkpoint_path")
            if config.model_config_path
            else ("checkpoint_path", "model_config_path")
        )
        raise ConfigError(
            f"{given} is set, but {missing} is not", "A custom model needs both: MODEL_CONFIG and CHECKPOINT_PATH."
        )
    named = flag or config.model or (CUSTOM if config.checkpoint_path else None)
    origin: Origin = "flag" if flag else "configured"
    models = {model.id: model for model in _without_plug_ins(paths, config)}
    if named is not None:
        if named not in models and named in plugins.names():
            models[named] = _plug_in(named)
        return _choose(models, named, origin)
    for spec in reversed(SAM21):
        if models[spec.id].usable:
            return _choice(models[spec.id], "pulled")
    if not models[NANO].usable:
        raise ModelError(
            "the built-in model's files are missing", "Install segduo again, or pull a model: segduo models pull."
        )
    return _choice(models[NANO], "fallback", FALLBACK_NOTICE)


def file_sha256(path: Path, paths: Paths) -> str:
    """SHA-256 of a checkpoint, remembered by path, size and modification time (hashing the large one takes seconds).

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        facts = path.stat()
        key = f"{path}\n{facts.st_size}\n{facts.st_mtime_ns}\n{facts.st_ino}"
        notebook = paths.cache_dir / "checkpoint-hashes.json"
        remembered = _read_json(notebook)
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


def _choose(models: Mapping[str, KnownModel], named: str, origin: Origin) -> ModelChoice:
    model = models.get(named)
    if model is None:
        raise _unknown(named, list(models))
    if model.state in {"missing", "partial"}:
        raise ModelError(
            f"the model '{named}' is not on this machine yet", f"Get it with `segduo models pull {named}`."
        )
    if not model.usable:
        raise ModelError(
            f"the model '{named}' is incomplete: {model.description}", "`segduo models verify` tells more."
        )
    return _choice(model, origin)


def _choice(model: KnownModel, origin: Origin, notice: str = "") -> ModelChoice:
    return ModelChoice(
        model.id,
        model.config,
        str(model.checkpoint) if model.family == SAM2 else "",
        model.sha256,
        origin,
        notice,
        auto_defaults(model),
        model.family,
        model.capabilities,
        model.input_size,
    )


def auto_defaults(model: KnownModel) -> dict[str, Any]:
    """A model's own parameters for automatic masks: nano's and a trained model's card have some, official models none."""
    if model.state == "packaged":
        return _read_json(NANO_DIR / "defaults.json")
    if model.state == "trained":
        defaults = _read_json(model.checkpoint.parent / "card.json").get("auto_defaults")
        return dict(defaults) if isinstance(defaults, dict) else {}
    if model.state == "plug-in":
        found = plugins.describe(model.id).family
        return dict(found.info.auto_defaults) if found is not None and found.info is not None else {}
    return {}


def _plug_in(name: str) -> KnownModel:
    found = plugins.describe(name)
    if found.family is None or found.family.info is None:
        return KnownModel(
            name, f"plug-in of {found.package or 'no package'}: {found.problem}", "damaged", "", Path(), 0, family=name
        )
    info = found.family.info
    return KnownModel(
        name, info.description or f"plug-in of {found.package}", "plug-in", "", Path(), 0, info.sha256,
        family=name, capabilities=info.capabilities, licence=info.licence, input_size=info.input_size,
    )  # fmt: skip


def _nano(paths: Paths) -> KnownModel:
    checkpoint = NANO_DIR / "nano.pt"
    config = NANO_DIR / "nano.yaml"
    if not (checkpoint.is_file() and config.is_file()):
        return KnownModel(NANO, "built in (its files are missing)", "damaged", str(config), checkpoint, 0)
    return KnownModel(
        NANO, "built in, small, trained on synthetic micrographs", "packaged", str(config), checkpoint,
        checkpoint.stat().st_size, file_sha256(checkpoint, paths), licence="Apache-2.0", input_size=_input_size(config),
    )  # fmt: skip


def _input_size(config: Path) -> int:
    """``image_size`` of a SAM 2 yaml, read without loading it; SAM's own where the file does not say."""
    try:
        found = re.search(r"^\s*image_size:\s*(\d+)\s*$", config.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return SAM_INPUT
    return int(found[1]) if found else SAM_INPUT


def _official(paths: Paths, spec: ModelSpec) -> KnownModel:
    path = checkpoint_path(paths, spec)
    size = _size(path)
    if size == spec.bytes:
        return KnownModel(
            spec.id, spec.description, "pulled", spec.config, path, size, spec.sha256, spec, licence="Apache-2.0"
        )
    if size is not None:
        text = f"{spec.description} ({size} bytes instead of {spec.bytes})"
        return KnownModel(spec.id, text, "damaged", spec.config, path, size, "", spec)
    part = _size(partial_path(paths, spec))
    state: State = "missing" if part is None else "partial"
    return KnownModel(
        spec.id, spec.description, state, spec.config, path, part or 0, spec.sha256, spec, licence="Apache-2.0"
    )


def _trained(paths: Paths) -> list[KnownModel]:
    try:
        folders = sorted(
            entry for entry in paths.models_dir.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError:
        return []
    reserved = {NANO, CUSTOM, *(spec.id for spec in SAM21)}
    found = []
    for folder in folders:
        config, checkpoint = folder / "model.yaml", folder / "model.pt"
        if folder.name in reserved or not (config.exists() or checkpoint.exists()):
            continue
        if not (config.is_file() and checkpoint.is_file()):
            missing = checkpoint.name if config.is_file() else config.name
            found.append(KnownModel(folder.name, f"{missing} is missing", "damaged", str(config), checkpoint, 0))
            continue
        base = _read_json(folder / "card.json").get("base")
        base_name = base.get("id", "") if isinstance(base, dict) else base
        text = f"trained here from {base_name}" if base_name else "trained here"
        sha256 = file_sha256(checkpoint, paths)
        found.append(
            KnownModel(
                folder.name,
                text,
                "trained",
                str(config),
                checkpoint,
                checkpoint.stat().st_size,
                sha256,
                input_size=_input_size(config),
            )
        )
    return found


def _custom(paths: Paths, config: str, checkpoint: str) -> KnownModel:
    weights = Path(checkpoint).expanduser()
    if not weights.is_file():
        return KnownModel(CUSTOM, f"no such file: {weights}", "damaged", config, weights, 0)
    problem = _config_problem(config)
    if problem:
        return KnownModel(CUSTOM, problem, "damaged", config, weights, 0)
    return KnownModel(
        CUSTOM, f"{weights.name} with {Path(config).name}", "custom", str(Path(config).expanduser()), weights.absolute(),
        weights.stat().st_size, file_sha256(weights, paths), input_size=_input_size(Path(config).expanduser()),
    )  # fmt: skip


def _config_problem(config: str) -> str:
    path = Path(config).expanduser()
    if path.is_absolute():
        return "" if path.is_file() else f"no such file: {path}"
    # A relative config is the name of one inside the sam2 package, as the predecessor's users wrote it. find_spec does not import it.
    package = importlib.util.find_spec("sam2")
    for folder in (package.submodule_search_locations or []) if package else []:
        inside = Path(folder, path)
        if inside.is_file() or inside.with_name(inside.name + ".yaml").is_file():
            return ""
    if path.is_file():
        return f"the path of its config must be absolute: {path.absolute()} instead of {config}"
    return f"there is no config {config} in the sam2 package, and the path of a file must be absolute"


def _unknown(named: str, names: list[str]) -> ModelError:
    close = difflib.get_close_matches(named, names, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"Known here: {', '.join(names)}."
    return ModelError(f"no model is called '{named}'", hint)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read_json(path: Path) -> dict[str, Any]:
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
