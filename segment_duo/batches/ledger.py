"""What one task of a batch asks before an image (or a sequence) and writes after it.

Every image ends up in a manifest once: what an earlier task finished is left out; the one image it had in hand when it was killed is looked
at (was its set saved after all?), and given up when two processes died over it. A sequence is an image here, but for its length: a task that is
told to stop leaves it with the frames that are done, and only a process that died before the first new frame counts as a death.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segment_duo.batch import Outcome, Request, Watch, segment_one
from segment_duo.batches.hashes import path_hash
from segment_duo.batches.history import TRIES, History, read_history
from segment_duo.batches.manifest import Ended, Manifest, Record, claim
from segment_duo.batches.shards import Shard
from segment_duo.batches.stopping import Stopping
from segment_duo.errors import Cancelled, ProcessDied, SegduoError
from segment_duo.session import Session
from segment_duo.types import ImageRef, ModelIdentity

_JOB = {
    "job": "SLURM_JOB_ID",
    "array": "SLURM_ARRAY_JOB_ID",
    "task": "SLURM_ARRAY_TASK_ID",
    "restarts": "SLURM_RESTART_COUNT",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """Which batch this is: two commands are of one batch when all of this is the same. ``asked``: with which parameters, JSON values."""

    command: str
    model: ModelIdentity
    asked: Mapping[str, Any]
    out: str

    def record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "command": self.command,
            "model": self.model.id,
            "model_sha256": self.model.weights_sha256,
            **self.asked,
            "out": self.out,
        }

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:16]


class Ledger:
    """Without a folder it only keeps to the shard and the signals."""

    def __init__(
        self,
        folder: Path | None,
        what: Description,
        shard: Shard | None,
        stopping: Stopping,
        *,
        looks_only: bool = False,
    ) -> None:
        """Reads what is in the folder. Unless it ``looks_only``, no other process may do the same part of the batch till :meth:`close`.

        Raises:
            StoreError: another process does it.
            UsageError, InputError: as :func:`read_history` says.
        """
        self.shard = shard
        self.stopping = stopping
        self.resumed = 0
        self._folder = folder
        self._what = what
        self._name = f"shard-{shard.index}-of-{shard.count}" if shard else "all"
        # Before the history is read: what another process still writes would be missing from it.
        self._claim = claim(folder, self._name) if folder is not None and not looks_only else -1
        self._manifest: Manifest | None = None
        try:
            self._history = read_history(folder, what.digest, shard) if folder is not None else History()
        except BaseException:
            self.close("failed")
            raise

    def open(self, *, images: int | None, given: int | None) -> None:
        """Begin this task's file. ``images``: how many are this task's, done ones included; ``given``: all that were named; None: not known."""
        if self._folder is None:
            return
        header: dict[str, Any] = {"batch": self._what.digest, **self._what.record()}
        header |= {"shard": str(self.shard) if self.shard else None, "images": images, "given": given}
        header |= {"host": os.uname().nodename, "pid": os.getpid()} | _slurm(os.environ)
        self._manifest = Manifest(self._folder, self._name, header)

    def ours(self, ref: ImageRef | str) -> bool:
        """Whether the image, or the line of a list that means none, is of this task's shard."""
        return self.shard is None or self.shard.has(str(ref))

    def settled(self, ref: ImageRef) -> bool:
        """Whether an earlier task (or this one) finished the image; such images are counted as ``resumed``."""
        known = path_hash(str(ref)) in self._history.settled
        self.resumed += known
        return known

    def since(self, ref: ImageRef) -> float | None:
        """When an earlier task began the image, if that task ended without a word about it; seconds since the epoch."""
        doubt = self._history.doubts.get(str(ref))
        return doubt.since if doubt else None

    def dead(self, ref: ImageRef) -> ProcessDied | None:
        """The error of an image over which processes keep dying."""
        doubt = self._history.doubts.get(str(ref))
        return died(str(ref)) if doubt and doubt.deaths >= TRIES else None

    def one(self, ref: ImageRef, request: Request, *, session: Session, watch: Watch | None = None) -> Outcome:
        """Do one image in this process and note it."""
        dead = self.dead(ref)
        if dead is not None:
            outcome = Outcome(ref, "failed", error=dead)
        else:
            with self._in_hand(ref):
                outcome = segment_one(ref, request, session=session, watch=watch, since=self.since(ref))
        self.note(Record.of(outcome, automatic=request.parameters is not None))
        return outcome

    def sequence(self, ref: ImageRef, work: Callable[[float | None, Callable[[], None]], Record]) -> None:
        """Do one sequence in this process and note it.

        Args:
            work: given when an earlier task began it (as :meth:`since`), and what to call once a frame was done.

        Raises:
            StoppedEarly: a signal came; the frames that are done stay.
            SegduoError: what ``work`` raised, noted.
        """
        failure: SegduoError | None = self.dead(ref)
        if failure is None:
            with self._in_hand(ref) as got_on:
                try:
                    record = work(self.since(ref), got_on)
                except Cancelled:
                    self.stopping.check()
                    raise
                except SegduoError as error:
                    failure = error
        if failure is not None:
            self.note(Record.failed(str(ref), failure))
            raise failure
        self.note(record)

    @contextmanager
    def _in_hand(self, ref: ImageRef) -> Iterator[Callable[[], None]]:
        """Inside, this task works on it; yields what to call when a death from then on is not to be held against it."""
        counts = self._manifest is not None
        self.begin(ref)

        def drop() -> None:
            nonlocal counts
            if counts and self._manifest is not None:
                self._manifest.drop(str(ref))
            counts = False

        try:
            yield drop
        except BaseException:
            drop()
            raise

    def begin(self, ref: ImageRef, *, sent: bool = False) -> None:
        if self._manifest is not None:
            self._manifest.begin(str(ref), sent=sent)

    def note(self, record: Record) -> None:
        if self._manifest is not None:
            self._manifest.note(record)

    def close(self, ended: Ended) -> None:
        if self._manifest is not None:
            self._manifest.close(ended)
            self._manifest = None
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1


def died(image: str) -> ProcessDied:
    """The error of an image that killed two processes."""
    return ProcessDied(
        f"{image}: the process that worked on it died, {TRIES} times",
        "Too little memory for this image, or a file that no reader survives? Try it alone, without --manifest.",
    )


def _slurm(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[variable] for name, variable in _JOB.items() if variable in environ}
