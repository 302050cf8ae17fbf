"""A batch on Dask workers: images stream in, a bounded window of chunks is out at any time, records come back as chunks end.

    refs ──> chunk ──> one worker, by name ──> records ──> on_record
                            │ it dies
                            └──> its images one by one, on other workers ──> a second death: the image is given up (``process-died``)

Each chunk is sent to one worker by name and to no other, so that a death is seen here and not answered by Dask itself: Dask would run the whole chunk
again, three times, and what it had finished a second time each. A worker holds two chunks a thread (one runs, one waits), each of some seconds; the
scheduler never knows more, however long the list. An image that is tried again has a worker to itself: its death is then the image's doing.
The workers of a node share its engine; see :mod:`segment_duo.engine.connect`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from segment_duo.batch import Request, segment_one
from segment_duo.batches.ledger import died
from segment_duo.batches.manifest import Record
from segment_duo.errors import EngineFailed, EngineUnavailable, UsageError
from segment_duo.types import ImageRef

if TYPE_CHECKING:
    from distributed import Client, Future

    from segment_duo.session import Session

CHUNK_SECONDS = 4.0
"""How long a chunk should take: long against the scheduler's work for it (some milliseconds), short for whoever watches."""
MOST_IN_CHUNK = 64
CHUNKS_A_THREAD = 2
TIDY_CHUNKS = 500
_LOOK_SECONDS = 0.5
_RESULT_SECONDS = 5.0
_ANSWER_SECONDS = 6.0
"""How long to wait for a scheduler's first word."""
_NOBODY_SECONDS = 120.0
"""How long to wait for a first worker, or for another when all have died."""

