"""``segduo doctor``: look at everything a user's work depends on, and say what to do about what is wrong.

Each check answers with one line and, where something is not right, with the next step. Nothing is changed and nothing is started. A check
that itself fails is a finding, never a crash.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from segment_duo import __version__
from segment_duo.errors import NotFound, SegduoError
from segment_duo.types import StoreKind

if TYPE_CHECKING:
    from segment_duo.session import Session

_GIB = 1 << 30
_LITTLE_DISK = 2 * _GIB
_LITTLE_MEMORY = 3 * _GIB


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check. ``advice`` is the next step, empty when none is needed."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def examine(session: Session, terminal: Callable[[], list[tuple[str, str, str]]]) -> Iterator[CheckResult]:
    """Run all checks, one after the other.

    Args:
        session: for the settings (wrong ones among them: see :func:`segment_duo.config.inspect_config`), the stores and the running engine.
        terminal: gives rows of (what, value, advice) about the terminal; from the front end, which knows terminals.
    """
    checks: list[tuple[str, Callable[[], Iterator[CheckResult]]]] = [
        ("program", _program),
        ("settings", lambda: _settings(session)),
        ("terminal", lambda: _terminal(terminal)),
        ("engine", lambda: _engine(session)),
        ("models", lambda: _models(session)),
        ("memory", _memory),
        ("disk", lambda: _disk(session)),
        ("Drops", lambda: _drops(session)),
        ("spool", lambda: _spool(session)),
    ]
    for name, check in checks:
        try:
            yield from check()
        except SegduoError as error:
            yield CheckResult(name, Verdict.PROBLEM, error.message, error.hint)
        except Exception as error:  # a broken check must not hide the others
            yield CheckResult(name, Verdict.PROBLEM, f"the check itself failed: {type(error).__name__}: {error}")


def _program() -> Iterator[CheckResult]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "sam2", "textual"))
    yield CheckResult(
        "program",
        Verdict.OK,
        f"segduo {__version__}, Python {platform.python_version()} on {sys.platform} {platform.machine()}, {versions}",
    )
    package = importlib.util.find_spec("sam2")
    folders = list(package.submodule_search_locations or []) if package else []
    compiled = any(file for folder in folders for file in Path(folder).glob("_C*.so"))
    detail = "present" if compiled else "absent (not needed: holes and specks are cleaned on the CPU)"
    yield CheckResult("sam2's CUDA extension", Verdict.OK, detail)


def _settings(session: Session) -> Iterator[CheckResult]:
    file = session.paths.config_file
    dotenv = session.resolved.dotenv
    found = [str(place) for place in (file if file.exists() else None, dotenv) if place]
    yield CheckResult(
        "settings", Verdict.OK, ", ".join(found) or "defaults only (`segduo config init` writes a file to edit)"
    )
    for problem in session.resolved.problems:
        yield CheckResult("settings", Verdict.PROBLEM, problem.message, problem.hint)
    for foreign in session.resolved.foreign:
        yield CheckResult(
            "settings",
            Verdict.NOTE,
            f"{foreign} is not read: it belongs to another user",
            f"If you trust it, copy it to {session.paths.config_dir / '.env'}, or make it your own.",
        )
    if dotenv and dotenv.stat().st_mode & 0o077 and session.resolved.origins["drops_password"].startswith(str(dotenv)):
        yield CheckResult("settings", Verdict.NOTE, f"others can read the password in {dotenv}", f"chmod 600 {dotenv}")


def _terminal(terminal: Callable[[], list[tuple[str, str, str]]]) -> Iterator[CheckResult]:
    for what, value, advice in terminal():
        yield CheckResult(what, Verdict.NOTE if advice else Verdict.OK, value, advice)


def _engine(session: Session) -> Iterator[CheckResult]:
    status = session.engine_status()
    if status is None:
        yield CheckResult(
            "engine",
            Verdict.OK,
            f"not running (starts by itself), socket {session.config.socket or session.paths.socket}",
        )
        return
    if status.failure is not None:
        yield CheckResult("engine", Verdict.PROBLEM, f"cannot compute: {status.failure.message}", status.failure.hint)
        return
    device = status.device or "not chosen yet"
    device += f" ({status.device_name})" if status.device_name else ""
    yield CheckResult(
        "engine", Verdict.OK, f"{status.state}, pid {status.pid}, version {status.version}, device {device}"
    )
    if status.version != __version__:
        yield CheckResult(
            "engine",
            Verdict.NOTE,
            f"runs version {status.version}, this is {__version__}",
            "segduo engine stop; it restarts by itself",
        )


def _models(session: Session) -> Iterator[CheckResult]:
    from segment_duo.models.known import known_models
    from segment_duo.segmenters.plugins import SAM2

    choice = session.model
    yield CheckResult("model", Verdict.OK, f"{choice.id}, weights sha256 {choice.sha256[:16]}…", choice.notice)
    for model in known_models(session.paths, session.config):
        if model.state == "damaged" and model.family != SAM2:
            advice = "Other models work all the same. Mend, update or remove it, or the package that brings it."
            yield CheckResult("models", Verdict.PROBLEM, f"{model.id}: {model.description}", advice)
        elif model.state == "damaged":
            advice = (
                f"segduo models pull {model.id}" if model.spec else "Install the program, or train the model, again."
            )
            yield CheckResult("models", Verdict.PROBLEM, f"{model.id}: the checkpoint is damaged", advice)
        elif model.state == "partial":
            yield CheckResult(
                "models", Verdict.NOTE, f"{model.id}: download unfinished", f"segduo models pull {model.id}"
            )


def _memory() -> Iterator[CheckResult]:
    import psutil

    memory = psutil.virtual_memory()
    little = memory.available < _LITTLE_MEMORY
    yield CheckResult(
        "memory",
        Verdict.NOTE if little else Verdict.OK,
        f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB available, {os.cpu_count()} cores",
        "Use nano or sam2.1-tiny, and --tile for large images." if little else "",
    )


def _disk(session: Session) -> Iterator[CheckResult]:
    paths = session.paths
    for name, folder in (("models", paths.models_dir), ("caches", paths.cache_dir), ("state", paths.state_dir)):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(existing).free
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0
        writable = os.access(existing, os.W_OK)
        advice = "" if writable else f"Make {existing} writable, or set SEGDUO_HOME."
        if free < _LITTLE_DISK:
            advice = f"Little room is left on {existing}; lower disk_cache_mib or free some."
        verdict = Verdict.PROBLEM if not writable else Verdict.NOTE if advice else Verdict.OK
        yield CheckResult(
            f"disk: {name}", verdict, f"{folder}: {used / _GIB:.2f} GiB used, {free / _GIB:.0f} GiB free", advice
        )


def _drops(session: Session) -> Iterator[CheckResult]:
    config = session.config
    if not config.drops_url and not config.use_local_files:
        yield CheckResult("Drops", Verdict.OK, "not configured (local files work without)")
        return
    folder = config.masks_root or "/segduo-doctor"
    with contextlib.suppress(NotFound):  # a folder that is not there yet is an answer too
        session.store(StoreKind.DROPS).list(session.reference(f"drops:{folder}").path)
    yield CheckResult(
        "Drops", Verdict.OK, f"{config.drops_url or config.local_root} answers, the credentials are accepted"
    )


def _spool(session: Session) -> Iterator[CheckResult]:
    spool = session.sets.spool
    for folder in spool.damaged():
        yield CheckResult(
            "spool",
            Verdict.PROBLEM,
            f"{folder} cannot be read any more",
            "Look at its set.pkl, then remove the folder.",
        )
    waiting = len(spool.pending())
    if waiting:
        yield CheckResult(
            "spool", Verdict.NOTE, f"{waiting} mask sets wait to be delivered to Drops", "segduo masks push"
        )
    else:
        yield CheckResult("spool", Verdict.OK, "empty")
