"""The settings: one resolver for every front end, with the origin of each value.

    flag  >  SEGDUO_* variable  >  .env file  >  config.toml  >  default

The ``.env`` file is the first one found in the working folder or one of its parents, else the one beside ``config.toml``; files
that belong to another user than this one or root do not count, for they could send a password elsewhere. It may hold the
predecessor's keys (see ``PREDECESSOR_KEYS``) as well as ``SEGDUO_*`` ones. The predecessor's keys are read from the file only: login
sessions set a variable ``USERNAME`` to something else.

This module reads files and the environment; it changes nothing and must not import NumPy, torch or Textual.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from segment_duo.errors import ConfigError, InputError
from segment_duo.paths import Paths, current_folder

ENV_PREFIX = "SEGDUO_"

PREDECESSOR_KEYS: Mapping[str, str] = {
    "USERNAME": "drops_username",
    "PASSWORD": "drops_password",
    "DROPS_URL": "drops_url",
    "MODEL_CONFIG": "model_config_path",
    "CHECKPOINT_PATH": "checkpoint_path",
    "MASKS_ROOT": "masks_root",
    "USE_LOCAL_FILES": "use_local_files",
}
"""Keys of the predecessor's ``.env`` and the settings they mean. ``BACKEND_URL`` is accepted and not needed."""


class ExternalCommand(BaseModel):
    """``[external.NAME]``: a command that is used as a model. See ``docs/models.md``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = Field(
        min_length=1, description="The program and its arguments, with {image} and {output}"
    )
    output: str = Field(
        "labels.tif", description="Name of the file it writes: labels.tif, labels.png or masks.json (COCO)"
    )
    seconds: float = Field(600, gt=0, allow_inf_nan=False, description="Longest time it may take for an image")
    description: str = Field("", description="One line for `segduo models ls`")
    licence: str = Field("", description="Licence of its weights, by SPDX name")

    @field_validator("command")
    @classmethod
    def _has_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for mark in ("{image}", "{output}"):
            if not any(mark in part for part in value[1:]):
                raise ValueError(f"must hold {mark}, which stands for the file's path")
        return value

    @field_validator("output")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*\.(tif|tiff|png|json)", value) or value == "image.png":
            raise ValueError("must be a plain file name that ends in .tif, .png or .json, such as labels.tif")
        return value


class ClassSettings(BaseModel):
    """``[classes.NAME]``: a label to work with. See ``docs/tui.md``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    colour: str = Field("", pattern=r"^(#[0-9a-fA-F]{6})?$", description="As #rrggbb; by place without")
    key: str = Field("", pattern=r"^[1-9]?$", description="Number key of the terminal UI; by place without")


