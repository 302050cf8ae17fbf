"""Object stores that speak S3: ``s3://bucket/prefix/image.tif``. ``docs/adr/0007-boto3-for-object-stores.md`` says why through boto3.

    list   ListObjectsV2 with a delimiter        read     GetObject, in pieces against a clock
    stat   HeadObject, else one listing          create   PutObject with ``If-None-Match: *``, then GetObject to compare

A path is ``/bucket/key``; what ends at a ``/`` of a key is a folder. The endpoint, region and credentials are boto3's own matter (AWS_* variables,
profiles, ``~/.aws``, roles); none of them is ever in a message of ours, nor are boto3's texts, for they may hold a key's id.

    put ─► 200 ──► read back and compare ─► done, or S3Unavailable (stored damaged)
           412 ──► AlreadyExists, unless the object bears this writer's mark: an attempt whose answer was lost
           409 ──► another writer is at it: again, and then 412
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from os.path import commonprefix
from typing import Any

from segment_duo.errors import (
    AlreadyExists,
    InputError,
    NotFound,
    S3Denied,
    S3Error,
    S3Refused,
    S3Unavailable,
    SegduoError,
    UsageError,
)
from segment_duo.stores.base import Entries, checked_path, expand, join_path, newest_first, split_path, usable_name
from segment_duo.stores.cache import ContentCache, ContentKey
from segment_duo.stores.local import too_large
from segment_duo.stores.transport import Patience
from segment_duo.types import Entry, StoreKind
from segment_duo.waiting import StillWaiting

_PIECE_BYTES = 256 * 1024
_MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
_MARK = "segduo-writer"
"""Metadata of an object: who wrote it, so that a lost answer is not taken for another writer's object."""
_CONFLICTS = 5
_CREDENTIALS_HINT = (
    "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` shows who you are."
)
_AWAY_HINT = "Is the network up, and AWS_ENDPOINT_URL the store's address?"
_DENIED = frozenset(
    {
        "403", "401", "AccessDenied", "AllAccessDisabled", "AccountProblem", "ExpiredToken", "Forbidden", "InvalidAccessKeyId", "InvalidToken",
        "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
    }
)  # fmt: skip
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_TAKEN = frozenset({"412", "PreconditionFailed"})
_CONFLICT = frozenset({"409", "ConditionalRequestConflict", "OperationAborted"})


