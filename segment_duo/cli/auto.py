"""``segduo auto``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli import completion
from segment_duo.cli.auto_options import AutoOptions
from segment_duo.cli.batch_options import BatchOptions
from segment_duo.cli.bundles import bundled
from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import Listings, expand_inputs
from segment_duo.cli.on_cluster import run_on_cluster
from segment_duo.cli.options import (
    EngineOptions,
    FramesOption,
    FromFileOption,
    InputsArgument,
    JsonLinesOption,
    OutOption,
    ReadingOptions,
    SaveOption,
    SuffixOption,
    check_frame,
    check_save,
    open_session,
)
from segment_duo.cli.output import ProgressReporter, emit_json, emit_path, emit_row, image_record, note, progress
from segment_duo.cli.saving import NEXT_DELIVERY, deliver_waiting, report_saved
from segment_duo.errors import NotFound, SavedToSpoolOnly, UsageError
from segment_duo.results import ROUTINE_NOTE
from segment_duo.types import ImageRef

if TYPE_CHECKING:
    from segment_duo.batch import Outcome, Request
    from segment_duo.batches.ledger import Ledger
    from segment_duo.batches.manifest import Record
    from segment_duo.engine.protocol import AutoEvent
    from segment_duo.session import OpenImage, Session

THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh", "min_mask_region_area")
"""What can drop every mask; of overlapping ones the best stays."""


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("auto", rich_help_panel=panel)(auto)


@bundled
def auto(
    parameters: AutoOptions,
    reading: ReadingOptions,
    engine: EngineOptions,
    many: BatchOptions,
    images: InputsArgument = None,
    from_file: FromFileOption = None,
    frame: FramesOption = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="default, web (as the former web page), fine or coarse.",
            autocompletion=completion.presets,
        ),
    ] = "default",
    suffix: SuffixOption = "",
    out: OutOption = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out images that have a set with this suffix already.")
    ] = False,
    save: SaveOption = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell which images would be done.")] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Make all masks of images and save each set as a new version.

    Prints the path of each saved set. Changed thresholds on the same image are answered without running the model again.

    With --frame each frame of a stack or film gets a set of its own, named after it (stack_frame3.pkl, @frame3).

    Parameters have the names and defaults of SAM 2's mask generator. Defaults of the model itself come before those shown here, a preset before both.

    Nano and trained models have defaults of their own; `segduo models ls --json` shows them as auto_defaults.

    In --json, seconds is the engine's work on the image, loading the model included; waiting for other jobs is not.

    [bold]Examples[/bold]

      segduo auto /drops/labdaq/img.tif

      segduo auto 'images/*.tif' --skip-existing --suffix fine --preset fine

      segduo auto film.tif --frame 0:90:10

      segduo ls -1 images | segduo auto - --json | jq .masks

      segduo auto --from-file list.txt --shard auto --manifest run1
    """
    from segment_duo.batch import Request
    from segment_duo.models.choice import automatic_needs

    check_save(save, as_json)
    check_frame(frame, reading.page)
    many.check(frame)
    with open_session(out=out, say_model=not dry_run, max_pixels=reading.max_pixels, **engine.flags()) as session:
        chosen = parameters.onto(session.auto_defaults(preset))
        session.model.require(*automatic_needs(chosen))
        request = Request(
            parameters=chosen,
            preset=preset,
            suffix=suffix,
            skip_existing=skip_existing,
            save=save,
            **reading.arguments(),
        )
        with many.ledger("auto", session, request.record(), out, looks_only=dry_run) as ledger:
            run = _AutoCommand(session, request, as_json, Listings(session), ledger)
            if many.cluster is not None and not dry_run:
                if not save:
                    raise UsageError(
                        "--no-save on a cluster would throw the masks away", "Workers save what they make."
                    )
                flags = {**engine.flags(), "max_pixels": reading.max_pixels}
                run_on_cluster(
                    many.cluster, session, request, ledger, run.told,
                    images=images, from_file=from_file, flags=flags, out=out, as_json=as_json,
                )  # fmt: skip
                run.end()
                return
            inputs = expand_inputs(session, images, from_file, frame, ledger.ours)
            if dry_run:
                run_batch(inputs.refs, run.tell, as_json=as_json, failures=inputs.failures)
                return
            if save:
                session.sets.check_destination(inputs.refs)
                deliver_waiting(session, inputs.refs)
            ledger.open(images=len(inputs.refs), given=inputs.given)
            try:
                run_batch(inputs.refs, run.one, as_json=as_json, failures=inputs.failures)
            finally:
                run.tell_skipped()
            run.end()


