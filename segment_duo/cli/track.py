"""``segduo track``."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli import completion
from segment_duo.cli.auto_options import AutoOptions
from segment_duo.cli.bundles import bundled
from segment_duo.cli.filter_options import FilterOptions
from segment_duo.cli.options import (
    EngineOptions,
    JsonOption,
    OutOption,
    SuffixOption,
    open_session,
)
from segment_duo.cli.output import emit_json, emit_path, note, progress
from segment_duo.cli.sequence_options import PromptOptions, SequenceOptions
from segment_duo.errors import SegduoError, UsageError

if TYPE_CHECKING:
    from segment_duo.sequence_tracking import TrackRequest
    from segment_duo.sequences import Followed, LinkRequest, OpenSequence, Progress
    from segment_duo.session import Session

LINK_PANEL = "Linking"

LOOK_EVERY = 10
"""Frames between two looks for new objects, where nobody says."""


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("track", rich_help_panel=panel)(track)


@bundled
def track(
    sequence: Annotated[
        str,
        typer.Argument(
            metavar="SEQUENCE",
            help="A TIFF stack, a folder of images, a quoted pattern ('scan_*.tif') or a film; local or on Drops.",
        ),
    ],
    reading: SequenceOptions,
    parameters: AutoOptions,
    choice: FilterOptions,
    engine: EngineOptions,
    prompts: PromptOptions,
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
    as_json: JsonOption = False,
) -> None:
    """Follow objects through the frames of a stack or film, and save them as a sequence set.

    Prints the paths of the set, of a label stack (OME-TIFF) and of a table (CSV), one a line. An object keeps its id through all frames.

    Each frame is on the disk before the next begins: after Ctrl-C, a crash or a power loss the same command goes on where it was.

    --auto follows what automatic masks find on the first frame; every tenth frame (--look-every) objects that are not followed yet come in.
    With small models (nano) it links instead, unless --look-every is given: they take what appears beside an object for a part of it.

    --fast also follows approximately: what is remembered of frames is pooled. The set says so.

    --link makes automatic masks of each frame and links them by overlap and motion; gaps are closed, splits and merges told. --auto with a model
    that cannot follow objects does the same, and says so. Points, boxes and masks of a saved set need a model that can.

    A file for --points is CSV with a heading: frame,object,x,y,label or frame,object,x0,y0,x1,y1.

    [bold]Examples[/bold]

      segduo track examples/growth.tif --auto

      segduo track cell.tif --link --frames 10:200:2 --frame-time 0.2s --min-diameter 20nm

      segduo track 'slices/*.tif' --link --model watershed --json

      segduo track film.mp4 -m sam2.1-tiny -p 120,88 -p 300,210,1,2@30 --direction both

      segduo track film.mp4 -m sam2.1-tiny --onto 0 -p 130,92,0,1@45
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
    with open_session(out=out, say_model=True, max_pixels=reading.max_pixels, **engine.flags()) as session:
        follows = Capability.TRACK in session.model.capabilities
        links = link or not (prompts.any or (follows and (look_every is not None or not session.model.is_small)))
        if prompts.any:
            session.model.require(Capability.TRACK)
        opened = reading.open(session, sequence)
        run = _Run(session, opened, suffix, restart, resume, tables, as_json)
        try:
            wanted = parameters.onto(session.auto_defaults(preset))
            if links:
                request = LinkRequest(
                    parameters=wanted,
                    preset=preset,
                    conditions=conditions,
                    overlaps=keep_overlaps,
                    link=LinkParameters(max_gap=max_gap, max_distance=max_distance or 0.0, drift=drift),
                )
                run.link(request, [] if link else _by_links(session, follows=follows))
                return
            first = opened.numbers[0]
            asked = prompts.request(session, default_frame=first)
            if auto:
                found = AutomaticObjects(
                    wanted, preset, LOOK_EVERY if look_every is None else look_every, conditions, keep_overlaps
                )
                asked = dataclasses.replace(asked, automatic=found)
            if wanted.fast:
                note(FAST_NOTICE)
            run.follow(dataclasses.replace(asked, fast=wanted.fast), prompts.onto)
        finally:
            opened.frames.close()


