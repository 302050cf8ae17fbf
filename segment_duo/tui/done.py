"""Which images the user has marked as done, or as not done whatever is saved: a file of lines, one a mark, the last one counts.

Lines are appended whole and synced, so two UIs can write and a crash loses at most the line being written; one that cannot be read is passed over.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from segment_duo.durable import make_private_folders


class DoneMarks:
    """Args:
    file: made with the first mark.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, bool]:
        """Image, as users type it -> done or not. Empty where the file cannot be read."""
        marks: dict[str, bool] = {}
        try:
            lines = self._file.read_bytes().splitlines()
        except OSError:
            return marks
        for line in lines:
            try:
                mark = json.loads(line)
                marks[str(mark["image"])] = bool(mark["done"])
            except (ValueError, TypeError, KeyError):
                continue
        return marks

    def write(self, image: str, done: bool) -> None:
        """Add a mark.

        Raises:
            OSError: no space, no permission.
        """
        make_private_folders(self._file.parent)
        # The break in front closes a line that a crash has left open.
        line = "\n" + json.dumps({"image": image, "done": done}) + "\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
