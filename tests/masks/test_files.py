"""The mask set file: round trips, the predecessor's two generations, damage and hostility."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import types
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segment_duo.errors import MaskFileError
from segment_duo.masks import load_masks, rle
from segment_duo.masks.formats import native
from segment_duo.masks.formats.provenance_record import FORMAT_NAME
from segment_duo.types import Banner, ImageIdentity, Mask, MaskSet, ModelIdentity, PixelSize, Provenance

HEIGHT, WIDTH = 12, 17


def make_mask(array: np.ndarray, **fields: Any) -> Mask:
    code = rle.encode(array)
    return Mask(code, rle.area(code), rle.bounding_box(code), **fields)


def blob(seed: int) -> np.ndarray:
    array = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.4
    array[seed % HEIGHT, 3] = True
    return array


def full_set() -> MaskSet:
    masks = (
        make_mask(
            blob(1),
            id=4,
            predicted_iou=0.91,
            stability_score=0.97,
            point_coords=((3.5, 2.0), (1.0, 1.0)),
            point_labels=(1, 0),
            crop_box=(0.0, 0.0, 9.0, 8.0),
            label="grain",
            source="prompt",
        ),
        make_mask(blob(2), id=5, crop_box=(0.0, 0.0, 17.0, 12.0), source="import"),
    )
    provenance = Provenance(
        image=ImageIdentity("/drops/lab/a.tif", "ab" * 32, WIDTH, HEIGHT, 2),
        model=ModelIdentity("nano", "cd" * 32),
        created="2026-01-02T03:04:05+00:00",
        program_version="0.1.0",
        operation="point",
        parameters={"points_per_side": 32, "deep": {"list": [1, 2.5, None, True, "x"]}},
        parent="grain_1",
        banner=Banner(2, "tag"),
        pixel_size=PixelSize(3.3724, 3.5, "FEI", "high"),
        notices=("one",),
    )
    return MaskSet(masks, provenance)


def test_round_trip() -> None:
    assert native.loads(native.dumps(full_set())) == full_set()


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, (HEIGHT, WIDTH)), st.booleans(), st.text(max_size=20))
def test_any_mask_comes_back(array: np.ndarray, legacy: bool, label: str) -> None:
    crop = (0.0, 0.0, float(WIDTH), float(HEIGHT))
    mask_set = MaskSet((make_mask(array, label=label, crop_box=crop),), Provenance())
    assert native.loads(native.dumps(mask_set, legacy=legacy)) == mask_set


def test_pickle_alone_opens_it_in_a_bare_python(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(native.dumps(full_set()))
    script = (
        "import pickle, sys; f = open(sys.argv[1], 'rb'); r = pickle.load(f); p = pickle.load(f);"
        "print(sorted(r[0])); print(p['format'], p['format_version']); print(r[0]['segmentation']['size'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keys, name, size = done.stdout.splitlines()
    for key in ("segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"):
        assert repr(key) in keys
    assert name == "segment_duo mask set 1"
    assert size == f"[{HEIGHT}, {WIDTH}]"


def test_no_global_is_in_the_file_even_from_numpy_values() -> None:
    mask = dataclasses.replace(
        full_set().masks[0], area=np.int64(full_set().masks[0].area), predicted_iou=np.float32(0.5)
    )
    data = native.dumps(MaskSet((mask,), Provenance(parameters={"x": np.float64(1.5)})))

    class Strict(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            raise AssertionError(f"{module}.{name}")

    stream = io.BytesIO(data)
    assert Strict(stream).load()[0]["predicted_iou"] == 0.5
    assert Strict(stream).load()["parameters"] == {"x": 1.5}


def test_legacy_segmentation_is_the_predecessors() -> None:
    record = pickle.loads(native.dumps(full_set(), legacy=True))[0]
    indices = np.frombuffer(zlib.decompress(base64.b64decode(record["segmentation"])), "<i4")
    np.testing.assert_array_equal(indices, np.flatnonzero(blob(1)))
    assert record["shape"] == [HEIGHT, WIDTH]
    assert pickle.loads(native.dumps(full_set(), legacy=True))[1]["predicted_iou"] == -1.0


def test_dumps_refuses_what_is_no_set() -> None:
    one, two = full_set().masks
    with pytest.raises(MaskFileError, match="different ids"):
        native.dumps(MaskSet((one, dataclasses.replace(two, id=one.id)), Provenance()))
    small = make_mask(np.ones((3, 3), bool), id=9)
    with pytest.raises(MaskFileError, match="3 x 3"):
        native.dumps(MaskSet((one, small), Provenance()))
    with pytest.raises(MaskFileError, match="a parameter is a set"):
        native.dumps(MaskSet((), Provenance(parameters={"x": {1}})))


def test_peek_needs_no_numpy(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(native.dumps(full_set()))
    script = (
        "import sys; from pathlib import Path; from segment_duo.masks.formats.native import peek;"
        "p = peek(Path(sys.argv[1]).read_bytes()); print(p.count, p.provenance.image.sha256[:4], 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "abab", "False"], done.stderr


# --- the predecessor ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sement_utils", "utils.masks", "masks"])
def web_module(request: pytest.FixtureRequest) -> Iterator[types.ModuleType]:
    """A module of the web app's name with its two classes, gone again when the file is read."""
    module = types.ModuleType(request.param)

    class SAM_Mask(pydantic.BaseModel):
        segmentation: str
        area: int
        point_coords: Any
        bbox: Any
        crop_box: Any
        stability_score: Any
        predicted_iou: float
        shape: Any

    @dataclasses.dataclass
    class Mask:
        """As the real one: its constructor replaces the mask by the indices of its pixels, and counts the image's."""

        segmentation: Any
        area: float
        point_coords: Any
        bbox: Any
        crop_box: Any
        stability_score: Any
        predicted_iou: float
        shape: Any
        compressed: bool = False

        def __post_init__(self) -> None:
            self.segmentation = np.nonzero(np.asarray(self.segmentation).ravel())[0].astype(np.int32)
            self.N_pix = self.shape[0] * self.shape[1]

        def compress(self) -> None:
            self.segmentation = zlib.compress(self.segmentation.tobytes())
            self.compressed = True

    @dataclasses.dataclass
    class Boolean:
        """The same without the constructor's work."""

        segmentation: Any
        area: float
        point_coords: Any
        bbox: Any
        crop_box: Any
        stability_score: Any
        predicted_iou: float
        shape: Any
        compressed: bool

    Boolean.__module__, Boolean.__qualname__ = request.param, "Mask"
    module.Boolean = Boolean  # type: ignore[attr-defined]
    for cls in (SAM_Mask, Mask):
        cls.__module__ = request.param
        cls.__qualname__ = cls.__name__
        setattr(module, cls.__name__, cls)
    added = [request.param, *([request.param.split(".")[0]] if "." in request.param else [])]
    for name in added:
        sys.modules[name] = module
    yield module
    for name in added:
        sys.modules.pop(name, None)


