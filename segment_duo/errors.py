"""Every error the program raises on purpose, with its hint, slug and exit code. Nothing here prints.

    SegduoError                    1   a defect of ours if it is raised bare
    ├── UsageError                 2   the command line asks for something that cannot be
    ├── ConfigError                2   a setting is wrong
    ├── ModelError                 2   a model is unknown, incomplete or not what it claims to be
    ├── EngineUnavailable          3   no engine answers and none could be started
    ├── EngineFailed               4   the engine answered with a failure, or died
    │   ├── EngineBusy             4   its queue is full
    │   ├── TrackLost              4   it no longer remembers the objects that are followed
    │   └── ProcessDied            4   the process that worked on an image died, twice
    ├── ServerError                5   where images live
    │   ├── DropsError             5   the file server
    │   │   ├── DropsUnavailable   5   not reachable, or failing: worth a retry, sets are spooled
    │   │   ├── DropsDenied        5   wrong or missing credentials, forbidden path
    │   │   └── DropsRefused       5   answers, but not as Drops does, or never takes this: no retry helps
    │   └── S3Error                5   an object store, with the same three
    │       └── S3Unavailable, S3Denied, S3Refused
    ├── StoreError                 6   reading or writing a folder
    │   ├── AlreadyExists          6   a name is taken (never overwritten)
    │   └── OutOfSpace             6   disk full or over quota
    ├── InputError                 7   what the user gave cannot be used
    │   ├── NotFound               7   no such file, folder or version
    │   ├── ImageError             7   not an image, damaged, or too large
    │   ├── PromptError            7   points, boxes or prompt files
    │   └── MaskFileError          7   a mask set or import file
    ├── SomeInputsFailed           8   the others were done
    ├── Cancelled                  9   stopped on request
    ├── SavedToSpoolOnly          10   kept locally, to be delivered later
    └── StoppedEarly              11   a batch ended after the image in hand, as a signal asked

130 and 143 are left to SIGINT and SIGTERM. ``docs/exit-codes.md`` is checked against this module by a test.
"""

from __future__ import annotations

from typing import ClassVar


class SegduoError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what happened, one sentence, no trailing full stop needed. May hold untrusted text; it is escaped when printed.
        hint: the next step for the user, or an empty string.
    """

    exit_code: ClassVar[int] = 1
    slug: ClassVar[str] = "internal"
    ends_batch: bool = False
    """Set on an error that is of the whole batch though others of its class are of one image."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SegduoError):
    exit_code = 2
    slug = "usage"


class ConfigError(SegduoError):
    exit_code = 2
    slug = "config"


class ModelError(SegduoError):
    exit_code = 2
    slug = "model"


class EngineUnavailable(SegduoError):
    exit_code = 3
    slug = "engine-unavailable"


class EngineFailed(SegduoError):
    exit_code = 4
    slug = "engine-failed"


class EngineBusy(EngineFailed):
    slug = "engine-busy"


class TrackLost(EngineFailed):
    slug = "track-lost"


class ProcessDied(EngineFailed):
    slug = "process-died"


class ServerError(SegduoError):
    exit_code = 5
    slug = "server"


class DropsError(ServerError):
    slug = "drops"


class DropsUnavailable(DropsError):
    slug = "drops-unavailable"


class DropsDenied(DropsError):
    slug = "drops-denied"


class DropsRefused(DropsError):
    slug = "drops-refused"


class S3Error(ServerError):
    slug = "object-store"


class S3Unavailable(S3Error):
    slug = "object-store-unavailable"


class S3Denied(S3Error):
    slug = "object-store-denied"


class S3Refused(S3Error):
    slug = "object-store-refused"


class StoreError(SegduoError):
    exit_code = 6
    slug = "store"


class AlreadyExists(StoreError):
    slug = "already-exists"


class OutOfSpace(StoreError):
    slug = "out-of-space"


class InputError(SegduoError):
    exit_code = 7
    slug = "input"


class NotFound(InputError):
    slug = "not-found"


class ImageError(InputError):
    slug = "image"


class PromptError(InputError):
    slug = "prompt"


class MaskFileError(InputError):
    slug = "mask-file"


class SomeInputsFailed(SegduoError):
    exit_code = 8
    slug = "some-failed"


class Cancelled(SegduoError):
    exit_code = 9
    slug = "cancelled"


class SavedToSpoolOnly(SegduoError):
    exit_code = 10
    slug = "spooled"


class StoppedEarly(SegduoError):
    exit_code = 11
    slug = "stopped"


def all_error_classes() -> list[type[SegduoError]]:
    """Every class of the tree, parents before children (for the documentation test and the engine's wire format)."""
    found: list[type[SegduoError]] = [SegduoError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found


def error_from_slug(slug: str, message: str, hint: str = "") -> SegduoError:
    """Rebuild an error that crossed the wire; an unknown slug (a newer engine) becomes :class:`EngineFailed`."""
    for cls in all_error_classes():
        if cls.slug == slug:
            return cls(message, hint)
    return EngineFailed(message, hint)
