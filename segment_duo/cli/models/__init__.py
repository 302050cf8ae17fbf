"""``segduo models``: which there are, adding one, getting and checking checkpoints."""

from __future__ import annotations

import typer

from segment_duo.cli.models import adding, checkpoints, listing

app = typer.Typer(help="Models: which there are, get them, check them.", no_args_is_help=True)
for part in (listing, adding, checkpoints):
    part.register(app)
