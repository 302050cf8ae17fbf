"""The Drops file server over HTTP. ``docs/drops.md`` describes the protocol and its traps; this module is where they are dealt with.

    list, stat, glob   POST /list/      read   POST /filez/      create   POST /upload/, then POST /filez/ to compare

``GET`` is never used: it answers a missing file with a web page, and cannot reach names outside ASCII. No request ever carries
``clobber``, so nothing is overwritten; Drops can neither delete nor rename, so nothing is lost. Redirects are not followed: the
credentials go to the configured server or nowhere. What came from the server is hostile until it is checked.

    upload ─► "ok" ──────► read back and compare ─► done, or DropsUnavailable (stored damaged)
              EEXIST ────► AlreadyExists, unless an earlier attempt of ours arrived after all
              no answer ─► read: there, and equal? done. Otherwise pause and send again
"""

from __future__ import annotations

import json
import math
import stat as stat_module
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from segment_duo.errors import (
    AlreadyExists,
    DropsDenied,
    DropsError,
    DropsRefused,
    DropsUnavailable,
    InputError,
    NotFound,
    OutOfSpace,
    SegduoError,
    UsageError,
)
from segment_duo.stores.base import Entries, checked_path, expand, join_path, newest_first, split_path, usable_name
from segment_duo.stores.cache import ContentCache, ContentKey
from segment_duo.stores.local import too_large
from segment_duo.stores.transport import Answer, Connection, NoAnswer, Patience, Question
from segment_duo.types import Entry, StoreKind
from segment_duo.waiting import StillWaiting

