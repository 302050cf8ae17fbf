"""Stacks, folders and films: frames one at a time, in the right order, with one scale, one banner and one stretch."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segment_duo.config import load_config
from segment_duo.errors import ImageError, NotFound, UsageError
from segment_duo.frames import sequence_of
from segment_duo.images import read_image
from segment_duo.images.axes import parse_seconds
from segment_duo.images.frame_range import parse_frames
from segment_duo.images.sequences import (
    FilmSequence,
    FolderSequence,
    FrameSequence,
    Reading,
    StackSequence,
)  # fmt: skip
from segment_duo.paths import Paths
from segment_duo.session import Session
from segment_duo.stores.local import LocalStore
from segment_duo.text import natural_order
from segment_duo.types import ImageRef, PixelSize, StoreKind
from tests.drops_server import DropsServer
from tests.images.test_banner import STYLES, add_banner, specimen

RNG = np.random.default_rng(8)
HYPER = RNG.integers(0, 60_000, (5, 3, 2, 32, 48)).astype(np.uint16)
"""T, Z, C, Y, X."""

IMAGEJ = {"axes": "TZCYX", "unit": "um", "finterval": 0.2, "spacing": 0.3}
OME = {
    "axes": "TZCYX",
    "TimeIncrement": 200.0,
    "TimeIncrementUnit": "ms",
    "PhysicalSizeX": 250.0,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeZ": 0.3,
}


def tiff(image: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def imagej(image: np.ndarray, **metadata: Any) -> bytes:
    return tiff(image, imagej=True, resolution=(4, 4), metadata=metadata)


def pages(*images: np.ndarray, **options: Any) -> bytes:
    """A plain multi-page TIFF of images that may differ in size and depth."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for image in images:
            writer.write(image, contiguous=False, metadata=None, **options)
    return buffer.getvalue()


def ref_of(path: Path) -> ImageRef:
    return ImageRef(StoreKind.LOCAL, str(path))


def open_at(path: Path, **options: Any) -> FrameSequence:
    return sequence_of(LocalStore(), ref_of(path), **options)


# ---- hyperstacks

HYPERSTACKS = {
    "ImageJ": imagej(HYPER, **IMAGEJ),
    "OME": tiff(HYPER, ome=True, metadata=OME),
    "OME LZW": tiff(HYPER, ome=True, metadata=OME, compression="lzw"),
    "OME, other order": tiff(HYPER.transpose(2, 1, 0, 3, 4), ome=True, metadata=OME | {"axes": "CZTYX"}),
}


@pytest.mark.parametrize("kind", HYPERSTACKS)
def test_hyperstacks_run_along_time_and_stay_where_they_are_told(kind: str) -> None:
    raw = HYPERSTACKS[kind]
    with StackSequence(raw, "a.tif", at={"Z": 2, "C": 1}) as sequence:
        assert (len(sequence), sequence.axes.axis, dict(sequence.axes.sizes)) == (5, "T", {"T": 5, "Z": 3, "C": 2})
        assert sequence.frame_seconds == pytest.approx(0.2)
        assert sequence.pixel_size is not None
        assert sequence.pixel_size.x_nm == pytest.approx(250)
        for time in (3, 0, 4):
            image = sequence.frame(time)
            assert np.array_equal(image.original, HYPER[time, 2, 1])
            # The same plane as --page reads.
            assert np.array_equal(read_image(raw, name="a.tif", page=image.facts.page).original, HYPER[time, 2, 1])
        assert set(sequence.label(3).split(", ")) == {"T 3", "Z 2", "C 1"}
    with StackSequence(raw, "a.tif", axis="Z", at={"T": 4}) as sequence:
        assert (len(sequence), sequence.frame_seconds, sequence.axes.spacing_nm) == (3, None, pytest.approx(300))
        assert [np.array_equal(sequence.frame(depth).original, HYPER[4, depth, 0]) for depth in range(3)] == [True] * 3
    with StackSequence(raw, "a.tif", axis="C", at={"T": 4, "Z": 1}) as sequence:
        assert [np.array_equal(sequence.frame(channel).original, HYPER[4, 1, channel]) for channel in range(2)] == [
            True
        ] * 2