_LEAN = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 120,
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""Dask looks at its own threads a hundred times a second and keeps a profile a second, the last 1,000 messages with their tasks for each worker,
and an hour of samples of the machine. Nobody reads it here; this process grows by it for an hour. A scheduler elsewhere has its own settings."""

log = logging.getLogger("segduo.cluster")

OnOutcome = Callable[[Record, tuple[str, ...]], None]
"""Takes what became of an image, and what its session had to say."""


@dataclass(slots=True)
class _Chunk:
    """``since``: when it was first sent, for images that are tried again; ``alone``: nothing else goes to its worker meanwhile."""

    refs: tuple[ImageRef, ...]
    alone: bool = False
    since: float | None = None
    worker: str = ""


@dataclass(slots=True)
class _Pace:
    """Chooses how many images make a chunk, by how long the last ones took."""

    seconds: float | None = None

    def learn(self, seconds: float, images: int) -> None:
        now = seconds / images
        self.seconds = now if self.seconds is None else 0.7 * self.seconds + 0.3 * now

    @property
    def images(self) -> int:
        if self.seconds is None:
            return 1
        return max(1, min(MOST_IN_CHUNK, int(CHUNK_SECONDS / max(self.seconds, 1e-6))))


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler's address, or of ``local:N`` processes that are started here and end with it.

    Raises:
        UsageError: Dask is not installed, or the address is none.
        EngineUnavailable: nobody answers there.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise UsageError("--cluster needs Dask", "Install it: pip install 'segment-duo[dask]'") from None
    # It prints a traceback when a scheduler goes away; we say it in a sentence.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    number = re.fullmatch(r"local:([1-9][0-9]{0,3})", address)
    if number is None and address.startswith("local"):
        raise UsageError(f"--cluster {address}: not a number of processes", "Write --cluster local:4.")
    try:
        if number is not None:
            with (
                dask.config.set(_LEAN),
                LocalCluster(
                    n_workers=int(number[1]),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # None would be port 8787, with a warning where that is taken
                    silence_logs=50,
                ) as cluster,
                Client(cluster, set_as_default=False) as client,
            ):
                yield client
            return
        _greet(address)
        with dask.config.set(_LEAN):
            client = Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # a TimeoutError is an OSError
        raise _nobody(address, str(error)) from None
    with client:
        yield client


def _greet(address: str) -> None:
    """Raise EngineUnavailable unless a scheduler answers in time.

    Dask's client alone waits several times as long as it is told, and takes whatever answers for its own protocol, be it a web server's line
    for the size of a message.
    """
    from distributed.core import rpc
    from distributed.security import Security

    async def kind() -> str:
        security = Security().get_connection_args("client")
        async with rpc(address, timeout=0.8 * _ANSWER_SECONDS, connection_args=security) as scheduler:
            return str((await scheduler.identity())["type"])

    try:
        found = asyncio.run(asyncio.wait_for(kind(), _ANSWER_SECONDS))
    except Exception as error:  # a MemoryError, for one
        while error.__cause__ is not None:  # Dask's own says only how long it tried
            error = error.__cause__  # type: ignore[assignment]
        reason = str(error) or f"nothing was heard for {_ANSWER_SECONDS:.0f} s"
        raise _nobody(address, "it speaks another protocol" if isinstance(error, MemoryError) else reason) from None
    if found != "Scheduler":
        raise _nobody(address, f"it is the address of a {found}")


def _nobody(address: str, reason: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"no Dask scheduler answers at '{address}' ({reason.partition(chr(10))[0][:300]})",
        "Give its address as `dask scheduler` prints it: tcp://HOST:8786.",
    )


class Windows:
    """Runs a batch on a client's workers. One thread calls; nothing of it is shared."""

    def __init__(
        self,
        client: Client,
        request: Request,
        report: OnOutcome,
        *,
        stopped: Callable[[], bool],
        sent: Callable[[ImageRef], None],
    ) -> None:
        """Args:
        client: whose workers compute.
        request: what to do with each image; its settings count on top of each worker's own.
        report: called in the calling thread, as chunks end.
        stopped: asked at each turn and before each chunk, and may raise; once it says so, what is out is waited for and nothing more is sent.
        sent: told of each image before it is sent.
        """
        self._client = client
        self._request = request
        self._report = report
        self._stopped = stopped
        self._sent = sent
        self._out: dict[Future, _Chunk] = {}
        self._again: deque[_Chunk] = deque()
        self._drained = False
        self._pace = _Pace()
        self._ended = threading.Event()
        self._submitted = 0
        self._span = ""

    def run(self, refs: Iterable[tuple[ImageRef, float | None]]) -> None:
        """Do images; each comes with the time of an earlier attempt that ended without a word, or None.

        Raises:
            EngineUnavailable: there are no workers (any more).
        """
        from distributed import span

        source = iter(refs)
        try:
            with span("segduo") as self._span:
                while True:
                    stopped = self._stopped()
                    workers = self._workers()
                    self._bury(workers)
                    self._fill(workers, source)
                    if not self._out and (stopped or (self._drained and not self._again)):
                        return
                    self._ended.wait(_LOOK_SECONDS)
                    self._ended.clear()
                    self._collect()
        finally:
            # Whatever ended this early (Ctrl-C): nobody waits for what is out.
            for future in self._out:
                future.cancel()

    def _workers(self) -> dict[str, int]:
        """Threads by the addresses of the workers that live; waits for one when there is none."""
        deadline = time.monotonic() + _NOBODY_SECONDS
        while True:
            if self._client.status not in ("running", "connecting"):
                raise _gone()
            try:
                known = self._client.scheduler_info(n_workers=-1)["workers"]
            except OSError:  # Dask's CommClosedError is one
                raise _gone() from None
            found = {
                address: int(worker["nthreads"])
                for address, worker in known.items()
                if worker.get("status", "running") == "running"
            }
            if found:
                return found
            if time.monotonic() > deadline:
                raise EngineUnavailable(
                    f"the cluster has had no worker for {_NOBODY_SECONDS:.0f} s",
                    "Start some: dask worker ADDRESS; then the same command goes on with what is left.",
                )
            time.sleep(_LOOK_SECONDS)

    def _fill(self, workers: Mapping[str, int], source: Iterator[tuple[ImageRef, float | None]]) -> None:
        """Send chunks until every worker has its share."""
        held: dict[str, int] = dict.fromkeys(workers, 0)
        for chunk in self._out.values():
            if chunk.worker in held:
                held[chunk.worker] += workers[chunk.worker] * CHUNKS_A_THREAD if chunk.alone else 1
        # Images that are tried again wait for a worker that has nothing else; as many workers as there are such images get nothing new till then.
        emptiest = sorted(workers, key=lambda worker: held[worker])
        for worker in emptiest[: len(self._again)]:
            if held[worker] == 0 and not self._stopped():
                self._send(self._again.popleft(), worker)
        others = emptiest[len(self._again) :] if self._again else emptiest
        alone = {chunk.worker for chunk in self._out.values() if chunk.alone}
        for depth in range(CHUNKS_A_THREAD * max(workers.values())):
            for worker in others:
                if worker in alone or held[worker] > depth or depth >= CHUNKS_A_THREAD * workers[worker]:
                    continue
                new = None if self._stopped() else self._next(source)
                if new is None:
                    return
                self._send(new, worker)
                held[worker] += 1

    def _next(self, source: Iterator[tuple[ImageRef, float | None]]) -> _Chunk | None:
        """The next images that nobody has begun; those that an earlier task may have done go by themselves, with the look that this needs."""
        refs: list[ImageRef] = []
        for ref, since in source:
            if since is None:
                refs.append(ref)
            else:
                self._again.append(_Chunk((ref,), alone=True, since=since))
            if len(refs) >= self._pace.images or len(self._again) >= MOST_IN_CHUNK:
                break
        else:
            self._drained = True
        return _Chunk(tuple(refs)) if refs else None

    def _send(self, chunk: _Chunk, worker: str) -> None:
        for ref in chunk.refs:
            self._sent(ref)
        future = self._client.submit(
            work,
            chunk.refs,
            self._request,
            chunk.since,
            workers=[worker],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        chunk.worker = worker
        if chunk.since is None:
            chunk.since = time.time()
        self._out[future] = chunk
        future.add_done_callback(lambda _: self._ended.set())
        self._submitted += 1
        if self._submitted % TIDY_CHUNKS == 0:
            self._tidy()

    def _tidy(self) -> None:
        """Have the scheduler forget what it notes of every submission for as long as it lives: half a kilobyte each, 500 MB for a million."""
        mine = self._span

        def tidy(dask_scheduler: Any) -> None:  # in the scheduler, which may have no segduo: this goes there as it is
            extension = dask_scheduler.extensions.get("spans")
            span = extension.spans.get(mine) if extension is not None else None
            if span is not None and span._metadata is not None:
                span._metadata["collections"].clear()
                span.groups.intersection_update(dask_scheduler.task_groups.values())

        try:
            self._client.run_on_scheduler(tidy)
        except Exception as error:  # of another version of Dask, or forbidden there: memory is all that it costs
            log.info("the scheduler was not tidied: %s", error)

    def _collect(self) -> None:
        """Take the results that are there. A result lives in its worker until it is taken, and dies with it: then :meth:`_bury` has its chunk."""
        for future in [future for future in self._out if future.done()]:
            chunk = self._out[future]
            if future.status in (
                "cancelled",
                "lost",
            ):  # a worker's death leaves it pending, for it may run nowhere else
                raise _gone()
            if future.status != "finished":
                del self._out[future]
                self._retry(chunk, _reason(future))
                continue
            try:
                done: Done = future.result(timeout=_RESULT_SECONDS)
            except Exception as error:  # Dask's own, of many kinds
                log.info("no result from %s yet: %s", chunk.worker, error)
                continue
            del self._out[future]
            self._pace.learn(done.seconds, len(chunk.refs))
            for record, messages in done.records:
                self._report(record, messages)

    def _bury(self, workers: Mapping[str, int]) -> None:
        """Take back the chunks of workers that are gone."""
        for future in [future for future, chunk in self._out.items() if chunk.worker not in workers]:
            chunk = self._out.pop(future)
            future.cancel()
            self._retry(chunk, "")

    def _retry(self, chunk: _Chunk, reason: str) -> None:
        """Any of the images may have killed the worker, or none: each is tried once more, alone. One that was alone is given up.

        ``reason``: what the worker said, if it did not die.
        """
        if not chunk.alone:
            self._again.extend(_Chunk((ref,), alone=True, since=chunk.since) for ref in chunk.refs)
            return
        name = str(chunk.refs[0])
        error = (
            EngineFailed(f"{name}: the worker failed: {reason}", "Has it the same segduo?") if reason else died(name)
        )
        self._report(Record.failed(name, error), ())


def _gone() -> EngineUnavailable:
    return EngineUnavailable(
        "the cluster's scheduler has gone away", "Start it again; the same command goes on with what is left."
    )


def _reason(future: Future) -> str:
    """What made a future end without a result; empty when its worker died."""
    if future.status != "error":
        return ""
    try:
        error = future.exception(timeout=_RESULT_SECONDS)
    except Exception:  # gone with the worker
        return ""
    return "" if type(error).__name__ == "KilledWorker" else f"{type(error).__name__}: {error}"[:500]


# -- in the worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """What a chunk came to. Plain values; no masks, they are saved where they were made."""

    records: list[tuple[Record, tuple[str, ...]]] = field(default_factory=list)
    seconds: float = 0.0


def work(refs: tuple[ImageRef, ...], request: Request, since: float | None) -> Done:
    """Do a chunk of images, in a worker's process."""
    began = time.monotonic()
    records = []
    for ref in refs:
        outcome = segment_one(ref, request, session=_session(_key(request)), since=since)
        messages = outcome.messages + tuple(_drain())
        records.append((Record.of(outcome, automatic=request.parameters is not None), messages))
    return Done(records, time.monotonic() - began)


_messages = threading.local()


def _tell(message: str) -> None:
    _messages.__dict__.setdefault("lines", []).append(message)


def _drain() -> list[str]:
    lines: list[str] = _messages.__dict__.pop("lines", [])
    return lines


def _key(request: Request) -> tuple[tuple[tuple[str, Any], ...], str | None]:
    return tuple(sorted(request.settings.items())), request.out


@lru_cache(maxsize=2)
def _session(key: tuple[tuple[tuple[str, Any], ...], str | None]) -> Session:
    """One session a process: its threads share the connection to the node's engine, and the model when it computes here."""
    from segment_duo.config import load_config
    from segment_duo.session import Session

    settings, out = key
    return Session(load_config(dict(settings)), out=out, notify=_tell)
