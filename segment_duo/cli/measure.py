"""``segduo measure`` and ``segduo score``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.human import length
from segment_duo.cli.inputs import image_and_version
from segment_duo.cli.options import (
    BannerOption,
    JsonOption,
    OutOption,
    PixelSizeOption,
    banner_value,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit, emit_json, emit_raw, note
from segment_duo.errors import AlreadyExists, InputError, StoreError, UsageError
from segment_duo.types import PixelSize

if TYPE_CHECKING:
    from segment_duo.masks.measure import Measures, Summary
    from segment_duo.session import Session


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("measure", rich_help_panel=panel)(measure)
    app.command("score", rich_help_panel=panel)(score)


def measure(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE[@VERSION]...", help="Images, each with the set meant; the latest without."),
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
        Path | None, typer.Option(metavar="FILE.png", help="Size histogram and outlines with a scale bar (one image).")
    ] = None,
    pixel_size: PixelSizeOption = None,
    banner: BannerOption = "auto",
    out: OutOption = None,
) -> None:
    """Measure masks: area, perimeter, diameters, axes, shape, intensity; in pixels, and in nm when the scale is known.

    One CSV row a mask; many images make one table. Intensities come from the original bit depth.

    [bold]Examples[/bold]

      segduo measure examples/particles.tif --summary

      segduo measure 'img.tif@grain' --csv grains.csv --min-diameter 50nm --exclude-edge --plot grains.png
    """
    from segment_duo.masks import measure as measuring

    if plot is not None and len(images) > 1:
        raise UsageError("--plot draws one image at a time")
    for target in (csv, plot):
        if target is not None and target.exists():
            raise AlreadyExists(f"{target} exists already", "Nothing is overwritten: choose another name or remove it.")
    table: list[tuple[str, list[Measures]]] = []
    summaries: list[tuple[str, Summary]] = []
    with open_session(out=out) as session:
        for text in images:
            name, found, total = _measure_one(
                session, text, banner_value(banner), pixel_size_value(pixel_size), exclude_edge, min_diameter, plot
            )
            table.append((name, found))
            summaries.append((name, total))
    if as_json:
        for (name, found), (_, total) in zip(table, summaries, strict=True):
            record: dict[str, Any] = {"image": name, "summary": dataclasses.asdict(total)}
            if not summary:
                record["masks"] = [dataclasses.asdict(row) for row in found]
            emit_json(record)
        return
    if csv is not None:
        _write_new(csv, measuring.measures_csv(table))
        emit(csv)
    elif not summary:
        emit_raw(measuring.measures_csv(table))
    if summary:
        for name, total in summaries:
            _print_summary(name, total)


def _measure_one(
    session: Session,
    text: str,
    banner: str | int,
    pixel_size: PixelSize | None,
    exclude_edge: bool,
    min_diameter: str | None,
    plot: Path | None,
) -> tuple[str, list[Measures], Summary]:
    from segment_duo.masks import filters
    from segment_duo.masks import measure as measuring

    ref, version = image_and_version(session, text)
    loaded = session.load(ref, version)
    if loaded.notice:
        note(loaded.notice)
    recorded = loaded.mask_set.provenance
    cut = recorded.banner.height if banner == "auto" and recorded.banner else banner
    page = recorded.image.page if recorded.image else 0
    opened = session.open_image(ref, page=page, banner=cut, pixel_size=pixel_size or recorded.pixel_size)
    scale = opened.data.facts.pixel_size
    wanted = filters.MaskFilter(exclude_edge=exclude_edge, min_diameter=filters.diameter_in_pixels(min_diameter, scale))
    kept = dataclasses.replace(loaded.mask_set, masks=filters.apply(loaded.mask_set, wanted))
    found = measuring.measure(kept, opened.data, scale)
    total = measuring.summarize(found, opened.data.facts, scale)
    if plot is not None:
        from segment_duo.masks.plot import measures_plot

        _write_new(plot, measures_plot(opened.data, kept, found, scale))
        note(f"plot: {plot}")
    return str(ref), found, total


def _print_summary(name: str, total: Summary) -> None:
    emit(name)
    for key, value in dataclasses.asdict(total).items():
        if value is None:
            continue
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        if key.endswith("_nm") and isinstance(value, float):
            shown += f"  ({length(value)})"
        emit(f"  {key:<28}{shown}")


def score(
    images: Annotated[str, typer.Argument(metavar="IMAGE[@VERSION]", help="An image and which of its sets.")],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Label image: 0 background, 1, 2, ... objects; 65535 is ignored.")
    ],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Score a set against a label image: precision and recall at IoU 0.5, AP50, AP75, mean IoU.

    [bold]Example[/bold]

      segduo score examples/particles.tif examples/particles_labels.tif
    """
    from segment_duo.masks.compare import read_labels
    from segment_duo.masks.compare import score as compare

    try:
        labels = read_labels(truth.read_bytes(), name=truth.name)
    except OSError as error:
        raise InputError(f"{truth}: {error.strerror}") from None
    with open_session(out=out) as session:
        ref, version = image_and_version(session, images)
        loaded = session.load(ref, version)
    result = dataclasses.asdict(compare(loaded.mask_set.masks, labels))
    if as_json:
        emit_json(result)
        return
    for key, value in result.items():
        emit(f"{key:<18}{value:.4f}" if isinstance(value, float) else f"{key:<18}{value}")


def _write_new(file: Path, content: str | bytes) -> None:
    from segment_duo.stores.local import create_file

    try:
        create_file(file, content.encode() if isinstance(content, str) else content)
    except FileExistsError:
        raise AlreadyExists(f"{file} exists already", "Choose another name or remove it.") from None
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}") from None
