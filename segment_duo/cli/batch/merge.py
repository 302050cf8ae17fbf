"""``segduo batch merge``."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.batch.status import FolderArgument
from segment_duo.cli.each import Tally
from segment_duo.cli.options import PixelSizeOption, open_session, pixel_size_value
from segment_duo.cli.output import emit_path, emit_raw, progress
from segment_duo.errors import AlreadyExists, InputError, StoreError

if TYPE_CHECKING:
    from segment_duo.session import Session
    from segment_duo.types import PixelSize


def register(app: typer.Typer) -> None:
    app.command("merge")(merge)


def merge(
    folder: FolderArgument,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a new file instead of stdout (-).")
    ] = None,
    pixel_size: PixelSizeOption = None,
) -> None:
    """Make one table of a whole batch: a row an image, with the figures of `measure --summary`; a row a sequence, with those of `measure --tracks`.

    The sets are read, their images are not; the pixel size is the one that a set records. Rows come as the sets are read, in no order.

    [bold]Examples[/bold]

      segduo batch merge run1 --csv run1.csv

      segduo batch merge run1 | awk -F, '$4 > 100'
    """
    from segment_duo.batches.summary import command_of, made
    from segment_duo.masks.measure import Summary
    from segment_duo.tracking.figures import SUMMARY

    target = None if csv_file is None or str(csv_file) == "-" else csv_file
    scale = pixel_size_value(pixel_size)
    tracks = command_of(folder) == "track"
    figures, names = (_track_figures, SUMMARY) if tracks else (_figures, tuple(one.name for one in fields(Summary)))
    columns = ["sequence" if tracks else "image", "set", "version", *names]
    tally = Tally(None, as_json=False)
    total = 0
    with open_session() as session, _Table(target, columns) as table, progress("merging") as report:
        for image, path, version in made(folder):
            total += 1
            report(total, None, image)
            try:
                found = figures(session, path, scale)
                table.row([image, path, version, *(found[name] for name in names)])
            except (InputError, StoreError) as error:
                tally.failed(path, error)
        if not total:
            raise InputError(
                f"no image of '{folder}' is done with a set", "`segduo batch status` shows what became of them."
            )
    if target is not None:
        emit_path(target)
    tally.finish(total)


def _track_figures(session: Session, path: str, scale: PixelSize | None) -> dict[str, Any]:
    from segment_duo.cli.sequence_sets import sequence_set
    from segment_duo.tracking.figures import Scale, figures, track_rows

    with sequence_set(session, path) as found:
        size = Scale.of(found.masks, pixel_size=scale)
        return asdict(figures(track_rows(found.masks, size), found.masks.frames, size))


def _figures(session: Session, path: str, scale: PixelSize | None) -> dict[str, Any]:
    from segment_duo.masks import measure
    from segment_duo.masks.formats.native import loads

    ref = session.reference(path)
    content = session.store(ref.store).read(ref.path)
    mask_set = loads(content, name=path, max_pixels=session.config.max_pixels)
    size = scale or measure.known_pixel_size(mask_set, None)
    found = measure.measure(mask_set, None, size)
    return asdict(measure.summarize(found, analysed=measure.analysed_size(mask_set), pixel_size=size))


class _Table:
    """CSV written as it comes, to stdout or to a new file; a row is whole or absent. A file that was begun stays, with what it holds."""

    def __init__(self, file: Path | None, columns: list[str]) -> None:
        self._file = file
        self._columns = columns
        self._open: IO[str] | None = None

    def __enter__(self) -> _Table:
        if self._file is not None:
            try:
                self._open = self._file.open("x", encoding="utf-8", newline="")
            except FileExistsError:
                raise AlreadyExists(
                    f"{self._file} exists already", "Nothing is overwritten: choose another name or remove it."
                ) from None
            except OSError as error:
                raise StoreError(f"cannot write '{self._file}': {error.strerror or error}") from None
        self.row(self._columns)
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()

    def row(self, cells: list[Any]) -> None:
        from segment_duo.masks.measure import csv_line

        if self._open is None:
            emit_raw(csv_line(cells))
            return
        try:
            self._open.write(csv_line(cells))
        except OSError as error:
            raise StoreError(f"cannot write '{self._file}': {error.strerror or error}") from None
