"""Masks of a set as NumPy arrays: one file, standard library (Python 3.10 or later) and NumPy, to be copied next to a notebook.

    from load_masks import load
    masks = load("particles.pkl")
    masks[0].array          # bool, shape (height, width)
    masks[0].area           # pixels; also id, label, bbox (XYWH), predicted_iou, stability_score, point_coords

    from load_masks import load_frames
    for number, masks in load_frames("film.pkl"):   # a sequence set: one frame in memory at a time; mask.id is the object's, over all frames
        ...

It reads the sets of segment_duo and both generations of the predecessor's (``SAM_Mask`` and ``Mask``, plain and compressed). **Nothing in the
file is ever run or imported**: the pickle is interpreted here, opcode by opcode, into lists, dicts, text and numbers. The few class names that
real sets hold stand for inert records; any other name ends the reading. Sizes are checked before memory is taken for them.

Copies of this file need nothing of the program; the program itself reads its sets through it.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import pickletools
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

MAX_BYTES = 2 * 1024**3
"""Largest file in bytes."""
MAX_OPCODES = 5_000_000
"""Most opcodes in a file: some 70 000 masks of ours; an opcode costs at most about 100 bytes of memory."""
MAX_PROTOCOL = 5
MAX_PIXELS = 2**31 - 1
"""Largest height x width of a mask; the predecessor's indices are 32 bit."""


PIECE = 4 * 1024**2
"""Compressed pixels are taken in pieces of so many bytes."""


class DamagedMaskFile(ValueError):
    """The file is not a mask set, is damaged, or holds something that no mask set needs."""


# --- the pickle, without pickle -----------------------------------------------------------------------------------------------


class Name:
    """An allowed global: nothing but its meaning."""

    __slots__ = ("meaning",)

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class Instance:
    """What the predecessor's objects become: ``kind`` (``SAM_Mask`` or ``Mask``) and their fields."""

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.fields: dict[str, Any] = {}


