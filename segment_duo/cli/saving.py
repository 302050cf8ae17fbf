"""What every command that saves does around saving: deliver what waits, say where the set went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segment_duo.cli.output import emit_json, emit_path, note
from segment_duo.errors import SavedToSpoolOnly
from segment_duo.types import ImageRef, StoreKind

if TYPE_CHECKING:
    from segment_duo.library.library import Saved
    from segment_duo.library.spool import Failed
    from segment_duo.session import Session

NEXT_DELIVERY = "The next run that saves there tries again, or"
"""Local runs do not wait for a server, so they deliver nothing."""


def deliver_waiting(session: Session, refs: Sequence[ImageRef]) -> None:
    """Deliver sets of earlier runs that wait in the spool, if this run saves to a server itself (a local one must not wait for a server)."""
    if any(session.sets.folder(ref)[0] is not StoreKind.LOCAL for ref in refs):
        deliver_spool(session, wait=False)


def deliver_spool(session: Session, *, wait: bool) -> list[Failed]:
    """Deliver what waits in the spool, and tell on stderr; returns what is still there.

    Args:
        wait: until another process that delivers has ended; without, what is left is told in one line, for the user came for something else.
    """
    from segment_duo.library.spool import Delivered

    left: list[Failed] = []
    for outcome in session.sets.deliver_spool(wait=wait):
        if isinstance(outcome, Delivered):
            note(f"delivered from the spool: {ImageRef(outcome.item.kind, outcome.version.path)}")
        else:
            left.append(outcome)
    if left and not wait:
        waits = "1 set of an earlier run waits" if len(left) == 1 else f"{len(left)} sets of earlier runs wait"
        note(f"{waits} in the spool ({left[0].error.message}); `segduo masks push` shows more")
    return left


def report_saved(saved: Saved, record: dict[str, Any], *, as_json: bool) -> int:
    """Write where a set went to stdout; returns 1 if that was only the spool, else 0."""
    if as_json:
        version = saved.version.name if saved.version else None
        emit_json(record | {"saved": saved.path, "version": version, "spooled": saved.spooled is not None})
    else:
        emit_path(saved.path)
    if not saved.mask_set.masks:
        note(f"{saved.path}: holds no masks")
    if saved.spooled is None:
        return 0
    note(f"kept in the spool: {saved.spooled} ({saved.reason})")
    return 1


def finish_saved(saved: Saved, record: dict[str, Any], *, as_json: bool) -> None:
    """As :func:`report_saved`, for commands that save one set.

    Raises:
        SavedToSpoolOnly: so that the exit code tells.
    """
    if report_saved(saved, record, as_json=as_json):
        raise SavedToSpoolOnly("the set is not on the server yet", f"{NEXT_DELIVERY}: segduo masks push")