def _by_links(session: Session, *, follows: bool) -> list[str]:
    """What is said when masks are linked though nobody asked for it."""
    said = (
        f"{session.model.id} is small: the masks of each frame are linked (--link); --look-every {LOOK_EVERY} follows objects by its memory"
        if follows
        else f"{session.model.id} cannot follow objects by itself: the masks of each frame are linked (--link)"
    )
    note(said)
    return [said]


class _Run:
    """One ``segduo track``: what it tells while it works, and what it leaves."""

    def __init__(
        self,
        session: Session,
        opened: OpenSequence,
        suffix: str,
        restart: bool,
        resume: bool,
        tables: bool,
        as_json: bool,
    ) -> None:
        self._session, self._opened, self._suffix = session, opened, suffix
        self._restart, self._resume, self._tables, self._as_json = restart, resume, tables, as_json
        for warning in opened.frames.warnings:
            note(f"{opened.ref}: {warning}")

    def link(self, request: LinkRequest, notices: list[str]) -> None:
        """Automatic masks of each frame, linked."""
        from segment_duo.sequences import link

        self._done(partial(link, self._session, self._opened, request, notices=notices), "link")

    def follow(self, request: TrackRequest, onto: str | None) -> None:
        """With the model's memory."""
        from segment_duo.sequence_tracking import follow

        self._done(partial(follow, self._session, self._opened, request, onto=onto), "memory")

    def _done(self, work: Callable[..., Followed], method: str) -> None:
        began = time.monotonic()
        with self._watched() as on_frame:
            followed = work(suffix=self._suffix, restart=self._restart, must_resume=self._resume, on_frame=on_frame)
        self._tell(followed, method, time.monotonic() - began)

    @contextmanager
    def _watched(self) -> Iterator[Callable[[Progress], None]]:
        name = self._opened.ref.name
        with progress(name) as report:
            last = [time.monotonic()]
            began = last[0]

            def on_frame(state: Progress) -> None:
                new = state.done - state.resumed
                if new == 1 and state.resumed:
                    note(f"{name}: {state.resumed} frames are done already, going on")
                left = (time.monotonic() - began) / new * (state.total - state.done)
                said = f"frame {state.frame}, {state.masks} objects, {_duration(left)} left"
                report(state.done, state.total, said)
                if not sys.stderr.isatty() and time.monotonic() - last[0] > 30:
                    last[0] = time.monotonic()
                    note(f"{name}: {state.done} of {state.total} frames, {_duration(left)} left")

            yield on_frame

    def _tell(self, followed: Followed, method: str, seconds: float) -> None:
        beside = self._write_tables(followed) if self._tables else {}
        record = {
            "sequence": str(self._opened.ref),
            "method": method,
            "model": self._session.model.id,
            "frames": followed.frames,
            "resumed": followed.resumed,
            "objects": followed.objects,
            "events": followed.events,
            "seconds": round(seconds, 3),
            "notes": list(followed.notices),
            "saved": followed.saved.path,
            "version": followed.saved.version.name,
            "tables": [str(path) for path in beside.values()],
        }
        if self._as_json:
            emit_json(record)
            return
        emit_path(followed.saved.path)
        for path in beside.values():
            emit_path(path)
        happened = "".join(f", {count} {kind}" for kind, count in sorted(followed.events.items()))
        note(f"{self._opened.ref}: {followed.objects} objects in {followed.frames} frames{happened}")

    def _write_tables(self, followed: Followed) -> dict[str, Path]:
        """The label stack and the table beside the set; a name that is taken is told, and the set is not lost for it."""
        from segment_duo.tracking.export import export_sequence

        place = self._session.sequences.on_disk(self._opened.named, followed.saved.version)
        if place is None:
            note("the set is on Drops; `segduo masks export` writes label stacks and tables")
            return {}
        made = {}
        for fmt, name in (("labels-ome", f"{place.stem}_labels.tif"), ("tracks-csv", f"{place.stem}_tracks.csv")):
            _, found = self._session.sequences.open(self._opened.named, followed.saved.version.name)
            with found:
                try:
                    made[fmt] = export_sequence(found, fmt, place.with_name(name), name=self._opened.ref.stem)
                except SegduoError as error:
                    note(f"{error.message}; the set itself is saved")
        return made


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
