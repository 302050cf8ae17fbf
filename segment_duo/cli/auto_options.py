"""The options of ``segduo auto`` that set :class:`AutoParameters`: each of its fields is one, with the help and the range declared there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from segment_duo.cli.bundles import Bundle
from segment_duo.cli.options import finite
from segment_duo.errors import InputError
from segment_duo.parameters import AutoParameters
from segment_duo.prompts import parse_box

_METAVARS = {"tile": "SIZE", "region": "X0,Y0,X1,Y1"}
"""Where a number's N or X says too little."""

_TYPED_AS = {"point_grids": Path, "region": str}
"""What the user types, where it is not the value itself."""

_ONE_WAY = ("fast",)
"""Switches that no preset and no model turns on, so that there is nothing to turn off."""


class AutoOptions(Bundle):
    """What the command line sets of :class:`AutoParameters`."""

    def __init__(self, **given: Any) -> None:
        """Args:
        given: the options' values by the names of the fields; None where one was not given.

        Raises:
            InputError, PromptError: a value that cannot be read; the message names the option.
        """
        self._given = {name: _value(name, value) for name, value in given.items() if value is not None}

    @classmethod
    def options(cls) -> dict[str, tuple[Any, Any]]:
        kinds = get_type_hints(AutoParameters)
        return {one.name: (_annotation(one, kinds[one.name]), None) for one in dataclasses.fields(AutoParameters)}

    def onto(self, base: AutoParameters) -> AutoParameters:
        """``base`` with what was given in its place."""
        parameters = dataclasses.replace(base, **self._given)
        if parameters.point_grids is not None and len(parameters.point_grids) == 1:
            # One grid given serves the image and every layer of crops.
            grids = parameters.point_grids * (parameters.crop_n_layers + 1)
            parameters = dataclasses.replace(parameters, point_grids=grids)
        return parameters


def _annotation(one: dataclasses.Field[Any], kind: Any) -> Any:
    """A field as Typer reads it; what is not given stays None, so that presets and the model's own defaults count."""
    told = one.metadata
    typed = _TYPED_AS.get(one.name, kind)
    flag = f"--{one.name.replace('_', '-')}"
    names = [flag if typed is not bool or one.name in _ONE_WAY else f"{flag}/--no-{flag.removeprefix('--')}"]
    shown = rf" [dim]\[default: {told['shown']}][/dim]" if told["shown"] else ""
    return Annotated[
        typed | None,
        typer.Option(
            *names,
            help=told["help"] + shown,
            rich_help_panel=told["group"],
            metavar=_METAVARS.get(one.name, {int: "N", float: "X"}.get(typed)),
            min=told["least"],
            max=told["most"],
            callback=finite if typed is float else None,
        ),
    ]


def _value(name: str, value: Any) -> Any:
    if name == "point_grids":
        return _read_grid(value)
    return parse_box(value, where="--region") if name == "region" else value


def _read_grid(file: Path) -> tuple[tuple[tuple[float, float], ...], ...]:
    try:
        points = tuple((float(x), float(y)) for x, y in json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"--point-grids {file}: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"--point-grids {file}: {error}", "Expected JSON like [[0.25, 0.5], [0.75, 0.5]].") from None
    if not points or not all(0 <= value <= 1 for point in points for value in point):
        raise InputError(f"--point-grids {file}: coordinates must lie between 0 and 1, and there must be some")
    return (points,)
