"""``segduo models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli import human
from segment_duo.cli.options import JsonOption
from segment_duo.cli.output import emit, emit_json, emit_table, note, progress
from segment_duo.errors import ModelError, UsageError

if TYPE_CHECKING:
    from segment_duo.models.registry import KnownModel

app = typer.Typer(help="Models: which there are, get them, check them.", no_args_is_help=True)


@app.command("ls")
def list_models(as_json: JsonOption = False) -> None:
    """Show every model: what is here, what can be pulled, and which one runs by default (marked with *)."""
    from segment_duo.config import load_config
    from segment_duo.models import registry
    from segment_duo.paths import Paths

    config, paths = load_config().config, Paths.default()
    models = registry.known_models(paths, config)
    try:
        default = registry.resolve_model(config, paths).id
    except ModelError as error:
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
    """
    from segment_duo.config import load_config
    from segment_duo.models import download, registry
    from segment_duo.paths import Paths

    if model == registry.NANO:
        raise UsageError("nano is built in and needs no download")
    spec = registry.spec_of(model)
    with progress(spec.id) as report:
        path = download.pull(spec, Paths.default(), mirror=load_config().config.model_mirror, report=report)
    emit(path)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models to check; all that are here by default.")
    ] = None,
) -> None:
    """Read checkpoints whole and compare their SHA-256 with what it should be."""
    from segment_duo.config import load_config
    from segment_duo.models import download, registry
    from segment_duo.paths import Paths

    paths = Paths.default()
    models = {model.id: model for model in registry.known_models(paths, load_config().config)}
    chosen = names or [name for name, model in models.items() if model.state not in {"missing", "partial"}]
    wrong: list[str] = []
    rows = []
    for name in chosen:
        model = models.get(name)
        if model is None or (model.spec is not None and not model.checkpoint.exists()):
            raise ModelError(f"'{name}' is not on this machine", "`segduo models ls` shows what is.")
        if model.spec is None:
            # Nothing is known beforehand of nano and of a user's own weights; their hash is what mask sets record.
            found, verdict = model.sha256, model.state if model.usable else model.description
            right = model.usable
        else:
            with progress(name) as report:
                checked = download.verify(model.spec, paths, report=report)
            found, verdict, right = checked.sha256, checked.problem or "right", not checked.problem
        rows.append((name, verdict, found))
        wrong += [] if right else [name]
    emit_table(("model", "result", "sha256"), rows)
    if wrong:
        raise ModelError(f"not as it should be: {', '.join(wrong)}", "Remove the file and pull it again.")


def _size(model: KnownModel) -> str:
    if model.state in {"missing", "partial"} and model.spec is not None:
        here = f"{human.size(model.bytes)} of " if model.state == "partial" else ""
        return here + human.size(model.spec.bytes)
    return human.size(model.bytes)


def _as_json(model: KnownModel, default: str) -> dict[str, object]:
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
        "url": model.spec.url if model.spec else None,
    }
