"""A Drops server for tests: real HTTP on loopback, with the quirks of the real one (``docs/drops.md``) and faults that can be switched on.

with DropsServer(tmp_path / "root", "ann", "secret") as server:
    server.put("/labdaq/a.tif", data)
    server.faults.status = 503           # until it is set back
    server.faults.times = 2              # or: for the next two requests only
    ... server.url, server.requests, server.files()
"""

from __future__ import annotations

import base64
import contextlib
import json
import mimetypes
import os
import re
import socket
import stat
import sys
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_to_bytes

INDEX_PAGE = b"<!DOCTYPE html><html><head><title>drops</title></head><body>files</body></html>"


@dataclass
class Faults:
    """What goes wrong. Every field but the first two is a fault; ``clear()`` ends them all.

    ``routes``: which requests are hit (``/list/``, ``/filez/``, ``/upload/``), empty for all. ``times``: how many more, -1 for no end.
    """

    routes: tuple[str, ...] = ()
    times: int = -1
    hang_up: bool = False  # read the request, close without an answer
    hang_up_after_work: bool = False  # do what was asked, then close without an answer
    status: int = 0
    retry_after: str = ""
    slow_seconds: float = 0.0
    truncate_download: int = -1  # send that many bytes of those announced
    truncate_stored: int = -1  # store that many bytes of an upload, and say "ok"
    corrupt_stored: bool = False
    lose_stored: bool = False  # say "ok" and store nothing
    rival: bytes | None = None  # another writer takes the name just before an upload
    upload_status: object = None  # the answer's "status" instead of the true one
    web_page: bool = False  # a login page with status 200
    redirect_to: str = ""
    listing: object = None  # the answer of /list/ instead of the true one

    def clear(self) -> None:
        for name, value in vars(Faults()).items():
            setattr(self, name, value)


@dataclass(frozen=True)
class Request:
    """One request as the server saw it. ``body``: parsed JSON, or the form's fields and ``filename``."""

    method: str
    path: str
    authorized: bool
    body: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class DropsServer:
    """Serves ``root``. ``double_slash``: names in listings begin with two slashes, as after a start with another root spelling."""

    def __init__(
        self, root: Path, username: str = "ann", password: str = "secret", *, double_slash: bool = False
    ) -> None:
        self.root = root
        self.username = username
        self.password = password
        self.double_slash = double_slash
        self.faults = Faults()
        self.requests: list[Request] = []
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        root.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> DropsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make ``segduo`` use this server."""
        return {
            "SEGDUO_DROPS_URL": self.url,
            "SEGDUO_DROPS_USERNAME": self.username,
            "SEGDUO_DROPS_PASSWORD": self.password,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def start(self) -> None:
        """Listen; after :meth:`stop` on the same port again."""
        handler = type("Handler", (_Handler,), {"drops": self})
        self._server = _Listener(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on, and end those that clients keep open."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def put(self, path: str, data: bytes, *, modified: float | None = None) -> Path:
        """Place a file behind the server's back."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        if modified is not None:
            os.utime(file, (modified, modified))
        return file

    def files(self) -> dict[str, bytes]:
        """Every file there is, by its path on the server."""
        return {
            "/" + str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()
        }

    def uploads(self) -> list[Request]:
        return [request for request in self.requests if request.path == "/upload/"]

    def fault(self, route: str) -> Faults:
        """The faults that hit this request."""
        with self._lock:
            faults = self.faults
            if faults.times == 0 or (faults.routes and route not in faults.routes):
                return Faults()
            if faults.times > 0 and vars(faults) != vars(Faults(times=faults.times, routes=faults.routes)):
                faults.times -= 1
            return Faults(**vars(faults))