def test_what_a_stack_does_not_have_is_said() -> None:
    raw = HYPERSTACKS["ImageJ"]
    for options, hint in (
        ({"axis": "page"}, "T 5, Z 3, C 2"),
        ({"at": {"Z": 3}}, "counted from 0"),
        ({"at": {"Q": 0}}, "T 5"),
    ):
        with pytest.raises(UsageError, match="there is no") as caught:
            StackSequence(raw, "a.tif", **options)
        assert hint in caught.value.hint
    with StackSequence(raw, "a.tif") as sequence:
        for number in (-1, 5):
            with pytest.raises(ImageError, match=f"there is no frame {number}; there are 5, 0 to 4"):
                sequence.frame(number)


@pytest.mark.parametrize(
    ("raw", "axis", "sizes", "seconds"),
    [
        (imagej(HYPER[:, 0, 0], axes="TYX", finterval=0.5), "T", {"T": 5}, 0.5),
        (imagej(HYPER[:, 0, 0], axes="TYX", fps=4.0), "T", {"T": 5}, 0.25),
        (imagej(HYPER[:, 0, 0], axes="TYX", finterval=3.0, tunit="min"), "T", {"T": 5}, 180),
        (imagej(HYPER[:, 0, 0], axes="TYX", finterval=500.0, tunit="\\u00B5s"), "T", {"T": 5}, 5e-4),
        (imagej(HYPER[:, 0, 0], axes="ZYX"), "Z", {"Z": 5}, None),
        (imagej(HYPER[:3, 0, 0], axes="CYX"), "C", {"C": 3}, None),
        (tiff(HYPER[:, 0, 0], imagej=True, truncate=True, metadata={"axes": "TYX"}), "T", {"T": 5}, None),
        (tiff(HYPER[:, 0, 0]), "page", {"page": 5}, None),
        (tiff(HYPER[:, 0, 0], compression="lzw"), "page", {"page": 5}, None),
        (tiff(HYPER[0, 0, 0]), "page", {"page": 1}, None),
        (tiff(HYPER[:, 0, 0], ome=True, metadata={"axes": "TYX"}), "T", {"T": 5}, None),
        (
            tiff(HYPER[:, 0, 0], ome=True, metadata={"axes": "TYX", "Plane": {"DeltaT": [0.0, 1.0, 2.1, 3.1, 4.1]}}),
            "T",
            {"T": 5},
            1.0,
        ),
    ],
)
def test_axes_and_times_of_stacks(raw: bytes, axis: str, sizes: dict[str, int], seconds: float | None) -> None:
    with StackSequence(raw, "a.tif") as sequence:
        assert (sequence.axes.axis, dict(sequence.axes.sizes)) == (axis, sizes)
        assert sequence.frame_seconds == (seconds and pytest.approx(seconds))
        last = len(sequence) - 1
        assert np.array_equal(sequence.frame(last).original, HYPER[last, 0, 0])


def test_colour_frames_and_a_description_that_does_not_fit_the_pages() -> None:
    colour = RNG.integers(0, 255, (4, 32, 48, 3)).astype(np.uint8)
    with StackSequence(tiff(colour, photometric="rgb"), "a.tif") as sequence:
        assert np.array_equal(sequence.frame(3).pixels, colour[3])
    with StackSequence(imagej(colour, axes="TYXS"), "a.tif") as sequence:
        assert (sequence.axes.axis, len(sequence)) == ("T", 4)
        assert np.array_equal(sequence.frame(2).pixels, colour[2])
    wrong = HYPERSTACKS["ImageJ"].replace(b"frames=5", b"frames=9")
    with StackSequence(wrong, "a.tif") as sequence:
        assert (sequence.axes.axis, len(sequence)) == ("page", 30)