class S3Store:
    """Objects that one user's credentials reach.

    Args:
        cache: where read objects are kept, or None.
        patience: time limits and retries; pauses between retries are boto3's.
        waiting: tells the user that an answer is waited for.
        make_client: makes the boto3 client.
    """

    def __init__(
        self,
        cache: ContentCache | None = None,
        *,
        patience: Patience | None = None,
        waiting: StillWaiting | None = None,
        make_client: Callable[[Patience], Any] | None = None,
    ) -> None:
        self._cache = cache
        self._patience = patience or Patience()
        self._waiting = waiting or StillWaiting(None)
        self._make_client = make_client or _client
        self._made: Any = None

    def __repr__(self) -> str:
        return "S3Store()"

    @property
    def kind(self) -> StoreKind:
        return StoreKind.S3

    @property
    def address(self) -> str:
        return str(self._s3.meta.endpoint_url)

    @property
    def _s3(self) -> Any:
        if self._made is None:
            with _explained("reach", ""):
                self._made = self._make_client(self._patience)
        return self._made

    def list(self, folder: str, *, hidden: bool = False) -> Entries:
        folder = checked_path(folder)
        if folder == "/":
            with self._asking("list", folder):
                buckets = self._s3.list_buckets().get("Buckets", [])
            return [Entry(one["Name"], f"/{one['Name']}", True, 0, 0.0) for one in buckets]
        entries = [entry for entry in self._below(folder) if hidden or not entry.name.startswith(".")]
        if not entries and split_path(folder)[0] != "/":
            entry = self._head(folder)
            if entry is not None:
                raise InputError(f"'{_shown(folder)}' is an object, not a folder")
            raise NotFound(f"no such folder: '{_shown(folder)}'")
        return newest_first(entries)

    def find(self, folder: str, names: Sequence[str], *, fresh: bool = True) -> Entries:  # noqa: ARG002 - never from memory
        wanted = set(names)
        beginning = commonprefix(list(names))  # noqa: RUF071 - of characters, as the server takes it
        try:
            return [entry for entry in self._below(checked_path(folder), beginning) if entry.name in wanted]
        except NotFound:
            return []

    def stat(self, path: str) -> Entry | None:
        path = checked_path(path)
        if path == "/":
            return Entry("", "/", True, 0, 0.0)
        bucket, key = _split(path)
        name = split_path(path)[1]
        if not key:
            try:
                with self._asking("look at", path):
                    self._s3.head_bucket(Bucket=bucket)
            except NotFound:
                return None
            return Entry(name, path, True, 0, 0.0)
        entry = self._head(path)
        if entry is not None:
            return entry
        try:
            with self._asking("look at", path):
                found = self._s3.list_objects_v2(Bucket=bucket, Prefix=f"{key}/", MaxKeys=1)
        except NotFound:
            return None
        return Entry(name, path, True, 0, 0.0) if found.get("KeyCount") else None

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        path = checked_path(path)
        limit = _MAX_FILE_BYTES if max_bytes is None else max_bytes
        entry = self._head(path)
        if entry is None:
            there = self.stat(path)
            if there is not None:
                raise InputError(f"'{_shown(path)}' is a folder, not an object")
            raise NotFound(f"no such object: '{_shown(path)}'")
        if entry.size > limit:
            raise too_large(_shown(path), entry.size, limit)
        key = ContentKey.of(self.address, entry)
        content = self._cache.get(key) if self._cache is not None else None
        if content is None:
            content = self._fetched(path, limit)
            if self._cache is not None and len(content) == entry.size:
                self._cache.put(key, content)
        return content

    def create(self, path: str, data: bytes) -> None:
        path = checked_path(path)
        bucket, key = _split(path)
        if not key:
            raise UsageError("an object needs a name below its bucket")
        mark = secrets.token_hex(16)
        for last in [*[False] * _CONFLICTS, True]:
            try:
                with self._asking("write", path):
                    self._s3.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={_MARK: mark})
                break
            except _Conflict:
                if last:
                    raise S3Unavailable(f"others keep writing '{_shown(path)}'", "Try again in a moment.") from None
            except _Taken:
                if self._mark(path) == mark:
                    break
                raise AlreadyExists(f"'{_shown(path)}' already exists") from None
        if self._fetched(path, len(data)) != data:
            raise S3Unavailable(
                f"the store took '{_shown(path)}' but does not hold the bytes that were sent",
                "The object there is damaged and should be removed by its owner.",
            )

    def glob(self, pattern: str) -> Entries:
        return expand(self, pattern)

    # -- requests ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self, verb: str, path: str) -> Iterator[None]:
        with self._waiting.during(lambda: f"waiting for the object store: {_shown(path)}"), _explained(verb, path):
            yield

    def _below(self, folder: str, beginning: str = "") -> Iterator[Entry]:
        """The entries of a folder whose names begin so."""
        bucket, key = _split(folder)
        prefix = f"{key}/" if key else ""
        pages = self._s3.get_paginator("list_objects_v2")
        with self._asking("list", folder):
            for page in pages.paginate(Bucket=bucket, Prefix=prefix + beginning, Delimiter="/"):
                for one in page.get("CommonPrefixes", []):
                    name = one["Prefix"][len(prefix) : -1]
                    if usable_name(name):
                        yield Entry(name, join_path(folder, name), True, 0, 0.0)
                for one in page.get("Contents", []):
                    name = one["Key"][len(prefix) :]
                    if usable_name(name):
                        modified = one["LastModified"].timestamp()
                        yield Entry(name, join_path(folder, name), False, int(one["Size"]), modified)

    def _head(self, path: str) -> Entry | None:
        bucket, key = _split(path)
        if not key:
            return None
        try:
            with self._asking("look at", path):
                found = self._s3.head_object(Bucket=bucket, Key=key)
        except NotFound:
            return None
        return Entry(split_path(path)[1], path, False, int(found["ContentLength"]), found["LastModified"].timestamp())

    def _mark(self, path: str) -> str:
        bucket, key = _split(path)
        with self._asking("look at", path):
            return str(self._s3.head_object(Bucket=bucket, Key=key).get("Metadata", {}).get(_MARK, ""))

    def _fetched(self, path: str, limit: int) -> bytes:
        """The whole object; one that comes shorter than announced is asked for again."""
        problem: SegduoError | None = None
        for _ in range(self._patience.attempts):
            try:
                return self._download(path, limit)
            except S3Unavailable as error:
                problem = error
        assert problem is not None
        raise problem

    def _download(self, path: str, limit: int) -> bytes:
        bucket, key = _split(path)
        began = time.monotonic()
        patience = self._patience
        parts: list[bytes] = []
        received = 0
        with self._asking("read", path):
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            size = int(answer["ContentLength"])
            if size > limit:
                answer["Body"].close()
                raise too_large(_shown(path), size, limit)
            with closing(answer["Body"]) as body:  # entering it gives the raw stream, without its checks
                while piece := body.read(_PIECE_BYTES):
                    parts.append(piece)
                    received += len(piece)
                    if time.monotonic() - began > patience.answer_seconds + received / patience.slowest_rate:
                        raise S3Unavailable(
                            f"'{_shown(path)}' comes too slowly: {received} of {size} bytes", _AWAY_HINT
                        )
        if received != size:
            raise S3Unavailable(
                f"the store gave {received} bytes of '{_shown(path)}', which has {size}",
                "A proxy on the way may cut answers off.",
            )
        return b"".join(parts)


