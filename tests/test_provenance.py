"""What sets say of themselves, against a model of the truth: random sequences of work through the command line and the terminal UI.

Real commands (called in this process), the real terminal UI, real files and nano; only the daemon is left out: one engine of this process serves all.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from segment_duo.cli.main import app
from segment_duo.config import load_config
from segment_duo.engine.inprocess import InProcessEngine
from segment_duo.engine.settings import EngineSettings
from segment_duo.masks.classes import labelled
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.provenance import edited, imported, is_reshaped, of_edit, parameters_record
from segment_duo.session import Session
from segment_duo.types import Box, Mask, ModelIdentity, Origin, Provenance, Rle
from tests.tui_pilot import running

DISCS = ((30, 30, 14), (75, 26, 10), (50, 62, 12))
IMAGES = ("a.png", "b.png")


def picture(seed: int) -> np.ndarray:
    y, x = np.mgrid[:96, :112]
    grey = np.random.default_rng(seed).normal(70, 4, (96, 112))
    for cx, cy, r in DISCS:
        grey[(x - cx - seed) ** 2 + (y - cy) ** 2 <= r * r] += 110
    return grey.clip(0, 255).astype(np.uint8)


@dataclass
class World:
    """Two images, the commands, and what each saved set ought to say: for every mask what made it."""

    folder: Path
    session: Callable[[], Session]
    truth: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def run(self, *arguments: object) -> Any:
        done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else done.stdout

    def latest(self, image: str) -> str:
        """Version of the image's newest set, or an empty text."""
        known = [version for name, version in self.truth if name == image]
        return known[-1] if known else ""

    def said(self, image: str, version: str) -> tuple[dict[str, Any], list[str]]:
        """The provenance of a set, and for every mask what it says made it."""
        shown = json.loads(
            CliRunner().invoke(app, ["masks", "show", f"{image}@{version}", "--json"], catch_exceptions=False).stdout
        )
        origins = shown["provenance"]["origins"]
        return shown["provenance"], [word(origins[mask["origin"]]) for mask in shown["records"]]

    def check(self, image: str, version: str) -> None:
        provenance, said = self.said(image, version)
        expected = self.truth[image, version]
        assert said == expected
        # A set without masks says what looked for them: only an automatic run saves one.
        models = {one.split()[1] for one in expected} or {"nano"}
        only = models.pop() if len(models) == 1 else "-"
        assert (provenance["model"] or {"id": "-"})["id"] == only
        assert provenance["image"]["path"].endswith(image)
        region = provenance["parameters"].get("region")
        assert region is None or isinstance(region, list)


def word(origin: dict[str, Any]) -> str:
    """An origin in one word a fact: operation, model, what tells one run from another (the preset it began with), edits."""
    model = origin["model"]["id"] if origin["model"] else "-"
    found = origin["parameters"]
    what = " ".join(str(found[name]) for name in ("points_per_side", "preset", "file") if name in found)
    return f"{origin['operation']} {model} {what} {'+'.join(origin['edits'])}".strip()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessEngine]:
    root = tmp_path_factory.mktemp("engine")
    paths = Paths(root / "config", root / "data", root / "cache", root / "state")
    config = load_config({"threads": 1, "device": "cpu", "model": "nano"}, paths=paths, environ={}, cwd=root).config
    with InProcessEngine(EngineSettings.of(config, paths)) as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: InProcessEngine) -> World:
    import segment_duo.engine.connect as connecting

    def connect(*_args: object, pixels_of: Any = None, **_options: object) -> InProcessEngine:
        engine._pixels_of = pixels_of
        return engine

    monkeypatch.setattr(connecting, "connect", connect)
    monkeypatch.setenv("SEGDUO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGDUO_MODEL", "nano")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(IMAGES):
        Image.fromarray(picture(seed)).save(tmp_path / name)
    labels = np.zeros((96, 112), np.uint8)
    labels[5:15, 5:20], labels[70:90, 80:100] = 1, 2
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    return World(tmp_path, lambda: Session(load_config({}), Paths.default()))


