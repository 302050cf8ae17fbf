"""``segduo masks ls`` and ``show``: which sets there are, and what is in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.chosen import Choice, load_one, look_at_file, parse_choice
from segment_duo.cli.human import size, timestamp, when
from segment_duo.cli.options import JsonOption, OutOption, SetArgument, open_session
from segment_duo.cli.output import emit_json, emit_table, note
from segment_duo.cli.sequence_sets import is_sequence
from segment_duo.cli.sequence_sets import show as show_sequence
from segment_duo.types import Mask

if TYPE_CHECKING:
    from segment_duo.library.library import ListedSet
    from segment_duo.session import Session


def register(app: typer.Typer) -> None:
    app.command("ls")(list_versions)
    app.command("show")(show)


def list_versions(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE[@VERSION]", help="An image, local or on Drops; with @VERSION only that set.")
    ],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """List the saved sets of an image or sequence, newest first. Of a sequence set "masks" counts its objects.

    [bold]Example[/bold]

      segduo masks ls examples/particles.tif
    """
    with open_session(out=out) as session:
        found = _found(session, parse_choice(session, image), missing_is_empty=as_json)
    rows = [_listed_row(item) for item in found]
    if as_json:
        emit_json([row | {"modified": timestamp(row["modified"])} for row in rows], indent=1)
        return
    columns = ("version", "masks", "frames", "page", "modified", "size", "model", "operation", "parent", "path")
    shown = [row | {"modified": when(row["modified"]), "size": size(row["size"])} for row in rows]
    emit_table(
        columns,
        [["" if row.get(column) is None else row[column] for column in columns] for row in shown],
        right=("masks", "frames", "page", "size"),
        whole=("path",),
    )
    for item in found:
        if item.belongs is False:
            note(item.notice)


def _found(session: Session, choice: Choice, *, missing_is_empty: bool) -> list[ListedSet]:
    """The sets that are meant, newest first; that there are none is an error, but for an image that is there and ``missing_is_empty``."""
    from segment_duo.library.sequences import sequence_ref
    from segment_duo.library.versions import LATEST, VersionRequest

    ref, version = sequence_ref(choice.ref), choice.version
    if choice.is_file:
        return [look_at_file(session, ref)]
    found = session.sets.listed(ref, version=None if version == LATEST else version)
    if not found and not (missing_is_empty and session.store(ref.store).stat(ref.path)):
        session.sets.chosen(ref, VersionRequest())
    return found[:1] if version == LATEST else found


def _listed_row(found: ListedSet) -> dict[str, Any]:
    version = found.version
    row: dict[str, Any] = {
        "version": version.name,
        "path": found.path,
        "size": version.size,
        "modified": version.modified,
    }
    if found.peek is None:
        return row | {"masks": None, "operation": found.notice}
    known = found.peek.provenance
    return row | {
        "masks": found.peek.count,
        "frames": found.peek.frames,
        "operation": known.operation,
        "parent": known.parent,
        "model": " + ".join(known.models) or (known.model.id if known.model else None),
        "image": known.image.path if known.image else None,
        "page": known.image.page if known.image else None,
    }


def show(image: SetArgument, as_json: JsonOption = False, out: OutOption = None) -> None:
    """Show the masks of a set: id, label, area, box, scores; and on stderr how many masks have each label.

    Of a sequence set its objects: when each was seen, what it came from and went into.

    [bold]Examples[/bold]

      segduo masks show examples/particles.tif

      segduo masks show examples/particles.tif@2 --json | jq '.records[].area'
    """
    from segment_duo.masks.classes import counts
    from segment_duo.masks.formats.native import set_records

    with open_session(out=out) as session:
        if is_sequence(session, image):
            show_sequence(session, image, as_json=as_json)
            return
        loaded, _ = load_one(session, image)
    mask_set = loaded.mask_set
    labels = counts(mask_set.masks)
    if as_json:
        records, provenance = set_records(mask_set)
        emit_json(
            {
                "version": loaded.version.name,
                "provenance": provenance,
                "masks": len(records),
                "labels": labels,
                "records": records,
            }
        )
        return
    columns = ("id", "label", "area", "x", "y", "width", "height", "predicted_iou", "stability", "source")
    emit_table(columns, [_mask_row(mask) for mask in mask_set.masks], right=columns[2:9])
    if any(labels):
        note(", ".join(f"{label or 'no label'}: {count}" for label, count in labels.items()))


def _mask_row(mask: Mask) -> list[object]:
    scores = ["" if score is None else f"{score:.3f}" for score in (mask.predicted_iou, mask.stability_score)]
    return [mask.id, mask.label, mask.area, *(f"{value:g}" for value in mask.bbox), *scores, mask.source]
