"""What one ``segduo track`` does with each of its sequences, what it tells while it works, and what it leaves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.cli.output import emit_json, emit_path, note, progress
from segment_duo.errors import InputError, SegduoError, UsageError

if TYPE_CHECKING:
    from segment_duo.batches.ledger import Ledger
    from segment_duo.batches.manifest import Record
    from segment_duo.sequence_tracking import TrackRequest
    from segment_duo.sequences import Followed, LinkRequest, Opening, OpenSequence, Progress
    from segment_duo.session import Session
    from segment_duo.types import ImageRef

Way = Callable[["OpenSequence"], Callable[..., "Followed"]]
"""Of an open sequence: what follows its objects, and takes what :func:`segment_duo.sequences.link` takes by name."""


@dataclass
class TrackRun:
    """One command over its sequences. ``several``: more than one was named."""

    session: Session
    ledger: Ledger
    opening: Opening
    suffix: str
    restart: bool
    resume: bool
    tables: bool
    as_json: bool
    several: bool

    def link(self, ref: ImageRef, request: LinkRequest, notices: Sequence[str]) -> None:
        """Automatic masks of each frame, linked."""
        from segment_duo.sequences import link

        self._one(ref, "link", lambda opened: partial(link, self.session, opened, request, notices=notices))

    def follow(self, ref: ImageRef, request: Callable[[int], TrackRequest], onto: str | None) -> None:
        """With the model's memory. ``request``: of a sequence by the number of its first frame."""
        from segment_duo.sequence_tracking import follow

        def way(opened: OpenSequence) -> Callable[..., Followed]:
            return partial(follow, self.session, opened, request(opened.numbers[0]), onto=onto)

        self._one(ref, "memory", way)

    def _one(self, ref: ImageRef, method: str, way: Way) -> None:
        self.ledger.stopping.check()
        if not self.ledger.settled(ref):
            self.ledger.sequence(ref, partial(self._do, ref, method, way))

    def _do(self, ref: ImageRef, method: str, way: Way, since: float | None, got_on: Callable[[], None]) -> Record:
        from segment_duo.batches.manifest import HASH_DIGITS, Record

        began = time.monotonic()
        opened = self._open(ref)
        try:
            for warning in opened.frames.warnings:
                note(f"{ref}: {warning}")
            work = way(opened)
            with self._watched(ref.name, got_on) as on_frame:
                followed = work(
                    suffix=self.suffix, restart=self.restart, must_resume=self.resume, since=since,
                    on_frame=on_frame, cancelled=lambda: self.ledger.stopping.asked,
                )  # fmt: skip
            seconds = round(time.monotonic() - began, 3)
            self._tell(opened, followed, method, seconds)
        finally:
            opened.frames.close()
        model, saved = self.session.model, followed.saved
        return Record(
            str(ref), set=saved.path, version=saved.version.name, seconds=seconds, masks=followed.objects,
            model=model.id, hash=model.sha256[:HASH_DIGITS],
        )  # fmt: skip

    def _open(self, ref: ImageRef) -> OpenSequence:
        """The sequence, open; of several, one that the options do not fit, or that is but one picture, fails alone."""
        from segment_duo.sequences import open_sequence

        try:
            opened = open_sequence(self.session, ref, self.opening)
        except UsageError as error:
            if not self.several:
                raise
            raise InputError(f"{ref}: {error.message}", error.hint) from None
        if self.several and len(opened.frames) == 1:
            with closing(opened.frames):
                opened.frames.frame(0)  # a file that is no picture at all says so
            raise InputError(
                f"{ref}: a single picture, and no sequence",
                "Quote the pattern to follow objects from file to file: 'scan_*.tif'.",
            )
        return opened

    @contextmanager
    def _watched(self, name: str, got_on: Callable[[], None]) -> Iterator[Callable[[Progress], None]]:
        with progress(name) as report:
            last = [time.monotonic()]
            began = last[0]

            def on_frame(state: Progress) -> None:
                got_on()
                new = state.done - state.resumed
                if new == 1 and state.resumed:
                    note(f"{name}: {state.resumed} frames are done already, going on")
                left = (time.monotonic() - began) / new * (state.total - state.done)
                said = f"frame {state.frame}, {state.masks} objects, {_duration(left)} left"
                report(state.done, state.total, said)
                if not sys.stderr.isatty() and time.monotonic() - last[0] > 30:
                    last[0] = time.monotonic()
                    note(f"{name}: {state.done} of {state.total} frames, {_duration(left)} left")

            yield on_frame

    def _tell(self, opened: OpenSequence, followed: Followed, method: str, seconds: float) -> None:
        beside = self._write_tables(opened, followed) if self.tables else {}
        record = {
            "sequence": str(opened.ref),
            "method": method,
            "model": self.session.model.id,
            "frames": followed.frames,
            "resumed": followed.resumed,
            "objects": followed.objects,
            "events": followed.events,
            "seconds": seconds,
            "notes": list(followed.notices),
            "saved": followed.saved.path,
            "version": followed.saved.version.name,
            "tables": [str(path) for path in beside.values()],
        }
        if self.as_json:
            emit_json(record)
            return
        emit_path(followed.saved.path)
        for path in beside.values():
            emit_path(path)
        happened = "".join(f", {count} {kind}" for kind, count in sorted(followed.events.items()))
        note(f"{opened.ref}: {followed.objects} objects in {followed.frames} frames{happened}")

    def _write_tables(self, opened: OpenSequence, followed: Followed) -> dict[str, Path]:
        """The label stack and the table beside the set; a name that is taken is told, and the set is not lost for it."""
        from segment_duo.tracking.export import export_sequence

        place = self.session.sequences.on_disk(opened.named, followed.saved.version)
        if place is None:
            note("the set is on Drops; `segduo masks export` writes label stacks and tables")
            return {}
        made = {}
        for fmt, name in (("labels-ome", f"{place.stem}_labels.tif"), ("tracks-csv", f"{place.stem}_tracks.csv")):
            _, found = self.session.sequences.open(opened.named, followed.saved.version.name)
            with found:
                try:
                    made[fmt] = export_sequence(found, fmt, place.with_name(name), name=opened.ref.stem)
                except SegduoError as error:
                    note(f"{error.message}; the set itself is saved")
        return made


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
