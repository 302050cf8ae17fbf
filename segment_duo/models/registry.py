"""Which models there are on this machine, and which one runs. No torch here: every command may ask.

nano                   shipped in the package: works at once, offline
sam2.1-tiny ... -large Meta's checkpoints, pulled on request
NAME                   trained by the user: ``<models folder>/NAME/{model.yaml,model.pt,card.json}``
watershed              a method without weights
custom                 a pair of absolute paths: ``model_config_path`` and ``checkpoint_path``
EXTERNAL               commands of other programs: ``[external.NAME]`` of ``config.toml``
PLUG-IN                what other packages bring (:mod:`segment_duo.segmenters.plugins`); looked at only when it is used or listed

A model with options is named ``NAME:option=value,option=value``; that is its id everywhere, so that a saved set tells its options.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from segment_duo.config import Config, external_commands
from segment_duo.durable import make_private_folders, replace_file
from segment_duo.errors import ConfigError, ModelError, UsageError
from segment_duo.models import licences
from segment_duo.paths import Paths
from segment_duo.segmenters import external, plugins, watershed
from segment_duo.segmenters.base import Capability, Option, SegmenterInfo, check_options, fingerprint
from segment_duo.segmenters.plugins import SAM2, PlugIn
from segment_duo.segmenters.sam2.catalogue import CAPABILITIES, SAM21, SAM_INPUT, UNTRAINED_MEMORY, ModelSpec
from segment_duo.types import Prompt

NANO = "nano"
CUSTOM = "custom"
NANO_DIR = Path(__file__).resolve().parent / "nano"

Origin = Literal["flag", "configured", "pulled", "fallback"]
State = Literal[
    "packaged", "pulled", "partial", "missing", "damaged", "trained", "custom", "built-in", "external", "plug-in"
]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as ``segduo models ls`` shows it.

    ``bytes``: size of the checkpoint, for a partial one of what is here; ``sha256`` is empty for damaged models. ``family``: the plug-in that
    loads it; ``capabilities``, ``licence``, ``terms``, ``source``, ``options`` and ``input_size`` as in
    :class:`~segment_duo.segmenters.base.SegmenterInfo`; ``own_defaults``: its ``auto_defaults``, where they are not in a file beside it.
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
    source: str = ""
    terms: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    own_defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.state in {"packaged", "pulled", "trained", "custom", "built-in", "external", "plug-in"}

    @property
    def asks(self) -> bool:
        """Whether it runs only after its licence was accepted. Files and commands of the user's own choice without a licence do not ask."""
        return (self.state == "plug-in" or bool(self.licence)) and licences.must_be_accepted(self.licence)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that runs.

    Attributes:
        id: nano, sam2.1-..., custom, or a trained model's or a plug-in's name; with the options that differ from their defaults, if it has any.
        config: absolute path of a yaml, or the name of one inside the ``sam2`` package.
        checkpoint: absolute path.
        sha256: of the checkpoint file.
        origin: why this one: named by a flag, configured, the largest one pulled, or nano for want of better.
        notice: one line for the user, or empty.
        auto_defaults: the model's own parameters for automatic masks, by name (fields of ``AutoParameters``).
        family: the plug-in that loads it.
        capabilities: what it can be asked for; empty when an engine does not tell.
        input_size: pixels a side that an image is shrunk to, 0 if it is taken as it is.
        options: a value for each option it has.
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
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its id without options."""
        return self.id.partition(":")[0]

    def require(self, *wanted: Capability) -> None:
        """Refuse what the model cannot, before anything is computed.

        Raises:
            UsageError: it does not have one of these capabilities.
        """
        for one in wanted:
            if self.capabilities and one not in self.capabilities:
                can = f"It can: {', '.join(sorted(self.capabilities))}. `segduo models ls` shows what others can."
                raise UsageError(f"the model '{self.id}' {_LACKS[one]}", _INSTEAD.get(one, can))


_LACKS: Mapping[Capability, str] = {
    Capability.POINTS: "takes no points",
    Capability.BOX: "takes no boxes",
    Capability.MASK_INPUT: "refines no masks",
    Capability.AUTOMATIC: "makes no automatic masks",
    Capability.TRACK: "follows no objects",
    Capability.TEXT: "takes no text",
}

_INSTEAD: Mapping[Capability, str] = {
    Capability.TRACK: "`segduo track --link` follows objects with any model, by the overlap of its masks from frame to frame; the SAM 2.1 models "
    "follow them by memory (`segduo models ls`).",
}

FALLBACK_NOTICE = "Using the small built-in model 'nano'. For better masks: `segduo models pull sam2.1-large` (898 MB)."


def spec_of(model_id: str) -> ModelSpec:
    """The checkpoint to pull for ``model_id``.

    Raises:
        ModelError: none of that name; suggests the nearest.
    """
    for spec in SAM21:
        if spec.id == model_id:
            return spec
    raise unknown_model(model_id, [spec.id for spec in SAM21])


def checkpoint_path(paths: Paths, spec: ModelSpec) -> Path:
    """Where a pulled checkpoint lives."""
    return paths.models_dir / spec.checkpoint_file


def partial_path(paths: Paths, spec: ModelSpec) -> Path:
    """Where an unfinished download lives until it is complete and verified."""
    return paths.models_dir / (spec.checkpoint_file + ".part")


def known_models(paths: Paths, config: Config | None = None) -> list[KnownModel]:
    """Every model this machine knows: nano, SAM 2.1 smallest first, trained ones by name, watershed, the custom pair if configured, plug-ins."""
    models = _without_plug_ins(paths, config)
    taken = {model.id for model in models}
    found = plugins.describe_all(plugins.names())
    return models + [_plug_in(found[name], name in taken) for name in sorted(found)]


def _without_plug_ins(paths: Paths, config: Config | None) -> list[KnownModel]:
    models = [_nano(paths)]
    models += [_official(paths, spec) for spec in SAM21]
    models += _trained(paths)
    models.append(_described(watershed.INFO, "built-in", watershed.INFO.id))
    models += _external(paths, {model.id for model in models})
    if config is not None and config.model_config_path and config.checkpoint_path:
        models.append(_custom(paths, config.model_config_path, config.checkpoint_path))
    return models


def resolve_model(config: Config, paths: Paths, flag: str | None = None) -> ModelChoice:
    """Which model runs: the flag, else the configured one, else the largest SAM 2.1 checkpoint already pulled, else nano with a notice.

    Raises:
        ModelError: unknown name, not pulled yet, files missing, or a licence that is to be accepted first.
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
    # The first of a name counts: a definition that takes the name of another model is the damaged one.
    models = {model.id: model for model in reversed(_without_plug_ins(paths, config))}
    if named is not None:
        name, options = split_options(named)
        found = plugins.describe(name) if name not in models else None
        if found is not None:
            models[name] = _plug_in(found)
        if name not in models:
            raise unknown_model(name, [*reversed(models), *plugins.names()])
        choice = _choose(models[name], origin)
        if models[name].asks:
            licences.check(paths, name, models[name].licence)
        return with_options(choice, models[name].options, options)
    for spec in reversed(SAM21):
        if models[spec.id].usable:
            return _choice(models[spec.id], "pulled")
    if not models[NANO].usable:
        raise ModelError(
            "the built-in model's files are missing", "Install segduo again, or pull a model: segduo models pull."
        )
    return _choice(models[NANO], "fallback", FALLBACK_NOTICE)


