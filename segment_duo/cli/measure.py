"""``segduo measure`` and ``segduo score``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.bundles import bundled
from segment_duo.cli.chosen import Choice, expand_choices, load_one, load_with_image, tell_taken
from segment_duo.cli.each import run_batch
from segment_duo.cli.filter_options import FilterOptions
from segment_duo.cli.options import (
    BannerOption,
    FramesOption,
    JsonLinesOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    PixelSizeOption,
    SetsArgument,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit, emit_bytes, emit_json, emit_path, emit_raw, note
from segment_duo.cli.sequence_options import FrameTimeOption
from segment_duo.cli.sequence_sets import is_sequence, is_stack
from segment_duo.cli.sequence_sets import measure as measure_tracks
from segment_duo.cli.sequence_sets import score as score_sequence
from segment_duo.errors import AlreadyExists, InputError, SegduoError, SomeInputsFailed, UsageError
from segment_duo.lengths import describe_nm
from segment_duo.types import Mask, PixelSize

if TYPE_CHECKING:
    from segment_duo.library.library import LoadedSet
    from segment_duo.masks.filters import MaskFilter
    from segment_duo.masks.measure import Measures, Summary
    from segment_duo.session import OpenImage


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("measure", rich_help_panel=panel)(measure)
    app.command("score", rich_help_panel=panel)(score)


@bundled
def measure(
    images: SetsArgument,
    choice: FilterOptions,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a file instead of stdout (-).")
    ] = None,
    as_json: JsonLinesOption = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Only counts, densities and the size distribution.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Size histogram and outlines with a scale bar (one image): .png, .svg, .jpg, .tif or .pdf; - for a PNG on stdout.",
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Write the masks' ids into the plot.")] = False,
    tracks: Annotated[
        bool,
        typer.Option("--tracks", help="Of a sequence set: one row an object and frame; growth, speed, displacement."),
    ] = False,
    frame_time: FrameTimeOption = None,
    frame: FramesOption = None,
    pixel_size: PixelSizeOption = None,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    out: OutOption = None,
) -> None:
    """Measure masks: area, perimeter, diameters, axes, shape, intensity; in pixels, and in nm when the scale is known.

    One CSV row a mask; many images make one table. Intensities come from the original bit depth. Which set was taken when none is named
    is told on stderr: the latest, be it a single mask by `segduo point`. With --frame it is the latest set of each of these frames.

    [bold]Examples[/bold]

      segduo measure examples/particles.tif --summary

      segduo measure 'img.tif@grain' --csv grains.csv --min-diameter 50nm --exclude-edge --plot grains.png

      segduo measure film.tif --frame all --csv sizes.csv

      segduo measure examples/growth.tif --tracks --summary --plot growth.png
    """
    from segment_duo.masks import measure as measuring
    from segment_duo.masks.classes import classes_of, colours
    from segment_duo.masks.formats.export import write_new

    csv = None if csv is None or str(csv) == "-" else csv
    drawing = plot is not None and str(plot) == "-"
    if drawing and not (summary and csv is None and not as_json):
        raise UsageError(
            "--plot - fills stdout", "Add --summary to leave out the table; the figures go to stderr then."
        )
    _check_targets(csv, plot, ids)
    wanted = choice.wanted()
    if tracks or frame_time is not None:
        if not tracks or len(images) != 1 or drawing or wanted.parameters():
            raise UsageError(
                "--tracks measures one sequence set as it is",
                "Name one, without conditions; --frame-time goes with --tracks.",
            )
        with open_session(out=out, max_pixels=max_pixels) as session:
            measure_tracks(
                session, images[0], csv=csv, plot=plot, summary=summary, as_json=as_json,
                pixel_size=pixel_size_value(pixel_size), frame_time=frame_time,
            )  # fmt: skip
        return
    measured: list[_Measured] = []
    with open_session(out=out, max_pixels=max_pixels) as session:
        sets, failures = expand_choices(session, images, frame)
        if plot is not None and len(sets) > 1:
            raise UsageError("--plot draws one image at a time")

        drawn = None if plot is None else _Plot(plot, colours(classes_of(session.config.classes)), ids)

        def work(item: Choice) -> None:
            scale = pixel_size_value(pixel_size)
            loaded, opened = load_with_image(session, item, banner=banner, pixel_size=scale)
            tell_taken(session, item, loaded)
            measured.append(_measure(item.name(loaded), loaded, opened, wanted, scale, drawn))
            if as_json:
                emit_json(measured[-1].record(rows=not summary))

        problem: SegduoError | None = None
        try:
            run_batch(sets, work, as_json=as_json, failures=failures)
        except SomeInputsFailed as error:  # what was measured is still written
            problem = error
    table = [(item.name, item.rows) for item in measured]
    if csv is not None:
        write_new(csv, measuring.measures_csv(table).encode())
        note(f"table: {csv}") if as_json else emit_path(csv)
    elif not (summary or as_json):
        emit_raw(measuring.measures_csv(table))
    if summary and not as_json:
        say = note if drawing else emit
        for item in measured:
            _print_summary(item.name, item.summary, say)
        if len(measured) > 1:
            together = [(item.rows, item.analysed, item.pixel_size) for item in measured]
            _print_summary(f"all {len(measured)} images", measuring.summarize_images(together), say)
    if problem is not None:
        raise problem


def _check_targets(csv: Path | None, plot: Path | None, ids: bool) -> None:
    """Refuse, before anything is computed, files that cannot be written."""
    from segment_duo.masks.formats.export import check_extension
    from segment_duo.masks.plot import plot_format

    if plot is not None:
        plot_format(plot.name)
    elif ids:
        raise UsageError("--ids is for the plot", "Name it: --plot FILE.")
    if csv is not None:
        check_extension("csv", csv)
    for target in (csv, plot):
        if target is not None and target.exists() and str(target) != "-":
            raise AlreadyExists(f"{target} exists already", "Nothing is overwritten: choose another name or remove it.")


@dataclasses.dataclass(frozen=True)
class _Plot:
    """What to draw: the file, label -> RGB, and whether with ids."""

    file: Path
    colours: Mapping[str, tuple[int, int, int]]
    ids: bool


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One image's measures. ``name``: IMAGE@VERSION; ``analysed``: height and width in pixels without the banner."""

    name: str
    rows: list[Measures]
    summary: Summary
    analysed: tuple[int, int]
    pixel_size: PixelSize | None

    def record(self, *, rows: bool) -> dict[str, Any]:
        """JSON values; with ``rows`` those as well."""
        record: dict[str, Any] = {
            "image": self.name,
            "masks": len(self.rows),
            "summary": dataclasses.asdict(self.summary),
        }
        if rows:
            record["rows"] = [dataclasses.asdict(row) for row in self.rows]
        return record


