"""``segduo embed``."""

from __future__ import annotations

import typer

from segment_duo.batch import Request, segment_one
from segment_duo.cli.bundles import bundled
from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    BannerOption,
    EngineOptions,
    FramesOption,
    FromFileOption,
    InputsArgument,
    JsonLinesOption,
    MaxPixelsOption,
    PageOption,
    check_frame,
    open_session,
)
from segment_duo.cli.output import emit_json, emit_row, image_record, progress
from segment_duo.segmenters.base import Capability
from segment_duo.types import ImageRef


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("embed", rich_help_panel=panel)(embed)


@bundled
def embed(
    engine: EngineOptions,
    images: InputsArgument = None,
    from_file: FromFileOption = None,
    as_json: JsonLinesOption = False,
    page: PageOption = 0,
    frame: FramesOption = None,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
) -> None:
    """Compute image embeddings ahead of time, so that later commands answer at once.

    They are kept in memory and on disk, and found by every command on the same pixels; `segduo engine release` frees them.

    [bold]Examples[/bold]

      segduo embed '/drops/labdaq/2026/*.tif'

      segduo embed images/ --model sam2.1-large

      segduo embed film.tif --frame all
    """
    check_frame(frame, page)
    request = Request(page=page, banner=banner)
    with (
        open_session(say_model=True, max_pixels=max_pixels, **engine.flags()) as session,
        progress("embedding") as report,
    ):
        session.model.require(Capability.POINTS)  # a method without prompts keeps nothing of an image
        inputs = expand_inputs(session, images, from_file, frame)
        done = 0

        def work(ref: ImageRef) -> None:
            nonlocal done
            report(done, len(inputs.refs), ref.name)
            outcome = segment_one(ref, request, session=session)
            if outcome.error is not None:
                raise outcome.error
            done += 1
            if as_json:
                emit_json(
                    {
                        **image_record(ref),
                        "id": outcome.image_id,
                        "computed": outcome.computed,
                        "seconds": outcome.seconds,
                    }
                )
            else:
                which = [ref] if ref.frame is None else [ref, f"frame {ref.frame}"]
                emit_row([*which, "computed" if outcome.computed else "cached", f"{outcome.seconds:.2f} s"])

        run_batch(inputs.refs, work, as_json=as_json, failures=inputs.failures)
