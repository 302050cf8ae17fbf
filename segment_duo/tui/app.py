"""One factory builds the app, for the command line and for the tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from textual.app import App, SystemCommand
from textual.screen import Screen

from segment_duo.terminal.graphics import Terminal
from segment_duo.tui.journal import Journal
from segment_duo.tui.keys import COMMANDS, check_keymap, shown_keys, with_twins
from segment_duo.tui.ports import FilmPort, SessionPort
from segment_duo.tui.themes import DARK, LIGHT
from segment_duo.tui.workspace.desk import Told
from segment_duo.tui.workspace.screen import Workspace
from segment_duo.types import ImageRef


class SegduoApp(App[None]):
    """The terminal UI."""

    TITLE = "segduo"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, workspace: Workspace, *, theme: str, keymap: Mapping[str, str]) -> None:
        super().__init__()
        self.workspace = workspace
        self.keymap = dict(keymap)
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = theme if theme in self.available_themes else DARK.name

    def tell(self, text: str) -> None:
        """Show a line to the user; may be called from any thread."""
        self.workspace.post_message(Told(text))

    def on_mount(self) -> None:
        self.set_keymap(with_twins(self.keymap))
        self.push_screen(self.workspace)

    async def action_quit(self) -> None:
        """``Ctrl+Q`` where the workspace's own binding does not reach, in a dialog: Textual's would end the program without a question."""
        self.workspace.action_leave()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: the commands of the table that work now."""
        if screen is not self.workspace:
            return
        for command in COMMANDS:
            name = command.action.split("(")[0]
            if command.palette and self.workspace.check_action(name, ()):
                keys = shown_keys(command, self.keymap)
                yield SystemCommand(command.title, f"{keys} · {command.help}", self._runner(command.action))

    def _runner(self, action: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await self.workspace.run_action(action)

        return run


def build_app(
    session: SessionPort,
    *,
    journal_dir: Path,
    path: str | None = None,
    film: bool = False,
    terminal: Terminal | None = None,
    theme: str = DARK.name,
    keymap: Mapping[str, str] | None = None,
    elsewhere: Callable[[str], SessionPort] | None = None,
    queue: Sequence[ImageRef] = (),
    films: Callable[[ImageRef], FilmPort] | None = None,
) -> SegduoApp:
    """The app, ready to run.

    Args:
        session: the use cases.
        journal_dir: where unsaved work is kept.
        path: folder or image to open, as users type it; None: the configured start folder, else the working folder.
        terminal: from :func:`segment_duo.terminal.graphics.detect`, called before the app runs; None: half cells.
        film: open ``path``, a folder or a pattern, as one film.
        keymap: the user's ``[keys]`` table.
        queue: images to go through, instead of a path.
        films: opens a stack or film as frames; None: stacks are pages and no more.
        elsewhere: gives a session that saves in the folder named; None: saving elsewhere is not offered.

    Raises:
        ConfigError: the table names a command that does not exist.
    """
    check_keymap(keymap or {})
    workspace = Workspace(
        session, Journal(journal_dir), terminal or Terminal(),
        start_path=path, start_film=film, elsewhere=elsewhere, queue=queue, films=films,
    )  # fmt: skip
    return SegduoApp(workspace, theme=theme, keymap=keymap or {})
