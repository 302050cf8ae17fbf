"""Sequence sets in the commands that take sets: finding the one that is meant, and what they show, write, read and compare of it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.cli.chosen import parse_choice
from segment_duo.cli.output import emit, emit_bytes, emit_json, emit_path, emit_raw, emit_table, note
from segment_duo.cli.sequence_options import parse_seconds
from segment_duo.errors import InputError, NotFound, SegduoError, UsageError
from segment_duo.types import ImageData, PixelSize

if TYPE_CHECKING:
    from segment_duo.masks.formats.sequence import SequenceSet
    from segment_duo.session import Session
    from segment_duo.tracking.figures import TrackFigures

_ROWS = 20


@dataclass(frozen=True)
class FoundSequence:
    """A sequence set that is open; ``name`` as it can be typed, ``version`` its version's name."""

    name: str
    version: str
    masks: SequenceSet


@contextmanager
def sequence_set(session: Session, text: str) -> Iterator[FoundSequence]:
    """The sequence set that one argument means: ``SEQUENCE[@VERSION]``, the latest one without, or its file.

    Raises:
        NotFound, MaskFileError: there is none; see :meth:`segment_duo.library.sequences.SequenceSets.open`.
    """
    from segment_duo.library.sequence_files import open_sequence
    from segment_duo.library.sequences import sequence_ref

    choice = parse_choice(session, text)
    if choice.is_file:
        found = open_sequence(
            session.store(choice.ref.store), choice.ref.store, choice.ref.path, max_pixels=session.config.max_pixels
        )
        if found is None:
            raise InputError(f"{text} is a set of one image, not of a sequence", "Make one with `segduo track`.")
        opened = FoundSequence(str(choice.ref), choice.ref.name, found)
    else:
        ref = sequence_ref(choice.ref)
        version, found = session.sequences.open(ref, choice.version)
        opened = FoundSequence(f"{choice.ref}@{version.name}", version.name, found)
        if choice.version is None:
            note(f"{opened.name}: {len(found.frames)} frames")
    with opened.masks:
        if not opened.masks.finished:
            note(f"{opened.name}: its writing was broken off; what is there is taken")
        yield opened


def is_sequence(session: Session, text: str) -> bool:
    """Whether an argument means a sequence set: by its version or file, or for the newest set that there is. False where there is none at all."""
    from segment_duo.library.sequence_files import open_sequence
    from segment_duo.library.sequences import sequence_ref

    choice = parse_choice(session, text)
    try:
        if choice.is_file:
            found = open_sequence(session.store(choice.ref.store), choice.ref.store, choice.ref.path)
        else:
            ref = sequence_ref(choice.ref)
            versions = session.sets.versions(ref)
            if choice.version is not None:
                versions = [one for one in versions if one.name == choice.version]
            found = session.sequences.read(ref, versions[0]) if versions else None
    except SegduoError:
        return False
    if found is not None:
        found.close()
    return found is not None


def show(session: Session, text: str, *, as_json: bool) -> None:
    """The objects of a sequence set: when each was seen, and what happened."""
    with sequence_set(session, text) as found:
        lives, events, head = found.masks.lives(), found.masks.events(), found.masks.head
        if as_json:
            emit_json(
                {
                    "version": found.version,
                    "provenance": head.record(),
                    "frames": len(found.masks.frames),
                    "objects": [dataclasses.asdict(life) for life in lives],
                    "events": [event.record() for event in events],
                    "notices": list(found.masks.notices),
                }
            )
            return
    columns = ("id", "first", "last", "frames", "parent", "merged_into")
    rows = [["" if value is None else value for value in dataclasses.astuple(life)] for life in lives]
    emit_table(columns, rows, right=columns)