def needs(prompts: Iterable[Prompt]) -> set[Capability]:
    """What a model must be able to do to answer these prompts."""
    found: set[Capability] = set()
    for prompt in prompts:
        found |= {Capability.POINTS} if prompt.points else set()
        found |= {Capability.BOX} if prompt.box is not None else set()
    return found


def split_options(named: str) -> tuple[str, dict[str, str]]:
    """``watershed:threshold=local,min_size=50`` -> its name and its options.

    Raises:
        UsageError: what stands behind the colon is not of this form.
    """
    name, colon, rest = named.partition(":")
    options: dict[str, str] = {}
    for piece in rest.split(",") if colon else []:
        key, equals, value = piece.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"--model {named}: '{piece}' is no option",
                "Options follow the name: --model NAME:option=value,option=value",
            )
        options[key.strip()] = value.strip()
    return name, options


def with_options(choice: ModelChoice, options: Mapping[str, Option], given: Mapping[str, str]) -> ModelChoice:
    """A model with options: those that differ from their defaults are part of its id and of its hash.

    Raises:
        UsageError: it has no such option, or the value cannot be.
    """
    values = check_options(choice.id, options, given)
    changed = [f"{name}={_text(values[name])}" for name in sorted(values) if values[name] != options[name].default]
    if not changed:
        return replace(choice, options=values)
    return replace(
        choice,
        id=f"{choice.id}:{','.join(changed)}",
        sha256=fingerprint(choice.sha256, *changed) if choice.sha256 else "",
        options=values,
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def _choose(model: KnownModel, origin: Origin) -> ModelChoice:
    named = model.id
    if model.state in {"missing", "partial"}:
        raise ModelError(
            f"the model '{named}' is not on this machine yet", f"Get it with `segduo models pull {named}`."
        )
    if not model.usable and model.family != SAM2:
        raise ModelError(
            f"the model '{named}' cannot be used: {model.description}", "`segduo doctor` checks all models."
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
    return dict(model.own_defaults)


def _plug_in(found: PlugIn, taken: bool = False) -> KnownModel:
    problem = "this program has a model of that name" if taken else found.problem
    if found.info is None or problem:
        text = f"plug-in of {found.package or 'no package'}: {problem}"
        return KnownModel(found.name, text, "damaged", "", Path(), 0, family=found.name, capabilities=frozenset())
    text = found.info.description or f"plug-in of {found.package}"
    return _described(
        replace(found.info, description=text, source=found.info.source or found.package), "plug-in", found.name
    )


def _external(paths: Paths, taken: set[str]) -> list[KnownModel]:
    found = []
    for name, command in external_commands(paths.config_file).items():
        model = replace(
            _described(external.info(name, command), "external", external.ID), config=command.model_dump_json()
        )
        if name in taken | {CUSTOM}:
            text = "[external] of config.toml: this program has a model of that name"
            model = KnownModel(name, text, "damaged", "", Path(), 0, family=external.ID, capabilities=frozenset())
        found.append(model)
    return found


def _described(info: SegmenterInfo, state: State, family: str) -> KnownModel:
    """A model that is no SAM 2 checkpoint, by what it says of itself."""
    return KnownModel(
        info.id, info.description, state, "", Path(), 0, info.sha256, None, family, info.capabilities, info.licence, info.input_size,
        info.source, info.terms, info.options, info.auto_defaults,
    )  # fmt: skip


def _nano(paths: Paths) -> KnownModel:
    checkpoint = NANO_DIR / "nano.pt"
    config = NANO_DIR / "nano.yaml"
    if not (checkpoint.is_file() and config.is_file()):
        return KnownModel(NANO, "built in (its files are missing)", "damaged", str(config), checkpoint, 0)
    return KnownModel(
        NANO, "built in, small, trained on synthetic micrographs", "packaged", str(config), checkpoint,
        checkpoint.stat().st_size, file_sha256(checkpoint, paths), licence="Apache-2.0", input_size=_input_size(config),
        capabilities=_capabilities(config),
    )  # fmt: skip


def _capabilities(config: Path) -> frozenset[str]:
    """What a SAM 2 model with this yaml can; read without loading it."""
    try:
        untrained = UNTRAINED_MEMORY in config.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return CAPABILITIES
    return CAPABILITIES - {Capability.TRACK} if untrained else CAPABILITIES


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
    reserved = {NANO, CUSTOM, watershed.INFO.id, *(spec.id for spec in SAM21)}
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
                capabilities=_capabilities(config),
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
        capabilities=_capabilities(Path(config).expanduser()),
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


def unknown_model(named: str, names: list[str]) -> ModelError:
    """The error for a name that no model has."""
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
