"""``segduo models``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from segment_duo.cli import completion, human
from segment_duo.cli.options import JsonOption, load_settings
from segment_duo.cli.output import emit_json, emit_path, emit_table, note, progress, waiting
from segment_duo.errors import ConfigError, ModelError, UsageError

if TYPE_CHECKING:
    from segment_duo.config import Config
    from segment_duo.models.known import KnownModel
    from segment_duo.paths import Paths
    from segment_duo.segmenters.base import Option
    from segment_duo.segmenters.onnx import Preparation

app = typer.Typer(help="Models: which there are, get them, check them.", no_args_is_help=True)

ONNX = "A pair of ONNX files"


@app.command("ls")
def list_models(as_json: JsonOption = False) -> None:
    """Show every model: what is here, what can be pulled, and which one runs by default (marked with *).

    [bold]Examples[/bold]

      segduo models ls

      segduo models ls --json | jq -r '.[] | select(.default).id'

      segduo models ls --json | jq '.[] | select(.default).auto_defaults'
    """
    from segment_duo.models import known, registry
    from segment_duo.paths import Paths

    config, paths = load_settings().config, Paths.default()
    models = known.known_models(paths, config)
    try:
        default = registry.resolve_model(config, paths).name
    except (ModelError, ConfigError) as error:
        default = ""
        note(f"{error.message}. {error.hint}")
    if as_json:
        emit_json([_as_json(model, default, paths) for model in models], indent=1)
        return
    rows = [
        (
            "*" if model.id == default else "",
            model.id,
            model.state,
            _size(model),
            model.description,
            _licence(model, paths),
            ", ".join(sorted(model.capabilities)),
        )
        for model in models
    ]
    emit_table(("", "model", "state", "size", "what it is", "licence", "can"), rows, right=("size",))


@app.command()
def show(
    model: Annotated[
        str,
        typer.Argument(help="A model's name, as `segduo models ls` shows it.", autocompletion=completion.models),
    ],
    as_json: JsonOption = False,
) -> None:
    """Tell all that is known of a model: licence, source, size, hash, what it can, its options.

    [bold]Examples[/bold]

      segduo models show nano

      segduo models show watershed --json | jq .options
    """
    from segment_duo.models import registry
    from segment_duo.paths import Paths

    config, paths = load_settings().config, Paths.default()
    found = _known(model, config, paths)
    if as_json:
        try:
            default = registry.resolve_model(config, paths).name
        except (ModelError, ConfigError):
            default = ""
        emit_json(_as_json(found, default, paths), indent=1)
        return
    rows = [
        ("model", found.id),
        ("what it is", found.description),
        ("state", found.state),
        ("licence", _licence(found, paths)),
        ("terms", found.terms),
        ("source", found.source or (found.spec.url if found.spec else "")),
        ("size", _size(found)),
        ("sha256", found.sha256),
        ("can", ", ".join(sorted(found.capabilities))),
        ("input", f"{found.input_size} x {found.input_size} pixels" if found.input_size else "the image as it is"),
    ]
    rows += [(f"option {name}", _option(option)) for name, option in found.options.items()]
    emit_table(("", ""), [row for row in rows if row[1]], whole=("",))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the model is to be called.")],
    encoder: Annotated[
        Path | None, typer.Option("--encoder", help="ONNX file of the image encoder.", rich_help_panel=ONNX)
    ] = None,
    decoder: Annotated[
        Path | None, typer.Option("--decoder", help="ONNX file of the mask decoder.", rich_help_panel=ONNX)
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="sam1 (padded to a square) or sam2 (squeezed).",
            show_default="by the decoder's inputs",
            rich_help_panel=ONNX,
        ),
    ] = "",
    values: Annotated[
        str,
        typer.Option(
            "--input",
            help="What the encoder wants: normalised (as SAM's), unit (0 to 1) or raw (0 to 255).",
            show_default="by the encoder's input",
            rich_help_panel=ONNX,
        ),
    ] = "",
    transformers: Annotated[
        str,
        typer.Option(
            "--transformers",
            metavar="FOLDER|ORG/NAME",
            help="A model of transformers: its folder, or its name in the hub's cache.",
        ),
    ] = "",
    licence: Annotated[
        str, typer.Option("--licence", help="SPDX name of the weights' licence, such as Apache-2.0.")
    ] = "",
    terms: Annotated[
        Path | None, typer.Option("--licence-file", help="Text of the licence; `models show` and `accept` show it.")
    ] = None,
    source: Annotated[str, typer.Option("--source", help="Where the files are from: an address, a paper.")] = "",
) -> None:
    """Add a model of another runtime: a pair of ONNX files, or a model of transformers that is on this machine.

    A pair is looked through (no custom operators, no weights outside its folder), run once, and copied into the models folder.
    The files of transformers stay where they are.

    Size, SHA-256 and licence are recorded. Nothing is downloaded.

    [bold]Examples[/bold]

      segduo models add mobile-sam --encoder encoder.onnx --decoder decoder.onnx --licence Apache-2.0

      segduo models add sam2-onnx --encoder e.onnx --decoder d.onnx --layout sam2

      segduo models add sam2-tiny-hf --transformers facebook/sam2.1-hiera-tiny
    """
    from segment_duo.models import adding, known
    from segment_duo.paths import Paths

    config, paths = load_settings().config, Paths.default()
    _one_of("--layout", layout, ("sam1", "sam2"))
    _one_of("--input", values, ("normalised", "unit", "raw"))
    if bool(transformers) == bool(encoder or decoder):
        raise UsageError("give either --encoder and --decoder, or --transformers", "segduo models add --help")
    recorded: dict[str, Any] = {
        "taken": sorted({*known.RESERVED, *(model.id for model in known.known_models(paths, config))}),
        "licence": licence,
        "terms": _licence_text(terms),
        "source": source,
    }
    if transformers:
        card = adding.add_hf(paths, name, transformers, **recorded)
    elif encoder is None or decoder is None:
        raise UsageError(f"--{'decoder' if encoder else 'encoder'} is missing", "A pair needs both files.")
    else:
        preparation = cast("Preparation | None", values or None)
        card = adding.add_onnx(
            paths, name, encoder, decoder, layout=layout or None, preparation=preparation, **recorded
        )
    note(f"{name}: {card.description}, {human.size(card.bytes)}; it can: {', '.join(card.capabilities)}")
    found = _known(name, config, paths)
    if found.asks:
        note(f"It is under {found.licence}: `segduo models accept {name}` before it runs.")
    emit_path(paths.models_dir / name)


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value and value not in choices:
        raise UsageError(f"{option}: '{value}' is none of {', '.join(choices)}")


def _licence_text(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(2**18)
    except OSError as error:
        raise UsageError(f"--licence-file {file}: {error.strerror or error}") from None


@app.command()
def accept(
    model: Annotated[str, typer.Argument(help="The model whose licence you accept.", autocompletion=completion.models)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Accept the licence of a model that is not under a permissive one. Asked once; recorded beside config.toml.

    [bold]Example[/bold]

      segduo models accept cellpose
    """
    from segment_duo.models import licences
    from segment_duo.paths import Paths
    from segment_duo.text import safe

    config, paths = load_settings().config, Paths.default()
    found = _known(model, config, paths)
    if not found.asks:
        note(f"{found.id}: {licences.described(found.licence)}, nothing is to be accepted")
        return
    if licences.is_accepted(paths, found.id, found.licence):
        note(f"{found.id}: accepted already")
        return
    note(f"{found.id} ({found.description}) has {licences.described(found.licence)}.")
    for line in found.terms.splitlines():
        note(f"  {line}")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "nobody to ask: stdin is no terminal",
                f"Read the licence, then: segduo models accept {safe(found.id)} --yes",
            )
        with waiting.hushed():
            accepted = typer.confirm("Do you accept it?", err=True)
        if not accepted:
            raise UsageError(f"the licence of '{found.id}' was not accepted", "Nothing was changed.")
    licences.accept(paths, found.id, found.licence)
    note(f"{found.id}: accepted")