def indices_text(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.flatnonzero(array).astype("<i4").tobytes())).decode()


def web_fields(array: np.ndarray, prompted: bool) -> dict[str, Any]:
    return {
        "area": int(array.sum()),
        "point_coords": np.array([[3.0, 4.0], [5.0, 6.0]]) if prompted else [[3.0, 4.0]],
        "bbox": [0, 0, 0, 0] if prompted else [1, 2, 3, 4],
        "crop_box": [0, 0, WIDTH, HEIGHT],
        "stability_score": np.array([0.25, 0.75], np.float32) if prompted else 0.96,
        "predicted_iou": -1.0 if prompted else 0.88,
        "shape": array.shape,
    }


def check_web(data: bytes) -> None:
    saved = {name: sys.modules.pop(name) for name in ("sement_utils", "utils.masks", "masks") if name in sys.modules}
    try:
        found = native.loads(data)
        assert not {"sement_utils", "utils.masks", "masks"} & set(sys.modules), "a module of the file was imported"
    finally:
        sys.modules.update(saved)
    auto, prompted = found.masks
    np.testing.assert_array_equal(rle.decode(auto.rle), blob(1))
    np.testing.assert_array_equal(rle.decode(prompted.rle), blob(2))
    assert (auto.predicted_iou, auto.stability_score, auto.source) == (0.88, 0.96, "auto")
    assert (prompted.predicted_iou, prompted.stability_score, prompted.source) == (None, 0.75, "prompt")
    assert auto.point_coords == ((3.0, 4.0),)
    assert prompted.point_coords == ((3.0, 4.0), (5.0, 6.0))
    assert prompted.bbox == rle.bounding_box(prompted.rle), "zeros in the file, computed here"
    assert (auto.id, prompted.id) == (0, 1)
    assert found.provenance == Provenance()
    assert native.peek(data).generation == "web"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_first_generation(web_module: types.ModuleType, protocol: int) -> None:
    objects = [
        web_module.SAM_Mask(segmentation=indices_text(blob(n)), **web_fields(blob(n), prompted))
        for n, prompted in ((1, False), (2, True))
    ]
    check_web(pickle.dumps(objects, protocol))


