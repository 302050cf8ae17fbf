"""Options that several commands share, and the session they lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli import completion
from segment_duo.cli.bundles import Bundle
from segment_duo.cli.output import note
from segment_duo.errors import UsageError

if TYPE_CHECKING:
    from segment_duo.config import Resolved
    from segment_duo.paths import Paths
    from segment_duo.session import Session
    from segment_duo.types import PixelSize

ENGINE_PANEL = "Engine and model"
IMAGE_PANEL = "Reading the image"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="nano, sam2.1-tiny, ..., or another name of `segduo models ls`; options follow it: NAME:option=value,...",
        rich_help_panel=ENGINE_PANEL,
        autocompletion=completion.models,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="auto, cuda, mps or cpu.",
        rich_help_panel=ENGINE_PANEL,
        autocompletion=completion.devices,
    ),
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        help="Socket of another engine, for example one forwarded with ssh -L.",
        rich_help_panel=ENGINE_PANEL,
    ),
]
InProcessOption = Annotated[
    bool | None,
    typer.Option(
        "--in-process", help="Compute in this process, without the engine daemon.", rich_help_panel=ENGINE_PANEL
    ),
]
PageOption = Annotated[
    int, typer.Option("--page", min=0, help="Page of a multi-page TIFF, counted from 0.", rich_help_panel=IMAGE_PANEL)
]
FrameOption = Annotated[
    int | None,
    typer.Option(
        "--frame",
        min=0,
        help="Frame of a stack or film, or number of a file in a folder or pattern, from 0 (T, else Z, of a hyperstack).",
        rich_help_panel=IMAGE_PANEL,
    ),
]
FramesOption = Annotated[
    str | None,
    typer.Option(
        "--frame",
        metavar="N|all|A:B:STEP",
        help="Frames of a stack or film, or files of a folder or pattern, from 0 (along T, else Z, of a hyperstack); B is not included.",
        rich_help_panel=IMAGE_PANEL,
    ),
]
BannerOption = Annotated[
    str,
    typer.Option(
        "--banner",
        help="Cut the info banner at the bottom: auto, off, or its height in rows.",
        autocompletion=completion.banners,
        rich_help_panel=IMAGE_PANEL,
    ),
]
PixelSizeOption = Annotated[
    str | None,
    typer.Option("--pixel-size", help="Edge of a pixel, e.g. 3.37nm; overrides the file.", rich_help_panel=IMAGE_PANEL),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Refuse larger images.", rich_help_panel=IMAGE_PANEL),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out", "-o", help="Folder for the saved sets instead of the configured place (local or /drops/...)."
    ),
]


def _checked_suffix(suffix: str | None) -> str | None:
    """Refuse a bad suffix before anything is computed."""
    from segment_duo.library.versions import check_suffix

    return None if suffix is None else check_suffix(suffix)


SuffixOption = Annotated[
    str,
    typer.Option("--suffix", "-s", help="Save as <image>_<suffix>.pkl, a series of its own.", callback=_checked_suffix),
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--suffix",
        "-s",
        help="Save as <image>_<suffix>.pkl, a series of its own (default: the plain one, or that of the set it adds to).",
        callback=_checked_suffix,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to stdout; docs/json.md names the keys.")]
JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="Write JSON to stdout, one line an image; docs/json.md names the keys.")
]
SaveOption = Annotated[
    bool, typer.Option("--save/--no-save", help="With --no-save --json the masks go to stdout only.")
]
InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE...",
        help="Images, folders or quoted patterns, local or on Drops ('/drops/labdaq/*.tif'); - reads a list from stdin.",
        show_default=False,
    ),
]
SetArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE[@VERSION]",
        help="An image, and which of its sets: @0, @2, @grain_1; the latest without. Or the .pkl file of a set.",
        autocompletion=completion.versions,
    ),
]
SetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE[@VERSION]...",
        help="Images, folders or patterns; the latest set of each unless @VERSION says which. Or .pkl files of sets.",
        autocompletion=completion.versions,
    ),
]
FromFileOption = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="FILE",
        help="Read a list of images, folders and patterns from a file (- is stdin), one a line. "
        "Other files, and folders with a / at the end (as ls -1 prints them), are left out and told on stderr.",
    ),
]


def finite(option: typer.CallbackParam, value: float | None) -> float | None:
    """The callback of options that take a number: NaN and infinity pass every range, so they are refused here, by the option's name."""
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{option.opts[0]}: {value} is not a finite number")
    return value


def check_frame(frame: object, page: int) -> None:
    """Refuse ``--frame`` with ``--page``: both say which."""
    if frame is not None and page:
        raise UsageError(
            "--frame and --page both say which picture is meant", "Give one: --page counts planes as the file has them."
        )


def check_save(save: bool, as_json: bool) -> None:
    """Refuse to compute what would go nowhere."""
    if not save and not as_json:
        raise UsageError("--no-save without --json would throw the masks away", "Add --json.")


@dataclass(frozen=True)
class ReadingOptions(Bundle):
    """How an image is read."""

    page: PageOption = 0
    banner: BannerOption = "auto"
    pixel_size: PixelSizeOption = None
    max_pixels: MaxPixelsOption = None

    def arguments(self) -> dict[str, Any]:
        """As :meth:`segment_duo.session.Session.open_image` takes them."""
        return {"page": self.page, "banner": self.banner, "pixel_size": pixel_size_value(self.pixel_size)}


@dataclass(frozen=True)
class EngineOptions(Bundle):
    """What computes; for :func:`open_session`."""

    model: ModelOption = None
    device: DeviceOption = None
    socket: SocketOption = None
    in_process: InProcessOption = None

    def flags(self) -> dict[str, Any]:
        """Settings as :func:`segment_duo.config.load_config` takes them."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def load_settings(flags: Mapping[str, object] | None = None, paths: Paths | None = None) -> Resolved:
    """The settings with those of the command line on top; tells on stderr of a ``.env`` that is not read because somebody else owns it."""
    from segment_duo.config import load_config

    resolved = load_config(flags, paths=paths)
    tell_foreign(resolved)
    return resolved


def tell_foreign(resolved: Resolved) -> None:
    for file in resolved.foreign:
        note(f"{file} is not read: it belongs to another user")


@contextmanager
def open_session(*, out: str | None = None, say_model: bool = False, **flags: Any) -> Iterator[Session]:
    """A session with the settings of the command line on top.

    Args:
        out: folder for saved sets.
        say_model: tell on stderr when the small bundled model runs for want of a better one.
        flags: names of :class:`segment_duo.config.Config` fields; None means not given.
    """
    from segment_duo.session import Session

    session = Session(load_settings(flags), out=out, notify=note)
    session.sets.check_out()
    if say_model and session.model.notice:
        note(session.model.notice)
    yield session


def pixel_size_value(text: str | None) -> PixelSize | None:
    """``3.37nm`` -> a pixel size."""
    if text is None:
        return None
    from segment_duo.images import parse_pixel_size

    return parse_pixel_size(text)
