"""``segduo batch``: what became of the images of a batch, and batches on a cluster."""

from __future__ import annotations

import typer

from segment_duo.cli.batch import merge, status, submit

app = typer.Typer(
    help="Batches of many images: how far they are, one table of them all, and jobs for Slurm.", no_args_is_help=True
)
for part in (submit, status, merge):
    part.register(app)
