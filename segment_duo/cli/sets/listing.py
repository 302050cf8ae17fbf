"""``segduo masks``: look at saved sets, edit them into new versions, exchange them with other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.each import run_batch
from segment_duo.cli.human import size, timestamp, when
from segment_duo.cli.inputs import expand_sets, image_and_version, load_set, load_set_or_file
from segment_duo.cli.options import (
    BannerOption,
    JsonOption,
    MaxPixelsOption,
    OutOption,
    PageOption,
    PixelSizeOption,
    SuffixOption,
    open_session,
    pixel_size_value,
)
from segment_duo.cli.output import emit, emit_json, emit_path, emit_raw, emit_table, note
from segment_duo.cli.saving import deliver_spool, deliver_waiting, finish_saved
from segment_duo.errors import InputError, NotFound, SavedToSpoolOnly, SomeInputsFailed, UsageError
from segment_duo.lengths import parse_length
from segment_duo.library.versions import LATEST, VersionRequest, split_version
from segment_duo.prompts import parse_box
from segment_duo.provenance import imported
from segment_duo.types import ImageRef, Mask, MaskSet

if TYPE_CHECKING:
    from segment_duo.library.library import ListedSet, LoadedSet
    from segment_duo.library.spool import SpoolItem
    from segment_duo.session import Session

app = typer.Typer(
    help="Saved mask sets: list, show, edit into new versions, compare, export and import.", no_args_is_help=True
)

SetArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE[@VERSION]", help="An image, and which of its sets: @0, @2, @grain_1; the latest without."
    ),
]
SetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE[@VERSION]...",
        help="Images, folders or patterns; the latest set of each unless @VERSION says which.",
    ),
]
IdsArgument = Annotated[list[int], typer.Argument(metavar="ID...", help="Ids as `segduo masks show` gives them.")]


@app.command("ls")
def list_versions(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE[@VERSION]", help="An image, local or on Drops; with @VERSION only that set.")
    ],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """List the saved sets of an image, newest first.

    [bold]Example[/bold]

      segduo masks ls examples/particles.tif
    """
    with open_session(out=out) as session:
        ref, version = image_and_version(session, image)
        found = session.sets.listed(ref, version=None if version == LATEST else version)
        if not found and not (as_json and session.store(ref.store).stat(ref.path)):
            session.sets.chosen(ref, VersionRequest())
        found = found[:1] if version == LATEST else found
    rows = [_listed_row(item) for item in found]
    if as_json:
        emit_json([row | {"modified": timestamp(row["modified"])} for row in rows], indent=1)
        return
    columns = ("version", "masks", "page", "modified", "size", "model", "operation", "parent", "path")
    shown = [row | {"modified": when(row["modified"]), "size": size(row["size"])} for row in rows]
    emit_table(
        columns,
        [["" if row.get(column) is None else row[column] for column in columns] for row in shown],
        right=("masks", "page", "size"),
        whole=("path",),
    )
    for item in found:
        if item.belongs is False:
            note(item.notice)


def _listed_row(found: ListedSet) -> dict[str, Any]:
    version = found.version
    row: dict[str, Any] = {
        "version": version.name,
        "path": found.path,
        "size": version.size,
        "modified": version.modified,
    }
    if found.peek is None:
        return row | {"masks": None, "operation": found.notice}
    known = found.peek.provenance
    return row | {
        "masks": found.peek.count,
        "operation": known.operation,
        "parent": known.parent,
        "model": " + ".join(known.models) or (known.model.id if known.model else None),
        "image": known.image.path if known.image else None,
        "page": known.image.page if known.image else None,
    }


@app.command()
def show(image: SetArgument, as_json: JsonOption = False, out: OutOption = None) -> None:
    """Show the masks of a set: id, label, area, box, scores.

    [bold]Examples[/bold]

      segduo masks show examples/particles.tif

      segduo masks show examples/particles.tif@2 --json | jq '.masks[].area'
    """
    from segment_duo.masks.formats.native import set_records

    with open_session(out=out) as session:
        loaded = load_set(session, image)
    mask_set = loaded.mask_set
    if as_json:
        records, provenance = set_records(mask_set)
        emit_json({"version": loaded.version.name, "provenance": provenance, "masks": records})
        return
    columns = ("id", "label", "area", "x", "y", "width", "height", "predicted_iou", "stability", "source")
    emit_table(columns, [_mask_row(mask) for mask in mask_set.masks], right=columns[2:9])


def _mask_row(mask: Mask) -> list[object]:
    scores = ["" if score is None else f"{score:.3f}" for score in (mask.predicted_iou, mask.stability_score)]
    return [mask.id, mask.label, mask.area, *(f"{value:g}" for value in mask.bbox), *scores, mask.source]


@app.command("rm-mask")
def remove_masks(
    image: SetArgument, ids: IdsArgument, suffix: SuffixOption = "", as_json: JsonOption = False, out: OutOption = None
) -> None:
    """Write a new version without the named masks; the old one stays.

    [bold]Example[/bold]

      segduo masks rm-mask examples/particles.tif 3 17
    """
    _select(image, ids, keep=False, suffix=suffix, as_json=as_json, out=out)


@app.command()
def keep(
    image: SetArgument, ids: IdsArgument, suffix: SuffixOption = "", as_json: JsonOption = False, out: OutOption = None
) -> None:
    """Write a new version with only the named masks; the old one stays.

    [bold]Example[/bold]

      segduo masks keep examples/particles.tif@0 1 2 5 --suffix best
    """
    _select(image, ids, keep=True, suffix=suffix, as_json=as_json, out=out)


def _select(image: str, ids: list[int], *, keep: bool, suffix: str, as_json: bool, out: str | None) -> None:
    with open_session(out=out) as session:
        loaded = load_set(session, image)
        known = {mask.id for mask in loaded.mask_set.masks}
        unknown = sorted(set(ids) - known)
        if unknown:
            raise InputError(
                f"set {loaded.version.name} has no mask {unknown[0]}", "`segduo masks show` gives the ids."
            )
        masks = [mask for mask in loaded.mask_set.masks if (mask.id in ids) is keep]
        operation = "keep" if keep else "rm-mask"
        _save_edit(session, image, loaded, masks, operation, {"ids": sorted(set(ids))}, suffix, as_json)


@app.command("filter")
def filter_masks(
    image: SetArgument,
    min_area: Annotated[int | None, typer.Option(help="Smallest area in pixels.")] = None,
    max_area: Annotated[int | None, typer.Option(help="Largest area in pixels.")] = None,
    min_diameter: Annotated[str | None, typer.Option(help="Smallest equivalent diameter: 12 (pixels) or 50nm.")] = None,
    max_diameter: Annotated[str | None, typer.Option(help="Largest equivalent diameter: 80 (pixels) or 2um.")] = None,
    min_circularity: Annotated[float | None, typer.Option(min=0, max=1, help="4 pi area / perimeter^2.")] = None,
    min_solidity: Annotated[float | None, typer.Option(min=0, max=1, help="Area / convex area.")] = None,
    min_predicted_iou: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest predicted IoU.")] = None,
    min_stability_score: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest stability score.")] = None,
    exclude_edge: Annotated[
        bool, typer.Option("--exclude-edge", help="Without masks that touch the image's edge or the banner.")
    ] = False,
    inside: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1|ID",
            help="Only masks in this box, or in the mask of this id (itself left out).",
        ),
    ] = None,
    inside_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of a mask's pixels from which it is inside (default 0.5)."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Only masks with this label.")] = None,
    pixel_size: PixelSizeOption = None,
    suffix: SuffixOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many masks would stay.")] = False,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Write a new version with the masks that pass; the old one stays.

    [bold]Example[/bold]

      segduo masks filter examples/particles.tif --min-diameter 50nm --exclude-edge
    """
    from segment_duo.masks import filters

    with open_session(out=out) as session:
        loaded = load_set(session, image)
        box = inside is not None and "," in inside
        if inside is None and inside_share is not None:
            raise UsageError("--inside-share needs --inside")
        wanted = filters.MaskFilter(
            min_area=min_area,
            max_area=max_area,
            min_diameter=None if min_diameter is None else parse_length(min_diameter),
            max_diameter=None if max_diameter is None else parse_length(max_diameter),
            min_circularity=min_circularity,
            min_solidity=min_solidity,
            min_predicted_iou=min_predicted_iou,
            min_stability_score=min_stability_score,
            exclude_edge=exclude_edge,
            inside_box=parse_box(inside or "", where="--inside") if box else None,
            inside_mask=_mask_id(inside) if inside is not None and not box else None,
            inside_share=0.5 if inside_share is None else inside_share,
            label=label,
        )
        parameters = wanted.parameters()
        if not parameters:
            raise UsageError("no condition given", "For example --min-area 50 or --exclude-edge.")
        scale = pixel_size_value(pixel_size)
        if scale is not None:
            parameters["pixel_size_nm"] = [scale.x_nm, scale.y_nm]
        masks = filters.apply(loaded.mask_set, wanted, pixel_size=scale)
        if dry_run:
            counts = {"masks": len(masks), "before": len(loaded.mask_set.masks)}
            emit_json(counts) if as_json else emit(f"{counts['masks']} of {counts['before']}")
            return
        _save_edit(session, image, loaded, masks, "filter", parameters, suffix, as_json)