class Config(BaseModel):
    """Every setting, with its meaning as the field's description (``segduo config init`` and the docs print them)."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    drops_url: str | None = Field(None, description="Address of the Drops file server, e.g. https://drops.example.org/")
    drops_username: str | None = Field(None, description="User name on Drops")
    drops_password: SecretStr | None = Field(
        None, description="Password on Drops (better kept in .env than in config.toml)"
    )
    masks_root: str | None = Field(
        None, description="Folder on Drops where the mask sets of Drops images go; begins with /"
    )
    use_local_files: bool = Field(
        False, description="Read /drops/... from a mounted folder (local_root) instead of the server"
    )
    local_root: str | None = Field(
        None, description="The mounted folder that stands for /drops when use_local_files is on"
    )
    start_folder: str | None = Field(None, description="Folder that `segduo ls` and the terminal UI show first")
    local_masks_dir: str = Field(
        "masks", description="Where sets of local images go: a folder beside the image, or an absolute path"
    )
    legacy_segmentation: bool = Field(False, description="Write segmentations as the predecessor's web app reads them")

    model: str | None = Field(
        None, description="Model to use: nano, sam2.1-tiny, ..., custom, or a trained model's name"
    )
    model_config_path: str | None = Field(None, description="Absolute path of a SAM 2 yaml (custom model)")
    checkpoint_path: str | None = Field(None, description="Absolute path of its checkpoint (custom model)")
    model_mirror: str | None = Field(
        None, description="Address or folder to pull checkpoints from instead of Meta's server"
    )

    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="Where the engine computes")
    threads: int | None = Field(None, ge=1, description="CPU threads of the engine (default: all physical cores)")
    encoder_batch: int | None = Field(
        None, ge=1, le=64, description="Waiting images that the encoder takes at a time (default: 4 on CUDA, else 1)"
    )
    socket: Path | None = Field(None, description="Socket of another engine, e.g. one forwarded with ssh -L")
    in_process: bool = Field(False, description="Compute inside the command instead of the engine daemon")
    idle_minutes: float = Field(30, gt=0, description="The engine exits after this many idle minutes")
    memory_cache_mib: int = Field(2048, ge=64, description="Bound of the engine's memory cache")
    disk_cache_mib: int = Field(8192, ge=0, description="Bound of the embedding cache on disk (0 = off)")
    content_cache_mib: int = Field(2048, ge=0, description="Bound of the cache of files read from Drops (0 = off)")
    max_pixels: int = Field(400_000_000, ge=1, description="Larger images are refused")

    graphics: Literal["auto", "kitty", "sixel", "halfcell", "quadrant", "sextant", "octant"] = Field(
        "auto", description="How the terminal shows pictures"
    )
    theme: str = Field("segduo-dark", description="Theme of the terminal UI")
    keys: Mapping[str, str] = Field({}, description="Rebound keys of the terminal UI: binding id = key")
    classes: Mapping[str, ClassSettings] = Field({}, description="Labels to work with: their colours and number keys")
    external: Mapping[str, ExternalCommand] = Field({}, description="Commands of other programs, used as models")

    @field_validator("drops_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if value is not None and "@" in value.split("/")[2]:
            raise ValueError("must not hold a password; use drops_username and drops_password")
        return value

    @field_validator("external")
    @classmethod
    def _model_names(cls, value: Mapping[str, ExternalCommand]) -> Mapping[str, ExternalCommand]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", name):
                raise ValueError(f"{name!r} is no name: letters, digits and . _ + - are")
        return value

    @field_validator("classes")
    @classmethod
    def _good_classes(cls, value: Mapping[str, ClassSettings]) -> Mapping[str, ClassSettings]:
        for name in value:
            if not name or len(name) > 100 or not name.isprintable() or name != name.strip():
                raise ValueError(f"{name!r} is no name: 1 to 100 printable characters, no spaces around them")
        keys = [one.key for one in value.values() if one.key]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the key {key} is given to two classes")
        return value

    @field_validator("masks_root", "start_folder")
    @classmethod
    def _no_parent_steps(cls, value: str | None) -> str | None:
        if value is not None and ".." in value.split("/"):
            raise ValueError("must not contain '..'")
        return value

    @field_validator("masks_root")
    @classmethod
    def _from_the_top(cls, value: str | None) -> str | None:
        # "masks" would be a folder at the top of Drops, while local_masks_dir = "masks" is one beside the image.
        if value is not None and not value.startswith(("/", "drops:/")):
            raise ValueError("must begin with /, as in /labdaq/masks; without it sets go to 'masks' beside each image")
        return value


TABLES = frozenset({"keys", "classes", "external"})
"""What can be set in ``config.toml`` only."""

SECRET_FIELDS = frozenset({"drops_password"})


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for every field, where its value came from (``default``, ``flag``, a variable's or a file's name).

    ``dotenv``: the ``.env`` file that was read; ``foreign``: nearer ones that belong to somebody else and were not; ``problems``: what is
    wrong, only ever in what :func:`inspect_config` gives.
    """

    config: Config
    origins: Mapping[str, str]
    dotenv: Path | None = None
    foreign: tuple[Path, ...] = ()
    problems: tuple[ConfigError, ...] = ()

    def public(self, field: str) -> object:
        """The value of ``field`` as JSON has it (None: not set); secrets are hidden."""
        value = getattr(self.config, field)
        if value is None or isinstance(value, bool | int | float):
            return value
        if field in SECRET_FIELDS:
            return "********"
        if isinstance(value, Mapping):
            return {
                key: one.model_dump(mode="json") if isinstance(one, BaseModel) else one for key, one in value.items()
            }
        return re.sub(r"(?<=://)[^/@]*@", "********@", str(value))

    def shown(self, field: str) -> str:
        """The value of ``field`` for printing; secrets are hidden."""
        value = self.public(field)
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def load_config(
    flags: Mapping[str, object] | None = None,
    *,
    paths: Paths | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Resolved:
    """Resolve all settings.

    Args:
        flags: values from the command line; None values count as not given.
        paths, environ, cwd: the user's folders, the environment and the working folder (defaults: the process's own).

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, or an unreadable file; names the place it came from.
    """
    resolved = inspect_config(flags, paths=paths, environ=environ, cwd=cwd)
    if resolved.problems:
        raise resolved.problems[0]
    return resolved


def inspect_config(
    flags: Mapping[str, object] | None = None,
    *,
    paths: Paths | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Resolved:
    """As :func:`load_config`, for those who tell what is wrong: a wrong setting keeps its default and is one of ``problems``."""
    paths = paths or Paths.default()
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    origins: dict[str, str] = dict.fromkeys(Config.model_fields, "default")
    problems: list[ConfigError] = []
    dotenv, foreign = _find_dotenv(cwd, paths.config_dir)
    layers = [
        _from_toml(paths.config_file, problems),
        _from_dotenv(dotenv, problems),
        _from_environment(environ),
        {name: (value, "flag") for name, value in (flags or {}).items() if value is not None},
    ]
    for layer in layers:
        for name, (value, origin) in layer.items():
            values[name] = value
            origins[name] = origin
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            if name in values:
                problems.append(_config_error(name, origins[name], problem["msg"]))
                origins[name] += " (not valid)"
                del values[name]
        config = Config.model_validate(values)
    return Resolved(config, origins, dotenv, foreign, tuple(problems))


def external_commands(file: Path) -> Mapping[str, ExternalCommand]:
    """The commands of a ``config.toml``, read anew: an engine must see what was changed since it was started. A wrong table counts as empty;
    :func:`load_config` tells what is wrong."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("external", {})
        return Config.model_validate({"external": table}).external
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError):
        return {}


def nearest_setting(name: str) -> str | None:
    """The setting that was meant by ``name``, which may be written as the variable or as the predecessor's key; None when none is near."""
    plain = name.lower().removeprefix(ENV_PREFIX.lower())
    if plain in Config.model_fields:
        return plain
    if plain.upper() in PREDECESSOR_KEYS:
        return PREDECESSOR_KEYS[plain.upper()]
    return next(iter(difflib.get_close_matches(plain, Config.model_fields, n=1)), None)


def _find_dotenv(cwd: Path | None, config_dir: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """The ``.env`` file that counts (in ``cwd`` or the nearest parent that has one, else in ``config_dir``), and nearer ones of other users.

    ``cwd`` None is the current folder, if it is still there.
    """
    foreign: list[Path] = []
    near: tuple[Path, ...] = ()
    with contextlib.suppress(InputError):
        cwd = cwd or current_folder()
        near = (cwd, *cwd.parents)
    for folder in (*near, config_dir):
        candidate = folder / ".env"
        try:
            facts = candidate.stat()
        except OSError:
            continue
        if stat.S_ISREG(facts.st_mode):
            if facts.st_uid in (os.getuid(), 0):
                return candidate, tuple(foreign)
            foreign.append(candidate)
    return None, tuple(foreign)


_Layer = dict[str, tuple[object, str]]


def _from_toml(file: Path, problems: list[ConfigError]) -> _Layer:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(ConfigError(f"{file}: {error}", "Mend the file, or move it away to use the defaults."))
        return {}
    for name in [name for name in table if name not in Config.model_fields]:
        near = nearest_setting(name)
        hint = f"Did you mean '{near}'?" if near else "`segduo config show` lists every setting."
        problems.append(ConfigError(f"{file}: unknown setting '{name}'", hint))
        del table[name]
    # An empty text means "not set", as the commented lines of `segduo config init` have it.
    return {name: (value, str(file)) for name, value in table.items() if value != ""}


def _from_dotenv(file: Path | None, problems: list[ConfigError]) -> _Layer:
    if file is None:
        return {}
    from dotenv import dotenv_values

    try:
        pairs = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(ConfigError(f"{file}: {error}", "Mend the file, or run the command elsewhere."))
        return {}
    layer: _Layer = {}
    for key, value in pairs.items():
        name = PREDECESSOR_KEYS.get(key) or _field_of_variable(key)
        if name and value:
            layer[name] = (value, f"{file} ({key})")
    return layer


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for key, value in environ.items():
        name = _field_of_variable(key)
        if name and value:
            layer[name] = (value, key)
    return layer


def _field_of_variable(variable: str) -> str | None:
    """``SEGDUO_DROPS_URL`` -> ``drops_url``; None for variables that name no setting. ``SEGDUO_MODEL_CONFIG`` is understood too."""
    if not variable.startswith(ENV_PREFIX):
        return None
    name = variable.removeprefix(ENV_PREFIX).lower()
    if name == "model_config":
        return "model_config_path"
    return name if name in Config.model_fields and name not in TABLES else None


def _config_error(name: str, place: str, reason: str) -> ConfigError:
    reason = reason.removeprefix("Value error, ")
    return ConfigError(f"{name} from {place}: {reason}", "`segduo config show` tells where each value comes from.")
