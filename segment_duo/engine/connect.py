"""Which engine a command speaks to, and how it is reached: the one place that chooses between a daemon and this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from segment_duo.engine.api import Engine
from segment_duo.engine.settings import EngineSettings

if TYPE_CHECKING:
    from segment_duo.config import Config
    from segment_duo.engine.api import Pixels
    from segment_duo.paths import Paths


def connect(
    config: Config,
    paths: Paths,
    *,
    start: bool = True,
    notify: Callable[[str], None] | None = None,
    pixels_of: Callable[[str], Pixels | None] | None = None,
) -> Engine:
    """The engine that ``config`` asks for: a daemon (started if none answers and ``start``), another one by its socket, or one in this process.

    Args:
        notify: receives one-line messages for the user, such as that the engine died and is started again.
        pixels_of: image id to pixels, asked when the engine evicted an image that the client no longer keeps.

    Raises:
        EngineUnavailable: none answers and none could be (or may be) started; holds the end of the log.
        EngineBusy: an engine of another version or on another device is working for somebody.
    """
    settings = EngineSettings.of(config, paths)
    if config.in_process:
        from segment_duo.engine.inprocess import InProcessEngine

        return InProcessEngine(settings, pixels_of=pixels_of)
    from segment_duo.engine import lifecycle
    from segment_duo.engine.client import EngineClient

    own = config.socket is None
    if own and start:
        lifecycle.ensure_running(settings)
    else:
        lifecycle.require(settings)
    return EngineClient(settings, startable=own and start, notify=notify, pixels_of=pixels_of)
