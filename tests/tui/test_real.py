"""The terminal UI in a real terminal (tmux) over a real engine with the nano model."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

import segment_duo
from tests.terminal_replay import Replay, Sign
from tests.tui_fakes import micrograph

NANO = Path(segment_duo.__file__).parent / "models" / "nano" / "nano.pt"
pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.timeout(600),
]
SECONDS = 180
"""What any one step may take on a busy machine with two cores."""


def wait_for(condition: Callable[[], object], what: Callable[[], str] | str, seconds: float = SECONDS) -> None:
    """Come back as soon as the condition holds; fail when it does not in time."""
    limit = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < limit, what if isinstance(what, str) else what()
        pause.wait(0.05)


class Terminal:
    """One tmux server with one pane. Every wait is for something that can be seen."""

    def __init__(self, folder: Path, environment: dict[str, str], size: tuple[int, int] = (110, 32)) -> None:
        self._socket = folder / "tmux"
        self._environment = environment
        self._size = size
        self.prefix: tuple[str, ...] = ()
        """Put before the program, to run it with other rights."""

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                name: value
                for name, value in os.environ.items()
                if name not in ("COLUMNS", "LINES", "NO_COLOR", "TMUX")
            },
        )
        return done.stdout

    def start(self, *arguments: str) -> None:
        command = [*self.prefix, sys.executable, "-m", "segment_duo.cli.main", *arguments]
        script = f"{shlex.join(command)}; echo EXIT=$?; read nothing"
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        flags = [part for variable in variables for part in ("-e", variable)]
        self.tmux("kill-server")

        def running() -> bool:
            self.tmux("new-session", "-d", "-x", str(self._size[0]), "-y", str(self._size[1]), *flags, script)
            # A server that is still going away takes the request with it.
            return bool(self.tmux("list-panes", "-F", "#{pane_id}"))

        wait_for(running, "tmux does not start")

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def cells(self) -> list[list[Sign | None]]:
        """What is shown, with its colours."""
        return Replay(*self._size).feed(self.tmux("capture-pane", "-p", "-e", "-N").rstrip("\n")).rows

    def settled(self, seconds: float = 2.0) -> list[list[Sign | None]]:
        """The cells once they have not changed for so long: the picture is drawn after what is said of it."""
        shown, since = self.cells(), time.monotonic()

        def quiet() -> bool:
            nonlocal shown, since
            now = self.cells()
            if now != shown:
                shown, since = now, time.monotonic()
            return time.monotonic() - since > seconds

        wait_for(quiet, "the picture does not come to rest")
        return shown

    def press(self, *keys: str) -> None:
        """Type. Textual hands a key to what has the focus when it comes, so a key that moves the focus needs an ``until`` after it."""
        for key in keys:
            self.tmux("send-keys", key)

    def until(self, found: str | Callable[[str], bool], seconds: float = SECONDS) -> str:
        screen = ""

        def seen() -> bool:
            nonlocal screen
            screen = self.screen()
            return bool(found(screen) if callable(found) else re.search(found, screen))

        wait_for(seen, lambda: f"{found} never came:\n{screen}", seconds)
        return screen

    def process(self) -> int:
        """Pid of the program itself."""
        shell = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        return next(
            child.pid for child in psutil.Process(shell).children() if "segment_duo.cli.main" in child.cmdline()
        )

    def stop(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    environment = {"SEGDUO_HOME": str(tmp_path / "home"), "COLORTERM": "truecolor", "SEGDUO_THREADS": "2"}
    (tmp_path / "images").mkdir()
    Image.fromarray(micrograph(160, 240)).save(tmp_path / "images" / "discs.png")
    found = Terminal(tmp_path, environment)
    yield found
    found.stop()
    subprocess.run(
        [sys.executable, "-m", "segment_duo.cli.main", "engine", "stop"],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
    )


@pytest.mark.skipif(not NANO.is_file(), reason="the nano weights are not here")
def test_annotate_save_and_reopen(terminal: Terminal, tmp_path: Path) -> None:
    image = tmp_path / "images" / "discs.png"
    terminal.start("tui", str(image))
    terminal.until("engine ready")
    terminal.until("x  120  y   80")
    # A point on the disc at (120, 40), typed and set by keys only.
    terminal.press("g")
    terminal.until("Go to")
    terminal.press(*"120,40", "Enter")
    terminal.until("x  120  y   40")
    terminal.press("Space")
    terminal.until("candidate 1 of 3")
    terminal.press("Enter")
    terminal.until("Mask 0 kept")
    # All of them, with few points and low thresholds: this test is about the UI, whatever the model's scores are.
    terminal.press("a")
    terminal.until("points a side")
    terminal.until("Starts the search")
    for meaning in (
        "What becomes",
        "Windows find",
        "How far tiles",
        "Search tiles",
        "Fill smaller",
        "Search enlarged",
        "Of two masks",
        "edge is",
        "rates",
        "Points of the grid",
    ):
        terminal.press("BTab")
        terminal.until(meaning)
    terminal.press("1", "6")
    terminal.until("points a side  16 ")
    terminal.press("Tab")
    terminal.until("rates")
    terminal.press("0")
    terminal.until("predicted IoU ≥  0 ")
    terminal.press("Tab")
    terminal.until("edge is")
    terminal.press("0", ".", "3")
    terminal.until("stability ≥  0.3 ")
    terminal.press("Enter")
    terminal.until(r"masks in [\d.]+ s")
    screen = terminal.until(lambda text: "Finding all objects" not in text)
    count = int(re.search(r"─masks (\d+)", screen)[1])  # type: ignore[index]
    assert count >= 4
    terminal.press("n", "t", "n", "t", "d")
    terminal.until("2 masks deleted")
    terminal.press("s")
    terminal.until(f"Saved {count - 2} masks")
    terminal.press("q")
    terminal.until("EXIT=0")
    saved = tmp_path / "images" / "masks" / "discs.pkl"
    with saved.open("rb") as file:
        records = pickle.load(file)
    assert len(records) == count - 2
    # Again: the latest version is there, and nothing is unsaved.
    terminal.start("tui", str(image))
    screen = terminal.until(f"─masks {count - 2}")
    assert "version 0" in screen
    assert "unsaved" not in screen
    shown = [line for line in screen.split("\n") if "□" in line]
    for record, line in zip(records[:3], shown, strict=False):
        assert f" {record['area']:,} " in line
    terminal.press("q")
    terminal.until("EXIT=0")


@pytest.mark.skipif(not NANO.is_file(), reason="the nano weights are not here")
def test_killed_ui_brings_the_work_back(terminal: Terminal, tmp_path: Path) -> None:
    terminal.start("tui", str(tmp_path / "images" / "discs.png"))
    terminal.until("engine ready")
    terminal.press("Space")
    terminal.until("candidate 1 of")
    terminal.press("Enter")
    terminal.until("● unsaved")
    journal = tmp_path / "home" / "state" / "journal"
    # The first draft holds the point; the one with the mask replaces it.
    wait_for(
        lambda: any('"masks": [{' in path.read_text() for path in journal.glob("*.json")), "no journal was written"
    )
    os.kill(terminal.process(), signal.SIGKILL)
    terminal.start("tui", str(tmp_path / "images"))
    terminal.until("Unsaved work was found")
    terminal.press("Right", "Enter")
    screen = terminal.until("● unsaved")
    assert "─masks 1" in screen


def without_engine(terminal: Terminal, tmp_path: Path) -> None:
    """No engine can be started: what needs none must work all the same."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    terminal._environment["SEGDUO_SOCKET"] = str(blocked / "engine.sock")


