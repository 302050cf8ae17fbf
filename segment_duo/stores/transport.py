"""One HTTP conversation with a server that asks for a password: time limits, retries, and nothing secret in any text.

The store above decides what an answer means; this module gets one, or says in its own words why there is none. Redirects are not
followed, so the credentials go to the configured server or nowhere. Texts of the HTTP library never leave this module, for
its exceptions hold the request with its headers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from segment_duo import __version__
from segment_duo.errors import ConfigError, DropsDenied, DropsUnavailable
from segment_duo.waiting import STILL_WAITING, StillWaiting

if TYPE_CHECKING:
    import requests

    from segment_duo.stores.pacing import Clock

_CHUNK_BYTES = 256 * 1024
_AWAY_HINT = "Is the network (VPN) up? `segduo doctor` checks the connection."
_BUSY_HINT = "Try again in a while, with fewer commands at once."
_GATEWAY_HINT = "The network is up: the server behind the gateway is not. Ask its owner, or try again in a while."
_RETRIED_STATUS = {
    408: _AWAY_HINT,
    429: _BUSY_HINT,
    500: "The network is up: the server itself fails. Ask its owner to look at its log and its disk.",
    502: _GATEWAY_HINT,
    503: "The network is up: the server is overloaded or in maintenance. Try again in a while, or ask its owner.",
    504: _GATEWAY_HINT,
}
"""Answers worth another attempt, and what to tell when none helps."""
_EVERY_ROUTE = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for the server, and how often to try.

    Looking up the server's name may take ``look_up_seconds`` (the system's own patience is half a minute and more).

    Pauses begin at ``first_pause`` seconds and double, each shortened at random by up to half, so that many clients do not come back
    at once. ``read_seconds`` is the longest silence. A request and its answer together may take ``answer_seconds`` plus their size divided
    by ``slowest_rate`` (bytes a second), so that a trickle of bytes cannot hold a command for ever.

    A server that was found dead is known to be down for ``known_down_seconds``, longer than finding it out takes: then each call makes one
    attempt and bears a silence of ``known_down_read_seconds`` only, so that a batch does not wait for it image by image.
    """

    look_up_seconds: float = 10.0
    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    answer_seconds: float = 120.0
    slowest_rate: float = 20_000.0
    attempts: int = 4
    first_pause: float = 0.5
    longest_pause: float = 30.0
    known_down_seconds: float = 300.0
    known_down_read_seconds: float = 5.0

    def longest(self, size: int = 0) -> float:
        """Seconds after which a question is answered or given up, when it and its answers have ``size`` bytes in all, and the server has one
        address."""
        attempt = self.look_up_seconds + self.connect_seconds + self.answer_seconds + size / self.slowest_rate
        return self.attempts * attempt + (self.attempts - 1) * self.longest_pause


@dataclass(frozen=True, slots=True)
class Question:
    """One POST: JSON, or a form with a file (name, bytes). ``max_bytes``: longer answers come back cut; None for no limit."""

    route: str
    json: dict[str, str] | None = None
    form: dict[str, str] | None = None
    file: tuple[str, bytes] | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer.

    Attributes:
        status: any but those worth a retry; ``body`` is read for 200 only.
        headers: names in lower case.
        announced: its Content-Length.
        cut: it is longer than the question's limit, and ``body`` is empty.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    announced: int | None
    cut: bool

    @property
    def is_html(self) -> bool:
        return "html" in self.headers.get("content-type", "").lower()


