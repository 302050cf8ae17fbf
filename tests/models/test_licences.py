"""Licences: what has to be accepted, that it is asked once, and how it is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from segment_duo.config import Config
from segment_duo.errors import ModelError, StoreError
from segment_duo.models import known, licences, registry
from segment_duo.paths import Paths
from segment_duo.segmenters import plugins
from tests.cli_shell import Shell
from tests.engine_fixtures import Home
from tests.plug_in_packages import AUTOMATIC_ONLY, install
from tests.segmenters.test_plugins import shell_with

GUARDED = AUTOMATIC_ONLY.replace('id="bright"', 'id="guarded"').replace(
    'licence="MIT"', 'licence="CC-BY-NC-4.0", terms="For research only.\\nhttps://example.org/terms"'
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "config", tmp_path / "data", tmp_path / "cache", tmp_path / "state")


@pytest.mark.parametrize(
    ("licence", "asks"), [("MIT", False), ("Apache-2.0", False), ("CC-BY-NC-4.0", True), ("", True), ("mit", True)]
)
def test_which_licences_ask(licence: str, asks: bool) -> None:
    assert licences.must_be_accepted(licence) is asks


def test_accepted_once_for_a_model_and_a_licence(paths: Paths) -> None:
    with pytest.raises(ModelError, match=r"'a' has the licence AGPL-3\.0, which you have not accepted yet"):
        licences.check(paths, "a", "AGPL-3.0")
    licences.accept(paths, "a", "AGPL-3.0")
    licences.accept(paths, "b", "")
    licences.check(paths, "a", "AGPL-3.0")
    licences.check(paths, "b", "")
    with pytest.raises(ModelError):
        licences.check(paths, "a", "CC-BY-NC-4.0")
    with pytest.raises(ModelError):
        licences.check(paths, "c", "AGPL-3.0")
    (paths.config_dir / licences.FILE).write_text("damaged {")
    with pytest.raises(ModelError):
        licences.check(paths, "a", "AGPL-3.0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_record_that_cannot_be_written_is_said(paths: Paths) -> None:
    paths.config_dir.mkdir()
    paths.config_dir.chmod(0o500)
    with pytest.raises(StoreError, match=r"accepted-licences\.json"):
        licences.accept(paths, "a", "x")


def test_a_plug_in_without_a_licence_asks_and_the_users_own_models_do_not(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "packages", "bright", AUTOMATIC_ONLY.replace('licence="MIT",', ""))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(plugins, "_described", {})
    with pytest.raises(ModelError, match="has no stated licence"):
        registry.resolve_model(Config(), paths, "bright")
    for model in known.known_models(paths):
        assert model.asks is (model.id == "bright")


def test_refused_shown_accepted_and_run(home: Home, tmp_path: Path) -> None:
    install(tmp_path / "packages", "guarded", GUARDED)
    shell: Shell = shell_with(tmp_path / "packages", home, tmp_path)
    shell.image("discs.png")
    refused = shell.run("auto", "discs.png", "--model", "guarded", "--in-process")
    assert (refused.code, refused.stdout) == (2, "")
    assert "has the licence CC-BY-NC-4.0, which you have not accepted yet" in refused.stderr
    shown = shell.run("models", "show", "guarded").ok().stdout
    for text in (
        "licence\tCC-BY-NC-4.0 (to be accepted)",
        "For research only.",
        "can\tautomatic",
        "option above\tgrey value",
    ):
        assert text in shown
    accepted = shell.run("models", "accept", "guarded", "--yes").ok()
    assert "For research only." in accepted.stderr
    record = json.loads((home.paths.config_dir / licences.FILE).read_text())
    assert record["guarded"]["licence"] == "CC-BY-NC-4.0"
    assert "accepted already" in shell.run("models", "accept", "guarded").ok().stderr
    assert "nothing is to be accepted" in shell.run("models", "accept", "nano").ok().stderr
    listed = {row["id"]: row for row in shell.run("models", "ls", "--json").ok().json}
    assert (listed["guarded"]["accepted"], listed["nano"]["licence"]) == (True, "Apache-2.0")
    done = shell.run("auto", "discs.png", "--model", "guarded", "--in-process", "--no-save", "--json").ok()
    assert done.json["masks"] == 4
    assert shell.run("models", "show", "guardet").code == 2
