"""``segduo demo`` and the greeting of ``segduo`` alone: what a newcomer sees first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli.bundles import bundled
from segment_duo.cli.chosen import masks
from segment_duo.cli.options import EngineOptions, open_session
from segment_duo.cli.output import emit, emit_raw, note, progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SEED = 19
SIZE = (400, 560)
"""Height and width in pixels of the picture: one pass of the smallest model sees its particles well."""
PIXEL_NM = 5.0
GRID = 16
"""Points a side: none of the picture's particles is smaller than their distance, and a first look should not take long."""


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("demo", rich_help_panel=panel)(demo)


@bundled
def demo(
    engine: EngineOptions,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FILE.tif", help="Also write the picture, to try commands on it.")
    ] = None,
) -> None:
    """Draw a picture of particles, make all its masks, and show both in the terminal. Needs no file and no network.

    [bold]Examples[/bold]

      segduo demo

      segduo demo --keep particles.tif && segduo tui particles.tif
    """
    from segment_duo.terminal.still import render_still
    from segment_duo.types import PixelSize

    samples = _picture()
    if keep is not None:
        _write(keep, samples)
    with open_session(say_model=True, **engine.flags()) as session, progress("demo") as report:
        image = session.open_array(samples, name="demo", pixel_size=PixelSize(PIXEL_NM, PIXEL_NM, "demo"))
        parameters = dataclasses.replace(session.auto_defaults(), points_per_side=GRID)
        result = session.auto(
            image, parameters, on_event=lambda event: report(event.done, event.total or None, event.phase)
        )
    emit_raw(render_still(image.data.pixels, result.masks, method=session.config.graphics))
    note(f"{masks(len(result.masks))} by {session.model.id} in {result.seconds:.1f} s, drawn over the picture")
    note("Your own image: segduo auto IMAGE, then segduo show IMAGE --masks, or segduo tui IMAGE for all of it.")


def _picture() -> npt.NDArray[np.uint16]:
    """Particles of the synthetic scenes that nano was trained on; the same ones each time."""
    import numpy as np

    from segment_duo.training.nano.examples import CLEAR
    from segment_duo.training.nano.scenes import generate

    return np.asarray(generate(SEED, SIZE, "ellipses", depth=16, look=CLEAR).image, dtype=np.uint16)


def _write(file: Path, samples: npt.NDArray[np.uint16]) -> None:
    import io

    import tifffile

    from segment_duo.masks.formats.export import write_new

    out = io.BytesIO()
    resolution = (1000.0 / PIXEL_NM, 1000.0 / PIXEL_NM)
    tifffile.imwrite(out, samples, imagej=True, resolution=resolution, metadata={"unit": "um", "axes": "YX"})
    write_new(file, out.getvalue())
    note(f"picture: {file}")


def greet() -> None:
    """What ``segduo`` alone says: where to begin, and what the model that would run is good for."""
    emit("Segment micrographs with SAM 2.1: everything at once, by points, or by hand.")
    emit("")
    emit("  segduo demo         see it work on a drawn picture")
    emit("  segduo auto IMAGE   make all masks of an image and save them beside it")
    emit("  segduo tui IMAGE    points, boxes and edits by keyboard or mouse, in this terminal")
    emit("")
    for line in _about_the_model():
        emit(line)
    emit("segduo --help lists every command, segduo COMMAND --help its options.")


def _about_the_model() -> list[str]:
    from segment_duo.models.known import known_models
    from segment_duo.paths import Paths

    if any(model.state == "pulled" for model in known_models(Paths.default())):
        return []
    return [
        "No official model is here yet, so nano runs: small, bundled, and good at clicks on compact objects with visible",
        "borders. It is weak on crowded, low-contrast or noisy images: look before you measure. For masks that matter:",
        "  segduo models pull sam2.1-large",
        "",
    ]
