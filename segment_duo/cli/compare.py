"""``segduo compare``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli import human
from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    BannerOption,
    DeviceOption,
    InProcessOption,
    InputsArgument,
    JsonOption,
    MaxPixelsOption,
    PageOption,
    SocketOption,
    open_session,
)
from segment_duo.cli.output import emit_json, emit_table, note, progress
from segment_duo.errors import AlreadyExists, NotFound, StoreError, UsageError
from segment_duo.types import ImageRef, MaskSet, Provenance

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.results import AutoResult
    from segment_duo.session import OpenImage, Session

TRUTH_SUFFIXES = ("_labels.png", "_labels.tif", "_labels.tiff")
CAPTION_SHARE = 30
"""A caption is the image's height by this, at least 14 pixels."""


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("compare", rich_help_panel=panel)(compare)


def compare(
    images: InputsArgument = None,
    models: Annotated[
        str,
        typer.Option(
            "--models", metavar="A,B,...", help="The models, with options if wanted: nano,watershed:threshold=local."
        ),
    ] = "",
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="LABELS",
            help="Label image to score against; for several images a folder with NAME_labels.png.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="FILE.png", help="Write the masks side by side: a row an image, a column a model."
        ),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="default, web, fine or coarse, for all models.")] = "default",
    as_json: JsonOption = False,
    page: PageOption = 0,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    device: DeviceOption = None,
    socket: SocketOption = None,
    in_process: InProcessOption = None,
) -> None:
    """Make all masks of images with several models, and put the results side by side. Nothing is saved but the picture.

    Seconds are the engine's work on an image, loading the model included where it was not loaded; memory is what the engine's process holds
    afterwards. "as A" counts the masks that model A found as well (IoU 0.5). Scores need --truth; precision and recall are at IoU 0.5.

    [bold]Examples[/bold]

      segduo compare image.tif --models nano,watershed --picture side_by_side.png

      segduo compare examples/particles.tif --models nano,watershed --truth examples/particles_labels.tif
    """
    names = split_models(models)
    if len(names) < 2:
        raise UsageError(
            "two models or more are needed to compare", "Give --models A,B; `segduo models ls` shows them."
        )
    if picture is not None and picture.exists():
        raise AlreadyExists(f"{picture} exists already", "Give another name.")
    flags: dict[str, Any] = {"device": device, "socket": socket, "in_process": in_process, "max_pixels": max_pixels}
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(model=name, **flags)) for name in names]
        for session in sessions:
            _ready(session)
        inputs = expand_inputs(sessions[0], images, None)
        if truth is not None and truth.is_file() and len(inputs.refs) > 1:
            raise UsageError(
                "--truth names one label image, but there are several images", "Name the folder of their label images."
            )
        rows: list[Row] = []
        strips: list[npt.NDArray[np.uint8]] = []

        def one(ref: ImageRef) -> None:
            found = _compared(sessions, ref, truth, preset, page=page, banner=banner)
            rows.extend(row for row, _ in found)
            if picture is not None:
                strips.append(_strip([(f"{row.model}: {row.masks}", drawn) for row, drawn in found]))
            if as_json:
                for row, _ in found:
                    emit_json(row.record())

        try:
            run_batch(inputs.refs, one, as_json=as_json, failures=inputs.failures)
        finally:
            if rows and not as_json:
                _table(rows, scored=truth is not None)
            if strips and picture is not None:
                _write(picture, strips)


def split_models(text: str) -> list[str]:
    """Names of a list; a piece like ``option=value`` belongs to the name before it."""
    names: list[str] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        if names and "=" in piece and ":" not in piece:
            names[-1] += f",{piece}"
        else:
            names.append(piece)
    return names


@dataclass(frozen=True)
class Row:
    """What one model made of one image. ``shared``: masks that the first model has as well; ``scores`` None without truth."""

    image: str
    model: str
    first: str
    masks: int
    seconds: float
    reused: bool
    memory: int
    shared: int
    scores: dict[str, float] | None

    def record(self) -> dict[str, Any]:
        """As ``--json`` has it."""
        return {
            "image": self.image,
            "model": self.model,
            "masks": self.masks,
            "seconds": round(self.seconds, 3),
            "candidates_reused": self.reused,
            "memory_bytes": self.memory,
            "matched": {"model": self.first, "masks": self.shared},
            "scores": self.scores,
        }


def _ready(session: Session) -> None:
    """Refuse what cannot be compared before anything is computed."""
    from segment_duo.segmenters.base import Capability

    session.model.require(Capability.AUTOMATIC)


