"""``segduo train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    BannerOption,
    DeviceOption,
    FromFileOption,
    InputsArgument,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    PageOption,
    open_session,
)
from segment_duo.cli.output import emit_json, emit_path, note, progress
from segment_duo.errors import NotFound

if TYPE_CHECKING:
    from segment_duo.training.finetune import Progress

TRAINING = "Training"


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("train", rich_help_panel=panel)(train)


def train(
    images: InputsArgument = None,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the new model.")] = ...,  # type: ignore[assignment]
    base: Annotated[
        str | None, typer.Option("--base", "-b", help="Model to start from: nano, sam2.1-tiny, ..., or a trained one.")
    ] = None,
    from_file: FromFileOption = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="NAME", help="Learn from this set of each image instead of its latest."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--decoder-only",
            help="Train the image encoder too (slow), or the decoder only.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps at most; it ends early when nothing improves.", rich_help_panel=TRAINING)
    ] = 400,
    lr: Annotated[float, typer.Option(min=0, help="Highest learning rate.", rich_help_panel=TRAINING)] = 3e-4,
    val_split: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the images kept to check on.", rich_help_panel=TRAINING)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of clicks, views and the split.", rich_help_panel=TRAINING)] = 0,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="The sets do not hold every object: do not learn from the background.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    as_json: JsonOption = False,
    out: OutOption = None,
    page: PageOption = 0,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    device: DeviceOption = None,
) -> None:
    """Adapt a model to your own images, learning from their saved mask sets.

    By default only the mask decoder learns, on embeddings computed once: five images take minutes on a CPU.

    The best weights become a model of your own, listed by `segduo models ls` and used with --model NAME.

    Ctrl-C keeps the best so far; a killed run goes on where it was.

    [bold]Examples[/bold]

      segduo train annotated/ --name ours

      segduo train a.tif b.tif c.tif --base sam2.1-tiny --name grains --steps 800
    """
    from segment_duo.engine.device import choose_device
    from segment_duo.training.finetune import BaseModel, FineTuneOptions, TrainingExample, fine_tune

    options = FineTuneOptions(steps=steps, lr=lr, full=full, val_split=val_split, seed=seed)
    with open_session(out=out, model=base, device=device, max_pixels=max_pixels, say_model=base is None) as session:
        examples: list[TrainingExample] = []
        inputs = expand_inputs(session, images, from_file)
        for text, problem in inputs.failures:
            note(f"{text}: left out ({problem.message})")
        for ref in inputs.refs:
            try:
                labelled = session.labelled_image(ref, version, page=page, banner=banner)
            except NotFound as error:
                note(f"{ref}: left out ({error.message})")
                continue
            examples.append(
                TrainingExample(labelled.pixels, labelled.masks, str(ref), labelled.sha256, complete=not partial)
            )
        if not examples:
            raise NotFound(
                "none of the images has a saved set", "Make some with `segduo tui IMAGE` or `segduo auto IMAGE`."
            )
        choice = session.model
        model = BaseModel(choice.id, choice.config, choice.checkpoint, choice.sha256, dict(choice.auto_defaults))
        with progress(f"training {name}") as report:

            def show(state: Progress) -> None:
                text = state.phase if state.phase != "train" else f"loss {state.loss:.2f}  IoU {state.best_iou:.3f}"
                report(state.step, state.steps, text)

            result = fine_tune(
                model, examples, session.paths.models_dir, name, options, show, choose_device(session.config.device)
            )
    record: dict[str, Any] = {
        "model": name,
        "folder": str(result.folder),
        "base": choice.id,
        "images": len(examples),
        "steps": result.steps,
        "best_step": result.best_step,
        "ended": result.ended,
        "val_iou_before": result.val_iou_before,
        "val_iou": result.val_iou,
        "seconds": round(result.seconds, 1),
    }
    if as_json:
        emit_json(record)
        return
    note(
        f"{result.ended} after {result.steps} steps; IoU after one click {result.val_iou_before:.3f} -> {result.val_iou:.3f}. "
        f"Use it: segduo auto IMAGE --model {name}"
    )
    emit_path(result.folder)
