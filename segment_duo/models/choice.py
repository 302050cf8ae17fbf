"""The model that a request names: what it is called, which weights it has, what it can be asked for. Light: every front end imports it.

A model with options is named ``NAME:option=value,option=value``; that is its id everywhere, so that a saved set tells its options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from segment_duo.errors import UsageError
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import Capability, Option, fingerprint
from segment_duo.segmenters.options import check_options
from segment_duo.segmenters.plugins import SAM2
from segment_duo.segmenters.sam2.catalogue import CAPABILITIES, SAM_INPUT
from segment_duo.types import Prompt


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that runs.

    Attributes:
        id: nano, sam2.1-..., custom, or a trained model's or a plug-in's name; with the options that differ from their defaults, if it has any.
        config: absolute path of a yaml, or the name of one inside the ``sam2`` package.
        checkpoint: absolute path.
        sha256: of the checkpoint file.
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

    @property
    def is_small(self) -> bool:
        """Its input is smaller than SAM 2's: nano, and models trained from it."""
        return 0 < self.input_size < SAM_INPUT

    @property
    def learns_in_turn(self) -> bool:
        """It does better with points one after the other than with all at once: nano, and models trained from it, have learned corrections alone."""
        return self.is_small and Capability.MASK_INPUT in self.capabilities

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


def needs(prompts: Iterable[Prompt]) -> set[Capability]:
    """What a model must be able to do to answer these prompts."""
    found: set[Capability] = set()
    for prompt in prompts:
        found |= {Capability.POINTS} if prompt.points else set()
        found |= {Capability.BOX} if prompt.box is not None else set()
        found |= {Capability.MASK_INPUT} if prompt.mask is not None else set()
    return found


def automatic_needs(parameters: AutoParameters) -> set[Capability]:
    """What a model must be able to do for automatic masks with these parameters."""
    return {Capability.AUTOMATIC} | ({Capability.TEXT} if parameters.text else set())


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
