"""``segduo tui``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    DeviceOption,
    FromFileOption,
    InProcessOption,
    ModelOption,
    SocketOption,
    load_settings,
)
from segment_duo.cli.output import note, waiting
from segment_duo.errors import UsageError
from segment_duo.stores.base import has_magic

if TYPE_CHECKING:
    from segment_duo.session import Session
    from segment_duo.types import ImageRef

GraphicsOption = Annotated[
    str | None,
    typer.Option(
        "--graphics",
        "-g",
        help="How to show pictures: auto, kitty, sixel, halfcell, quadrant, sextant or octant.",
        show_default="auto",
    ),
]


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("tui", rich_help_panel=panel)(tui)


def tui(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH...]",
            help="A folder or an image, local or on Drops (/drops/...); several, or a quoted pattern, are a queue; "
            "with --film a folder or a quoted pattern is one film.",
            show_default=False,
        ),
    ] = None,
    from_file: FromFileOption = None,
    film: Annotated[
        bool, typer.Option("--film", help="Open a folder, or a quoted pattern, as one film: its images are the frames.")
    ] = False,
    graphics: GraphicsOption = None,
    theme: Annotated[
        str | None, typer.Option("--theme", help="segduo-dark, segduo-light, or any theme of Textual's.")
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    socket: SocketOption = None,
    in_process: InProcessOption = None,
) -> None:
    """Open the terminal UI: look at images, stacks and films, place points, find and follow objects, edit and save masks.

    Without PATH it shows the configured start_folder, else the working folder. F1 shows all keys. It needs no mouse and works over SSH.

    A queue opens its first image without saved masks; ] and [ go on, and the header counts what is done.

    [bold]Pictures[/bold]

      kitty, Ghostty: the kitty graphics protocol, real pixels.

      WezTerm, foot, iTerm2, Konsole, xterm -ti vt340, tmux 3.4+ with sixel: sixel, real pixels.

      Every other terminal with colours, and everything with NO_COLOR: half cells, two dots a character.

      quadrant, sextant, octant: 4, 6, 8 dots a character, for fonts that have them; P in the UI tries them.

    The choice is the terminal's own answer; --graphics overrides it, `segduo doctor` explains it.

    [bold]Examples[/bold]

      segduo tui examples

      segduo tui '/drops/labdaq/2026-11/*.tif'

      segduo tui --film 'day1/scan_*.tif'

      segduo tui /drops/labdaq/img.tif --graphics halfcell
    """
    import sys

    flags = {
        "graphics": graphics, "theme": theme, "model": model, "device": device, "socket": socket, "in_process": in_process,
    }  # fmt: skip
    resolved = load_settings(flags)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "the terminal UI needs a terminal", "In scripts use `segduo auto`, `segduo point`, `segduo show`."
        )
    from segment_duo.terminal.graphics import detect

    terminal = detect(resolved.config.graphics)  # asks the terminal, so it comes before Textual takes it over
    from segment_duo.session import Session
    from segment_duo.tui.app import build_app
    from segment_duo.tui.film import Film

    def tell(text: str) -> None:
        app.tell(text)

    session = Session(resolved, notify=tell)
    path, queue = _meant(session, paths, from_file, film=film)
    app = build_app(
        session,
        queue=queue,
        journal_dir=session.paths.journal_dir,
        path=path,
        film=film,
        terminal=terminal,
        theme=resolved.config.theme,
        keymap=resolved.config.keys,
        films=partial(Film.open, session),
        elsewhere=lambda folder: Session(resolved, out=folder, notify=tell),
    )
    with waiting.hushed():
        app.run()
    if app.return_code:
        raise SystemExit(app.return_code)


def _meant(
    session: Session, paths: list[str] | None, from_file: str | None, *, film: bool = False
) -> tuple[str | None, list[ImageRef]]:
    """What to open: one path, which with ``film`` may be a pattern, or a queue of images.

    Raises:
        UsageError: a film, and not one path.
        SegduoError: nothing of what was named can be opened.
    """
    if film:
        if from_file is not None or paths is None or len(paths) != 1 or paths[0] == "-":
            raise UsageError(
                "--film takes one folder or one pattern", "Quote a pattern: segduo tui --film 'scan_*.tif'."
            )
        return paths[0], []
    if (
        from_file is None
        and (not paths or len(paths) == 1)
        and not (paths and (has_magic(paths[0]) or paths[0] == "-"))
    ):
        return (paths[0] if paths else None), []
    inputs = expand_inputs(session, paths, from_file)
    if not inputs.refs and inputs.failures:
        raise inputs.failures[0][1]
    for text, error in inputs.failures:
        note(f"{text}: {error.message}")
    return None, inputs.refs
