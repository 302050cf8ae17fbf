"""A batch as an array of Slurm jobs: the script for ``sbatch``, its submission, and the states of its tasks.

The script is plain and complete: it can be read, changed and submitted by hand. ``docs/adr/0006-sbatch-itself.md`` says why no library submits it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segment_duo.durable import create_file, make_folders
from segment_duo.errors import StoppedEarly, StoreError, UsageError

COMMANDS = ("auto", "embed", "track")
_JOBS = "slurm-jobs"
"""File of the manifest folder with the ids of the submitted arrays, one a line."""
_SECONDS = 60.0

_SCRIPT = """\
#!/bin/bash
# Written by `segduo batch submit`. Submit it again with `sbatch FILE`: what the manifests say is done is left out.
{directives}

cd {cwd} || exit 1

# Each task computes by itself: an engine shared by the node would live in the job that started it, and end with that one.
export SEGDUO_IN_PROCESS=1

# bash hands the signals on: a time limit sends USR1 first (see --signal), a requeue or scancel sends TERM.
trap 'kill -USR1 "$task" 2>/dev/null; limit=1' USR1
trap 'kill -TERM "$task" 2>/dev/null' TERM
{command} --shard "$SLURM_ARRAY_TASK_ID/{count}" --manifest {manifest} &
task=$!
wait "$task"; code=$?
while kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done

# {stopped}: what was done is kept. At the time limit the task goes on in a new run.
if [ "$code" -eq {stopped} ] && [ -n "$limit" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of tasks.

    Attributes:
        tasks: how many; each does one shard.
        command: the arguments of ``segduo``, one of :data:`COMMANDS` first.
        manifest: folder of the manifests; the logs go to its ``logs``.
        cwd: where relative paths of the command begin.
        at_once: how many may run at a time; None: as many as Slurm likes.
        warning: seconds before the time limit at which a task finishes its image (of a sequence: its frame).
        options: of sbatch, by name: ``partition``, ``time``, ``gres``, ...
        more: further arguments of sbatch as they are.
    """

    tasks: int
    command: Sequence[str]
    manifest: Path
    cwd: Path
    name: str = "segduo"
    at_once: int | None = None
    warning: int = 120
    options: Mapping[str, str] = field(default_factory=dict)
    more: Sequence[str] = ()

    @property
    def logs(self) -> Path:
        return self.manifest / "logs"

    def script(self) -> str:
        """The text of the job script. Raises UsageError for a command or an option that cannot be in one."""
        if not self.command or self.command[0] not in COMMANDS:
            raise UsageError(
                "only auto, embed and track run as an array", "segduo batch submit --slurm ... -- auto IMAGES"
            )
        for taken in ("--shard", "--manifest", "--cluster"):
            if any(word == taken or word.startswith(f"{taken}=") for word in self.command):
                raise UsageError(f"{taken} is set by the script", "Leave it out behind --; --manifest goes before it.")
        limit = f"%{self.at_once}" if self.at_once else ""
        settings = {
            "job-name": self.name,
            "array": f"1-{self.tasks}{limit}",
            "output": f"{self.logs}/%A_%a.log",
            "open-mode": "append",
            "signal": f"B:USR1@{self.warning}",
            **self.options,
        }
        lines = [f"#SBATCH --{name}={_word(value)}" for name, value in settings.items()]
        lines += ["#SBATCH --requeue", *(f"#SBATCH {_word(one)}" for one in self.more)]
        program = [sys.executable, "-m", "segment_duo.cli.main"]
        return _SCRIPT.format(
            directives="\n".join(lines),
            cwd=shlex.quote(str(self.cwd)),
            command=shlex.join([*program, *self.command]),
            count=self.tasks,
            manifest=shlex.quote(str(self.manifest)),
            stopped=StoppedEarly.exit_code,
        )

    def submit(self) -> tuple[str, Path]:
        """Write the script into the manifest folder and hand it to sbatch; returns the array's id and the script.

        Raises:
            StoreError: the folder cannot be written.
            UsageError: there is no sbatch, or it refuses.
        """
        text = self.script()
        sbatch = shutil.which("sbatch")
        if sbatch is None:
            raise UsageError("there is no sbatch on this machine", "Log in to a node that submits, or see --dry-run.")
        try:
            make_folders(self.logs)
            number = next(n for n in range(1, 10_000) if not self._file(n).exists())
            script = self._file(number)
            create_file(script, text.encode(), mode=0o777)
        except OSError as error:
            raise StoreError(f"cannot write the job script in '{self.manifest}': {error.strerror or error}") from None
        done = _run([sbatch, "--parsable", str(script)])
        job = re.match(r"[0-9]+", done.stdout)
        if done.returncode or job is None:
            raise UsageError(
                f"sbatch refused: {(done.stderr or done.stdout).strip()[:500]}",
                f"The script is {script}; correct the options and submit again.",
            )
        with (self.manifest / _JOBS).open("a", encoding="utf-8") as jobs:
            jobs.write(f"{job[0]}\n")
        return job[0], script

    def _file(self, number: int) -> Path:
        return self.manifest / f"job-{number}.sbatch"


def queued(folder: Path) -> dict[str, int] | None:
    """How many tasks of the folder's arrays are in which of Slurm's states (``PENDING``, ``RUNNING``, ``COMPLETED``, ...).

    From sacct where it answers (it knows finished ones too), else from squeue. None: nothing was submitted from here, or Slurm does not answer.
    """
    try:
        jobs = [line for line in (folder / _JOBS).read_text(encoding="utf-8").split() if line.isdigit()]
    except (OSError, UnicodeDecodeError):
        return None
    if not jobs:
        return None
    for command in (
        [
            "sacct",
            "--allocations",
            "--noheader",
            "--parsable2",
            "--array",
            "--format=JobID,State",
            f"--jobs={','.join(jobs)}",
        ],
        ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={','.join(jobs)}"],
    ):
        if shutil.which(command[0]) is None:
            continue
        done = _run(command)
        rows = [line.split("|") for line in done.stdout.splitlines() if "|" in line]
        if done.returncode == 0 and rows:
            return dict(Counter(state.split()[0] for _, state in rows if state.strip()))
    return None


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} does not answer ({error})")


def _word(text: str) -> str:
    """An option's value for a ``#SBATCH`` line; quotes are read there as in a shell. Raises UsageError for a line break."""
    if "\n" in text or "\r" in text:
        raise UsageError(f"an option of sbatch holds a line break: {json.dumps(text)}")
    return text if re.fullmatch(r"[\w@%+=:,./-]*", text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