def _measure(
    name: str,
    loaded: LoadedSet,
    opened: OpenImage | None,
    wanted: MaskFilter,
    given: PixelSize | None,
    plot: _Plot | None,
) -> _Measured:
    """Measure what meets the conditions. ``given``: the pixel size of the command line."""
    from segment_duo.masks import filters
    from segment_duo.masks import measure as measuring

    image = opened.data if opened else None
    scale = given or measuring.known_pixel_size(loaded.mask_set, image)
    kept = filters.apply(loaded.mask_set, wanted, image, scale)
    chosen = dataclasses.replace(loaded.mask_set, masks=kept)
    found = measuring.measure(chosen, image, scale)
    # Of the whole set: one that says nothing of its image is as large as its masks, whichever are kept.
    analysed = measuring.analysed_size(loaded.mask_set, image)
    total = measuring.summarize(found, analysed=analysed, pixel_size=scale)
    if plot is not None:
        _draw(plot, name, opened, kept, found, total, scale)
    return _Measured(name, found, total, analysed, scale)


def _draw(
    plot: _Plot,
    name: str,
    opened: OpenImage | None,
    kept: Sequence[Mask],
    found: Sequence[Measures],
    total: Summary,
    scale: PixelSize | None,
) -> None:
    from segment_duo.masks.formats.export import write_new
    from segment_duo.masks.plot import plot as draw
    from segment_duo.masks.plot import plot_format

    if opened is None:
        raise UsageError(f"{name}: the plot is drawn on the image, which is not at hand")
    drawn = draw(
        opened.data,
        kept,
        found,
        total,
        pixel_size=scale,
        title=opened.ref.name,
        fmt=plot_format(plot.file.name),
        colours=plot.colours,
        ids=plot.ids,
    )
    if str(plot.file) == "-":
        emit_bytes(drawn)
        return
    write_new(plot.file, drawn)
    note(f"plot: {plot.file}")


def _print_summary(name: str, total: Summary, say: Callable[[object], None]) -> None:
    say(name)
    lengths = {"d10", "d50", "d90", "mean", "sd", "smallest", "largest"}
    for key, value in dataclasses.asdict(total).items():
        if value is None or key == "unit":
            continue
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        if key in lengths:
            shown = describe_nm(value) if total.unit == "nm" else f"{shown} {total.unit}"
        say(f"  {key:<22}{shown}")


def score(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE[@VERSION]|FILE.pkl", help="An image and which of its sets, or the file of a set."
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="Label image: 0 background, one value an object. Of a sequence a label stack, or a folder of label images.",
        ),
    ],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Score a set against a label image: precision and recall at IoU 0.5, AP50, AP75, mean IoU.

    A sequence set against label images of its frames: J and F as DAVIS defines them, id switches, tracks that are complete.

    [bold]Examples[/bold]

      segduo score examples/particles.tif examples/particles_labels.tif

      segduo score masks/particles_1.pkl particles_labels.tif
    """
    from segment_duo.masks.compare import score as compare
    from segment_duo.masks.formats.label_images import labels_array

    if is_stack(truth):
        with open_session(out=out) as session:
            if is_sequence(session, image) or truth.is_dir():
                score_sequence(session, image, truth, as_json=as_json)
                return
    try:
        content = truth.read_bytes()
    except OSError as error:
        raise InputError(f"{truth}: {error.strerror}") from None
    with open_session(out=out) as session:
        mask_set = load_one(session, image)[0].mask_set
    masks, identity = mask_set.masks, mask_set.provenance.image
    if identity is None and not masks:
        raise InputError(f"{image}: the set is empty and does not tell its size")
    height, width = (identity.height, identity.width) if identity else (masks[0].rle.height, masks[0].rle.width)
    result = dataclasses.asdict(compare(masks, labels_array(content, height, width, name=truth.name)))
    if as_json:
        emit_json(result)
        return
    for key, value in result.items():
        shown = f"{value:.4f}" if isinstance(value, float) else "-" if value is None else value
        emit(f"{key:<18}{shown}")
