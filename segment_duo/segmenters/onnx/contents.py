"""What an ONNX file asks for, read without loading it: operators beside the standard's, and other files. Knows protobuf's wire format alone.

A model from a stranger is data, and stays so: operators that are not ONNX's own would need a library of theirs, and external data could name any
file of the machine. Both are seen here before anything runs. The file is mapped, not read; only what nests models is looked into.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from segment_duo.errors import ModelError

STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators onnxruntime itself has; the last one holds its own quantised and fused ones."""

MOST_BYTES = 4 * 2**30
"""Of a model and its external data together; SAM's largest encoder has 2.6 GB."""

MOST_DEPTH = 32

# Field numbers of onnx.proto3.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE = 7
_NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = 5, 6, 10, 11, 22
_ATTRIBUTE_SPARSES = 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass
class Contents:
    """``operators``: those that are not the standard's, as ``domain:name``; ``files``: names of external data."""

    operators: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    nodes: int = 0


def external_files(file: Path) -> list[Path]:
    """The files of weights that a model has beside it.

    Raises:
        ModelError: it is no ONNX model, too large, asks for operators of others, or for files that are not beside it.
    """
    contents = read_contents(file)
    if contents.operators:
        listed = ", ".join(sorted(contents.operators)[:3])
        raise ModelError(
            f"{file}: asks for operators that are not ONNX's own: {listed}",
            "They would need a library with code of others, which is never loaded. Export the model with standard operators.",
        )
    found = []
    total = file.stat().st_size
    for name in sorted(contents.files):
        beside = file.parent / name
        if len(PurePosixPath(name).parts) != 1 or name in {".", ".."} or "\\" in name or "\0" in name:
            raise ModelError(
                f"{file}: asks for the file {name!r}", "External data is read only from files beside the model."
            )
        if beside.is_symlink() or not beside.is_file():
            raise ModelError(
                f"{file}: its weights are in {name!r}, which is no file beside it", "Put both into one folder."
            )
        total += beside.stat().st_size
        found.append(beside)
    if total > MOST_BYTES:
        raise ModelError(
            f"{file}: {total} bytes with its weights; at most {MOST_BYTES} are taken", "Use a smaller model."
        )
    return found


def read_contents(file: Path) -> Contents:
    """Look through a model.

    Raises:
        ModelError: the file cannot be read, is too large, or is no ONNX model.
    """
    contents = Contents()
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            if size > MOST_BYTES:
                raise ModelError(f"{file}: {size} bytes; at most {MOST_BYTES} are taken", "Use a smaller model.")
            # Closed with its last view: an error on the way here still holds some.
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        _model(memoryview(mapped), contents)
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}", "Give the path of an ONNX file.") from None
    except (ValueError, IndexError):  # also for an empty file, and texts that are not UTF-8
        raise ModelError(f"{file}: is no ONNX model, or a damaged one", "Fetch or export it again.") from None
    if not contents.nodes:
        raise ModelError(f"{file}: is no ONNX model: it has no graph", "Fetch or export it again.")
    return contents


def _model(data: memoryview, out: Contents) -> None:
    for number, value in _fields(data):
        if number == _MODEL_GRAPH:
            _graph(value, out, 0)
        elif number == _MODEL_FUNCTIONS:
            for inner, node in _fields(value):
                if inner == _FUNCTION_NODE:
                    _node(node, out, 0)


def _graph(data: memoryview, out: Contents, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ValueError("nested too deeply")
    for number, value in _fields(data):
        if number == _GRAPH_NODE:
            _node(value, out, depth)
        elif number == _GRAPH_INITIALIZER:
            _tensor(value, out)
        elif number == _GRAPH_SPARSE:
            _sparse(value, out)


def _node(data: memoryview, out: Contents, depth: int) -> None:
    out.nodes += 1
    operator, domain = "", ""
    for number, value in _fields(data):
        if number == _NODE_TYPE:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            _attribute(value, out, depth)
    if domain not in STANDARD:
        out.operators.add(f"{domain}:{operator}")


def _attribute(data: memoryview, out: Contents, depth: int) -> None:
    for number, value in _fields(data):
        if number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _graph(value, out, depth + 1)
        elif number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _tensor(value, out)
        elif number in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            _sparse(value, out)


def _sparse(data: memoryview, out: Contents) -> None:
    for number, value in _fields(data):
        if number in (_SPARSE_VALUES, _SPARSE_INDICES):
            _tensor(value, out)


def _tensor(data: memoryview, out: Contents) -> None:
    for number, value in _fields(data):
        if number == _TENSOR_EXTERNAL:
            entry = {inner: _text(text) for inner, text in _fields(value)}
            if entry.get(_ENTRY_KEY) == "location":
                out.files.add(entry.get(_ENTRY_VALUE, ""))


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field with a length (texts, bytes, messages); numbers are passed over.

    Raises:
        ValueError, IndexError: this is not protobuf.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(data, at)
            if length > end - at:
                raise ValueError("cut off")
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("no protobuf")
    if at != end:
        raise ValueError("cut off")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no protobuf")