def web_masks(module: types.ModuleType, compressed: bool) -> list[Any]:
    masks = [module.Mask(segmentation=blob(n), **web_fields(blob(n), n == 2)) for n in (1, 2)]
    for mask in masks if compressed else ():
        mask.compress()
    return masks


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_second_generation(web_module: types.ModuleType, protocol: int, compressed: bool) -> None:
    check_web(pickle.dumps(web_masks(web_module, compressed), protocol))


@pytest.mark.parametrize("compressed", [False, True])
def test_second_generation_with_boolean_arrays(web_module: types.ModuleType, compressed: bool) -> None:
    objects = []
    for n, prompted in ((1, False), (2, True)):
        value = zlib.compress(blob(n).tobytes()) if compressed else blob(n)
        objects.append(web_module.Boolean(segmentation=value, compressed=compressed, **web_fields(blob(n), prompted)))
    web_module.Mask = web_module.Boolean  # type: ignore[attr-defined]
    check_web(pickle.dumps(objects))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_quarter_of_the_image_is_as_long_as_booleans(web_module: types.ModuleType, compressed: bool) -> None:
    array = np.zeros((HEIGHT, 16), bool)
    array[: HEIGHT // 2, :8] = True
    mask = web_module.Mask(segmentation=array, **(web_fields(blob(1), False) | {"shape": array.shape}))
    assert mask.segmentation.nbytes == array.size
    if compressed:
        mask.compress()
    found = native.loads(pickle.dumps([mask])).masks[0]
    np.testing.assert_array_equal(rle.decode(found.rle), array)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)), st.booleans(), st.booleans())
def test_any_mask_of_the_second_generation(array: np.ndarray, compressed: bool, shuffled: bool) -> None:
    indices: Any = np.flatnonzero(array).astype(np.int32)
    if shuffled:
        indices = np.random.default_rng(0).permutation(indices)
    record = {"segmentation": indices, "shape": array.shape, "N_pix": array.size, "compressed": compressed}
    if compressed:
        record["segmentation"] = zlib.compress(indices.tobytes())
    np.testing.assert_array_equal(rle.decode(native.loads(pickle.dumps([record])).masks[0].rle), array)
    np.testing.assert_array_equal(load_masks.mask_array(load_masks.read_objects(pickle.dumps([record]))[0][0]), array)


@pytest.mark.parametrize("packed", [False, True])
def test_the_oldest_form_is_named(web_module: types.ModuleType, packed: bool) -> None:
    class Masks_legacy:
        def __init__(self) -> None:
            self.masks, self.N_m, self.fn = [np.array([1, 2])], 1, "a.tif"

    Masks_legacy.__module__ = web_module.__name__
    Masks_legacy.__qualname__ = "Masks_legacy"
    web_module.Masks_legacy = Masks_legacy  # type: ignore[attr-defined]
    data = pickle.dumps(Masks_legacy())
    for read in (native.loads, native.peek):
        with pytest.raises(MaskFileError, match=r"oldest form of masks \(Masks_legacy\), which is not read") as caught:
            read(zlib.compress(data) if packed else data, name="a.pkl")
        assert "segduo auto" in caught.value.hint


