"""A command as a segmenter: it reads an image and writes a label image or COCO JSON (Cellpose, StarDist, a lab's own script).

    pixels -> image.png in a new folder -> the command, without a shell -> its output file -> masks, checked as any file of another program

The command comes from ``[external.NAME]`` of this machine's ``config.toml`` and never over the engine's socket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.config import ExternalCommand
from segment_duo.errors import Cancelled, EngineFailed, MaskFileError
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import (
    AutomaticRun,
    Capability,
    EmbedCrop,
    LoadRequest,
    OnProgress,
    Segmenter,
    SegmenterInfo,
    fingerprint,
    never,
    no_progress,
)
from segment_duo.types import Mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ID = "external"
IMAGE = "image.png"
SAID_CHARACTERS = 1500
"""How much of the end of the command's own words an error shows."""

BYTES_A_PIXEL = 16
"""A label image of 64-bit numbers with its file's own overhead; a larger output is not read."""

COCO_BYTES = 256 * 2**20
POLL_SECONDS = 0.1


def info(name: str, command: ExternalCommand) -> SegmenterInfo:
    """What ``segduo models ls`` says of a command."""
    return SegmenterInfo(
        id=name,
        sha256=fingerprint("external", name, *command.command, command.output),
        capabilities=frozenset({Capability.AUTOMATIC}),
        licence=command.licence,
        description=command.description or f"external command {command.command[0]}",
        source="[external] of config.toml",
    )


class External(Segmenter):
    """Runs the command for each image."""

    def __init__(self, name: str, command: ExternalCommand) -> None:
        self.info = info(name, command)
        self.command = command

    def automatic(
        self,
        pixels: npt.NDArray[np.uint8],
        parameters: AutoParameters,  # noqa: ARG002
        *,
        embedding: Any = None,  # noqa: ARG002
        embed_crop: EmbedCrop | None = None,  # noqa: ARG002
        on_progress: OnProgress = no_progress,  # noqa: ARG002
        should_cancel: Callable[[], bool] = never,
        candidates: Any = None,  # noqa: ARG002
    ) -> AutomaticRun:
        """The command's masks. ``parameters`` do not reach it.

        Raises:
            EngineFailed: it cannot be started, fails, takes too long, or writes something else than masks of this image.
            Cancelled: ``should_cancel`` said so; the command and its children are killed.
        """
        height, width = pixels.shape[:2]
        with tempfile.TemporaryDirectory(prefix="segduo-external-") as place:
            folder = Path(place)
            _write_png(folder / IMAGE, pixels)
            said = self._run(folder, should_cancel)
            masks = self._read(folder / self.command.output, height, width, said)
        notes = ["external: the parameters of the point grid do not count"]
        return AutomaticRun(masks, tuple(notes))

    def _run(self, folder: Path, should_cancel: Callable[[], bool]) -> Path:
        """Run the command to its end; the file with what it said."""
        places = {"{image}": str(folder / IMAGE), "{output}": str(folder / self.command.output)}
        arguments = [_filled(part, places) for part in self.command.command]
        said = folder / "said"
        with said.open("wb") as words:
            try:
                process = subprocess.Popen(
                    arguments,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                raise EngineFailed(
                    f"the command of '{self.info.id}' cannot be started: {arguments[0]}: {reason}",
                    f"Correct [external.{self.info.id}] in config.toml.",
                ) from None
            try:
                code = self._wait(process, should_cancel)
            finally:
                _kill(process)
        if code is None:
            raise EngineFailed(
                f"the command of '{self.info.id}' took longer than {self.command.seconds:g} s",
                f"Raise `seconds` of [external.{self.info.id}] in config.toml.{_tail(said)}",
            )
        if code:
            raise EngineFailed(
                f"the command of '{self.info.id}' ended with exit code {code}", f"It said:{_tail(said) or ' nothing'}"
            )
        return said

    def _wait(self, process: subprocess.Popen[bytes], should_cancel: Callable[[], bool]) -> int | None:
        """Its exit code, or None when the time is over."""
        end = time.monotonic() + self.command.seconds
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
            if should_cancel():
                raise Cancelled("the external command was stopped")
        return None

    def _read(self, file: Path, height: int, width: int, said: Path) -> tuple[Mask, ...]:
        from segment_duo.masks.formats.importers import import_report

        kind = "coco" if file.suffix == ".json" else "labels"
        most = COCO_BYTES if kind == "coco" else BYTES_A_PIXEL * height * width + 2**20
        try:
            facts = file.lstat()
        except OSError:
            raise EngineFailed(
                f"the command of '{self.info.id}' wrote no {file.name}", f"It is to write to {{output}}.{_tail(said)}"
            ) from None
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            raise EngineFailed(
                f"the {file.name} of '{self.info.id}' is no file of at most {most} bytes",
                "A label image has the image's own size.",
            )
        try:
            return import_report(
                file.read_bytes(), kind, name=file.name, width=width, height=height, image_name=IMAGE
            ).masks
        except MaskFileError as error:
            raise EngineFailed(f"the output of '{self.info.id}' cannot be used: {error.message}", error.hint) from None


def load(request: LoadRequest) -> External:
    """``request.config`` holds the definition as JSON."""
    return External(request.id, ExternalCommand.model_validate_json(request.config))


def _filled(part: str, places: dict[str, str]) -> str:
    for mark, path in places.items():
        part = part.replace(mark, path)
    return part


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it started; nothing of it outlives its answer."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(said: Path) -> str:
    with said.open("rb") as stream:
        stream.seek(max(0, said.stat().st_size - SAID_CHARACTERS))
        words = stream.read().decode("utf-8", "replace").strip()
    return f"\n{words}" if words else ""


def _write_png(file: Path, pixels: npt.NDArray[np.uint8]) -> None:
    import imagecodecs
    import numpy as np

    file.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=1))
