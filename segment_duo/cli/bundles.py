"""Bundles of options: Typer takes one parameter an option; a bundle declares several once, and commands receive them as one object."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, get_type_hints

C = TypeVar("C", bound=Callable[..., Any])


class Bundle:
    """Base of the dataclasses that :func:`bundled` spreads; every field is an option with a default."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @classmethod
    def options(cls) -> dict[str, tuple[Any, Any]]:
        """Parameter names -> (annotation as Typer reads it, default), in the order of the help."""
        hints = get_type_hints(cls, include_extras=True)
        return {one.name: (hints[one.name], one.default) for one in dataclasses.fields(cls)}


def bundled(command: C) -> C:
    """Let a command take bundles: each parameter annotated with one stands for the options in it, at its place in the help."""
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, type[Bundle]] = {}
    spread: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if isinstance(kind, type) and issubclass(kind, Bundle):
            bundles[parameter.name] = kind
            wanted = kind.options()
        else:
            wanted = {parameter.name: (kind, parameter.default)}
        spread.extend(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in wanted.items()
        )

    @functools.wraps(command)
    def call(**given: Any) -> Any:
        made = {
            name: kind(**{option: given.pop(option) for option in kind.options()}) for name, kind in bundles.items()
        }
        return command(**given, **made)

    call.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    # What follows it to the function would find the bundles again.
    del call.__wrapped__
    return typing.cast(C, call)
