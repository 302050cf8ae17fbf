"""Unsaved work on disk: what a crash or a lost connection leaves, offered at the next start.

One JSON file an image and a process, private to the user, replaced as a whole (written beside, synced, renamed) after every edit, gone
once the work is saved or given up. A file of a process that still runs belongs to another terminal UI and is left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segment_duo.durable import make_private_folders
from segment_duo.types import ImageRef, Mask, ModelIdentity, Origin, Point, Rle, StoreKind

_FORMAT = 1
_LARGEST = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Draft:
    """Unsaved work on one image.

    ``sha256``: of the image file's bytes. ``version``: the saved version it was edited from. ``written``: seconds since the epoch.
    ``page``: of the image file. ``path``: the journal file it was read from. ``frames``: of a stack or film, the frames with unsaved masks, and
    all masks of each; there are no others then.
    """

    ref: ImageRef
    sha256: str
    version: str | None
    masks: tuple[Mask, ...]
    points: tuple[Point, ...] = ()
    written: float = 0.0
    path: Path | None = None
    page: int = 0
    frames: tuple[tuple[int, tuple[Mask, ...]], ...] = ()


class Journal:
    """The drafts in one folder.

    Args:
        folder: created when the first draft is written.
        pid: of this process.
    """

    def __init__(self, folder: Path, pid: int | None = None) -> None:
        self.folder = folder
        self._pid = os.getpid() if pid is None else pid
        self._lock: int | None = None
        self._busy = threading.Lock()

    def write(self, draft: Draft, unless: Callable[[], bool] = lambda: False) -> Path:
        """Replace this process's draft of the same image.

        Args:
            unless: asked last of all; True when the draft is out of date, which leaves the disk as it is. A draft that is given up while
                it is being written must not come back.

        Raises:
            OSError: no space, no permission.
        """
        target = self._file(draft.ref)
        body = {
            "format": _FORMAT,
            "pid": self._pid,
            "store": draft.ref.store.value,
            "image": draft.ref.path,
            "sha256": draft.sha256,
            "page": draft.page,
            "version": draft.version,
            "written": time.time(),
            "points": [asdict(point) for point in draft.points],
            "masks": [asdict(mask) for mask in draft.masks],
            "frames": [[frame, [asdict(mask) for mask in masks]] for frame, masks in draft.frames],
        }
        with self._busy:
            if unless():
                return target
            self._hold()
            handle, name = tempfile.mkstemp(prefix=".draft-", dir=self.folder)
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    json.dump(body, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(target)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        return target

    def forget(self, ref: ImageRef) -> None:
        """Remove this process's draft of an image, if there is one."""
        with self._busy:
            self._file(ref).unlink(missing_ok=True)

    def left_behind(self) -> list[Draft]:
        """Drafts of processes that are gone, newest first; what cannot be read is skipped, and kept on disk."""
        drafts = []
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            with suppress(OSError, ValueError, KeyError, TypeError):
                if path.stat().st_size > _LARGEST:
                    continue
                body = json.loads(path.read_text("ascii"))
                if body["format"] == _FORMAT and not self._in_use(int(body["pid"])):
                    drafts.append(_draft(body, path))
        return sorted(drafts, key=lambda draft: draft.written, reverse=True)

    @staticmethod
    def discard(draft: Draft) -> None:
        if draft.path is not None:
            draft.path.unlink(missing_ok=True)

    def _in_use(self, pid: int) -> bool:
        """Whether the writer of a draft still runs: it holds a lock, which no crash leaves behind and no reused number has."""
        if pid == self._pid:
            return self._lock is not None
        try:
            handle = os.open(self.folder / f"{pid}.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def _hold(self) -> None:
        if self._lock is None:
            make_private_folders(self.folder)
            self._lock = os.open(self.folder / f"{self._pid}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give up the lock; drafts that are still there count as left behind from now on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            (self.folder / f"{self._pid}.lock").unlink(missing_ok=True)

    def _file(self, ref: ImageRef) -> Path:
        key = hashlib.sha256(f"{ref.store.value}:{ref.path}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return self.folder / f"{key}-{self._pid}.json"


def _draft(body: dict[str, Any], path: Path) -> Draft:
    return Draft(
        ref=ImageRef(StoreKind(body["store"]), str(body["image"])),
        sha256=str(body["sha256"]),
        version=None if body["version"] is None else str(body["version"]),
        masks=tuple(_mask(item) for item in body["masks"]),
        points=tuple(_points(body["points"])),
        written=float(body["written"]),
        path=path,
        page=int(body.get("page", 0)),
        frames=tuple((int(frame), tuple(map(_mask, items))) for frame, items in body.get("frames", ())),
    )


def _points(items: Sequence[dict[str, Any]]) -> list[Point]:
    return [Point(float(item["x"]), float(item["y"]), 1 if item["label"] else 0) for item in items]


def _mask(item: dict[str, Any]) -> Mask:
    rle = item["rle"]
    x, y, width, height = (float(value) for value in item["bbox"])
    crop = item["crop_box"]
    return Mask(
        rle=Rle(int(rle["height"]), int(rle["width"]), str(rle["counts"])),
        area=int(item["area"]),
        bbox=(x, y, width, height),
        id=int(item["id"]),
        predicted_iou=item["predicted_iou"],
        stability_score=item["stability_score"],
        point_coords=tuple((float(px), float(py)) for px, py in item["point_coords"]),
        point_labels=tuple(int(label) for label in item["point_labels"]),
        crop_box=None if crop is None else (float(crop[0]), float(crop[1]), float(crop[2]), float(crop[3])),
        label=str(item["label"]),
        source=item["source"],
        origin=_origin(item.get("origin")),
    )


def _origin(item: dict[str, Any] | None) -> Origin | None:
    if item is None:
        return None
    model = item["model"]
    return Origin(
        operation=str(item["operation"]),
        model=None if model is None else ModelIdentity(str(model["id"]), str(model["weights_sha256"])),
        parameters=dict(item["parameters"]),
        program_version=str(item["program_version"]),
        notices=tuple(str(text) for text in item["notices"]),
        edits=tuple(str(text) for text in item["edits"]),
    )
