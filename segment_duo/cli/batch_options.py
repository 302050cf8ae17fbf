"""The options of commands that may be one task of a batch (``auto``, ``embed``, ``track``), and the ledger that they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.bundles import Bundle
from segment_duo.cli.output import note
from segment_duo.errors import StoppedEarly, UsageError

if TYPE_CHECKING:
    from segment_duo.batches.ledger import Ledger
    from segment_duo.session import Session

_PANEL = "Many images"

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do the I-th of N parts of the images, told apart by their paths; auto: the task of a Slurm array.",
        rich_help_panel=_PANEL,
    ),
]
ManifestOption = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FOLDER",
        help="Note each image's outcome in a file of this folder, and leave out what is done there; see `segduo batch status`.",
        rich_help_panel=_PANEL,
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Let the workers of a Dask scheduler do it (tcp://HOST:8786), or local:N processes of this machine.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class TaskOptions(Bundle):
    """Which part of the images, and where it is noted."""

    shard: ShardOption = None
    manifest: ManifestOption = None

    @property
    def any(self) -> bool:
        """Whether this is a task of a batch."""
        return self.shard is not None or self.manifest is not None

    @contextmanager
    def ledger(
        self,
        command: str,
        session: Session,
        asked: Mapping[str, Any],
        out: str | None,
        *,
        what: str = "image",
        looks_only: bool = False,
    ) -> Iterator[Ledger]:
        """The task's ledger; at the end its file is closed, and what earlier tasks had done is told.

        With any of these options SIGTERM and SIGUSR1 are noted: work asks ``ledger.stopping``.

        Args:
            asked: see :class:`segment_duo.batches.ledger.Description`.
            what: a word for one thing that is done.
            looks_only: nothing is to be done.
        """
        from segment_duo.batches.ledger import Description, Ledger
        from segment_duo.batches.shards import Shard
        from segment_duo.batches.stopping import Stopping

        shard = Shard.parse(self.shard) if self.shard is not None else None
        folder = None if self.manifest is None else self.manifest.expanduser().absolute()
        batch = Description(command, session.identity, asked, str(session.reference(out)) if out else "")
        stopping = Stopping()
        with stopping.listening() if self.any else nullcontext():
            found = Ledger(folder, batch, shard, stopping, looks_only=looks_only)
            try:
                yield found
            except StoppedEarly:
                found.close("stopped")
                raise
            except BaseException:
                found.close("failed")
                raise
            else:
                found.close("done")
            finally:
                if found.resumed:
                    were = f"1 {what} was" if found.resumed == 1 else f"{found.resumed} {what}s were"
                    note(f"{were} done by earlier runs, left out")


@dataclass(frozen=True)
class BatchOptions(TaskOptions):
    """Which part of the images, where it is noted, and who does it."""

    cluster: ClusterOption = None

    @property
    def any(self) -> bool:
        return super().any or self.cluster is not None

    def check(self, frame: str | None) -> None:
        """Refuse frames."""
        if frame is not None and self.any:
            raise UsageError(
                "--frame does not go with --shard, --manifest or --cluster",
                "Write the frames as files, or do the stack in one run.",
            )
