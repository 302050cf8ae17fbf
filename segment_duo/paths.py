"""Where things live on this machine: one place decides, everything else asks.

Defaults follow the platform's conventions (platformdirs). ``SEGDUO_HOME`` puts everything below one folder instead, which is what
tests and portable installations use. Nothing is created here.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

APP_NAME = "segduo"
# sun_path holds 104 bytes on macOS and 108 on Linux, with the closing NUL.
MAX_SOCKET_BYTES = 103


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
            root = Path(home).expanduser().absolute()
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
        return self.state_dir / "engine"

    @property
    def socket(self) -> Path:
        """The engine's socket: fixed for the user whatever the login (cron and SSH must find the same engine).

        A path too long for a Unix socket is replaced by a short one in a folder of the user's below ``/tmp`` (made 0700 and checked by who binds it).
        """
        path = self.engine_dir / "engine.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(f"/tmp/segduo-{os.getuid()}") / f"{digest}.sock"

    @property
    def engine_lock(self) -> Path:
        return self.engine_dir / "engine.lock"

    @property
    def engine_log(self) -> Path:
        return self.engine_dir / "engine.log"
