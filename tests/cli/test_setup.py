"""Commands around the main job: settings, doctor, help."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from segment_duo.config import Config, load_config
from segment_duo.paths import Paths
from tests.cli_shell import Shell
from tests.drops_server import DropsServer


@pytest.fixture
def own(shell: Shell, tmp_path: Path) -> Shell:
    """A shell with a home of its own."""
    shell.environment["SEGDUO_HOME"] = str(tmp_path / "own")
    return shell


def test_config_init_writes_a_file_that_explains_and_sets_nothing(own: Shell, tmp_path: Path) -> None:
    file = Path(own.run("config", "init").ok().lines[0])
    text = file.read_text()
    assert tomllib.loads(text) == {}
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    paths = Paths(file.parent, tmp_path, tmp_path, tmp_path)
    file.write_text(uncommented.partition("[keys]")[0])
    assert load_config(paths=paths, environ={}, cwd=tmp_path).config == Config()
    assert file.stat().st_mode & 0o077 == 0
    again = own.run("config", "init")
    assert (again.code, "exists already" in again.stderr) == (6, True)


def test_config_show_hides_secrets_and_names_origins(own: Shell) -> None:
    (own.folder / ".env").write_text("PASSWORD=hush\nUSERNAME=ann\n")
    done = own.run("config", "show", "--json").ok()
    assert "hush" not in done.stdout
    assert done.json["drops_username"]["value"] == "ann"
    assert done.json["drops_username"]["origin"].endswith(".env (USERNAME)")
    assert done.json["drops_password"]["value"] == "********"
    values = [done.json[name]["value"] for name in ("in_process", "idle_minutes", "threads", "keys")]
    assert values == [False, 30, None, {}]
    unknown = own.run("config", "show", "colour")
    assert (unknown.code, "no setting 'colour'" in unknown.stderr) == (2, True)
    assert "Did you mean 'drops_url'?" in own.run("config", "show", "drops_ur").stderr


def test_a_wrong_setting_does_not_stop_the_commands_that_help_to_mend_it(own: Shell) -> None:
    file = Path(own.run("config", "path").ok().lines[0])
    file.parent.mkdir(parents=True)
    file.write_text('zzz = 1\nMASKS_ROOT = "/masks"\nmodel = "nano"\n')
    own.environment["SEGDUO_DROPS_URL"] = "drops.example.org"
    assert own.run("config", "path").ok().lines == [str(file)]
    assert "log" in own.run("config", "path", "all").ok().stdout
    shown = own.run("config", "show")
    assert shown.code == 2
    assert f"model\tnano\t{file}" in shown.lines
    for text in ("unknown setting 'zzz'", "Did you mean 'masks_root'?", "must begin with http://"):
        assert text in shown.stderr
    examined = own.run("doctor")
    assert examined.code == 8
    assert "PROBLEM  settings: drops_url from SEGDUO_DROPS_URL: must begin with http://" in examined.stdout
    assert "spool" in examined.stdout


def test_doctor_and_commands_tell_of_an_env_file_that_is_not_read(own: Shell) -> None:
    file = own.folder / ".env"
    file.write_text("DROPS_URL=https://drops.example.org/\n")
    try:
        os.chown(file, 4242, -1)
    except PermissionError:
        pytest.skip("only root can give files away")
    for command in (["ls", "."], ["config", "show"]):
        assert f"{file} is not read: it belongs to another user" in own.run(*command).ok().stderr
    assert f"note     settings: {file} is not read" in own.run("doctor").ok().stdout


def test_a_wrong_setting_is_told_before_anything_happens(own: Shell) -> None:
    done = own.run("ls", SEGDUO_DEVICE="tpu")
    assert done.code == 2
    assert "SEGDUO_DEVICE" in done.stderr
    assert done.stdout == ""


def test_doctor_finds_nothing_wrong_on_a_fresh_machine(own: Shell) -> None:
    findings = own.run("doctor", "--json").ok().json
    assert {"program", "engine", "model", "memory", "Drops", "spool"} <= {finding["check"] for finding in findings}
    assert not [finding for finding in findings if finding["verdict"] == "problem"]


def test_doctor_tells_what_is_wrong_with_drops(own: Shell, tmp_path: Path) -> None:
    with DropsServer(tmp_path / "drops") as server:
        own.environment |= server.environment
        good = own.run("doctor").ok()
        assert f"{server.url} answers" in good.stdout
        bad = own.run("doctor", SEGDUO_DROPS_PASSWORD="guess")
    assert bad.code == 8
    assert "PROBLEM  Drops" in bad.stdout
    assert "guess" not in bad.stdout + bad.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["auto"], ["point"], ["embed"], ["ls"], ["info"], ["show"], ["measure"], ["score"], ["tui"], ["train"], ["doctor"],
        ["masks", "ls"], ["masks", "show"], ["masks", "keep"], ["masks", "rm-mask"], ["masks", "filter"], ["masks", "export"],
        ["masks", "import"], ["masks", "diff"], ["masks", "push"], ["masks", "loader"], ["models", "ls"], ["models", "pull"],
        ["models", "verify"], ["engine", "start"], ["engine", "stop"], ["engine", "status"], ["engine", "release"],
        ["engine", "logs"], ["engine", "run"], ["config", "show"], ["config", "path"], ["config", "init"],
    ],
)  # fmt: skip
def test_every_command_explains_itself_and_its_options(own: Shell, command: list[str]) -> None:
    text = own.run(*command, "--help", COLUMNS="200").ok().stdout
    assert len(text.split("Usage:")[1].splitlines()) > 4
    for line in text.splitlines():
        option = re.match(r"│ +(?:\*? +)?(--[a-z-]+)(.*)│$", line)
        if option:
            words = re.sub(r"--?[a-zA-Z-]+|<[^>]*>|\[[^\]]*\]|[A-Z0-9_,|.\[\]]+(?= )", " ", option[2])
            assert re.search("[a-z]{3}", words), f"{option[1]} is not explained"
