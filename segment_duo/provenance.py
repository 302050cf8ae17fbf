"""Where masks and sets come from: the only place that says so, for every front end.

    a mask is made        auto_origin, point_origin, import_origin     its Origin goes with it
    by hand changed       edited, label_step                           the Origin notes it
    a set is saved        of_set, of_edit                              what all masks have in common, and what was done last

Nothing here asks a session which model is chosen *now*: a set of another day keeps the model that made it.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segment_duo import __version__
from segment_duo.parameters import AutoParameters
from segment_duo.types import (
    Banner,
    Box,
    ImageFacts,
    ImageIdentity,
    Mask,
    ModelIdentity,
    Origin,
    PixelSize,
    Prompt,
    Provenance,
)

_LABEL = "label "
"""How the edits begin that give a label or take it off."""

_CLOCKS_DIFFER_SECONDS = 60.0
"""By which two machines of a cluster may disagree."""


def made_since(created: str, since: float) -> bool:
    """Whether what was ``created`` then (ISO 8601) may be of an attempt that began at ``since`` (seconds since the epoch), on whatever machine."""
    try:
        seconds = datetime.datetime.fromisoformat(created).timestamp()
    except ValueError:
        return False
    return seconds >= int(since) - _CLOCKS_DIFFER_SECONDS


def parameters_record(parameters: AutoParameters, preset: str = "") -> dict[str, Any]:
    """The parameters of an automatic run as JSON values; ``region`` as ``[x0, y0, x1, y1]``. None is left out."""
    values = {name: value for name in _field_names(parameters) if (value := getattr(parameters, name)) is not None}
    if parameters.region is not None:
        values["region"] = list(dataclasses.astuple(parameters.region))
    return ({"preset": preset} if preset else {}) | values


def prompt_record(prompt: Prompt) -> dict[str, Any]:
    """A prompt as JSON values, in the form that ``--points`` reads: a set's provenance can be replayed."""
    record: dict[str, Any] = {"object": prompt.object_id}
    if prompt.points:
        record["points"] = [[point.x, point.y, point.label] for point in prompt.points]
    if prompt.box:
        record["box"] = list(dataclasses.astuple(prompt.box))
    return record


def auto_origin(
    model: ModelIdentity,
    parameters: AutoParameters,
    preset: str = "",
    notices: Sequence[str] = (),
    part: Box | None = None,
) -> Origin:
    """Of the masks of one automatic run. ``part``: what the model saw of the image, None for all."""
    record = parameters_record(parameters, preset)
    if part is not None:
        record["part"] = list(dataclasses.astuple(part))
    return Origin("auto", model, record, __version__, tuple(notices))


def point_origin(
    model: ModelIdentity, prompt: Prompt, multimask_output: bool | None, part: Box | None = None
) -> Origin:
    """Of a mask made from points and a box. The points themselves are in the mask's record; ``part``: what the model saw, None for all.

    ``mask_input`` tells that an earlier mask was refined: one of its own, where points were given in turn, or the user's.
    """
    parameters: dict[str, Any] = {} if multimask_output is None else {"multimask_output": multimask_output}
    if prompt.box is not None:
        parameters["box"] = list(dataclasses.astuple(prompt.box))
    if prompt.mask_input is not None or prompt.mask is not None:
        parameters["mask_input"] = True
    if part is not None:
        parameters["part"] = list(dataclasses.astuple(part))
    return Origin("point", model, parameters, __version__)


def part_of(mask: Mask) -> Box | None:
    """The part of the image that the model saw when it made this mask from points and a box; None for all of it."""
    corners = None if mask.origin is None else mask.origin.parameters.get("part")
    return None if corners is None else Box(*corners)


def imported(masks: Iterable[Mask], file: str, form: str) -> tuple[Mask, ...]:
    """Masks read from a file; those that bring an origin of their own (a set of this program) keep it."""
    origin = Origin("import", None, {"file": file, "format": form}, __version__)
    return tuple(mask if mask.origin is not None else dataclasses.replace(mask, origin=origin) for mask in masks)


def edited(origin: Origin | None, what: str) -> Origin:
    """The origin of a mask that was changed by hand: ``what`` in a few words (``eraser``, ``merged 3 and 7``)."""
    before = origin or Origin("")
    return dataclasses.replace(before, edits=(*before.edits, what))


