"""Options that say which frames of what are meant, for the commands that take sequences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli.bundles import Bundle
from segment_duo.cli.options import IMAGE_PANEL, BannerOption, MaxPixelsOption, PixelSizeOption, pixel_size_value
from segment_duo.errors import PromptError, UsageError

if TYPE_CHECKING:
    from segment_duo.sequence_tracking import TrackRequest
    from segment_duo.sequences import Opening, OpenSequence
    from segment_duo.session import Session
    from segment_duo.types import Mask

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
        """The sequence that ``text`` means, open. Raises as :func:`segment_duo.sequences.open_sequence` and :meth:`opening`."""
        from segment_duo.sequences import open_sequence

        return open_sequence(session, session.reference(text), self.opening())

    def opening(self) -> Opening:
        """As :func:`segment_duo.sequences.open_sequence` takes them.

        Raises:
            UsageError: an option that cannot be read.
        """
        from segment_duo.sequences import Opening

        return Opening(
            frames=self.frames,
            frame_seconds=None if self.frame_time is None else parse_seconds(self.frame_time),
            axis=self.axis,
            at=tuple(_place(one) for one in self.at or ()),
            banner=self.banner,
            pixel_size=pixel_size_value(self.pixel_size),
        )


PROMPT_PANEL = "Objects to follow"


@dataclass(frozen=True)
class PromptOptions(Bundle):
    """Which objects are followed with the model's memory."""

    points: Annotated[
        list[str] | None,
        typer.Option(
            "--point", "-p", metavar="X,Y[,LABEL[,OBJECT]][@FRAME]",
            help="A point: label 1 includes (default), 0 excludes; object 1 and the first frame where none is named. Repeatable.",
            rich_help_panel=PROMPT_PANEL,
        ),
    ] = None  # fmt: skip
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box", metavar="X0,Y0,X1,Y1[,OBJECT][@FRAME]", help="A box around an object. Repeatable: one object each.",
            rich_help_panel=PROMPT_PANEL,
        ),
    ] = None  # fmt: skip
    points_file: Annotated[
        Path | None,
        typer.Option(
            "--points", metavar="FILE", help="CSV with points or boxes and their frames.", rich_help_panel=PROMPT_PANEL
        ),
    ] = None
    from_set: Annotated[
        str | None,
        typer.Option(
            "--from-set",
            metavar="IMAGE[@VERSION]",
            help="Follow the masks of a saved set.",
            rich_help_panel=PROMPT_PANEL,
        ),
    ] = None
    frame: Annotated[
        int | None,
        typer.Option("--frame", min=0, help="The frame that --from-set is of (default: the set's own).", rich_help_panel=PROMPT_PANEL),
    ] = None  # fmt: skip
    direction: Annotated[
        str,
        typer.Option("--direction", help="From each prompt forward, backward or both.", rich_help_panel=PROMPT_PANEL),
    ] = "forward"
    onto: Annotated[
        str | None,
        typer.Option(
            "--onto", metavar="VERSION", help="Correct this version: only frames from the first prompt on are done again.",
            rich_help_panel=PROMPT_PANEL,
        ),
    ] = None  # fmt: skip

    @property
    def any(self) -> bool:
        """Whether a prompt was given."""
        return any((self.points, self.boxes, self.points_file, self.from_set))

    def request(self, session: Session, *, default_frame: int) -> TrackRequest:
        """What is to be followed.

        Raises:
            UsageError, PromptError: something that cannot be read.
            NotFound, MaskFileError: the set cannot be had.
        """
        from segment_duo.frame_prompts import parse_frame_box, parse_frame_file, parse_frame_point
        from segment_duo.sequence_tracking import TrackRequest

        if self.direction not in ("forward", "backward", "both"):
            raise UsageError(f"--direction {self.direction!r} is none", "There are forward, backward and both.")
        if self.frame is not None and self.from_set is None:
            raise UsageError("--frame goes with --from-set", "A point names its frame: -p x,y@30.")
        found = [parse_frame_point(text, frame=default_frame) for text in self.points or ()]
        found += [parse_frame_box(text, number, frame=default_frame) for number, text in enumerate(self.boxes or (), 1)]
        if self.points_file is not None:
            try:
                text = self.points_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PromptError(f"{self.points_file}: cannot be read ({error})") from None
            found += parse_frame_file(text, name=self.points_file.name)
        masks: tuple[tuple[int, int, Mask], ...] = ()
        if self.from_set is not None:
            masks = self._set_masks(session, default_frame)
        return TrackRequest(tuple(found), masks, self.direction, self.from_set or "")  # type: ignore[arg-type]

    def _set_masks(self, session: Session, default_frame: int) -> tuple[tuple[int, int, Mask], ...]:
        from segment_duo.cli.chosen import load, parse_choice

        loaded = load(session, parse_choice(session, self.from_set or ""))
        image = loaded.mask_set.provenance.image
        own = image.page if image is not None and image.page else default_frame
        frame = own if self.frame is None else self.frame
        return tuple((number, frame, mask) for number, mask in enumerate(loaded.mask_set.masks, 1) if mask.area)


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
