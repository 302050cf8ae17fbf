"""``segduo batch submit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segment_duo.cli.output import emit, emit_raw, note
from segment_duo.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command("submit", context_settings={"allow_interspersed_args": False})(submit)


def submit(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- auto|embed|track ...", help="What each task does with its shard.", show_default=False
        ),
    ],
    manifest: Annotated[
        Path,
        typer.Option(
            "--manifest", metavar="FOLDER", help="Folder on a disk that all nodes share; logs and script go there too."
        ),
    ],
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit an array to Slurm.")] = False,
    array: Annotated[int, typer.Option("--array", min=1, max=100_000, help="Number of tasks.")] = 8,
    at_once: Annotated[int | None, typer.Option("--at-once", min=1, help="At most so many tasks at a time.")] = None,
    partition: Annotated[str | None, typer.Option("--partition", "-p", help="As sbatch takes it.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            "-t",
            help="Time limit of a task, as sbatch takes it; one that reaches it goes on anew.",
        ),
    ] = None,
    gres: Annotated[str | None, typer.Option("--gres", help="As sbatch takes it: gpu:1.")] = None,
    cpus: Annotated[int | None, typer.Option("--cpus-per-task", min=1, help="As sbatch takes it.")] = None,
    mem: Annotated[str | None, typer.Option("--mem", help="As sbatch takes it: 16G.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="As sbatch takes it.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", metavar="OPTION", help="Any other option of sbatch, as in --sbatch=--qos=long."),
    ] = None,
    warning: Annotated[
        int,
        typer.Option(
            "--warning", min=1, help="Seconds before the time limit at which a task begins no new image or frame."
        ),
    ] = 120,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the script.")] = False,
) -> None:
    """Run `auto`, `embed` or `track` as an array of Slurm jobs. Prints the array's id.

    The job script is plain bash; --dry-run prints it. Paths behind -- count from the current folder. Submitting again goes on with what is left.

    [bold]Examples[/bold]

      segduo batch submit --slurm --manifest run1 --array 32 --partition gpu --gres gpu:1 --time 4:00:00 -- auto --from-file list.txt

      segduo batch submit --slurm --manifest run1 --array 8 --dry-run -- auto 'images/*.tif' --suffix fine

      segduo batch submit --slurm --manifest run2 --array 4 -- track --from-file films.txt --link
    """
    from segment_duo.batches.slurm import Array

    if not slurm:
        raise UsageError(
            "say where to: --slurm", "For Dask, give the command --cluster ADDRESS instead; docs/scale.md shows both."
        )
    options = {"partition": partition, "time": time, "gres": gres, "mem": mem, "account": account}
    if cpus is not None:
        options["cpus-per-task"] = str(cpus)
    job = Array(
        array,
        command,
        manifest.expanduser().absolute(),
        Path.cwd(),
        at_once=at_once,
        warning=warning,
        options={name: value for name, value in options.items() if value is not None},
        more=sbatch or (),
    )
    if dry_run:
        emit_raw(job.script())
        return
    number, script = job.submit()
    emit(number)
    note(f"script: {script}")
    note(f"logs: {job.logs}/{number}_*.log")
    note(f"how far it is: segduo batch status {manifest}")
