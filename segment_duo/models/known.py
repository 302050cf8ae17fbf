"""Which models there are on this machine. No torch here: every command may ask.

nano                   shipped in the package: works at once, offline
sam2.1-tiny ... -large Meta's checkpoints, pulled on request
NAME                   trained by the user: ``<models folder>/NAME/{model.yaml,model.pt,card.json}``
ADDED                  files of other runtimes with a card: ``<models folder>/NAME/card.json`` (:mod:`segment_duo.segmenters.added`)
watershed              a method without weights
custom                 a pair of absolute paths: ``model_config_path`` and ``checkpoint_path``
EXTERNAL               commands of other programs: ``[external.NAME]`` of ``config.toml``
PLUG-IN                what other packages bring (:mod:`segment_duo.segmenters.plugins`); looked at only when it is used or listed
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from segment_duo.config import Config, external_commands
from segment_duo.errors import ModelError
from segment_duo.models import licences
from segment_duo.models.checkpoints import checkpoint_path, file_sha256, partial_path, read_json, size_of
from segment_duo.paths import Paths
from segment_duo.segmenters import added, external, plugins, watershed
from segment_duo.segmenters.base import Capability, Option, SegmenterInfo
from segment_duo.segmenters.plugins import SAM2, PlugIn
from segment_duo.segmenters.sam2.catalogue import CAPABILITIES, SAM21, SAM_INPUT, UNTRAINED_MEMORY, ModelSpec

NANO = "nano"
CUSTOM = "custom"
NANO_DIR = Path(__file__).resolve().parent / "nano"

State = Literal[
    "packaged",
    "pulled",
    "partial",
    "missing",
    "damaged",
    "trained",
    "added",
    "custom",
    "built-in",
    "external",
    "plug-in",
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
        return self.state not in {"partial", "missing", "damaged"}

    @property
    def asks(self) -> bool:
        """Whether it runs only after its licence was accepted. Files and commands of the user's own choice without a licence do not ask."""
        return (self.state == "plug-in" or bool(self.licence)) and licences.must_be_accepted(self.licence)


def known_models(paths: Paths, config: Config | None = None) -> list[KnownModel]:
    """Every model this machine knows: nano, SAM 2.1 smallest first, trained ones by name, watershed, the custom pair if configured, plug-ins."""
    models = without_plug_ins(paths, config)
    taken = {model.id for model in models}
    found = plugins.describe_all(plugins.names())
    return models + [plug_in(found[name], name in taken) for name in sorted(found)]


def without_plug_ins(paths: Paths, config: Config | None) -> list[KnownModel]:
    """Those of :func:`known_models` that no other package brings."""
    models = [_nano(paths)]
    models += [_official(paths, spec) for spec in SAM21]
    models += _trained(paths)
    models += _added(paths)
    models.append(_described(watershed.INFO, "built-in", watershed.INFO.id))
    models += _external(paths, {model.id for model in models})
    if config is not None and config.model_config_path and config.checkpoint_path:
        models.append(_custom(paths, config.model_config_path, config.checkpoint_path))
    return models


def auto_defaults(model: KnownModel) -> dict[str, Any]:
    """A model's own parameters for automatic masks: nano's and a trained model's card have some; of all SAM 2 models points are screened."""
    if model.family != SAM2:
        return dict(model.own_defaults)
    found: Any = {}
    if model.state == "packaged":
        found = read_json(NANO_DIR / "defaults.json")
    elif model.state == "trained":
        found = read_json(model.checkpoint.parent / "card.json").get("auto_defaults")
    return {"exact": False, **(found if isinstance(found, dict) else {})}


def plug_in(found: PlugIn, taken: bool = False) -> KnownModel:
    """The model that another package brings. ``taken``: one of ours has its name."""
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
        NANO, "built in, small, trained on drawn and real micrographs", "packaged", str(config), checkpoint,
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
    size = size_of(path)
    if size == spec.bytes:
        return KnownModel(
            spec.id, spec.description, "pulled", spec.config, path, size, spec.sha256, spec, licence="Apache-2.0"
        )
    if size is not None:
        text = f"{spec.description} ({size} bytes instead of {spec.bytes})"
        return KnownModel(spec.id, text, "damaged", spec.config, path, size, "", spec)
    part = size_of(partial_path(paths, spec))
    state: State = "missing" if part is None else "partial"
    return KnownModel(
        spec.id, spec.description, state, spec.config, path, part or 0, spec.sha256, spec, licence="Apache-2.0"
    )


RESERVED = frozenset({NANO, CUSTOM, watershed.INFO.id, *(spec.id for spec in SAM21)})


def _own_folders(paths: Paths) -> list[Path]:
    """Folders of trained and added models."""
    try:
        return sorted(
            entry
            for entry in paths.models_dir.iterdir()
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in RESERVED
        )
    except OSError:
        return []


def _added(paths: Paths) -> list[KnownModel]:
    found = []
    for folder in _own_folders(paths):
        try:
            card = added.read_card(folder)
        except ModelError as error:
            text = f"{error.message}; {error.hint}"
            found.append(KnownModel(folder.name, text, "damaged", "", Path(), 0, family="", capabilities=frozenset()))
            continue
        if card is None:
            continue
        gone = [file for file in card.paths(folder) if not file.is_file()]
        if gone:
            text = f"{gone[0]} is missing"
            found.append(KnownModel(folder.name, text, "damaged", "", Path(), 0, family=card.family))
            continue
        known = _described(card.info(folder.name, folder), "added", card.family)
        found.append(replace(known, config=str(folder), bytes=card.bytes))
    return found


def _trained(paths: Paths) -> list[KnownModel]:
    found = []
    for folder in _own_folders(paths):
        config, checkpoint = folder / "model.yaml", folder / "model.pt"
        if not (config.exists() or checkpoint.exists()):
            continue
        if not (config.is_file() and checkpoint.is_file()):
            missing = checkpoint.name if config.is_file() else config.name
            found.append(KnownModel(folder.name, f"{missing} is missing", "damaged", str(config), checkpoint, 0))
            continue
        base = read_json(folder / "card.json").get("base")
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