def _mask_id(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--inside takes x0,y0,x1,y1 or the id of a mask, not '{text}'") from None


@app.command()
def export(
    images: SetsArgument,
    fmt: Annotated[str, typer.Option("--format", "-f", help="One of the formats above.")],
    destination: Annotated[
        Path, typer.Option("--to", "-t", help="File or folder to write, never over another; - for stdout.")
    ],
    overlap: Annotated[
        str, typer.Option(help="Who owns a pixel that several masks claim: small-on-top, score or area.")
    ] = "small-on-top",
    banner: BannerOption = "auto",
    pixel_size: PixelSizeOption = None,
    max_pixels: MaxPixelsOption = None,
    out: OutOption = None,
) -> None:
    """Write sets in another program's format.

    Formats: coco, coco-rle, sam1, labels-tiff, labels-png, png, npz, imagej, geojson, labelme, yolo, svg, overlay, csv.

    docs/formats.md tells what each of them cannot hold.

    [bold]Examples[/bold]

      segduo masks export examples/particles.tif -f imagej -t rois.zip

      segduo masks export a.tif b.tif@2 -f coco -t dataset.json
    """
    from segment_duo.masks.formats.export import FORMATS, render_text
    from segment_duo.masks.formats.export import export as write

    form = FORMATS.get(fmt)
    if form is None:
        raise UsageError(f"no format '{fmt}'", f"There are: {', '.join(FORMATS)}.")
    to_stdout = str(destination) == "-"
    if to_stdout and not form.is_text:
        names = ", ".join(name for name, known in FORMATS.items() if known.is_text)
        raise UsageError(f"the format {fmt} does not go to stdout", f"Name a file. Text formats do: {names}.")
    with open_session(out=out, max_pixels=max_pixels) as session:
        wanted, failures = expand_sets(session, images)
        several = len(wanted) + len(failures) > 1
        if to_stdout and several and form.layout != "joint":
            raise UsageError(f"stdout takes one set in the format {fmt}", "Name a folder with --to.")
        sets: list[tuple[MaskSet, Any]] = []

        def load(item: tuple[ImageRef, str | None]) -> None:
            # A table's intensities come from the image's own bit depth.
            if form.needs_image or form.name == "csv":
                loaded, opened = session.load_with_image(*item, banner=banner, pixel_size=pixel_size_value(pixel_size))
                sets.append((loaded.mask_set, opened.data))
            else:
                loaded = session.sets.load(*item)
                sets.append((loaded.mask_set, None))
            if loaded.notice:
                note(loaded.notice)

        problem: SomeInputsFailed | None = None
        try:
            run_batch(wanted, load, as_json=False, failures=failures, name=lambda item: str(item[0]))
        except SomeInputsFailed as error:  # the others are still written
            problem = error
        if to_stdout:
            emit_raw(render_text(sets, fmt))
        else:
            for file in write(sets, fmt, destination, overlap=overlap, several=several):
                emit_path(file)
        if problem is not None:
            raise problem


@app.command("import")
def import_set(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image the masks belong to.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="COCO, label image, ImageJ ROI, LabelMe, GeoJSON, YOLO, NPZ, .pkl, or a SAM 1 folder."
        ),
    ],
    fmt: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="coco, labels, imagej, labelme, geojson, yolo, npz or pkl; told by the content without.",
        ),
    ] = None,
    suffix: SuffixOption = "",
    as_json: JsonOption = False,
    out: OutOption = None,
    page: PageOption = 0,
    banner: BannerOption = "auto",
    pixel_size: PixelSizeOption = None,
    max_pixels: MaxPixelsOption = None,
) -> None:
    """Read masks from another program's file and save them as a new version.

    [bold]Example[/bold]

      segduo masks import examples/particles.tif labels.tif --suffix manual
    """
    from segment_duo.masks.formats import importers

    with open_session(out=out, max_pixels=max_pixels) as session:
        session.sets.check_destination([session.reference(image)])
        opened = session.open_image(
            session.reference(image), page=page, banner=banner, pixel_size=pixel_size_value(pixel_size)
        )
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
        finish_saved(saved, {"image": str(opened.ref), "masks": len(found.masks)}, as_json=as_json)


