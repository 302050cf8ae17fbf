"""What the manifests of earlier tasks say of a batch's images. Read once; no image's folder is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segment_duo.batches.hashes import HashSet, path_hash
from segment_duo.batches.manifest import files, read
from segment_duo.batches.shards import Shard
from segment_duo.errors import ProcessDied, UsageError

TRIES = 2
"""Deaths of a process over an image after which the image is given up."""


@dataclass(slots=True)
class Doubt:
    """An image that was begun and has no outcome. ``since``: when it was first begun; ``deaths``: how many processes ended over it without a word."""

    since: float
    deaths: int = 0


@dataclass(slots=True)
class History:
    """Images by what is known of them. ``settled``: done or skipped, or given up; ``doubts``: by path, few."""

    settled: HashSet = field(default_factory=HashSet)
    doubts: dict[str, Doubt] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Take in one line of a manifest, later lines after earlier ones."""
        if "image" in line:
            self.doubts.pop(line["image"], None)
            if line.get("outcome") != "failed" or line.get("error") == ProcessDied.slug:
                self.settled.add(path_hash(line["image"]))
        elif "begun" in line:
            self.doubts.setdefault(line["begun"], Doubt(line["time"])).deaths += 1
        elif "sent" in line:
            self.doubts.setdefault(line["sent"], Doubt(line["time"]))
        elif line.get("dropped") in self.doubts:
            self.doubts[line["dropped"]].deaths -= 1


def read_history(folder: Path, batch: str, shard: Shard | None = None) -> History:
    """What earlier tasks of this batch have done; files of other shards of the same division are passed over.

    Raises:
        UsageError: the folder belongs to another batch.
        StoreError, InputError: a file cannot be read.
    """
    found = History()
    for file in files(folder):
        lines = read(file)
        header = next(lines, None)
        if header is None:
            continue
        if header.get("batch") != batch:
            raise UsageError(
                f"'{folder}' holds the manifests of another batch ({header.get('command')}, {header.get('model')})",
                "A folder serves one command with one set of parameters: choose another with --manifest.",
            )
        if shard is not None and _another(header.get("shard"), shard):
            continue
        for line in lines:
            found.add(line)
    return found


def _another(theirs: str | None, ours: Shard) -> bool:
    """Whether a file is of another shard of the same division, so that none of our images is in it."""
    return theirs is not None and theirs != str(ours) and theirs.endswith(f"/{ours.count}")