class DType:
    """A NumPy dtype as text, e.g. ``b1`` or ``f8``, and its byte order (``<``, ``>``, ``|``)."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        if code not in _STRUCT_CODES:
            raise DamagedMaskFile(f"holds an array of type {code[:20]!r}; mask sets hold booleans and numbers only")
        self.code = code
        self.order = "<"


class ArrayData:
    """A NumPy array as it lies in the file: dtype, shape, order (``C`` or ``F``), bytes."""

    __slots__ = ("data", "dtype", "order", "shape")

    def __init__(self) -> None:
        self.dtype = DType("u1")
        self.shape: tuple[int, ...] = (0,)
        self.order = "C"
        self.data = b""

    def fill(self, shape: object, dtype: object, order: str, data: object) -> ArrayData:
        if not isinstance(dtype, DType) or not isinstance(shape, tuple) or not isinstance(data, bytes):
            raise DamagedMaskFile("holds a damaged array")
        if len(shape) > 4 or not all(type(n) is int and 0 <= n <= MAX_PIXELS for n in shape):
            raise DamagedMaskFile("holds an array of an impossible shape")
        size = math.prod(shape) * int(dtype.code[1:])
        if size != len(data):
            raise DamagedMaskFile(f"holds an array of {size} bytes by its shape, of which {len(data)} are there")
        self.shape, self.dtype, self.order, self.data = shape, dtype, order, data
        return self

    def to_numpy(self) -> npt.NDArray[Any]:
        import numpy as np

        flat = np.frombuffer(self.data, dtype=np.dtype(self.dtype.order.replace("|", "=") + self.dtype.code))
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")


_STRUCT_CODES = {
    "b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
_CLASSES = {
    (module, name): name for module in ("sement_utils", "utils.masks", "masks") for name in ("SAM_Mask", "Mask")
}
_NAMES: dict[tuple[str, str], str] = {
    **{pair: "class " + name for pair, name in _CLASSES.items()},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "array" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "frombuffer" for core in ("core", "_core")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{
        (module, name): name
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "bytes", "bytearray", "object")
    },
    ("copyreg", "_reconstructor"): "reconstructor",
    ("copy_reg", "_reconstructor"): "reconstructor",
}
LEGACY_CLASS = "Masks_legacy"
"""A form that the predecessor itself can no longer save."""
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG", "BINFLOAT", "FLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_FRESH: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}


class _Machine:
    """The pickle virtual machine, reduced to plain data. Sets become lists; dict keys must be text (hashing nested tuples can take for ever)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, arg: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            if type(arg) is int and arg.bit_length() > 64:
                raise DamagedMaskFile("holds a number of more than 64 bits")
            stack.append(bytes(arg) if isinstance(arg, bytearray) else arg)
        elif name in _GETS:
            stack.append(self.memo[int(arg)])
        elif name in _PUTS:
            self.memo[len(self.memo) if name == "MEMOIZE" else int(arg)] = stack[-1]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _FRESH:
            stack.append(_FRESH[name]())
        elif name in _TUPLES:
            items = tuple(self.take(_TUPLES[name]))
            stack.append(items)
        elif name == "MARK":
            self.marks.append(len(stack))
        else:
            self.step_rarer(name, arg)

    def step_rarer(self, name: str, arg: Any) -> None:
        stack = self.stack
        if name in {"APPENDS", "ADDITEMS"}:
            items = self.to_mark()
            self.target(list).extend(items)
        elif name == "APPEND":
            (item,) = self.take(1)
            self.target(list).append(item)
        elif name == "SETITEMS":
            items = self.to_mark()
            self.set_items(self.target(dict), items)
        elif name == "SETITEM":
            items = self.take(2)
            self.set_items(self.target(dict), items)
        elif name == "TUPLE":
            stack.append(tuple(self.to_mark()))
        elif name in {"LIST", "FROZENSET"}:
            stack.append(self.to_mark())
        elif name == "DICT":
            items = self.to_mark()
            stack.append({})
            self.set_items(stack[-1], items)
        elif name == "GLOBAL":
            module, _, attribute = arg.partition(" ")
            stack.append(_resolve(module, attribute))
        elif name == "STACK_GLOBAL":
            module, attribute = self.take(2)
            stack.append(_resolve(module, attribute))
        elif name in {"REDUCE", "NEWOBJ"}:
            function, arguments = self.take(2)
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            (state,) = self.take(1)
            _build(self.target(Instance, ArrayData, DType), state)
        elif name == "POP":
            self.take(1)
        elif name == "POP_MARK":
            self.to_mark()
        else:
            raise DamagedMaskFile(f"uses the pickle opcode {name}, which no mask set needs")

    def take(self, count: int) -> list[Any]:
        """Pop ``count`` items, never across the last mark."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise DamagedMaskFile("is damaged: its pickle takes more than it holds")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def to_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def target(self, *kinds: type) -> Any:
        if type(self.stack[-1]) not in kinds:
            raise DamagedMaskFile(f"is damaged: its pickle fills a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    @staticmethod
    def set_items(target: dict[str, Any], items: list[Any]) -> None:
        if len(items) % 2 or not all(type(key) is str for key in items[::2]):
            raise DamagedMaskFile("holds a dict with keys that are not text")
        target.update(zip(items[::2], items[1::2], strict=True))


def _resolve(module: object, name: object) -> Name:
    meaning = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
    if name == LEGACY_CLASS:
        raise DamagedMaskFile(f"holds the web app's oldest form of masks ({LEGACY_CLASS}), which is not read")
    if meaning is None:
        raise DamagedMaskFile(
            f"asks for {str(module)[:60]}.{str(name)[:60]}, which no mask set needs; it may be hostile (nothing was run)"
        )
    return Name(meaning)


def _call(function: object, arguments: object) -> Any:  # noqa: PLR0911 - one return a name
    """What a REDUCE or NEWOBJ of an allowed name stands for; no Python callable is ever involved."""
    if not isinstance(function, Name) or type(arguments) is not tuple:
        raise DamagedMaskFile("calls something that is not a known name")
    meaning, count = function.meaning, len(arguments)
    first = arguments[0] if count else None
    if meaning.startswith("class ") and not count:
        return Instance(meaning.removeprefix("class "))
    if (
        meaning == "reconstructor"
        and count == 3
        and isinstance(first, Name)
        and first.meaning.startswith("class ")
        and arguments[2] is None
    ):
        return Instance(first.meaning.removeprefix("class "))
    if meaning == "array" and count == 3 and isinstance(first, Name) and first.meaning == "ndarray":
        return ArrayData()
    if meaning == "dtype" and count and isinstance(first, str):
        return DType(first)
    if meaning == "frombuffer" and count == 4 and arguments[3] in ("C", "F"):
        return ArrayData().fill(arguments[2], arguments[1], arguments[3], first)
    if meaning == "scalar" and count == 2 and isinstance(first, DType) and isinstance(arguments[1], bytes):
        return struct.unpack(first.order.replace("|", "<") + _STRUCT_CODES[first.code], arguments[1])[0]
    if meaning in {"encode", "bytes", "bytearray"} and count == 2 and isinstance(first, str):
        if arguments[1] in ("latin1", "latin-1"):
            return first.encode("latin-1")
    elif meaning in {"bytes", "bytearray"} and (not count or (count == 1 and isinstance(first, bytes))):
        return first or b""
    elif meaning in {"set", "frozenset"} and count == 1 and isinstance(first, list):
        return list(first)
    raise DamagedMaskFile(f"calls {meaning} in a way no mask set does")


def _build(target: Instance | ArrayData | DType, state: object) -> None:
    if isinstance(target, Instance):
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        for part in parts:
            fields = part.get("__dict__", part) if isinstance(part, dict) else part
            if isinstance(fields, dict):
                target.fields.update(fields)
            elif fields is not None:
                raise DamagedMaskFile(f"holds a {target.kind} without fields")
    elif isinstance(target, ArrayData):
        if not isinstance(state, tuple) or len(state) != 5:
            raise DamagedMaskFile("holds a damaged array")
        target.fill(state[1], state[2], "F" if state[3] else "C", state[4])
    else:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise DamagedMaskFile("holds a damaged array type")
        target.order = "<" if state[1] == "=" else state[1]


def read_objects(data: bytes) -> list[Any]:
    """Every pickled object of ``data``, one after the other, as plain data.

    Returns:
        lists, dicts with text keys, tuples, text, bytes, numbers, None, and :class:`Instance` and :class:`ArrayData` for the predecessor's.

    Raises:
        DamagedMaskFile: anything else is in it, it is truncated, or too large.
    """
    if not data:
        raise DamagedMaskFile("is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise DamagedMaskFile(f"is too large ({len(data)} bytes, the limit is {MAX_BYTES})")
    source = io.BytesIO(data)
    objects: list[Any] = []
    left = [MAX_OPCODES]
    while source.tell() < len(data):
        if objects and is_sequence(objects[0]):
            raise DamagedMaskFile("is a sequence set: it holds masks frame by frame (load_frames)")
        if len(objects) == 2:
            raise DamagedMaskFile(f"holds {len(data) - source.tell()} bytes after its end")
        objects.append(read_object(source, len(data), left, first=not objects))
    return objects


def read_object(source: BinaryIO, size: int, left: list[int], *, first: bool = False) -> Any:
    """The next pickled object of a file of ``size`` bytes as plain data; see :func:`read_objects`.

    Args:
        left: how many opcodes may still be read, in a list of one; counted down.
        first: whether nothing of the file has been understood yet, for the message.
    """
    machine = _Machine()
    try:
        for opcode, arg, _ in pickletools.genops(source):
            left[0] -= 1
            if left[0] < 0:
                raise DamagedMaskFile(f"holds more than {MAX_OPCODES} pickle opcodes")
            if opcode.name == "PROTO" and isinstance(arg, int) and arg > MAX_PROTOCOL:
                raise DamagedMaskFile(f"is damaged, or written in pickle protocol {arg} of a later Python")
            if opcode.name == "FRAME" and isinstance(arg, int) and arg > size - source.tell():
                raise DamagedMaskFile(f"is truncated: a frame of {arg} bytes, {size - source.tell()} are there")
            if opcode.name not in {"PROTO", "FRAME", "STOP"}:
                machine.step(opcode.name, arg)
    except DamagedMaskFile:
        raise
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        where = "not a pickle" if first and not machine.stack else "truncated or damaged"
        raise DamagedMaskFile(f"is {where} ({type(error).__name__}: {str(error)[:120]})") from None
    if len(machine.stack) != 1 or machine.marks:
        raise DamagedMaskFile(f"is damaged: {len(machine.stack)} things are left where one is expected")
    return machine.stack[0]


# --- sequence sets ----------------------------------------------------------------------------------------------------------

SEQUENCE_FORMAT = "segment_duo sequence set"
SEQUENCE_VERSION = 1
MAX_CHUNK = 256 * 1024**2
"""Largest frame in bytes."""


class Chunk:
    """Where the masks of one frame lie in a sequence set: ``offset`` and ``size`` in bytes; ``ids`` of its objects; ``events``."""

    __slots__ = ("checksum", "events", "frame", "ids", "offset", "size")

    def __init__(self, index: dict[str, Any], offset: int) -> None:
        numbers = [index.get(key) for key in ("frame", "bytes", "crc32")]
        events = index.get("events") or []
        if not all(type(n) is int and 0 <= n < 2**40 for n in numbers) or not isinstance(events, list):
            raise DamagedMaskFile("holds a damaged frame")
        self.frame, self.size, self.checksum = (int(n or 0) for n in numbers)
        self.events: list[dict[str, Any]] = events
        self.offset = offset
        if self.size > MAX_CHUNK:
            raise DamagedMaskFile(f"holds a frame of {self.size} bytes, the limit is {MAX_CHUNK}")
        try:
            self.ids = [int(word) for word in str(index.get("ids", "")).split(",") if word]
        except ValueError:
            raise DamagedMaskFile("holds a frame with damaged ids") from None


def is_sequence(head: object) -> bool:
    """Whether the first object of a file says that it is a sequence set."""
    return isinstance(head, dict) and head.get("format") == SEQUENCE_FORMAT


def read_header(file: BinaryIO, size: int) -> dict[str, Any]:
    """The first object of a sequence set: what, of which images, by which model. The file stands behind it afterwards."""
    head: dict[str, Any] = read_object(file, size, [MAX_OPCODES], first=True)
    if not is_sequence(head):
        raise DamagedMaskFile("is not a sequence set")
    version = head.get("format_version")
    if type(version) is not int or version > SEQUENCE_VERSION:
        raise DamagedMaskFile(f"is written in version {str(version)[:20]} of the format; known is {SEQUENCE_VERSION}")
    return head


def read_chunks(file: BinaryIO, size: int) -> Iterator[Chunk | dict[str, Any]]:
    """What stands behind the header: a :class:`Chunk` for each frame, not decoded, and at the end a dict with ``end``.

    A file whose writing was broken off has no end; its last frame may be incomplete, which raises DamagedMaskFile after the whole ones.
    """
    while (offset := file.tell()) < size:
        index = read_object(file, size, [MAX_OPCODES])
        if not isinstance(index, dict):
            raise DamagedMaskFile("holds something else where a frame is expected")
        if "end" in index:
            yield index
            if file.tell() != size:
                raise DamagedMaskFile(f"holds {size - file.tell()} bytes after its end")
            return
        chunk = Chunk(index, file.tell())
        if chunk.offset + chunk.size > size:
            raise DamagedMaskFile(f"is truncated in frame {chunk.frame}, {size - offset} bytes before its end")
        yield chunk
        file.seek(chunk.offset + chunk.size)


def read_frame(file: BinaryIO, chunk: Chunk) -> list[dict[str, Any]]:
    """The records of one frame."""
    file.seek(chunk.offset)
    return decoded_frame(file.read(chunk.size), chunk)


def decoded_frame(data: bytes, chunk: Chunk) -> list[dict[str, Any]]:
    """The records in the bytes of one frame."""
    if len(data) != chunk.size or zlib.crc32(data) != chunk.checksum:
        raise DamagedMaskFile(f"is damaged in frame {chunk.frame}: its checksum differs")
    return [fields_of(record) for record in records_of([read_object(io.BytesIO(data), len(data), [MAX_OPCODES])])]


def chunks_by_frame(found: Iterable[Chunk | dict[str, Any]]) -> list[Chunk]:
    """The chunks in the order of their frames; of several of one frame the last counts."""
    latest = {item.frame: item for item in found if isinstance(item, Chunk)}
    return [latest[frame] for frame in sorted(latest)]


def load_frames(path: str | Path) -> Iterator[tuple[int, list[LoadedMask]]]:
    """Number and masks of each frame of the sequence set at ``path``, in the order of time; one frame in memory at a time.

    ``mask.id`` is the object's in all frames. Errors as :func:`load`.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        read_header(file, size)
        for chunk in chunks_by_frame(read_chunks(file, size)):
            records = read_frame(file, chunk)
            yield chunk.frame, [LoadedMask(record, position) for position, record in enumerate(records)]


