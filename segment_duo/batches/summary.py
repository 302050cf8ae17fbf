"""What a batch has come to, from the manifests of all its tasks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segment_duo.batches.hashes import HashSet, path_hash
from segment_duo.batches.manifest import files, read
from segment_duo.errors import NotFound, UsageError

_BIN_SECONDS = 10
_WINDOW_SECONDS = 900
_SILENT_SECONDS = 600
"""A task without an end and without a line for so long counts as silent: it was killed, or has a very slow image in hand."""


@dataclass(slots=True)
class Task:
    """One file of the folder.

    Attributes:
        state: how it ended (``done``, ``stopped``, ``failed``), ``running``, or ``silent`` when it neither ended nor wrote for ten minutes.
        images: how many are its own, done ones included; None: not known.
        done, failed: lines it wrote.
        in_hand: the image it was working on, if it did not end; empty for a task that sends images to a cluster.
        job: Slurm's id of the task, ``12_3``, or empty.
    """

    file: str
    state: str = ""
    shard: str | None = None
    host: str = ""
    pid: int = 0
    job: str = ""
    images: int | None = None
    done: int = 0
    failed: int = 0
    in_hand: str = ""
    began: float = 0.0
    last: float = 0.0


@dataclass(slots=True)
class Failure:
    error: str
    message: str


@dataclass(slots=True)
class BatchSummary:
    """Counts are of images, each once.

    Attributes:
        given: how many the batch has; None while nobody knows.
        done: with a set, or an embedding; ``skipped``: had a set before.
        repeated: images that are done by more than one line.
        failures: of images that have not been done since, by path.
        rate: images a second over the last quarter of an hour in which any was finished; None before the first.
        seconds_left: None when the rate or the number of images is not known, or nobody works.
    """

    command: str = ""
    model: str = ""
    given: int | None = None
    done: int = 0
    skipped: int = 0
    masks: int = 0
    repeated: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    rate: float | None = None
    seconds_left: float | None = None

    @property
    def left(self) -> int | None:
        """Images without any outcome."""
        return None if self.given is None else max(0, self.given - self.done - self.skipped - len(self.failures))

    def by_error(self) -> dict[str, int]:
        """How many failed for which kind of reason, most frequent first."""
        return dict(Counter(failure.error for failure in self.failures.values()).most_common())


def summarize(folder: Path, *, now: float | None = None) -> BatchSummary:
    """Read all manifests of a folder.

    Args:
        now: seconds since the epoch.

    Raises:
        NotFound: there are none.
        UsageError: they are of several batches.
        StoreError, InputError: one cannot be read.
    """
    now = time.time() if now is None else now
    found = BatchSummary()
    counting = _Counting(found)
    batch = None
    for file in files(folder):
        lines = read(file)
        header = next(lines, None)
        if header is None:
            continue
        if batch not in (None, header.get("batch")):
            raise UsageError(f"'{folder}' holds manifests of several batches", "Give each batch a folder of its own.")
        batch = header.get("batch")
        found.command, found.model = header.get("command", ""), header.get("model", "")
        if header.get("given") is not None:
            found.given = max(found.given or 0, header["given"])
        found.tasks.append(counting.task(file, header, lines, now))
    if batch is None:
        raise _no_manifests(folder)
    found.rate = counting.rate()
    working = any(task.state == "running" for task in found.tasks)
    if found.rate and found.left is not None and (working or not found.left):
        found.seconds_left = found.left / found.rate
    return found


def command_of(folder: Path) -> str:
    """The command of a folder's batch. Raises as :func:`summarize`."""
    for file in files(folder):
        header = next(read(file), None)
        if header is not None:
            return str(header.get("command", ""))
    raise _no_manifests(folder)


def _no_manifests(folder: Path) -> NotFound:
    return NotFound(f"no manifests in '{folder}'", "Give the folder that --manifest named.")


def made(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Image, path of its set and version for every image that is done with a set, each once; the last line of an image counts.

    Keeps a number of 8 bytes an image in memory. Raises as :func:`summarize`.
    """
    seen = HashSet()
    there = files(folder)
    if not there:
        raise _no_manifests(folder)
    for file in reversed(there):
        for line in read(file):
            if line.get("outcome") == "done" and line.get("set") and seen.add(path_hash(line["image"])):
                yield line["image"], line["set"], line.get("version") or ""


class _Counting:
    """Goes through lines of manifests, earlier tasks first."""

    def __init__(self, found: BatchSummary) -> None:
        self._found = found
        self._settled = HashSet()
        self._bins: Counter[int] = Counter()

    def task(self, file: Path, header: dict[str, Any], lines: Iterator[dict[str, Any]], now: float) -> Task:
        began = float(header.get("time", 0.0))
        array, number = header.get("array", ""), header.get("task", "")
        job = f"{array}_{number}" if array else header.get("job", "")
        task = Task(
            file.name,
            shard=header.get("shard"),
            host=header.get("host", ""),
            pid=header.get("pid", 0),
            job=job,
            images=header.get("images"),
            began=began,
            last=began,
        )
        for line in lines:
            task.last = max(task.last, float(line.get("time", 0.0)))
            if "image" in line:
                self._image(line, task)
            elif "begun" in line:
                task.in_hand = line["begun"]
            elif "ended" in line:
                task.state = line["ended"]
        if task.state:
            task.in_hand = ""
        else:
            task.state = "running" if now - task.last < _SILENT_SECONDS else "silent"
        return task

    def _image(self, line: dict[str, Any], task: Task) -> None:
        image, outcome = line["image"], line.get("outcome")
        if image == task.in_hand:
            task.in_hand = ""
        if outcome == "failed":
            task.failed += 1
            self._found.failures[image] = Failure(line.get("error", ""), line.get("message", ""))
            return
        self._found.failures.pop(image, None)
        task.done += 1
        self._bins[int(task.last) // _BIN_SECONDS] += 1
        if not self._settled.add(path_hash(image)):
            self._found.repeated += 1
        elif outcome == "skipped":
            self._found.skipped += 1
        else:
            self._found.done += 1
            self._found.masks += line.get("masks") or 0

    def rate(self) -> float | None:
        if not self._bins:
            return None
        newest = max(self._bins)
        first = max(min(self._bins), newest - _WINDOW_SECONDS // _BIN_SECONDS + 1)
        return sum(count for at, count in self._bins.items() if at >= first) / ((newest - first + 1) * _BIN_SECONDS)


def tasks_by_state(tasks: Sequence[Task]) -> dict[str, int]:
    return dict(Counter(task.state for task in tasks))
