"""``segduo measure`` and ``segduo score``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import expand_sets, load_set_or_file
from segment_duo.cli.options import (
    BannerOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    PixelSizeOption,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit, emit_json, emit_path, emit_raw, note
from segment_duo.errors import AlreadyExists, InputError, SegduoError, SomeInputsFailed, UsageError
from segment_duo.lengths import describe_nm, parse_length
from segment_duo.masks.formats.export import check_extension, write_new
from segment_duo.types import ImageRef, PixelSize

if TYPE_CHECKING:
    from segment_duo.library.library import LoadedSet
    from segment_duo.masks.measure import Measures, Summary
    from segment_duo.session import OpenImage


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("measure", rich_help_panel=panel)(measure)
    app.command("score", rich_help_panel=panel)(score)


def measure(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE[@VERSION]...",
            help="Images, folders or patterns; the latest set of each unless @VERSION says which.",
        ),
    ],
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a file instead of stdout.")
    ] = None,
    as_json: JsonOption = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Only counts, densities and the size distribution.")
    ] = False,
    exclude_edge: Annotated[
        bool, typer.Option("--exclude-edge", help="Without masks that touch the image's edge or the banner.")
    ] = False,
    min_diameter: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Smallest equivalent diameter: 12 (pixels) or 50nm.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Size histogram and outlines with a scale bar (one image): .png, .svg, .jpg, .tif or .pdf.",
        ),
    ] = None,
    pixel_size: PixelSizeOption = None,
    banner: BannerOption = "auto",
    max_pixels: MaxPixelsOption = None,
    out: OutOption = None,
) -> None:
    """Measure masks: area, perimeter, diameters, axes, shape, intensity; in pixels, and in nm when the scale is known.

    One CSV row a mask; many images make one table. Intensities come from the original bit depth.

    [bold]Examples[/bold]

      segduo measure examples/particles.tif --summary

      segduo measure 'img.tif@grain' --csv grains.csv --min-diameter 50nm --exclude-edge --plot grains.png
    """
    from segment_duo.masks import measure as measuring
    from segment_duo.masks.plot import plot_format

    if plot is not None:
        plot_format(plot.name)
    if csv is not None:
        check_extension("csv", csv)
    for target in (csv, plot):
        if target is not None and target.exists():
            raise AlreadyExists(f"{target} exists already", "Nothing is overwritten: choose another name or remove it.")
    measured: list[_Measured] = []
    with open_session(out=out, max_pixels=max_pixels) as session:
        sets, failures = expand_sets(session, images)
        if plot is not None and len(sets) > 1:
            raise UsageError("--plot draws one image at a time")

        def work(item: tuple[ImageRef, str | None]) -> None:
            loaded, opened = session.load_with_image(*item, banner=banner, pixel_size=pixel_size_value(pixel_size))
            if loaded.notice:
                note(loaded.notice)
            measured.append(_measure(loaded, opened, exclude_edge, min_diameter, plot))
            if as_json:
                emit_json(measured[-1].record(masks=not summary))

        problem: SegduoError | None = None
        try:
            run_batch(sets, work, as_json=as_json, failures=failures, name=lambda item: str(item[0]))
        except SomeInputsFailed as error:  # what was measured is still written
            problem = error
    table = [(item.name, item.rows) for item in measured]
    if csv is not None:
        write_new(csv, measuring.measures_csv(table).encode())
        note(f"table: {csv}") if as_json else emit_path(csv)
    elif not (summary or as_json):
        emit_raw(measuring.measures_csv(table))
    if summary and not as_json:
        for item in measured:
            _print_summary(item.name, item.summary)
        if len(measured) > 1:
            together = [(item.rows, item.analysed, item.pixel_size) for item in measured]
            _print_summary(f"all {len(measured)} images", measuring.summarize_images(together))
    if problem is not None:
        raise problem


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One image's measures. ``name``: IMAGE@VERSION; ``analysed``: height and width in pixels without the banner."""

    name: str
    rows: list[Measures]
    summary: Summary
    analysed: tuple[int, int]
    pixel_size: PixelSize | None

    def record(self, *, masks: bool) -> dict[str, Any]:
        """JSON values; with ``masks`` the rows as well."""
        record: dict[str, Any] = {"image": self.name, "summary": dataclasses.asdict(self.summary)}
        if masks:
            record["masks"] = [dataclasses.asdict(row) for row in self.rows]
        return record


def _measure(
    loaded: LoadedSet, opened: OpenImage, exclude_edge: bool, min_diameter: str | None, plot: Path | None
) -> _Measured:
    from segment_duo.masks import filters
    from segment_duo.masks import measure as measuring

    scale = opened.data.facts.pixel_size
    least = None if min_diameter is None else parse_length(min_diameter)
    wanted = filters.MaskFilter(exclude_edge=exclude_edge, min_diameter=least)
    kept = filters.apply(loaded.mask_set, wanted, opened.data, scale)
    chosen = dataclasses.replace(loaded.mask_set, masks=kept)
    found = measuring.measure(chosen, opened.data, scale)
    analysed = measuring.analysed_size(chosen, opened.data)
    total = measuring.summarize(found, analysed=analysed, pixel_size=scale)
    if plot is not None:
        from segment_duo.masks.plot import plot as draw
        from segment_duo.masks.plot import plot_format

        fmt = plot_format(plot.name)
        write_new(plot, draw(opened.data, kept, found, total, pixel_size=scale, title=opened.ref.name, fmt=fmt))
        note(f"plot: {plot}")
    return _Measured(f"{opened.ref}@{loaded.version.name}", found, total, analysed, scale)


def _print_summary(name: str, total: Summary) -> None:
    emit(name)
    lengths = {"d10", "d50", "d90", "mean", "sd", "smallest", "largest"}
    for key, value in dataclasses.asdict(total).items():
        if value is None or key == "unit":
            continue
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        if key in lengths:
            shown = describe_nm(value) if total.unit == "nm" else f"{shown} {total.unit}"
        emit(f"  {key:<22}{shown}")


def score(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE[@VERSION]|FILE.pkl", help="An image and which of its sets, or the file of a set."
        ),
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Label image: 0 background, one value an object.")],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Score a set against a label image: precision and recall at IoU 0.5, AP50, AP75, mean IoU.

    [bold]Examples[/bold]

      segduo score examples/particles.tif examples/particles_labels.tif

      segduo score masks/particles_1.pkl particles_labels.tif
    """
    from segment_duo.masks.compare import score as compare
    from segment_duo.masks.formats.label_images import labels_array

    try:
        content = truth.read_bytes()
    except OSError as error:
        raise InputError(f"{truth}: {error.strerror}") from None
    with open_session(out=out) as session:
        mask_set = load_set_or_file(session, image)
    masks, identity = mask_set.masks, mask_set.provenance.image
    if identity is None and not masks:
        raise InputError(f"{image}: the set is empty and does not tell its size")
    height, width = (identity.height, identity.width) if identity else (masks[0].rle.height, masks[0].rle.width)
    result = dataclasses.asdict(compare(masks, labels_array(content, height, width, name=truth.name)))
    if as_json:
        emit_json(result)
        return
    for key, value in result.items():
        emit(f"{key:<18}{value:.4f}" if isinstance(value, float) else f"{key:<18}{value}")
