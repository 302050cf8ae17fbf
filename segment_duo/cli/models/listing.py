"""``segduo models ls`` and ``show``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli import completion, human
from segment_duo.cli.options import JsonOption, load_settings
from segment_duo.cli.output import emit_json, emit_table, note
from segment_duo.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from segment_duo.config import Config
    from segment_duo.models.known import KnownModel
    from segment_duo.paths import Paths
    from segment_duo.segmenters.options import Option


def register(app: typer.Typer) -> None:
    app.command("ls")(list_models)
    app.command()(show)


def list_models(as_json: JsonOption = False) -> None:
    """Show every model: what is here, what can be pulled, and which one runs by default (marked with *).

    [bold]Examples[/bold]

      segduo models ls

      segduo models ls --json | jq -r '.[] | select(.default).id'

      segduo models ls --json | jq '.[] | select(.default).auto_defaults'
    """
    from segment_duo.models import known, registry
    from segment_duo.paths import Paths

    config, paths = load_settings().config, Paths.default()
    models = known.known_models(paths, config)
    try:
        default = registry.resolve_model(config, paths).name
    except (ModelError, ConfigError) as error:
        default = ""
        note(f"{error.message}. {error.hint}")
    if as_json:
        emit_json([_as_json(model, default, paths) for model in models], indent=1)
        return
    rows = [
        (
            "*" if model.id == default else "",
            model.id,
            model.state,
            _size(model),
            model.description,
            _licence(model, paths),
            ", ".join(sorted(model.capabilities)),
        )
        for model in models
    ]
    emit_table(("", "model", "state", "size", "what it is", "licence", "can"), rows, right=("size",))


def show(
    model: Annotated[
        str,
        typer.Argument(help="A model's name, as `segduo models ls` shows it.", autocompletion=completion.models),
    ],
    as_json: JsonOption = False,
) -> None:
    """Tell all that is known of a model: licence, source, size, hash, what it can, its options.

    [bold]Examples[/bold]

      segduo models show nano

      segduo models show watershed --json | jq .options
    """
    from segment_duo.models import registry
    from segment_duo.paths import Paths

    config, paths = load_settings().config, Paths.default()
    found = find_model(model, config, paths)
    if as_json:
        try:
            default = registry.resolve_model(config, paths).name
        except (ModelError, ConfigError):
            default = ""
        emit_json(_as_json(found, default, paths), indent=1)
        return
    rows = [
        ("model", found.id),
        ("what it is", found.description),
        ("state", found.state),
        ("licence", _licence(found, paths)),
        ("terms", found.terms),
        ("source", found.source or (found.spec.url if found.spec else "")),
        ("size", _size(found)),
        ("sha256", found.sha256),
        ("can", ", ".join(sorted(found.capabilities))),
        ("input", f"{found.input_size} x {found.input_size} pixels" if found.input_size else "the image as it is"),
    ]
    rows += [(f"option {name}", _option(option)) for name, option in found.options.items()]
    emit_table(("", ""), [row for row in rows if row[1]], whole=("",))


def find_model(name: str, config: Config, paths: Paths) -> KnownModel:
    """The model of this machine with that name; raises ModelError where there is none."""
    from segment_duo.models import known, registry

    models = {model.id: model for model in reversed(known.known_models(paths, config))}
    if name not in models:
        raise registry.unknown_model(name, list(models))
    return models[name]


def _size(model: KnownModel) -> str:
    if model.state in {"missing", "partial"} and model.spec is not None:
        here = f"{human.size(model.bytes)} of " if model.state == "partial" else ""
        return here + human.size(model.spec.bytes)
    return human.size(model.bytes)


def _licence(model: KnownModel, paths: Paths) -> str:
    """The licence as a cell of a table, with what is still to be done."""
    from segment_duo.models import licences

    if not model.asks or not model.usable:
        return model.licence
    done = "accepted" if licences.is_accepted(paths, model.id, model.licence) else "to be accepted"
    return f"{model.licence or 'not stated'} ({done})"


def _option(option: Option) -> str:
    choices = f"{', '.join(option.choices)}; " if option.choices else ""
    value = str(option.default).lower() if isinstance(option.default, bool) else option.default
    return f"{option.help} ({choices}default {value})"


def _as_json(model: KnownModel, default: str, paths: Paths) -> dict[str, object]:
    from segment_duo.models import known, licences

    return {
        "id": model.id,
        "state": model.state,
        "default": model.id == default,
        "description": model.description,
        "config": model.config,
        "checkpoint": str(model.checkpoint),
        "bytes": model.bytes,
        "full_bytes": model.spec.bytes if model.spec else model.bytes,
        "sha256": model.sha256,
        "family": model.family,
        "capabilities": sorted(model.capabilities),
        "licence": model.licence,
        "terms": model.terms,
        "accepted": not model.asks or licences.is_accepted(paths, model.id, model.licence),
        "source": model.source,
        "options": {name: dataclasses.asdict(option) for name, option in model.options.items()},
        "auto_defaults": known.auto_defaults(model),
        "input_size": model.input_size,
        "url": model.spec.url if model.spec else None,
    }
