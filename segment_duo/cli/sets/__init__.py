"""``segduo masks``: look at saved sets, edit them into new versions, exchange them with other programs."""

from __future__ import annotations

import typer

from segment_duo.cli.sets import diff, edit, exchange, label, listing, push

app = typer.Typer(
    help="Saved mask sets: list, show, edit into new versions, compare, export and import.", no_args_is_help=True
)
for part in (listing, edit, label, diff, exchange, push):
    part.register(app)
