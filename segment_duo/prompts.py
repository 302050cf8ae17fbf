"""Reading prompts that people and programs write: ``-p`` and ``--box`` arguments, CSV, plain text and JSON files.

Every complaint names the place (file, line and column, or position in the JSON) and what would be right. Nothing is guessed: a point
outside the image, a NaN or an unknown label is an error, not a correction.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segment_duo.errors import PromptError
from segment_duo.types import Box, Point, Prompt

_LABELS: dict[str, Literal[0, 1]] = {
    "1": 1, "0": 0, "+": 1, "-": 0, "include": 1, "exclude": 0, "positive": 1, "negative": 0, "1.0": 1, "0.0": 0,
}  # fmt: skip
_LABEL_HINT = "Labels are 1 (include) and 0 (exclude)."
_COLUMNS = ("x", "y", "label", "object")


def parse_point(text: str, *, where: str = "--point") -> Point:
    """``x,y`` or ``x,y,label`` -> a point."""
    fields = [field.strip() for field in text.split(",")]
    if len(fields) not in (2, 3):
        raise PromptError(f"{where}: '{text}' is not x,y or x,y,label", "Example: -p 120,88 or -p 120,88,0")
    label = _label(fields[2], where) if len(fields) == 3 else 1
    return Point(_number(fields[0], f"{where}: x"), _number(fields[1], f"{where}: y"), label)


def parse_box(text: str, *, where: str = "--box") -> Box:
    """``x0,y0,x1,y1`` -> a box; the corners must span an area."""
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 4:
        raise PromptError(f"{where}: '{text}' is not x0,y0,x1,y1", f"Example: {where} 10,20,110,90")
    return _box([_number(field, f"{where}: number {i + 1}") for i, field in enumerate(fields)], where)


def parse_prompts(text: str, *, name: str, within: tuple[int, int] | None = None) -> list[Prompt]:
    """Read a prompt file: JSON, CSV with a header, or plain ``x y [label [object]]`` lines; one prompt for each object.

    Args:
        text: the file's content.
        name: what to call it in messages.
        within: width and height in pixels; points outside are refused with their place in the file.

    Raises:
        PromptError: nothing in it, or anything in it that is not a prompt; names line and column.
    """
    stripped = text.lstrip("\ufeff \t\r\n")
    if not stripped:
        raise PromptError(f"{name}: holds no points", "One point a line: x,y or x,y,label, or x,y,label,object.")
    limits = within or (math.inf, math.inf)
    read = _from_json if stripped[0] in "[{" else _from_lines
    prompts = read(text.lstrip("\ufeff"), name, limits)
    if not prompts:
        raise PromptError(f"{name}: holds no points", "One point a line: x,y or x,y,label, or x,y,label,object.")
    return prompts


def check_asks(prompts: Iterable[Prompt]) -> None:
    """Refuse prompts that ask for nothing: without a point and a box, or with points that exclude and no more.

    Raises:
        PromptError: names the first of them.
    """
    for prompt in prompts:
        where = "" if prompt.object_id == "0" else f"object {prompt.object_id}: "
        if not prompt.points and prompt.box is None:
            raise PromptError(f"{where}neither a point nor a box", "Give a point on the object, or a box around it.")
        # A mask that is corrected, by its logits, says what is asked for.
        if prompt.box is None and prompt.mask_input is None and all(point.label == 0 for point in prompt.points):
            raise PromptError(
                f"{where}a prompt of excludes alone asks for nothing", "Add a point on the object, or a box around it."
            )


def check_prompts(prompts: Sequence[Prompt], *, width: int, height: int, banner: int = 0) -> None:
    """Refuse prompts that ask for nothing or do not lie on the image.

    Args:
        width, height: size of the uncut image in pixels.
        banner: rows at the bottom that are the info banner.

    Raises:
        PromptError: names the first offending point or box.
    """
    check_asks(prompts)
    check_places(prompts, width=width, height=height, banner=banner)


def check_places(prompts: Iterable[Prompt], *, width: int, height: int, banner: int = 0) -> None:
    """Refuse prompts that do not lie on the image; sizes and errors as of :func:`check_prompts`."""
    usable = height - banner
    for prompt in prompts:
        for point in prompt.points:
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise PromptError(
                    f"point {point.x:g},{point.y:g} is outside the image ({width} x {height} pixels)",
                    f"x runs from 0 to {width - 1}, y from 0 to {height - 1}.",
                )
            if point.y >= usable:
                raise PromptError(
                    f"point {point.x:g},{point.y:g} is on the info banner (rows {usable} to {height - 1})",
                    "Use --banner off if this part of the image is no banner.",
                )
        box = prompt.box
        if box and not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= usable):
            raise PromptError(f"box {_outside(box, (width, usable))}", "Give x0,y0,x1,y1 with x0 < x1 and y0 < y1.")


def _outside(box: Box, limits: tuple[float, float]) -> str:
    corners = f"{box.x0:g},{box.y0:g},{box.x1:g},{box.y1:g}"
    return f"{corners} is not inside the image ({limits[0]:g} x {limits[1]:g} pixels)"


def _from_lines(text: str, name: str, limits: tuple[float, float]) -> list[Prompt]:
    rows = list(_rows(text))
    if not rows:
        return []
    first = [field.strip().lower() for field in rows[0][1]]
    header: list[str] = ["x", "y", "label", "object"]
    if any(re.search("[a-z]", field) and field not in ("nan", "inf") for field in first[:2]):
        header, rows = first, rows[1:]
        _check_header(header, name)
    grouped: dict[str, list[Point]] = {}
    for line, fields in rows:
        if len(fields) < 2 or len(fields) > len(header):
            raise PromptError(f"{name}, line {line}: {len(fields)} fields, expected {' '.join(header)}")
        record = dict(zip(header, fields, strict=False))

        def place(column: str, line: int = line) -> str:
            return f"{name}, line {line}, column '{column}'"

        label = _label(record["label"], place("label")) if record.get("label") else 1
        x = _coordinate(record["x"], place("x"), limits[0])
        y = _coordinate(record["y"], place("y"), limits[1])
        point = Point(x, y, label)
        grouped.setdefault(record.get("object") or "0", []).append(point)
    return [Prompt(points=tuple(points), object_id=object_id) for object_id, points in grouped.items()]


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        # Only a whole line is a comment: an object may well be called "grain #3".
        if not content or content.startswith("#"):
            continue
        fields = next(csv.reader(io.StringIO(content))) if "," in content else re.split(r"[;\s]+", content)
        yield number, [field.strip() for field in fields]


def _check_header(header: list[str], name: str) -> None:
    missing = [column for column in ("x", "y") if column not in header]
    unknown = [column for column in header if column not in _COLUMNS]
    if missing or unknown:
        what = f"no column '{missing[0]}'" if missing else f"unknown column '{unknown[0]}'"
        raise PromptError(f"{name}, line 1: {what}", "The header names x, y, and optionally label and object.")


@dataclass(frozen=True, slots=True)
class _JsonPlace:
    """Where a value stands in a JSON file. Line and column are looked for only when the place is printed, which happens once: in a complaint."""

    name: str
    text: str
    path: tuple[str | int, ...] = ()
    words: str = ""

    def at(self, *steps: str | int, words: str = "") -> _JsonPlace:
        """A place further in: ``steps`` are keys and positions, ``words`` what to call it."""
        return _JsonPlace(self.name, self.text, (*self.path, *steps), self.words + words)

    def __str__(self) -> str:
        offset = _offset(self.text, self.path)
        line, column = self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)
        return f"{self.name}, line {line}, column {column}{self.words}"


def _offset(text: str, path: tuple[str | int, ...]) -> int:
    """Where the value at ``path`` begins in ``text``, which is valid JSON."""
    decoder, blank = json.JSONDecoder(), re.compile(r"[\s,:]*")

    def skip(offset: int) -> int:
        found = blank.match(text, offset)
        return found.end() if found else offset

    offset = skip(0)
    for step in path:
        offset = skip(offset + 1)
        if isinstance(step, int):
            for _ in range(step):
                offset = skip(decoder.raw_decode(text, offset)[1])
            continue
        key, end = decoder.raw_decode(text, offset)
        while key != step:
            key, end = decoder.raw_decode(text, skip(decoder.raw_decode(text, skip(end))[1]))
        offset = skip(end)
    return offset


def _from_json(text: str, name: str, limits: tuple[float, float]) -> list[Prompt]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{name}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:  # integers of more digits than Python converts
        raise PromptError(f"{name}: {error}") from None
    except RecursionError:
        raise PromptError(f"{name}: nested too deeply to be a list of points") from None
    top = _JsonPlace(name, text)
    lone = isinstance(value, dict) and "objects" not in value
    if isinstance(value, dict):
        value, top = ([value], top) if lone else (value["objects"], top.at("objects"))
    if not isinstance(value, list):
        raise PromptError(f"{name}: expected a list of points or of objects")
    loose: dict[str, list[Point]] = {}
    prompts: list[Prompt] = []
    for index, item in enumerate(value):
        where = top.at(*(() if lone else (index,)), words=f", item {index + 1}")
        if isinstance(item, dict) and ("points" in item or "box" in item):
            prompts.append(_json_object(item, where, limits, default_id=str(index)))
        else:
            object_id = str(item.get("object", "0")) if isinstance(item, dict) else "0"
            loose.setdefault(object_id, []).append(_json_point(item, where, limits))
    return prompts + [Prompt(points=tuple(points), object_id=object_id) for object_id, points in loose.items()]


def _json_object(item: dict[str, Any], where: _JsonPlace, limits: tuple[float, float], *, default_id: str) -> Prompt:
    unknown = sorted(set(item) - {"points", "labels", "box", "object", "id"})
    if unknown:
        raise PromptError(
            f"{where.at(unknown[0])}: unknown key '{unknown[0]}'", "An object has points, labels, box and object."
        )
    raw, labels = item.get("points", []), item.get("labels")
    if not isinstance(raw, list) or (labels is not None and (not isinstance(labels, list) or len(labels) != len(raw))):
        raise PromptError(f"{where}: points must be a list, and labels a list of the same length")
    points = [
        _json_point(point, where.at("points", i, words=f", point {i + 1}"), limits) for i, point in enumerate(raw)
    ]
    if labels is not None:
        points = [
            Point(point.x, point.y, _label(label, where.at("labels", i, words=f", label {i + 1}")))
            for i, (point, label) in enumerate(zip(points, labels, strict=True))
        ]
    box = _json_box(item["box"], where.at("box", words=", box"), limits) if item.get("box") is not None else None
    if not points and box is None:
        raise PromptError(f"{where}: neither points nor a box")
    return Prompt(points=tuple(points), box=box, object_id=str(item.get("object", item.get("id", default_id))))


def _json_box(value: Any, where: _JsonPlace, limits: tuple[float, float]) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise PromptError(f"{where}: must be [x0, y0, x1, y1]")
    box = _box([_number(corner, where.at(i, words=f", number {i + 1}")) for i, corner in enumerate(value)], where)
    if min(box.x0, box.y0) < 0 or box.x1 > limits[0] or box.y1 > limits[1]:
        raise PromptError(f"{where}: {_outside(box, limits)}")
    return box


def _json_point(item: Any, where: _JsonPlace, limits: tuple[float, float]) -> Point:
    keys: tuple[str | int, ...] = (0, 1, 2)
    fields = item
    if isinstance(item, dict) and {"x", "y"} <= set(item) <= set(_COLUMNS):
        keys = tuple(key for key in ("x", "y", "label") if key in item)
        fields = [item[key] for key in keys]
    if not isinstance(fields, list) or len(fields) not in (2, 3):
        raise PromptError(f"{where}: not a point", 'A point is [x, y], [x, y, label] or {"x": 1, "y": 2, "label": 1}.')
    x = _coordinate(fields[0], where.at(keys[0], words=": x"), limits[0])
    y = _coordinate(fields[1], where.at(keys[1], words=": y"), limits[1])
    return Point(x, y, _label(fields[2], where.at(keys[2])) if len(fields) == 3 else 1)


def _coordinate(value: Any, where: object, limit: float) -> float:
    number = _number(value, where)
    if math.isfinite(limit) and not 0 <= number < limit:
        raise PromptError(f"{where}: {number:g} is outside the image", f"It runs from 0 to {limit - 1:g}.")
    return number


def _box(corners: list[float], where: object) -> Box:
    x0, y0, x1, y1 = corners
    if not (x0 < x1 and y0 < y1):
        raise PromptError(f"{where}: x0 < x1 and y0 < y1 must hold, got {x0:g},{y0:g},{x1:g},{y1:g}")
    return Box(x0, y0, x1, y1)


def _number(value: Any, where: object) -> float:
    try:
        number = float("not a number" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        raise PromptError(f"{where}: '{str(value)[:40]}' is not a number") from None
    if not math.isfinite(number):
        raise PromptError(f"{where}: '{value}' is not a finite number")
    return number


def _label(value: Any, where: object) -> Literal[0, 1]:
    label = _LABELS.get(str(value).strip().lower())
    if label is None or isinstance(value, bool):
        raise PromptError(f"{where}: unknown label '{value}'", _LABEL_HINT)
    return label
