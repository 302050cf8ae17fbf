"""``segduo models add`` and ``accept``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from segment_duo.cli import completion, human
from segment_duo.cli.models.listing import find_model
from segment_duo.cli.options import load_settings
from segment_duo.cli.output import emit_path, note, waiting
from segment_duo.errors import UsageError

if TYPE_CHECKING:
    from segment_duo.segmenters.onnx import Preparation

ONNX = "A pair of ONNX files"


def register(app: typer.Typer) -> None:
    app.command()(add)
    app.command()(accept)


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
    found = find_model(name, config, paths)
    if found.asks:
        note(f"It is under {found.licence}: `segduo models accept {name}` before it runs.")
    emit_path(paths.models_dir / name)


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
    found = find_model(model, config, paths)
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
