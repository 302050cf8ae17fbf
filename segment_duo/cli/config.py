"""``segduo config``."""

from __future__ import annotations

from typing import Annotated

import typer

from segment_duo.cli.options import JsonOption
from segment_duo.cli.output import emit, emit_json, emit_table
from segment_duo.errors import AlreadyExists, StoreError, UsageError

app = typer.Typer(help="Show and start the configuration.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[SETTING]", help="Only this setting.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every setting, its value and where the value comes from; passwords are hidden.

    A flag beats a SEGDUO_* variable, that beats .env, that beats config.toml, that beats the default.
    """
    from segment_duo.config import Config, load_config

    resolved = load_config()
    names = list(Config.model_fields) if name is None else [name]
    if name is not None and name not in Config.model_fields:
        raise UsageError(f"no setting '{name}'", "`segduo config show` lists every setting.")
    if as_json:
        emit_json({key: {"value": resolved.shown(key), "origin": resolved.origins[key]} for key in names}, indent=1)
        return
    emit_table(("setting", "value", "origin"), [(key, resolved.shown(key), resolved.origins[key]) for key in names])


@app.command()
def path(
    what: Annotated[
        str, typer.Argument(help="config, models, embeddings, drops, spool, journal, socket, log or all.")
    ] = "config",
) -> None:
    """Print where files live: the configuration by default."""
    from segment_duo.config import load_config
    from segment_duo.paths import Paths

    paths = Paths.default()
    places = {
        "config": paths.config_file,
        "models": paths.models_dir,
        "embeddings": paths.embeddings_dir,
        "drops": paths.content_dir,
        "spool": paths.spool_dir,
        "journal": paths.journal_dir,
        "socket": load_config().config.socket or paths.socket,
        "log": paths.engine_log,
    }
    if what == "all":
        emit_table(("what", "path"), list(places.items()))
    elif what in places:
        emit(places[what])
    else:
        raise UsageError(f"no place '{what}'", f"There are: {', '.join(places)}.")


@app.command()
def init() -> None:
    """Write a config.toml that explains every setting, all commented out; an existing file is kept."""
    from segment_duo.config import Config
    from segment_duo.paths import Paths

    file = Paths.default().config_file
    lines = ["# Settings of segduo. Remove the # to set one. `segduo config show` tells what counts.", ""]
    for name, field in Config.model_fields.items():
        if name != "keys":
            lines += [f"# {field.description}", f"# {name} = {_toml(field.default)}", ""]
    lines += [f"# {Config.model_fields['keys'].description}", "# [keys]", '# include = "space"', ""]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
    except FileExistsError:
        raise AlreadyExists(f"{file} exists already", "Edit it, or move it away first.") from None
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}") from None
    emit(file)


def _toml(value: object) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'
