"""Commands of other programs as models: the documented script, and commands that fail, hang, lie or do not exist."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from segment_duo.config import ExternalCommand, external_commands, load_config
from segment_duo.errors import Cancelled, ConfigError, EngineFailed
from segment_duo.masks.rle import decode
from segment_duo.models import known, registry
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.segmenters.external import External
from tests.cli_shell import DISCS, draw_discs
from tests.engine_fixtures import Home, wait_for
from tests.segmenters.test_plugins import blocks, shell_with

PIXELS = np.repeat(draw_discs()[:, :, None], 3, axis=2)


def command(script: str, *, tmp_path: Path, **more: Any) -> External:
    file = tmp_path / "script.py"
    file.write_text("import sys\nimage, output = sys.argv[1:]\n" + script)
    arguments = (sys.executable, str(file), "{image}", "{output}")
    return External("mine", ExternalCommand(command=arguments, **more))


def run(segmenter: External, cancel: Callable[[], bool] = lambda: False) -> list[np.ndarray]:
    found = segmenter.automatic(PIXELS, AutoParameters(), should_cancel=cancel)
    return [decode(mask.rle) for mask in found.masks]


WRITE = """
import numpy as np, tifffile
def write(labels): tifffile.imwrite(output, labels)
"""


def test_the_documented_script_through_the_real_program(home: Home, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(next(block for block in blocks("models.md", "python") if "sys.argv[2]" in block))
    (table,) = [block for block in blocks("models.md", "toml") if "[external.mine]" in block]
    home.paths.config_dir.mkdir(parents=True)
    text = table.replace("/home/me/mine.py", str(script)).replace('"python3"', json.dumps(sys.executable))
    home.paths.config_file.write_text(text)
    shell = shell_with(tmp_path, home, tmp_path)
    shell.image("discs.png")
    done = shell.run("auto", "discs.png", "--model", "mine", "--no-save", "--json").ok()
    large = [record for record in done.json["records"] if record["area"] > 300]
    assert len(large) == len(DISCS)
    # The engine that runs sees what is changed in the file.
    home.paths.config_file.write_text(text + 'licence = "CC-BY-NC-4.0"\nseconds = 5\n')
    refused = shell.run("auto", "discs.png", "--model", "mine")
    assert (refused.code, refused.stdout) == (2, "")
    assert "has the licence CC-BY-NC-4.0, which you have not accepted yet" in refused.stderr
    assert "segduo models accept mine" in refused.stderr
    unasked = shell.run("models", "accept", "mine")
    assert (unasked.code, "segduo models accept mine --yes" in unasked.stderr) == (2, True)
    shell.run("models", "accept", "mine", "--yes").ok()
    shown = shell.run("models", "show", "mine", "--json").ok().json
    assert (shown["licence"], shown["accepted"], shown["state"]) == ("CC-BY-NC-4.0", True, "external")
    script.write_text("import sys; sys.exit('no such [network]')")
    failed = shell.run("auto", "discs.png", "--model", "mine")
    assert failed.code == 4
    assert "the command of 'mine' ended with exit code 1" in failed.stderr
    assert "no such [network]" in failed.stderr
    refused = shell.run("point", "discs.png", "-p", "30,30", "--model", "mine")
    assert (refused.code, "takes no points" in refused.stderr) == (2, True)


def test_labels_become_masks_in_their_order(tmp_path: Path) -> None:
    script = WRITE + "a = np.zeros((124, 180), np.uint16); a[2:5, 3:9] = 7; a[50:60, 50:52] = 2; write(a)"
    first, second = run(command(script, tmp_path=tmp_path))
    assert (first.sum(), second.sum()) == (20, 18)
    assert second[2:5, 3:9].all()


def test_the_command_sees_the_image_as_the_models_do(tmp_path: Path) -> None:
    script = WRITE + "from PIL import Image; a = np.asarray(Image.open(image)); assert a.shape == (124, 180, 3)\n"
    script += "write((a[..., 1] > 120).astype(np.uint8))"
    (found,) = run(command(script, tmp_path=tmp_path))
    assert np.array_equal(found, PIXELS[..., 1] > 120)


def test_coco_is_read_as_well(tmp_path: Path) -> None:
    script = """
