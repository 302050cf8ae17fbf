"""What every command that saves does around saving: deliver what waits, say where the set went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segment_duo.cli.output import emit, emit_json, note
from segment_duo.errors import SavedToSpoolOnly

if TYPE_CHECKING:
    from segment_duo.session import Saved, Session


def deliver_waiting(session: Session) -> None:
    """Deliver sets of earlier runs that wait in the spool, and say so on stderr."""
    for delivery in session.deliver_spool():
        if delivery.path:
            note(f"delivered from the spool: {delivery.path}")
        else:
            note(f"still in the spool: {delivery.item} ({delivery.error})")


def report_saved(saved: Saved, record: dict[str, Any], *, as_json: bool) -> int:
    """Write where a set went to stdout; returns 1 if that was only the spool, else 0."""
    if as_json:
        version = saved.version.name if saved.version else None
        emit_json(record | {"saved": saved.path, "version": version, "spooled": saved.spooled is not None})
    else:
        emit(saved.path)
    if saved.spooled is None:
        return 0
    note(f"kept in the spool, Drops could not be reached: {saved.spooled}")
    return 1


def finish_saved(saved: Saved, record: dict[str, Any], *, as_json: bool) -> None:
    """As :func:`report_saved`, for commands that save one set.

    Raises:
        SavedToSpoolOnly: so that the exit code tells.
    """
    if report_saved(saved, record, as_json=as_json):
        raise SavedToSpoolOnly("the set is not on Drops yet", "The next run delivers it, or: segduo masks push")
