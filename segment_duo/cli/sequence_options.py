"""Options that say which frames of what are meant, for the commands that take sequences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli.bundles import Bundle
from segment_duo.cli.options import IMAGE_PANEL, BannerOption, MaxPixelsOption, PixelSizeOption, pixel_size_value
from segment_duo.errors import UsageError

if TYPE_CHECKING:
    from segment_duo.sequences import OpenSequence
    from segment_duo.session import Session

FrameTimeOption = Annotated[
    str | None,
    typer.Option(
        "--frame-time", metavar="TIME", help="Time from frame to frame, e.g. 0.2s; overrides the file.",
        rich_help_panel=IMAGE_PANEL,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class SequenceOptions(Bundle):
    """How a sequence is read."""

    frames: Annotated[
        str,
        typer.Option(
            "--frames", metavar="A:B:STEP", help="Which frames, counted from 0: all, 10:200, 10:200:2, -20: (the last 20).",
            rich_help_panel=IMAGE_PANEL,
        ),
    ] = "all"  # fmt: skip
    frame_time: FrameTimeOption = None
    axis: Annotated[
        str | None,
        typer.Option(
            "--axis", help="Axis of a hyperstack that frames run along: T, Z or C.", rich_help_panel=IMAGE_PANEL
        ),
    ] = None
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at", metavar="C=1", help="Where to stay on another axis of a hyperstack; repeatable.", rich_help_panel=IMAGE_PANEL
        ),
    ] = None  # fmt: skip
    banner: BannerOption = "auto"
    pixel_size: PixelSizeOption = None
    max_pixels: MaxPixelsOption = None

    def open(self, session: Session, text: str) -> OpenSequence:
        """The sequence that ``text`` means, open.

        Raises:
            UsageError: an option that cannot be read, or does not fit the sequence.
            NotFound, ImageError: it cannot be had.
        """
        from segment_duo.sequences import Opening, open_sequence

        opening = Opening(
            frames=self.frames,
            frame_seconds=None if self.frame_time is None else parse_seconds(self.frame_time),
            axis=self.axis,
            at=tuple(_place(one) for one in self.at or ()),
            banner=self.banner,
            pixel_size=pixel_size_value(self.pixel_size),
        )
        return open_sequence(session, session.reference(text), opening)


def _place(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"\s*([A-Za-z]+)\s*=\s*(\d+)\s*", text)
    if match is None:
        raise UsageError(f"--at {text!r} is not a place on an axis", "for example C=1")
    return match[1].upper() if len(match[1]) == 1 else match[1], int(match[2])


def parse_seconds(text: str) -> float:
    """``0.2s``, ``200 ms``, ``2min``: seconds; a bare number is seconds.

    Raises:
        UsageError: something else, or not above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?|[.,]\d+)\s*(ms|s|sec|min|h)?\s*", text, re.ASCII)
    factor = {"ms": 1e-3, None: 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
    value = float(match[1].replace(",", ".")) * factor[match[2]] if match else 0.0
    if value <= 0:
        raise UsageError(f"{text!r} is not a time", "for example 0.2s, 200ms or 2min")
    return value
