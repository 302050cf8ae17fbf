"""docs/json.schema.json against what the commands really write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from tests.cli_shell import DISCS, Shell
from tests.conftest import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "docs/json.schema.json").read_text())
KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What of the schema's words used here (type, enum, anyOf, properties, required, additionalProperties, items, $ref) is not met."""
    if "$ref" in schema:
        return problems(value, SCHEMA["$defs"][unquote(schema["$ref"].rpartition("/")[2])], where)
    if "anyOf" in schema:
        return [] if any(not problems(value, one, where) for one in schema["anyOf"]) else [f"{where}: none of anyOf"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is not one of {schema['enum']}"]
    wanted = schema.get("type", [])
    kinds = [wanted] if isinstance(wanted, str) else wanted
    is_flag = isinstance(value, bool)
    if kinds and not any(isinstance(value, KINDS[kind]) and (kind == "boolean" or not is_flag) for kind in kinds):
        return [f"{where}: {value!r} is not {kinds}"]
    found: list[str] = []
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += problems(item, schema.get("items", {}), f"{where}[{number}]")
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        found += [f"{where}: no {key}" for key in schema.get("required", []) if key not in value]
        for key, item in value.items():
            if key not in properties and more is False:
                found.append(f"{where}: {key} is not in the schema")
            else:
                found += problems(item, properties.get(key, more or {}), f"{where}.{key}")
    return found


def agrees(name: str, value: Any) -> None:
    assert problems(value, SCHEMA["$defs"][name]) == []


def test_the_check_finds_what_is_wrong() -> None:
    right = {"image": "a", "id": "b", "computed": True, "seconds": 1}
    assert problems(right, SCHEMA["$defs"]["embed"]) == []
    for wrong in (right | {"more": 1}, {"image": "a"}, right | {"computed": 1}, right | {"seconds": True}, []):
        assert problems(wrong, SCHEMA["$defs"]["embed"])


def test_every_command_writes_what_the_schema_says(shell: Shell) -> None:
    shell.image("a.png")
    (shell.folder / "bad.png").write_text("no picture")
    boxes = [
        argument for x, y, r in DISCS for argument in ("--box", f"{x - r - 2},{y - r - 2},{x + r + 2},{y + r + 2}")
    ]

    def one(name: str, *arguments: str, code: int = 0) -> Any:
        done = shell.run(*arguments, "--json")
        assert done.code == code, done.stderr
        agrees(name, done.json)
        return done.json

    one("embed", "embed", "a.png")
    few = ("--points-per-side", "4", "--pred-iou-thresh", "0.05", "--stability-score-thresh", "0.05")
    one("auto --dry-run", "auto", "a.png", "--dry-run")
    assert "records" in one("auto", "auto", "a.png", *few, "--no-save")
    assert "saved" in one("auto", "auto", "a.png", *few)
    one("point", "point", "a.png", *boxes)
    several = shell.run("measure", "a.png", "bad.png", "--json")
    assert (several.code, len(several.lines)) == (8, 2)
    agrees("failed", json.loads(several.lines[0]) if "error" in several.lines[0] else json.loads(several.lines[1]))
    assert one("measure", "measure", "a.png@1")["masks"] == len(DISCS)
    one("measure", "measure", "a.png@1", "--summary", "--pixel-size", "2nm")
    one("info", "info", "a.png")
    one("masks ls", "masks", "ls", "a.png")
    one("masks show", "masks", "show", "a.png@1")
    one("masks keep", "masks", "keep", "a.png@1", "0", "1")
    one("masks rm-mask", "masks", "rm-mask", "a.png@1", "0")
    one("masks label", "masks", "label", "a.png@1", "0", "pore")
    one("masks label --dry-run", "masks", "label", "a.png@1", "0", "pore", "--dry-run")
    one("masks filter", "masks", "filter", "a.png@1", "--min-area", "10")
    one("masks filter --dry-run", "masks", "filter", "a.png@1", "--min-area", "10", "--dry-run")
    one("masks diff", "masks", "diff", "a.png@1", "@2")
    write_labels(shell.folder / "labels.png")
    one("masks import", "masks", "import", "a.png", "labels.png")
    one("score", "score", "a.png@1", "labels.png")
    one("ls", "ls", ".")
    one("models ls", "models", "ls")
    one("config show", "config", "show")
    agrees("doctor", shell.run("doctor", "--json").json)


def write_labels(file: Path) -> None:
    y, x = np.mgrid[:124, :180]
    labels = np.zeros((124, 180), np.uint8)
    for number, (centre_x, centre_y, radius) in enumerate(DISCS, start=1):
        labels[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2] = number
    Image.fromarray(labels).save(file)


def test_the_page_names_every_command_of_the_schema() -> None:
    page = (REPOSITORY / "docs/json.md").read_text()
    for name in SCHEMA["$defs"]:
        words = name.removeprefix("masks ") if name in ("masks rm-mask", "masks filter") else name
        assert name in ("record", "provenance", "failed") or f"`{words}`" in page, name
