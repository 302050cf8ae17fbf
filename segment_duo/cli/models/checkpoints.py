"""``segduo models pull`` and ``verify``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli import completion, human
from segment_duo.cli.options import load_settings
from segment_duo.cli.output import emit_path, emit_table, note, progress
from segment_duo.errors import ModelError, UsageError

if TYPE_CHECKING:
    from segment_duo.models.known import KnownModel


def register(app: typer.Typer) -> None:
    app.command()(pull)
    app.command()(verify)


def pull(
    model: Annotated[
        str,
        typer.Argument(
            help="sam2.1-tiny, sam2.1-small, sam2.1-base-plus or sam2.1-large.", autocompletion=completion.pulled_models
        ),
    ] = "sam2.1-large",
) -> None:
    """Download a SAM 2.1 checkpoint, verify it, and use it from then on.

    A download that was cut goes on where it ended. SEGDUO_MODEL_MIRROR names a lab's mirror (an address) or a folder to take the
    file from; HTTPS_PROXY is honoured.

    [bold]Examples[/bold]

      segduo models pull sam2.1-tiny

      SEGDUO_MODEL_MIRROR=/media/usb segduo models pull
    """
    from segment_duo.models import download, known, registry
    from segment_duo.paths import Paths

    if model == known.NANO:
        raise UsageError("nano is built in and needs no download")
    spec = registry.spec_of(model)
    mirror = load_settings().config.model_mirror
    with_bar = sys.stderr.isatty()
    with progress(spec.id) as report:

        def tell(done: int, total: int, what: str) -> None:
            report(done, total, what if with_bar else f"{what}, {human.size(done)} of {human.size(total)}")
            # A bar says it too; without one half a minute of silence would look like a command that hangs.
            if what.startswith(download.WAITING) and not with_bar:
                note(f"{spec.id}: {what}")

        path = download.pull(spec, Paths.default(), mirror=mirror, report=tell)
    emit_path(path)


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Models to check; all that are here by default.",
            autocompletion=completion.models,
        ),
    ] = None,
) -> None:
    """Read checkpoints whole and compare their SHA-256 with Meta's.

    Of nano, trained models and a custom pair there is nothing to compare with: they are built and loaded, which takes some seconds.

    [bold]Examples[/bold]

      segduo models verify

      segduo models verify sam2.1-large
    """
    from segment_duo.models import download, known
    from segment_duo.paths import Paths

    paths = Paths.default()
    models = {model.id: model for model in reversed(known.known_models(paths, load_settings().config))}
    here = {
        "missing",
        "partial",
        "built-in",
        "external",
        "plug-in",
    }  # loading other people's code is to be asked for by its name
    chosen = names or [name for name, model in reversed(models.items()) if model.state not in here]
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
        options = {name: option.default for name, option in model.options.items()}
        checkpoint = str(model.checkpoint) if model.family == plugins.SAM2 else ""
        plugins.load(model.family, LoadRequest(model.id, model.config, checkpoint, options=options))
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
    if model.family in {"onnx", "hf"}:
        return f"{model.id}: remove {model.config} and add it again."
    if model.family != "sam2":
        return f"{model.id}: {model.description}"
    return f"{model.id}: train it again, or remove {model.checkpoint.parent}."