def test_numpy_1_spelling(web_module: types.ModuleType) -> None:
    data = pickle.dumps(web_masks(web_module, False), 2)
    assert b"cnumpy._core." in data
    check_web(data.replace(b"cnumpy._core.", b"cnumpy.core."))


@pytest.mark.parametrize("order", ["C", "F"])
def test_stock_sam2_records(order: str) -> None:
    array = np.asarray(blob(1), order=order)
    records = [
        {
            "segmentation": array,
            "area": 1,
            "bbox": [1, 2, 3, 4],
            "predicted_iou": np.float32(0.5),
            "point_coords": [[1, 2]],
        },
        {
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle.encode(blob(2)).counts.encode()},
            "area": 3,
            "bbox": [0] * 4,
        },
        {"segmentation": {"size": [2, 3], "counts": [0, 6]}},
    ]
    found = native.loads(pickle.dumps(records[:2], 5))
    assert [mask.rle for mask in found.masks] == [rle.encode(blob(1)), rle.encode(blob(2))]
    assert found.masks[0].predicted_iou == 0.5
    assert native.loads(pickle.dumps(records[2:])).masks[0].area == 6


# --- damage -------------------------------------------------------------------------------------------------------------------


def dump_records(*records: Any, provenance: Any = None) -> bytes:
    whole = pickle.dumps(list(records), 4)
    return whole if provenance is None else whole + pickle.dumps(provenance, 4)


GOOD = {
    "segmentation": {"size": [1, 4], "counts": rle.encode(np.array([[0, 1, 1, 0]], bool)).counts},
    "area": 2,
    "id": 0,
}
KNOWN = {"format": FORMAT_NAME, "format_version": 1}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b'{"a": 1}', "JSON"),
        (b"\x89PNG\r\n\x1a\n", "PNG image"),
        (b"PK\x03\x04abc", "ZIP"),
        (b"just text\n", "not a pickle"),
        (pickle.dumps({"a": 1}), "dict where the list"),
        (pickle.dumps(None), "NoneType where the list"),
        (dump_records(1), "without a segmentation"),
        (dump_records({"area": 1}), "without a segmentation"),
        (dump_records({"segmentation": 5}), "mask as int"),
        (dump_records({"segmentation": {"size": [1, 4], "counts": None}}), "run-length code is a NoneType"),
        (dump_records({"segmentation": {"size": [0, 4], "counts": "4"}}), "impossible size"),
        (dump_records({"segmentation": {"size": [1 << 40, 1 << 40], "counts": "4"}}), "impossible size"),
        (dump_records({"segmentation": {"size": [1, 5], "counts": "4"}}), "cover 4 pixels"),
        (dump_records({"segmentation": "!!!", "shape": [2, 2]}), "base64"),
        (dump_records({"segmentation": "AAAA", "shape": [2, 2]}), "zlib"),
        (
            dump_records({"segmentation": indices_text(np.ones((9, 9), bool)), "shape": [2, 2]}),
            "more than the 16 bytes",
        ),
        (dump_records({"segmentation": indices_text(np.eye(3, dtype=bool)), "shape": [2, 2]}), "outside 2 x 2"),
        (dump_records({"segmentation": indices_text(np.ones((2, 2), bool))}), "impossible size None"),
        (dump_records({"segmentation": zlib.compress(b"\1\0\1"), "shape": [2, 2], "compressed": True}), "3 bytes"),
        (dump_records({"segmentation": np.ones(3, bool)}), "shape \\(3,\\)"),
        (dump_records({"segmentation": np.ones((3, 3), bool), "shape": (2, 2)}), "record says"),
        (dump_records({"segmentation": np.ones((2, 2), object)}), "type 'O8'"),
        (dump_records(GOOD, provenance={"x": 1}), "not the provenance"),
        (dump_records(GOOD, provenance=KNOWN | {"format_version": 99}), "version 99"),
        (dump_records(GOOD, provenance=KNOWN | {"image": {"path": "x"}}), "provenance is damaged"),
        (
            dump_records(GOOD, provenance=KNOWN | {"image": {"path": 1, "sha256": "", "width": 1, "height": 1}}),
            "int where text",
        ),
        (dump_records(GOOD | {"area": 3}, provenance=KNOWN), "said to be 3, it has 2"),
        (dump_records(GOOD | {"id": "a"}, provenance=KNOWN), "id is a str"),
        (dump_records(GOOD, GOOD, provenance=KNOWN), "same id"),
        (
            dump_records(GOOD, provenance=KNOWN | {"image": {"path": "", "sha256": "", "width": 9, "height": 9}}),
            "4 x 1 for an image of 9 x 9",
        ),
        (dump_records(GOOD, {"segmentation": {"size": [1, 1], "counts": "1"}}), "different sizes"),
        (dump_records(GOOD, provenance=KNOWN) + b"trailing", "8 bytes after"),
    ],
)
def test_damage_is_named(data: bytes, said: str) -> None:
    with pytest.raises(MaskFileError, match=said) as caught:
        native.loads(data, name="a.pkl")
    assert re.match(r"a\.pkl(:| is| holds| asks for| uses| calls| says) ", caught.value.message)