def test_ome_planes_in_an_order_of_their_own() -> None:
    """Microscopes list the planes in the order they were written; the XML says which is which."""
    blocks = "".join(f'<TiffData FirstT="{time}" IFD="{4 - time}" PlaneCount="1"/>' for time in range(5))
    size = 'SizeX="48" SizeY="32" SizeZ="1" SizeC="1" SizeT="5" DimensionOrder="XYCZT" Type="uint16"'
    pixels = f'<Pixels ID="Pixels:0" {size}>{blocks}</Pixels>'
    xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">{pixels}</Image></OME>'
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number in range(5):
            writer.write(
                HYPER[4 - number, 0, 0], description=xml if number == 0 else None, metadata=None, contiguous=False
            )
    with StackSequence(buffer.getvalue(), "a.ome.tif") as sequence:
        assert (sequence.axes.axis, [sequence.page(time) for time in range(5)]) == ("T", [4, 3, 2, 1, 0])
        assert [np.array_equal(sequence.frame(time).original, HYPER[time, 0, 0]) for time in range(5)] == [True] * 5


def test_the_pixel_size_of_a_later_page_is_that_of_the_first() -> None:
    raw = HYPERSTACKS["ImageJ"]
    for page in (0, 7):
        size = read_image(raw, name="a.tif", page=page).facts.pixel_size
        assert size is not None
        assert size.x_nm == pytest.approx(250)


# ---- one frame at a time


