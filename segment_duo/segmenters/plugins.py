"""Segmenters by name: the families of this program and those that other packages bring, looked up through entry points.

An entry point of the group ``segment_duo.segmenters`` names a :class:`~segment_duo.segmenters.base.Family`. Names are read from the installed
packages' metadata, and nothing else is done as long as nobody asks for a plug-in:

    describe   what a plug-in is: it is imported in a process of its own, with a time limit. It may raise, hang, print or exit.
    load       its model is wanted: it is imported here. Only the engine does this, and ``models verify NAME``.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.errors import ModelError, SegduoError
from segment_duo.segmenters.base import (
    API_VERSION,
    Capability,
    DeviceMemoryFull,
    Family,
    LoadRequest,
    Segmenter,
    SegmenterInfo,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SAM2 = "sam2"
"""The family of nano, the official checkpoints, trained and custom models: :mod:`segment_duo.models.known` lists them. It has no own model."""

BUILT_IN = {
    SAM2: "segment_duo.segmenters.sam2.segmenter:load",
    "watershed": "segment_duo.segmenters.watershed.method:load",
    "external": "segment_duo.segmenters.external:load",
    "onnx": "segment_duo.segmenters.onnx.segmenter:load",
    "hf": "segment_duo.segmenters.hf.segmenter:load",
}
"""Where the loaders of this program's own families are. By name: they import torch and other heavy packages."""

DESCRIBE_SECONDS = 20.0
"""What the import of a plug-in may take before it counts as broken. Python itself and NumPy take half a second, ten times that on a busy machine."""

AT_ONCE = 4
"""Plug-ins described side by side."""

_MOST_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class PlugIn:
    """A segmenter that another package brings.

    Attributes:
        name: of the entry point and of the model.
        package: the distribution that brings it, with its version.
        info: what it says of itself; None where that could not be had.
        problem: why not, for people; empty if all is well.
    """

    name: str
    package: str
    info: SegmenterInfo | None = None
    problem: str = ""


_described: dict[str, PlugIn] = {}
"""Those without a problem. A broken one is tried again: it may have been mended while the engine ran."""


def names() -> list[str]:
    """Names of the models that other packages bring. Nothing is imported."""
    return sorted(_entry_points())


def describe(name: str) -> PlugIn | None:
    """What a plug-in is, or what is wrong with it; None where no installed package brings one of that name. Never raises."""
    return describe_all([name]).get(name)


def describe_all(wanted: Iterable[str]) -> dict[str, PlugIn]:
    """:func:`describe` for several, side by side, so that two slow ones take as long as one."""
    wanted = list(wanted)
    fresh = [name for name in wanted if name not in _described]
    found = _entry_points() if fresh else {}
    waiting = [found[name] for name in fresh if name in found]
    answers = {name: _described[name] for name in wanted if name in _described}
    for start in range(0, len(waiting), AT_ONCE):
        running = [(entry, _Import(entry.name)) for entry in waiting[start : start + AT_ONCE]]
        for entry, process in running:
            plug_in = _judge(entry, process.answer())
            answers[entry.name] = plug_in
            if plug_in.info is not None:
                _described[entry.name] = plug_in
    return answers


def load(family: str, request: LoadRequest) -> Segmenter:
    """Make a model ready. Imports its family into this process.

    Raises:
        ModelError: the plug-in cannot be used, or its model cannot be loaded.
        DeviceMemoryFull: the device has no room for it.
    """
    if family in BUILT_IN:
        module, _, name = BUILT_IN[family].partition(":")
        made: Segmenter = getattr(importlib.import_module(module), name)(request)
        return made
    try:
        segmenter = import_family(family).load(request)
    except (SegduoError, DeviceMemoryFull, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ModelError(
            f"the plug-in '{family}' cannot load its model: {type(error).__name__}: {error}",
            "That is a fault of the plug-in; tell its author.",
        ) from error
    if not isinstance(segmenter, Segmenter):
        raise ModelError(f"the plug-in '{family}' gave a {type(segmenter).__name__} instead of a Segmenter")
    return segmenter


def import_family(name: str) -> Family:
    """The family a plug-in names, imported into this process.

    Raises:
        ModelError: there is none of that name, or it cannot be imported, or it was written for another version.
    """
    entry = _entry_points().get(name)
    if entry is None:
        raise ModelError(f"no installed package brings a plug-in '{name}'", "`segduo models ls` shows what there is.")
    problem = ""
    try:
        family = entry.load()
    except BaseException as error:  # also SystemExit: a plug-in must never end a command that does not use it
        if isinstance(error, KeyboardInterrupt):
            raise
        problem = f"{type(error).__name__}: {error}"
    else:
        if not isinstance(family, Family) or family.info is None:
            problem = f"{entry.value} is no Family with an info"
        elif family.api != API_VERSION:
            problem = f"it was written for version {family.api} of the plug-in interface, this is {API_VERSION}"
        elif not problem_of(name, family.info):
            return family
        else:
            problem = problem_of(name, family.info)
    raise ModelError(f"the plug-in '{name}' cannot be used: {problem}", "`segduo doctor` checks all of them.")


def problem_of(name: str, info: SegmenterInfo) -> str:
    """What a plug-in says of itself that cannot be; empty if all is well."""
    if not _NAME.fullmatch(name):
        return "its name holds other characters than letters, digits and . _ + -"
    if info.id != name:
        return f"it calls itself '{info.id}'"
    if not _DIGEST.fullmatch(info.sha256):
        return "its sha256 is not 64 hexadecimal digits; fingerprint() makes one"
    unknown = sorted(set(info.capabilities) - {str(one) for one in Capability})
    if unknown or not info.capabilities:
        return f"'{', '.join(unknown)}' is no capability; there are: {', '.join(Capability)}"
    return ""


class _Import:
    """A process that imports a plug-in and says what it is (:mod:`segment_duo.segmenters.describe`)."""

    def __init__(self, name: str) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "segment_duo.segmenters.describe", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def answer(self) -> bytes | str:
        """Its answer, or why there is none."""
        try:
            content, _ = self._process.communicate(timeout=DESCRIBE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            return f"its import took longer than {DESCRIBE_SECONDS:g} s; heavy imports belong into its load function"
        if self._process.returncode or not content or len(content) > _MOST_BYTES:
            return f"its import ended the process with exit code {self._process.returncode}"
        return content


def _judge(entry: EntryPoint, answer: bytes | str) -> PlugIn:
    from pydantic import TypeAdapter, ValidationError

    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    if isinstance(answer, str):
        return PlugIn(entry.name, package, problem=answer)
    try:
        said = TypeAdapter(tuple[str, SegmenterInfo | None]).validate_json(answer)
    except ValidationError:
        return PlugIn(
            entry.name,
            package,
            problem="what it says of itself cannot be read: its info holds values of the wrong type",
        )
    problem, info = said
    return PlugIn(entry.name, package, None if problem else info, problem)


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # with it comes `email`: not for commands that name no model

    return {entry.name: entry for entry in entry_points(group=Family.GROUP)}
