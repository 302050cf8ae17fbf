"""The Drops store against a real HTTP server with the real server's quirks; the numbers are those of the traps in docs/drops.md."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from segment_duo.errors import (
    AlreadyExists,
    ConfigError,
    DropsDenied,
    DropsError,
    DropsUnavailable,
    InputError,
    NotFound,
    OutOfSpace,
    SegduoError,
    UsageError,
)
from segment_duo.library.versions import list_series, list_versions, save_version
from segment_duo.stores.cache import ContentCache
from segment_duo.stores.drops import DropsStore, escape_search, escape_upload_path
from segment_duo.stores.transport import Patience
from segment_duo.text import safe
from tests.drops_server import DropsServer

PASSWORD = "pässwörd-4711"
QUICK = Patience(connect_seconds=2, read_seconds=2, first_pause=0.001)
SPECIAL_NAMES = [
    "a b.tif",
    "50%.tif",
    "100%25.tif",
    "a%20b.tif",
    "%u00e9.tif",
    "grün 電池.tif",
    "x[1].tif",
    "y{a,b}.tif",
    "z(1)+!.tif",
    "q?*.tif",
    "quote'\".tif",
    "amp&#1234;.tif",
    "semi;colon.tif",
    "[red]markup[red].tif",
    "\x1b[31mescape.tif",
    "line\nbreak.tif",
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DropsServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with DropsServer(tmp_path / "drops", "ann", PASSWORD) as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def store(server: DropsServer, pauses: list[float]) -> DropsStore:
    return DropsStore(server.url, "ann", PASSWORD, patience=QUICK, sleep=pauses.append)


# Traps 1 and 2: reading ---------------------------------------------------------------------------------------------------


def test_the_server_has_the_quirks_of_the_real_one(server: DropsServer) -> None:
    server.put("/labdaq/a.png", b"pixels")
    server.put("/labdaq/é.png", b"pixels")
    missing = requests.get(server.url + "/labdaq/none.png", allow_redirects=False, timeout=5)
    assert (missing.status_code, missing.headers["Location"]) == (301, "/labdaq/none.png/")
    page = requests.get(server.url + "/labdaq/none.png", timeout=5)
    assert page.status_code == 200
    assert page.content.startswith(b"<!DOCTYPE html>")
    assert requests.get(server.url + "/labdaq/%C3%A9.png", allow_redirects=False, timeout=5).status_code == 301
    part = requests.get(server.url + "/labdaq/a.png", headers={"Range": "bytes=1-2"}, timeout=5)
    assert (part.status_code, part.content) == (206, b"ix")
    assert requests.post(server.url + "/list/", json={"search": "/labdaq"}, timeout=5).status_code == 401


def test_a_missing_file_is_missing_and_not_a_web_page(store: DropsStore, server: DropsServer) -> None:
    server.put("/labdaq/a.tif", b"data")
    with pytest.raises(NotFound, match=r"/drops/labdaq/none\.tif"):
        store.read("/labdaq/none.tif")
    with pytest.raises(NotFound):
        store.read("/labdaq")
    assert {request.method for request in server.requests} == {"POST"}


@pytest.mark.parametrize("name", SPECIAL_NAMES)
def test_any_name_can_be_created_listed_read_and_matched(store: DropsStore, server: DropsServer, name: str) -> None:
    folder = f"/lab daq/{name} folder"
    store.create(f"{folder}/{name}", name.encode())
    assert server.files() == {f"{folder}/{name}": name.encode()}
    assert [entry.name for entry in store.list(folder)] == [name]
    assert store.read(f"{folder}/{name}") == name.encode()
    entry = store.stat(f"{folder}/{name}")
    assert entry is not None
    assert (entry.path, entry.size, entry.is_folder) == (f"{folder}/{name}", len(name.encode()), False)
    with pytest.raises(AlreadyExists):
        store.create(f"{folder}/{name}", b"other")


def test_a_name_with_a_backslash_arrives_whole(store: DropsStore, server: DropsServer) -> None:
    store.create("/labdaq/a\\b.pkl", b"set")
    assert server.files() == {"/labdaq/a\\b.pkl": b"set"}


# Traps 3, 4, 5 and 9: uploading -------------------------------------------------------------------------------------------


def test_creation_is_exclusive_and_never_clobbers(store: DropsStore, server: DropsServer) -> None:
    store.create("/masks/a.pkl", b"first")
    with pytest.raises(AlreadyExists):
        store.create("/masks/a.pkl", b"second")
    assert server.files() == {"/masks/a.pkl": b"first"}
    assert all("clobber" not in request.body for request in server.uploads())


def test_the_folder_is_sent_with_its_slash(store: DropsStore, server: DropsServer) -> None:
    store.create("/labdaq/new//m.pkl", b"set")
    store.create("/m.pkl", b"set")
    assert set(server.files()) == {"/labdaq/new/m.pkl", "/m.pkl"}
    assert [request.body["path"] for request in server.uploads()] == ["/labdaq/new/", "/"]


@pytest.mark.parametrize("path", ["/labdaq/../../x/m.pkl", "/..", "../m.pkl", "m.pkl", "/a\0b", "/\ud800.pkl"])
def test_paths_that_could_escape_are_refused_before_anything_is_sent(
    store: DropsStore, server: DropsServer, path: str
) -> None:
    for call in (store.read, store.stat, store.list, store.glob, lambda path: store.create(path, b"x")):
        with pytest.raises(UsageError):
            call(path)
    assert server.requests == []


def test_a_file_that_could_never_be_read_back_is_not_uploaded(store: DropsStore, server: DropsServer) -> None:
    with pytest.raises(InputError, match="begin with a dot"):
        store.create("/masks/.a.pkl", b"x")
    with pytest.raises(UsageError, match="needs a name"):
        store.create("/", b"x")
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"errno": -28, "code": "ENOSPC"}, OutOfSpace),
        ({"errno": -122, "code": "EDQUOT"}, OutOfSpace),
        ({"errno": -13, "code": "EACCES"}, DropsDenied),
        ({"errno": -20, "code": "ENOTDIR"}, DropsError),
        ({"errno": -20}, DropsError),
        ("no", DropsError),
        (None, DropsError),
        ({"code": "ok"}, DropsError),
    ],
)
def test_the_answer_of_an_upload_is_read(
    store: DropsStore, server: DropsServer, status: object, error: type[SegduoError]
) -> None:
    server.faults.upload_status = status if status is not None else {"code": 17}
    with pytest.raises(error) as caught:
        store.create("/masks/a.pkl", b"x")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "fault",
    [{"truncate_stored": 3}, {"corrupt_stored": True}, {"lose_stored": True}],
    ids=lambda fault: next(iter(fault)),
)
def test_an_upload_that_was_stored_wrong_is_noticed(
    store: DropsStore, server: DropsServer, fault: dict[str, object]
) -> None:
    vars(server.faults).update(fault)
    with pytest.raises(DropsUnavailable, match="does not hold the bytes"):
        store.create("/masks/a.pkl", b"a mask set")


def test_two_writers_get_two_numbers(server: DropsServer) -> None:
    server.put("/masks/a.pkl", b"old")
    saved: list[str] = []

    def work(index: int) -> None:
        mine = DropsStore(server.url, "ann", PASSWORD, patience=QUICK)
        saved.extend(save_version(mine, "/masks", "a", "", f"{index}-{step}".encode()).path for step in range(5))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(saved) == sorted(f"/masks/a_{number}.pkl" for number in range(1, 21))
    assert len(set(server.files().values())) == 21


def test_a_rival_who_takes_the_number_between_looking_and_writing(store: DropsStore, server: DropsServer) -> None:
    server.faults.rival, server.faults.times, server.faults.routes = b"rival", 1, ("/upload/",)
    version = save_version(store, "/masks", "a", "grain", b"mine")
    assert (version.name, version.path) == ("grain_1", "/masks/a_grain_1.pkl")
    assert server.files() == {"/masks/a_grain.pkl": b"rival", "/masks/a_grain_1.pkl": b"mine"}


def test_a_batch_lists_a_folder_of_sets_once(store: DropsStore, server: DropsServer) -> None:
    server.put("/masks/b_3.pkl", b"old")
    saved = [save_version(store, "/masks", stem, "", b"mine").name for stem in ("a", "b", "a")]
    server.put("/masks/c.pkl", b"another's")  # since the listing
    saved += [save_version(store, "/masks", stem, "", b"mine").name for stem in ("c", "b")]
    assert saved == ["0", "4", "1", "1", "5"]
    assert server.files()["/masks/c.pkl"] == b"another's"
    assert [request.path for request in server.requests].count("/list/") == 1
    assert [version.name for version in list_series(store, "/masks", "c", "")] == ["1", "0"]  # looked at anew


# Traps 6, 7, 8 and 10: listing --------------------------------------------------------------------------------------------


def test_listings_are_newest_first_and_use_the_last_component_only(tmp_path: Path) -> None:
    for double_slash in (False, True):
        with DropsServer(tmp_path / str(double_slash), "ann", "pw", double_slash=double_slash) as server:
            server.put("/labdaq/old.tif", b"1", modified=1_700_000_000.25)
            server.put("/labdaq/new.tif", b"22", modified=1_700_000_100)
            server.put("/labdaq/middle/x.tif", b"", modified=1_700_000_050)
            (server.root / "labdaq/middle").touch()
            store = DropsStore(server.url + "/", "ann", "pw", patience=QUICK)
            entries = store.list("/labdaq/")
            assert [entry.name for entry in entries] == ["middle", "new.tif", "old.tif"]
            assert [entry.is_folder for entry in entries] == [True, False, False]
            assert entries[2] == type(entries[2])("old.tif", "/labdaq/old.tif", False, 1, 1_700_000_000.25)
            assert server.requests[0].body == {"search": "/labdaq"}


def test_a_linked_folder_is_a_folder(store: DropsStore, server: DropsServer) -> None:
    server.put("/real/a.tif", b"1")
    (server.root / "labdaq").mkdir()
    (server.root / "labdaq/link").symlink_to(server.root / "real")
    entry = store.list("/labdaq")[0]
    assert (entry.is_folder, entry.is_link, entry.size) == (True, True, 0)


def test_folders_whose_names_look_like_patterns_do_not_match_their_neighbours(
    store: DropsStore, server: DropsServer
) -> None:
    for folder in ("run[1]", "run1", "runx1y", "a{b,c}", "ab", "ac", "s*r", "star", "p+(q)", "pq", "100%25", "100%"):
        server.put(f"/labdaq/{folder}/{folder}.tif", b"x")
    for folder in ("run[1]", "a{b,c}", "s*r", "p+(q)", "100%25", "100%", "run1"):
        assert [entry.name for entry in store.list(f"/labdaq/{folder}")] == [f"{folder}.tif"]


def test_what_is_sent_to_search_and_upload_is_escaped() -> None:
    assert escape_search("/a[b]*?{c}!(d)\\+ 50%") == "/a?b????c???d??? 50%25"
    assert escape_upload_path('50%"\\&;\n/ü') == "50%25%22%5C%26%3B%0A/ü"


def test_the_root_cannot_be_listed(store: DropsStore, server: DropsServer) -> None:
    with pytest.raises(UsageError, match="root"):
        store.list("/")
    assert server.requests == []
    server.faults.listing = {}
    with pytest.raises(DropsError, match="no listing"):
        store.list("/labdaq")


def test_an_empty_folder_a_missing_one_and_a_file_are_told_apart(store: DropsStore, server: DropsServer) -> None:
    server.put("/labdaq/data/a.tif", b"x")
    (server.root / "labdaq/empty").mkdir()
    assert store.list("/labdaq/empty") == []
    with pytest.raises(NotFound, match="no such folder"):
        store.list("/labdaq/typo")
    with pytest.raises(NotFound, match="no such folder"):
        store.list("/labdaq/typo/below")
    with pytest.raises(InputError, match="is a file"):
        store.list("/labdaq/data/a.tif")
    assert list_versions(store, "/labdaq/typo", "a") == []


def test_hostile_listings_name_nothing_outside_the_folder(store: DropsStore, server: DropsServer) -> None:
    names: list[object] = [
        "/labdaq/../../etc/passwd", "/labdaq/..", "/labdaq/.", "/labdaq/", "", "/labdaq/a\0b", "/labdaq/\ud800",
        "/labdaq/..\\..\\x", 7, None, ["x"], "/labdaq/\x1b]0;owned\x07.tif", "/labdaq/[bold]x[bold].tif", "/labdaq/\u202egpj.exe",
    ]  # fmt: skip
    rows: list[object] = [{"name": name, "is_dir": False, "size": 1, "mtimeMs": 0} for name in names]
    server.faults.listing = [*rows, "text", None, 3, [], {"is_dir": True}]
    entries = store.list("/labdaq")
    assert [entry.path for entry in entries] == [
        "/labdaq/\x1b]0;owned\x07.tif",
        "/labdaq/[bold]x[bold].tif",
        "/labdaq/passwd",
        "/labdaq/\u202egpj.exe",
    ]
    assert all(not set(safe(entry.name)) & {"\x1b", "\x07", "\u202e"} for entry in entries)


@pytest.mark.parametrize(
    ("row", "size", "modified"),
    [
        ({"size": 5, "mtimeMs": 1500.5}, 5, 1.5005),
        ({"size": 5, "mtime": "1970-01-01T00:00:02.500Z"}, 5, 2.5),
        ({"size": 5, "mtime": "1970-01-01T00:00:02"}, 5, 2.0),
        ({"size": -5, "mtime": "yesterday"}, 0, 0.0),
        ({"size": 10**400, "mtimeMs": True}, 0, 0.0),
        ({"size": "5", "mtimeMs": float("inf")}, 0, 0.0),
        ({}, 0, 0.0),
    ],
)
def test_odd_sizes_and_times(
    store: DropsStore, server: DropsServer, row: dict[str, object], size: int, modified: float
) -> None:
    server.faults.listing = [{"name": "/labdaq/a.tif", "is_dir": False, **row}]
    entry = store.list("/labdaq")[0]
    assert (entry.size, entry.modified) == (size, modified)


def test_patterns_match_as_in_a_shell(store: DropsStore, server: DropsServer) -> None:
    for path in (
        "/labdaq/a.tif",
        "/labdaq/b.TIF",
        "/labdaq/c.png",
        "/labdaq/s1/d.tif",
        "/labdaq/s2/e.tif",
        "/labdaq/x[1].tif",
    ):
        server.put(path, b"x")

    def paths(pattern: str) -> list[str]:
        return [entry.path for entry in store.glob(pattern)]

    assert paths("/labdaq/*.tif") == ["/labdaq/a.tif", "/labdaq/x[1].tif"]
    assert paths("/labdaq/s?/*.tif") == ["/labdaq/s1/d.tif", "/labdaq/s2/e.tif"]
    assert paths("/labdaq/**/[de].tif") == ["/labdaq/s1/d.tif", "/labdaq/s2/e.tif"]
    assert paths("/labdaq/x[1].tif") == ["/labdaq/x[1].tif"]
    assert paths("/labdaq/a.tif") == ["/labdaq/a.tif"]
    assert paths("/labdaq/none*") == paths("/nowhere/*.tif") == paths("/labdaq/none.tif") == []


def test_files_and_folders_right_below_the_root_are_found(store: DropsStore, server: DropsServer) -> None:
    server.put("/top.tif", b"data", modified=1_700_000_000)
    server.put("/labdaq/a.tif", b"x")
    top, folder = store.stat("/top.tif"), store.stat("/labdaq")
    assert top is not None
    assert (top.name, top.size, top.modified, top.is_folder) == ("top.tif", 4, 1_700_000_000.0, False)
    assert folder is not None
    assert (folder.name, folder.is_folder) == ("labdaq", True)
    assert store.stat("/none.tif") is None
    assert store.stat("/labdaq/none.tif") is None
    root = store.stat("/")
    assert root is not None
    assert root.is_folder


# Failures -----------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_tried_again_with_growing_pauses(
    store: DropsStore, server: DropsServer, pauses: list[float]
) -> None:
    server.stop()
    with pytest.raises(DropsUnavailable, match="refused the connection") as caught:
        store.read("/labdaq/a.tif")
    assert "network" in caught.value.hint
    assert len(pauses) == QUICK.attempts - 1
    assert pauses[0] < pauses[-1]
    # The next call of the same run does not wait all over again.
    with pytest.raises(DropsUnavailable):
        store.list("/labdaq")
    assert len(pauses) == QUICK.attempts - 1


def test_a_server_that_goes_away_and_comes_back(store: DropsStore, server: DropsServer) -> None:
    server.put("/labdaq/a.tif", b"data")
    assert store.read("/labdaq/a.tif") == b"data"
    server.stop()
    with pytest.raises(DropsUnavailable):
        store.create("/masks/a.pkl", b"set")
    server.start()
    assert store.read("/labdaq/a.tif") == b"data"
    assert set(server.files()) == {"/labdaq/a.tif"}


def test_a_name_that_cannot_be_looked_up() -> None:
    store = DropsStore("http://drops.invalid", "ann", "pw", patience=Patience(attempts=1))
    with pytest.raises(DropsUnavailable):
        store.list("/labdaq")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_failures_are_retried(store: DropsStore, server: DropsServer, status: int, pauses: list[float]) -> None:
    server.put("/labdaq/a.tif", b"data")
    server.faults.status, server.faults.times, server.faults.retry_after = status, 2, "3"
    assert store.read("/labdaq/a.tif") == b"data"
    assert pauses == [3.0, 3.0]
    server.faults.times = -1
    with pytest.raises(DropsUnavailable, match=f"status {status}"):
        store.read("/labdaq/a.tif")


@pytest.mark.parametrize("status", [400, 404, 405, 418])
def test_lasting_failures_are_not_retried(store: DropsStore, server: DropsServer, status: int) -> None:
    server.faults.status = status
    with pytest.raises(DropsError):
        store.list("/labdaq")
    assert len(server.requests) == 1


def test_wrong_credentials_and_forbidden_paths(store: DropsStore, server: DropsServer) -> None:
    server.faults.status = 403
    with pytest.raises(DropsDenied, match="forbids"):
        store.read("/labdaq/a.tif")
    server.faults.clear()
    server.password = "changed"
    for call in (store.list, store.read, lambda path: store.create(path, b"x")):
        with pytest.raises(DropsDenied, match="user name and password") as caught:
            call("/labdaq/a")
        assert caught.value.exit_code == 5
    assert len(server.requests) == 4
    with pytest.raises(DropsDenied, match="no user name or no password"):
        DropsStore(server.url, "ann", "")


def test_an_upload_too_large_for_the_proxy(store: DropsStore, server: DropsServer) -> None:
    server.faults.status = 413
    with pytest.raises(DropsError, match="larger than"):
        store.create("/masks/a.pkl", b"x")
    assert len(server.requests) == 1


def test_a_login_page_is_not_taken_for_an_image_a_listing_or_a_success(store: DropsStore, server: DropsServer) -> None:
    server.put("/labdaq/a.tif", b"data")
    server.put("/labdaq/page.html", b"<html>mine</html>")
    assert store.read("/labdaq/page.html") == b"<html>mine</html>"
    server.faults.web_page = True
    for call in (store.read, store.list, lambda path: store.create(path + ".pkl", b"x")):
        with pytest.raises(DropsUnavailable, match="web page"):
            call("/labdaq/a.tif")


def test_redirects_are_not_followed_with_credentials(tmp_path: Path, store: DropsStore, server: DropsServer) -> None:
    with DropsServer(tmp_path / "other", "ann", PASSWORD) as other:
        other.put("/labdaq/a.tif", b"stolen")
        for target in (other.url + "/filez/", "/elsewhere/", "http://[broken"):
            server.faults.redirect_to = target
            for call in (store.read, store.list, lambda path: store.create(path, b"x")):
                with pytest.raises(DropsError, match="redirect"):
                    call("/labdaq/a.tif")
        assert other.requests == []


def test_a_download_that_breaks_off_is_fetched_again_and_never_returned_short(
    store: DropsStore, server: DropsServer
) -> None:
    server.put("/labdaq/a.tif", b"x" * 100_000)
    server.faults.truncate_download, server.faults.times = 50_000, 1
    assert len(store.read("/labdaq/a.tif")) == 100_000
    server.faults.times = -1
    with pytest.raises(DropsUnavailable, match="broke off"):
        store.read("/labdaq/a.tif")


def test_a_slow_server_ends_in_a_timeout(server: DropsServer) -> None:
    server.put("/labdaq/a.tif", b"data")
    store = DropsStore(server.url, "ann", PASSWORD, patience=Patience(read_seconds=0.1, attempts=2, first_pause=0))
    server.faults.slow_seconds = 0.5
    started = time.monotonic()
    with pytest.raises(DropsUnavailable, match=r"within 0\.1 s"):
        store.read("/labdaq/a.tif")
    assert time.monotonic() - started < 2


def test_large_files_are_refused_before_they_are_read(store: DropsStore, server: DropsServer) -> None:
    server.put("/labdaq/a.tif", b"x" * 1000)
    assert len(store.read("/labdaq/a.tif", max_bytes=1000)) == 1000
    with pytest.raises(InputError, match="1000 bytes"):
        store.read("/labdaq/a.tif", max_bytes=999)


# Uploads without an answer ------------------------------------------------------------------------------------------------


def test_an_upload_whose_answer_was_lost_is_found_and_not_sent_twice(store: DropsStore, server: DropsServer) -> None:
    server.faults.hang_up_after_work, server.faults.times, server.faults.routes = True, 1, ("/upload/",)
    version = save_version(store, "/masks", "a", "", b"set")
    assert version.path == "/masks/a.pkl"
    assert server.files() == {"/masks/a.pkl": b"set"}
    assert len(server.uploads()) == 1


def test_an_upload_that_did_not_arrive_is_sent_again(store: DropsStore, server: DropsServer) -> None:
    server.faults.hang_up, server.faults.times, server.faults.routes = True, 2, ("/upload/",)
    assert save_version(store, "/masks", "a", "", b"set").path == "/masks/a.pkl"
    assert len(server.uploads()) == 3


def test_an_upload_that_arrives_only_after_we_looked(store: DropsStore, server: DropsServer) -> None:
    """The first attempt fails, is not there when we look, and is there when the second one comes: EEXIST, but ours."""
    server.faults.hang_up, server.faults.times, server.faults.routes = True, 1, ("/upload/",)
    looked: list[str] = []
    download = store._download

    def late(path: str, max_bytes: int | None) -> bytes:
        looked.append(path)
        if len(looked) == 1:
            server.put(path, b"set")
            raise NotFound("not yet")
        return download(path, max_bytes)

    store._download = late  # type: ignore[method-assign]
    store.create("/masks/a.pkl", b"set")
    assert server.files() == {"/masks/a.pkl": b"set"}


def test_somebody_elses_file_is_not_taken_for_ours_after_a_failure(store: DropsStore, server: DropsServer) -> None:
    server.put("/masks/a.pkl", b"theirs")
    server.faults.hang_up, server.faults.times, server.faults.routes = True, 1, ("/upload/",)
    with pytest.raises(AlreadyExists):
        store.create("/masks/a.pkl", b"ours")


def test_a_server_that_dies_while_storing_ends_the_attempt(store: DropsStore, server: DropsServer) -> None:
    server.faults.hang_up_after_work, server.faults.routes = True, ()
    server.faults.hang_up = True
    with pytest.raises(DropsUnavailable, match="broke off"):
        store.create("/masks/a.pkl", b"set")


# Secrets ------------------------------------------------------------------------------------------------------------------


def test_the_password_is_in_no_text(server: DropsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = DropsStore(server.url, "ann", PASSWORD, ContentCache(tmp_path / "c", 1000), patience=QUICK)
    texts = [repr(store), repr(store._connection), str(vars(store._connection._session()[0].auth).keys())]
    server.put("/labdaq/a.tif", b"data")
    store.read("/labdaq/a.tif")
    for fault in (
        {"hang_up": True},
        {"status": 500},
        {"status": 401},
        {"web_page": True},
        {"redirect_to": "http://x.invalid/"},
    ):
        server.faults.clear()
        vars(server.faults).update(fault)
        with pytest.raises(DropsError) as caught:
            store.create("/masks/a.pkl", b"x")
        texts += [repr(caught.value), caught.value.hint, "".join(traceback.format_exception(caught.value))]
        # The library's exceptions carry the request with its headers; none may hang on ours.
        chained = caught.value.__cause__, caught.value.__context__
        assert not any(isinstance(error, requests.RequestException) for error in chained)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    basic = "Basic " + requests.auth._basic_auth_str(b"ann", PASSWORD.encode()).split()[1]
    for text in [*texts, caplog.text, *[str(path) for path in tmp_path.rglob("*")]]:
        assert PASSWORD not in text
        assert basic not in text


def test_addresses(tmp_path: Path) -> None:
    for url in (
        "ftp://x/",
        "https://",
        "https://x:99999/",
        "https://x/?a=b",
        "https://x/#a",
        "x.example.org",
        "https://[x/",
    ):
        with pytest.raises(ConfigError):
            DropsStore(url, "ann", "pw")
    with pytest.raises(ConfigError) as caught:
        DropsStore("https://ann:hunter2@drops.example.org/", "ann", "pw")
    assert "hunter2" not in str(caught.value) + caught.value.hint
    assert DropsStore("https://drops.example.org/files/", "ann", "pw").address == "https://drops.example.org/files"


def test_netrc_is_not_consulted(
    server: DropsServer, store: DropsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.put("/labdaq/a.tif", b"data")
    assert store.read("/labdaq/a.tif") == b"data"


# Content cache ------------------------------------------------------------------------------------------------------------


def test_files_are_fetched_once_until_they_change(server: DropsServer, tmp_path: Path) -> None:
    server.put("/labdaq/a.tif", b"one", modified=1_700_000_000)

    def read() -> bytes:
        # A new store each time, as in a new command: the listing remembered for a moment is not what answers.
        cache = ContentCache(tmp_path / "cache", 10_000)
        return DropsStore(server.url, "ann", PASSWORD, cache, patience=QUICK).read("/labdaq/a.tif")

    def downloads() -> int:
        return sum(request.path == "/filez/" for request in server.requests)

    assert (read(), read(), downloads()) == (b"one", b"one", 1)
    server.put("/labdaq/a.tif", b"two", modified=1_700_000_001)
    assert (read(), downloads()) == (b"two", 2)
    for file in (tmp_path / "cache").glob("*.bin"):
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert (read(), downloads()) == (b"two", 3)
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_reading_what_was_just_listed_lists_it_once(server: DropsServer, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        server.put(f"/labdaq/{name}.tif", name.encode())
    store = DropsStore(server.url, "ann", PASSWORD, ContentCache(tmp_path / "cache", 10_000), patience=QUICK)
    assert sorted(store.read(entry.path) for entry in store.list("/labdaq")) == [b"a", b"b", b"c"]
    assert sum(request.path == "/list/" for request in server.requests) == 1


def test_cached_reads_refuse_like_uncached_ones(server: DropsServer, tmp_path: Path) -> None:
    server.put("/labdaq/a.tif", b"x" * 100)
    server.put("/top.tif", b"top")
    store = DropsStore(server.url, "ann", PASSWORD, ContentCache(tmp_path / "cache", 10_000), patience=QUICK)
    store.list("/labdaq")
    with pytest.raises(InputError, match="100 bytes"):
        store.read("/labdaq/a.tif", max_bytes=99)
    with pytest.raises(NotFound):
        store.read("/labdaq/none.tif")
    with pytest.raises(InputError, match="folder"):
        store.read("/labdaq")
    assert store.read("/top.tif") == b"top"
