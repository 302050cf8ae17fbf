"""``segduo masks diff``: what changed between two sets."""

from __future__ import annotations

from typing import Annotated

import typer

from segment_duo.cli.chosen import load_pair
from segment_duo.cli.options import JsonOption, OutOption, SetArgument, open_session
from segment_duo.cli.output import emit, emit_json


def register(app: typer.Typer) -> None:
    app.command("diff")(diff)


def diff(
    first: SetArgument,
    second: Annotated[
        str,
        typer.Argument(metavar="IMAGE[@VERSION]|@VERSION", help="Another set; @VERSION alone means the same image."),
    ],
    iou: Annotated[float, typer.Option(min=0, max=1, help="Masks match from this IoU on.")] = 0.5,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Compare two sets: which masks match and how well, which are new, which are gone.

    [bold]Examples[/bold]

      segduo masks diff examples/particles.tif@0 @1

      segduo masks diff before.pkl after.pkl
    """
    from segment_duo.masks.compare import diff as compare

    with open_session(out=out) as session:
        one, other = load_pair(session, first, second)
    result = compare(one, other, iou=iou)
    if as_json:
        emit_json(
            {
                "matched": [
                    {"before": pair.before.id, "after": pair.after.id, "iou": pair.iou} for pair in result.matched
                ],
                "new": [mask.id for mask in result.new],
                "gone": [mask.id for mask in result.gone],
                "mean_iou": result.mean_iou,
                "identical": result.identical,
            }
        )
        return
    mean = "" if result.mean_iou is None else f", mean IoU {result.mean_iou:.3f}"
    emit(f"matched {len(result.matched)}, new {len(result.new)}, gone {len(result.gone)}{mean}")
    for pair in result.matched:
        if pair.iou < 1:
            emit(f"  {pair.before.id} = {pair.after.id}  IoU {pair.iou:.3f}")
    for mask in result.new:
        emit(f"  + {mask.id}  area {mask.area}")
    for mask in result.gone:
        emit(f"  - {mask.id}  area {mask.area}")
