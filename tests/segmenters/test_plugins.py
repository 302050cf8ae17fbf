"""Segmenters that other packages bring: a toy one through the real program and a real engine, and broken ones."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from segment_duo.config import Config, load_config
from segment_duo.errors import EngineFailed, ModelError, UsageError
from segment_duo.models import registry
from segment_duo.models.choice import ModelChoice
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.segmenters import plugins
from segment_duo.session import Session
from segment_duo.tui.screens.ask import TypeLine
from segment_duo.types import Point, Prompt
from tests.cli_shell import DISCS, Shell
from tests.engine_fixtures import Home, wait_for
from tests.plug_in_packages import AUTOMATIC_ONLY, TEXTUAL, TOY, install
from tests.tui_pilot import running


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home and an environment in which two toy plug-ins are installed."""
    root = tmp_path_factory.mktemp("toys")
    install(root / "packages", "toy", TOY)
    install(root / "packages", "bright", AUTOMATIC_ONLY)
    install(root / "packages", "words", TEXTUAL)
    home = Home(root / "home", Config(device="cpu", threads=1))
    yield home
    home.kill()


@pytest.fixture
def toy_shell(toys: Home, tmp_path: Path) -> Shell:
    return shell_with(toys.root.parent / "packages", toys, tmp_path)


def shell_with(packages: Path, home: Home, folder: Path) -> Shell:
    work = folder / "work"
    work.mkdir()
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    more = {"PYTHONPATH": path, "SEGDUO_DEVICE": "cpu", "SEGDUO_THREADS": "1", "NO_COLOR": "1"}
    return Shell(work, home.environment | more)


