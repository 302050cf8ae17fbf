"""``segduo masks push``: sets that wait for Drops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli.human import when
from segment_duo.cli.options import open_session
from segment_duo.cli.output import emit_path, emit_table
from segment_duo.cli.saving import deliver_spool
from segment_duo.errors import NotFound, SavedToSpoolOnly
from segment_duo.types import ImageRef

if TYPE_CHECKING:
    from segment_duo.library.spool import SpoolItem


def register(app: typer.Typer) -> None:
    app.command("push")(push)


def push(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what waits.")] = False,
    discard: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Give this set up: move it out of the spool, without deleting it."),
    ] = None,
) -> None:
    """Deliver mask sets that wait in the spool because Drops was away, and list those that still wait.

    A row has the set's id, its image's name, the folder it goes to, when it was made, and what kept it back.

    [bold]Examples[/bold]

      segduo masks push

      segduo masks push --dry-run

      segduo masks push --discard 1f3a9c02
    """
    with open_session() as session:
        spool = session.sets.spool
        if discard:
            for item in [_waiting(spool.pending(), wanted) for wanted in discard]:
                emit_path(spool.set_aside(item))
            return
        if dry_run:
            left = [(item, item.error) for item in spool.pending()]
        else:
            left = [(failed.item, failed.error.message) for failed in deliver_spool(session, wait=True)]
        rows = [
            (item.id, item.stem, ImageRef(item.kind, item.folder), when(item.created), reason) for item, reason in left
        ]
        if rows:
            emit_table(("id", "image", "folder", "made", "reason"), rows)
        if rows and not dry_run:
            raise SavedToSpoolOnly(
                f"{len(rows)} set{'s' * (len(rows) > 1)} could not be delivered",
                "`segduo doctor` looks at the connection; `segduo masks push --discard ID` gives one up.",
            )


def _waiting(items: list[SpoolItem], wanted: str) -> SpoolItem:
    found = [item for item in items if item.id == wanted]
    if not found:
        raise NotFound(f"no set '{wanted}' waits in the spool", "`segduo masks push --dry-run` lists the ids.")
    return found[0]
