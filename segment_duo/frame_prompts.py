"""Prompts that say on which frame and for which object they are: ``-p x,y,label,object@frame``, and files with a column for the frame."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from segment_duo.errors import PromptError
from segment_duo.prompts import parse_box, parse_point
from segment_duo.types import Box, Point

COLUMNS = ("frame", "object", "x", "y", "label", "x0", "y0", "x1", "y1")
_HINT = "Columns: frame, object, x, y and label, or frame, object, x0, y0, x1 and y1."


@dataclass(frozen=True, slots=True)
class FramePrompt:
    """Points and a box for one object on one frame; ``object_id`` counts from 1, ``frame`` from 0."""

    object_id: int
    frame: int
    points: tuple[Point, ...] = ()
    box: Box | None = None

    def record(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_record` is the inverse."""
        return {
            "object": self.object_id,
            "frame": self.frame,
            "points": [[point.x, point.y, point.label] for point in self.points],
            "box": None if self.box is None else list(dataclasses.astuple(self.box)),
        }

    @classmethod
    def from_record(cls, value: dict[str, Any]) -> FramePrompt:
        """Raises KeyError, TypeError or ValueError for something else."""
        points = tuple(Point(float(x), float(y), 1 if label else 0) for x, y, label in value["points"])
        box = value.get("box")
        return cls(int(value["object"]), int(value["frame"]), points, None if box is None else Box(*map(float, box)))


def parse_frame_point(text: str, *, frame: int = 0) -> FramePrompt:
    """``x,y``, ``x,y,label``, ``x,y,label,object``, each with ``@frame`` behind it if wanted.

    Args:
        frame: where none is named.

    Raises:
        PromptError: something else.
    """
    head, at, tail = text.partition("@")
    fields = head.split(",")
    number = _whole(tail, f"-p {text!r}: frame", least=0) if at else frame
    one = _whole(fields[3], f"-p {text!r}: object", least=1) if len(fields) == 4 else 1
    return FramePrompt(one, number, (parse_point(",".join(fields[:3]), where="-p"),))


def parse_frame_box(text: str, number: int, *, frame: int = 0) -> FramePrompt:
    """``x0,y0,x1,y1`` with ``,object`` and ``@frame`` behind it if wanted; ``number`` is the object where none is named."""
    head, at, tail = text.partition("@")
    fields = head.split(",")
    at_frame = _whole(tail, f"--box {text!r}: frame", least=0) if at else frame
    one = _whole(fields[4], f"--box {text!r}: object", least=1) if len(fields) == 5 else number
    return FramePrompt(one, at_frame, (), parse_box(",".join(fields[:4])))


def parse_frame_file(text: str, *, name: str) -> list[FramePrompt]:
    """A CSV file with a heading: a line for each point or box.

    Raises:
        PromptError: nothing in it, or anything in it that is no prompt; names the line.
    """
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise PromptError(f"{name}: holds no prompts", _HINT)
    separator = next((one for one in ("\t", ";") if one in lines[0]), ",")
    rows = csv.DictReader(io.StringIO("\n".join(lines)), delimiter=separator)
    header = [str(field).strip().lower() for field in rows.fieldnames or ()]
    rows.fieldnames = header
    unknown = [field for field in header if field not in COLUMNS]
    if unknown or "frame" not in header or not ({"x", "y"} <= set(header) or {"x0", "y0", "x1", "y1"} <= set(header)):
        raise PromptError(f"{name}: " + (f"unknown column '{unknown[0]}'" if unknown else "a column is missing"), _HINT)
    found = []
    for position, row in enumerate(rows, 2):
        where = f"{name}, line {position}"
        values = {
            key: (value or "").strip() for key, value in row.items() if key is not None and not isinstance(value, list)
        }
        frame = _whole(values["frame"], f"{where}: frame", least=0)
        one = _whole(values.get("object") or "1", f"{where}: object", least=1)
        if values.get("x0"):
            box = parse_box(",".join(values.get(key, "") for key in ("x0", "y0", "x1", "y1")), where=where)
            found.append(FramePrompt(one, frame, (), box))
        else:
            point = [values.get("x", ""), values.get("y", ""), *([values["label"]] if values.get("label") else [])]
            found.append(FramePrompt(one, frame, (parse_point(",".join(point), where=where),)))
    return found


def together(prompts: Iterable[FramePrompt]) -> list[FramePrompt]:
    """One prompt for each object and frame, with all its points; in the order of frames.

    Raises:
        PromptError: an object has two boxes on a frame, or nothing but excludes on the first of its frames.
    """
    found: dict[tuple[int, int], FramePrompt] = {}
    for prompt in prompts:
        key = prompt.frame, prompt.object_id
        known = found.get(key)
        if known is None:
            found[key] = prompt
            continue
        if known.box is not None and prompt.box is not None:
            raise PromptError(f"object {prompt.object_id} has two boxes on frame {prompt.frame}")
        found[key] = dataclasses.replace(known, points=known.points + prompt.points, box=known.box or prompt.box)
    return [found[key] for key in sorted(found)]


def _whole(text: str, what: str, *, least: int) -> int:
    if not re.fullmatch(r"\s*\d{1,9}\s*", text, re.ASCII) or int(text) < least:
        raise PromptError(f"{what}: '{text}' is not a whole number from {least}", "For example -p 120,88,1,2@30")
    return int(text)
