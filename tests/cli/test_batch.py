"""What is done with one image: a request and an outcome that another process can take, and nothing printed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from segment_duo.batch import Outcome, Request, segment_one
from segment_duo.errors import ImageError, UsageError
from segment_duo.parameters import AutoParameters
from segment_duo.types import ImageRef, PixelSize, StoreKind
from tests.cli_shell import Shell

WORKER = """
import pickle, sys
from segment_duo.batch import segment_one
ref, request = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(segment_one(ref, request)))
"""

FEW = AutoParameters(points_per_side=6, pred_iou_thresh=0.05, stability_score_thresh=0.05)


def elsewhere(shell: Shell, ref: ImageRef, request: Request) -> Outcome:
    """:func:`segment_one` in a process of its own; what it prints would spoil the pickle."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=pickle.dumps((ref, request)),
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    outcome = pickle.loads(done.stdout)
    assert isinstance(outcome, Outcome)
    return outcome


def reference(file: Path) -> ImageRef:
    return ImageRef(StoreKind.LOCAL, str(file))


def test_another_process_takes_the_request_and_gives_the_outcome(shell: Shell) -> None:
    ref = reference(shell.image("a.png", seed=11))
    request = Request(parameters=FEW, suffix="far", pixel_size=PixelSize(2.0, 2.0, "given"), skip_existing=True)
    outcome = elsewhere(shell, ref, request)
    assert (outcome.ref, outcome.state, outcome.model, outcome.error) == (ref, "done", "nano", None)
    assert outcome.masks
    assert outcome.saved is not None
    assert outcome.saved.path == str(shell.folder / "masks/a_far.pkl")
    shown = shell.run("masks", "show", "a.png@far", "--json").ok().json
    assert len(shown["records"]) == len(outcome.masks)
    assert shown["provenance"]["parameters"] | {"preset": "default", "points_per_side": 6} == shown["provenance"]["parameters"]  # fmt: skip
    again = elsewhere(shell, ref, request)
    assert (again.state, again.masks, again.saved) == ("skipped", (), None)


def test_the_embedding_alone_is_a_request_too(shell: Shell) -> None:
    ref = reference(shell.image("b.png", seed=7012))
    first, second = (elsewhere(shell, ref, Request()) for _ in range(2))
    assert (first.computed, second.computed, first.image_id) == (True, False, second.image_id)
    assert not (shell.folder / "masks").exists()


def test_what_is_wrong_with_an_image_is_its_outcome(shell: Shell) -> None:
    (shell.folder / "bad.png").write_text("no picture")
    outcome = elsewhere(shell, reference(shell.folder / "bad.png"), Request(parameters=FEW))
    assert (outcome.state, outcome.masks, outcome.image_id) == ("failed", (), "")
    assert isinstance(outcome.error, ImageError)
    assert (outcome.error.exit_code, "bad.png" in outcome.error.message) == (7, True)


def test_masks_that_cannot_be_saved_are_not_lost(shell: Shell) -> None:
    ref = reference(shell.image("c.png", seed=13))
    (shell.folder / "masks").write_text("a file where the folder should be")
    outcome = elsewhere(shell, ref, Request(parameters=FEW))
    assert (outcome.state, bool(outcome.masks), outcome.saved) == ("failed", True, None)
    assert outcome.error is not None


def test_wrong_settings_are_an_outcome_and_not_a_crash(tmp_path: Path) -> None:
    outcome = segment_one(reference(tmp_path / "a.png"), Request(settings={"device": "abacus"}))
    assert outcome.error is not None
    assert outcome.error.exit_code == UsageError.exit_code