class _Listener(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        # A client that gave up, or stop(), is no news; a defect of this module is.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    drops: DropsServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.drops.connections.add(self.connection)

    def finish(self) -> None:
        self.drops.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet: ``DropsServer.requests`` is the log."""

    def do_GET(self) -> None:
        self.drops.requests.append(Request("GET", self.path, "Authorization" in self.headers))
        # The server reads percent-encoded bytes as Latin-1, so UTF-8 names are never found here.
        file = Path(f"{self.drops.root}{unquote_to_bytes(self.path).decode('latin-1')}")
        if file.is_file():
            self.send_file(file, file.read_bytes(), -1)
        elif self.path.endswith("/"):
            self.answer(200, INDEX_PAGE, "text/html; charset=UTF-8")
        else:
            self.answer(301, b"", "text/plain", {"Location": self.path + "/"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        authorized = self.authorized()
        form = _form(self.headers.get("Content-Type", ""), body)
        seen = {name: value for name, value in form.items() if isinstance(value, str)}
        self.drops.requests.append(Request("POST", self.path, authorized, seen, dict(self.headers)))
        faults = self.drops.fault(self.path)
        if self.disturbed(faults):
            return
        if not authorized:
            self.answer(401, b"Unauthorized", "text/plain", {"WWW-Authenticate": "Basic realm=Authorization Required"})
        elif self.path == "/list/":
            self.list_folder(form.get("search"), faults)
        elif self.path == "/filez/":
            self.send_named(str(form.get("file")), faults)
        elif self.path == "/upload/":
            self.store(form, faults)
        else:
            self.answer(404, b"Cannot POST", "text/html; charset=utf-8")

    def authorized(self) -> bool:
        expected = base64.b64encode(f"{self.drops.username}:{self.drops.password}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def disturbed(self, faults: Faults) -> bool:
        time.sleep(faults.slow_seconds)
        if faults.hang_up:
            self.close_connection = True
        elif faults.web_page:
            self.answer(200, b"<html><body>Please log in to the network</body></html>", "text/html")
        elif faults.redirect_to:
            self.answer(302, b"", "text/plain", {"Location": faults.redirect_to})
        elif faults.status:
            extra = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            self.answer(faults.status, b"<html>gateway</html>", "text/html", extra)
        else:
            return False
        return True

    def list_folder(self, search: object, faults: Faults) -> None:
        if faults.listing is not None:
            self.answer_json(faults.listing)
            return
        if search == "":
            self.answer_json({})
            return
        slash = "//" if self.drops.double_slash else "/"
        rows = []
        for path in _glob(self.drops.root, unescape(str(search)) + "/*"):
            facts = path.stat()
            rows.append(
                {
                    "dev": facts.st_dev,
                    "mode": facts.st_mode,
                    "ino": facts.st_ino,
                    "size": facts.st_size,
                    "mtimeMs": facts.st_mtime * 1000,
                    "mtime": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(facts.st_mtime)) + ".000Z",
                    "name": slash + str(path.relative_to(self.drops.root)),
                    "is_dir": stat.S_ISDIR(path.lstat().st_mode),
                }
            )
        self.answer_json(rows)

    def send_named(self, name: str, faults: Faults) -> None:
        steps = name.split("/")
        file = Path(f"{self.drops.root}/{name}")
        if ".." in steps:
            self.answer(403, b"Forbidden", "text/html; charset=utf-8")
        elif any(step.startswith(".") for step in steps) or not file.is_file():
            self.answer(404, b"<pre>Not Found</pre>", "text/html; charset=utf-8")
        else:
            self.send_file(file, file.read_bytes(), faults.truncate_download)

    def send_file(self, file: Path, data: bytes, truncate: int) -> None:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        extra = {"Last-Modified": formatdate(file.stat().st_mtime, usegmt=True), "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            extra["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self.answer(206, data[first : last + 1], kind, extra)
        else:
            self.answer(200, data, kind, extra, truncate=truncate)

    def store(self, form: dict[str, str | bytes], faults: Faults) -> None:
        target = Path(f"{self.drops.root}{unescape(str(form['path']) + str(form['filename']))}")
        # The real server writes wherever `..` leads; a test must not.
        if not Path(os.path.normpath(target)).is_relative_to(self.drops.root.parent):
            raise AssertionError(f"an upload left the test's folder: {target}")
        data = form["file"]
        assert isinstance(data, bytes)
        if faults.truncate_stored >= 0:
            data = data[: faults.truncate_stored]
        if faults.corrupt_stored:
            data = bytes([data[0] ^ 1]) + data[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        if faults.rival is not None and not target.exists():
            target.write_bytes(faults.rival)
        status: object = "ok"
        if not faults.lose_stored and faults.upload_status is None:
            try:
                with target.open("wb" if "clobber" in form else "xb") as file:
                    file.write(data)
            except FileExistsError:
                status = {"errno": -17, "code": "EEXIST", "syscall": "link", "dest": str(target)}
        if faults.upload_status is not None:
            status = faults.upload_status
        if faults.hang_up_after_work:
            self.close_connection = True
        else:
            self.answer_json({"status": status})

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), "application/json; charset=utf-8")

    def answer(
        self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None, *, truncate: int = -1
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if truncate < 0 else body[:truncate])
        if truncate >= 0:
            self.close_connection = True


def unescape(text: str) -> str:
    """JavaScript's ``unescape``: ``%XX`` and ``%uXXXX`` are code points; anything else stays."""
    return re.sub(r"%(?:u([0-9a-fA-F]{4})|([0-9a-fA-F]{2}))", lambda match: chr(int(match[1] or match[2], 16)), text)


def _form(kind: str, body: bytes) -> dict[str, str | bytes]:
    if kind.startswith("application/json"):
        parsed = json.loads(body)
        return {name: value for name, value in parsed.items() if isinstance(value, str)}
    boundary = re.search(r'boundary="?([^";]+)', kind)
    fields: dict[str, str | bytes] = {}
    for part in body.split(b"--" + boundary[1].encode())[1:-1] if boundary else []:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode("utf-8")
        name = re.search(r'\bname="([^"]*)"', text)
        file = re.search(r'filename="(.*)"', text)
        content = content.removesuffix(b"\r\n")
        if file:
            # As the real form parser does: only what follows a backslash, and character references are decoded.
            original = file[1][file[1].rfind("\\") + 1 :].replace("%22", '"')
            fields["filename"] = re.sub(r"&#(\d{4});", lambda match: chr(int(match[1])), original)
            fields["file"] = content
        elif name:
            fields[name[1]] = content.decode("utf-8")
    return fields


def _glob(root: Path, pattern: str) -> list[Path]:
    """Match below ``root`` as node's glob does: braces first, then step by step; wildcards match no leading dot."""
    found: dict[Path, None] = {}
    for plain in _braces(pattern):
        folders = [root]
        for step in [step for step in plain.split("/") if step]:
            matcher = re.compile(_step_regex(step), re.DOTALL)
            folders = [
                child
                for folder in folders
                if folder.is_dir()
                for child in sorted(folder.iterdir())
                if matcher.fullmatch(child.name) and (not child.name.startswith(".") or step.startswith("."))
            ]
        found.update(dict.fromkeys(folders))
    return list(found)


def _braces(pattern: str) -> list[str]:
    match = re.search(r"(?<!\\)\{([^{}]*,[^{}]*)\}", pattern)
    if not match:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [expanded for choice in match[1].split(",") for expanded in _braces(head + choice + tail)]


def _step_regex(step: str) -> str:
    out, index = "", 0
    while index < len(step):
        char = step[index]
        group = re.match(r"([?*+@!])\(([^()]*)\)", step[index:])
        characters = re.match(r"\[([!^]?)(\]?[^\]]*)\]", step[index:])
        if group:
            body = "|".join(_step_regex(choice) for choice in group[2].split("|"))
            out += f"(?!(?:{body})$).*" if group[1] == "!" else f"(?:{body})" + group[1].replace("@", "")
            index += group.end()
        elif char == "[" and characters:
            inside = re.sub(r"([\\\[\]^])", r"\\\1", characters[2])
            out += ("[^" if characters[1] else "[") + inside + "]"
            index += characters.end()
        elif char == "\\" and index + 1 < len(step):
            out += re.escape(step[index + 1])
            index += 2
        else:
            out += {"*": ".*", "?": "."}.get(char) or re.escape(char)
            index += 1
    return out
