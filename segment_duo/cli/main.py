"""The program ``segduo``: assembles the commands, and is the only place that prints errors and chooses exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from segment_duo import __version__
from segment_duo.cli import completion
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

COMMANDS = {
    "auto": ("auto", "Segment"),
    "point": ("point", "Segment"),
    "track": ("track", "Segment"),
    "embed": ("embed", "Segment"),
    "ls": ("ls", "Look"),
    "info": ("info", "Look"),
    "show": ("show", "Look"),
    "measure": ("measure", "Look"),
    "score": ("measure", "Look"),
    "compare": ("compare", "Look"),
    "tui": ("tui", "Look"),
    "masks": ("sets", "Look"),
    "batch": ("batch", "Segment"),
    "train": ("train", "Set up"),
    "models": ("models", "Set up"),
    "engine": ("engine", "Set up"),
    "config": ("config", "Set up"),
    "doctor": ("doctor", "Set up"),
    "demo": ("demo", "Set up"),
}
"""Module of ``segment_duo.cli`` and panel of the help, by command, in the order of the help. A module has ``register`` or, with commands of its own,
an ``app``."""


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(f"segduo {__version__}")
        raise typer.Exit


def _program(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Segment micrographs with SAM 2.1 from the terminal: by points, by boxes, or everything at once."""
    if context.invoked_subcommand is None:
        from segment_duo.cli import demo

        demo.greet()


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The program. Where the first of ``arguments`` is a command, only that one: the modules of the others need not be read."""
    app = typer.Typer(
        name="segduo",
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        rich_markup_mode="rich",
        epilog="Start here:  segduo auto IMAGE  makes all masks of an image and saves them beside it.  segduo tui  opens the terminal UI.",
    )
    app.callback()(_program)
    named = [name for name in arguments[:1] if name in COMMANDS]
    # By module: one may bring two commands.
    wanted = {COMMANDS[name]: name for name in reversed(named or [*COMMANDS])}
    for (place, panel), name in reversed(wanted.items()):
        module = import_module(f"segment_duo.cli.{place}")
        if hasattr(module, "register"):
            module.register(app, panel=panel)
        else:
            app.add_typer(module.app, name=name, rich_help_panel=panel)
    return app


def __getattr__(name: str) -> Any:
    """``app``: the whole program, made when somebody asks for it."""
    if name == "app":
        return build()
    raise AttributeError(name)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def main() -> None:
    """Run the program and exit; see ``docs/exit-codes.md``."""
    signal.signal(signal.SIGTERM, _terminate)
    forgive_encodings()
    completion.join_words()
    try:
        with waiting.during(lambda: "still working (Ctrl-C stops it)"):
            build(sys.argv[1:])()
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
