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
from segment_duo.errors import InputError, NotFound, UsageError

if TYPE_CHECKING:
    from segment_duo.session import LabelledImage, Session
    from segment_duo.training.finetune import FineTuneResult
    from segment_duo.training.options import TrainingProgress
    from segment_duo.training.validation import Scores
    from segment_duo.training.views import LabelledPicture
    from segment_duo.types import ImageRef

TRAINING = "Training"

FAR_FEWER = 0.5
"""A latest set with less than this share of an earlier one's masks is taken for a stray: one click saved after a whole set."""


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
    latest: Annotated[
        bool,
        typer.Option("--latest", help="Learn from the latest sets even where an earlier one holds far more masks."),
    ] = False,
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
    ] = 240,
    lr: Annotated[float, typer.Option(min=0, help="Highest learning rate.", rich_help_panel=TRAINING)] = 3e-4,
    val_split: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the images kept to check on.", rich_help_panel=TRAINING)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of clicks, views and scenes.", rich_help_panel=TRAINING)] = 0,
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

    By default only the mask decoder learns: five images take minutes on a CPU.

    Some images are kept apart. Clicks and automatic masks are scored on them before and after; the result is recommended
    only if neither loses, and else keeps the weights of the base. Thresholds for `segduo auto` are chosen on the same images.

    The model is listed by `segduo models ls` and used with --model NAME.

    Ctrl-C keeps the best so far; a killed run goes on where it was.

    [bold]Examples[/bold]

      segduo train annotated/ --name ours

      segduo train a.tif b.tif c.tif --base sam2.1-tiny --name grains --steps 800
    """
    from segment_duo.engine.device import choose_device
    from segment_duo.segmenters.plugins import SAM2
    from segment_duo.training.finetune import fine_tune
    from segment_duo.training.options import BaseModel, FineTuneOptions

    options = FineTuneOptions(steps=steps, lr=lr, full=full, val_split=val_split, seed=seed)
    with open_session(out=out, model=base, device=device, max_pixels=max_pixels, say_model=base is None) as session:
        choice = session.model
        if choice.family != SAM2:
            raise UsageError(
                f"'{choice.id}' cannot be trained: it is no SAM 2 model", "Name one with --base: nano, sam2.1-tiny, ..."
            )
        pictures: list[LabelledPicture] = []
        inputs = expand_inputs(session, images, from_file)
        for text, problem in inputs.failures:
            note(f"{text}: left out ({problem.message})")
        for ref in inputs.refs:
            try:
                labelled = session.labelled_image(ref, version, page=page, banner=banner)
            except NotFound as error:
                note(f"{ref}: left out ({error.message})")
                continue
            if version is None and not latest:
                _refuse_stray(session, ref, labelled)
            pictures.append(_picture(ref, labelled, complete=not partial))
        if not pictures:
            raise NotFound(
                "none of the images has a saved set", "Make some with `segduo tui IMAGE` or `segduo auto IMAGE`."
            )
        model = BaseModel(choice.id, choice.config, choice.checkpoint, choice.sha256, dict(choice.auto_defaults))
        with progress(f"training {name}") as report:

            def tell(state: TrainingProgress) -> None:
                report(state.step, state.steps, _text(state))

            device_chosen = choose_device(session.config.device)
            result = fine_tune(model, pictures, session.paths.models_dir, name, options, tell, device_chosen)
    if as_json:
        emit_json(_record(name, choice.id, len(pictures), result))
        return
    note(f"{result.ended} after {result.steps} steps, {result.seconds / 60:.1f} min")
    note(f"before: {_scores(result.before)}")
    if result.gained:
        note(f"after:  {_scores(result.after)}")
        note(f"Use it: segduo auto IMAGE --model {name}")
    else:
        note(
            f"Nothing was gained: no state of the training kept both clicks and automatic masks. '{name}' holds the weights of {choice.id}. "
            "More images, --full or another --base may help."
        )
    emit_path(result.folder)


def _picture(ref: ImageRef, labelled: LabelledImage, *, complete: bool) -> LabelledPicture:
    from segment_duo.training.views import LabelledPicture, ObjectMask

    rows = labelled.pixels.shape[0]
    objects = (ObjectMask.of_rle(mask.rle, rows) for mask in labelled.masks)
    return LabelledPicture(
        labelled.pixels, [o for o in objects if o is not None], str(ref), labelled.sha256, complete=complete
    )


def _refuse_stray(session: Session, ref: ImageRef, labelled: LabelledImage) -> None:
    """Raise when an earlier set of the image holds far more masks than the latest: the model would learn that all else is background."""
    for earlier in session.sets.listed(ref):
        if not earlier.belongs or earlier.peek is None or earlier.version == labelled.version:
            continue
        if len(labelled.masks) < FAR_FEWER * earlier.peek.count:
            raise InputError(
                f"{ref}: its latest set ({labelled.version.name}) holds {len(labelled.masks)} masks, set {earlier.version.name} "
                f"holds {earlier.peek.count}",
                "Name the set to learn from with --version, or add --latest if the latest is meant.",
            )


def _text(state: TrainingProgress) -> str:
    if state.phase == "prepare":
        return "preparing"
    text = "checking" if state.phase == "validate" else f"loss {state.loss:.2f}"
    return text if state.best is None else f"{text}  one click {state.best.one_click:.3f}  auto F1 {state.best.f1:.3f}"


def _scores(scores: Scores) -> str:
    return (
        f"IoU {scores.one_click:.3f} after one click, {scores.three_clicks:.3f} after three; "
        f"automatic masks: precision {scores.precision:.3f}, recall {scores.recall:.3f}"
    )


def _record(name: str, base: str, images: int, result: FineTuneResult) -> dict[str, Any]:
    return {
        "model": name,
        "folder": str(result.folder),
        "base": base,
        "images": images,
        "steps": result.steps,
        "best_step": result.best_step,
        "ended": result.ended,
        "gained": result.gained,
        "before": result.before.record(),
        "after": result.after.record(),
        "thresholds": dict(result.after.thresholds),
        "seconds": round(result.seconds, 1),
    }
