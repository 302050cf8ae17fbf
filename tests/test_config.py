"""Settings: which source wins, where a value came from, and that mistakes are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segment_duo.config import PREDECESSOR_KEYS, TABLES, Config, inspect_config, load_config
from segment_duo.errors import ConfigError
from segment_duo.paths import MAX_SOCKET_BYTES, Paths

from .conftest import REPOSITORY


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "config", tmp_path / "data", tmp_path / "cache", tmp_path / "state")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_defaults(paths: Paths, tmp_path: Path) -> None:
    resolved = load_config(paths=paths, environ={}, cwd=tmp_path)
    assert resolved.config.device == "auto"
    assert set(resolved.origins.values()) == {"default"}


def test_each_source_beats_the_one_below(paths: Paths, tmp_path: Path) -> None:
    work = tmp_path / "work"
    layers = {"toml": "a", "dotenv": "b", "variable": "c", "flag": "d"}
    write(paths.config_file, f'model = "{layers["toml"]}"\n')
    work.mkdir()
    assert load_config(paths=paths, environ={}, cwd=work).config.model == "a"
    write(work / ".env", f"SEGDUO_MODEL={layers['dotenv']}\n")
    assert load_config(paths=paths, environ={}, cwd=work).config.model == "b"
    environ = {"SEGDUO_MODEL": layers["variable"]}
    assert load_config(paths=paths, environ=environ, cwd=work).origins["model"] == "SEGDUO_MODEL"
    resolved = load_config({"model": layers["flag"], "device": None}, paths=paths, environ=environ, cwd=work)
    assert (resolved.config.model, resolved.origins["model"]) == ("d", "flag")
    assert resolved.origins["device"] == "default"


def test_the_predecessors_env_file_works_as_it_is(paths: Paths, tmp_path: Path) -> None:
    write(
        tmp_path / ".env",
        "USERNAME=ada\nPASSWORD='pa ss'\nDROPS_URL=https://drops.example.org/\nMODEL_CONFIG=/m/sam2.yaml\n"
        "CHECKPOINT_PATH=/m/sam2.pt\nMASKS_ROOT=/labdaq/masks/\nBACKEND_URL=http://localhost:8000\nUSE_LOCAL_FILES=true\n",
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    resolved = load_config(paths=paths, environ={"USERNAME": "login-name"}, cwd=below)
    config = resolved.config
    assert (config.drops_username, config.drops_url) == ("ada", "https://drops.example.org/")
    assert config.drops_password is not None
    assert config.drops_password.get_secret_value() == "pa ss"
    assert (config.model_config_path, config.checkpoint_path) == ("/m/sam2.yaml", "/m/sam2.pt")
    assert config.use_local_files is True
    assert resolved.origins["drops_username"].endswith(".env (USERNAME)")


def test_secrets_are_never_shown(paths: Paths, tmp_path: Path) -> None:
    resolved = load_config(paths=paths, environ={"SEGDUO_DROPS_PASSWORD": "hush"}, cwd=tmp_path)
    assert resolved.shown("drops_password") == "********"
    assert "hush" not in repr(resolved)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('modle = "nano"\n', "unknown setting 'modle'", "Did you mean 'model'?"),
        ("model = \n", "config.toml", "Mend the file"),
        ('device = "tpu"\n', "device from", "config show"),
        ('drops_url = "drops.example.org"\n', "must begin with http", "config show"),
        ('drops_url = "https://ann:pw@drops.example.org/"\n', "must not hold a password", "config show"),
        ('MASKS_ROOT = "/masks"\n', "unknown setting 'MASKS_ROOT'", "Did you mean 'masks_root'?"),
        ('SEGDUO_MODEL = "nano"\n', "unknown setting 'SEGDUO_MODEL'", "Did you mean 'model'?"),
        ('USERNAME = "ann"\n', "unknown setting 'USERNAME'", "Did you mean 'drops_username'?"),
        ('masks_root = "masks"\n', "must begin with /", "config show"),
        ('masks_root = "/a/../b"\n', "must not contain", "config show"),
    ],
)
def test_mistakes_are_named(paths: Paths, tmp_path: Path, text: str, message: str, hint: str) -> None:
    write(paths.config_file, text)
    with pytest.raises(ConfigError) as caught:
        load_config(paths=paths, environ={}, cwd=tmp_path)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_is_right_is_known_beside_what_is_wrong(paths: Paths, tmp_path: Path) -> None:
    write(paths.config_file, 'zzz = 1\nmodel = "nano"\ndevice = "tpu"\n')
    environ = {"SEGDUO_DROPS_URL": "drops.example.org", "SEGDUO_THREADS": "2"}
    resolved = inspect_config(paths=paths, environ=environ, cwd=tmp_path)
    assert [problem.message.split(":")[0] for problem in resolved.problems] == [
        str(paths.config_file),
        "drops_url from SEGDUO_DROPS_URL",
        f"device from {paths.config_file}",
    ]
    assert (resolved.config.model, resolved.config.threads, resolved.config.device) == ("nano", 2, "auto")
    assert resolved.origins["drops_url"] == "SEGDUO_DROPS_URL (not valid)"
    write(paths.config_file, "zzz = \n")
    assert len(inspect_config(paths=paths, environ={}, cwd=tmp_path).problems) == 1


def test_an_env_file_of_somebody_else_is_passed_over_and_named(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "work" / ".env", "DROPS_URL=https://evil.example/\n")
    own_id = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own_id + 1)
    if own_id == 0:  # root's files count for everybody
        os.chown(tmp_path / "work" / ".env", 4242, -1)
    resolved = load_config(paths=paths, environ={}, cwd=tmp_path / "work")
    assert resolved.config.drops_url is None
    assert (resolved.dotenv, resolved.foreign) == (None, (tmp_path / "work" / ".env",))


def test_a_long_home_still_gives_a_usable_socket(tmp_path: Path) -> None:
    long = Path("/") / ("x" * 120)
    paths = Paths(long, long, long, long)
    assert len(str(paths.socket)) <= MAX_SOCKET_BYTES
    assert paths.socket != Paths(tmp_path, tmp_path, tmp_path, tmp_path / "other").socket


def test_segduo_home_moves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGDUO_HOME", str(tmp_path))
    paths = Paths.default()
    for place in (paths.config_file, paths.models_dir, paths.embeddings_dir, paths.spool_dir, paths.socket):
        assert place.is_relative_to(tmp_path) or str(place).startswith("/tmp/")


def test_the_documentation_lists_every_setting_with_its_meaning() -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    for name, field in Config.model_fields.items():
        if name not in TABLES:
            default = (
                ""
                if field.default is None
                else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
            )
            assert f"| `{name}` | `SEGDUO_{name.upper()}` | {default} | {field.description} |" in text
    for key, name in PREDECESSOR_KEYS.items():
        assert f"| `{key}` | `{name}` |" in text