@app.command()
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


@app.command()
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


def _size(model: KnownModel) -> str:
    if model.state in {"missing", "partial"} and model.spec is not None:
        here = f"{human.size(model.bytes)} of " if model.state == "partial" else ""
        return here + human.size(model.spec.bytes)
    return human.size(model.bytes)


def _known(name: str, config: Config, paths: Paths) -> KnownModel:
    from segment_duo.models import known, registry

    models = {model.id: model for model in reversed(known.known_models(paths, config))}
    if name not in models:
        raise registry.unknown_model(name, list(models))
    return models[name]


def _licence(model: KnownModel, paths: Paths) -> str:
    """The licence as a cell of a table, with what is still to be done."""
    from segment_duo.models import licences

    if not model.asks or not model.usable:
        return model.licence
    done = "accepted" if licences.is_accepted(paths, model.id, model.licence) else "to be accepted"
    return f"{model.licence or 'not stated'} ({done})"


def _option(option: Option) -> str:
    choices = f"{', '.join(option.choices)}; " if option.choices else ""
    value = str(option.default).lower() if isinstance(option.default, bool) else option.default
    return f"{option.help} ({choices}default {value})"


def _as_json(model: KnownModel, default: str, paths: Paths) -> dict[str, object]:
    from segment_duo.models import known, licences

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
        "family": model.family,
        "capabilities": sorted(model.capabilities),
        "licence": model.licence,
        "terms": model.terms,
        "accepted": not model.asks or licences.is_accepted(paths, model.id, model.licence),
        "source": model.source,
        "options": {name: dataclasses.asdict(option) for name, option in model.options.items()},
        "auto_defaults": known.auto_defaults(model),
        "input_size": model.input_size,
        "url": model.spec.url if model.spec else None,
    }
