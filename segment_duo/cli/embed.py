"""``segduo embed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from segment_duo.cli.batch_options import BatchOptions
from segment_duo.cli.bundles import bundled
from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.on_cluster import run_on_cluster
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
from segment_duo.cli.output import emit_json, emit_row, progress
from segment_duo.types import ImageRef

if TYPE_CHECKING:
    from segment_duo.batches.manifest import Record


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("embed", rich_help_panel=panel)(embed)


@bundled
def embed(
    engine: EngineOptions,
    many: BatchOptions,
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
    from segment_duo.batch import Request
    from segment_duo.batches.manifest import Record
    from segment_duo.segmenters.base import Capability

    check_frame(frame, page)
    many.check(frame)
    request = Request(page=page, banner=banner)
    with (
        open_session(say_model=True, max_pixels=max_pixels, **engine.flags()) as session,
        progress("embedding") as report,
        many.ledger("embed", session, request.record(), None) as ledger,
    ):
        session.model.require(Capability.POINTS)  # a method without prompts keeps nothing of an image
        if many.cluster is not None:
            flags = {**engine.flags(), "max_pixels": max_pixels}
            run_on_cluster(
                many.cluster, session, request, ledger, lambda record: _tell(record, None, as_json),
                images=images, from_file=from_file, flags=flags, as_json=as_json,
            )  # fmt: skip
            return
        inputs = expand_inputs(session, images, from_file, frame, ledger.ours)
        ledger.open(images=len(inputs.refs), given=inputs.given)
        done = 0

        def work(ref: ImageRef) -> None:
            nonlocal done
            ledger.stopping.check()
            if ledger.settled(ref):
                return
            report(done, len(inputs.refs), ref.name)
            outcome = ledger.one(ref, request, session=session)
            if outcome.error is not None:
                raise outcome.error
            done += 1
            _tell(Record.of(outcome, automatic=False), ref.frame, as_json)

        run_batch(inputs.refs, work, as_json=as_json, failures=inputs.failures)


def _tell(record: Record, frame: int | None, as_json: bool) -> None:
    if as_json:
        which = {"image": record.image} | ({} if frame is None else {"frame": frame})
        emit_json({**which, "id": record.id, "computed": record.computed, "seconds": record.seconds})
    else:
        named = [record.image] if frame is None else [record.image, f"frame {frame}"]
        emit_row([*named, "computed" if record.computed else "cached", f"{record.seconds:.2f} s"])