import json
json.dump([{"segmentation": {"size": [124, 180], "counts": [5, 10, 124 * 180 - 15]}, "predicted_iou": 0.5}], open(output, "w"))
"""
    segmenter = command(script, tmp_path=tmp_path, output="masks.json")
    (found,) = segmenter.automatic(PIXELS, AutoParameters()).masks
    assert (found.area, found.predicted_iou) == (10, 0.5)


@pytest.mark.parametrize(
    ("script", "said", "hint"),
    [
        ("print('to stdout'); sys.exit(3)", "ended with exit code 3", "to stdout"),
        ("raise KeyError('weights')", "ended with exit code 1", "KeyError: 'weights'"),
        ("print('done')", "wrote no labels.tif", "done"),
        ("open(output, 'w').write('hello')", "cannot be used", ""),
        (WRITE + "write(np.zeros((124, 179), np.uint8))", "cannot be used", ""),
        (WRITE + "write(np.zeros((124, 180, 3), np.uint8))", "cannot be used", ""),
        ("open(output, 'wb').truncate(10**9)", "is no file of at most", ""),
        ("import os; os.symlink('/etc/passwd', output)", "is no file of at most", ""),
        ("import os; os.mkfifo(output)", "is no file of at most", ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with exit code -9", "nothing"),
    ],
)
def test_what_goes_wrong_is_said(script: str, said: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed) as caught:
        run(command(script, tmp_path=tmp_path))
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_long_message_is_cut_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed) as caught:
        run(command("print('x' * 100_000); print('the end'); sys.exit(1)", tmp_path=tmp_path))
    assert len(caught.value.hint) < 2000
    assert caught.value.hint.endswith("the end")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = External("mine", ExternalCommand(command=(str(tmp_path / "none"), "{image}", "{output}")))
    with pytest.raises(EngineFailed, match=r"cannot be started: .*No such file"):
        run(missing)


HANGS = """
import subprocess, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
open({mark!r}, "w").write(str(child.pid))
time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["time", "cancel"])
def test_a_command_that_hangs_is_killed_with_its_children(how: str, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = HANGS.format(mark=str(mark))
    segmenter = command(script, tmp_path=tmp_path, seconds=30.0 if how == "time" else 3600)
    if how == "time":
        with pytest.raises(EngineFailed, match="took longer than 30 s"):
            run(segmenter)
    else:
        with pytest.raises(Cancelled):
            run(segmenter, lambda: mark.exists() and bool(mark.read_text()))
    pid = int(mark.read_text())
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(EngineFailed):
        run(command("sys.exit(1)", tmp_path=tmp_path))
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('command = ["a", "{image}"]', "must hold {output}"),
        ("command = []", "external"),
        ('command = ["a", "{image}", "{output}"]\noutput = "../x.tif"', "plain file name"),
        ('command = ["a", "{image}", "{output}"]\nsecond = 5', "external"),
        ('command = ["a", "{image}", "{output}"]\nseconds = inf', "external"),
    ],
)
def test_wrong_tables_are_refused(table: str, said: str, tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path)
    paths.config_file.write_text("[external.mine]\n" + table)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(paths=paths, environ={}, cwd=tmp_path)
    assert external_commands(paths.config_file) == {}


def test_a_taken_name_is_said_and_changes_nothing(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path)
    paths.config_file.write_text('[external.nano]\ncommand = ["a", "{image}", "{output}"]')
    config = load_config(paths=paths, environ={}, cwd=tmp_path).config
    nanos = [model for model in known.known_models(paths, config) if model.id == "nano"]
    assert [model.state for model in nanos] == ["packaged", "damaged"]
    assert registry.resolve_model(config, paths, "nano").family == "sam2"
