"""One thread that computes, in turn, with a bounded queue. It knows jobs, not what they compute (that is ``operations``).

    submit -> [queue, bounded, clients take turns] -> the worker thread -> job.future
                   cancel: a waiting job is skipped, a running one stops at its next check (between decoder batches)

Everything here answers at once while a job computes: the engine's status is read from the job's own fields.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from segment_duo.engine.protocol import A, ImageMissing, ImageState, ModelRequest, Operation, Q, StreamEvent
from segment_duo.engine.reports import ModelList, QueuedJob, ReleaseReport, RunningJob
from segment_duo.errors import Cancelled, EngineBusy, EngineFailed, SegduoError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Emit = Callable[[StreamEvent], None]
"""Takes an event of a stream."""
QUEUE_LIMIT = 64
IDLE_TRIM_SECONDS = 20.0
"""How long after the last job the allocator's freed memory goes back to the system."""

log = logging.getLogger("segduo.engine")


class Job:
    """One piece of work and how far it is. Its function gets the job itself and may report progress and must check for cancellation.

    ``upcoming()``: the jobs that wait, in turn.
    """

    def __init__(
        self, kind: str, image: str, model: str, work: Callable[[Job], Any], client: str = "", request: Any = None
    ) -> None:
        self.kind = kind
        self.image = image
        self.model = model
        self.client = client
        self.request = request
        self.upcoming: Callable[[], list[Job]] = list
        self.phase = "waiting"
        self.done = 0
        self.total = 0
        self.future: Future[Any] = Future()
        self.emit: Emit = _unheard
        self._work = work
        self._cancel = threading.Event()
        self._changed = time.monotonic()

    def progress(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Say how far the work is."""
        self.phase, self.done, self.total = phase, done, total

    def cancel(self) -> None:
        """Ask the work to stop; returns at once."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise Cancelled if nobody waits for this work any more."""
        if self.cancelled:
            raise Cancelled("the client went away or stopped the work")

    @property
    def seconds(self) -> float:
        """Since it was submitted, or since it began to run."""
        return time.monotonic() - self._changed

    def run(self) -> Callable[[], None]:
        """Do the work; returns the function that hands the outcome to who waits. Neither ever raises."""
        self._changed = time.monotonic()
        failure: BaseException
        try:
            self.check()
            self.progress("preparing")
            result = self._work(self)
        except (SegduoError, ImageMissing) as error:
            failure = error
        except MemoryError:
            failure = EngineFailed("the engine ran out of memory", "Use a smaller model, or --tile for a large image.")
        except Exception as error:
            log.exception("%s of %s failed", self.kind, self.image[:12])
            failure = EngineFailed(f"{type(error).__name__}: {error}", "`segduo engine logs` shows where it happened.")
        else:
            return lambda: self.future.set_result(result)
        return lambda: self.future.set_exception(failure)


def _unheard(_event: StreamEvent) -> None:
    """Nobody follows the stream."""


class Compute(Protocol):
    """What jobs compute with. Handlers run in the worker's thread, the rest anywhere and at once."""

    def prepare(self) -> None:
        """Load what takes long (torch), ahead of the first job."""

    def state(self, image_id: str, model: ModelRequest) -> ImageState: ...

    def put_pixels(self, image_id: str, pixels: npt.NDArray[np.uint8]) -> None: ...

    def handler(self, operation: Operation[Q, A]) -> Callable[[Job, str, Q], Any]:
        """What does an operation: called with the job, the image's id and the request.

        It returns the answer; where the operation streams, it calls ``job.emit`` with its events and returns the ``done`` event.
        """

    def release(self, image_id: str | None) -> ReleaseReport: ...

    def release_track(self, track: str) -> None: ...

    def models(self) -> ModelList: ...

    def status_fields(self) -> dict[str, Any]:
        """The fields of ``EngineStatus`` that concern device, models, images and caches."""

    def trim(self) -> None:
        """Give memory that is free back to the system."""


def job_for(
    compute: Compute, operation: Operation[Q, A], image: str, request: Q, emit: Emit | None = None
) -> Callable[[Job], Any]:
    """The work of a job: an operation's handler on an image. ``emit`` takes a stream's events."""
    handler = compute.handler(operation)

    def work(job: Job) -> Any:
        if emit is not None:
            job.emit = emit
        return handler(job, image, request)

    return work


class Worker:
    """Runs jobs one after the other in its own thread."""

    def __init__(self, *, limit: int = QUEUE_LIMIT, when_idle: Callable[[], None] | None = None) -> None:
        """``when_idle`` is called in the worker thread once no job has come for :data:`IDLE_TRIM_SECONDS`."""
        self.limit = limit
        self._when_idle = when_idle
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._served: dict[str, int] = {}
        self._turn = 0
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="engine-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(
        self, kind: str, image: str, model: str, work: Callable[[Job], Any], client: str = "", request: Any = None
    ) -> Job:
        """Queue a piece of work.

        Args:
            client: who asks; clients take turns, so that a batch with many jobs does not keep one click waiting.
            request: what is asked, for jobs before it that may do a part of it along with theirs (:attr:`Job.upcoming`).

        Raises:
            EngineBusy: the queue is full, or the engine is stopping.
        """
        job = Job(kind, image, model, work, client, request)
        job.upcoming = self._upcoming
        with self._wake:
            self._check_room()
            self._queue.append(job)
            self._wake.notify_all()
        return job

    def check_room(self) -> None:
        """Raise EngineBusy where ``submit`` would."""
        with self._wake:
            self._check_room()

    def _check_room(self) -> None:
        if self._closing:
            raise EngineBusy("the engine is stopping", "Try again in a moment.")
        if len(self._queue) >= self.limit:
            clients = len({job.client for job in self._queue})
            raise EngineBusy(
                f"{len(self._queue)} pieces of work of {clients} clients are waiting already",
                "Try again later, or with fewer at a time; `segduo engine status` shows who waits.",
            )

    def position(self, job: Job) -> int:
        """How many jobs come before this one (the running one included); 0 once it runs."""
        with self._wake:
            if job is self._running or job not in self._queue:
                return 0
            return self._in_turn().index(job) + (self._running is not None)

    @property
    def busy(self) -> bool:
        with self._wake:
            return self._running is not None or bool(self._queue)

    def running(self) -> RunningJob | None:
        job = self._running
        if job is None:
            return None
        return RunningJob(
            kind=job.kind, image=job.image, model=job.model, client=job.client, phase=job.phase, done=job.done, total=job.total, seconds=job.seconds
        )  # fmt: skip

    def waiting(self) -> list[QueuedJob]:
        with self._wake:
            return [
                QueuedJob(kind=job.kind, image=job.image, model=job.model, client=job.client, seconds=job.seconds)
                for job in self._in_turn()
            ]

    def _upcoming(self) -> list[Job]:
        with self._wake:
            return self._in_turn()

    def _in_turn(self) -> list[Job]:
        """The waiting jobs in the order in which they will run: next is the client whose last turn is longest ago, with its oldest job."""
        waiting: dict[str, deque[tuple[int, Job]]] = {}
        for number, job in enumerate(self._queue):
            waiting.setdefault(job.client, deque()).append((number, job))
        served, turn, order = dict(self._served), self._turn, []
        while waiting:
            client = min(waiting, key=lambda one: (served.get(one, -1), waiting[one][0][0]))
            order.append(waiting[client].popleft()[1])
            turn += 1
            served[client] = turn
            if not waiting[client]:
                del waiting[client]
        return order

    def _next(self) -> Job:
        """Take the job whose turn it is out of the queue."""
        job = self._in_turn()[0]
        self._queue.remove(job)
        self._turn += 1
        still = {other.client for other in self._queue}
        # Only clients that wait have to be remembered; one that comes anew has not had its turn for longest.
        self._served = {client: turn for client, turn in self._served.items() if client in still}
        self._served[job.client] = self._turn
        return job

    def close(self, *, seconds: float) -> bool:
        """Refuse new work, cancel the rest, and wait for the thread. False if it still computes after ``seconds``."""
        with self._wake:
            self._closing = True
            for job in self._queue:
                job.cancel()
            if self._running is not None:
                self._running.cancel()
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        trimmed = True
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    woken = self._wake.wait(None if trimmed else IDLE_TRIM_SECONDS)
                    if not woken and not self._queue:
                        break
                if self._closing and not self._queue:
                    return
                job = self._next() if self._queue else None
                self._running = job
            if job is None:
                trimmed = True
                if self._when_idle is not None:
                    self._when_idle()
                continue
            settle = job.run()
            trimmed = False
            with self._wake:
                self._running = None
            # Only now: who sees its answer and asks for the status must not find its own work still running.
            settle()
