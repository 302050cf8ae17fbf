"""``segduo show``."""

from __future__ import annotations

from typing import Annotated

import typer

from segment_duo.cli.inputs import frame_of, image_and_version
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
        str, typer.Argument(metavar="IMAGE[@VERSION]", help="An image; with @VERSION also that set of masks.")
    ],
    masks: Annotated[bool, typer.Option("--masks", "-M", help="Draw the latest set of masks over it.")] = False,
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

    In a pipe, or with NO_COLOR, it prints characters of increasing brightness.

    [bold]Examples[/bold]

      segduo show examples/particles.tif

      segduo show examples/particles.tif@1

      segduo show /drops/labdaq/img.tif --masks --graphics halfcell

      segduo show film.tif --frame 12 --masks
    """
    check_frame(frame, page)
    with open_session(out=out, graphics=graphics, max_pixels=max_pixels) as session:
        ref, version = image_and_version(session, image)
        ref = frame_of(session, ref, frame)
        opened = session.open_image(ref, page=page, banner=banner)
        loaded = None
        if masks or version is not None:
            loaded = session.sets.load(ref, version, opened.data.facts)
        from segment_duo.terminal.still import render_still

        emit_raw(
            render_still(
                opened.data.pixels,
                loaded.mask_set.masks if loaded else (),
                method=session.config.graphics,
                columns=columns,
                forced=graphics is not None,
            )
        )
    if loaded:
        note(
            f"{ref}@{loaded.version.name}: {len(loaded.mask_set.masks)} masks"
            + (f" ({loaded.notice})" if loaded.notice else "")
        )