_LIST, _READ, _UPLOAD = "/list/", "/filez/", "/upload/"
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Largest listing or upload answer that is read; an entry takes about 400 bytes, so this is a folder of 160 000 files."""
_MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
"""Largest file that is read when the caller names no limit: a stream without end must not fill the memory. Sets have some megabytes."""
_RECENT_SECONDS = 2.0
_GLOB_SPECIAL = frozenset("[]*?{}!()\\+")
_ESCAPED_ON_UPLOAD = frozenset('%"\\&;') | {chr(code) for code in (*range(0x20), 0x7F)}
_CREDENTIALS_HINT = "Check USERNAME and PASSWORD in .env; `segduo config show` tells where each value comes from."


class DropsStore:
    """Files of one Drops server, reached with one user's credentials.

    Args:
        url: the server's address, with a path when it sits below one; without credentials in it.
        username, password: sent with HTTP Basic authentication (UTF-8) to this address only.
        cache: where fetched files are kept, or None.
        patience: time limits and retries.
        sleep: how to pause.
        waiting: tells the user that an answer is waited for.

    Raises:
        ConfigError: the address cannot be used.
        DropsDenied: user name or password is empty.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        cache: ContentCache | None = None,
        *,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        waiting: StillWaiting | None = None,
    ) -> None:
        waiting = waiting or StillWaiting(None)
        self._connection = Connection(url, username, password, patience or Patience(), sleep, waiting)
        self._cache = cache
        self._recent: dict[str, tuple[float, Entries]] = {}
        self._remembered: tuple[str, dict[str, Entry]] = ("", {})

    def __repr__(self) -> str:
        return f"DropsStore({self.address!r})"

    @property
    def kind(self) -> StoreKind:
        return StoreKind.DROPS

    @property
    def address(self) -> str:
        return self._connection.url

    def list(self, folder: str, *, hidden: bool = False) -> Entries:  # noqa: ARG002 - the server never lists hidden names
        folder = _checked_path(folder)
        if folder == "/":
            raise UsageError("Drops does not list its root", "Name a folder, for instance /drops/labdaq.")
        entries = self._listing(folder)
        if not entries:
            self._refuse_missing(folder)
        return newest_first(entries)

    def find(self, folder: str, names: Sequence[str], *, fresh: bool = True) -> Entries:
        """``/list/`` knows folders only, so not ``fresh`` means: from the last listing that was made here, and what was uploaded since."""
        folder = _checked_path(folder)
        remembered, there = self._remembered
        if fresh or remembered != folder:
            there = {entry.name: entry for entry in self._listing(folder)}
            if not there:
                with suppress(NotFound):
                    self._refuse_missing(folder)
            self._remembered = folder, there
        return [there[name] for name in names if name in there]

    def stat(self, path: str) -> Entry | None:
        path = _checked_path(path)
        folder, name = split_path(path)
        if path == "/":
            return Entry("", "/", True, 0, 0.0)
        if folder == "/" or "/." in path:  # places that no listing shows
            return self._probe(path)
        return next((entry for entry in self._listing(folder) if entry.name == name), None)

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        path = _checked_path(path)
        if self._cache is None:
            return self._download(path, max_bytes)
        entry = self._recent_entry(path) or self.stat(path)
        if entry is None:
            return self._download(path, max_bytes)
        if entry.is_folder:
            raise InputError(f"'{_shown(path)}' is a folder, not a file")
        if max_bytes is not None and entry.size > max_bytes:
            raise too_large(_shown(path), entry.size, max_bytes)
        key = ContentKey.of(self.address, entry)
        content = self._cache.get(key)
        if content is None:
            content = self._download(path, max_bytes)
            if len(content) == entry.size:
                self._cache.put(key, content)
            else:
                self._refuse_half(path, len(content))
        return content

    def create(self, path: str, data: bytes) -> None:
        path = _checked_path(path)
        if path == "/":
            raise UsageError("a file on Drops needs a name")
        if "/." in path:
            raise InputError(
                f"'{_shown(path)}': Drops neither lists nor serves names that begin with a dot", "Rename the image."
            )
        if self._upload(path, data):
            self._compare(path, data)
        folder, name = split_path(path)
        remembered, there = self._remembered
        if remembered == folder:
            there[name] = Entry(name, path, False, len(data), time.time())

    def glob(self, pattern: str) -> Entries:
        return expand(self, pattern)

    # Listings -----------------------------------------------------------------------------------------------------------

    def _listing(self, folder: str) -> Entries:
        search = escape_search(folder)
        answer = self._connection.ask(Question(_LIST, {"search": search}, max_bytes=_MAX_ANSWER_BYTES))
        _refuse_refusals(answer, folder)
        try:
            rows = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise _not_drops(self.address, answer) from None
        if not isinstance(rows, list):
            raise DropsError(
                f"Drops gave no listing of '{_shown(folder)}'",
                "Name a folder below its root, for instance /drops/labdaq.",
            )
        # Where the folder's name had to be written with `?`, sibling folders can match too; their files are not this folder's.
        exact = search == folder
        entries: dict[str, Entry] = {}
        for row in rows:
            entry = _entry(row, folder, any_folder=exact)
            if entry:
                entries.setdefault(entry.name, entry)
        self._recent = {folder: (time.monotonic(), [*entries.values()])}
        return [*entries.values()]

    def _recent_entry(self, path: str) -> Entry | None:
        """The entry from a listing made a moment ago, so that reading what was just listed does not list it once more per file."""
        folder, name = split_path(path)
        listed, entries = self._recent.get(folder, (-math.inf, []))
        if time.monotonic() - listed > _RECENT_SECONDS:
            return None
        return next((entry for entry in entries if entry.name == name), None)

    def _refuse_missing(self, folder: str) -> None:
        """A missing folder and an empty one get the same answer; the parent's listing tells them apart, unless it is the root."""
        parent, name = split_path(folder)
        if parent == "/" or "/." in folder:
            return
        entry = next((entry for entry in self._listing(parent) if entry.name == name), None)
        if entry is None:
            raise NotFound(f"no such folder: '{_shown(folder)}'")
        if not entry.is_folder:
            raise InputError(f"'{_shown(folder)}' is a file, not a folder")

    def _probe(self, path: str) -> Entry | None:
        from email.utils import parsedate_to_datetime

        answer = self._connection.ask(Question(_READ, {"file": path}, max_bytes=0))
        if answer.status == 404:
            is_folder = bool(self._listing(path))
            return Entry(split_path(path)[1], path, True, 0, 0.0) if is_folder else None
        _refuse_refusals(answer, path)
        self._refuse_web_page(answer, path)
        try:
            modified = parsedate_to_datetime(answer.headers.get("last-modified", "")).timestamp()
        except (ValueError, OverflowError):
            modified = 0.0
        return Entry(split_path(path)[1], path, False, answer.announced or 0, modified)

    # Files --------------------------------------------------------------------------------------------------------------

    def _download(self, path: str, max_bytes: int | None) -> bytes:
        limit = _MAX_FILE_BYTES if max_bytes is None else max_bytes
        answer = self._connection.ask(Question(_READ, {"file": path}, max_bytes=limit))
        if answer.status == 404:
            raise NotFound(f"no such file on Drops: '{_shown(path)}'")
        _refuse_refusals(answer, path)
        self._refuse_web_page(answer, path)
        if answer.cut:
            raise too_large(_shown(path), answer.announced, limit)
        return answer.body

    def _refuse_half(self, path: str, received: int) -> None:
        """A file that has not the size it was listed with has changed since, or something on the way cut it and announced the rest as the whole."""
        entry = self.stat(path)
        if entry is not None and entry.size != received:
            raise DropsUnavailable(
                f"Drops gave {received} bytes of '{_shown(path)}', which has {entry.size}",
                "Is somebody writing that file now? Otherwise a proxy on the way cuts answers off.",
            )

    def _refuse_web_page(self, answer: Answer, path: str) -> None:
        """Drops guesses the type from the name, so HTML under another name comes from something in between (a login page, a proxy)."""
        if answer.is_html and not path.lower().endswith((".html", ".htm")):
            raise _not_drops(self.address, answer)

    def _upload(self, path: str, data: bytes) -> bool:
        """Send the file; True when the server says it stored it, False when an earlier attempt turned out to have stored these very bytes."""
        folder, name = split_path(path)
        # Without the trailing slash the server glues folder and name together.
        form = {"path": escape_upload_path(folder if folder == "/" else folder + "/")}
        question = Question(_UPLOAD, form=form, file=(escape_upload_path(name), data), max_bytes=_MAX_ANSWER_BYTES)
        unclear = False

        def look(failure: NoAnswer) -> None:
            nonlocal unclear
            unclear = unclear or failure.may_have_arrived
            if unclear and self._holds(path, data):
                raise _Stored

        try:
            answer = self._connection.ask(question, on_failure=look)
        except _Stored:
            return False
        _refuse_refusals(answer, path)
        status = _upload_status(self.address, answer)
        if status == "EEXIST":
            if unclear and self._holds(path, data):
                return False
            if self._probe(path) is None:
                # Taken for true, this would lead from number to number, and the set be sent each time.
                raise DropsUnavailable(
                    f"Drops says that '{_shown(path)}' exists, and does not have it",
                    "Ask its owner to look at the server's log.",
                )
            raise AlreadyExists(f"'{_shown(path)}' already exists")
        if status != "ok":
            raise _upload_error(status, path)
        return True

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return self._download(path, len(data)) == data
        except (NotFound, InputError):
            return False

    def _compare(self, path: str, data: bytes) -> None:
        if self._holds(path, data):
            return
        self._connection.pause(1)  # the server may still be moving the file into place
        if not self._holds(path, data):
            raise DropsUnavailable(
                f"Drops accepted '{_shown(path)}' but does not hold the bytes that were sent",
                "Is the server's disk full? The file there is damaged and should be removed by its owner.",
            )


