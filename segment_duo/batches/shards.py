"""Which images a task of several does: by a hash of each path, so that a list that grows keeps its shards."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from segment_duo.batches.hashes import path_hash
from segment_duo.errors import UsageError

AUTO = "auto"
_MOST = 1_000_000
_HOW = "Write --shard I/N with I from 1 to N, for instance --shard 3/8, or --shard auto in a Slurm array."


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``index``-th of ``count`` parts, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] = os.environ) -> Shard:
        """``3/8``, or ``auto`` for the task of the Slurm array that this process runs in.

        Raises:
            UsageError: it is neither, or there is no array with an unbroken row of task ids.
        """
        if text == AUTO:
            return _of_slurm(environ)
        numbers = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
        if numbers is None:
            raise UsageError(f"--shard '{text}' is not a shard", _HOW)
        shard = cls(int(numbers[1]), int(numbers[2]))
        if not 1 <= shard.index <= shard.count <= _MOST:
            raise UsageError(f"--shard {text}: I counts from 1 to N, and N is at most {_MOST}", _HOW)
        return shard

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, path: str) -> bool:
        """Whether this image is one of the shard's."""
        return path_hash(path) % self.count == self.index - 1


def _of_slurm(environ: Mapping[str, str]) -> Shard:
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX")]
    try:
        task, count, first, last = (int(environ[name]) for name in names)
        step = int(environ.get("SLURM_ARRAY_TASK_STEP", "1"))
    except KeyError as missing:
        raise UsageError(
            f"--shard auto: {missing.args[0]} is not set; this is no task of a Slurm array", _HOW
        ) from None
    except ValueError:
        raise UsageError("--shard auto: Slurm's variables do not hold numbers", _HOW) from None
    if (
        step < 1
        or count < 1
        or not first <= task <= last
        or (task - first) % step
        or count != (last - first) // step + 1
    ):
        raise UsageError(
            f"--shard auto: the array has {count} tasks between {first} and {last}, which is no unbroken row",
            'Its tasks cannot be told from those that are left out. Write --shard "$SLURM_ARRAY_TASK_ID/N".',
        )
    return Shard((task - first) // step + 1, count)