def by_commands(world: World, chance: random.Random) -> None:
    """One random command, and what it must have recorded."""
    image = chance.choice(IMAGES)
    before = world.latest(image)
    kinds = ["auto", "region", "point", "import"] + (["append", "onto", "keep", "filter"] if before else [])
    kind = chance.choice(kinds)
    base = world.truth.get((image, before), [])
    if kind in {"auto", "region"}:
        side = chance.choice([3, 4, 5])
        preset = chance.choice(["default", "web"])
        more = ["--region", "0,0,60,60"] if kind == "region" else []
        done = world.run("auto", image, "--points-per-side", side, "--preset", preset, *more, "--json")
        expected = [f"auto nano {side} {preset}"] * done["masks"]
    elif kind in {"point", "append", "onto"}:
        cx, cy, _ = chance.choice(DISCS)
        more = {"point": [], "append": ["--append"], "onto": ["--onto", before]}[kind]
        done = world.run("point", image, "-p", f"{cx},{cy}", *more, "--json")
        expected = ([] if kind == "point" else base) + ["point nano"]
    elif kind == "import":
        done = world.run("masks", "import", image, "labels.tif", "--json")
        expected = ["import - labels.tif"] * 2
    else:
        ids = json.loads(
            CliRunner().invoke(app, ["masks", "show", f"{image}@{before}", "--json"], catch_exceptions=False).stdout
        )["records"]
        if not ids:
            return
        kept = sorted(chance.sample(range(len(ids)), max(1, len(ids) // 2)))
        if kind == "keep":
            done = world.run("masks", "keep", f"{image}@{before}", *(ids[i]["id"] for i in kept), "--json")
        else:
            kept = [i for i, one in enumerate(ids) if one["area"] >= 150]
            if not kept:
                return
            done = world.run("masks", "filter", f"{image}@{before}", "--min-area", 150, "--json")
        expected = [base[i] for i in kept]
    world.truth[image, done["version"]] = expected
    world.check(image, done["version"])


@pytest.mark.parametrize("seed", range(8))
def test_commands_in_any_order_record_what_made_each_mask(world: World, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(7):
        by_commands(world, chance)
    # Whatever came later, earlier sets still say what they said.
    for image, version in world.truth:
        world.check(image, version)


async def in_the_terminal(world: World, seed: int) -> None:
    """A random sitting: images opened in turn, automatic masks, clicks, a correction; every set saved must tell the truth of its own image."""
    chance = random.Random(seed)
    session = world.session()
    async with running(world.folder, session, path=str(world.folder / "a.png")) as ui:  # type: ignore[arg-type]
        await ui.opened()
        image, masks = "a.png", list[str]()
        for _ in range(8):
            step = chance.choice(["auto", "point", "point", "grow", "save", "open"])
            if step == "auto":
                kept = [one for one in masks if not one.startswith("auto")]
                await ui.press("a")
                await ui.until(lambda: ui.app.screen is not ui.screen)
                await ui.press("enter")
                await ui.until(lambda: ui.app.screen is ui.screen and not ui.work.errands.busy("auto"))
                found = [mask for mask in ui.work.doc.masks if mask.origin and mask.origin.operation == "auto"]
                edits = [mask for mask in found if mask.origin and mask.origin.edits]
                assert not edits
                masks = kept + ["auto nano 32 default"] * len(found)
            elif step == "point":
                cx, cy, _ = chance.choice(DISCS)
                ui.work.picture.move_cross_hair(cx, cy)
                count = len(ui.work.doc.masks)
                await ui.press("space")
                await ui.until(lambda: ui.work.doc.candidate)
                await ui.press("enter")
                await ui.until(lambda count=count: len(ui.work.doc.masks) == count + 1)  # type: ignore[misc]
                masks.append("point nano")
            elif step == "save" and masks:
                await ui.press("s")
                await ui.until(lambda: not ui.work.errands.busy("save") and not ui.work.doc.unsaved)
                version = ui.work.doc.version
                assert version is not None
                world.truth[image, version] = list(masks)
                world.check(image, version)
            elif step == "open":
                image = "b.png" if image == "a.png" else "a.png"
                ui.work.doc.saved_as(ui.work.doc.masks, ui.work.doc.version)  # give up what is unsaved
                ui.screen.files.open_target(str(world.folder / image))
                await ui.until(lambda image=image: ui.work.image is not None and ui.work.image.ref.name == image)  # type: ignore[misc]
                await ui.opened()
                version = ui.work.doc.version or ""
                masks = list(world.truth.get((image, version), []))
                assert len(masks) == len(ui.work.doc.masks)


@pytest.mark.parametrize("seed", range(3))
def test_sittings_in_the_terminal_ui_record_what_made_each_mask(world: World, seed: int) -> None:
    # Sets that commands made are there already: their origins must survive the terminal UI.
    chance = random.Random(100 + seed)
    for _ in range(3):
        by_commands(world, chance)
    asyncio.run(in_the_terminal(world, seed))


def test_two_models_leave_the_sets_own_model_open() -> None:
    rle = Rle(4, 4, "000")
    nano, tiny = ModelIdentity("nano", "1" * 64), ModelIdentity("tiny", "2" * 64)
    masks = [Mask(rle, 0, (0, 0, 0, 0), origin=Origin("auto", model)) for model in (nano, tiny)]
    both = of_edit(Provenance(model=nano), masks, operation="keep", parameters={}, parent="0")
    assert both.model is None
    assert both.models == ("nano", "tiny")
    assert of_edit(Provenance(model=nano), masks[:1], operation="keep", parameters={}, parent="0").model == nano
    # A set of before origins were kept: its own word is all there is.
    old = [Mask(rle, 0, (0, 0, 0, 0))]
    assert of_edit(Provenance(model=tiny), old, operation="keep", parameters={}, parent="0").model == tiny
    named = labelled(old, {0}, "pore")
    assert of_edit(Provenance(model=tiny), named, operation="label", parameters={}, parent="0").model == tiny


def test_labels_are_edits_that_leave_the_shape() -> None:
    run = Origin("auto")
    masks = [replace(Mask(Rle(4, 4, "000"), 0, (0, 0, 0, 0), origin=run), id=number) for number in range(3)]
    first, second, third = labelled(masks, {0, 1}, "pore")
    assert (first.label, first.origin) == ("pore", replace(run, edits=("label 'pore'",)))
    assert first.origin is second.origin  # one run, one origin
    assert third is masks[2]
    (again,) = labelled([first], {0}, "pore")
    assert again is first
    (off,) = labelled([first], {0}, "")
    assert (off.label, off.origin.edits) == ("", ("label 'pore'", "label taken off"))  # type: ignore[union-attr]
    assert not is_reshaped(off.origin)
    assert is_reshaped(edited(off.origin, "brush"))
    assert not is_reshaped(None)


def test_imports_keep_the_origin_of_a_set_of_ours() -> None:
    rle = Rle(4, 4, "000")
    ours, theirs = Mask(rle, 0, (0, 0, 0, 0), origin=Origin("auto")), Mask(rle, 0, (0, 0, 0, 0))
    first, second = imported([ours, theirs], "x.pkl", "pkl")
    assert first.origin == Origin("auto")
    assert second.origin is not None
    assert (second.origin.operation, second.origin.parameters["file"]) == ("import", "x.pkl")


def test_edits_add_up_and_parameters_have_one_shape() -> None:
    origin = edited(edited(Origin("auto"), "brush"), "fill holes")
    assert origin.edits == ("brush", "fill holes")
    assert edited(None, "brush").operation == ""
    record = parameters_record(AutoParameters(region=Box(1, 2, 3, 4)), "web")
    assert record["region"] == [1, 2, 3, 4]
    assert record["preset"] == "web"
    assert "point_grids" not in record
    json.dumps(record)
