"""``--cluster``: a batch on Dask workers, told as it comes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.batches.stopping import interrupts_noted
from segment_duo.cli.each import STOPS_EVERYTHING, Tally
from segment_duo.cli.inputs import stream_inputs
from segment_duo.cli.output import note, progress
from segment_duo.errors import ModelError
from segment_duo.types import ImageRef

if TYPE_CHECKING:
    from segment_duo.batch import Request
    from segment_duo.batches.ledger import Ledger
    from segment_duo.batches.manifest import Record
    from segment_duo.session import Session

OnRecord = Callable[["Record"], None]


def run_on_cluster(
    address: str,
    session: Session,
    request: Request,
    ledger: Ledger,
    tell: OnRecord,
    *,
    images: Sequence[str] | None,
    from_file: str | None,
    flags: Mapping[str, Any],
    out: str | None = None,
    as_json: bool,
) -> None:
    """Do all images on the workers of a scheduler; the list is read as they are done.

    Args:
        tell: says what became of an image that did not fail.
        flags: the engine's settings of the command line; they count on the workers too.
        out: folder for saved sets, as typed.

    Raises:
        SegduoError: as :func:`segment_duo.cli.each.run_batch`; StoppedEarly when a signal said so.
    """
    from segment_duo.batches.cluster import Windows, connected

    settings = {
        name: str(value) if isinstance(value, Path) else value for name, value in flags.items() if value is not None
    }
    settings.setdefault("model", session.model.id)
    request = dataclasses.replace(request, settings=settings, out=str(session.reference(out)) if out else None)
    batch = _Batch(session, ledger, tell, Tally(None, as_json=as_json))
    with (
        connected(address) as client,
        progress("on the cluster") as report,
        interrupts_noted() as check_interrupt,
    ):
        ledger.open(images=None, given=None)

        def stopped() -> bool:
            check_interrupt()
            return ledger.stopping.asked

        def come(record: Record, messages: tuple[str, ...]) -> None:
            for message in messages:
                note(message)
            batch.come(record)
            report(batch.ended, None, f"{batch.ended} images, {batch.rate:.1f}/s")

        windows = Windows(
            client,
            request,
            come,
            stopped=stopped,
            sent=lambda ref: ledger.begin(ref, sent=True),
        )
        windows.run(batch.refs(stream_inputs(session, images, from_file)))
    ledger.stopping.check()
    batch.tally.finish(batch.total)


@dataclasses.dataclass
class _Batch:
    """``total``: images and failures met so far; ``ended``: those with an outcome."""

    session: Session
    ledger: Ledger
    tell: OnRecord
    tally: Tally
    total: int = 0
    ended: int = 0
    began: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Images a second since the beginning."""
        return self.ended / max(time.monotonic() - self.began, 1e-3)

    def refs(self, items: Iterator[Any]) -> Iterator[tuple[ImageRef, float | None]]:
        """The images to send, each once, with when an earlier task may have begun it."""
        from segment_duo.batches.hashes import HashSet, path_hash
        from segment_duo.batches.manifest import Record

        seen = HashSet()
        for item in items:
            if not isinstance(item, ImageRef):
                if self.ledger.ours(item[0]):
                    self.total += 1
                    self.tally.failed(*item)
                continue
            if not seen.add(path_hash(str(item))) or not self.ledger.ours(item):
                continue
            self.total += 1
            if self.ledger.settled(item):
                continue
            dead = self.ledger.dead(item)
            if dead is not None:
                self.come(Record.failed(str(item), dead))
                continue
            yield item, self.ledger.since(item)

    def come(self, record: Record) -> None:
        """Take an outcome.

        Raises:
            SegduoError: what would happen to every other image too.
        """
        self.ended += 1
        self.ledger.note(record)
        ours = self.session.identity
        if record.hash and not ours.weights_sha256.startswith(record.hash):
            raise ModelError(
                f"{record.image}: a worker has other weights of {ours.id} than this machine",
                "Give all machines the same model: `segduo models ls --json` shows the hashes.",
            )
        problem = record.problem
        if problem is None:
            self.tell(record)
        elif isinstance(problem, STOPS_EVERYTHING):
            raise problem
        else:
            self.tally.failed(record.image, problem)
