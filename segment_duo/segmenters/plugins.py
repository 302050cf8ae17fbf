"""Segmenters by name: the built-in family and those that other packages bring, looked up through entry points.

An entry point of the group ``segment_duo.segmenters`` names a :class:`~segment_duo.segmenters.base.Family`. Names are read from the installed
packages' metadata; a plug-in is imported only when its model is used or described. A broken one is an error of its own model, of nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from segment_duo.errors import ModelError
from segment_duo.segmenters.base import API_VERSION, Family, LoadRequest, Segmenter

SAM2 = "sam2"
"""The family of nano, the official checkpoints, trained and custom models: the registry lists them, so it has no model of its own name."""


@dataclass(frozen=True)
class PlugIn:
    """A segmenter that another package brings.

    Attributes:
        name: of the entry point and of the model.
        package: the distribution that brings it, with its version.
        family: what it names; None where that could not be had.
        problem: why not, for people; empty if all is well.
    """

    name: str
    package: str
    family: Family | None = None
    problem: str = ""


def names() -> list[str]:
    """Names of the models that other packages bring. Nothing is imported."""
    return sorted(_entry_points())


def family(name: str) -> Family:
    """The family a model belongs to: the built-in one, or that of the plug-in called ``name``.

    Raises:
        ModelError: there is none of that name, or it cannot be imported, or it was written for another version.
    """
    if name == SAM2:
        return Family(load=_load_sam2)
    found = describe(name)
    if found.family is None:
        raise ModelError(f"the plug-in '{name}' cannot be used: {found.problem}", "`segduo doctor` checks all of them.")
    return found.family


@cache
def describe(name: str) -> PlugIn:
    """Import a plug-in and say what it is, or what is wrong with it. Never raises."""
    entry = _entry_points().get(name)
    if entry is None:
        return PlugIn(name, "", problem="no installed package brings it")
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    try:
        loaded = entry.load()
    except BaseException as error:  # also SystemExit: a plug-in must never end a command that does not use it
        if isinstance(error, KeyboardInterrupt):
            raise
        return PlugIn(name, package, problem=f"{type(error).__name__}: {error}")
    if not isinstance(loaded, Family) or loaded.info is None:
        return PlugIn(name, package, problem=f"{entry.value} is no segmenter family with an info")
    if loaded.api != API_VERSION:
        return PlugIn(
            name,
            package,
            problem=f"it was written for version {loaded.api} of the plug-in interface, this is {API_VERSION}",
        )
    if loaded.info.id != name:
        return PlugIn(name, package, problem=f"it calls itself '{loaded.info.id}'")
    return PlugIn(name, package, loaded)


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=Family.GROUP)}


def _load_sam2(request: LoadRequest) -> Segmenter:
    # By name: this module is light, the family imports torch.
    load: Callable[[LoadRequest], Segmenter] = importlib.import_module("segment_duo.segmenters.sam2.segmenter").load
    return load(request)