def test_brush_and_save_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    without_engine(terminal, tmp_path)
    image = tmp_path / "images" / "discs.png"
    terminal.start("tui", str(image))
    terminal.until("x  120  y   80")
    for x, y in ((50, 40), (120, 80)):
        terminal.press("g")
        terminal.until("Go to")
        terminal.tmux("send-keys", "9", "9", "C-u", *f"{x},9", "BSpace", *str(y), "Enter")  # in one piece
        terminal.until(rf"x +{x}  y +{y} ")
    terminal.press("e")
    terminal.until("brush 8 px")
    terminal.press(".")
    terminal.until("brush 12 px")
    terminal.press("Space")
    first = int(re.search(r"Mask 0: ([\d,]+) px", terminal.until(r"Mask 0: [\d,]+ px"))[1])  # type: ignore[index]
    terminal.press("Enter")
    terminal.until("pen down")
    terminal.press("S-Right")
    terminal.until(r"x +(?!120)\d+  y   80")
    terminal.press("Enter")
    terminal.until(lambda text: "pen down" not in text and f"Mask 0: {first} px" not in text and "Mask 0: " in text)
    terminal.press("u")
    terminal.until("Taken back: brush")
    terminal.press("U")
    terminal.until("Done again: brush")
    terminal.press("Escape")
    terminal.until("Back to pointing")
    terminal.press("s")
    terminal.until("Saved 1 mask: ")
    terminal.press("q")
    terminal.until("EXIT=0")
    with (tmp_path / "images" / "masks" / "discs.pkl").open("rb") as file:
        (record,) = pickle.load(file)
    assert record["area"] > first > 100