def test_a_stack_never_lies_in_memory_as_a_whole(tmp_path: Path) -> None:
    frame = RNG.integers(0, 4096, (512, 512)).astype(np.uint16)

    def peak_of(count: int) -> int:
        file = tmp_path / f"{count}.tif"
        with tifffile.TiffWriter(file) as writer:
            for number in range(count):
                writer.write(frame + np.uint16(number), contiguous=False, compression="lzw" if number % 2 else None)
        with open_at(file) as sequence:
            tracemalloc.start()
            try:
                for number in (0, count - 1, count // 2, 1, 2, 3):
                    assert np.array_equal(sequence.frame(number).original, frame + np.uint16(number))
                assert sequence.sha256
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert sequence.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
            return peak

    assert peak_of(160) < 1.1 * peak_of(20)  # 80 MB of pixels against 10


def test_only_the_frame_asked_for_is_read(tmp_path: Path) -> None:
    """Every other frame of this file is damaged; nobody may notice."""
    frames = RNG.integers(0, 255, (30, 64, 80)).astype(np.uint8)
    raw = bytearray(pages(*frames, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as tif:
        for number, page in enumerate(tif.pages):
            if number not in {0, 17}:
                raw[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]] = bytes(page.databytecounts[0])
    file = tmp_path / "a.tif"
    file.write_bytes(raw)
    with open_at(file) as sequence:
        assert np.array_equal(sequence.frame(17).pixels[..., 0], frames[17])
        with pytest.raises(ImageError, match="page 16"):
            sequence.frame(16)
        assert np.array_equal(sequence.frame(0).pixels[..., 0], frames[0])


def test_threads_may_share_a_sequence(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(HYPERSTACKS["OME LZW"])
    found: dict[int, bool] = {}
    with open_at(file) as sequence:

        def work(start: int) -> None:
            for step in range(10):
                number = (start + step) % 5
                assert (sequence.width, len(sequence.sha256)) == (48, 64)
                found[start * 10 + step] = np.array_equal(sequence.frame(number).original, HYPER[number, 0, 0])

        threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert list(found.values()) == [True] * 40


@pytest.mark.parametrize("raw", [b"", b"II*\0", HYPERSTACKS["OME"][:400], b"<html></html>"])
def test_what_is_no_stack_is_refused(raw: bytes) -> None:
    def read() -> None:
        with StackSequence(raw, "a.tif") as sequence:
            sequence.frame(0)

    with pytest.raises(ImageError):
        read()


# ---- one stretch, one banner, one scale


def test_one_stretch_for_all_frames() -> None:
    ramp = np.tile(np.arange(200) / 200, (100, 1))
    frames = np.stack([(1000 + 500 * number + 1000 * ramp).astype(np.uint16) for number in range(40)])
    with StackSequence(tiff(frames), "a.tif") as sequence:
        first, last = sequence.frame(0), sequence.frame(39)
        assert first.facts.stretch == last.facts.stretch
        assert first.facts.stretch.startswith("percentiles 0.1-99.9 of 16 of 40 frames: 10")
        assert (first.pixels.max() < 20, last.pixels.min() > 230) == (True, True)
        second = sequence.frame(1)
        [value, *_] = np.intersect1d(first.original, second.original)
        assert np.unique(first.pixels[first.original == value]) == np.unique(second.pixels[second.original == value])
    with StackSequence(tiff(frames.astype(np.float32)), "a.tif") as sequence:
        assert abs(int(sequence.frame(0).pixels[50, 100, 0]) - int(first.pixels[50, 100, 0])) <= 1
    eight = (frames // 256).astype(np.uint8)
    with StackSequence(tiff(eight), "a.tif") as sequence:
        assert np.array_equal(sequence.frame(20).pixels[..., 0], eight[20])
        assert sequence.frame(20).facts.stretch == "none"
    with StackSequence(tiff(np.full((5, 8, 8), 700, np.uint16)), "a.tif") as sequence:
        assert sequence.frame(2).pixels.max() == 0
        assert "constant in 5 of 5 frames, value 700" in sequence.frame(2).facts.stretch


def test_the_banner_is_cut_once_and_alike() -> None:
    style = STYLES["fei"]
    frames = [add_banner(specimen(seed, 400, 300), 40, style) for seed in range(3)]
    frames.append(np.vstack([specimen(9, 400, 340)]))  # a frame whose banner nobody would find
    with StackSequence(pages(*frames), "a.tif") as sequence:
        assert (sequence.banner.height, sequence.banner.source) == (40, "pixels")
        assert [image.pixels.shape for image in sequence] == [(300, 400, 3)] * 4
        assert {image.facts.banner for image in sequence} == {sequence.banner}
    for banner, rows in (("off", 340), ("12", 328), (7, 333)):
        with StackSequence(pages(*frames), "a.tif", Reading(banner=banner)) as sequence:
            assert sequence.frame(3).pixels.shape == (rows, 400, 3)


def test_scale_and_facts_of_a_frame() -> None:
    given = Reading(pixel_size=PixelSize(3.0, 3.0, "flag"))
    raw = HYPERSTACKS["ImageJ"]
    with StackSequence(raw, "a.tif", given, at={"Z": 1}) as sequence:
        facts = sequence.frame(2).facts
        assert facts.pixel_size == sequence.pixel_size == given.pixel_size
        assert (facts.page, facts.pages, facts.sha256, facts.bytes) == (
            14,
            30,
            hashlib.sha256(raw).hexdigest(),
            len(raw),
        )
        assert facts.frames == sequence.axes
        assert (sequence.width, sequence.height) == (48, 32)


def test_frames_of_another_size_or_depth_are_refused_when_asked_for() -> None:
    small, deep = np.zeros((20, 30), np.uint8), np.zeros((32, 48), np.uint16)
    with StackSequence(pages(HYPER[0, 0, 0], HYPER[1, 0, 0], small), "a.tif") as sequence:
        assert np.array_equal(sequence.frame(1).original, HYPER[1, 0, 0])
        with pytest.raises(ImageError, match=r"frame 2 \(page 2\) is 30 x 20 pixels, the first is 48 x 32"):
            sequence.frame(2)
    with (
        StackSequence(pages(np.zeros((32, 48), np.uint8), deep), "a.tif") as sequence,
        pytest.raises(ImageError, match="is uint16"),
    ):
        sequence.frame(1)


# ---- folders and patterns


def test_names_in_the_order_people_count() -> None:
    names = ["img10.png", "img9.png", "IMG2.png", "a.png", "img02.png", "b1c10.png", "b1c9.png", "٣.png", "img²3.png"]
    assert natural_order(names)[:7] == [
        "a.png",
        "b1c9.png",
        "b1c10.png",
        "IMG2.png",
        "img02.png",
        "img9.png",
        "img10.png",
    ]


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    assert sorted(natural_order(names)) == sorted(names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2, 10, 11, 9):
        Image.fromarray(np.full((24, 32), number, np.uint8)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "deeper").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"), [("", [1, 2, 9, 10, 11]), ("f1*.png", [1, 10, 11]), ("f?.*", [1, 2, 9]), ("f9.png", [9])]
)
def test_folders_and_patterns_in_natural_order(folder: Path, pattern: str, expected: list[int]) -> None:
    with open_at(folder / pattern if pattern else folder) as sequence:
        assert isinstance(sequence, FolderSequence)
        assert [int(image.pixels[0, 0, 0]) for image in sequence] == expected
        assert sequence.label(0) == f"f{expected[0]}.png"
        facts = sequence.frame(0).facts
        content = (folder / sequence.file(0).name).read_bytes()
        assert (facts.sha256, facts.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert sequence.file(0).path == str(folder / f"f{expected[0]}.png")
        assert (sequence.axes.axis, sequence.frame_seconds) == ("file", None)


def test_a_folder_reads_one_file_a_frame(folder: Path) -> None:
    for number in (2, 10):
        (folder / f"f{number}.png").write_bytes(b"not an image")
    with open_at(folder) as sequence:
        assert int(sequence.frame(4).pixels[0, 0, 0]) == 11
        with pytest.raises(ImageError, match=r"f10\.png: not an image"):
            sequence.frame(3)


def test_sidecars_and_names_that_are_not_utf8(folder: Path) -> None:
    (folder / "f1.txt").write_text("[SemImageFile]\nDataSize=32x24\nPixelSize=3,5\n")
    with open_at(folder) as sequence:
        assert sequence.pixel_size is not None
        assert sequence.frame(3).facts.pixel_size == sequence.pixel_size
        assert sequence.pixel_size.x_nm == 3.5
        assert sequence.warnings == ()
    try:
        (folder / os.fsdecode(b"f3\xf6.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with open_at(folder) as sequence:
        assert len(sequence) == 5
        assert "1 name is not UTF-8" in sequence.warnings[0]
    (folder / "a-tif.hdr").write_text("[MAIN]\nPixelSizeX=1,25e-8\n")
    (folder / "a.tif").write_bytes(tiff(HYPER[:, 0, 0]))
    with open_at(folder / "a.tif") as sequence:
        assert sequence.pixel_size is not None
        assert sequence.pixel_size.x_nm == pytest.approx(12.5)


def test_nothing_there(folder: Path) -> None:
    for name in ("deeper", "gone*.png", "gone.tif"):
        with pytest.raises(NotFound):
            open_at(folder / name)
    with pytest.raises(UsageError, match="only TIFF stacks have axes"):
        open_at(folder / "f1.png", axis="T")


def test_stacks_and_folders_on_drops(tmp_path: Path) -> None:
    with DropsServer(tmp_path / "drops") as server:
        server.put("/labdaq/a.tif", HYPERSTACKS["OME"])
        for number in (10, 9):
            server.put(f"/labdaq/set/f{number}.tif", tiff(HYPER[number - 9, 0, 0]))
        paths = Paths(*(tmp_path / name for name in ("config", "data", "cache", "state")))
        session = Session(load_config(paths=paths, environ=server.environment, cwd=tmp_path), paths)
        store = session.store(StoreKind.DROPS)
        with sequence_of(store, session.reference("/drops/labdaq/a.tif"), at={"Z": 1}) as sequence:
            assert np.array_equal(sequence.frame(4).original, HYPER[4, 1, 0])
        for text in ("/drops/labdaq/set", "/drops/labdaq/set/f*.tif"):
            with sequence_of(store, session.reference(text)) as sequence:
                assert [sequence.label(number) for number in range(len(sequence))] == ["f9.tif", "f10.tif"]
                assert np.array_equal(sequence.frame(1).original, HYPER[1, 0, 0])


# ---- films


def film(frames: np.ndarray, kind: str, codec: str, pixels: str, **options: str) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(frame, format="gray16le" if frame.dtype == np.uint16 else "gray")
                )
            )
        container.mux(stream.encode())
    return buffer.getvalue()


LEVELS = np.stack([np.full((48, 64), 10 * number + 20, np.uint8) for number in range(20)])
FILMS = {
    "mp4": ("mp4", "libx264", "yuv420p", {}),
    "mp4, open groups": ("mp4", "mpeg4", "yuv420p", {"bf": "2"}),
    "avi": ("avi", "mpeg4", "yuv420p", {}),
    "avi, lossless": ("avi", "ffv1", "gray", {}),
    "avi, raw": ("avi", "rawvideo", "gray", {}),
    "avi, jpeg": ("avi", "mjpeg", "yuvj420p", {}),
}


@pytest.mark.parametrize("kind", FILMS)
def test_films_forward_backward_and_anywhere(kind: str, tmp_path: Path) -> None:
    container, codec, pixels, options = FILMS[kind]
    file = tmp_path / f"film.{container}"
    file.write_bytes(film(LEVELS, container, codec, pixels, **options))
    with open_at(file) as sequence:
        assert isinstance(sequence, FilmSequence)
        assert (len(sequence), sequence.axes.axis, sequence.frame_seconds) == (20, "T", pytest.approx(0.1))
        for number in (*range(20), *range(19, -1, -3), 7, 8, 3, 0):
            assert abs(float(sequence.frame(number).pixels.mean()) - (10 * number + 20)) < 6, number
        assert sequence.label(5) == "frame 5, 0.5 s"
        assert sequence.frame(5).facts.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert abs(float(sequence.frame(6).pixels.mean()) - 80) < 6


def test_films_of_16_bit_keep_them() -> None:
    deep = RNG.integers(0, 60_000, (4, 48, 64)).astype(np.uint16)
    with FilmSequence(film(deep, "matroska", "ffv1", "gray16le"), "a.mkv") as sequence:
        assert np.array_equal(sequence.frame(2).original, deep[2])
        assert "of 4 of 4 frames" in sequence.frame(2).facts.stretch


def test_broken_and_too_large_films(capfd: pytest.CaptureFixture[str]) -> None:
    whole = film(LEVELS, "avi", "ffv1", "gray")
    for raw in (whole[:40], b"RIFF\0\0\0\0AVI " + b"\xff" * 300, b"\0\0\0\x18ftypmp42" + bytes(100)):
        with pytest.raises(ImageError, match="film"):
            FilmSequence(raw, "a.avi")
    with pytest.raises(ImageError, match="more than the limit of 100"):
        FilmSequence(whole, "a.avi", Reading(max_pixels=100))
    with pytest.raises(ImageError, match="found a film") as caught:
        read_image(whole, name="a.avi")
    assert "sequence" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_without_the_extra_a_film_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = film(LEVELS[:2], "avi", "ffv1", "gray")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match="needs PyAV") as caught:
        FilmSequence(raw, "a.avi")
    assert "segment-duo[video]" in caught.value.hint


# ---- ranges and times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", range(20)), ("7", [7]), ("-1", [19]), ("10:16:2", [10, 12, 14]), (":3", [0, 1, 2]), ("18:", [18, 19]), ("-2:", [18, 19]),
        ("::8", [0, 8, 16]), ("3:0:-1", [3, 2, 1]), (" 5:100 ", range(5, 20)), (":", range(20)),
    ],
)  # fmt: skip
def test_ranges_of_frames(text: str, expected: Any) -> None:
    assert list(parse_frames(text, 20)) == list(expected)


@pytest.mark.parametrize(
    "text", ["", "x", "1,2", "1:2:3:4", "20", "-21", "5:5", "30:", "1:5:0", "1.5", "1-5", "٣", "9" * 30]
)
def test_what_is_no_range_of_frames(text: str) -> None:
    with pytest.raises(UsageError):
        parse_frames(text, 20)


@given(st.text(alphabet="0123456789:-", max_size=12), st.integers(1, 50))
def test_ranges_mean_what_python_means(text: str, count: int) -> None:
    try:
        found = list(parse_frames(text, count))
    except UsageError:
        return
    if ":" in text:
        parts = [int(part) if part else None for part in text.split(":")]
        assert found == list(range(count))[slice(*parts)]
    else:
        assert found == [range(count)[int(text)]]


def test_times_with_their_units() -> None:
    texts = {"0.2s": 0.2, "200 ms": 0.2, "0,5 min": 30.0, "1 h": 3600.0, "5 µs": 5e-6}
    assert {text: parse_seconds(text) for text in texts} == {
        text: pytest.approx(value) for text, value in texts.items()
    }
    assert [parse_seconds(text) for text in ("", "5", "-1 s", "0 s", "1.2.3 s", "5 nm")] == [None] * 6
    assert parse_seconds("5", "s") == 5
