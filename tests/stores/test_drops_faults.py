"""The Drops client against a network that trickles, stalls, resets, cuts and lies: every call ends in time, with the right bytes or a clear error."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segment_duo.errors import AlreadyExists, DropsError, DropsUnavailable, UsageError
from segment_duo.library.versions import list_versions, save_version
from segment_duo.stores.cache import ContentCache
from segment_duo.stores.drops import DropsStore
from segment_duo.stores.transport import Patience
from segment_duo.waiting import StillWaiting
from tests.drops_server import DropsServer
from tests.fault_proxy import KINDS, Fault, FaultProxy

SHORT = Patience(
    connect_seconds=2, read_seconds=0.2, answer_seconds=0.5, slowest_rate=1e6, attempts=2, first_pause=0.001, longest_pause=0.01,
    known_down_seconds=0,
)  # fmt: skip
SLACK_SECONDS = 20.0
"""What a loaded machine may add; the faults of the proxy last longer."""
IMAGE = bytes(range(256)) * 3


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DropsServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with DropsServer(tmp_path / "drops") as server:
        server.put("/labdaq/a.tif", IMAGE)
        yield server


@pytest.fixture
def proxy(server: DropsServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as proxy:
        yield proxy


def open_store(proxy: FaultProxy, patience: Patience = SHORT, cache: Path | None = None) -> DropsStore:
    kept = ContentCache(cache, 1 << 20) if cache else None
    return DropsStore(proxy.url, "ann", "secret", kept, patience=patience)


# Each fault alone ---------------------------------------------------------------------------------------------------------


def test_an_answer_that_trickles_to_its_end_in_time_is_taken(server: DropsServer, proxy: FaultProxy) -> None:
    server.put("/labdaq/small", b"0123456789" * 6)
    patience = Patience(connect_seconds=5, read_seconds=5, answer_seconds=60, attempts=1)
    proxy.always = Fault("trickle", at=200)
    assert open_store(proxy, patience).read("/labdaq/small") == b"0123456789" * 6


def test_the_last_byte_ends_an_answer_whatever_the_server_does_then(server: DropsServer, proxy: FaultProxy) -> None:
    """Everything is there, and the connection stays open without another byte."""
    proxy.always = Fault("stall", at=10_000)
    store = open_store(proxy, Patience(connect_seconds=5, read_seconds=25, answer_seconds=25, attempts=1))
    started = time.monotonic()
    assert store.read("/labdaq/a.tif") == IMAGE
    assert time.monotonic() - started < 25


@pytest.mark.parametrize(
    "fault",
    [
        Fault("trickle"),
        Fault("trickle", at=240),
        Fault("endless_body"),
        Fault("endless_headers"),
        Fault("endless_continue"),
    ],
    ids=lambda fault: f"{fault.kind} from {fault.at}",
)
def test_a_trickle_of_bytes_is_not_waited_for_beyond_its_time(proxy: FaultProxy, fault: Fault) -> None:
    proxy.always = fault
    started = time.monotonic()
    with pytest.raises(DropsUnavailable, match="too slowly"):
        open_store(proxy).read("/labdaq/a.tif")
    assert time.monotonic() - started < SHORT.longest(len(IMAGE)) + SLACK_SECONDS


@pytest.mark.parametrize("at", [0, 30, 240], ids=["before the headers", "in the headers", "in the body"])
def test_a_silent_server_is_told_with_the_time_it_was_given(proxy: FaultProxy, at: int) -> None:
    proxy.always = Fault("stall", at=at)
    with pytest.raises(DropsUnavailable, match=r"did not answer within 0\.2 s"):
        open_store(proxy).read("/labdaq/a.tif")


def test_an_upload_that_nobody_takes_ends(proxy: FaultProxy) -> None:
    """The server does not read: its window fills up, and sending stalls."""
    proxy.always = Fault("no_read")
    with pytest.raises(DropsUnavailable, match="did not answer"):
        open_store(proxy).create("/labdaq/masks/a.pkl", b"x" * 30_000_000)


def test_a_slow_line_may_take_its_time_for_a_large_upload(server: DropsServer, proxy: FaultProxy) -> None:
    """Longer in all than the limits for connecting and for a silence: each piece has its own, and the whole gets more with its size."""
    data = bytes(12_000_000)  # more than the buffers of the system hold
    proxy.read_pause = 0.01
    patience = Patience(connect_seconds=0.7, read_seconds=25, answer_seconds=60, attempts=1)
    started = time.monotonic()
    open_store(proxy, patience).create("/labdaq/masks/a.pkl", data)
    assert server.files()["/labdaq/masks/a.pkl"] == data
    assert time.monotonic() - started > 1.4


def test_an_answer_announced_shorter_than_the_file_is_not_taken_for_the_file(
    server: DropsServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    store = open_store(proxy, cache=tmp_path / "cache")
    proxy.faults = [Fault(), Fault("announce_less", at=100)]
    with pytest.raises(DropsUnavailable, match="which has 768"):
        store.read("/labdaq/a.tif")
    assert store.read("/labdaq/a.tif") == IMAGE


@pytest.mark.parametrize("at", [17, 30, 60])
def test_a_connection_that_closes_within_the_headers_is_no_empty_file(proxy: FaultProxy, at: int) -> None:
    store = open_store(proxy)
    proxy.always = Fault("close", at)
    with pytest.raises(DropsUnavailable, match="broke off its answer"):
        store.read("/labdaq/a.tif")
    proxy.always = Fault()
    assert store.read("/labdaq/a.tif") == IMAGE


# Any faults, any call -----------------------------------------------------------------------------------------------------

faults = st.builds(Fault, st.sampled_from(KINDS), st.integers(0, 1200), st.sampled_from([0.003, 0.02]))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(faults, min_size=1, max_size=4))
@pytest.mark.parametrize("call", ["list", "stat", "read", "read_cached", "glob", "create", "save"])
def test_every_call_ends_in_time_with_the_right_bytes_or_a_clear_error(
    server: DropsServer, proxy: FaultProxy, tmp_path: Path, call: str, plan: list[Fault]
) -> None:
    for path in server.files():
        if path != "/labdaq/a.tif":
            (server.root / path.lstrip("/")).unlink()
    cache = tmp_path / f"cache-{time.monotonic_ns()}"
    store = open_store(proxy, cache=cache if call == "read_cached" else None)
    data = b"masks " * 50
    proxy.faults = list(plan)
    problem: DropsError | None = None
    started = time.monotonic()
    try:
        if call == "list":
            assert [(entry.name, entry.size) for entry in store.list("/labdaq")] == [("a.tif", len(IMAGE))]
        elif call == "stat":
            entry = store.stat("/labdaq/a.tif")
            assert entry is not None
            assert entry.size == len(IMAGE)
        elif call in ("read", "read_cached"):
            if call == "read_cached" or all(fault.kind != "announce_less" for fault in plan):
                assert store.read("/labdaq/a.tif") == IMAGE
        elif call == "glob":
            assert [entry.path for entry in store.glob("/labdaq/*.tif")] == ["/labdaq/a.tif"]
        elif call == "create":
            store.create("/labdaq/new.pkl", data)
            assert server.files()["/labdaq/new.pkl"] == data
        else:
            version = save_version(store, "/labdaq", "a", "", data)
            assert (version.path, server.files()[version.path]) == ("/labdaq/a.pkl", data)
    except DropsError as error:
        problem = error
    took = time.monotonic() - started
    proxy.faults = []
    assert problem is None or (problem.message and problem.hint)
    # At most one listing, one upload, and looks between its attempts.
    assert took < 5 * SHORT.longest(len(IMAGE)) + SLACK_SECONDS
    made = {path: content for path, content in server.files().items() if path != "/labdaq/a.tif"}
    assert set(made.values()) <= {data}
    assert len(made) <= 1
    # Nothing wrong stays behind for the calls that follow.
    after = open_store(proxy, Patience(), cache=cache if call == "read_cached" else None)
    assert after.read("/labdaq/a.tif") == IMAGE
    assert "a.tif" in [entry.name for entry in store.list("/labdaq")]


# Words and known-down -----------------------------------------------------------------------------------------------------


def test_whoever_waits_hears_which_attempt_it_is(server: DropsServer, proxy: FaultProxy) -> None:
    told: list[str] = []
    patience = Patience(read_seconds=0.6, attempts=3, first_pause=0.01)
    store = DropsStore(proxy.url, "ann", "secret", patience=patience, waiting=StillWaiting(told.append, 0.1))
    proxy.always = Fault("stall")
    with pytest.raises(DropsUnavailable):
        store.list("/labdaq")
    assert told[0] == f"still waiting for Drops ({proxy.url}), attempt 1 of 3"
    assert told[-1] == f"still waiting for Drops ({proxy.url}), attempt 3 of 3"
    proxy.always = Fault("trickle", at=900)
    told.clear()
    DropsStore(proxy.url, "ann", "secret", patience=Patience(), waiting=StillWaiting(told.append, 0.05)).read(
        "/labdaq/a.tif"
    )
    assert "bytes came so far" in told[-1]


def test_quick_answers_are_not_talked_about(server: DropsServer) -> None:
    told: list[str] = []
    store = DropsStore(server.url, "ann", "secret", waiting=StillWaiting(told.append, 60))
    store.read("/labdaq/a.tif")
    assert told == []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], list[str]]]:
    """Host names and what looking them up gives."""
    known: dict[str, Callable[[], list[str]]] = {}
    original = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in known:
            return original(host, port, *arguments, **options)
        return [info for address in known[host]() for info in original(address, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("NO_PROXY", "*")
    return known


def test_a_look_up_that_never_ends_is_given_up(names: dict[str, Callable[[], list[str]]]) -> None:
    ended = threading.Event()
    names["drops.test"] = lambda: ["127.0.0.1"] if ended.wait(120) else []
    patience = replace(SHORT, look_up_seconds=0.1)
    started = time.monotonic()
    with pytest.raises(DropsUnavailable, match="has a name that cannot be looked up"):
        DropsStore("http://drops.test:9", "ann", "secret", patience=patience).list("/labdaq")
    assert time.monotonic() - started < 60
    ended.set()


def test_a_server_with_a_dead_address_is_reached_by_the_next(
    server: DropsServer, names: dict[str, Callable[[], list[str]]]
) -> None:
    names["drops.test"] = lambda: ["127.0.0.9", "127.0.0.1"]
    store = DropsStore(server.url.replace("127.0.0.1", "drops.test"), "ann", "secret")
    assert store.read("/labdaq/a.tif") == IMAGE


def test_many_short_waits_are_one_wait_to_the_user() -> None:
    told: list[str] = []
    heard = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        heard.set()

    waiting = StillWaiting(tell, 0.2)
    until = time.monotonic() + SLACK_SECONDS
    while not heard.is_set() and time.monotonic() < until:
        with waiting.during(lambda: "still waiting"):
            time.sleep(0.01)
    assert told == ["still waiting"]


def test_a_server_found_silent_is_waited_for_once_and_then_only_shortly(proxy: FaultProxy) -> None:
    patience = Patience(read_seconds=2, attempts=1, known_down_seconds=600, known_down_read_seconds=1)
    store = open_store(proxy, patience)

    def list_silent() -> str:
        proxy.always = Fault("stall")
        with pytest.raises(DropsUnavailable) as caught:
            store.list("/labdaq")
        proxy.always = Fault()
        return caught.value.message.partition(" within ")[2]

    assert (list_silent(), list_silent()) == ("2 s", "1 s")
    # An answer on another route says nothing about this one: a server may list and no longer store.
    assert store.read("/labdaq/a.tif") == IMAGE
    assert list_silent() == "1 s"
    assert store.list("/labdaq")
    assert list_silent() == "2 s"


def test_a_server_known_to_be_down_is_asked_once_a_call(proxy: FaultProxy) -> None:
    store = open_store(proxy, Patience(read_seconds=0.2, attempts=3, first_pause=0.001))
    proxy.always = Fault("stall")
    for _ in range(3):
        with pytest.raises(DropsUnavailable):
            store.list("/labdaq")
    assert len(proxy.requests) == 3 + 1 + 1


def test_known_down_lasts_longer_than_finding_out() -> None:
    patience = Patience()
    assert patience.known_down_seconds > patience.attempts * (patience.read_seconds + patience.connect_seconds)
    assert patience.known_down_read_seconds < 10


# What a server says that is not so ----------------------------------------------------------------------------------------


def test_a_server_that_says_exists_to_every_name_is_asked_once(server: DropsServer) -> None:
    server.faults.upload_status = {"errno": -17, "code": "EEXIST"}
    store = DropsStore(server.url, "ann", "secret", patience=SHORT)
    with pytest.raises(DropsUnavailable, match=r"says that '/drops/masks/a\.pkl' exists, and does not have it"):
        save_version(store, "/masks", "a", "", b"set")
    assert len(server.uploads()) == 1
    server.faults.clear()
    server.put("/masks/a.pkl", b"theirs")
    with pytest.raises(AlreadyExists):
        store.create("/masks/a.pkl", b"set")


@pytest.mark.parametrize(
    ("status", "hint"), [(500, "server itself"), (502, "gateway"), (503, "maintenance"), (504, "gateway")]
)
def test_a_failing_server_is_not_blamed_on_the_network(server: DropsServer, status: int, hint: str) -> None:
    server.faults.status = status
    with pytest.raises(DropsUnavailable, match=f"status {status}") as caught:
        DropsStore(server.url, "ann", "secret", patience=SHORT).list("/labdaq")
    assert hint in caught.value.hint
    assert "VPN" not in caught.value.hint


def test_names_with_a_backslash_are_one_rule_for_reading_listing_and_saving(server: DropsServer) -> None:
    store = DropsStore(server.url, "ann", "secret", patience=SHORT)
    server.put("/labdaq/x\\y.tif", IMAGE)
    assert [entry.name for entry in store.glob("/labdaq/x*.tif")] == ["x\\y.tif"]
    assert store.read("/labdaq/x\\y.tif") == IMAGE
    saved = save_version(store, "/labdaq/ma\\sks", "x\\y", "", b"set")
    assert [version.path for version in list_versions(store, "/labdaq/ma\\sks", "x\\y")] == [saved.path]
    server.put("/labdaq/..\\z.tif", IMAGE)
    assert "..\\z.tif" not in [entry.name for entry in store.list("/labdaq")]
    for call in (store.read, store.stat, store.list, lambda path: store.create(path, b"x")):
        with pytest.raises(UsageError, match="backslash"):
            call("/labdaq/..\\z.tif")