class NoAnswer(Exception):
    """An attempt without a usable answer. The text continues the sentence "Drops (URL) ..." and holds nothing of the request.

    ``retried``: another attempt is worth it; ``may_have_arrived``: the server may have done what it was asked.
    """

    def __init__(
        self,
        message: str,
        hint: str = _AWAY_HINT,
        *,
        retried: bool = True,
        may_have_arrived: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.retried = retried
        self.may_have_arrived = may_have_arrived
        self.retry_after = retry_after


class Connection:
    """Asks one server. Usable from several threads.

    Args:
        url: the server's address, with a path when it sits below one; without credentials in it.
        username, password: sent with HTTP Basic authentication (UTF-8).
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
        patience: Patience,
        sleep: Callable[[float], None],
        waiting: StillWaiting,
    ) -> None:
        self.url = _checked_url(url)
        if not username or not password:
            raise DropsDenied("no user name or no password for Drops", "Set USERNAME and PASSWORD in .env.")
        self._credentials = (username.encode("utf-8"), password.encode("utf-8"))
        self._patience = patience
        self._sleep = sleep
        self._waiting = waiting
        self._sessions = threading.local()  # a requests session is not safe to share between threads
        self._down_until: dict[str, float] = {}  # by route: a server may list and no longer store

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    def ask(self, question: Question, *, on_failure: Callable[[NoAnswer], None] | None = None) -> Answer:
        """One answer, after as many attempts as are worth it.

        ``on_failure`` is called after every failed attempt, and may raise to end the matter.

        Raises:
            DropsUnavailable: no attempt got an answer.
            ConfigError: the address, or a proxy's, cannot be used.
        """
        known_down = time.monotonic() < max(self._down_until.get(key, 0.0) for key in (question.route, _EVERY_ROUTE))
        attempts = 1 if known_down else self._patience.attempts
        silence = self._patience.read_seconds
        if known_down:
            silence = min(silence, self._patience.known_down_read_seconds)
        session, clock = self._session()
        attempt = 1

        def what() -> str:
            which = f", attempt {attempt} of {attempts}" if attempts > 1 else ""
            came = f" ({clock.received} bytes came so far)" if clock.received else ""
            return f"{STILL_WAITING} Drops ({self.url}){which}{came}"

        while True:
            try:
                with self._waiting.during(what):
                    clock.start(silence)
                    answer = self._ask_once(question, session, clock)
            except NoAnswer as failure:
                last = attempt == attempts or not failure.retried
                if not last:
                    with self._waiting.during(what):
                        self.pause(attempt, failure.retry_after)
                if on_failure:
                    on_failure(failure)
                if last:
                    if not known_down:
                        where = question.route if failure.may_have_arrived else _EVERY_ROUTE
                        self._down_until[where] = time.monotonic() + self._patience.known_down_seconds
                    raise DropsUnavailable(f"Drops ({self.url}) {failure}", failure.hint) from None
                attempt += 1
            else:
                for key in (question.route, _EVERY_ROUTE):
                    self._down_until.pop(key, None)
                return answer

    def pause(self, attempt: int, asked: float | None = None) -> None:
        """Wait after attempt number ``attempt`` (from 1), at least for as long as the server ``asked`` for within reason."""
        planned = self._patience.first_pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        self._sleep(min(max(planned, asked or 0.0), self._patience.longest_pause))

    def _ask_once(self, question: Question, session: requests.Session, clock: Clock) -> Answer:
        import requests
        from urllib3.exceptions import HTTPError

        file = question.file
        try:
            with session.post(
                self.url + question.route,
                json=question.json,
                data=question.form,
                files={"file": (*file, "application/octet-stream")} if file else None,
                timeout=(self._patience.connect_seconds, clock.silence),
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code in _RETRIED_STATUS:
                    raise NoAnswer(
                        f"failed with status {response.status_code}",
                        _RETRIED_STATUS[response.status_code],
                        # A gateway's 502 or 504 can stand for an upload that the server behind it has finished.
                        may_have_arrived=response.status_code != 429,
                        retry_after=_whole_number(response.headers.get("Retry-After", "")),
                    )
                return _receive(response, question.max_bytes)
        except (requests.RequestException, HTTPError) as error:
            # Not chained: the request inside the exception holds the credentials.
            raise _explained(error, self._patience, clock) from None

    def _session(self) -> tuple[requests.Session, Clock]:
        pair: tuple[requests.Session, Clock] | None = getattr(self._sessions, "pair", None)
        if pair is None:
            import requests
            from requests.auth import HTTPBasicAuth

            from segment_duo.stores.pacing import Clock, PacedAdapter

            class Session(requests.Session):
                def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
                    """None: even when it does not follow a redirect, the library prepares to, and fails on a malformed one."""
                    return None

            session = Session()
            # Set explicitly, which also keeps requests from looking the host up in ~/.netrc.
            session.auth = HTTPBasicAuth(*self._credentials)
            session.headers.update({"User-Agent": f"segduo/{__version__}", "Accept-Encoding": "identity"})
            clock = Clock(self._patience.answer_seconds, self._patience.slowest_rate)
            for scheme in ("http://", "https://"):
                session.mount(scheme, PacedAdapter(clock, self._patience.look_up_seconds))
            pair = self._sessions.pair = session, clock
        return pair


def _receive(response: requests.Response, max_bytes: int | None) -> Answer:
    from urllib3.exceptions import ProtocolError

    announced = _whole_number(response.headers.get("Content-Length", ""))
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.status_code != 200:
        return Answer(response.status_code, headers, b"", announced, cut=False)
    cut = Answer(200, headers, b"", announced, cut=True)
    if max_bytes is not None and (announced or 0) > max_bytes:
        return cut
    encoded = "content-encoding" in headers
    body = bytearray()
    try:
        # The last byte ends it: what a server does after that can take nothing away from a whole answer.
        while encoded or len(body) != announced:
            part = response.raw.read1(_CHUNK_BYTES, decode_content=True)
            if not part:
                break
            body += part
            if max_bytes is not None and len(body) > max_bytes:
                return cut
    except ProtocolError:
        of = f" of {announced}" if announced is not None else ""
        raise NoAnswer(f"broke off its answer after {len(body)}{of} bytes") from None
    if not body and announced is None and "transfer-encoding" not in headers:
        # A connection that closes within the headers looks like an answer without a length and without a body.
        raise NoAnswer("broke off its answer before its length was told")
    if not encoded and announced is not None and len(body) != announced:
        raise NoAnswer(f"broke off its answer after {len(body)} of {announced} bytes")
    return Answer(200, headers, bytes(body), announced, cut=False)


def _checked_url(url: str) -> str:
    hint = "It looks like https://drops.example.org/."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("DROPS_URL is not a web address", hint) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "DROPS_URL holds a user name or password", "Put them in USERNAME and PASSWORD, where they are kept secret."
        )
    usable = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not usable or parts.query or parts.fragment:
        raise ConfigError(f"DROPS_URL is not a usable web address: '{url}'", hint)
    return url.rstrip("/")


def _whole_number(header: str) -> int | None:
    return int(header) if header.isascii() and header.isdigit() and len(header) < 20 else None


def _explained(error: Exception, patience: Patience, clock: Clock) -> NoAnswer | ConfigError:
    """What went wrong, in words of our own."""
    from requests import exceptions
    from urllib3.exceptions import NameResolutionError, NewConnectionError
    from urllib3.exceptions import TimeoutError as Urllib3Timeout

    if isinstance(error, exceptions.InvalidURL | exceptions.InvalidSchema | exceptions.MissingSchema):
        return ConfigError("DROPS_URL or a proxy variable is not a usable web address")
    if isinstance(error, exceptions.SSLError):
        hint = "Name a certificate of the lab's own with REQUESTS_CA_BUNDLE."
        return NoAnswer("has a certificate that is not trusted", hint, retried=False, may_have_arrived=False)
    reason = getattr(error.args[0], "reason", None) if error.args else None
    known: tuple[tuple[bool, NoAnswer], ...] = (
        (
            isinstance(error, exceptions.ProxyError),
            NoAnswer("cannot be reached through the proxy", "Check HTTPS_PROXY and NO_PROXY."),
        ),
        (
            isinstance(error, exceptions.ConnectTimeout),
            NoAnswer(f"did not accept a connection within {patience.connect_seconds:g} s", may_have_arrived=False),
        ),
        (clock.left <= 0, NoAnswer(f"answered too slowly ({clock.received} bytes in {clock.limit:.0f} s)")),
        (
            isinstance(error, exceptions.Timeout | Urllib3Timeout) or _ended_by(TimeoutError, error),
            NoAnswer(f"did not answer within {clock.silence:g} s"),
        ),
        (
            isinstance(reason, NameResolutionError),
            NoAnswer("has a name that cannot be looked up", may_have_arrived=False),
        ),
        (isinstance(reason, NewConnectionError), NoAnswer("refused the connection", may_have_arrived=False)),
    )
    return next((failure for applies, failure in known if applies), NoAnswer("broke off the connection"))


def _ended_by(kind: type[BaseException], error: BaseException) -> bool:
    """Whether an exception of this kind is at the bottom of ``error``; the libraries put it into the arguments of their own."""
    while error.args:
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None:
            break
        error = inner
    return isinstance(error, kind)