def test_what_is_drawn_cell_by_cell_is_what_a_whole_redraw_draws(terminal: Terminal, tmp_path: Path) -> None:
    without_engine(terminal, tmp_path)
    terminal.start("tui", str(tmp_path / "images" / "discs.png"))
    terminal.until("x  120  y   80")
    terminal.until("No engine|engine off")
    terminal.press("B", ".", "Space", "S-Right")
    terminal.until(r"x +(?!120)\d+  y   80")
    terminal.press("Space", "Enter", "Down", "Down", "S-Left")
    terminal.until(r"x +120  y +(?!80)\d+.*pen down")
    terminal.press("Enter", "Escape")
    terminal.until("Back to pointing")
    terminal.press("#", "z", "Right", "n", "t", "i", "Up")
    terminal.until(r"Strong tints|Outlines only")
    # A label with wide characters in the list, and moves beside it.
    terminal.press("l")
    terminal.until("Label")
    terminal.press("字", "x", "Enter")
    terminal.until("字x")
    terminal.press("n", "t", "Left", "c", "c")
    terminal.until("Grey values as they are")
    before = terminal.settled()
    terminal.press("F1")
    terminal.until("All keys|Making a mask")
    terminal.press("Escape")
    wait_for(lambda: terminal.cells() == before, "a whole redraw shows something else")


@pytest.mark.parametrize("closed", [False, True])
def test_killed_or_terminal_closed_in_the_middle_of_a_stroke(terminal: Terminal, tmp_path: Path, closed: bool) -> None:
    without_engine(terminal, tmp_path)
    terminal.start("tui", str(tmp_path / "images" / "discs.png"))
    terminal.until("x  120  y   80")
    terminal.press("e")
    terminal.until("brush 8 px")
    journal = tmp_path / "home" / "state" / "journal"

    def area() -> int:
        """Of the one mask in the draft."""
        found = [json.loads(path.read_text())["masks"] for path in journal.glob("*.json")]
        return int(found[0][0]["area"]) if found and found[0] else 0

    terminal.press("Space")
    terminal.until("● unsaved")
    wait_for(area, "no draft was written")
    dot = area()
    terminal.press("Enter")
    terminal.until("pen down")
    terminal.press("S-Right")
    wait_for(lambda: area() > dot, "what is drawn with the pen down is not in the draft")
    drawn, program = area(), terminal.process()
    if closed:
        terminal.tmux("kill-session")
        wait_for(lambda: not psutil.pid_exists(program), "the program outlives its terminal")
    else:
        os.kill(program, signal.SIGKILL)
    terminal.start("tui", str(tmp_path / "images"))
    terminal.until("1 mask from")
    terminal.press("Right", "Enter")
    screen = terminal.until("● unsaved")
    assert "─masks 1" in screen
    terminal.until(rf"0 +{drawn:,}\b")


def test_a_folder_that_may_not_be_written_to_loses_nothing(terminal: Terminal, tmp_path: Path) -> None:
    without_engine(terminal, tmp_path)
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere")
        terminal.prefix = ("setpriv", "--bounding-set=-dac_override")
    folder = tmp_path / "images"
    folder.chmod(0o555)
    terminal.start("tui", str(folder / "discs.png"))
    terminal.until("x  120  y   80")
    terminal.press("B")
    terminal.until("brush 8 px")
    terminal.press("Space")
    terminal.until("● unsaved")
    terminal.press("s")
    terminal.until("Not saved: not allowed to write")
    terminal.press("C-s")
    terminal.until("A folder for the set")
    terminal.press(*str(tmp_path / "mine"), "Enter")
    terminal.until("Saved 1 mask: ")
    terminal.press("q")
    terminal.until("EXIT=0")
    folder.chmod(0o755)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["discs.pkl"]
    assert [path.name for path in folder.iterdir()] == ["discs.png"]


@pytest.mark.parametrize(
    "variables", [{"TERM": "xterm", "COLORTERM": ""}, {"NO_COLOR": "1"}, {"TERM": "vt100", "COLORTERM": ""}]
)
def test_plain_terminals_and_resize_storms(terminal: Terminal, tmp_path: Path, variables: dict[str, str]) -> None:
    terminal._environment |= variables
    terminal._size = (80, 24)
    # No engine can be started here: the picture must come all the same.
    blocked = tmp_path / "file"
    blocked.write_text("")
    terminal._environment["SEGDUO_SOCKET"] = str(blocked / "engine.sock")
    terminal.start("tui", str(tmp_path / "images" / "discs.png"))
    terminal.until("x  120  y   80")
    for width, height in [(200, 50), (30, 8), (81, 25), (12, 4), (120, 40), (80, 24)]:
        terminal.tmux("resize-window", "-x", str(width), "-y", str(height))
        terminal.press("Right")

    def settled(text: str) -> bool:
        lines = text.rstrip("\n").split("\n")
        top, bottom = lines[0].lstrip(), lines[-1]
        fits = len(lines) <= 24 and max(len(line) for line in lines) <= 80
        return fits and top.startswith("segduo") and "q Quit" in bottom and "grey" in text

    screen = terminal.until(settled, 30)
    assert not re.search(r"\d;\d+;\d+m|\[<|\^\[", screen)  # no stray escape sequences
    terminal.press("q")
    terminal.until("EXIT=0")
