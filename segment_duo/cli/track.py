"""``segduo track``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli import completion
from segment_duo.cli.auto_options import AutoOptions
from segment_duo.cli.batch_options import TaskOptions
from segment_duo.cli.bundles import bundled
from segment_duo.cli.each import run_batch
from segment_duo.cli.filter_options import FilterOptions
from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    EngineOptions,
    FromFileOption,
    JsonLinesOption,
    OutOption,
    SuffixOption,
    open_session,
)
from segment_duo.cli.output import note
from segment_duo.cli.sequence_options import PromptOptions, SequenceOptions
from segment_duo.cli.track_run import TrackRun
from segment_duo.errors import UsageError

if TYPE_CHECKING:
    from segment_duo.sequence_tracking import TrackRequest
    from segment_duo.session import Session
    from segment_duo.types import ImageRef

LINK_PANEL = "Linking"

LOOK_EVERY = 10
"""Frames between two looks for new objects, where nobody says."""


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("track", rich_help_panel=panel)(track)


@bundled
def track(
    reading: SequenceOptions,
    parameters: AutoOptions,
    choice: FilterOptions,
    engine: EngineOptions,
    prompts: PromptOptions,
    many: TaskOptions,
    sequences: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SEQUENCE...",
            help="TIFF stacks, folders of images, quoted patterns ('scan_*.tif') or films, local or on Drops; - reads a list from stdin.",
            show_default=False,
        ),
    ] = None,
    from_file: FromFileOption = None,
    auto: Annotated[
        bool,
        typer.Option("--auto", help="Follow everything that automatic masks find on the first frame, and new objects."),
    ] = False,
    look_every: Annotated[
        int | None,
        typer.Option(
            "--look-every",
            min=0,
            metavar="N",
            help="With --auto: follow by memory, and look for new objects every so many frames (10), going forward; 0 for never.",
        ),
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Automatic masks of each frame, linked: for many objects, without the model's memory."
        ),
    ] = False,
    max_gap: Annotated[
        int, typer.Option(min=0, max=50, help="Frames in which an object may be unseen.", rich_help_panel=LINK_PANEL)
    ] = 2,
    max_distance: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            metavar="PIXELS",
            help=r"How far an object may be from where it should be [dim]\[default: its diameter, at least 8][/dim]",
            rich_help_panel=LINK_PANEL,
        ),
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift/--no-drift", help="The whole picture may shift.", rich_help_panel=LINK_PANEL)
    ] = True,
    keep_overlaps: Annotated[
        bool,
        typer.Option("--keep-overlaps", help="Keep masks inside others, and the ground.", rich_help_panel=LINK_PANEL),
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            "--preset", help="default, web, fine or coarse, for the masks.", autocompletion=completion.presets
        ),
    ] = "default",
    suffix: SuffixOption = "",
    out: OutOption = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Only go on with a run that was broken off (the same command does so anyway)."),
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what a run that was broken off has done.")] = False,
    tables: Annotated[
        bool,
        typer.Option("--tables/--no-tables", help="Write a label stack and the table of tracks beside the set."),
    ] = True,
    as_json: JsonLinesOption = False,
) -> None:
    """Follow objects through the frames of a stack or film, and save them as a sequence set.

    Prints the paths of the set, of a label stack (OME-TIFF) and of a table (CSV), one a line. An object keeps its id through all frames.

    Each frame is on the disk before the next begins: after Ctrl-C, a crash or a power loss the same command goes on where it was.

    --auto follows what automatic masks find on the first frame; every tenth frame (--look-every) objects that are not followed yet come in.
    With small models (nano) it links instead, unless --look-every is given: they take what appears beside an object for a part of it.

    --fast also follows approximately: what is remembered of frames is pooled. The set says so.

    --link makes automatic masks of each frame and links them by overlap and motion; gaps are closed, splits and merges told. --auto with a model
    that cannot follow objects does the same, and says so. Points, boxes and masks of a saved set need a model that can.

    Several sequences (--from-file, --shard, --manifest) are followed one after the other, by --auto or --link. A task that is told to stop by SIGTERM
    or SIGUSR1 keeps the frames that are done.

    A file for --points is CSV with a heading: frame,object,x,y,label or frame,object,x0,y0,x1,y1.

    [bold]Examples[/bold]

      segduo track examples/growth.tif --auto

      segduo track cell.tif --link --frames 10:200:2 --frame-time 0.2s --min-diameter 20nm

      segduo track 'slices/*.tif' --link --model watershed --json

      segduo track film.mp4 -m sam2.1-tiny -p 120,88 -p 300,210,1,2@30 --direction both

      segduo track film.mp4 -m sam2.1-tiny --onto 0 -p 130,92,0,1@45

      segduo track --from-file films.txt --link --shard auto --manifest run1
    """
    from segment_duo.segmenters.base import Capability
    from segment_duo.sequence_tracking import FAST_NOTICE, AutomaticObjects
    from segment_duo.sequences import LinkRequest
    from segment_duo.tracking.link import LinkParameters

    conditions = choice.wanted()
    if resume and restart:
        raise UsageError("--resume and --restart contradict each other")
    if link and prompts.any:
        raise UsageError("--link follows what automatic masks find, not prompts", "Leave out --link, or the prompts.")
    if not (auto or link or prompts.any):
        raise UsageError(
            "nothing says what to follow",
            "Add --auto for everything, --link for many objects, or -p x,y for one; -p x,y,label,object@frame for more.",
        )
    if look_every is not None and (link or not auto):
        raise UsageError("--look-every is for --auto by memory", "Leave it out, or give --auto without --link.")
    if auto and prompts.onto is not None:
        raise UsageError("--auto and --onto contradict each other", "Corrections are -p, --box or --points.")
    several = many.any or from_file is not None or sequences is None or len(sequences) > 1 or sequences == ["-"]
    if several and (prompts.any or prompts.onto is not None or resume or restart):
        raise UsageError(
            "points, boxes, --points, --from-set, --onto, --resume and --restart are for one sequence",
            "Name one, without --from-file, --shard and --manifest; --auto and --link are for many, and what was broken off goes on by itself.",
        )
    opening = reading.opening()
    with open_session(out=out, say_model=True, max_pixels=reading.max_pixels, **engine.flags()) as session:
        follows = Capability.TRACK in session.model.capabilities
        links = link or not (prompts.any or (follows and (look_every is not None or not session.model.is_small)))
        if prompts.any:
            session.model.require(Capability.TRACK)
        wanted = parameters.onto(session.auto_defaults(preset))
        linking = LinkRequest(
            parameters=wanted,
            preset=preset,
            conditions=conditions,
            overlaps=keep_overlaps,
            link=LinkParameters(max_gap=max_gap, max_distance=max_distance or 0.0, drift=drift),
        )
        every = LOOK_EVERY if look_every is None else look_every
        found = AutomaticObjects(wanted, preset, every, conditions, keep_overlaps) if auto else None

        def following(first_frame: int) -> TrackRequest:
            asked = prompts.request(session, default_frame=first_frame)
            return dataclasses.replace(asked, automatic=found, fast=wanted.fast)

        notices = _by_links(session, follows=follows) if links and not link else []
        if wanted.fast and not links:
            note(FAST_NOTICE)
        asked: dict[str, Any] = {}
        if many.any:
            method = linking if links else following(0)
            asked = {**method.record(), "opening": dataclasses.asdict(opening), "suffix": suffix}
        with many.ledger("track", session, asked, out, what="sequence") as ledger:
            inputs = expand_inputs(session, sequences, from_file, None, ledger.ours, sequences=True)
            run = TrackRun(session, ledger, opening, suffix, restart, resume, tables, as_json, several=inputs.given > 1)

            def one(ref: ImageRef) -> None:
                if links:
                    run.link(ref, linking, notices)
                else:
                    run.follow(ref, following, prompts.onto)

            ledger.open(images=len(inputs.refs), given=inputs.given)
            run_batch(inputs.refs, one, as_json=as_json, failures=inputs.failures, what="sequences")


def _by_links(session: Session, *, follows: bool) -> list[str]:
    """What is said when masks are linked though nobody asked for it."""
    said = (
        f"{session.model.id} is small: the masks of each frame are linked (--link); --look-every {LOOK_EVERY} follows objects by its memory"
        if follows
        else f"{session.model.id} cannot follow objects by itself: the masks of each frame are linked (--link)"
    )
    note(said)
    return [said]
