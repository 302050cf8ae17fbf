"""``segduo models``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli import human
from segment_duo.cli.options import JsonOption, load_settings
from segment_duo.cli.output import emit_json, emit_path, emit_table, note, progress
from segment_duo.errors import ConfigError, ModelError, UsageError

if TYPE_CHECKING:
    from segment_duo.models.registry import KnownModel

app = typer.Typer(help="Models: which there are, get them, check them.", no_args_is_help=True)


@app.command("ls")
def list_models(as_json: JsonOption = False) -> None:
    """Show every model: what is here, what can be pulled, and which one runs by default (marked with *).

    [bold]Examples[/bold]

      segduo models ls

      segduo models ls --json | jq -r '.[] | select(.default).id'

      segduo models ls --json | jq '.[] | select(.default).auto_defaults'
    """
    from segment_duo.models import registry
    from segment_duo.paths import Paths

    config, paths = load_settings().config, Paths.default()
    models = registry.known_models(paths, config)
    try:
        default = registry.resolve_model(config, paths).id
    except (ModelError, ConfigError) as error:
        default = ""
        note(f"{error.message}. {error.hint}")
    if as_json:
        emit_json([_as_json(model, default) for model in models], indent=1)
        return
    rows = [
        ("*" if model.id == default else "", model.id, model.state, _size(model), model.description) for model in models
    ]
    emit_table(("", "model", "state", "size", "what it is"), rows, right=("size",))


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="sam2.1-tiny, sam2.1-small, sam2.1-base-plus or sam2.1-large.")
    ] = "sam2.1-large",
) -> None:
    """Download a SAM 2.1 checkpoint, verify it, and use it from then on.

    A download that was cut goes on where it ended. SEGDUO_MODEL_MIRROR names a lab's mirror (an address) or a folder to take the
    file from; HTTPS_PROXY is honoured.

    [bold]Examples[/bold]

      segduo models pull sam2.1-tiny

      SEGDUO_MODEL_MIRROR=/media/usb segduo models pull
    """
    from segment_duo.models import download, registry
    from segment_duo.paths import Paths
    from segment_duo.waiting import StillWaiting

    if model == registry.NANO:
        raise UsageError("nano is built in and needs no download")
    spec = registry.spec_of(model)
    mirror = load_settings().config.model_mirror
    with_bar = sys.stderr.isatty()
    now = "connecting"
    with progress(spec.id) as report, StillWaiting(None if with_bar else note).during(lambda: f"{spec.id}: {now}"):

        def tell(done: int, total: int, what: str) -> None:
            nonlocal now
            report(done, total, what)
            now = f"{what}, {human.size(done)} of {human.size(total)}"
            # A bar says it too; without one half a minute of silence would look like a command that hangs.
            if what.startswith(download.WAITING) and not with_bar:
                note(f"{spec.id}: {what}")

        path = download.pull(spec, Paths.default(), mirror=mirror, report=tell)
    emit_path(path)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models to check; all that are here by default.")
    ] = None,
) -> None:
    """Read checkpoints whole and compare their SHA-256 with Meta's.

    Of nano, trained models and a custom pair there is nothing to compare with: they are built and loaded, which takes some seconds.

    [bold]Examples[/bold]

      segduo models verify

      segduo models verify sam2.1-large
    """
    from segment_duo.models import download, registry
    from segment_duo.paths import Paths

    paths = Paths.default()
    models = {model.id: model for model in registry.known_models(paths, load_settings().config)}
    chosen = names or [name for name, model in models.items() if model.state not in {"missing", "partial"}]
    wrong: list[KnownModel] = []
    rows = []
    for name in chosen:
        model = models.get(name)
        if model is None or (model.spec is not None and not model.checkpoint.exists()):
            raise ModelError(f"'{name}' is not on this machine", "`segduo models ls` shows what is.")
        with progress(name) as report:
            if model.spec is None:
                found, problem = model.sha256, _load_problem(model)
            else:
                checked = download.verify(model.spec, paths, report=report)
                found, problem = checked.sha256, checked.problem
        rows.append((name, problem or ("loads" if model.spec is None else "right"), found))
        wrong += [model] if problem else []
    emit_table(("model", "result", "sha256"), rows)
    if wrong:
        listed = ", ".join(f"{model.id} ({model.checkpoint})" for model in wrong)
        raise ModelError(f"not as it should be: {listed}", "\n".join(_remedy(model) for model in wrong))


def _load_problem(model: KnownModel) -> str:
    """Why a model without a known checksum cannot be used, or an empty text."""
    if not model.usable:
        return model.description
    from segment_duo.segmenters import plugins
    from segment_duo.segmenters.base import LoadRequest

    try:
        plugins.family(model.family).load(LoadRequest(model.id, model.config, str(model.checkpoint)))
    except ModelError as error:
        return error.message
    return ""


def _remedy(model: KnownModel) -> str:
    if model.spec is not None:
        return f"{model.id}: `segduo models pull {model.id}` replaces the file."
    if model.id == "nano":
        return "nano: install segduo again."
    if model.id == "custom":
        return "custom: correct MODEL_CONFIG or CHECKPOINT_PATH; `segduo config show` tells where they are set."
    return f"{model.id}: train it again, or remove {model.checkpoint.parent}."


def _size(model: KnownModel) -> str:
    if model.state in {"missing", "partial"} and model.spec is not None:
        here = f"{human.size(model.bytes)} of " if model.state == "partial" else ""
        return here + human.size(model.spec.bytes)
    return human.size(model.bytes)


def _as_json(model: KnownModel, default: str) -> dict[str, object]:
    from segment_duo.models import registry

    return {
        "id": model.id,
        "state": model.state,
        "default": model.id == default,
        "description": model.description,
        "config": model.config,
        "checkpoint": str(model.checkpoint),
        "bytes": model.bytes,
        "full_bytes": model.spec.bytes if model.spec else model.bytes,
        "sha256": model.sha256,
        "auto_defaults": registry.auto_defaults(model),
        "url": model.spec.url if model.spec else None,
    }
