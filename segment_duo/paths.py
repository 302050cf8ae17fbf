"""Where things live on this machine: one place decides, everything else asks.

Defaults follow the platform's conventions (platformdirs). ``SEGDUO_HOME`` puts everything below one folder instead, which is what
tests and portable installations use. Nothing is created here.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from segment_duo.errors import InputError

APP_NAME = "segduo"
# sun_path holds 104 bytes on macOS and 108 on Linux, with the closing NUL.
MAX_SOCKET_BYTES = 103


def current_folder() -> Path:
    """The folder that relative paths begin in.

    Raises:
        InputError: it has been removed since the shell went there.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise InputError(
            "the current folder does not exist any more", "Go to another one (cd), or name files by their whole paths."
        ) from None


def absolute(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` expanded, from the current folder if it is relative. Raises InputError as :func:`current_folder`."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else current_folder() / expanded


@dataclass(frozen=True, slots=True)
class Paths:
    """The program's folders. All absolute."""

    config_dir: Path
    data_dir: Path
    cache_dir: Path
    state_dir: Path

    @classmethod
    def default(cls) -> Paths:
        """The folders of the current user; ``SEGDUO_HOME`` in the environment wins."""
        home = os.environ.get("SEGDUO_HOME")
        if home:
            root = absolute(home)
            return cls(root / "config", root / "data", root / "cache", root / "state")
        import platformdirs

        dirs = platformdirs.PlatformDirs(APP_NAME, appauthor=False)
        return cls(
            Path(dirs.user_config_dir), Path(dirs.user_data_dir), Path(dirs.user_cache_dir), Path(dirs.user_state_dir)
        )

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def models_dir(self) -> Path:
        """Pulled checkpoints and the user's own trained models."""
        return self.data_dir / "models"

    @property
    def embeddings_dir(self) -> Path:
        return self.cache_dir / "embeddings"

    @property
    def content_dir(self) -> Path:
        """Files fetched from Drops."""
        return self.cache_dir / "drops"

    @property
    def spool_dir(self) -> Path:
        """Mask sets that could not be delivered yet."""
        return self.state_dir / "spool"

    @property
    def journal_dir(self) -> Path:
        """Unsaved work of the terminal UI."""
        return self.state_dir / "journal"

    @property
    def engine_dir(self) -> Path:
        """The engine's log, and where the file system is this machine's own its socket and locks: for each host one, as homes are shared."""
        return self.state_dir / "engine" / _host()

    @property
    def socket(self) -> Path:
        """The engine's socket: fixed for the user and the machine, whatever the login (cron and SSH must find the same engine).

        Machines that share a home have an engine each. A path too long for a Unix socket, or on a network file system (where sockets and locks
        do not work or are not local), is replaced by a short one in a folder of the user's below ``/tmp`` (made 0700 and checked by who binds it).
        """
        path = self.engine_dir / "engine.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_BYTES and not on_network(self.state_dir):
            return path
        return self.machine_dir / f"{self._digest}.sock"

    @property
    def engine_lock(self) -> Path:
        return self.lock("engine")

    @property
    def engine_log(self) -> Path:
        return self.engine_dir / "engine.log"

    @property
    def machine_dir(self) -> Path:
        """The user's folder on a disk of this machine."""
        return Path(f"/tmp/segduo-{os.getuid()}")

    def lock(self, name: str) -> Path:
        """A lock of this machine: beside the log, or below ``/tmp`` where that is on a network file system."""
        if on_network(self.state_dir):
            return self.machine_dir / f"{self._digest}-{name}.lock"
        return self.engine_dir / f"{name}.lock"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(os.fsencode(self.engine_dir / "engine.sock")).hexdigest()[:16]


NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.glusterfs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
        "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs",
    }
)  # fmt: skip


@lru_cache(maxsize=64)
def on_network(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether a folder (or the nearest one above it that exists) lies on a file system shared between machines.

    Known on Linux; elsewhere the answer is no.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    place = os.path.realpath(folder)
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        # Of several mounts on one point the last one is seen.
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind in NETWORK_FILE_SYSTEMS


def _host() -> str:
    """This machine's name without its domain, as a file name."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", os.uname().nodename.partition(".")[0])
    return name[:32] or "localhost"