@dataclasses.dataclass
class _AutoCommand:
    """One ``segduo auto`` over its images: what it tells of each."""

    session: Session
    request: Request
    as_json: bool
    listings: Listings
    ledger: Ledger
    spooled: int = 0
    skipped: int = 0

    def tell(self, ref: ImageRef) -> None:
        """Say that this image would be done (``--dry-run``)."""
        from segment_duo.batch import is_done

        if self.ledger.settled(ref) or is_done(self.session, ref, self.request):
            return
        if self.listings.entry(ref) is None:
            raise NotFound(f"no such file: '{ref}'")
        if self.as_json:
            emit_json(image_record(ref))
        elif ref.frame is None:
            emit_path(ref)
        else:
            emit_row([ref, f"frame {ref.frame}"])

    def one(self, ref: ImageRef) -> None:
        """Make and save all masks of one image."""
        from segment_duo.batches.manifest import Record

        self.ledger.stopping.check()
        if self.ledger.settled(ref):
            return
        outcome = self.ledger.one(ref, self.request, session=self.session, watch=self._watch)
        if outcome.state == "skipped":
            self.skipped += 1
            if sys.stderr.isatty():
                note(f"{ref.label}: has a set already, skipped")
            return
        if outcome.image_id:
            self._tell_masks(outcome)
        if outcome.error is not None:
            raise outcome.error
        record = {**image_record(ref), **_record(Record.of(outcome, automatic=True))}
        if outcome.saved is not None:
            self.spooled += report_saved(outcome.saved, record, as_json=self.as_json)
            return
        from segment_duo.masks.formats.native import to_record

        emit_json(record | {"records": [to_record(mask) for mask in outcome.masks]})

    def told(self, record: Record) -> None:
        """Say what became of an image elsewhere."""
        if record.outcome == "skipped":
            self.skipped += 1
            return
        for line in record.notes:
            note(f"{record.image}: {line}")
        if not record.masks:
            note(f"{record.image}: no masks were left; {self._thresholds()}")
        if record.spooled:
            self.spooled += 1
            note(f"kept in the spool of a worker: {record.set} ({record.reason})")
        if self.as_json:
            saved = {"saved": record.set, "version": record.version, "spooled": record.spooled}
            emit_json(_record(record) | saved)
        else:
            emit_path(record.set)

    def end(self) -> None:
        """Raise SavedToSpoolOnly if some sets did not come to Drops."""
        if self.spooled:
            raise SavedToSpoolOnly(
                f"the server did not take {self.spooled} sets; they are kept in {self.session.paths.spool_dir}",
                f"{NEXT_DELIVERY}: segduo masks push",
            )

    @contextmanager
    def _watch(self, image: OpenImage) -> Iterator[Callable[[AutoEvent], None]]:
        self._advise(image)
        with progress(image.ref.name) as report:
            yield lambda event: _show(event, report)

    def _tell_masks(self, outcome: Outcome) -> None:
        for line in outcome.notes:
            if not line.startswith(ROUTINE_NOTE):
                note(f"{outcome.ref.label}: {line}")
        if not outcome.masks:
            note(f"{outcome.ref.label}: no masks were left; {self._thresholds()}")

    def tell_skipped(self) -> None:
        """How many images were skipped; in a log or cron's mail a line for each would bury the rest, on a terminal each was told."""
        if self.skipped and not sys.stderr.isatty():
            which = "image has a set already" if self.skipped == 1 else "images have sets already"
            note(f"{self.skipped} {which}, skipped")

    def _thresholds(self) -> str:
        """What may have dropped every mask, and what would be in force without any option."""
        used, usual = self.request.parameters, self.session.auto_defaults()
        names = [name for name in THRESHOLDS if getattr(used, name) > 0]
        options = ", ".join(f"--{name.replace('_', '-')} {getattr(used, name):g}" for name in names)
        model = self.session.model
        whose = f"{model.id}'s own" if any(name in model.auto_defaults for name in names) else "SAM 2's defaults"
        if any(getattr(used, name) != getattr(usual, name) for name in names):
            whose += ": " + ", ".join(f"{getattr(usual, name):g}" for name in names)
        return f"in force are {options or 'no thresholds'}" + (f" ({whose})" if names else "")

    def _advise(self, image: OpenImage) -> None:
        from segment_duo.segmenters.advice import scale_advice, tile_advice

        facts, used = image.data.facts, self.request.parameters
        shrinks = self.session.model.input_size
        if not shrinks or used is None or used.tile or used.crop_n_layers:
            return
        size = f"{facts.width} x {facts.height} pixels"
        if advised := tile_advice(facts.width, facts.height):
            note(f"{image.ref}: {size}; objects may be too small for one pass: try --tile {advised}")
        elif used.scale == "whole" and scale_advice(facts.width, facts.height, shrinks):
            model = self.session.model.id
            note(f"{image.ref}: {size}, which {model} shrinks to {shrinks}; if small objects are missed: --scale both")


def _record(record: Record) -> dict[str, Any]:
    return {
        "image": record.image,
        "masks": record.masks or 0,
        "seconds": record.seconds,
        "candidates_reused": not record.computed,
        "model": record.model,
        "notes": list(record.notes),
    }


def _show(event: AutoEvent, report: ProgressReporter) -> None:
    if event.event == "queued":
        report(0, None, f"waiting, {event.position} before this one")
    elif event.event == "progress":
        report(event.done, event.total or None, event.phase)
