"""``segduo engine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli import human
from segment_duo.cli.options import (
    ENGINE_PANEL,
    BannerOption,
    DeviceOption,
    JsonOption,
    MaxPixelsOption,
    PageOption,
    SocketOption,
    load_settings,
)
from segment_duo.cli.output import emit, emit_json, emit_table, note, waiting
from segment_duo.errors import EngineUnavailable, UsageError
from segment_duo.text import duration

if TYPE_CHECKING:
    from segment_duo.engine.api import Engine
    from segment_duo.engine.reports import CacheUse, EngineStatus, RunningUpload
    from segment_duo.engine.settings import EngineSettings
    from segment_duo.session import Session

app = typer.Typer(help="The engine: the daemon that holds the model and the images.", no_args_is_help=True)

IdleOption = Annotated[
    float | None, typer.Option("--idle-minutes", help="Exit after so many minutes without work (default 30).")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]
ListenOption = Annotated[
    Path | None,
    typer.Option("--socket", help="Where it listens, instead of the user's own socket.", rich_help_panel=ENGINE_PANEL),
]


@app.command()
def start(
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    idle_minutes: IdleOption = None,
    socket: ListenOption = None,
) -> None:
    """Start the engine in the background. Commands do so by themselves; this only saves the first one the wait.

    An idle engine on another device is replaced. One that runs keeps its threads and idle time: asking for others is an error.

    [bold]Example[/bold]

      segduo engine start --device cuda --idle-minutes 240
    """
    from segment_duo.engine import lifecycle

    settings = _settings(device=device, threads=threads, idle_minutes=idle_minutes, socket=socket)
    before = lifecycle.probe(settings)
    status = lifecycle.ensure_running(settings)
    if before is not None and before.pid == status.pid:
        asked = {"--threads": threads not in (None, status.threads), "--idle-minutes": idle_minutes is not None}
        ignored = [option for option, given in asked.items() if given]
        if ignored:
            raise UsageError(
                f"the engine runs already (pid {status.pid}): {' and '.join(ignored)} would change nothing",
                "End it first: `segduo engine stop`.",
            )
    note(f"engine {status.version}, pid {status.pid}, {status.socket}")


@app.command()
def stop(socket: SocketOption = None) -> None:
    """Stop the engine: ask it, then SIGTERM, then SIGKILL. Work that runs is cancelled.

    [bold]Example[/bold]

      segduo engine stop
    """
    from segment_duo.engine import lifecycle

    if not lifecycle.stop(_settings(socket=socket), notify=note):
        note("no engine was running")


@app.command()
def status(as_json: JsonOption = False, socket: SocketOption = None) -> None:
    """Show what the engine holds and does. Answers at once, also while it computes; exit code 3 if none runs.

    [bold]Examples[/bold]

      segduo engine status

      segduo engine status --json | jq .running
    """
    from segment_duo.engine import lifecycle

    settings = _settings(socket=socket)
    found = lifecycle.probe(settings)
    if found is None:
        raise lifecycle.nobody_listens(settings)
    if as_json:
        emit_json(found.model_dump(mode="json"), indent=1)
    else:
        emit_table(("field", "value"), _rows(found))


@app.command()
def release(
    image: Annotated[str | None, typer.Argument(metavar="[IMAGE]", help="The image to forget.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget all images.")] = False,
    page: PageOption = 0,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    socket: SocketOption = None,
) -> None:
    """Free what the engine holds of an image, or of all: pixels, embeddings and candidates, in memory and on disk. Starts no engine.

    [bold]Examples[/bold]

      segduo engine release image.tif

      segduo engine release --all
    """
    from segment_duo.session import Session

    if everything == (image is not None):
        raise UsageError("name one IMAGE, or --all")
    session = Session(load_settings({"socket": socket, "max_pixels": max_pixels}), notify=note, waiting=waiting)
    image_id = None
    if image is not None:
        image_id = session.open_image(session.reference(image), page=page, banner=banner).image_id
    freed = _to_release(session).release(image_id)
    note(
        f"{freed.images} image{'s' * (freed.images != 1)} released: "
        f"{human.size(freed.memory_bytes)} of memory, {human.size(freed.disk_bytes)} on disk"
    )


@app.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 40,
    socket: SocketOption = None,
) -> None:
    """Print the end of the engine's log.

    [bold]Example[/bold]

      segduo engine logs -n 100
    """
    from segment_duo.engine import log_file

    log = _settings(socket=socket).log
    if not log.exists():
        raise EngineUnavailable(f"there is no log yet: {log}", "The engine has not run here.")
    for line in log_file.log_tail(log, lines).splitlines():
        emit(line)


@app.command()
def run(
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    idle_minutes: IdleOption = None,
    socket: ListenOption = None,
) -> None:
    """Run the engine in the foreground, for systemd, launchd, or to watch it. Ctrl-C stops it.

    [bold]Example[/bold]

      segduo engine run --device cpu --threads 4
    """
    from segment_duo.engine import lifecycle

    lifecycle.run_in_foreground(_settings(device=device, threads=threads, idle_minutes=idle_minutes, socket=socket))


def _to_release(session: Session) -> Engine:
    """The engine to ask; where the user's own does not run, one in this process, as there are only files to remove."""
    from segment_duo.engine import lifecycle
    from segment_duo.engine.inprocess import InProcessEngine
    from segment_duo.engine.settings import EngineSettings

    settings = EngineSettings.of(session.config, session.paths)
    if session.config.socket is None and lifecycle.probe(settings) is None:
        return InProcessEngine(settings)
    return session.engine()


