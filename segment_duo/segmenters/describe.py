"""Import one plug-in and write what it says of itself to stdout, as JSON: ``[problem, info]``. Run in a process of its own, see ``plugins``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from segment_duo.errors import ModelError
from segment_duo.segmenters.plugins import import_family


def main(name: str) -> None:
    answer = os.dup(1)
    os.dup2(2, 1)  # what the plug-in prints is none of the answer
    problem, info = "", None
    try:
        info = import_family(name).info
    except ModelError as error:
        problem = error.message.partition("cannot be used: ")[2] or error.message
    said = None if info is None else dataclasses.asdict(info) | {"capabilities": sorted(info.capabilities)}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump([problem, said], stream, default=str)
    os._exit(0)  # threads that the plug-in started, and its exit handlers, are not waited for


if __name__ == "__main__":
    main(sys.argv[1])