def disc(index: int) -> np.ndarray:
    y, x = np.mgrid[:124, :180]
    centre_x, centre_y, radius = DISCS[index]
    found: np.ndarray = (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2
    return found


class TestToy:
    def test_models_ls_shows_it(self, toy_shell: Shell) -> None:
        listed = {row["id"]: row for row in toy_shell.run("models", "ls", "--json").ok().json}
        assert listed["toy"]["state"] == "plug-in"
        assert listed["toy"]["description"] == "bright connected regions"
        assert listed["toy"]["capabilities"] == ["automatic", "points"]
        assert listed["toy"]["licence"] == "MIT"
        assert "plug-in of segduo-bright 1.0" in listed["bright"]["description"]

    def test_auto_finds_the_discs(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("auto", "discs.png", "--model", "toy").ok()
        masks = [
            mask_utils.decode(m["segmentation"]).astype(bool) for m in pickle.loads(Path(done.lines[0]).read_bytes())
        ]
        assert len(masks) == 4
        for index in range(4):
            assert max((disc(index) & m).sum() / (disc(index) | m).sum() for m in masks) > 0.95
        shown = toy_shell.run("masks", "show", "discs.png", "--json").ok().json
        assert shown["provenance"]["model"]["id"] == "toy"
        assert "toy: pixels above 120" in shown["provenance"]["notices"]

    def test_point_finds_the_disc_under_the_click(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("point", "discs.png", "-p", "90,34", "--model", "toy", "--no-save", "--json").ok()
        (record,) = done.json["records"]
        found = mask_utils.decode(record["segmentation"]).astype(bool)
        assert (disc(1) & found).sum() / (disc(1) | found).sum() > 0.95
        assert record["predicted_iou"] == 0.9

    def test_its_embeddings_go_through_the_engines_caches(self, toy_shell: Shell, toys: Home) -> None:
        toy_shell.image("discs.png", seed=5)
        first = toy_shell.run("embed", "discs.png", "--model", "toy", "--json").ok().json
        again = toy_shell.run("embed", "discs.png", "--model", "toy", "--json").ok().json
        assert (first["computed"], again["computed"]) == (True, False)
        toy_shell.run("engine", "stop").ok()
        wait_for(lambda: not toys.processes())
        from_disk = toy_shell.run("embed", "discs.png", "--model", "toy", "--json").ok().json
        assert from_disk["computed"] is False

    def test_in_process_works_too(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("auto", "discs.png", "--model", "toy", "--in-process", "--no-save", "--json").ok()
        assert done.json["masks"] == 4

    def test_a_box_is_refused_before_anything_is_computed(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("point", "discs.png", "--box", "10,10,60,60", "--model", "toy")
        assert (done.code, done.stdout) == (2, "")
        assert "the model 'toy' takes no boxes" in done.stderr
        assert "It can: automatic, points." in done.stderr

    async def test_the_terminal_ui_runs_it(
        self, toys: Home, tmp_path: Path, toy_shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = toy_shell.image("discs.png")
        monkeypatch.syspath_prepend(str(toys.root.parent / "packages"))
        for name, value in toy_shell.environment.items():
            if name.startswith("SEGDUO_") or name == "PYTHONPATH":
                monkeypatch.setenv(name, value)
        monkeypatch.delenv("NO_COLOR", raising=False)
        session = Session(load_config({"model": "toy"}, paths=toys.paths), toys.paths)
        async with running(tmp_path, cast("Any", session), path=str(image)) as ui:
            await ui.opened()
            await ui.until(lambda: "ready" in ui.work.header.render().plain, 120)
            await ui.press("g")
            await ui.dialog(TypeLine)
            await ui.press(*["3", "0", "comma", "3", "0", "enter"])
            await ui.press("space")
            await ui.until(lambda: ui.work.doc.candidate, 120)
            candidate = ui.work.doc.candidate
            assert candidate is not None
            assert candidate.mask.area == pytest.approx(disc(0).sum(), rel=0.05)
            await ui.press("enter")
            await ui.auto()
            await ui.until(lambda: len(ui.work.doc.masks) > 1, 120)
            await ui.press("s")
            await ui.until((toy_shell.folder / "masks/discs.pkl").exists, 120)
        records = pickle.loads((toy_shell.folder / "masks/discs.pkl").read_bytes())
        assert {round(record["area"], -2) for record in records} >= {round(float(disc(0).sum()), -2)}


class TestAutomaticOnly:
    def test_auto_works_and_keeps_nothing_of_the_image(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("auto", "discs.png", "--model", "bright", "--no-save", "--json").ok()
        assert done.json["masks"] == 4

    @pytest.mark.parametrize("arguments", [("point", "-p", "30,30"), ("embed",)])
    def test_points_are_refused_with_exit_code_2(self, toy_shell: Shell, arguments: tuple[str, ...]) -> None:
        toy_shell.image("discs.png")
        command, *rest = arguments
        done = toy_shell.run(command, "discs.png", *rest, "--model", "bright")
        assert (done.code, done.stdout) == (2, "")
        assert "the model 'bright' takes no points" in done.stderr
        assert "It can: automatic." in done.stderr

    def test_the_engine_refuses_them_as_well(self, toys: Home, toy_shell: Shell) -> None:
        """A front end that does not look at the capabilities gets the same words."""
        toy_shell.image("discs.png")
        toy_shell.run("auto", "discs.png", "--model", "bright", "--no-save", "--json").ok()
        engine = toys.connect()
        pixels = np.zeros((20, 30, 3), np.uint8)
        choice = replace(ModelChoice("bright", "", "", ""), capabilities=frozenset())
        image = engine.ensure_image(pixels, model=choice)
        assert (image.embedding, image.computed) == (None, False)
        with pytest.raises(UsageError, match="'bright' takes no points"):
            engine.predict(image.id, [Prompt(points=(Point(3, 3),))], model=choice)

    def test_options_follow_the_name(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")

        def area(model: str) -> int:
            done = toy_shell.run("auto", "discs.png", "--model", model, "--no-save", "--json").ok()
            assert done.json["model"] == model
            return sum(record["area"] for record in done.json["records"])

        assert area("bright") < area("bright:above=20")
        assert (
            toy_shell.run("auto", "discs.png", "--model", "bright:above=120", "--no-save", "--json").ok().json["model"]
            == "bright"
        )

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ("bright:abov=3", "has no option 'abov'\n  Did you mean 'above'?"),
            ("bright:above=x", "'x' is no whole number"),
            ("bright:above=256", "it takes numbers from 0 up to 255"),
            ("bright:above", "'above' is no option"),
            ("toy:a=1", "It has none."),
            ("nano:a=1", "the model 'nano' has no option 'a'"),
        ],
    )
    def test_wrong_options_are_refused(self, toy_shell: Shell, model: str, said: str) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("auto", "discs.png", "--model", model)
        assert (done.code, done.stdout) == (2, "")
        assert said in done.stderr


class TestText:
    def test_what_is_named_is_found_and_the_set_tells_it(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")

        def found(text: str) -> int:
            done = toy_shell.run("auto", "discs.png", "--model", "words", "--text", text, "--no-save", "--json").ok()
            return int(done.json["masks"])

        assert (found("particle"), found("ground")) == (4, 1)
        path = toy_shell.run("auto", "discs.png", "--model", "words", "--text", "particle").ok().stdout.strip()
        shown = toy_shell.run("masks", "show", "discs.png", "--json").ok().json
        assert path.endswith(".pkl")
        assert shown["provenance"]["parameters"]["text"] == "particle"

    def test_its_own_word_on_other_texts_reaches_the_user(self, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("auto", "discs.png", "--model", "words", "--text", "cell")
        assert done.code == 2
        assert "words knows particle and ground" in done.stderr

    @pytest.mark.parametrize("model", ["nano", "bright", "watershed"])
    def test_models_without_text_refuse_it_before_anything_is_computed(self, toy_shell: Shell, model: str) -> None:
        toy_shell.image("discs.png")
        done = toy_shell.run("auto", "discs.png", "--model", model, "--text", "particle")
        assert (done.code, done.stdout) == (2, "")
        assert f"the model '{model}' takes no text" in done.stderr

    def test_the_engine_refuses_it_as_well(self, toys: Home, toy_shell: Shell) -> None:
        toy_shell.image("discs.png")
        toy_shell.run("auto", "discs.png", "--model", "bright", "--no-save", "--json").ok()
        engine = toys.connect()
        choice = replace(ModelChoice("bright", "", "", ""), capabilities=frozenset())
        image = engine.ensure_image(np.zeros((20, 30, 3), np.uint8), model=choice)
        with pytest.raises(UsageError, match="'bright' takes no text"):
            engine.auto(image.id, AutoParameters(text="particle"), model=choice)


BROKEN = {
    "raises": ("raise ImportError('no module named cuda')", "ImportError: no module named cuda"),
    "leaves": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "dies": ("import os; os._exit(7)", "ended the process with exit code 7"),
    "empty": ("FAMILY = 5", "is no Family with an info"),
    "older": (TOY.replace("info=INFO)\n", "info=INFO, api=0)\n").replace('id="toy"', 'id="older"'), "version 0 of the plug-in interface, this is 1"),
    "alias": (TOY, "it calls itself 'toy'"),
    "digest": (TOY.replace('id="toy"', 'id="digest"').replace('fingerprint("toy", "1")', '"../../x"'), "not 64 hexadecimal digits"),
    "can": (TOY.replace('id="toy"', 'id="can"').replace("Capability.POINTS", "'fly'"), "'fly' is no capability"),
    "typed": (TOY.replace('id="toy"', 'id="typed"').replace('"MIT"', "5"), "values of the wrong type"),
    "nano": (TOY.replace('id="toy"', 'id="nano"'), "this program has a model of that name"),
    "chatty": ("print('hello', flush=True)\n" + TOY.replace('id="toy"', 'id="chatty"'), ""),
    "slow": ("import time; time.sleep(3600)", "took longer than 20 s"),
}  # fmt: skip
"""Plug-ins by name: the source, and what is said of each."""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("broken")
    for name, (source, _) in BROKEN.items():
        install(root / "packages", name, source)
    home = Home(root / "home", Config(device="cpu", threads=1))
    yield home
    home.kill()


class TestBroken:
    @pytest.mark.timeout(600)  # two commands that wait for a plug-in which hangs, on machines that do other things too
    def test_models_ls_and_doctor_say_what_is_wrong_with_each(self, broken: Home, tmp_path: Path) -> None:
        shell = shell_with(broken.root.parent / "packages", broken, tmp_path)
        rows = shell.run("models", "ls", "--json").ok().json
        doctor = shell.run("doctor", "--json")
        findings = " ".join(row["detail"] for row in doctor.json if row["verdict"] == "problem")
        assert doctor.code == 8
        for name, (_, said) in BROKEN.items():
            row = next(row for row in reversed(rows) if row["id"] == name)
            assert row["state"] == ("damaged" if said else "plug-in")
            assert said in row["description"]
            assert not said or f"{name}: plug-in of segduo-{name} 1.0: " in findings
        assert rows[0]["id"] == "nano"
        assert rows[0]["state"] == "packaged"

    def test_using_one_says_the_same_and_other_models_work(self, broken: Home, tmp_path: Path) -> None:
        shell = shell_with(broken.root.parent / "packages", broken, tmp_path)
        shell.image("discs.png")
        done = shell.run("auto", "discs.png", "--model", "raises")
        assert (done.code, done.stdout) == (2, "")
        assert "the model 'raises' cannot be used" in done.stderr
        assert "ImportError: no module named cuda" in done.stderr
        shell.run("point", "discs.png", "-p", "30,30", "--model", "nano", "--in-process", "--no-save", "--json").ok()
        unknown = shell.run("auto", "discs.png", "--model", "olde")
        assert (unknown.code, "Did you mean 'older'?" in unknown.stderr) == (2, True)


LATE = {
    "load": TOY.replace("load=lambda request: Toy()", "load=lambda request: 1 / 0"),
    "none": TOY.replace("load=lambda request: Toy()", "load=lambda request: None"),
    "fails": TOY.replace("return AutomaticRun", "raise SystemExit('gone')\n        return AutomaticRun"),
    "shape": TOY.replace("of_labels(labels", "of_labels(labels[1:]"),
    "kind": TOY.replace("return AutomaticRun.of_labels(labels,", "return list("),
    "count": TOY.replace("return answers", "return answers * 2"),
    "small": TOY.replace("(embedding.labels == number) & (number > 0)", "embedding.labels[1:] == number"),
}


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Plug-ins whose fault only shows when they compute."""
    root = tmp_path_factory.mktemp("late")
    for name, source in LATE.items():
        install(root / "packages", name, source.replace('id="toy"', f'id="{name}"').replace('("toy"', f'("{name}"'))
    home = Home(root / "home", Config(device="cpu", threads=1))
    yield home
    home.kill()


class TestFaultsAtWork:
    @pytest.mark.timeout(600)
    def test_each_is_an_error_of_its_own_and_the_engine_goes_on(
        self, late: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packages = late.root.parent / "packages"
        shell = shell_with(packages, late, tmp_path)
        shell.image("discs.png")
        monkeypatch.syspath_prepend(str(packages))
        for name, value in shell.environment.items():
            monkeypatch.setenv(name, value)

        def session(model: str) -> Session:
            return Session(load_config({"model": model}, paths=late.paths), late.paths)

        def auto(model: str) -> None:
            one = session(model)
            image = one.open_image(one.reference(str(shell.folder / "discs.png")))
            one.auto(image, AutoParameters())

        def point(model: str) -> None:
            one = session(model)
            image = one.open_image(one.reference(str(shell.folder / "discs.png")))
            one.predict(image, [Prompt(points=(Point(30, 30),))])

        for work, model, error, said in (
            (auto, "load", ModelError, "cannot load its model: ZeroDivisionError"),
            (auto, "none", ModelError, "gave a NoneType instead of a Segmenter"),
            (auto, "fails", EngineFailed, "the plug-in 'fails' failed: SystemExit: gone"),
            (auto, "shape", EngineFailed, "a mask of 180 x 123 pixels for an image of 180 x 124"),
            (auto, "kind", EngineFailed, "gave a list instead of an AutomaticRun"),
            (point, "count", EngineFailed, "gave 2 answers to 1 prompts"),
            (point, "small", EngineFailed, "a mask of 180 x 123 pixels for an image of 180 x 124"),
        ):
            with pytest.raises(error, match=said):
                work(model)
        pids = {process.pid for process in late.processes()}
        assert len(pids) == 1
        status = session("shape").engine_status()
        assert status is not None
        assert status.pid in pids


LIGHT = """
import json, sys
sys.argv = ["segduo", *json.loads(sys.argv[1])]
from segment_duo.cli.main import main
try:
    main()
except SystemExit:
    pass
print(json.dumps([name for name in sys.modules if name.startswith("segduo_")]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "."], ["--help"], ["masks", "ls", "a.png"], ["config", "show"], ["engine", "status"],
        ["models", "ls"], ["auto", "a.png", "--model", "toy"], ["models", "verify", "nano"],
    ],
)  # fmt: skip
def test_no_command_imports_a_plug_in(arguments: list[str], toys: Home, tmp_path: Path) -> None:
    """Not even the one that uses it: the engine does, and a process of its own that describes it."""
    shell = shell_with(toys.root.parent / "packages", toys, tmp_path)
    shell.image("a.png")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(arguments)],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == []


@pytest.mark.parametrize("arguments", [["ls", "."], ["point", "a.png", "-p", "30,30", "--in-process"]])
def test_a_slow_plug_in_is_not_even_looked_at(arguments: list[str], tmp_path: Path) -> None:
    """Its import leaves a file behind, so that a look at it shows."""
    mark = tmp_path / "imported"
    install(tmp_path / "packages", "slow", f"import pathlib; pathlib.Path({str(mark)!r}).touch()")
    shell = shell_with(tmp_path / "packages", Home(tmp_path / "home"), tmp_path)
    shell.image("a.png")
    shell.run(*arguments).ok()
    assert not mark.exists()
    shell.run("models", "ls").ok()
    assert mark.exists()


def test_a_mended_plug_in_is_seen_again_and_a_good_one_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_described", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "toy", "import nothing_of_the_kind")
    first = plugins.describe("toy")
    assert first is not None
    assert "ModuleNotFoundError" in first.problem
    (tmp_path / "segduo_toy.py").write_text(TOY)
    second = plugins.describe("toy")
    assert second is not None
    assert second.info is not None
    assert second.package == "segduo-toy 1.0"
    assert plugins.describe("toy") is second
    assert plugins.describe("nothing") is None


def test_resolving_without_plug_ins_installed_tells_what_is_known(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path)
    with pytest.raises(ModelError, match="no model is called 'xyz'"):
        registry.resolve_model(Config(), paths, "xyz")


def blocks(page: str, language: str) -> list[str]:
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_documentation_works(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads(blocks("plugins.md", "toml")[0])["project"]
    ((name, target),) = project["entry-points"]["segment_duo.segmenters"].items()
    module, _, attribute = target.partition(":")
    (source,) = blocks("plugins.md", "python")
    install(tmp_path / "packages", name, source, version=project["version"], attribute=attribute)
    assert (tmp_path / "packages" / f"{module}.py").exists()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(plugins, "_described", {})
    shell = shell_with(tmp_path / "packages", home, tmp_path)
    listed = {row["id"]: row for row in shell.run("models", "ls", "--json").ok().json}
    assert listed["bright"]["options"]["above"]["default"] == 120
    file = shell.image("discs.png")

    def session(model: str) -> Session:
        return Session(load_config({"model": model, "in_process": True, "device": "cpu"}, paths=home.paths), home.paths)

    usual, lower = session("bright"), session("bright:above=20")
    image = usual.open_image(usual.reference(str(file)))
    assert len(usual.embed(image).id) == 64
    found = usual.auto(image, AutoParameters())
    assert (len(found.masks), found.notes) == (4, ("bright: pixels above 120",))
    (answer,) = usual.predict(image, [Prompt(points=(Point(90, 34),))])
    assert answer.best.mask.area == pytest.approx(disc(1).sum(), rel=0.05)
    lower.embed(image)
    assert len(lower.auto(image, AutoParameters()).masks) == 1  # the ground is above 20 as well
