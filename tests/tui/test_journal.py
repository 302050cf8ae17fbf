"""Unsaved work on disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from segment_duo.tui.journal import Draft, Journal
from segment_duo.types import ImageRef, Point, StoreKind
from tests.tui_fakes import disc

REF = ImageRef(StoreKind.DROPS, "/labdaq/a [b]\x1b.tif")


def draft(ref: ImageRef = REF) -> Draft:
    masks = (
        disc(50, 60, 20, 20, 8, id=3, label="grain", predicted_iou=0.9, source="prompt"),
        disc(50, 60, 40, 20, 5, id=7),
    )
    return Draft(ref, "ab" * 32, "grain_1", masks, (Point(1.0, 2.0), Point(3.0, 4.0, 0)))


def test_work_of_a_dead_process_is_found(tmp_path: Path) -> None:
    script = (
        "import sys, os\nfrom pathlib import Path\nfrom tests.tui.test_journal import draft\n"
        "from segment_duo.tui.journal import Journal\n"
        "Journal(Path(sys.argv[1])).write(draft())\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], timeout=120)
    (found,) = Journal(tmp_path).left_behind()
    assert found.masks == draft().masks
    assert found.points == draft().points
    assert (found.ref, found.version, found.sha256) == (REF, "grain_1", "ab" * 32)
    Journal.discard(found)
    assert Journal(tmp_path).left_behind() == []


def test_work_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    running = Journal(tmp_path, pid=4242)
    running.write(draft())
    assert Journal(tmp_path, pid=99).left_behind() == []
    running.close()
    assert len(Journal(tmp_path, pid=99).left_behind()) == 1


def test_file_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    path = journal.write(draft())
    assert journal.write(draft()) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.glob("*") if not p.name.endswith(".lock")] == [path.name]
    journal.forget(REF)
    journal.forget(REF)
    assert not path.exists()
    journal.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "pid": 1}', "\x00\x00"])
def test_damaged_files_are_skipped_and_kept(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "x-1.json"
    broken.write_text(content)
    assert Journal(tmp_path).left_behind() == []
    assert broken.exists()


def test_failed_write_leaves_the_old_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    path = journal.write(draft())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.write(draft())
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".draft-*"))
    journal.close()


def test_work_given_up_while_it_is_written_does_not_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.write(draft(), unless=lambda: True)
    assert not (tmp_path / "journal").exists()


def test_no_folder_no_drafts(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none").left_behind() == []
