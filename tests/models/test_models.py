"""Which models there are, which one runs, and getting checkpoints from servers that behave and servers that do not."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segment_duo.cli.models import checkpoints as commands
from segment_duo.cli.models.listing import list_models
from segment_duo.config import Config
from segment_duo.errors import Cancelled, ConfigError, ModelError, OutOfSpace
from segment_duo.models import checkpoints, download, known, registry
from segment_duo.models.known import known_models
from segment_duo.models.registry import resolve_model
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2 import catalogue
from segment_duo.segmenters.sam2.catalogue import ModelSpec

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several chunks
SPEC = ModelSpec(
    "test-model", "for tests", "configs/x.yaml", "test model.pt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(*(tmp_path / name for name in ("config", "data", "cache", "state")))


@dataclass
class Mirror:
    """A web server with faults: ``cut`` ends a transfer after so many bytes, ``stall`` stops there, ``ranges`` honours Range, ``status`` refuses."""

    content: bytes = CONTENT
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    stall: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    state = Mirror()
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append((self.path, asked))
            if state.status:
                self.send_error(state.status.pop(0))
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            body = state.content[start:]
            self.send_response(206 if asked and state.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            if asked and state.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.end_headers()
            if state.stall:
                self.wfile.write(body[: state.stall.pop(0)])
                ended.wait(30)
                return
            self.wfile.write(body[: state.cut.pop(0)] if state.cut else body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}/models"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    yield state
    ended.set()
    server.shutdown()
    server.server_close()


class TestPull:
    def test_whole_file_verified_and_renamed_into_place(self, paths: Paths, mirror: Mirror) -> None:
        reports: list[tuple[int, int, str]] = []
        got = download.pull(SPEC, paths, mirror=mirror.address, report=lambda *report: reports.append(report))
        assert got == paths.models_dir / "test model.pt"
        assert got.read_bytes() == CONTENT
        assert not checkpoints.partial_path(paths, SPEC).exists()
        assert mirror.requests == [("/models/test%20model.pt", None)]
        assert (len(CONTENT), len(CONTENT), "downloading") in reports
        assert reports[-1] == (len(CONTENT), len(CONTENT), "verifying")

    def test_second_pull_downloads_nothing(self, paths: Paths, mirror: Mirror) -> None:
        download.pull(SPEC, paths, mirror=mirror.address)
        download.pull(SPEC, paths, mirror=mirror.address)
        assert len(mirror.requests) == 1

    def test_a_cut_transfer_is_taken_up_where_it_ended(self, paths: Paths, mirror: Mirror) -> None:
        mirror.cut = [2**20 + 7, 2**20]
        assert download.pull(SPEC, paths, mirror=mirror.address).read_bytes() == CONTENT
        starts = [asked for _, asked in mirror.requests]
        assert starts[0] is None
        assert len(starts) == 3
        assert all(start and start.startswith("bytes=") for start in starts[1:])

    def test_what_a_stalled_server_sent_is_kept_to_the_last_byte(
        self, paths: Paths, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "SILENCE_SECONDS", 1)
        mirror.stall = [100]
        assert download.pull(SPEC, paths, mirror=mirror.address).read_bytes() == CONTENT
        assert [asked for _, asked in mirror.requests] == [None, "bytes=100-"]

    def test_a_link_that_always_breaks_early_gets_on_all_the_same(self, paths: Paths, mirror: Mirror) -> None:
        mirror.cut = [300_000] * 20
        assert download.pull(SPEC, paths, mirror=mirror.address).read_bytes() == CONTENT

    def test_an_interrupted_pull_goes_on_next_time(self, paths: Paths, mirror: Mirror) -> None:
        with pytest.raises(Cancelled):
            download.pull(SPEC, paths, mirror=mirror.address, cancelled=lambda: True)
        kept = checkpoints.partial_path(paths, SPEC).stat().st_size
        assert 0 < kept < len(CONTENT)
        assert download.pull(SPEC, paths, mirror=mirror.address).read_bytes() == CONTENT
        assert mirror.requests[-1][1] == f"bytes={kept}-"

    def test_a_server_without_ranges_starts_over(self, paths: Paths, mirror: Mirror) -> None:
        paths.models_dir.mkdir(parents=True)
        checkpoints.partial_path(paths, SPEC).write_bytes(b"x" * 1000)
        mirror.ranges = False
        assert download.pull(SPEC, paths, mirror=mirror.address).read_bytes() == CONTENT

    def test_wrong_content_is_refused_and_not_kept(self, paths: Paths, mirror: Mirror) -> None:
        mirror.content = CONTENT[:-1] + b"!"
        with pytest.raises(ModelError, match="SHA-256"):
            download.pull(SPEC, paths, mirror=mirror.address)
        assert [path.suffix for path in paths.models_dir.iterdir()] == [".lock"]

    def test_a_damaged_part_is_found_and_the_next_pull_starts_over(self, paths: Paths, mirror: Mirror) -> None:
        paths.models_dir.mkdir(parents=True)
        checkpoints.partial_path(paths, SPEC).write_bytes(b"x" * 1000)
        with pytest.raises(ModelError, match="SHA-256"):
            download.pull(SPEC, paths, mirror=mirror.address)
        assert download.pull(SPEC, paths, mirror=mirror.address).read_bytes() == CONTENT

    def test_a_page_instead_of_a_file(self, paths: Paths, mirror: Mirror) -> None:
        mirror.content = b"<html>please log in</html>"
        with pytest.raises(ModelError, match=f"offers 26 bytes, test model.pt has {len(CONTENT)}"):
            download.pull(SPEC, paths, mirror=mirror.address)

    def test_not_there(self, paths: Paths, mirror: Mirror) -> None:
        mirror.status = [404]
        with pytest.raises(ModelError, match="HTTP 404"):
            download.pull(SPEC, paths, mirror=mirror.address)

    def test_a_failing_server_is_tried_again(self, paths: Paths, mirror: Mirror) -> None:
        mirror.status = [503, 500]
        assert download.pull(SPEC, paths, mirror=mirror.address).exists()

    def test_giving_up_hides_the_mirrors_password(self, paths: Paths, mirror: Mirror) -> None:
        mirror.status = [503] * 50
        address = mirror.address.replace("http://", "http://user:geheim@")
        with pytest.raises(ModelError, match="HTTP 503") as caught:
            download.pull(SPEC, paths, mirror=address)
        assert "geheim" not in caught.value.message + caught.value.hint
        assert len(mirror.requests) == download.ATTEMPTS

    def test_nobody_there(self, paths: Paths, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "ATTEMPTS", 2)
        told: list[str] = []
        with pytest.raises(ModelError, match=r"cannot be fetched from 127\.0\.0\.1: no connection$") as caught:
            download.pull(SPEC, paths, mirror="http://127.0.0.1:9/", report=lambda *report: told.append(report[2]))
        assert "SEGDUO_MODEL_MIRROR" in caught.value.hint
        assert told == [f"{download.WAITING} (127.0.0.1: no connection)"]

    def test_proxy_of_the_environment_is_used(
        self, paths: Paths, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", mirror.address.removesuffix("/models"))
        monkeypatch.setenv("no_proxy", "")
        download.pull(SPEC, paths, mirror="http://far.example/weights")
        assert mirror.requests == [("http://far.example/weights/test%20model.pt", None)]

    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_folder_as_mirror(self, paths: Paths, tmp_path: Path, prefix: str) -> None:
        (tmp_path / SPEC.checkpoint_file).write_bytes(CONTENT)
        assert download.pull(SPEC, paths, mirror=f"{prefix}{tmp_path}").read_bytes() == CONTENT

    def test_an_address_of_another_kind_is_no_folder(self, paths: Paths) -> None:
        with pytest.raises(ModelError, match="ftp:// cannot be read"):
            download.pull(SPEC, paths, mirror="ftp://foo/x")

    def test_folder_without_the_file(self, paths: Paths, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"there is no test model\.pt"):
            download.pull(SPEC, paths, mirror=str(tmp_path))

    def test_folder_with_a_wrong_file(self, paths: Paths, tmp_path: Path) -> None:
        (tmp_path / SPEC.checkpoint_file).write_bytes(CONTENT[::-1])
        with pytest.raises(ModelError, match="SHA-256"):
            download.pull(SPEC, paths, mirror=str(tmp_path))
        assert not checkpoints.checkpoint_path(paths, SPEC).exists()

    def test_full_disk(self, paths: Paths, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(download, "_write", full)
        with pytest.raises(OutOfSpace):
            download.pull(SPEC, paths, mirror=mirror.address)

    def test_two_pulls_at_once(self, paths: Paths, mirror: Mirror) -> None:
        paths.models_dir.mkdir(parents=True)
        with (
            download._only_one(checkpoints.partial_path(paths, SPEC)),
            pytest.raises(ModelError, match="another command is fetching"),
        ):
            download.pull(SPEC, paths, mirror=mirror.address)


class TestVerify:
    def test_right_and_wrong(self, paths: Paths) -> None:
        with pytest.raises(ModelError, match="not on this machine"):
            download.verify(SPEC, paths)
        paths.models_dir.mkdir(parents=True)
        file = checkpoints.checkpoint_path(paths, SPEC)
        file.write_bytes(CONTENT)
        assert download.verify(SPEC, paths).problem == ""
        file.write_bytes(CONTENT[::-1])
        assert "instead of" in download.verify(SPEC, paths).problem
        file.write_bytes(CONTENT[:-1])
        assert f"{len(CONTENT) - 1} bytes instead of" in download.verify(SPEC, paths).problem


class TestRegistry:
    def test_official_facts(self) -> None:
        facts = {spec.id: (spec.checkpoint_file, spec.bytes, spec.sha256[:8]) for spec in catalogue.SAM21}
        assert facts == {
            "sam2.1-tiny": ("sam2.1_hiera_tiny.pt", 156_008_466, "7402e0d8"),
            "sam2.1-small": ("sam2.1_hiera_small.pt", 184_416_285, "6d1aa6f3"),
            "sam2.1-base-plus": ("sam2.1_hiera_base_plus.pt", 323_606_802, "a2345aed"),
            "sam2.1-large": ("sam2.1_hiera_large.pt", 898_083_611, "2647878d"),
        }
        assert all(len(spec.sha256) == 64 for spec in catalogue.SAM21)
        assert catalogue.SAM21[0].url.endswith("segment_anything_2/092824/sam2.1_hiera_tiny.pt")

    def test_nano_with_a_notice_for_want_of_better(self, paths: Paths, nano: Path) -> None:
        choice = resolve_model(Config(), paths)
        assert choice.id == "nano"
        assert choice.sha256 == hashlib.sha256((nano / "nano.pt").read_bytes()).hexdigest()
        assert "segduo models pull sam2.1-large" in choice.notice
        assert choice.auto_defaults == {"exact": False, "pred_iou_thresh": 0.7}

    def test_nano_asked_for_has_no_notice(self, paths: Paths, nano: Path) -> None:
        assert resolve_model(Config(), paths, "nano").notice == ""

    def test_largest_pulled_one_wins(self, paths: Paths, nano: Path) -> None:
        pulled(paths, "sam2.1-tiny")
        pulled(paths, "sam2.1-base-plus")
        choice = resolve_model(Config(), paths)
        assert (choice.id, choice.notice) == ("sam2.1-base-plus", "")
        assert choice.config == "configs/sam2.1/sam2.1_hiera_b+.yaml"
        assert choice.auto_defaults == {"exact": False}

    def test_flag_then_configured_then_pulled(self, paths: Paths, nano: Path) -> None:
        pulled(paths, "sam2.1-tiny")
        pulled(paths, "sam2.1-large")
        assert resolve_model(Config(model="nano"), paths, "sam2.1-tiny").id == "sam2.1-tiny"
        assert resolve_model(Config(model="nano"), paths).id == "nano"

    def test_not_pulled_says_how(self, paths: Paths, nano: Path) -> None:
        with pytest.raises(ModelError) as caught:
            resolve_model(Config(), paths, "sam2.1-large")
        assert caught.value.hint == "Get it with `segduo models pull sam2.1-large`."

    def test_half_a_file_is_not_a_model(self, paths: Paths, nano: Path) -> None:
        paths.models_dir.mkdir(parents=True)
        (paths.models_dir / "sam2.1_hiera_tiny.pt").write_bytes(b"short")
        (paths.models_dir / "sam2.1_hiera_small.pt.part").write_bytes(b"unfinished")
        states = {model.id: model.state for model in known_models(paths)}
        assert (states["sam2.1-tiny"], states["sam2.1-small"]) == ("damaged", "partial")
        assert resolve_model(Config(), paths).id == "nano"
        with pytest.raises(ModelError, match="incomplete"):
            resolve_model(Config(), paths, "sam2.1-tiny")

    def test_unknown_name_suggests(self, paths: Paths, nano: Path) -> None:
        with pytest.raises(ModelError) as caught:
            resolve_model(Config(), paths, "sam2.1-larg")
        assert caught.value.hint == "Did you mean 'sam2.1-large'?"

    def test_custom_pair(self, paths: Paths, nano: Path, tmp_path: Path) -> None:
        weights, config = tmp_path / "mine.pt", tmp_path / "mine.yaml"
        weights.write_bytes(b"weights")
        config.write_text("model: {}")
        both = Config(model_config_path=str(config), checkpoint_path=str(weights))
        choice = resolve_model(both, paths)
        assert (choice.id, choice.config, choice.checkpoint) == ("custom", str(config), str(weights))
        assert choice.sha256 == hashlib.sha256(b"weights").hexdigest()
        assert resolve_model(both, paths, "nano").id == "nano"
        packaged = Config(model_config_path="configs/sam2.1/sam2.1_hiera_l.yaml", checkpoint_path=str(weights))
        assert resolve_model(packaged, paths).config == "configs/sam2.1/sam2.1_hiera_l.yaml"

    def test_custom_pair_with_a_missing_file(self, paths: Paths, nano: Path, tmp_path: Path) -> None:
        gone = Config(model_config_path="configs/x.yaml", checkpoint_path=str(tmp_path / "gone.pt"))
        with pytest.raises(ModelError, match="no such file"):
            resolve_model(gone, paths)

    def test_a_relative_custom_config_must_be_one_of_the_package(
        self, paths: Paths, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("mine.pt", "mine.yaml"):
            (tmp_path / name).write_text("model: {}")
        both = Config(model_config_path="mine.yaml", checkpoint_path=str(tmp_path / "mine.pt"))
        with pytest.raises(ModelError, match=f"must be absolute: {tmp_path}/mine.yaml"):
            resolve_model(both, paths)
        (tmp_path / "mine.yaml").unlink()
        with pytest.raises(ModelError, match=r"no config mine\.yaml in the sam2 package"):
            resolve_model(both, paths)

    @pytest.mark.parametrize("half", [{"checkpoint_path": "/a.pt"}, {"model_config_path": "/a.yaml"}])
    def test_half_a_custom_pair(self, paths: Paths, nano: Path, half: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match="is not"):
            resolve_model(Config(**half), paths)

    def test_trained_models(self, paths: Paths, nano: Path) -> None:
        folder = paths.models_dir / "grains"
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text("model: {}")
        with pytest.raises(ModelError, match=r"model\.pt is missing"):
            resolve_model(Config(), paths, "grains")
        (folder / "model.pt").write_bytes(b"trained")
        card = {"base": {"id": "nano"}, "auto_defaults": {"points_per_side": 24}}
        (folder / "card.json").write_text(json.dumps(card))
        choice = resolve_model(Config(model="grains"), paths)
        assert choice.auto_defaults == {"exact": False, "points_per_side": 24}
        assert {model.id: model.description for model in known_models(paths)}["grains"] == "trained here from nano"

    def test_a_disk_without_room_is_left_as_it_was(self, paths: Paths, tmp_path: Path) -> None:
        script = (
            "import os, resource, sys\n"
            "from pathlib import Path\n"
            "from segment_duo.models.checkpoints import file_sha256\n"
            "from segment_duo.paths import Paths\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
            "root = Path(sys.argv[2])\n"
            "print(file_sha256(Path(sys.argv[1]), Paths(root, root, root, root)))\n"
        )
        file, cache = tmp_path / "model.pt", tmp_path / "cache"
        file.write_bytes(b"one")
        cache.mkdir()
        (cache / ".hashes-left").touch()  # of an earlier version
        command = [sys.executable, "-c", script, str(file), str(cache)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256(b"one").hexdigest()
        assert [path.name for path in cache.iterdir()] == [".hashes-left"]
        subprocess.run([*command[:2], script.replace("(0, 0)", "(9999, 9999)"), *command[3:]], check=True)
        assert [path.name for path in cache.iterdir()] == ["checkpoint-hashes.json"]

    def test_hash_is_remembered_until_the_file_changes(self, paths: Paths, tmp_path: Path) -> None:
        file = tmp_path / "weights.pt"
        file.write_bytes(b"one")
        first = checkpoints.file_sha256(file, paths)
        assert checkpoints.file_sha256(file, paths) == first == hashlib.sha256(b"one").hexdigest()
        notebook = paths.cache_dir / "checkpoint-hashes.json"
        assert first in notebook.read_text()
        file.write_bytes(b"three")
        assert checkpoints.file_sha256(file, paths) == hashlib.sha256(b"three").hexdigest()
        notebook.write_text("damaged {")
        assert checkpoints.file_sha256(file, paths) == hashlib.sha256(b"three").hexdigest()

    def test_missing_nano_is_said(self, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(known, "NANO_DIR", tmp_path / "nowhere")
        with pytest.raises(ModelError, match="built-in model"):
            resolve_model(Config(), paths)


class TestCommands:
    @pytest.fixture
    def place(self, paths: Paths, monkeypatch: pytest.MonkeyPatch, empty_home: Path) -> Paths:
        """The user's folders, as the commands find them."""
        monkeypatch.setattr(Paths, "default", lambda: paths)
        return paths

    def test_ls_shows_the_models_also_when_half_a_custom_pair_is_set(
        self, place: Paths, nano: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SEGDUO_CHECKPOINT_PATH", "/a.pt")
        list_models()
        said = capsys.readouterr()
        assert "sam2.1-large" in said.out
        assert "checkpoint_path is set, but model_config_path is not" in said.err

    def test_pull_says_in_a_pipe_why_it_waits(
        self, place: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(registry, "spec_of", lambda _name: SPEC)
        monkeypatch.setattr(download, "ATTEMPTS", 2)
        monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
        monkeypatch.setenv("SEGDUO_MODEL_MIRROR", "http://127.0.0.1:9/")
        with pytest.raises(ModelError, match="no connection"):
            commands.pull("test-model")
        assert capsys.readouterr().err == "test-model: waiting to try again (127.0.0.1: no connection)\n"

    def test_verify_loads_what_has_no_checksum(
        self, place: Paths, nano: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ModelError, match=f"nano \\({nano}/nano.pt\\)") as caught:
            commands.verify(["nano"])
        assert "cannot be" in capsys.readouterr().out
        assert caught.value.hint == "nano: install segduo again."

    def test_verify_finds_the_shipped_nano_right(self, place: Paths, capsys: pytest.CaptureFixture[str]) -> None:
        commands.verify(["nano"])
        assert capsys.readouterr().out.startswith("nano\tloads\t")

    def test_verify_says_what_to_do_for_each_kind(
        self, place: Paths, nano: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SEGDUO_CHECKPOINT_PATH", "/gone/a.pt")
        monkeypatch.setenv("SEGDUO_MODEL_CONFIG", "/gone/a.yaml")
        place.models_dir.mkdir(parents=True)
        file = place.models_dir / "sam2.1_hiera_tiny.pt"
        file.write_bytes(b"short")
        with pytest.raises(ModelError) as caught:
            commands.verify(["custom", "sam2.1-tiny"])
        assert "custom (/gone/a.pt)" in caught.value.message
        assert f"sam2.1-tiny ({file})" in caught.value.message
        assert "correct MODEL_CONFIG or CHECKPOINT_PATH" in caught.value.hint
        assert "`segduo models pull sam2.1-tiny` replaces the file" in caught.value.hint


@pytest.fixture
def nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the packaged model, so that these tests do not depend on its weights."""
    folder = tmp_path / "nano"
    folder.mkdir()
    (folder / "nano.pt").write_bytes(b"small")
    (folder / "nano.yaml").write_text("model: {}")
    (folder / "defaults.json").write_text('{"pred_iou_thresh": 0.7}')
    monkeypatch.setattr(known, "NANO_DIR", folder)
    return folder


def pulled(paths: Paths, model: str) -> None:
    """A file with the right name and size; sparse, so that it takes no disk."""
    spec = registry.spec_of(model)
    paths.models_dir.mkdir(parents=True, exist_ok=True)
    with checkpoints.checkpoint_path(paths, spec).open("wb") as file:
        file.truncate(spec.bytes)