class _Taken(Exception):
    """A conditional put found an object."""


class _Conflict(Exception):
    """Another conditional put is under way."""


def _client(patience: Patience) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise UsageError("s3:// needs boto3", "Install it: pip install 'segment-duo[s3]'") from None
    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"max_attempts": patience.attempts, "mode": "standard"},
        user_agent_extra="segduo",
    )
    return boto3.session.Session().client("s3", config=config)


@contextmanager
def _explained(verb: str, path: str) -> Iterator[None]:
    """Turn what boto3 raises into our errors, in our words."""
    try:
        from botocore import exceptions
    except ImportError:  # _client says what to install
        yield
        return
    try:
        yield
    except exceptions.ClientError as error:
        raise _of_answer(error, verb, path) from None
    except (
        exceptions.NoCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
    ) as error:
        raise S3Denied(f"no credentials for '{_shown(path)}' ({type(error).__name__})", _CREDENTIALS_HINT) from None
    except exceptions.ProfileNotFound:
        raise S3Denied("AWS_PROFILE names a profile that is not in ~/.aws", _CREDENTIALS_HINT) from None
    except (exceptions.PartialCredentialsError, exceptions.InvalidConfigError, exceptions.ConfigParseError) as error:
        raise S3Denied(f"the settings in ~/.aws cannot be used ({type(error).__name__})", _CREDENTIALS_HINT) from None
    except exceptions.ParamValidationError:
        raise UsageError(f"'{_shown(path)}' is no name of a bucket and an object", "s3://BUCKET/KEY") from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        what = "did not answer in time" if "Timeout" in type(error).__name__ else "cannot be reached"
        raise S3Unavailable(
            f"the object store {what} to {verb} '{_shown(path)}' ({type(error).__name__})", _AWAY_HINT
        ) from None
    except exceptions.BotoCoreError as error:
        kind = S3Unavailable if "Incomplete" in type(error).__name__ or "Stream" in type(error).__name__ else S3Error
        raise kind(f"could not {verb} '{_shown(path)}' ({type(error).__name__})", _AWAY_HINT) from None
    except (ValueError, OSError) as error:  # an endpoint that is no address; a socket's own
        raise S3Unavailable(f"could not {verb} '{_shown(path)}' ({type(error).__name__})", _AWAY_HINT) from None


def _of_answer(error: Any, verb: str, path: str) -> Exception:
    """The error for an answer that is none of those hoped for. ``error``: botocore's ClientError."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _TAKEN or code in _CONFLICT:
        return _Taken() if code in _TAKEN else _Conflict()
    if code in _MISSING:
        return NotFound(f"no such object: '{_shown(path)}'")
    if code == "NoSuchBucket":
        return NotFound(f"no such bucket: '{_split(path)[0]}'")
    return _of_refusal(code, status, f"{verb} '{_shown(path)}'")


def _of_refusal(code: str, status: int, what: str) -> SegduoError:
    plain = _plain(code)
    if code in _DENIED or status in (401, 403):
        return S3Denied(f"the object store does not allow to {what} ({plain})", _CREDENTIALS_HINT)
    if status == 501 or code == "NotImplemented":
        return S3Refused(
            f"the object store cannot {what} on condition that it is new, so nothing was written",
            "Choose another place with --out.",
        )
    if 300 <= status < 400:
        return S3Refused(f"another region has the bucket; could not {what}", "Set AWS_REGION to the bucket's.")
    if status >= 500 or status in (0, 408, 429):
        return S3Unavailable(f"the object store fails to {what} ({plain})", "Try again in a while.")
    return S3Refused(f"the object store refuses to {what} ({plain})", "Is AWS_ENDPOINT_URL an S3 endpoint?")


def _plain(code: str) -> str:
    """A code of the server: letters and digits, whatever it sent."""
    return "".join(char for char in code if char.isalnum())[:40] or "no code"


def _split(path: str) -> tuple[str, str]:
    """``/bucket/a/b.tif`` -> ``bucket``, ``a/b.tif``."""
    bucket, _, key = path.lstrip("/").partition("/")
    return bucket, key


def _shown(path: str) -> str:
    return f"s3:/{path}"
