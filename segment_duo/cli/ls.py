"""``segduo ls``."""

from __future__ import annotations

from typing import Annotated

import typer

from segment_duo.cli.human import size, timestamp, when
from segment_duo.cli.inputs import is_image_name
from segment_duo.cli.options import JsonOption, open_session
from segment_duo.cli.output import emit_json, emit_path, emit_table, note
from segment_duo.stores.local import names_not_utf8
from segment_duo.text import safe
from segment_duo.types import Entry, StoreKind


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("ls", rich_help_panel=panel)(list_folder)


def list_folder(
    folder: Annotated[str | None, typer.Argument(metavar="[PATH]", help="A folder, local or on Drops.")] = None,
    names_only: Annotated[bool, typer.Option("-1", help="One path a line, for pipelines.")] = False,
    images_only: Annotated[bool, typer.Option("--images", help="Only images.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List a folder, newest first.

    Without PATH the configured start_folder, else the working folder.

    [bold]Examples[/bold]

      segduo ls /drops/labdaq/2026

      segduo ls -1 --images scans | head -5 | segduo auto -
    """
    with open_session() as session:
        target = folder or session.config.start_folder or "."
        ref = session.reference(target)
        entries = session.list_folder(target)
        nothing = not entries
        if images_only:
            entries = [entry for entry in entries if not entry.is_folder and is_image_name(entry.path)]
        if nothing and ref.store is StoreKind.DROPS and ref.path.count("/") == 1:
            note(f"{ref}: empty, or not there (Drops does not tell which of its top folders exist)")
        unnamed = names_not_utf8(session.store(ref.store), ref.path)
        if unnamed:
            named = ", ".join(safe(name, limit=80) for name in unnamed[:3]) + (", ..." if len(unnamed) > 3 else "")
            note(f"{len(unnamed)} {'name is' if len(unnamed) == 1 else 'names are'} not UTF-8, left out: {named}")
        shown = {entry.path: str(type(ref)(ref.store, entry.path)) for entry in entries}
    if as_json:
        emit_json([_record(entry, shown[entry.path]) for entry in entries], indent=1)
    elif names_only:
        for entry in entries:
            emit_path(shown[entry.path] + ("/" if entry.is_folder else ""))
    else:
        emit_table(("modified", "size", "name"), [_row(entry) for entry in entries], right=("size",))


def _row(entry: Entry) -> tuple[str, str, str]:
    name = entry.name + ("/" if entry.is_folder else "")
    return when(entry.modified), "" if entry.is_folder else size(entry.size), name


def _record(entry: Entry, path: str) -> dict[str, object]:
    return {
        "name": entry.name,
        "path": path,
        "is_folder": entry.is_folder,
        "size": entry.size,
        "modified": timestamp(entry.modified),
    }