def label(
    session: Session, text: str, ids: Collection[int], name: str, *, suffix: str, dry_run: bool, as_json: bool
) -> None:
    """Label objects on all their frames, as a new version; without ``ids`` all of them."""
    from segment_duo.library.sequences import sequence_ref
    from segment_duo.sequences import relabel

    choice = parse_choice(session, text)
    with sequence_set(session, text) as found:
        objects = {life.id for life in found.masks.lives()}
        unknown = sorted(set(ids) - objects)
        if unknown:
            raise InputError(f"{found.name} has no object {unknown[0]}", "`segduo masks show` gives the ids.")
        meant = set(ids) or objects
        changed = sum(label != name for label in found.masks.labels(meant).values())
        if dry_run:
            counts = {"changed": changed, "objects": len(objects)}
            emit_json(counts) if as_json else emit(f"{changed} of {len(objects)} objects")
            return
        image = found.masks.head.provenance.image
        ref = sequence_ref(session.reference(image.path) if choice.is_file and image is not None else choice.ref)
        done = relabel(
            session, ref, found.masks, dict.fromkeys(sorted(meant), name), parent=found.version, suffix=suffix
        )
    if as_json:
        emit_json(
            {
                "sequence": str(ref), "objects": done.objects, "changed": changed, "parent": found.version,
                "saved": done.saved.path, "version": done.saved.version.name,
            }
        )  # fmt: skip
    else:
        emit_path(done.saved.path)


def export(
    session: Session,
    text: str,
    fmt: str,
    destination: Path,
    *,
    overlap: str,
    pixel_size: PixelSize | None,
    banner: str | int = "auto",
) -> None:
    """Write a sequence set in one of the formats of sequences, and tell the path; ``-`` is stdout."""
    from segment_duo.tracking.export import SEQUENCE_FORMATS, export_sequence
    from segment_duo.tracking.figures import Scale

    form, to_stdout = SEQUENCE_FORMATS[fmt], str(destination) == "-"
    if to_stdout and not form.extension:
        raise UsageError(f"the format {fmt} is a folder of files and does not go to stdout", "Name a folder with --to.")
    with sequence_set(session, text) as found, tempfile.TemporaryDirectory() as place:
        stem = session.reference(found.masks.head.source or found.name).stem
        target = Path(place) if to_stdout else destination
        if target.is_dir():
            target /= f"{stem}{form.extension}" if form.extension else stem
        scale = Scale.of(found.masks, pixel_size=pixel_size)
        frames = _frames(session, found.masks, banner) if fmt == "film" else None
        export_sequence(found.masks, fmt, target, scale=scale, overlap=overlap, name=stem, frame=frames)
        if not to_stdout:
            emit_path(target)
            return
        if form.extension in (".csv", ".json"):
            emit_raw(target.read_text(encoding="utf-8"))
            return
        with target.open("rb") as file:
            while part := file.read(2**20):
                emit_bytes(part)


def _frames(session: Session, found: SequenceSet, banner: str | int) -> Callable[[int], ImageData]:
    """Reads frames of the sequence that a set is of, as the set records it."""
    from segment_duo.sequences import Opening, open_sequence

    head = found.head
    recorded = head.provenance.banner
    cut = recorded.height if banner == "auto" and recorded else banner
    axis = head.axes.axis if head.axes.axis in ("T", "Z", "C") else None
    opened = open_sequence(session, session.reference(head.source), Opening(banner=cut, axis=axis))
    image = head.provenance.image
    if image is not None and (opened.frames.width, opened.frames.height) != (image.width, image.height):
        raise InputError(f"{head.source} has another size now", "The film is drawn on the frames that were tracked.")
    return opened.frames.frame


def import_stack(
    session: Session, sequence: str, place: Path, fmt: str | None, *, suffix: str, as_json: bool, opening: Any
) -> None:
    """Label images of many frames become a sequence set."""
    from segment_duo.sequences import import_labels
    from segment_duo.tracking.label_stack import LabelStack

    with LabelStack(place) as stack:
        if fmt == "ctc" and not stack.tracks:
            raise InputError(f"{place} holds no table of tracks", "A Cell Tracking Challenge folder has res_track.txt or man_track.txt.")  # fmt: skip
        opened = opening.open(session, sequence)
        try:
            done = import_labels(session, opened, stack, suffix=suffix)
        finally:
            opened.frames.close()
    if as_json:
        emit_json(
            {
                "sequence": str(opened.ref), "frames": done.frames, "objects": done.objects, "events": done.events,
                "saved": done.saved.path, "version": done.saved.version.name,
            }
        )  # fmt: skip
    else:
        emit_path(done.saved.path)


