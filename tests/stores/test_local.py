"""The local store: nothing is overwritten, nothing is half written, and every failure says what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from segment_duo import durable
from segment_duo.errors import AlreadyExists, InputError, NotFound, OutOfSpace, StoreError, UsageError
from segment_duo.stores import base, local
from segment_duo.stores.local import LocalStore
from segment_duo.types import StoreKind


@pytest.fixture
def store() -> LocalStore:
    return LocalStore()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_created_files_are_whole_and_readable_by_others(store: LocalStore, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        store.create(f"{tmp_path}/masks/deep/a.pkl", b"set")
    finally:
        os.umask(old)
    file = tmp_path / "masks/deep/a.pkl"
    assert store.read(str(file)) == b"set"
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.stat().st_nlink == 1
    assert names(file.parent) == ["a.pkl"]


def test_reading_takes_memory_for_the_file_not_for_the_limit(store: LocalStore, tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(b"x" * 300_000)
    tracemalloc.start()
    try:
        assert len(store.read(str(file), max_bytes=6_400_000_000)) == 300_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert len(store.read(str(file), max_bytes=300_000)) == 300_000
    with pytest.raises(InputError) as refusal:
        store.read(str(file), max_bytes=299_999)
    assert "--max-pixels" in refusal.value.hint


def test_a_file_that_does_not_tell_its_size_is_read_whole(store: LocalStore) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here")
    assert store.read(str(status), max_bytes=1 << 30).splitlines()[-1].startswith(b"nonvoluntary")
    with pytest.raises(InputError):
        store.read(str(status), max_bytes=100)


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("taken", ["file", "folder", "link", "link to nowhere"])
def test_a_taken_name_is_left_as_it_is(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str, hard_links: bool
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_links)
    target = tmp_path / "a.pkl"
    elsewhere = tmp_path / "elsewhere"
    if taken == "file":
        target.write_bytes(b"old")
    elif taken == "folder":
        target.mkdir()
    else:
        target.symlink_to(elsewhere)
        if taken == "link":
            elsewhere.write_bytes(b"old")
    before = names(tmp_path)
    with pytest.raises(AlreadyExists):
        store.create(str(target), b"new")
    assert names(tmp_path) == before
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"old"
    assert not target.is_file() or target.read_bytes() == b"old"


def test_creation_works_without_hard_links(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    store.create(f"{tmp_path}/a.pkl", b"set" * 100_000)
    assert (tmp_path / "a.pkl").read_bytes() == b"set" * 100_000
    assert names(tmp_path) == ["a.pkl"]


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_nothing_behind(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hard_links: bool
) -> None:
    real_write, calls = os.write, 0

    def write(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        # Without links the data is written a second time, under its own name; let that one fail half way.
        if calls < (2 if hard_links else 4):
            return real_write(descriptor, data[: len(data) // 2 + 1])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", write)
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_links)
    with pytest.raises(OutOfSpace if code != errno.EIO else StoreError, match="write") as caught:
        store.create(f"{tmp_path}/a.pkl", b"xyz")
    assert caught.value.exit_code == 6
    assert names(tmp_path) == []


def test_what_the_disk_did_not_keep_is_an_error(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: b"other")
    with pytest.raises(StoreError, match="does not hold what was written"):
        store.create(f"{tmp_path}/a.pkl", b"xyz")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_durable_is_an_error(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable, "sync_folder", fail)
    with pytest.raises(StoreError):
        store.create(f"{tmp_path}/a.pkl", b"xyz")
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_no_file_of_that_name(tmp_path: Path, store: LocalStore) -> None:
    program = (
        "import os, signal; from pathlib import Path; from segment_duo.durable import create_file\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"create_file(Path({str(tmp_path)!r}) / 'a.pkl', b'x' * 100000)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert store.list(str(tmp_path)) == []
    left = next(tmp_path.iterdir())
    # The next run tidies up, but only what cannot belong to a running process any more.
    store.create(f"{tmp_path}/b.pkl", b"set")
    assert left.exists()
    os.utime(left, (time.time() - 90_000,) * 2)
    (tmp_path / ".segduo-notes.txt").write_text("mine")
    store.create(f"{tmp_path}/c.pkl", b"set")
    assert left.exists()  # once a folder
    LocalStore().create(f"{tmp_path}/d.pkl", b"set")
    assert names(tmp_path) == [".segduo-notes.txt", "b.pkl", "c.pkl", "d.pkl"]


def test_one_of_many_writers_wins(store: LocalStore, tmp_path: Path) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def work(index: int) -> None:
        start.wait()
        try:
            store.create(f"{tmp_path}/a.pkl", bytes([index]) * 1000)
            outcomes.append("created")
        except AlreadyExists:
            outcomes.append("taken")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["created"] + ["taken"] * 7
    assert len(set((tmp_path / "a.pkl").read_bytes())) == 1


def test_listing(store: LocalStore, tmp_path: Path) -> None:
    for index, name in enumerate(["old.tif", "grün 電池.tif", "[x]\x1b.tif", ".hidden.tif"]):
        (tmp_path / name).write_bytes(b"x" * index)
        os.utime(tmp_path / name, (1000 + index, 1000 + index))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / os.fsdecode(b"latin\xe9.tif")).write_bytes(b"")
    entries = {entry.name: entry for entry in store.list(str(tmp_path))}
    assert list(entries)[-3:] == ["[x]\x1b.tif", "grün 電池.tif", "old.tif"]
    assert set(entries) == {"old.tif", "grün 電池.tif", "[x]\x1b.tif", "folder", "link", "nowhere"}
    assert (entries["link"].is_folder, entries["link"].is_link) == (True, True)
    assert (entries["nowhere"].is_folder, entries["nowhere"].is_link) == (False, True)
    assert entries["grün 電池.tif"].size == 1
    assert ".hidden.tif" in {entry.name for entry in store.list(str(tmp_path), hidden=True)}


def test_times_that_are_equal_are_sorted_by_name(store: LocalStore, tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    assert [entry.name for entry in store.list(str(tmp_path))] == ["a", "b", "c"]


def test_missing_things_and_wrong_kinds(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFound, match="no such folder"):
        store.list(f"{tmp_path}/none")
    with pytest.raises(InputError, match="is a file"):
        store.list(f"{tmp_path}/file")
    with pytest.raises(NotFound, match="no such file"):
        store.read(f"{tmp_path}/none")
    with pytest.raises(NotFound):
        store.read(f"{tmp_path}/file/below")
    with pytest.raises(InputError, match="is a folder"):
        store.read(str(tmp_path))
    with pytest.raises(InputError, match="not a regular file"):
        store.read(f"{tmp_path}/pipe")
    with pytest.raises(StoreError):
        store.create(f"{tmp_path}/file/below.pkl", b"x")
    assert store.stat(f"{tmp_path}/none") is None
    assert store.stat(f"{tmp_path}/file/below") is None
    with pytest.raises(UsageError):
        store.read("relative")


def test_the_limit_of_a_read(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert len(store.read(f"{tmp_path}/file", max_bytes=100)) == 100
    with pytest.raises(InputError, match="100 bytes, more than the limit of 99"):
        store.read(f"{tmp_path}/file", max_bytes=99)
    # A file of the kernel's says it is empty and is not.
    if Path("/proc/self/status").exists():
        with pytest.raises(InputError, match="limit of 10"):
            store.read("/proc/self/status", max_bytes=10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission(store: LocalStore, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    try:
        for call in (store.list, store.read, lambda path: store.create(path + "/a", b"x")):
            with pytest.raises(StoreError, match="not allowed"):
                call(str(closed))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG])
def test_refusals_of_the_system_name_the_file_and_the_way_out(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(local, "make_folders", refuse)
    with pytest.raises(StoreError, match="list"):
        store.list(str(tmp_path))
    with pytest.raises(StoreError, match=r"a\.pkl"):
        store.create(f"{tmp_path}/a.pkl", b"x")


def test_patterns(store: LocalStore, tmp_path: Path) -> None:
    for name in ("a.tif", "B.TIF", "x[1].tif", "x1.tif", "s/deep/d.tif", "s/e.tif", ".h/f.tif", ".g.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "s" / "circle").symlink_to(tmp_path)

    def found(pattern: str) -> list[str]:
        return [entry.path.removeprefix(f"{tmp_path}/") for entry in store.glob(f"{tmp_path}/{pattern}")]

    assert found("*.tif") == ["a.tif", "x1.tif", "x[1].tif"]
    assert found("**/*.tif") == ["a.tif", "s/deep/d.tif", "s/e.tif", "x1.tif", "x[1].tif"]
    assert found("s/**") == ["s/circle", "s/deep", "s/deep/d.tif", "s/e.tif"]
    assert found("s/circle/?.tif") == ["s/circle/a.tif"]
    assert found("x[1].tif") == ["x1.tif", "x[1].tif"]
    assert found("*/e.tif") == ["s/e.tif"]
    assert found(".h/*") == [".h/f.tif"]
    assert found("a.tif") == ["a.tif"]
    assert found("a.tif/*") == found("none") == found("none/*.tif") == []


def test_a_pattern_over_everything_ends(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_FOLDERS_PER_PATTERN", 5)
    for index in range(6):
        (tmp_path / f"{index}").mkdir()
    with pytest.raises(UsageError, match="more than 5 folders"):
        store.glob(f"{tmp_path}/**/*.tif")


def test_a_mounted_folder_stands_for_drops(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    store = LocalStore(mount, StoreKind.DROPS)
    store.create("/labdaq/masks/a.pkl", b"set")
    assert (mount / "labdaq/masks/a.pkl").read_bytes() == b"set"
    assert [entry.path for entry in store.list("/")] == ["/labdaq"]
    assert [entry.path for entry in store.glob("/labdaq/*/*.pkl")] == ["/labdaq/masks/a.pkl"]
    assert store.read("/labdaq/masks/a.pkl") == b"set"
    with pytest.raises(UsageError):
        store.read("/../outside")
    with pytest.raises(NotFound, match="/drops/labdaq/none"):
        store.read("/labdaq/none")


def test_an_unmounted_folder_is_not_filled(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "mount", StoreKind.DROPS)
    calls = (store.read, store.list, lambda path: store.create(path, b"x"))
    for call in calls:
        with pytest.raises(StoreError, match="not there") as caught:
            call("/labdaq/a")
        assert "Mount it" in caught.value.hint
    assert names(tmp_path) == []


def test_the_stores_are_light_to_import() -> None:
    program = (
        "import sys, segment_duo.stores.locate, segment_duo.library.versions, segment_duo.library.spool, segment_duo.stores.drops\n"
        "print([name for name in ('requests', 'urllib3', 'numpy', 'torch', 'textual', 'pydantic') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def _no_links(*args: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")