@app.command()
def diff(
    first: SetArgument,
    second: Annotated[
        str,
        typer.Argument(metavar="IMAGE[@VERSION]|@VERSION", help="Another set; @VERSION alone means the same image."),
    ],
    iou: Annotated[float, typer.Option(min=0, max=1, help="Masks match from this IoU on.")] = 0.5,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Compare two sets: which masks match and how well, which are new, which are gone.

    [bold]Examples[/bold]

      segduo masks diff examples/particles.tif@0 @1

      segduo masks diff before.pkl after.pkl
    """
    from segment_duo.masks.compare import diff as compare

    with open_session(out=out) as session:
        one = load_set_or_file(session, first)
        other = load_set_or_file(session, split_version(first)[0] + second if second.startswith("@") else second)
    result = compare(one, other, iou=iou)
    if as_json:
        emit_json(
            {
                "matched": [
                    {"before": pair.before.id, "after": pair.after.id, "iou": pair.iou} for pair in result.matched
                ],
                "new": [mask.id for mask in result.new],
                "gone": [mask.id for mask in result.gone],
                "mean_iou": result.mean_iou,
                "identical": result.identical,
            }
        )
        return
    mean = "" if result.mean_iou is None else f", mean IoU {result.mean_iou:.3f}"
    emit(f"matched {len(result.matched)}, new {len(result.new)}, gone {len(result.gone)}{mean}")
    for pair in result.matched:
        if pair.iou < 1:
            emit(f"  {pair.before.id} = {pair.after.id}  IoU {pair.iou:.3f}")
    for mask in result.new:
        emit(f"  + {mask.id}  area {mask.area}")
    for mask in result.gone:
        emit(f"  - {mask.id}  area {mask.area}")


@app.command()
def push(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what waits.")] = False,
    discard: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Give this set up: move it out of the spool, without deleting it."),
    ] = None,
) -> None:
    """Deliver mask sets that wait in the spool because Drops was away, and list those that still wait.

    A row has the set's id, its image's name, the folder it goes to, when it was made, and what kept it back.

    [bold]Examples[/bold]

      segduo masks push

      segduo masks push --dry-run

      segduo masks push --discard 1f3a9c02
    """
    with open_session() as session:
        spool = session.sets.spool
        if discard:
            for item in [_waiting(spool.pending(), wanted) for wanted in discard]:
                emit_path(spool.set_aside(item))
            return
        if dry_run:
            left = [(item, item.error) for item in spool.pending()]
        else:
            left = [(failed.item, failed.error.message) for failed in deliver_spool(session, wait=True)]
        rows = [
            (item.id, item.stem, ImageRef(item.kind, item.folder), when(item.created), reason) for item, reason in left
        ]
        if rows:
            emit_table(("id", "image", "folder", "made", "reason"), rows)
        if rows and not dry_run:
            raise SavedToSpoolOnly(
                f"{len(rows)} set{'s' * (len(rows) > 1)} could not be delivered",
                "`segduo doctor` looks at the connection; `segduo masks push --discard ID` gives one up.",
            )


def _waiting(items: list[SpoolItem], wanted: str) -> SpoolItem:
    found = [item for item in items if item.id == wanted]
    if not found:
        raise NotFound(f"no set '{wanted}' waits in the spool", "`segduo masks push --dry-run` lists the ids.")
    return found[0]


@app.command()
def loader() -> None:
    """Print a Python file that reads any set without this program (only NumPy); keep it beside a notebook.

    [bold]Example[/bold]

      segduo masks loader > load_masks.py
    """
    from importlib.resources import files

    emit_raw(files("segment_duo.masks").joinpath("load_masks.py").read_text(encoding="utf-8"))


def _save_edit(
    session: Session,
    image: str,
    loaded: LoadedSet,
    masks: list[Mask] | tuple[Mask, ...],
    operation: str,
    parameters: dict[str, Any],
    suffix: str,
    as_json: bool,
) -> None:
    ref, _ = image_and_version(session, image)
    deliver_waiting(session, [ref])
    saved = session.save_edit(ref, loaded, masks, operation=operation, parameters=parameters, suffix=suffix)
    record = {
        "image": str(ref),
        "masks": len(masks),
        "before": len(loaded.mask_set.masks),
        "parent": loaded.version.name,
    }
    finish_saved(saved, record, as_json=as_json)