def measure(
    session: Session,
    text: str,
    *,
    csv: Path | None,
    plot: Path | None,
    summary: bool,
    as_json: bool,
    pixel_size: PixelSize | None,
    frame_time: str | None,
) -> None:
    """``segduo measure --tracks``: the table of tracks, or figures over time."""
    from segment_duo.masks.formats.export import write_new
    from segment_duo.tracking.export import export_sequence
    from segment_duo.tracking.figures import Scale, figures, rows_csv, track_rows

    with sequence_set(session, text) as found:
        seconds = None if frame_time is None else parse_seconds(frame_time)
        scale = Scale.of(found.masks, pixel_size=pixel_size, frame_seconds=seconds)
        frames = found.masks.frames
        if csv is not None:
            export_sequence(found.masks, "tracks-csv", csv, scale=scale)
            note(f"table: {csv}") if as_json else emit_path(csv)
        elif not (summary or as_json or plot is not None):
            for part in rows_csv(track_rows(found.masks, scale)):
                emit_raw(part)
        if not (summary or as_json or plot is not None):
            return
        rows = list(track_rows(found.masks, scale))
        total = figures(rows, frames, scale)
        if plot is not None:
            from segment_duo.tracking.charts import draw_tracks

            write_new(plot, draw_tracks(rows, total, title=found.name, suffix=plot.suffix.lower()))
            note(f"plot: {plot}")
        if as_json:
            record: dict[str, Any] = {"sequence": found.name, "summary": dataclasses.asdict(total)}
            emit_json(record if summary else record | {"rows": [dataclasses.asdict(row) for row in rows]})
        elif summary:
            _print_figures(found.name, total)


def _print_figures(name: str, total: TrackFigures) -> None:
    unit, per = total.unit, total.time_unit
    emit(name)
    said = {
        "objects": total.objects,
        "frames": total.frames,
        "median_life": None if total.median_life is None else f"{total.median_life:g} frames",
        "growth": None if total.growth is None else f"{total.growth:.4g} {unit}/{per} of the diameter",
        "median_speed": None if total.median_speed is None else f"{total.median_speed:.4g} {unit}/{per}",
    }
    for key, value in said.items():
        if value is not None:
            emit(f"  {key:<22}{value}")
    step = max(1, len(total.population) // _ROWS)
    rows = [
        [one.frame, "" if one.time_s is None else f"{one.time_s:g}", one.count]
        + ["" if value is None else f"{value:.4g}" for value in (one.mean_diameter, one.d10, one.d50, one.d90)]
        for one in total.population[::step]
    ]
    columns = ("frame", "time_s", "count", f"mean_{unit}", f"d10_{unit}", f"d50_{unit}", f"d90_{unit}")
    emit_table(columns, rows, right=columns)
    lags = [
        [one.frames, "" if one.time_s is None else f"{one.time_s:g}", f"{one.msd:.4g}", one.pairs]
        for one in total.displacement[:_ROWS]
    ]
    emit_table(("lag", "lag_s", f"msd_{unit}2", "pairs"), lags, right=("lag", "lag_s", f"msd_{unit}2", "pairs"))


def score(session: Session, text: str, truth: Path, *, as_json: bool) -> None:
    """``segduo score`` of a sequence set against label images of its frames."""
    from segment_duo.tracking.label_stack import LabelStack
    from segment_duo.tracking.scores import SequenceScorer
    from segment_duo.tracking.stacks import label_frames

    with sequence_set(session, text) as found, LabelStack(truth) as stack:
        frames = found.masks.frames
        numbers = _paired(frames, len(stack), found.name, truth)
        scorer = SequenceScorer()
        for labels, number in zip(label_frames(found.masks), numbers, strict=True):
            scorer.add(labels, stack.frame(number, found.masks.head.size))
    result = dataclasses.asdict(scorer.score())
    if as_json:
        emit_json(result)
        return
    for key, value in result.items():
        emit(f"{key:<18}{value:.4f}" if isinstance(value, float) else f"{key:<18}{value}")


def _paired(frames: list[int], count: int, name: str, truth: Path) -> list[int]:
    """The label image of each frame: by number, or one for each frame of the set."""
    if frames and count > frames[-1]:
        return frames
    if count == len(frames):
        return list(range(count))
    if not frames:
        raise NotFound(f"{name} holds no frames")
    raise UsageError(f"{truth} has {count} label images, {name} {len(frames)} frames up to number {frames[-1]}")


def is_stack(truth: Path) -> bool:
    """Whether a truth is of many frames: a folder, or a TIFF of several pages."""
    if truth.is_dir():
        return True
    if truth.suffix.lower() not in (".tif", ".tiff") or not truth.is_file():
        return False
    from segment_duo.tracking.label_stack import LabelStack

    try:
        with LabelStack(truth) as stack:
            return len(stack) > 1
    except SegduoError:
        return False