# --- masks ------------------------------------------------------------------------------------------------------------------


def runs_of_counts(counts: str) -> npt.NDArray[np.int64]:
    """Run lengths of COCO's compressed ``counts``, background first, column-major.

    Each number is written in groups of 5 bits, lowest first, plus 48; bit 6 says that more follow and the last group's bit 5 is the sign. From the
    fourth on, numbers are differences to the last but one (``maskApi.c`` of the COCO API, ``rleToString``).

    Raises:
        DamagedMaskFile: not such a text.
    """
    import numpy as np

    try:
        raw = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise DamagedMaskFile("holds a run-length code with characters outside ASCII") from None
    if not raw.size:
        return np.zeros(0, dtype=np.int64)
    if raw.min() < 0 or raw.max() > 63 or raw[-1] & 0x20:
        raise DamagedMaskFile("holds a damaged run-length code")
    ends = np.flatnonzero((raw & 0x20) == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise DamagedMaskFile("holds a run-length code with numbers of more than 40 bits")
    places = np.arange(raw.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((raw & 0x1F) << (5 * places), starts)
    values -= np.where(raw[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise DamagedMaskFile("holds a run-length code with a negative run")
    return values


def inflated(data: bytes, limit: int) -> Iterator[bytes]:
    """Pieces of a zlib stream that must not give more than ``limit`` bytes, one after the other: a small file can hold any number of bytes."""
    stream = zlib.decompressobj()
    left, pending = limit, data
    while not stream.eof:
        try:
            piece = stream.decompress(pending, PIECE)
        except zlib.error as error:
            raise DamagedMaskFile(f"holds a damaged zlib stream ({error})") from None
        pending = stream.unconsumed_tail
        left -= len(piece)
        if left < 0:
            raise DamagedMaskFile(f"holds a zlib stream of more than the {limit} bytes its shape allows")
        if piece:
            yield piece
        elif not pending and not stream.eof:
            raise DamagedMaskFile("holds a truncated zlib stream")


def checked_shape(value: object, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """``(height, width)`` from what a record says."""
    items = value.to_numpy().tolist() if isinstance(value, ArrayData) else value
    if isinstance(items, (list, tuple)) and len(items) >= 2 and all(type(n) is int and n > 0 for n in items[:2]):
        height, width = items[:2]
        if height * width <= min(max_pixels, MAX_PIXELS):
            return height, width
        if height * width <= MAX_PIXELS:
            raise DamagedMaskFile(f"holds masks of {width} x {height} pixels, the limit (max_pixels) is {max_pixels}")
    raise DamagedMaskFile(f"says a mask has the impossible size {str(items)[:60]}")


def index_spans(pieces: Iterable[npt.NDArray[Any]], height: int, width: int) -> Spans:
    """First and one-past-last pixel of every run of row-major pixel indices, int64, ascending and disjoint.

    Args:
        pieces: the indices in parts, in any order; none may come twice, so that a mask never takes more than its pixels.
    """
    import numpy as np

    starts, ends = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for piece in pieces:
        if not piece.size:
            continue
        if piece.min() < 0 or piece.max() >= height * width:
            raise DamagedMaskFile(f"holds pixel indices outside {width} x {height}")
        values = piece.astype(np.int64)
        steps = np.diff(values)
        if steps.size and steps.min() <= 0:
            values.sort()
            steps = np.diff(values)
            if steps.min() == 0:
                raise DamagedMaskFile("holds the same pixel twice")
        breaks = np.flatnonzero(steps != 1)
        starts.append(values[np.concatenate(([0], breaks + 1))])
        ends.append(values[np.concatenate((breaks, [values.size - 1]))] + 1)
    first, last = np.concatenate(starts), np.concatenate(ends)
    if first.size and (first[1:] < last[:-1]).any():
        order = np.argsort(first)
        first, last = first[order], last[order]
        if (first[1:] < last[:-1]).any():
            raise DamagedMaskFile("holds the same pixel twice")
    apart = first[1:] != last[:-1]
    if first.size:
        first, last = first[np.concatenate(([True], apart))], last[np.concatenate((apart, [True]))]
    return first, last


def spans_of(fields: dict[str, Any], max_pixels: int = MAX_PIXELS) -> tuple[Spans, int, int] | None:
    """Runs, height and width of a mask that is kept as flat pixel indices; None when it is kept otherwise.

    Both generations of the predecessor keep their masks so: base64 text of a zlib stream of little-endian int32; an array of whole numbers; a
    zlib stream of its bytes when ``compressed``.
    """
    value = fields["segmentation"]
    if isinstance(value, ArrayData):
        if len(value.shape) != 1 or value.dtype.code[0] not in "iu":
            return None
        height, width = _shape_of(fields, max_pixels)
        if value.dtype.code[1:] == "1" and value.shape[0] == height * width:
            return None  # a mask that was only flattened
        if value.shape[0] > height * width:
            raise DamagedMaskFile(f"holds {value.shape[0]} pixel indices for a mask of {width} x {height}")
        return index_spans([value.to_numpy()], height, width), height, width
    if isinstance(value, str):
        height, width = _shape_of(fields, max_pixels)
        try:
            packed = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DamagedMaskFile(f"holds damaged base64 ({error})") from None
    elif isinstance(value, bytes) and fields.get("compressed", True):
        height, width = _shape_of(fields, max_pixels)
        packed = value
        # By N_pix, never by length alone: the indices of a quarter of the image are as many bytes as booleans of all of it.
        if "N_pix" not in fields and _is_boolean(packed, height, width):
            return None
    else:
        return None
    return index_spans(_indices(packed, height, width), height, width), height, width


def _shape_of(fields: dict[str, Any], max_pixels: int) -> tuple[int, int]:
    height, width = checked_shape(fields.get("shape"), max_pixels)
    said = fields.get("N_pix", height * width)
    if said != height * width:
        raise DamagedMaskFile(f"says {str(said)[:20]} pixels for a mask of {width} x {height}")
    return height, width


def _is_boolean(packed: bytes, height: int, width: int) -> bool:
    """Whether a zlib stream holds one byte, 0 or 1, for every pixel."""
    import numpy as np

    length, highest = 0, 0
    for piece in inflated(packed, 4 * height * width):
        length += len(piece)
        highest = max(highest, int(np.frombuffer(piece, dtype=np.uint8).max()))
        if highest > 1:
            return False
    return length == height * width


def _indices(packed: bytes, height: int, width: int) -> Iterator[npt.NDArray[Any]]:
    """Little-endian int32 from a zlib stream, in parts."""
    import numpy as np

    rest = b""
    for piece in inflated(packed, 4 * height * width):
        piece = rest + piece  # noqa: PLW2901
        whole = len(piece) - len(piece) % 4
        yield np.frombuffer(piece[:whole], dtype="<i4")
        rest = piece[whole:]
    if rest:
        raise DamagedMaskFile(f"holds pixel indices that end {len(rest)} bytes after a multiple of 4")


def boolean_array(value: object, fields: dict[str, Any], max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.bool_]:
    """A mask kept as an array (SAM's ``binary_mask`` records, some of the predecessor's), shape (height, width)."""
    import numpy as np

    if isinstance(value, ArrayData):
        array = value.to_numpy()
        if array.ndim == 1 and fields.get("shape") is not None:
            height, width = checked_shape(fields.get("shape"), max_pixels)
            array = array.reshape(height, width) if array.size == height * width else array
    elif isinstance(value, bytes) and fields.get("compressed", True):
        height, width = checked_shape(fields.get("shape"), max_pixels)
        array, filled = np.zeros(height * width, dtype=np.uint8), 0
        for piece in inflated(value, height * width):
            array[filled : filled + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
            filled += len(piece)
        if filled != height * width:
            raise DamagedMaskFile(f"holds {filled} bytes for a mask of {width} x {height}")
        array = array.reshape(height, width)
    else:
        raise DamagedMaskFile(f"holds a mask as {type(value).__name__}")
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or not array.size:
        raise DamagedMaskFile(f"holds a mask of shape {array.shape}")
    return np.asarray(array != 0)


def fields_of(record: object) -> dict[str, Any]:
    """The fields of one record, whoever wrote it."""
    fields = record.fields if isinstance(record, Instance) else record
    if not isinstance(fields, dict) or "segmentation" not in fields:
        raise DamagedMaskFile(f"holds a {type(record).__name__} without a segmentation where a mask is expected")
    return fields


def mask_array(fields: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask of one record as a boolean array, shape (height, width)."""
    import numpy as np

    value = fields["segmentation"]
    if isinstance(value, dict):
        height, width = checked_shape(value.get("size"))
        counts = value.get("counts")
        if isinstance(counts, bytes):
            counts = counts.decode("latin-1")
        if isinstance(counts, list) and all(type(n) is int and 0 <= n <= MAX_PIXELS for n in counts):
            runs = np.array(counts, dtype=np.int64)
        elif isinstance(counts, str):
            runs = runs_of_counts(counts)
        else:
            raise DamagedMaskFile("holds a run-length code that is neither text nor a list of counts")
        if int(runs.sum()) != height * width:
            raise DamagedMaskFile(f"holds runs of {int(runs.sum())} pixels for a mask of {width} x {height}")
        bits = np.arange(runs.size) % 2 == 1
        return np.ascontiguousarray(np.repeat(bits, runs).reshape(width, height).T)
    found = spans_of(fields)
    if found is None:
        return boolean_array(value, fields)
    (starts, ends), height, width = found
    # +1 where a run begins, -1 after it: their sums are the mask, with no more memory than two bytes a pixel.
    turns = np.zeros(height * width + 1, dtype=np.int8)
    turns[starts], turns[ends] = 1, -1
    return np.cumsum(turns[:-1], dtype=np.int8).astype(bool).reshape(height, width)


def records_of(objects: list[Any]) -> list[Any]:
    """The list of records from :func:`read_objects`."""
    if not objects or not isinstance(objects[0], list):
        raise DamagedMaskFile(f"holds a {type(objects[0]).__name__} where the list of masks is expected")
    return objects[0]


class LoadedMask:
    """One mask: ``array`` (bool, height x width, decoded anew at each access) and its figures as attributes."""

    def __init__(self, fields: dict[str, Any], position: int) -> None:
        self.fields = fields
        self.id = fields.get("id", position)
        self.label = fields.get("label", "")
        self.bbox = _plain(fields.get("bbox"))
        self.predicted_iou = _plain(fields.get("predicted_iou"))
        self.stability_score = _plain(fields.get("stability_score"))
        self.point_coords = _plain(fields.get("point_coords"))

    @property
    def array(self) -> npt.NDArray[np.bool_]:
        return mask_array(self.fields)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.array.sum())


def _plain(value: Any) -> Any:
    return value.to_numpy().tolist() if isinstance(value, ArrayData) else value


def load(path: str | Path) -> list[LoadedMask]:
    """Masks of the set at ``path``.

    Raises:
        DamagedMaskFile: the file is not a mask set, or damaged.
        OSError: it cannot be read.
    """
    source = Path(path)
    if source.stat().st_size > MAX_BYTES:
        raise DamagedMaskFile(f"is too large ({source.stat().st_size} bytes, the limit is {MAX_BYTES})")
    records = records_of(read_objects(source.read_bytes()))
    return [LoadedMask(fields_of(record), position) for position, record in enumerate(records)]


def load_provenance(path: str | Path) -> dict[str, Any]:
    """How the set came to be (image, model, parameters, versions); an empty dict for the predecessor's sets."""
    with Path(path).open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            return read_header(file, size)
        except DamagedMaskFile:
            file.seek(0)
            objects = read_objects(file.read())
    return objects[1] if len(objects) > 1 and isinstance(objects[1], dict) else {}


if __name__ == "__main__":
    for loaded in load(sys.argv[1]):
        sys.stdout.write(f"{loaded.id}\t{loaded.area} px\t{loaded.bbox}\n")
