"""``segduo show``."""

from __future__ import annotations

from typing import Annotated

import typer

from segment_duo.cli import completion
from segment_duo.cli.chosen import image_of, load, parse_choice
from segment_duo.cli.chosen import masks as counted
from segment_duo.cli.inputs import frame_of
from segment_duo.cli.options import (
    BannerOption,
    FrameOption,
    MaxPixelsOption,
    OutOption,
    PageOption,
    check_frame,
    open_session,
)
from segment_duo.cli.output import emit_raw, note
from segment_duo.cli.tui import GraphicsOption


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("show", rich_help_panel=panel)(show)


def show(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE[@VERSION]",
            help="An image; with @VERSION also that set of masks. Or the .pkl file of a set, with its image.",
            autocompletion=completion.versions,
        ),
    ],
    masks: Annotated[bool, typer.Option("--masks", "-M", help="Draw the latest set of masks over it.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Write the masks' ids into the picture.")] = False,
    columns: Annotated[
        int | None, typer.Option("--width", "-w", min=4, max=290, help="Columns to use (default: the terminal's).")
    ] = None,
    graphics: GraphicsOption = None,
    page: PageOption = 0,
    frame: FrameOption = None,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    out: OutOption = None,
) -> None:
    """Print an image, and its masks, straight into the terminal: real pixels with kitty and sixel, else half cells.

    Masks are green, or have the colours of their classes (\\[classes] in config.toml).

    In a pipe, or with NO_COLOR, it prints characters of increasing brightness.

    [bold]Examples[/bold]

      segduo show examples/particles.tif

      segduo show examples/particles.tif@1 --ids

      segduo show examples/masks/particles.pkl

      segduo show /drops/labdaq/img.tif --masks --graphics halfcell

      segduo show film.tif --frame 12 --masks
    """
    check_frame(frame, page)
    with open_session(out=out, graphics=graphics, max_pixels=max_pixels) as session:
        choice = parse_choice(session, image)
        loaded = load(session, choice) if choice.is_file else None
        ref = image_of(session, choice, loaded) if loaded else frame_of(session, choice.ref, frame)
        recorded = loaded.mask_set.provenance.image if loaded else None
        opened = session.open_image(ref, page=recorded.page if recorded else page, banner=banner)
        if loaded:
            loaded = session.sets.refit(ref, loaded, opened.data.facts)
        elif masks or ids or choice.version is not None:
            loaded = session.sets.load(ref, choice.version, opened.data.facts)
        from segment_duo.masks.classes import classes_of, colours
        from segment_duo.terminal.still import render_still

        emit_raw(
            render_still(
                opened.data.pixels,
                loaded.mask_set.masks if loaded else (),
                method=session.config.graphics,
                columns=columns,
                forced=graphics is not None,
                ids=ids,
                colours=colours(classes_of(session.config.classes)),
            )
        )
    if loaded:
        note(
            f"{choice.name(loaded)}: {counted(len(loaded.mask_set.masks))}"
            + (f" ({loaded.notice})" if loaded.notice else "")
        )
