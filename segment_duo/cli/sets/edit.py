"""``segduo masks rm-mask``, ``keep`` and ``filter``: edit a set into a new version; the old one stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.bundles import bundled
from segment_duo.cli.chosen import Choice, image_of, load_one, series_of
from segment_duo.cli.filter_options import FilterOptions
from segment_duo.cli.options import (
    JsonOption,
    OutOption,
    PixelSizeOption,
    SeriesOption,
    SetArgument,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit, emit_json
from segment_duo.cli.saving import deliver_waiting, finish_saved
from segment_duo.errors import InputError, UsageError
from segment_duo.types import Mask

if TYPE_CHECKING:
    from segment_duo.library.library import LoadedSet
    from segment_duo.session import Session

IdsArgument = Annotated[list[int], typer.Argument(metavar="ID...", help="Ids as `segduo masks show` gives them.")]


def register(app: typer.Typer) -> None:
    app.command("rm-mask")(remove_masks)
    app.command("keep")(keep)
    app.command("filter")(filter_masks)


def remove_masks(
    image: SetArgument,
    ids: IdsArgument,
    suffix: SeriesOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Write a new version without the named masks, in the series of the old one, which stays.

    [bold]Example[/bold]

      segduo masks rm-mask examples/particles.tif 3 17
    """
    _select(image, ids, keep=False, suffix=suffix, as_json=as_json, out=out)


def keep(
    image: SetArgument,
    ids: IdsArgument,
    suffix: SeriesOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Write a new version with only the named masks, in the series of the old one, which stays.

    [bold]Example[/bold]

      segduo masks keep examples/particles.tif@0 1 2 5 --suffix best
    """
    _select(image, ids, keep=True, suffix=suffix, as_json=as_json, out=out)


@bundled
def filter_masks(
    image: SetArgument,
    conditions: FilterOptions,
    pixel_size: PixelSizeOption = None,
    suffix: SeriesOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many masks would stay.")] = False,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Write a new version with the masks that pass, in the series of the old one, which stays.

    [bold]Example[/bold]

      segduo masks filter examples/particles.tif --min-diameter 50nm --exclude-edge
    """
    from segment_duo.masks import filters

    wanted = conditions.wanted()
    parameters = wanted.parameters()
    if not parameters:
        raise UsageError("no condition given", "For example --min-area 50 or --exclude-edge.")
    with open_session(out=out) as session:
        loaded, choice = load_one(session, image)
        scale = pixel_size_value(pixel_size)
        if scale is not None:
            parameters["pixel_size_nm"] = [scale.x_nm, scale.y_nm]
        masks = filters.apply(loaded.mask_set, wanted, pixel_size=scale)
        if dry_run:
            counts = {"masks": len(masks), "before": len(loaded.mask_set.masks)}
            emit_json(counts) if as_json else emit(f"{counts['masks']} of {counts['before']}")
            return
        save_edit(session, choice, loaded, masks, "filter", parameters, suffix, as_json)


def _select(image: str, ids: list[int], *, keep: bool, suffix: str | None, as_json: bool, out: str | None) -> None:
    with open_session(out=out) as session:
        loaded, choice = load_one(session, image)
        check_ids(loaded, ids)
        masks = [mask for mask in loaded.mask_set.masks if (mask.id in ids) is keep]
        operation = "keep" if keep else "rm-mask"
        save_edit(session, choice, loaded, masks, operation, {"ids": sorted(set(ids))}, suffix, as_json)


def check_ids(loaded: LoadedSet, ids: list[int]) -> None:
    """Raise InputError for an id that the set has not."""
    unknown = sorted(set(ids) - {mask.id for mask in loaded.mask_set.masks})
    if unknown:
        raise InputError(f"set {loaded.version.name} has no mask {unknown[0]}", "`segduo masks show` gives the ids.")


def save_edit(
    session: Session,
    choice: Choice,
    loaded: LoadedSet,
    masks: list[Mask] | tuple[Mask, ...],
    operation: str,
    parameters: dict[str, Any],
    suffix: str | None,
    as_json: bool,
    *,
    more: dict[str, Any] | None = None,
) -> None:
    """Save what was made of a set as its image's next version, and tell of it; ``more``: further fields of the JSON record."""
    ref = image_of(session, choice, loaded)
    deliver_waiting(session, [ref])
    if suffix is None:
        suffix = series_of(session, ref, loaded)
    saved = session.save_edit(ref, loaded, masks, operation=operation, parameters=parameters, suffix=suffix)
    record = {
        "image": str(ref),
        "masks": len(masks),
        "before": len(loaded.mask_set.masks),
        "parent": loaded.version.name,
    }
    finish_saved(saved, record | (more or {}), as_json=as_json)