def _compared(
    sessions: Sequence[Session], ref: ImageRef, truth: Path | None, preset: str, *, page: int, banner: str
) -> list[tuple[Row, npt.NDArray[np.uint8]]]:
    """A row for each model, and its masks drawn over the image."""
    from segment_duo.masks.compare import diff
    from segment_duo.masks.compare import score as scored
    from segment_duo.masks.overlay import overlay

    found: list[tuple[Row, npt.NDArray[np.uint8]]] = []
    first: MaskSet | None = None
    labels: npt.NDArray[np.integer[Any]] | None = None
    for session in sessions:
        image = session.open_image(ref, page=page, banner=banner)
        if truth is not None and labels is None:
            labels = _truth(truth, image)
        result = _run(session, image, preset)
        masks = MaskSet(result.masks, Provenance())
        first = first or masks
        score = None if labels is None else scored(result.masks, labels)
        status = session.engine_status()
        row = Row(
            image=str(ref),
            model=session.model.id,
            first=sessions[0].model.id,
            masks=len(result.masks),
            seconds=result.seconds,
            reused=result.candidates_reused,
            memory=status.rss_bytes if status else 0,
            shared=len(diff(first, masks).matched),
            scores=None
            if score is None
            else {
                "precision": round(score.precision, 4),
                "recall": round(score.recall, 4),
                "ap50": round(score.ap50, 4),
                "ap75": round(score.ap75, 4),
                "mean_iou": round(score.mean_iou, 4),
            },
        )
        found.append((row, overlay(image.data.pixels, result.masks)))
    return found


def _run(session: Session, image: OpenImage, preset: str) -> AutoResult:
    with progress(f"{image.ref.name} {session.model.id}") as report:
        return session.auto(
            image,
            session.auto_defaults(preset),
            on_event=lambda event: report(event.done, event.total or None, event.phase),
        )


def _truth(place: Path, image: OpenImage) -> npt.NDArray[np.integer[Any]]:
    """The label image of an image: the file itself, or the one of its name in a folder."""
    from segment_duo.masks.formats.label_images import labels_array

    file = place
    if place.is_dir():
        candidates = [place / f"{image.ref.stem}{suffix}" for suffix in TRUTH_SUFFIXES]
        file = next((one for one in candidates if one.is_file()), candidates[0])
    try:
        content = file.read_bytes()
    except OSError as error:
        raise NotFound(
            f"{file}: {error.strerror or error}", "Name a label image, or a folder with NAME_labels.png."
        ) from None
    facts = image.data.facts
    return labels_array(content, facts.height, facts.width, name=file.name)


def _table(rows: Sequence[Row], *, scored: bool) -> None:
    columns = ["image", "model", "masks", "seconds", "memory", f"as {rows[0].first}"]
    names = ("precision", "recall", "ap50", "ap75", "mean_iou") if scored else ()
    cells = [
        [
            row.image.rsplit("/", 1)[-1],
            row.model,
            row.masks,
            f"{row.seconds:.2f}" + (" (again)" if row.reused else ""),
            human.size(row.memory),
            row.shared,
            *(f"{(row.scores or {})[name]:.3f}" for name in names),
        ]
        for row in rows
    ]
    titles = {"ap50": "AP50", "ap75": "AP75", "mean_iou": "mean IoU"}
    columns += [titles.get(name, name) for name in names]
    emit_table(columns, cells, right=columns[2:])


def _strip(pictures: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> npt.NDArray[np.uint8]:
    """Pictures of one size beside each other, each under its caption; uint8 (H, W, 3)."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    out = []
    for text, pixels in pictures:
        size = max(14, pixels.shape[0] // CAPTION_SHARE)
        caption = Image.new("RGB", (pixels.shape[1], size + size // 2), "black")
        ImageDraw.Draw(caption).text((4, size // 5), text, font=ImageFont.load_default(size), fill="white")
        out += [
            np.concatenate([np.asarray(caption), pixels]),
            np.full((pixels.shape[0] + size + size // 2, 4, 3), 0, np.uint8),
        ]
    return np.concatenate(out[:-1], axis=1)


def _write(file: Path, strips: Sequence[npt.NDArray[np.uint8]]) -> None:
    """The strips below each other as a PNG; never over an existing file."""
    import numpy as np
    from PIL import Image

    from segment_duo.durable import create_file

    width = max(strip.shape[1] for strip in strips)
    even = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    content = io.BytesIO()
    Image.fromarray(np.concatenate(even)).save(content, "PNG")
    try:
        create_file(file, content.getvalue())
    except FileExistsError:
        raise AlreadyExists(f"{file} exists already", "Give another name.") from None
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror or error}") from None
    note(f"picture: {file}")
