"""Building models from configs and checkpoints, official layout and nano."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from segment_duo.errors import Cancelled, ModelError
from segment_duo.models.known import NANO_DIR
from segment_duo.segmenters.sam2.build import build_model, find_config
from tests.engine_stock import feature_sizes, make_predictor

CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


@pytest.mark.parametrize("size", [*CONFIGS])
def test_official_layouts_match_the_files_of_meta(size: str, shared_dir: Path) -> None:
    spec = json.loads((shared_dir / "sam2.1-spec" / f"sam2.1_hiera_{size}.json").read_text())["tensors"]
    model = build_model(f"configs/sam2.1/sam2.1_hiera_{CONFIGS[size]}.yaml")
    built = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert built == {name: list(shape) for name, shape in spec.items()}


def test_a_checkpoint_in_official_layout_loads_to_the_bit(tmp_path: Path) -> None:
    config = "configs/sam2.1/sam2.1_hiera_t.yaml"
    model = build_model(config)
    generator = torch.Generator().manual_seed(1)
    state = {k: torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "tiny.pt")
    loaded = build_model(config, tmp_path / "tiny.pt")
    assert not loaded.training
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_nano_loads_as_float32_and_answers_a_click() -> None:
    model = build_model(NANO_DIR / "nano.yaml", NANO_DIR / "nano.pt")
    assert (NANO_DIR / "nano.pt").stat().st_size <= 15_000_000
    assert {v.dtype for v in model.state_dict().values()} == {torch.float32}
    predictor = make_predictor(model)
    assert predictor._bb_feat_sizes == feature_sizes(model) == [(128, 128), (64, 64), (32, 32)]
    predictor.set_image(np.full((100, 140, 3), 90, np.uint8))
    masks, scores, low = predictor.predict(np.array([[70.0, 50.0]]), np.array([1]))
    assert masks.shape == (3, 100, 140)
    assert low.shape == (3, 128, 128)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_more_than_one_click_falls_back_as_build_sam2_makes_it() -> None:
    assert build_model(NANO_DIR / "nano.yaml").sam_mask_decoder.dynamic_multimask_via_stability


def test_packaged_names_and_files_are_found(tmp_path: Path) -> None:
    assert find_config("configs/sam2.1/sam2.1_hiera_l.yaml").is_file()
    own = tmp_path / "own.yaml"
    own.write_text("model: {}")
    assert find_config(own) == own
    for missing in ("configs/sam2.1/none.yaml", "/nowhere/x.yaml", "../sam2/configs/sam2.1/sam2.1_hiera_l.yaml"):
        with pytest.raises(ModelError, match="does not exist"):
            find_config(missing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be built"),
        ("other: 1", "no 'model' section"),
        ("model: {_target_: os.system, command: 'true'}", "asks for 'os.system'"),
        (
            "model: {_target_: sam2.modeling.sam2_base.torch.load, f: x.pt}",
            r"asks for 'sam2\.modeling\.sam2_base\.torch\.load'",
        ),
        ("model: {_target_: sam2.modeling.sam2_base.trunc_normal_}", "asks for"),
        ("model: {_target_: sam2.modeling.nowhere.Thing}", "asks for"),
        ("model: {_target_: sam2.modeling.sam2_base.SAM2Base}", "cannot be built"),
        ("model: {_target_: sam2.modeling.sam2_base.SAM2Base, x: '${nothing}'}", "cannot be built"),
    ],
)
def test_bad_configs_say_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        build_model(path)
    assert caught.value.hint


ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
REFERENCE_BOMB = "a: [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}:" + f"\n- ${{{old}}}" * 10 + "\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIAS_BOMB + "model: *i", "larger than any model's"),
        (REFERENCE_BOMB + "model: {x: '${i}'}", "larger than any model's"),
        (MERGE_BOMB + "model: *i", "larger than any model's"),
        ("model: " + "[" * 5000 + "]" * 5000, "larger than any model's"),
        ("model: {x: '${y}'}\ny: '${model}'", "larger than any model's"),
        ("# " + "x" * 200_000, "larger than any model's"),
        ("model: &m {x: *m}", "contains itself"),
        ("model: {_target_: '${oc.env:PASSWORD}'}", r"refers to '\$\{oc\.env:PASSWORD\}'"),
        ("model: {x: '${ oc.env : PASSWORD }'}", "refers to"),
        ("model: {x: 'a${oc.env:PASSWORD}b'}", "refers to"),
        ("model: {x: '${y}'}\ny: '${oc.decode:1}'", "refers to"),
    ],
)
def test_a_config_is_bounded_and_sees_nothing_outside_of_itself(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        build_model(path)
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_config_may_refer_to_its_own_values(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = (NANO_DIR / "nano.yaml").read_text()
    assert "image_size: 512" in text
    path.write_text(text.replace("image_size: 512", "image_size: ${sizes.input}") + "\nsizes: {input: 512}\n")
    assert build_model(path).image_size == 512


def test_a_model_is_given_up_while_it_is_built_when_nobody_waits() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise Cancelled("the client went away")

    with pytest.raises(Cancelled):
        build_model("configs/sam2.1/sam2.1_hiera_l.yaml", check=check)
    assert calls == 40
    torch.nn.Sequential(torch.nn.ReLU())
    assert calls == 40  # nothing is looked at afterwards


class _Hostile:
    """What runs a command when it is unpickled without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_bad_checkpoints_say_what_is_wrong(tmp_path: Path) -> None:
    config = NANO_DIR / "nano.yaml"
    path = tmp_path / "bad.pt"
    with pytest.raises(ModelError, match="does not exist"):
        build_model(config, path)
    for content in (b"not a checkpoint", b"hello world", b"e" * 50, b"", b"\x89PNG\r\n\x1a\n" + bytes(50)):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read: it is damaged, or no PyTorch checkpoint") as caught:
            build_model(config, path)
        assert "weights_only" not in caught.value.message + caught.value.hint
    torch.save({"model": _Hostile()}, path)
    with pytest.raises(ModelError, match=r"asks for '\w+\.system': it holds more than tensors") as caught:
        build_model(config, path)
    assert "weights_only" not in caught.value.message + caught.value.hint
    torch.save({"weights": {}}, path)
    with pytest.raises(ModelError, match="no weights under 'model'"):
        build_model(config, path)
    state = torch.load(NANO_DIR / "nano.pt", weights_only=True)["model"]
    first = next(iter(state))
    renamed = {("x." + k if k == first else k): v for k, v in state.items()}
    torch.save({"model": renamed}, path)
    with pytest.raises(ModelError, match=f"missing: {first}; unexpected: x.{first}"):
        build_model(config, path)
    torch.save({"model": {**state, first: state[first][..., :1]}}, path)
    with pytest.raises(ModelError, match="of another shape"):
        build_model(config, path)
