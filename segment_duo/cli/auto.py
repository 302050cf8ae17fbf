"""``segduo auto``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.batch import run_batch
from segment_duo.cli.inputs import Listings, expand_inputs
from segment_duo.cli.options import (
    BannerOption,
    DeviceOption,
    FromFileOption,
    InProcessOption,
    InputsArgument,
    JsonOption,
    MaxPixelsOption,
    ModelOption,
    OutOption,
    PageOption,
    PixelSizeOption,
    SocketOption,
    SuffixOption,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import ProgressReporter, emit, emit_json, note, progress
from segment_duo.cli.saving import NEXT_DELIVERY, deliver_waiting, report_saved
from segment_duo.errors import InputError, NotFound, SavedToSpoolOnly, UsageError
from segment_duo.prompts import parse_box
from segment_duo.types import AutoParameters, ImageRef

if TYPE_CHECKING:
    from segment_duo.engine.protocol import AutoEvent
    from segment_duo.session import OpenImage, Session

GRID = "Point grid and crops"
FILTERS = "Filters"
LARGE = "Large images and speed"

THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh", "min_mask_region_area")
"""What can drop every mask; of overlapping ones the best stays."""


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("auto", rich_help_panel=panel)(auto)


def auto(
    images: InputsArgument = None,
    from_file: FromFileOption = None,
    preset: Annotated[
        str, typer.Option("--preset", help="default, web (as the former web page), fine or coarse.")
    ] = "default",
    suffix: SuffixOption = "",
    out: OutOption = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out images that have a set with this suffix already.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="With --no-save --json the masks go to stdout only.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell which images would be done.")] = False,
    as_json: JsonOption = False,
    points_per_side: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1024,
            help="Grid points along each side; 32 means 1,024 prompts. [dim]\\[default: 32][/dim]",
            rich_help_panel=GRID,
        ),
    ] = None,
    points_per_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Prompts decoded together (default: by size and memory).", rich_help_panel=GRID
        ),
    ] = None,
    point_grids: Annotated[
        Path | None,
        typer.Option(help="JSON file with a list of x, y pairs from 0 to 1, instead of a grid.", rich_help_panel=GRID),
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Prompt only inside this box.", rich_help_panel=GRID)
    ] = None,
    crop_n_layers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=4,
            help="Layers of crops that are done as well; 1 adds 4 crops, 2 adds 20. [dim]\\[default: 0][/dim]",
            rich_help_panel=GRID,
        ),
    ] = None,
    crop_overlap_ratio: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=0.9,
            help="Overlap of crops, as a share of the image. [dim]\\[default: 0.341][/dim]",
            rich_help_panel=GRID,
        ),
    ] = None,
    crop_n_points_downscale_factor: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Divide the grid by this in each layer of crops. [dim]\\[default: 1][/dim]",
            rich_help_panel=GRID,
        ),
    ] = None,
    multimask_output: Annotated[
        bool | None,
        typer.Option(
            "--multimask-output/--no-multimask-output",
            help="Three candidates a point, or one. [dim]\\[default: three][/dim]",
            rich_help_panel=GRID,
        ),
    ] = None,
    use_m2m: Annotated[
        bool | None,
        typer.Option(
            "--use-m2m/--no-use-m2m",
            help="Refine each mask once with itself as prompt. [dim]\\[default: off][/dim]",
            rich_help_panel=GRID,
        ),
    ] = None,
    pred_iou_thresh: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            help="Drop masks whose predicted IoU is lower. [dim]\\[default: the model's own, else 0.8][/dim]",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    stability_score_thresh: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            help="Drop masks that change more when the logit threshold moves. [dim]\\[default: the model's own, else 0.95][/dim]",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    stability_score_offset: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=0, help="How far it moves, in logits. [dim]\\[default: 1][/dim]", rich_help_panel=FILTERS
        ),
    ] = None,
    mask_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Logit above which a pixel is in. [dim]\\[default: 0][/dim]", rich_help_panel=FILTERS
        ),
    ] = None,
    box_nms_thresh: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            help="Of masks whose boxes overlap more (IoU), keep the best. [dim]\\[default: the model's own, else 0.7][/dim]",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    crop_nms_thresh: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            help="The same between crops. [dim]\\[default: 0.7][/dim]",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    min_mask_region_area: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Fill holes and drop specks below this many pixels. [dim]\\[default: 0][/dim]",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=0, metavar="SIZE", help="Work in tiles of this many pixels.", rich_help_panel=LARGE),
    ] = None,
    halo: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Pixels by which tiles overlap.", rich_help_panel=LARGE)
    ] = None,
    fast: Annotated[
        bool | None, typer.Option("--fast", help="Allow approximations; the set records them.", rich_help_panel=LARGE)
    ] = None,
    page: PageOption = 0,
    banner: BannerOption = "auto",
    pixel_size: PixelSizeOption = None,
    max_pixels: MaxPixelsOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    socket: SocketOption = None,
    in_process: InProcessOption = None,
) -> None:
    """Make all masks of images and save each set as a new version.

    Prints the path of each saved set. Changed thresholds on the same image are answered without running the model again.

    Parameters have the names and defaults of SAM 2's mask generator. Defaults of the model itself come before those shown here, a preset before both.

    Nano and trained models have defaults of their own; `segduo models ls --json` shows them as auto_defaults.

    In --json, seconds is the engine's work on the image, loading the model included; waiting for other jobs is not.

    [bold]Examples[/bold]

      segduo auto /drops/labdaq/img.tif

      segduo auto 'images/*.tif' --skip-existing --suffix fine --preset fine

      segduo ls -1 images | segduo auto - --json | jq .masks
    """
    given = {
        "points_per_side": points_per_side,
        "points_per_batch": points_per_batch,
        "point_grids": _read_grid(point_grids),
        "region": None if region is None else parse_box(region, where="--region"),
        "crop_n_layers": crop_n_layers,
        "crop_overlap_ratio": crop_overlap_ratio,
        "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
        "multimask_output": multimask_output,
        "use_m2m": use_m2m,
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        "stability_score_offset": stability_score_offset,
        "mask_threshold": mask_threshold,
        "box_nms_thresh": box_nms_thresh,
        "crop_nms_thresh": crop_nms_thresh,
        "min_mask_region_area": min_mask_region_area,
        "tile": tile,
        "halo": halo,
        "fast": fast,
    }
    if not save and not as_json:
        raise UsageError("--no-save without --json would throw the masks away", "Add --json.")
    flags: dict[str, Any] = {
        "model": model,
        "device": device,
        "socket": socket,
        "in_process": in_process,
        "max_pixels": max_pixels,
    }
    with open_session(out=out, say_model=not dry_run, **flags) as session:
        run = _Run(
            session=session,
            parameters=_combine(session.auto_defaults(preset), given),
            preset=preset,
            suffix=suffix,
            skip_existing=skip_existing,
            save=save,
            as_json=as_json,
            reading={"page": page, "banner": banner, "pixel_size": pixel_size_value(pixel_size)},
            listings=Listings(session),
        )
        inputs = expand_inputs(session, images, from_file)
        if dry_run:
            run_batch(inputs.refs, run.tell, as_json=as_json, failures=inputs.failures)
            return
        if save:
            session.sets.check_destination(inputs.refs)
            deliver_waiting(session, inputs.refs)
        try:
            run_batch(inputs.refs, run.one, as_json=as_json, failures=inputs.failures)
        finally:
            run.tell_skipped()
        if run.spooled:
            raise SavedToSpoolOnly(
                f"Drops did not take {run.spooled} sets; they are kept in {session.paths.spool_dir}",
                f"{NEXT_DELIVERY}: segduo masks push",
            )


def _combine(base: AutoParameters, given: dict[str, Any]) -> AutoParameters:

    parameters = dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})
    if parameters.point_grids is not None and len(parameters.point_grids) == 1:
        # One grid given serves the image and every layer of crops.
        grids = parameters.point_grids * (parameters.crop_n_layers + 1)
        parameters = dataclasses.replace(parameters, point_grids=grids)
    return parameters


def _read_grid(file: Path | None) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    if file is None:
        return None
    try:
        points = tuple((float(x), float(y)) for x, y in json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"--point-grids {file}: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"--point-grids {file}: {error}", "Expected JSON like [[0.25, 0.5], [0.75, 0.5]].") from None
    if not points or not all(0 <= value <= 1 for point in points for value in point):
        raise InputError(f"--point-grids {file}: coordinates must lie between 0 and 1, and there must be some")
    return (points,)


@dataclasses.dataclass
class _Run:
    """One ``segduo auto`` over its images."""

    session: Session
    parameters: AutoParameters
    preset: str
    suffix: str
    skip_existing: bool
    save: bool
    as_json: bool
    reading: dict[str, Any]
    listings: Listings
    spooled: int = 0
    skipped: int = 0

    def tell(self, ref: ImageRef) -> None:
        """Say that this image would be done (``--dry-run``)."""
        if self._is_done(ref):
            return
        if self.listings.entry(ref) is None:
            raise NotFound(f"no such file: '{ref}'")
        if self.as_json:
            emit_json({"image": str(ref)})
        else:
            emit(ref)

    def _is_done(self, ref: ImageRef) -> bool:
        return self.skip_existing and self.session.sets.has_sets(ref, suffix=self.suffix, page=self.reading["page"])

    def one(self, ref: ImageRef) -> None:
        """Make and save all masks of one image."""
        if self._is_done(ref):
            self.skipped += 1
            if sys.stderr.isatty():
                note(f"{ref}: has a set already, skipped")
            return
        image = self.session.open_image(ref, **self.reading)
        self._advise(image)
        with progress(ref.name) as report:
            result = self.session.auto(image, self.parameters, on_event=lambda event: _show(event, report))
        for line in result.notes:
            note(f"{ref}: {line}")
        if not result.masks:
            note(f"{ref}: no masks were left; {self._thresholds()}")
        record: dict[str, Any] = {
            "image": str(ref),
            "masks": len(result.masks),
            "seconds": round(result.seconds, 3),
            "candidates_reused": result.candidates_reused,
            "model": self.session.model.id,
            "notes": list(result.notes),
        }
        if not self.save:
            from segment_duo.masks.files import to_record

            emit_json(record | {"records": [to_record(mask) for mask in result.masks]})
            return
        saved = self.session.save(
            image,
            result.masks,
            operation="auto",
            suffix=self.suffix,
            parameters={"preset": self.preset, **parameters_record(self.parameters)},
            notices=result.notes,
        )
        self.spooled += report_saved(saved, record, as_json=self.as_json)

    def tell_skipped(self) -> None:
        """How many images were skipped; in a log or cron's mail a line for each would bury the rest, on a terminal each was told."""
        if self.skipped and not sys.stderr.isatty():
            which = "image has a set already" if self.skipped == 1 else "images have sets already"
            note(f"{self.skipped} {which}, skipped")

    def _thresholds(self) -> str:
        """What may have dropped every mask, and what the model itself would have kept."""
        own = self.session.auto_defaults()
        names = [name for name in THRESHOLDS if getattr(self.parameters, name) > 0]
        options = ", ".join(f"--{name.replace('_', '-')} {getattr(self.parameters, name):g}" for name in names)
        differ = any(getattr(self.parameters, name) > getattr(own, name) for name in names)
        theirs = ", ".join(f"{getattr(own, name):g}" for name in names)
        model = self.session.model.id
        return f"in force are {options or 'no thresholds'} " + (
            f"({model}'s own: {theirs})" if differ else f"({model}'s own)"
        )

    def _advise(self, image: OpenImage) -> None:
        from segment_duo.segmenters.advice import tile_advice

        facts = image.data.facts
        if (
            self.session.model.input_size
            and self.parameters.tile == 0
            and (advised := tile_advice(facts.width, facts.height))
        ):
            note(
                f"{image.ref}: {facts.width} x {facts.height} pixels; objects may be too small for one pass: try --tile {advised}"
            )


def parameters_record(parameters: AutoParameters) -> dict[str, Any]:
    """The parameters as JSON values, for a set's provenance."""
    return {name: value for name, value in dataclasses.asdict(parameters).items() if value is not None}


def _show(event: AutoEvent, report: ProgressReporter) -> None:
    if event.event == "queued":
        report(0, None, f"waiting, {event.position} before this one")
    elif event.event == "progress":
        report(event.done, event.total or None, event.phase)