def test_every_truncation_is_an_error_or_the_shorter_file() -> None:
    data = native.dumps(full_set())
    first = len(pickle.dumps(pickle.loads(data), 4))
    for length in range(len(data)):
        if length == first:
            # Only the records are left: what a bare list of records looks like.
            assert len(native.loads(data[:length]).masks) == 2
            continue
        with pytest.raises(MaskFileError):
            native.loads(data[:length])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_raise_anything_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(native.dumps(full_set()))
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(MaskFileError):
        native.loads(bytes(data))


# --- hostility ----------------------------------------------------------------------------------------------------------------


def short(text: str) -> bytes:
    return b"\x8c" + struct.pack("B", len(text)) + text.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


class Runs:
    """A pickle that calls ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_are_not_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    for function, arguments in ((open, (str(target), "w")), (eval, (f"open({str(target)!r}, 'w')",))):
        data = pickle.dumps([Runs(function, *arguments)], protocol)
        with pytest.raises(MaskFileError, match="which no mask set needs"):
            native.loads(data)
    assert not target.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        # What got past the allow-lists of others: module prefixes and dotted walks.
        ("numpy.f2py.diagnose", "run_command"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy", "f2py.os.system"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("builtins", "getattr"),
        ("builtins", "eval"),
        ("builtins", "__import__"),
        ("builtins", "object.__subclasses__"),
        ("__builtins__", "eval"),
        ("masks", "SAM_Mask.__init__.__globals__"),
        ("masks", "os"),
        ("utils.masks.os", "system"),
        ("sement_utils", "np"),
        ("_codecs", "decode"),
        ("copyreg", "__newobj__"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("posix", "system"),
        ("torch.storage", "_load_from_bytes"),
        ("pathlib", "PosixPath"),
    ],
)
def test_known_bypasses_are_refused(module: str, name: str) -> None:
    for data in (
        b"\x80\x04" + stack_global(module, name) + b".",
        b"c" + f"{module}\n{name}\n".encode() + b".",
        b"\x80\x04]" + stack_global(module, name) + short("id") + b"\x85Ra.",
    ):
        with pytest.raises(MaskFileError, match="which no mask set needs"):
            native.loads(data)


ARRAY = stack_global("numpy", "ndarray")
MASK = stack_global("masks", "Mask")


@pytest.mark.parametrize(
    "data",
    [
        b"(S'id'\nios\nsystem\n.",  # INST
        b"(cposix\nsystem\nS'id'\no.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"P1\n.",  # PERSID
        b"\x80\x02K\x01Q.",  # BINPERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x04" + MASK + b")}\x92.",  # NEWOBJ_EX
        b"\x80\x04" + MASK + b"K\x01\x85\x81.",  # constructor arguments
        b"\x80\x04" + ARRAY + b")R.",  # ndarray itself is not called
        b"\x80\x04" + MASK + b"\x85" + stack_global("_codecs", "encode") + b"R.",
        b"\x80\x04" + stack_global("_codecs", "encode") + short("x") + short("rot13") + b"\x86R.",
        b"\x80\x04]}b.",  # BUILD of a list
        b"\x80\x04" + stack_global("builtins", "object") + b"}b.",  # BUILD of a name
        b"\x80\x04}" + MASK + b"K\x01s.",  # a key that is no text
        b"\x80\x04})K\x01s.",
        b"\x80\x04]h\x05.",  # memo that is not there
        b"\x80\x04a.",
        b"\x80\x04]].",
        b"\x80\x04(.",
        b"\x80\x04((]e.",
        b".",
        b"\x80\xff].",
    ],
)
def test_odd_opcodes_are_refused(data: bytes) -> None:
    with pytest.raises(MaskFileError):
        native.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"].",  # FRAME
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",  # BINBYTES8 of 1 TiB in 13 bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",  # BINUNICODE8
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # BYTEARRAY8
        b"\x80\x04B" + struct.pack("<I", (1 << 32) - 1) + b".",  # BINBYTES
        b"\x80\x04\x8b" + struct.pack("<i", 1 << 30) + b".",  # LONG4
        b"\x80\x04]\x8a\xff" + b"\xff" * 255 + b"a.",  # LONG1 of 2040 bits
        b"L" + b"9" * 100_000 + b"L\n.",
        # Arrays that claim more than they hold, through every door.
        b"\x80\x04" + stack_global("numpy.core.multiarray", "_reconstruct") + ARRAY + b"K\x00\x85C\x01b\x87R"
        b"(K\x01J\xff\xff\xff\x7f\x85" + stack_global("numpy", "dtype") + short("b1") + b"\x85R\x89C\x01\x00tb.",
        b"\x80\x04" + stack_global("numpy._core.numeric", "_frombuffer") + b"(C\x01\x00" + stack_global("numpy", "dtype")
        + short("b1") + b"\x85RJ\xff\xff\xff\x7f\x85" + short("C") + b"tR.",
        b"\x80\x04" + stack_global("builtins", "bytes") + b"J\xff\xff\xff\x7f\x85R.",
        b"\x80\x04" + stack_global("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R.",
    ],
)  # fmt: skip
def test_memory_bombs_are_refused_at_once(data: bytes) -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(MaskFileError):
            native.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_huge_memo_index_takes_no_memory() -> None:
    assert native.loads(b"\x80\x04]r" + struct.pack("<I", (1 << 32) - 1) + b".").masks == ()


def test_opcode_flood() -> None:
    from segment_duo.masks import load_masks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_masks, "MAX_OPCODES", 1000)
        with pytest.raises(MaskFileError, match="more than 1000 pickle opcodes"):
            native.loads(b"\x80\x04" + b"]0" * 2000 + b"].")


def test_self_reference_and_laughs_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    laughs: Any = "ha"
    for _ in range(40):
        laughs = [laughs] * 10
    keys: Any = "key"
    for _ in range(60):
        keys = (keys, keys)
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    for bad in (loop, laughs, deep):
        for record in (GOOD | {"point_coords": bad, "stability_score": bad, "bbox": bad}, GOOD | {"crop_box": bad}):
            assert native.loads(dump_records(record)).masks[0].point_coords == ()
        with pytest.raises(MaskFileError, match="nested too deeply"):
            native.loads(dump_records(GOOD, provenance=KNOWN | {"parameters": {"x": bad}}))
        with pytest.raises(MaskFileError):
            native.loads(dump_records({"segmentation": bad}))
    # Hashing 60 levels of doubled tuples would take longer than the universe has.
    paired = b"\x80\x04}" + short("k") + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(60)) + b"K\x01s."
    with pytest.raises(MaskFileError, match="keys that are not text"):
        native.loads(paired)


def test_zlib_bomb() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    for record in (
        {"segmentation": base64.b64encode(bomb).decode(), "shape": [10, 10]},
        {"segmentation": bomb, "shape": [10, 10], "compressed": True},
    ):
        with pytest.raises(MaskFileError, match="zlib stream of more than"):
            native.loads(dump_records(record))


def zeros_packed(size: int) -> bytes:
    stream = zlib.compressobj(9)
    return b"".join([*(stream.compress(bytes(10**7)) for _ in range(size // 10**7)), stream.flush()])


@pytest.mark.parametrize("kind", ["text", "bytes", "array"])
def test_a_pixel_that_comes_again_takes_no_memory(kind: str) -> None:
    import tracemalloc

    # Allowed by the shape: one index a pixel. All are the same pixel, so 200 kB of file would become 200 MB and more.
    packed = zeros_packed(200_000_000)
    record: dict[str, Any] = {"shape": [10_000, 10_000], "N_pix": 10**8}
    record["segmentation"] = {
        "text": base64.b64encode(packed).decode(),
        "bytes": packed,
        "array": np.zeros(1000, np.int32),
    }[kind]
    data = dump_records(record)
    tracemalloc.start()
    try:
        with pytest.raises(MaskFileError, match="same pixel twice"):
            native.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()


def test_indices_of_a_large_image_take_no_more_than_its_pixels() -> None:
    import tracemalloc

    # A band of 10 megapixels of 100: as 64-bit indices alone it would be 80 MB.
    indices = np.arange(20_000_000, 30_000_000, dtype="<i4")
    data = dump_records(
        {"segmentation": zlib.compress(indices.tobytes(), 1), "shape": [10_000, 10_000], "N_pix": 10**8}
    )
    del indices
    tracemalloc.start()
    try:
        found = native.loads(data).masks[0]
        assert tracemalloc.get_traced_memory()[1] < 250_000_000
    finally:
        tracemalloc.stop()
    assert (found.area, found.bbox) == (10_000_000, (0.0, 2000.0, 10_000.0, 1000.0))


def test_masks_of_more_pixels_than_allowed_are_refused() -> None:
    for value, shape in ((zlib.compress(b"\1"), [3, 5]), (indices_text(blob(1)), [HEIGHT, WIDTH])):
        with pytest.raises(
            MaskFileError, match=f"masks of {shape[1]} x {shape[0]} pixels, the limit .max_pixels. is 10"
        ):
            native.loads(dump_records({"segmentation": value, "shape": shape}), max_pixels=10)
    with pytest.raises(MaskFileError, match="is 10") as caught:
        native.loads(native.dumps(full_set()), max_pixels=10)
    assert "--max-pixels" in caught.value.hint


def test_running_out_of_memory_is_an_error_of_ours(tmp_path: Path) -> None:
    # The first pixel and the last: the mask's box is the whole image of 2 gigapixels.
    corners = zlib.compress(np.array([0, 2 * 10**9 - 1], "<i4").tobytes())
    record = {"segmentation": corners, "shape": [40_000, 50_000], "N_pix": 2 * 10**9}
    (tmp_path / "a.pkl").write_bytes(dump_records(record))
    script = (
        "import resource, sys; from pathlib import Path; from segment_duo.masks.formats import native; import numpy\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1_800_000_000, 1_800_000_000))\n"
        "try: native.loads(Path(sys.argv[1]).read_bytes(), name='a.pkl')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.pkl")],
        capture_output=True,
        text=True,
        env=dict(os.environ, OPENBLAS_NUM_THREADS="1"),
    )
    assert done.stdout.strip() == "MaskFileError a.pkl needs more memory than there is", done.stderr


def test_a_mask_that_cannot_be_read_may_be_left_out_of_files_of_others() -> None:
    left_out: list[tuple[str, str]] = []
    found = native.loads(dump_records(GOOD, {"segmentation": 5}, GOOD), left_out=left_out)
    assert [mask.id for mask in found.masks] == [0, 1]
    assert left_out == [("mask 2", "holds a mask as int")]
    with pytest.raises(MaskFileError, match="mask 2"):
        native.loads(dump_records(GOOD, {"segmentation": 5, "id": 1}, provenance=KNOWN), left_out=left_out)