def _settings(**flags: Any) -> EngineSettings:
    from segment_duo.engine.settings import EngineSettings
    from segment_duo.paths import Paths

    paths = Paths.default()
    return EngineSettings.of(load_settings(flags, paths=paths).config, paths)


def _rows(status: EngineStatus) -> list[tuple[str, str]]:
    rows = [
        ("state", f"{status.state}, up {duration(status.uptime_seconds)}"),
        ("version", f"{status.version}, protocol {status.protocol}, pid {status.pid}"),
        ("socket", status.socket),
        ("device", _device(status)),
    ]
    rows += [("model", f"{model.id}  {model.sha256[:12]}") for model in status.models] or [("model", "none loaded")]
    rows += [("memory", f"{human.size(status.rss_bytes)} in all"), ("memory cache", _use(status.memory_cache))]
    rows += [("disk cache", _use(status.disk_cache))]
    if status.device_memory is not None:
        rows += [("device memory", _use(status.device_memory))]
    for image in status.images:
        models = ", ".join(image.models) or "pixels only"
        rows += [("image", f"{image.id[:12]}  {image.width} x {image.height}  {human.size(image.bytes)}  {models}")]
    if status.running is not None:
        job = status.running
        far = f" {job.done} of {job.total}" if job.total else ""
        rows += [
            ("running", f"{job.kind} of {job.image[:12]}: {job.phase}{far}, {job.seconds:.1f} s{_for(job.client)}")
        ]
    rows += [("queue", f"{len(status.queue)} of {status.queue_limit}")]
    rows += [
        ("waiting", f"{job.kind} of {job.image[:12]}, {job.seconds:.1f} s{_for(job.client)}") for job in status.queue
    ]
    rows += [("upload", _upload(upload)) for upload in status.uploads]
    if status.idle_exit_seconds is not None:
        rows += [("idle exit in", duration(status.idle_exit_seconds))]
    return [*rows, ("log", status.log)]


def _for(client: str) -> str:
    return f", for {client}" if client else ""


def _upload(upload: RunningUpload) -> str:
    came = f"{human.size(upload.received)} of {human.size(upload.bytes)}"
    still = f", nothing for {duration(upload.silent_seconds)}" if upload.silent_seconds >= 2 else ""
    return f"image {upload.image[:12]}, {came} in {duration(upload.seconds)}{still}"


def _device(status: EngineStatus) -> str:
    if status.failure is not None:
        return f"none: {status.failure.message}"
    name = f" ({status.device_name})" if status.device_name else ""
    return f"{status.device}{name}, {status.threads} threads" if status.device else "not chosen yet"


def _use(use: CacheUse) -> str:
    return f"{human.size(use.used)} of {human.size(use.bound)}, {use.entries} entries"
