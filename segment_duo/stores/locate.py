"""From what a user types to a reference, and from a reference to the store that holds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo.errors import ConfigError, UsageError
from segment_duo.paths import absolute, current_folder
from segment_duo.stores.base import Store, checked_path
from segment_duo.stores.local import LocalStore
from segment_duo.types import DROPS_PREFIX, ImageRef, StoreKind

if TYPE_CHECKING:
    from segment_duo.config import Config
    from segment_duo.paths import Paths
    from segment_duo.stores.cache import ContentCache
    from segment_duo.waiting import StillWaiting

_MIB = 1024 * 1024


def parse_reference(text: str, *, cwd: Path | None = None) -> ImageRef:
    """What ``text`` means: a file or folder, on Drops or here. Nothing is looked up, and wildcards stay as they are.

    ``s3://bucket/key`` is an object's place. ``/drops/labdaq/a.tif``, ``drops:/labdaq/a.tif`` and ``drops:/drops/labdaq/a.tif`` are the server's
    ``/labdaq/a.tif``; everything else is local, relative to ``cwd`` (the current folder), with ``~`` expanded.
    (A local file called ``drops:x`` is ``./drops:x``.)

    Raises:
        UsageError: empty text, a NUL character, or ``..`` on Drops.
        InputError: relative to a current folder that has been removed.
    """
    if not text.strip():
        raise UsageError("an empty path")
    if "\0" in text:
        raise UsageError("a path that holds a NUL character")
    if text.startswith("s3://"):
        return ImageRef(StoreKind.S3, checked_path(text.removeprefix("s3:/")))
    if text.startswith(("drops:", DROPS_PREFIX)) or text == DROPS_PREFIX.rstrip("/"):
        return ImageRef(StoreKind.DROPS, drops_path(text))
    path = _home_expanded(Path(text))
    if not path.is_absolute():
        path = (cwd or current_folder()) / path
    if ".." in path.parts:
        # The kernel follows links before it goes up; cutting "x/.." out of the text could name another file.
        folder, name = (path, "") if path.name == ".." else (path.parent, path.name)
        path = Path(os.path.realpath(folder)) / name
    return ImageRef(StoreKind.LOCAL, str(path.absolute()))


def _home_expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # `~name.tif` is a file; there is no such user
        return path


def open_store(kind: StoreKind, config: Config, paths: Paths, waiting: StillWaiting | None = None) -> Store:
    """The store of that kind under this configuration. Nothing is contacted yet. ``waiting`` tells that a server is waited for.

    Raises:
        ConfigError: Drops without an address, or ``use_local_files`` without ``local_root``.
    """
    if kind is StoreKind.LOCAL:
        return LocalStore()
    if kind is StoreKind.S3:
        from segment_duo.stores.s3 import S3Store

        return S3Store(_content_cache(config, paths), waiting=waiting)
    if config.use_local_files:
        if not config.local_root:
            raise ConfigError(
                "use_local_files is on, but local_root is not set", "Set SEGDUO_LOCAL_ROOT to the mounted folder."
            )
        return LocalStore(absolute(config.local_root), StoreKind.DROPS)
    if not config.drops_url:
        raise ConfigError(
            "no address of the Drops file server",
            "Set DROPS_URL, USERNAME and PASSWORD in .env, or SEGDUO_DROPS_URL, SEGDUO_DROPS_USERNAME and SEGDUO_DROPS_PASSWORD.",
        )
    from segment_duo.stores.drops import DropsStore

    password = config.drops_password.get_secret_value() if config.drops_password else ""
    cache = _content_cache(config, paths)
    return DropsStore(config.drops_url, config.drops_username or "", password, cache, waiting=waiting)


def _content_cache(config: Config, paths: Paths) -> ContentCache | None:
    from segment_duo.stores.cache import ContentCache

    return ContentCache(paths.content_dir, config.content_cache_mib * _MIB) if config.content_cache_mib else None


def drops_path(text: str) -> str:
    """A path on Drops as users write it (``/drops/labdaq``, ``drops:/labdaq``, ``/labdaq``) -> the server's path (``/labdaq``). Raises UsageError."""
    path = checked_path("/" + text.removeprefix("drops:"))
    return (
        "/" + path.removeprefix(DROPS_PREFIX) if path.startswith(DROPS_PREFIX) else ("/" if path == "/drops" else path)
    )
