"""Sequence sets: written frame by frame, read by anybody, whole after a torn write."""

from __future__ import annotations

import csv
import gc
import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segment_duo.errors import AlreadyExists, MaskFileError, StoreError
from segment_duo.masks import load_masks, rle
from segment_duo.masks.formats.sequence import Event, SequenceHead, SequenceSet
from segment_duo.masks.formats.sequence_writer import SequenceWriter
from segment_duo.tracking.export import export_sequence
from segment_duo.tracking.figures import Scale, TrackRow, figures, rows_csv, track_rows
from segment_duo.tracking.label_stack import LabelStack
from segment_duo.tracking.scores import SequenceScorer, contour_accuracy
from segment_duo.tracking.stacks import label_frames
from segment_duo.types import FrameAxes, ImageIdentity, Mask, ModelIdentity, Origin, PixelSize, Provenance
from tests.tracking.films import SIZE, disc

ORIGIN = Origin("track", ModelIdentity("nano", "ab"), {"method": "link"}, "1")


def head(frames: int = 4) -> SequenceHead:
    provenance = Provenance(
        image=ImageIdentity("/data/film.tif", "cd", SIZE[1], SIZE[0]), operation="track", pixel_size=PixelSize(2.0, 2.0, "flag")
    )  # fmt: skip
    return SequenceHead(
        provenance, FrameAxes("T", (("T", frames),), 0.5), tuple(range(frames)), "none", (ORIGIN,), "/data/film.tif"
    )


def mask(one: int, x: float, y: float, radius: float) -> Mask:
    code = rle.encode(disc(x, y, radius))
    return Mask(code, rle.area(code), rle.bounding_box(code), id=one, origin=ORIGIN, crop_box=(0.0, 0.0, 96.0, 64.0))


FRAMES = [
    ([mask(1, 30, 30, 10)], []),
    ([mask(1, 26, 30, 7), mask(2, 42, 30, 6)], [Event(1, "split", (1,), (1, 2))]),
    ([mask(2, 44, 30, 6)], [Event(2, "lost", (1,))]),
    ([mask(1, 26, 32, 8), mask(2, 46, 30, 6)], [Event(3, "returned", (1,))]),
]


def written(file: Path, frames: int = 4, *, end: bool = True) -> Path:
    writer = SequenceWriter.create(file, head())
    for number, (masks, events) in enumerate(FRAMES[:frames]):
        writer.append(number, masks, events)
    writer.finish(["said"]) if end else writer.close()
    return file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with SequenceSet.open(written(tmp_path / "a.pkl")) as found:
        assert found.head == head()
        assert found.finished
        assert found.notices == ("said",)
        assert [list(seen.masks) for seen in found] == [masks for masks, _ in FRAMES]
        assert found.events() == [event for _, events in FRAMES for event in events]
        first, second = found.lives()
    assert (first.first, first.last, first.frames, first.parent) == (0, 3, 3, None)
    assert (second.first, second.last, second.frames, second.parent) == (1, 3, 3, 1)


def test_the_loader_reads_it_frame_by_frame(tmp_path: Path) -> None:
    file = written(tmp_path / "a.pkl")
    frames = list(load_masks.load_frames(file))
    assert [(number, [one.id for one in masks]) for number, masks in frames] == [
        (0, [1]),
        (1, [1, 2]),
        (2, [2]),
        (3, [1, 2]),
    ]
    assert (frames[0][1][0].array == disc(30, 30, 10)).all()
    assert load_masks.load_provenance(file)["sequence"]["frames"] == {"start": 0, "stop": 4, "step": 1}
    with pytest.raises(load_masks.DamagedMaskFile, match="load_frames"):
        load_masks.load(file)