def label_step(label: str) -> str:
    """What is done to a mask that gets a label, as an edit; an empty one takes it off."""
    return f"{_LABEL}{label!r}" if label else f"{_LABEL}taken off"


def is_reshaped(origin: Origin | None) -> bool:
    """Whether the mask's shape was changed by hand; a label changes none."""
    return origin is not None and not all(edit.startswith(_LABEL) for edit in origin.edits)


def of_set(
    image: ImageIdentity,
    facts: ImageFacts,
    masks: Sequence[Mask],
    *,
    operation: str,
    parameters: Mapping[str, Any] | None = None,
    parent: str | None = None,
    notices: Sequence[str] = (),
    model: ModelIdentity | None = None,
) -> Provenance:
    """The provenance of a set of an open image.

    Args:
        operation: what is being saved (``auto``, ``point``, ``tui``, ...).
        parameters: of that operation, JSON values; None takes those of the masks, if all have the same.
        parent: the version that was edited.
        model: what worked, for a set without masks: they cannot tell.
    """
    found = origins(masks)
    only = found[0] if len(found) == 1 and all(mask.origin is not None for mask in masks) else None
    if parameters is None:
        parameters = only.parameters if only is not None else {}
    return Provenance(
        image=image,
        model=_common_model(masks) if masks else model,
        operation=operation,
        parameters=dict(parameters),
        parent=parent,
        banner=facts.banner,
        pixel_size=facts.pixel_size,
        notices=tuple(notices),
        models=_models(found),
    )


def of_edit(
    before: Provenance, masks: Sequence[Mask], *, operation: str, parameters: Mapping[str, Any], parent: str
) -> Provenance:
    """The provenance of a set that was made from a saved one without its image."""
    found = origins(masks)
    # An origin without an operation tells edits and no more.
    known = bool(found) and all(mask.origin is not None and mask.origin.operation for mask in masks)
    return dataclasses.replace(
        before,
        # A set of before origins were kept says what its model was for all of it.
        model=_common_model(masks) if known else before.model,
        models=_models(found) or before.models,
        operation=operation,
        parameters=dict(parameters),
        parent=parent,
    )


def of_sequence(
    image: ImageIdentity,
    made: Sequence[Origin],
    *,
    banner: Banner,
    pixel_size: PixelSize | None,
    operation: str,
    parameters: Mapping[str, Any],
    parent: str | None = None,
    notices: Sequence[str] = (),
) -> Provenance:
    """The provenance of a sequence set, which is written before its first mask: ``made`` are the origins that masks will have."""
    models = {origin.model for origin in made}
    return Provenance(
        image=image,
        model=next(iter(models)) if len(models) == 1 else None,
        operation=operation,
        parameters=dict(parameters),
        parent=parent,
        banner=banner,
        pixel_size=pixel_size,
        notices=tuple(notices),
        models=_models(made),
    )


def stamped(provenance: Provenance) -> Provenance:
    """With the time and the program's version, as it is written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return dataclasses.replace(provenance, created=now, program_version=__version__)


def origins(masks: Iterable[Mask]) -> list[Origin]:
    """The different origins of masks, in the order of their first mask."""
    found: list[Origin] = []
    known: dict[int, Origin] = {}
    for mask in masks:
        origin = mask.origin
        # Masks of one run share one object: comparing values is for those of different runs only.
        if origin is not None and id(origin) not in known:
            known[id(origin)] = origin
            if origin not in found:
                found.append(origin)
    return found


def derived(provenance: Provenance) -> Origin | None:
    """The origin of every mask of a set written before masks had one; None where the set does not tell."""
    if provenance.parent is not None or provenance.operation not in {"auto", "point", "import"}:
        return None
    made = provenance.operation != "import"
    return Origin(
        provenance.operation,
        provenance.model if made else None,
        provenance.parameters,
        provenance.program_version,
        provenance.notices,
    )


def _common_model(masks: Sequence[Mask]) -> ModelIdentity | None:
    models = {mask.origin.model if mask.origin is not None else None for mask in masks}
    return next(iter(models)) if len(models) == 1 else None


def _models(found: Iterable[Origin]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(origin.model.id for origin in found if origin.model is not None))


def _field_names(parameters: AutoParameters) -> list[str]:
    return [one.name for one in dataclasses.fields(parameters)]
