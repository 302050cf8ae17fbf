"""SIGKILL in the middle: of the engine while it computes, of a command while it saves, of a delivery, and of the server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.reliability.ground import HANG_SECONDS, Row, check_set, ground, judge, labels, moments, sets_in
from segment_duo.engine import lifecycle
from segment_duo.engine.settings import EngineSettings
from segment_duo.errors import SegduoError
from tests.engine_fixtures import Home

SERVE = "import sys; from pathlib import Path; from tests.drops_server import DropsServer as D\ns = D(Path(sys.argv[1])); s._port = int(sys.argv[2]); s.start(); import threading; threading.Event().wait()"  # noqa: E501 - a program in a line
KILLED = -9


def engine(folder: Path, tries: int) -> Row:
    """The engine dies while a command waits for its masks: the command starts it anew and saves once, or says what happened.

    Half of the engines die at a random moment of the command, half while they compute for it.
    """
    row = Row("engine killed during `auto`")
    with ground(folder) as here:
        settings = Home(folder / "home").settings
        here.run("auto", here.image("warm.png", 0), "--points-per-side", 8)
        warm = here.run("auto", here.image("first.png", 1), "--points-per-side", 8, "--json")
        judge(warm, row, (0,))
        computing = json.loads(warm.out)["seconds"]
        again = 0
        for index, moment in enumerate(moments(tries, warm.seconds, 1)):
            image = here.image(f"{index}/a.png", index + 10)
            running = here.engines()
            command = here.start("auto", image, "--points-per-side", 8)
            if index % 2:
                time.sleep(moment)
            else:
                _wait_until_it_works(settings, command)
                time.sleep(moment / warm.seconds * computing / 2)
            for process in running or here.engines():
                process.kill()
            try:
                _, error = command.communicate(timeout=HANG_SECONDS)
                hung = False
            except subprocess.TimeoutExpired:
                command.kill()
                error, hung = f"no end within {HANG_SECONDS:.0f} s", True
            row.tries += 1
            again += "starting it again" in error
            if hung:
                row.count("hung", error)
            elif command.returncode not in (0, 3, 4) or "Traceback" in error:
                row.count("wrong", f"exit {command.returncode}: {error[-300:]}")
            made = sets_in(image.parent / "masks", row)
            if command.returncode == 0 and not made:
                row.count("lost", error[-300:])
            if len(made) > 1 or (command.returncode and made):
                row.count("doubled", str(made))
        row.note = f"{again} of them were in the middle of the work, which was done again"
    return row


def _wait_until_it_works(settings: EngineSettings, command: subprocess.Popen[str]) -> None:
    while command.poll() is None:
        try:
            status = lifecycle.probe(settings)
        except SegduoError:
            status = None
        if status is not None and status.running is not None:
            return
        time.sleep(0.02)


def command(folder: Path, tries: int) -> Row:
    """A command dies while it saves: the version is whole or not there, and the next save works."""
    row = Row("command killed during a save")
    with ground(folder) as here:
        image, marks = here.image("a.png", 1), labels(folder / "labels.png")
        seconds = here.run("masks", "import", image, marks).seconds
        finished = 0
        for moment in moments(tries, seconds, 2):
            before = set(sets_in(folder / "masks", row))
            done = here.run("masks", "import", image, marks, kill_after=moment)
            new = set(sets_in(folder / "masks", row)) - before
            row.tries += 1
            finished += bool(new)
            if done.code != KILLED:
                judge(done, row, (0,))
            if done.code == 0 and not new:
                row.count("lost", done.error[-300:])
            if len(new) > 1:
                row.count("doubled", str(new))
        last = here.run("masks", "import", image, marks)
        judge(last, row, (0,))
        row.note = f"{finished} times the set was there already, whole"
    return row


def delivery(folder: Path, tries: int) -> Row:
    """A delivery of the spool dies: the next one ends with each set on the server exactly once."""
    from tests.drops_server import DropsServer

    row = Row("`masks push` killed during a delivery")
    server = DropsServer(folder / "drops")
    server.start()
    with ground(folder, **server.environment) as here:
        marks = labels(folder / "labels.png")
        server.put("/lab/a.png", here.image("a.png", 1).read_bytes())
        seconds = 1.0
        for index, moment in enumerate([0.0, *moments(tries, 1.0, 3)]):
            name = f"/lab/{index}.png"
            server.put(name, here.image("a.png", index).read_bytes())
            server.faults.routes, server.faults.status = ("/upload/",), 403
            judge(here.run("masks", "import", f"/drops{name}", marks), row, (10,))
            server.faults.clear()
            first = here.run("masks", "push", kill_after=None if index == 0 else moment * seconds)
            seconds = first.seconds if index == 0 else seconds
            judge(here.run("masks", "push"), row, (0,))
            row.tries += 1
            _owed(server.files(), f"/lab/masks/{index}", row)
        if list((folder / "home" / "state" / "spool").glob("*/set.pkl")):
            row.count("lost", "sets are still in the spool")
    server.stop()
    return row


def server(folder: Path, tries: int) -> Row:
    """The server is killed while a set is made and saved, and comes back: the set ends up there once, or was never promised."""
    row = Row("server killed during a save to Drops")
    port = _free_port()
    settings = {
        "SEGDUO_DROPS_URL": f"http://127.0.0.1:{port}",
        "SEGDUO_DROPS_USERNAME": "ann",
        "SEGDUO_DROPS_PASSWORD": "secret",
    }
    root = folder / "drops"
    with ground(folder, **settings) as here:
        marks = labels(folder / "labels.png")
        running = _serve(root, port)
        spooled = 0
        try:
            seconds = 1.0
            for index, moment in enumerate([0.0, *moments(tries, 1.0, 4)]):
                file = here.image(f"drops/lab/{index}.png", index)
                started = time.monotonic()
                work = here.start("masks", "import", f"/drops/lab/{file.name}", marks)
                if index:
                    time.sleep(moment * seconds)
                    running.kill()
                    running.wait()
                try:
                    _, error = work.communicate(timeout=HANG_SECONDS)
                except subprocess.TimeoutExpired:
                    work.kill()
                    error = ""
                    row.count("hung", f"{index}: no end within 120 s")
                seconds = time.monotonic() - started if not index else seconds
                row.tries += 1
                spooled += work.returncode == 10
                if work.returncode not in (0, 5, 10) or "Traceback" in error:
                    row.count("wrong", f"exit {work.returncode}: {error[-300:]}")
                if index:
                    running = _serve(root, port)
                judge(here.run("masks", "push"), row, (0,))
                files = {
                    "/" + str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
                }
                if work.returncode in (0, 10):
                    _owed(files, f"/lab/masks/{index}", row)
        finally:
            running.kill()
            running.wait()
        row.note = f"{spooled} sets waited in the spool"
    return row


def _owed(files: dict[str, bytes], stem: str, row: Row) -> None:
    """Exactly one whole set of this image must be on the server."""
    made = [path for path in files if path == f"{stem}.pkl" or path.startswith(f"{stem}_")]
    if not made:
        row.count("lost", stem)
    if len(made) > 1:
        row.count("doubled", str(made))
    for path in made:
        check_set(files[path], path, row)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _serve(root: Path, port: int) -> psutil.Popen:
    root.mkdir(parents=True, exist_ok=True)
    process = psutil.Popen([sys.executable, "-c", SERVE, str(root), str(port)], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process
    raise RuntimeError("the server does not start")
