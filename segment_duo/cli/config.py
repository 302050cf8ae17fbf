"""``segduo config``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from segment_duo.cli.options import JsonOption, tell_foreign
from segment_duo.cli.output import emit_json, emit_path, emit_table
from segment_duo.errors import AlreadyExists, ConfigError, StoreError, UsageError

app = typer.Typer(help="Show and start the configuration.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[SETTING]", help="Only this setting.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every setting, its value and where the value comes from; passwords are hidden.

    A flag beats a SEGDUO_* variable, that beats .env, that beats config.toml, that beats the default. When a setting is wrong the others are
    shown all the same, then what is wrong; the exit code is 2.

    [bold]Examples[/bold]

      segduo config show

      segduo config show drops_url

      segduo config show --json | jq .model.origin
    """
    from segment_duo.config import Config, inspect_config, nearest_setting

    resolved = inspect_config()
    tell_foreign(resolved)
    names = list(Config.model_fields) if name is None else [name]
    if name is not None and name not in Config.model_fields:
        near = nearest_setting(name)
        hint = f"Did you mean '{near}'?" if near else "`segduo config show` lists every setting."
        raise UsageError(f"no setting '{name}'", hint)
    if as_json:
        emit_json({key: {"value": resolved.public(key), "origin": resolved.origins[key]} for key in names}, indent=1)
    else:
        emit_table(("setting", "value", "origin"), [(key, resolved.shown(key), resolved.origins[key]) for key in names])
    if resolved.problems:
        # Their hints would lead here; what helps is the nearest name.
        raise ConfigError("\n".join(_with_name(problem) for problem in resolved.problems))


@app.command()
def path(
    what: Annotated[
        str, typer.Argument(help="config, models, embeddings, drops, spool, journal, socket, log or all.")
    ] = "config",
) -> None:
    """Print where files live: the configuration by default.

    [bold]Examples[/bold]

      $EDITOR "$(segduo config path)"

      segduo config path all
    """
    from segment_duo.config import inspect_config
    from segment_duo.paths import Paths

    paths = Paths.default()
    places = {
        "config": paths.config_file,
        "models": paths.models_dir,
        "embeddings": paths.embeddings_dir,
        "drops": paths.content_dir,
        "spool": paths.spool_dir,
        "journal": paths.journal_dir,
        # The place of the file to mend must be told whatever is wrong in it.
        "socket": inspect_config().config.socket or paths.socket,
        "log": paths.engine_log,
    }
    if what == "all":
        emit_table(("what", "path"), list(places.items()))
    elif what in places:
        emit_path(places[what])
    else:
        raise UsageError(f"no place '{what}'", f"There are: {', '.join(places)}.")


@app.command()
def init() -> None:
    """Write a config.toml that explains every setting, all commented out; an existing file is kept.

    Nobody else may read it, for it may come to hold a password.

    [bold]Example[/bold]

      segduo config init
    """
    from segment_duo.config import TABLES, Config
    from segment_duo.paths import Paths

    file = Paths.default().config_file
    lines = ["# Settings of segduo. Remove the # to set one. `segduo config show` tells what counts.", ""]
    for name, field in Config.model_fields.items():
        if name not in TABLES:
            lines += [f"# {field.description}", f"# {name} = {_toml(field.default)}", ""]
    lines += [f"# {Config.model_fields['keys'].description}", "# [keys]", '# include = "space"', ""]
    lines += [f"# {Config.model_fields['classes'].description}", "# [classes.pore]", '# colour = "#e69f00"', ""]
    lines += [f"# {Config.model_fields['external'].description}", "# [external.mine]"]
    lines += ['# command = ["python3", "/home/me/mine.py", "{image}", "{output}"]', ""]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8", opener=_private) as stream:
            stream.write("\n".join(lines))
    except FileExistsError:
        raise AlreadyExists(f"{file} exists already", "Edit it, or move it away first.") from None
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}") from None
    emit_path(file)


def _with_name(problem: ConfigError) -> str:
    return f"{problem.message}. {problem.hint}" if problem.hint.startswith("Did you mean") else problem.message


def _private(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)


def _toml(value: object) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'
