"""``segduo masks export``, ``import`` and ``loader``: sets to and from other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segment_duo.cli import completion, sequence_sets
from segment_duo.cli.bundles import bundled
from segment_duo.cli.chosen import Choice, expand_choices, load, load_with_image, tell_taken
from segment_duo.cli.each import run_batch
from segment_duo.cli.inputs import frame_of
from segment_duo.cli.options import (
    BannerOption,
    FrameOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    PixelSizeOption,
    ReadingOptions,
    SetsArgument,
    SuffixOption,
    check_frame,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit_bytes, emit_path, emit_raw, image_record, note
from segment_duo.cli.saving import deliver_waiting, finish_saved
from segment_duo.cli.sequence_options import SequenceOptions
from segment_duo.errors import InputError, SomeInputsFailed, UsageError
from segment_duo.types import ImageData, MaskSet


def register(app: typer.Typer) -> None:
    app.command("export")(export)
    app.command("import")(import_set)
    app.command("loader")(loader)


def export(
    images: SetsArgument,
    fmt: Annotated[
        str, typer.Option("--format", "-f", help="One of the formats above.", autocompletion=completion.export_formats)
    ],
    destination: Annotated[
        Path, typer.Option("--to", "-t", help="File or folder to write, never over another; - for stdout.")
    ],
    overlap: Annotated[
        str,
        typer.Option(
            help="Who owns a pixel that several masks claim: small-on-top, score or area.",
            autocompletion=completion.overlap_rules,
        ),
    ] = "small-on-top",
    ids: Annotated[bool, typer.Option("--ids", help="Write the masks' ids into the picture (overlay).")] = False,
    banner: BannerOption = "auto",
    pixel_size: PixelSizeOption = None,
    max_pixels: MaxPixelsOption = None,
    out: OutOption = None,
) -> None:
    """Write sets in another program's format.

    Formats: coco, coco-rle, sam1, labels-tiff, labels-png, png, npz, imagej, geojson, labelme, yolo, svg, overlay, csv.

    Classes of config.toml, \\[classes], give colours (overlay, svg, geojson, imagej) and the order of numbered classes (coco, yolo).

    Of sequence sets: labels-ome, labels-imagej, tracks-csv, ctc, davis, youtube-vis, film (.gif, .png or .mp4).

    docs/formats.md tells what each of them cannot hold. A set is named with @VERSION or by its file; else the latest is taken, and told on stderr.

    [bold]Examples[/bold]

      segduo masks export examples/particles.tif -f imagej -t rois.zip

      segduo masks export a.tif b.tif@2 -f coco -t dataset.json

      segduo masks export growth.tif -f film -t growth.gif
    """
    from segment_duo.masks.classes import classes_of
    from segment_duo.masks.formats.export import FORMATS, render
    from segment_duo.masks.formats.export import export as write
    from segment_duo.tracking.export import SEQUENCE_FORMATS

    if fmt in SEQUENCE_FORMATS:
        if len(images) != 1:
            raise UsageError(f"the format {fmt} takes one sequence set")
        with open_session(out=out, max_pixels=max_pixels) as session:
            scale = pixel_size_value(pixel_size)
            sequence_sets.export(session, images[0], fmt, destination, overlap=overlap, pixel_size=scale, banner=banner)
        return
    form = FORMATS.get(fmt)
    if form is None:
        raise UsageError(f"no format '{fmt}'", f"There are: {', '.join((*FORMATS, *SEQUENCE_FORMATS))}.")
    if ids and fmt != "overlay":
        raise UsageError(f"--ids is for pictures, and {fmt} is none", "Use --format overlay.")
    to_stdout = str(destination) == "-"
    if to_stdout and form.layout == "folder":
        raise UsageError(f"the format {fmt} is a folder of files and does not go to stdout", "Name a folder with --to.")
    with open_session(out=out, max_pixels=max_pixels) as session:
        wanted, failures = expand_choices(session, images)
        several = len(wanted) + len(failures) > 1
        if to_stdout and several and form.layout != "joint":
            raise UsageError(f"stdout takes one set in the format {fmt}", "Name a folder with --to.")
        sets: list[tuple[MaskSet, ImageData | None]] = []

        def take(choice: Choice) -> None:
            # A table's intensities come from the image's own bit depth.
            opened = None
            if form.needs_image or form.name == "csv":
                scale = pixel_size_value(pixel_size)
                loaded, opened = load_with_image(session, choice, banner=banner, pixel_size=scale)
            else:
                loaded = load(session, choice)
            tell_taken(session, choice, loaded)
            sets.append((loaded.mask_set, opened.data if opened else None))

        classes = classes_of(session.config.classes)
        problem: SomeInputsFailed | None = None
        try:
            run_batch(wanted, take, as_json=False, failures=failures)
        except SomeInputsFailed as error:  # the others are still written
            problem = error
        if to_stdout:
            content = render(sets, fmt, overlap=overlap, classes=classes, ids=ids)
            emit_raw(content.decode()) if form.is_text else emit_bytes(content)
        else:
            written = write(sets, fmt, destination, overlap=overlap, several=several, classes=classes, ids=ids)
            for file in written:
                emit_path(file)
        if problem is not None:
            raise problem


@bundled
def import_set(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image the masks belong to.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="COCO, label image, ImageJ ROI, LabelMe, GeoJSON, YOLO, NPZ, .pkl, or a SAM 1 folder."
        ),
    ],
    reading: ReadingOptions,
    frame: FrameOption = None,
    fmt: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="coco, labels, imagej, labelme, geojson, yolo, npz or pkl; told by the content without. "
            "labels-stack or ctc make a sequence set.",
            autocompletion=completion.import_formats,
        ),
    ] = None,
    frames: Annotated[
        str,
        typer.Option("--frames", metavar="A:B:STEP", help="Of a sequence: the frames that the label images are of."),
    ] = "all",
    suffix: SuffixOption = "",
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Read masks from another program's file and save them as a new version.

    [bold]Example[/bold]

      segduo masks import examples/particles.tif labels.tif --suffix manual

      segduo masks import film.tif 01_RES -f ctc
    """
    from segment_duo.masks.formats import importers
    from segment_duo.provenance import imported

    if fmt in ("ctc", "labels-stack"):
        with open_session(out=out, max_pixels=reading.max_pixels) as session:
            opening = SequenceOptions(frames=frames, banner=reading.banner, pixel_size=reading.pixel_size)
            sequence_sets.import_stack(session, image, file, fmt, suffix=suffix, as_json=as_json, opening=opening)
        return
    check_frame(frame, reading.page)
    with open_session(out=out, max_pixels=reading.max_pixels) as session:
        ref = frame_of(session, session.reference(image), frame)
        session.sets.check_destination([ref])
        opened = session.open_image(ref, **reading.arguments())
        facts = opened.data.facts
        try:
            if file.is_dir():
                found = importers.import_folder(file, width=facts.width, height=facts.height)
            else:
                found = importers.import_report(
                    file.read_bytes(),
                    fmt,
                    name=file.name,
                    width=facts.width,
                    height=facts.height,
                    image_name=opened.ref.name,
                    page=facts.page,
                    pages=facts.pages,
                    axes=facts.frames,
                )
        except OSError as error:
            raise InputError(f"{file}: {error.strerror}") from None
        for line in found.notices:
            note(line)
        deliver_waiting(session, [opened.ref])
        saved = session.save(
            opened,
            imported(found.masks, file.name, found.format),
            operation="import",
            suffix=suffix,
            parameters={"file": file.name, "format": found.format},
            notices=found.notices,
        )
        finish_saved(saved, {**image_record(opened.ref), "masks": len(found.masks)}, as_json=as_json)


def loader() -> None:
    """Print a Python file that reads any set without this program (only NumPy); keep it beside a notebook.

    [bold]Example[/bold]

      segduo masks loader > load_masks.py
    """
    from importlib.resources import files

    emit_raw(files("segment_duo.masks").joinpath("load_masks.py").read_text(encoding="utf-8"))