def test_a_write_that_was_torn_anywhere_goes_on_without_loss(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.pkl", end=False).read_bytes()
    with SequenceSet.open(tmp_path / "whole.pkl") as found:
        begin = found.chunks[0].offset - 200
        ends = [chunk.offset + chunk.size for chunk in found.chunks]
    for cut in range(max(begin, 1), len(whole) + 1, 149):
        file = tmp_path / f"cut{cut}.pkl"
        file.write_bytes(whole[:cut])
        try:
            writer = SequenceWriter.resume(file)
        except MaskFileError:
            assert cut < found.chunks[0].offset  # the head itself was torn
            continue
        kept = sum(end <= cut for end in ends)
        assert writer.done == set(range(kept))
        for number in range(kept, 4):
            writer.append(number, *FRAMES[number])
        writer.finish(["said"])
        with SequenceSet.open(file) as again:
            assert [list(seen.masks) for seen in again] == [masks for masks, _ in FRAMES]


def test_a_last_frame_with_its_length_but_not_its_content_is_done_again(tmp_path: Path) -> None:
    file = written(tmp_path / "a.pkl", 3, end=False)
    content = bytearray(file.read_bytes())
    content[-200:] = bytes(200)
    file.write_bytes(content)
    writer = SequenceWriter.resume(file)
    assert writer.done == {0, 1}
    writer.close()


def test_two_writers_never_share_a_file(tmp_path: Path) -> None:
    writer = SequenceWriter.create(tmp_path / "a.pkl", head())
    with pytest.raises(AlreadyExists):
        SequenceWriter.create(tmp_path / "a.pkl", head())
    with pytest.raises(StoreError, match="another run"):
        SequenceWriter.resume(tmp_path / "a.pkl")
    writer.close()
    SequenceWriter.resume(tmp_path / "a.pkl").close()


def test_a_frame_that_is_written_again_replaces_the_first(tmp_path: Path) -> None:
    writer = SequenceWriter.create(tmp_path / "a.pkl", head())
    for masks, events in FRAMES[:2]:
        writer.append(0, masks, events)
    assert [one.id for one in writer.frame(0).masks] == [1, 2]
    writer.finish()
    with SequenceSet.open(tmp_path / "a.pkl") as found:
        assert [(seen.frame, len(seen.masks)) for seen in found] == [(0, 2)]


def test_damage_inside_a_whole_file_is_told(tmp_path: Path) -> None:
    file = written(tmp_path / "a.pkl")
    content = bytearray(file.read_bytes())
    with SequenceSet.open(file) as found:
        content[found.chunks[1].offset + 40] ^= 1
    file.write_bytes(content)
    with SequenceSet.open(file) as found, pytest.raises(MaskFileError, match="checksum"):
        found.frame(1)


def test_tables_and_figures_in_nm_and_s(tmp_path: Path) -> None:
    with SequenceSet.open(written(tmp_path / "a.pkl")) as found:
        rows = list(track_rows(found, Scale.of(found)))
        total = figures(rows, found.frames, Scale.of(found))
    last = rows[-1]
    assert (last.id, last.frame, last.time_s) == (2, 3, 1.5)
    assert last.displacement_px == pytest.approx(4.0)
    assert last.speed_nm_per_s == pytest.approx(2 * 2.0 / 0.5)
    first = next(row for row in rows if row.id == 1 and row.frame == 3)
    assert first.speed_px_per_frame == pytest.approx(2.0 / 2)  # 2 pixels in two frames, of which one was a gap
    assert [one.count for one in total.population] == [1, 2, 1, 2]
    lag = total.displacement[0]
    assert (lag.frames, lag.pairs) == (1, 3)
    assert lag.msd == pytest.approx((64 + 16 + 16) / 3)  # nm squared: steps of 4, 2 and 2 pixels of 2 nm


def test_the_table_of_tracks_has_no_formulas_and_all_digits_of_long_times() -> None:
    row = TrackRow(
        frame=2_469_136, time_s=1_234_568.5, id=1, area_px=9, centroid_x_px=1.0, centroid_y_px=2.0,
        equivalent_diameter_px=3.0, displacement_px=0.0, step_px=None, speed_px_per_frame=None, touches_edge=False,
        parent=None, merged_into=None, area_nm2=None, centroid_x_nm=None, centroid_y_nm=None,
        equivalent_diameter_nm=None, displacement_nm=None, speed_nm_per_s=None, predicted_iou=None,
        label='=HYPERLINK("x")\n',
    )  # fmt: skip
    (told, *more) = csv.DictReader(io.StringIO("".join(rows_csv([row] * 1200))))
    assert len(more) == 1199
    assert (told["time_s"], told["touches_edge"], told["step_px"]) == ("1234568.5", "false", "")
    assert told["label"] == '\'=HYPERLINK("x")\\x0a'


def test_objects_that_stay_as_they_are_do_not_grow(tmp_path: Path) -> None:
    writer = SequenceWriter.create(tmp_path / "a.pkl", head())
    for number in range(4):
        writer.append(number, [mask(1, 30 + number, 30, 10)], [])
    writer.finish([])
    with SequenceSet.open(tmp_path / "a.pkl") as found:
        scale = Scale(PixelSize(0.7, 0.7, "flag"), 0.3)
        total = figures(track_rows(found, scale), found.frames, scale)
    assert total.growth == 0.0
    assert total.median_speed == pytest.approx(0.7 / 0.3)


@pytest.mark.parametrize("fmt", ["labels-ome", "labels-imagej"])
def test_label_stacks_come_back_with_their_ids_scale_and_time(tmp_path: Path, fmt: str) -> None:
    with SequenceSet.open(written(tmp_path / "a.pkl")) as found:
        file = export_sequence(found, fmt, tmp_path / "labels.tif")
        expected = list(label_frames(found))
    with tifffile.TiffFile(file) as tiff:
        assert tiff.series[0].axes == "TYX"
        assert tiff.is_imagej if fmt == "labels-imagej" else tiff.is_ome
        assert len(tiff.pages) == 4
        if fmt == "labels-imagej":
            assert tiff.imagej_metadata["finterval"] == 0.5
            assert tiff.pages[0].compression == 1  # ImageJ reads such stacks as one block
        else:
            assert 'TimeIncrement="0.5"' in tiff.ome_metadata
            assert 'PhysicalSizeX="0.002"' in tiff.ome_metadata
    with LabelStack(file) as stack:
        assert len(stack) == 4
        assert all((stack.frame(n, SIZE) == expected[n]).all() for n in range(4))


def test_a_label_stack_without_byte_counts_is_no_background(tmp_path: Path) -> None:
    labels = np.zeros((2, *SIZE), np.uint16)
    labels[0, 3:9, 4:8], labels[1, 5:11, 4:8] = 1, 2
    for compression in (None, "lzw"):
        stored = io.BytesIO()
        with tifffile.TiffWriter(stored) as writer:
            for page in labels:
                writer.write(page, metadata=None, rowsperstrip=4, compression=compression)
        data = bytearray(stored.getvalue())
        with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
            for page in tiff.pages:
                counts = page.aspage().tags["StripByteCounts"]
                data[counts.valueoffset : counts.valueoffset + counts.valuebytecount] = bytes(counts.valuebytecount)
        file = tmp_path / f"{compression}.tif"
        file.write_bytes(data)
        with LabelStack(file) as stack:
            assert all((stack.frame(n, SIZE) == labels[n]).all() for n in (1, 0, 1))


@pytest.mark.filterwarnings("error")
def test_a_stack_that_cannot_be_read_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    for content in (b"II*\0junk", b"no TIFF"):
        file.write_bytes(content)
        with pytest.raises(MaskFileError, match="is not a readable stack of labels"):
            LabelStack(file)
        gc.collect()


def test_an_imagej_stack_in_one_page_is_a_label_stack(tmp_path: Path) -> None:
    labels = np.arange(3, dtype=np.uint16)[:, None, None] + np.ones((3, *SIZE), np.uint16)
    file = tmp_path / "large.tif"
    with tifffile.TiffWriter(file, byteorder=">") as writer:
        writer.write(labels[0], description="ImageJ=1.54f\nimages=3\nslices=3\n", metadata=None)
    file.write_bytes(file.read_bytes() + labels[1:].astype(">u2").tobytes())
    with LabelStack(file) as stack:
        assert len(stack) == 3
        assert all((stack.frame(n, SIZE) == labels[n]).all() for n in range(3))


def test_a_cell_tracking_folder_has_no_gaps_and_begins_anew_at_splits(tmp_path: Path) -> None:
    with SequenceSet.open(written(tmp_path / "a.pkl")) as found:
        export_sequence(found, "ctc", tmp_path / "01_RES")
        with pytest.raises(AlreadyExists):
            export_sequence(found, "ctc", tmp_path / "01_RES")
    # Object 1 until the split; its two parts, of which the first is unseen in frame 2 and so a track of its own afterwards.
    assert (tmp_path / "01_RES/res_track.txt").read_text() == "1 0 0 0\n2 1 1 1\n3 1 3 1\n4 3 3 2\n"
    with LabelStack(tmp_path / "01_RES") as stack:
        assert [sorted(np.unique(labels).tolist()) for labels in stack] == [[0, 1], [0, 2, 3], [0, 3], [0, 3, 4]]
        assert stack.events() == [Event(1, "split", (1,), (2, 3))]


def test_davis_youtube_and_films(tmp_path: Path) -> None:
    import json

    from PIL import Image

    from segment_duo.images import read_array

    picture = read_array(np.full(SIZE, 90, np.uint8), name="a")
    with SequenceSet.open(written(tmp_path / "a.pkl")) as found:
        export_sequence(found, "davis", tmp_path / "davis")
        export_sequence(found, "youtube-vis", tmp_path / "y.json", name="film")
        for name in ("f.gif", "f.png", "f.mp4"):
            export_sequence(found, "film", tmp_path / name, frame=lambda _: picture)
    with Image.open(tmp_path / "davis/00001.png") as image:
        assert image.mode == "P"
        assert np.unique(np.array(image)).tolist() == [0, 1, 2]
    record = json.loads((tmp_path / "y.json").read_text())
    assert [one is None for one in record["annotations"][0]["segmentations"]] == [False, False, True, False]
    for name in ("f.gif", "f.png"):
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 4
    import av

    with av.open(str(tmp_path / "f.mp4")) as film:
        assert len(list(film.decode(video=0))) == 4


def test_scores_of_a_perfect_a_switched_and_a_missing_track() -> None:
    truth = [np.where(disc(20 + n, 20, 8), 5, 0) + np.where(disc(60, 40, 8), 9, 0) for n in range(4)]
    perfect, switched, missing = (SequenceScorer() for _ in range(3))
    for number, labels in enumerate(truth):
        perfect.add(labels * 2, labels)
        swapped = np.select([labels == 5, labels == 9], [9, 5]) if number >= 2 else labels
        switched.add(swapped, labels)
        missing.add(np.where(labels == 5, 5, 0) if number else labels, labels)
    full = perfect.score()
    assert (full.j_and_f, full.complete, full.id_switches, full.precision, full.recall) == (1.0, 2, 0, 1.0, 1.0)
    turned = switched.score()
    assert (turned.j, turned.complete, turned.id_switches) == (0.5, 0, 2)
    gone = missing.score()
    assert (gone.j, gone.complete, gone.id_switches) == (pytest.approx((1 + 0.25) / 2), 1, 0)


def test_contours_are_forgiven_within_the_tolerance_of_davis() -> None:
    # 0.008 of the diagonal of 96 x 64 is one pixel: a shift by one is perfect, by ten pixels nothing is left.
    assert contour_accuracy(disc(31, 30, 8), disc(30, 30, 8)) == pytest.approx(1.0)
    assert contour_accuracy(disc(50, 30, 8), disc(30, 30, 8)) == 0.0


def test_the_frame_is_no_contour() -> None:
    # Halves of the frame meet along one line each; the frame's edge, which they share, agrees about nothing.
    left, farther = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    left[:, :40], farther[:, :50] = True, True
    assert contour_accuracy(left, left) == 1.0
    assert contour_accuracy(left, farther) == contour_accuracy(left[::-1, ::-1], farther[::-1, ::-1]) == 0.0
    # Two quarters in the corner, one two rows higher: 73 and 75 boundary pixels inside the frame, of each 26 within one pixel of the other's.
    corner, higher = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    corner[40:, 48:], higher[38:, 48:] = True, True
    assert contour_accuracy(corner, higher) == pytest.approx(2 * 26 / (73 + 75))
