"""``segduo batch status``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.options import JsonOption
from segment_duo.cli.output import emit_json, emit_path, emit_table
from segment_duo.errors import UsageError
from segment_duo.text import duration

if TYPE_CHECKING:
    from segment_duo.batches.summary import BatchSummary, Task

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder that --manifest named.", show_default=False)
]
_MOST_TASKS = 40


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    folder: FolderArgument,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only the paths of images that failed, one a line, to try again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a batch is: images by outcome, rate, time left, failures by kind, and its tasks. Reads the manifests, nothing else.

    [bold]Examples[/bold]

      segduo batch status run1

      segduo batch status run1 --failed | segduo auto - --manifest run1
    """
    from segment_duo.batches.slurm import queued
    from segment_duo.batches.summary import summarize

    if failed and as_json:
        raise UsageError("--failed prints paths; --json has them under failures")
    found = summarize(folder)
    if failed:
        for path in found.failures:
            emit_path(path)
    elif as_json:
        emit_json(_record(found) | {"slurm": queued(folder)}, indent=1)
    else:
        rows = _rows(found)
        jobs = queued(folder)
        if jobs:
            rows += [("slurm", ", ".join(f"{count} {state}" for state, count in jobs.items()))]
        emit_table(("field", "value"), rows, whole=("value",))


def _record(found: BatchSummary) -> dict[str, Any]:
    from segment_duo.batches.summary import tasks_by_state

    return {
        "command": found.command,
        "model": found.model,
        "given": found.given,
        "done": found.done,
        "skipped": found.skipped,
        "failed": len(found.failures),
        "left": found.left,
        "masks": found.masks,
        "repeated": found.repeated,
        "rate": found.rate,
        "seconds_left": found.seconds_left,
        "errors": found.by_error(),
        "failures": [{"image": path, **asdict(failure)} for path, failure in found.failures.items()],
        "states": tasks_by_state(found.tasks),
        "tasks": [asdict(task) for task in found.tasks],
    }


def _rows(found: BatchSummary) -> list[tuple[str, str]]:
    from segment_duo.batches.summary import tasks_by_state

    done = found.done + found.skipped
    of = f" of {found.given}" if found.given is not None else ""
    things, masks = ("sequences", "objects") if found.command == "track" else ("images", "masks")
    rows = [("batch", f"{found.command}, {found.model}"), ("done", f"{done}{of}, {found.masks} {masks}")]
    if found.skipped:
        rows += [("skipped", f"{found.skipped} of them had a set before")]
    if found.repeated:
        rows += [("repeated", f"{found.repeated} {things} were done more than once")]
    rows += [("failed", str(len(found.failures)))]
    rows += [("failed", f"{count} {slug}") for slug, count in found.by_error().items()]
    if found.left is not None:
        rows += [("left", str(found.left))]
    if found.rate is not None:
        rows += [("rate", f"{found.rate:.3g} {things}/s")]
    if found.left and found.seconds_left is not None:
        rows += [("time left", duration(found.seconds_left))]
    rows += [("tasks", ", ".join(f"{count} {state}" for state, count in tasks_by_state(found.tasks).items()))]
    open_ones = [task for task in found.tasks if task.state in ("running", "silent")]
    rows += [("task", _task(task)) for task in open_ones[:_MOST_TASKS]]
    if len(open_ones) > _MOST_TASKS:
        rows += [("task", f"and {len(open_ones) - _MOST_TASKS} more; --json has them all")]
    return rows


def _task(task: Task) -> str:
    name = f"shard {task.shard}" if task.shard else "all"
    of = f" of {task.images}" if task.images is not None else ""
    job = f", job {task.job}" if task.job else ""
    hand = f", in hand {task.in_hand}" if task.in_hand else ""
    return f"{name} on {task.host}{job}: {task.state}, {task.done}{of} done{hand}"
