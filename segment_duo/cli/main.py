"""The program ``segduo``: assembles the commands, and is the only place that prints errors and chooses exit codes."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from segment_duo import __version__
from segment_duo.cli import (
    auto,
    batch,
    compare,
    completion,
    config,
    demo,
    doctor,
    embed,
    engine,
    info,
    ls,
    measure,
    models,
    point,
    sets,
    show,
    track,
    train,
    tui,
)
from segment_duo.cli.output import (
    BROKEN_PIPE_EXIT,
    NO_ROOM,
    emit,
    forgive_encodings,
    note,
    output_error,
    to_nowhere,
    waiting,
)
from segment_duo.errors import SegduoError

app = typer.Typer(
    name="segduo",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    rich_markup_mode="rich",
    epilog="Start here:  segduo auto IMAGE  makes all masks of an image and saves them beside it.  segduo tui  opens the terminal UI.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(f"segduo {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Segment micrographs with SAM 2.1 from the terminal: by points, by boxes, or everything at once."""
    if context.invoked_subcommand is None:
        demo.greet()


for module in (auto, point, track, embed):
    module.register(app, panel="Segment")
for module in (ls, info, show, measure, compare, tui):
    module.register(app, panel="Look")
app.add_typer(sets.app, name="masks", rich_help_panel="Look")
app.add_typer(batch.app, name="batch", rich_help_panel="Segment")
train.register(app, panel="Set up")
app.add_typer(models.app, name="models", rich_help_panel="Set up")
app.add_typer(engine.app, name="engine", rich_help_panel="Set up")
app.add_typer(config.app, name="config", rich_help_panel="Set up")
doctor.register(app, panel="Set up")
demo.register(app, panel="Set up")


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def main() -> None:
    """Run the program and exit; see ``docs/exit-codes.md``."""
    signal.signal(signal.SIGTERM, _terminate)
    forgive_encodings()
    completion.join_words()
    try:
        with waiting.during(lambda: "still working (Ctrl-C stops it)"):
            app()
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE_EXIT)
    except SystemExit as stop:
        # Typer and Rich, which print the help, turn a reader that went away into exit code 1.
        if isinstance(stop.__context__, BrokenPipeError):
            sys.exit(BROKEN_PIPE_EXIT)
        raise
    except SegduoError as error:
        _fail(error)
    except OSError as error:
        # The help is not written by our own writer.
        if error.errno not in NO_ROOM:
            raise
        to_nowhere(sys.stdout)
        _fail(output_error(error))


def _fail(error: SegduoError) -> NoReturn:
    first, *rest = error.message.splitlines() or [""]
    note(f"segduo: {first}")
    for line in [*rest, *error.hint.splitlines()]:
        note(f"  {line}")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