class _Stored(Exception):
    """An upload that got no answer has arrived nevertheless."""


def escape_search(folder: str) -> str:
    """A folder's path as ``/list/`` takes it: the server decodes ``%`` sequences and then reads the text as a glob.

    Special characters become ``?``, which every glob library reads the same way, as exactly one character; how a special character is quoted
    differs between them (braces, for instance, are expanded before brackets are read). The caller drops what else may match.
    """
    return "".join("%25" if char == "%" else "?" if char in _GLOB_SPECIAL else char for char in folder)


def escape_upload_path(text: str) -> str:
    """A folder or file name as ``/upload/`` takes it.

    The server decodes ``%`` sequences in both, so whatever else would be mangled on the way (quotes, a backslash, character
    references, control characters) travels as one.
    """
    return "".join(f"%{ord(char):02X}" if char in _ESCAPED_ON_UPLOAD else char for char in text)


def _checked_path(path: str) -> str:
    """As :func:`checked_path`; what no listing gives is neither read nor written."""
    path = checked_path(path)
    for step in path.split("/")[1:]:
        if step and not usable_name(step):
            raise UsageError(f"'{_shown(path)}' holds '..' behind a backslash")
    return path


def _shown(path: str) -> str:
    return f"/drops{path}"


def _entry(row: object, folder: str, *, any_folder: bool) -> Entry | None:
    """An entry of a listing, or None for one that is malformed or whose name no path may hold."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return None
    where, _, name = row["name"].rpartition("/")
    if not usable_name(name):
        return None
    if not any_folder and not ("/" + where.strip("/").replace("//", "/")).endswith(folder):
        return None
    mode = row.get("mode")
    linked_folder = isinstance(mode, int) and 0 <= mode < 1 << 32 and stat_module.S_ISDIR(mode)
    is_folder = row.get("is_dir") is True or linked_folder
    size = _number(row.get("size"))
    return Entry(
        name,
        join_path(folder, name),
        is_folder,
        0 if is_folder else max(0, int(size or 0)),
        _time(row),
        is_link=linked_folder and row.get("is_dir") is False,
    )


def _time(row: dict[str, object]) -> float:
    milliseconds = _number(row.get("mtimeMs"))
    if milliseconds is not None:
        return milliseconds / 1000
    try:
        moment = datetime.fromisoformat(str(row.get("mtime")))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _refuse_refusals(answer: Answer, path: str) -> None:
    """Raise for every status but 200."""
    if answer.status == 200:
        return
    if answer.status == 401:
        raise DropsDenied("Drops does not accept the user name and password", _CREDENTIALS_HINT)
    if answer.status == 403:
        raise DropsDenied(f"Drops forbids access to '{_shown(path)}'")
    if answer.status == 413:
        raise DropsRefused(
            f"'{_shown(path)}' is larger than the server in front of Drops accepts", "Ask its owner to raise the limit."
        )
    if 300 <= answer.status < 400:
        raise DropsRefused(
            f"Drops answered with a redirect to {_place(answer)}, which is not followed with credentials",
            "Correct DROPS_URL if that is the server.",
        )
    raise DropsRefused(
        f"Drops answered '{_shown(path)}' with status {answer.status}", "Is DROPS_URL the address of a Drops server?"
    )


def _place(redirect: Answer) -> str:
    try:
        target = urlsplit(redirect.headers.get("location", ""))
    except ValueError:
        return "an address that is none"
    return f"{target.scheme}://{target.hostname}" if target.hostname else "another path"


def _not_drops(url: str, answer: Answer) -> DropsUnavailable:
    what = "a web page" if answer.is_html else "something that is not an answer of Drops"
    return DropsUnavailable(
        f"{url} answered with {what}",
        "A login page of the network, or a proxy? Open the address in a browser, and check DROPS_URL.",
    )


def _upload_status(url: str, answer: Answer) -> str:
    """``ok``, or the error's code (``EEXIST``, ``ENOSPC``, ...)."""
    try:
        status = json.loads(answer.body)["status"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise _not_drops(url, answer) from None
    if isinstance(status, str):
        return status
    code = status.get("code") if isinstance(status, dict) else None
    return code if isinstance(code, str) and code != "ok" else "unknown"


def _upload_error(code: str, path: str) -> SegduoError:
    if code in ("ENOSPC", "EDQUOT"):
        return OutOfSpace(f"no room on Drops for '{_shown(path)}'", "Ask the server's owner for space.")
    if code in ("EACCES", "EPERM", "EROFS"):
        return DropsDenied(f"Drops may not write '{_shown(path)}' ({code})", "Choose another MASKS_ROOT.")
    return DropsError(f"Drops could not store '{_shown(path)}' ({code})")
