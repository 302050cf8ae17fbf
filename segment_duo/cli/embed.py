"""``segduo embed``."""

from __future__ import annotations

from typing import Any

import typer

from segment_duo.cli.batch import run_batch
from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    BannerOption,
    DeviceOption,
    FromFileOption,
    InProcessOption,
    InputsArgument,
    JsonOption,
    MaxPixelsOption,
    ModelOption,
    PageOption,
    SocketOption,
    open_session,
)
from segment_duo.cli.output import emit_json, emit_row, progress
from segment_duo.segmenters.base import Capability
from segment_duo.types import ImageRef


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("embed", rich_help_panel=panel)(embed)


def embed(
    images: InputsArgument = None,
    from_file: FromFileOption = None,
    as_json: JsonOption = False,
    page: PageOption = 0,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    socket: SocketOption = None,
    in_process: InProcessOption = None,
) -> None:
    """Compute image embeddings ahead of time, so that later commands answer at once.

    They are kept in memory and on disk, and found by every command on the same pixels; `segduo engine release` frees them.

    [bold]Examples[/bold]

      segduo embed '/drops/labdaq/2026/*.tif'

      segduo embed images/ --model sam2.1-large
    """
    flags: dict[str, Any] = {
        "model": model,
        "device": device,
        "socket": socket,
        "in_process": in_process,
        "max_pixels": max_pixels,
    }
    with open_session(say_model=True, **flags) as session, progress("embedding") as report:
        session.model.require(Capability.POINTS)  # a method without prompts keeps nothing of an image
        inputs = expand_inputs(session, images, from_file)
        done = 0

        def work(ref: ImageRef) -> None:
            nonlocal done
            report(done, len(inputs.refs), ref.name)
            state = session.embed(session.open_image(ref, page=page, banner=banner))
            done += 1
            if as_json:
                emit_json({"image": str(ref), "id": state.id, "computed": state.computed, "seconds": state.seconds})
            else:
                emit_row([ref, "computed" if state.computed else "cached", f"{state.seconds:.2f} s"])

        run_batch(inputs.refs, work, as_json=as_json, failures=inputs.failures)
