"""``segduo masks label``: name the masks of a set, as a new version; the old one stays."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.bundles import bundled
from segment_duo.cli.chosen import load_one
from segment_duo.cli.filter_options import FilterOptions
from segment_duo.cli.options import (
    JsonOption,
    OutOption,
    PixelSizeOption,
    SetArgument,
    SuffixOption,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit, emit_json, note
from segment_duo.cli.sequence_sets import is_sequence
from segment_duo.cli.sequence_sets import label as label_sequence
from segment_duo.cli.sets.edit import check_ids, save_edit
from segment_duo.errors import UsageError

if TYPE_CHECKING:
    from segment_duo.config import Config


def register(app: typer.Typer) -> None:
    app.command("label")(label_masks)


@bundled
def label_masks(
    image: SetArgument,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID...] CLASS", help="Ids as `segduo masks show` gives them, then the label; '' takes it off."
        ),
    ],
    conditions: FilterOptions,
    every: Annotated[bool, typer.Option("--all", help="Label all masks.")] = False,
    pixel_size: PixelSizeOption = None,
    suffix: SuffixOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many masks would change.")] = False,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Write a new version with masks labelled: those of the ids, those that meet conditions, or all. The old version stays.

    Of a sequence set objects are labelled, on all their frames. A label is any text; those of \\\\[classes] in config.toml have colours
    and number keys in the terminal UI.

    [bold]Examples[/bold]

      segduo masks label examples/particles.tif 3 17 pore

      segduo masks label examples/particles.tif dust --max-diameter 20nm

      segduo masks label examples/growth.tif 2 5 rod
    """
    from segment_duo.masks import filters
    from segment_duo.masks.classes import labelled

    ids, label = _ids(words[:-1]), words[-1].strip()
    wanted = conditions.wanted()
    parameters: dict[str, Any] = {"label": label} | ({"ids": sorted(set(ids))} if ids else {})
    asked = wanted.parameters()
    if sum((bool(ids), bool(asked), every)) != 1:
        raise UsageError(
            "say which masks: ids, conditions or --all, and one of these only",
            f"For example: segduo masks label IMAGE 3 17 {label or 'pore'}",
        )
    if len(label) > 100 or not (label.isprintable() or not label):
        raise UsageError("a label has at most 100 printable characters")
    with open_session(out=out) as session:
        _tell_of_classes(session.config, label)
        if is_sequence(session, image):
            if asked:
                raise UsageError(
                    "conditions are for masks of one image, and this is a sequence set",
                    "Give ids of objects, or --all.",
                )
            label_sequence(session, image, ids, label, suffix=suffix, dry_run=dry_run, as_json=as_json)
            return
        loaded, choice = load_one(session, image)
        scale = pixel_size_value(pixel_size)
        if asked:
            parameters["conditions"] = asked
            if scale is not None:
                parameters["pixel_size_nm"] = [scale.x_nm, scale.y_nm]
            chosen = {mask.id for mask in filters.apply(loaded.mask_set, wanted, pixel_size=scale)}
        else:
            check_ids(loaded, ids)
            chosen = set(ids) or {mask.id for mask in loaded.mask_set.masks}
        masks = labelled(loaded.mask_set.masks, chosen, label)
        changed = sum(a is not b for a, b in zip(masks, loaded.mask_set.masks, strict=True))
        if dry_run:
            emit_json({"changed": changed, "masks": len(masks)}) if as_json else emit(f"{changed} of {len(masks)}")
        elif not changed:
            raise UsageError(
                "no mask would change, so no version is written", "Those that are meant have this label already."
            )
        else:
            save_edit(session, choice, loaded, masks, "label", parameters, suffix, as_json, more={"changed": changed})


def _ids(words: list[str]) -> list[int]:
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise UsageError(
            f"'{wrong}' is no id of a mask", "Ids come first, one label last; quote a label of several words."
        )
    return [int(word) for word in words]


def _tell_of_classes(config: Config, label: str) -> None:
    """A label that is none of the classes may be a slip of the pen."""
    if label and config.classes and label not in config.classes:
        near = difflib.get_close_matches(label, config.classes, n=1)
        note(f"'{label}' is none of the classes in config.toml" + (f"; did you mean '{near[0]}'?" if near else ""))
