"""Models of ``transformers``, from tiny configs with random weights. Skipped where the extra [hf] is not installed: importing it takes 10 s."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segment_duo.config import Config
from segment_duo.errors import ModelError
from segment_duo.masks.rle import decode
from segment_duo.models.adding import add_hf
from segment_duo.models.registry import resolve_model
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters import plugins
from segment_duo.segmenters.base import LoadRequest, PromptArrays, Segmenter
from segment_duo.segmenters.hf.hub import find_model, hub_cache
from tests.cli_shell import Shell
from tests.engine_fixtures import Home
from tests.engine_stock import picture

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the extra [hf] is not installed"
)

SIDE = 64
WIDTH = 32

PROMPTS: dict[str, Any] = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16}
DECODER: dict[str, Any] = {"hidden_size": WIDTH, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
VIT: dict[str, Any] = {
    "hidden_size": 16, "output_channels": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 16,
    "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": WIDTH // 2, "initializer_range": 0.02,
}  # fmt: skip
HIERA: dict[str, Any] = {
    "hidden_size": 8, "image_size": [SIDE, SIDE], "blocks_per_stage": [1, 1, 1, 1], "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [],
    "window_positional_embedding_background_size": [4, 4],
}  # fmt: skip


def save_sam(folder: Path) -> None:
    from transformers import SamConfig, SamModel

    SamModel(SamConfig(vision_config=VIT, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)).save_pretrained(
        folder
    )


def save_sam_hq(folder: Path) -> None:
    from transformers import SamHQConfig, SamHQModel

    decoder = DECODER | {"vit_dim": 16}
    SamHQModel(
        SamHQConfig(vision_config=VIT, prompt_encoder_config=PROMPTS, mask_decoder_config=decoder)
    ).save_pretrained(folder)


def save_sam2(folder: Path) -> None:
    from transformers import Sam2Config, Sam2Model

    sizes = [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]
    vision = {
        "backbone_config": HIERA | {"model_type": "sam2_hiera_det_model"}, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": sizes, "fpn_hidden_size": WIDTH,
    }  # fmt: skip
    Sam2Model(
        Sam2Config(vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)
    ).save_pretrained(folder)


def save_edgetam(folder: Path) -> None:
    """Its encoder is one of ``timm``'s, which ``transformers`` does not bring; here the default one of its config, a ResNet."""
    pytest.importorskip("timm")
    from transformers import EdgeTamConfig, EdgeTamModel

    vision = {
        "backbone_channel_list": [1024, 512, 256, 64],
        "backbone_feature_sizes": [[SIDE // 2] * 2, [SIDE // 4] * 2, [SIDE // 8] * 2],
        "fpn_hidden_size": WIDTH,
    }
    prompts = PROMPTS | {"patch_size": 8}
    EdgeTamModel(
        EdgeTamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    ).save_pretrained(folder)


def save_sam3_tracker(folder: Path) -> None:
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 56, "patch_size": 14, "window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": 28,
    }  # fmt: skip
    vision = {
        "backbone_config": backbone,
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    prompts = PROMPTS | {"image_size": 56, "patch_size": 14}
    config = Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    Sam3TrackerModel(config).save_pretrained(folder)


SAVERS: dict[str, Callable[[Path], None]] = {
    "sam": save_sam,
    "sam_hq": save_sam_hq,
    "sam2": save_sam2,
    "edgetam": save_edgetam,
    "sam3_tracker": save_sam3_tracker,
}


def added(home: Home, kind: str, folder: Path) -> Segmenter:
    SAVERS[kind](folder)
    add_hf(home.paths, "tiny", str(folder), taken=[], licence="MIT")
    choice = resolve_model(Config(), home.paths, "tiny")
    return plugins.load(choice.family, LoadRequest("tiny", choice.config))


@needs_transformers
@pytest.mark.parametrize("kind", SAVERS)
def test_clicks_boxes_refinement_and_automatic_masks(kind: str, home: Home, tmp_path: Path) -> None:
    model = added(home, kind, tmp_path / "weights")
    pixels = picture(60, 90)
    embedding = model.embed(pixels)
    again = model.restore(embedding.to_arrays())
    click = PromptArrays(np.array([[30.0, 20.0]], np.float32), np.ones(1, np.int64))
    first, restored = (model.predict(one, [click])[0] for one in (embedding, again))
    assert len(first) == 3
    assert [c.rle for c in first] == [c.rle for c in restored]
    assert (first[0].height, first[0].width) == (60, 90)
    framed = PromptArrays(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), (10, 10, 50, 40))
    both = PromptArrays(click.points, click.labels, (10, 10, 50, 40))
    refined = PromptArrays(click.points, click.labels, mask_input=first[0].low_res)
    answers = model.predict(embedding, [framed, both, refined, refined])
    assert [len(answer) for answer in answers] == [1, 1, 1, 1]
    assert answers[2][0].rle == answers[3][0].rle
    assert answers[2][0].predicted_iou != pytest.approx(first[0].predicted_iou, abs=1e-9)
    p = AutoParameters(
        points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, use_m2m=True
    )
    run = model.automatic(pixels, p, embedding=embedding)
    assert run.points == 9
    assert {decode(mask.rle).shape for mask in run.masks} <= {(60, 90)}


@needs_transformers
def test_a_click_is_answered_as_transformers_itself_answers(home: Home, tmp_path: Path) -> None:
    """Through its own processing of points and masks: SAM 2 squeezes the picture."""
    import torch
    from transformers import Sam2Model

    model = added(home, "sam2", tmp_path / "weights")
    stock = Sam2Model.from_pretrained(tmp_path / "weights").eval()
    pixels = picture(SIDE, SIDE)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        told = stock(
            pixel_values=(batch - mean) / std,
            input_points=torch.tensor([[[[30.0, 20.0]]]]),
            input_labels=torch.ones(1, 1, 1, dtype=torch.int32),
        )
    ours = model.predict(model.embed(pixels), [PromptArrays(np.array([[30, 20]], np.float32), np.ones(1, np.int64))])[0]
    assert [c.predicted_iou for c in ours] == pytest.approx(
        sorted(told.iou_scores.flatten().tolist(), reverse=True), abs=1e-5
    )


@needs_transformers
def test_through_the_program_without_a_network(home: Home, tmp_path: Path) -> None:
    """A hub that never answers is not asked: the address leads nowhere, and the command ends."""
    cache = tmp_path / "hub" / "models--lab--tiny"
    snapshot = cache / "snapshots" / ("0" * 40)
    SAVERS["sam2"](snapshot)
    (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    work = tmp_path / "work"
    work.mkdir()
    nowhere = {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_ENDPOINT": "http://10.255.255.1",
        "SEGDUO_DEVICE": "cpu",
        "NO_COLOR": "1",
    }
    shell = Shell(work, home.environment | nowhere)
    shell.image("discs.png")
    shell.run("models", "add", "tiny", "--transformers", "lab/tiny").ok()
    shown = shell.run("models", "show", "tiny", "--json").ok().json
    assert (shown["family"], shown["licence"], shown["source"]) == ("hf", "Apache-2.0", "hub: lab/tiny")
    done = shell.run("point", "discs.png", "-p", "30,30", "--model", "tiny", "--in-process", "--no-save", "--json").ok()
    assert done.json["masks"] == 1


def config_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class TestFolders:
    def test_what_is_no_model_is_refused(self, tmp_path: Path) -> None:
        for folder, said in (
            (config_folder(tmp_path / "a", model_type="bert"), "'bert' is no mask-generation model"),
            (config_folder(tmp_path / "b", model_type="sam2"), "has no model.safetensors"),
            (tmp_path, "config.json: No such file"),
            (tmp_path / "none", "is neither a folder nor a model in"),
        ):
            with pytest.raises(ModelError, match=said) as raised:
                find_model(str(folder))
            assert raised.value.hint

    def test_weights_of_an_index_lie_beside_it(self, tmp_path: Path) -> None:
        folder = config_folder(tmp_path / "a", model_type="sam")
        index = folder / "model.safetensors.index.json"
        (folder / "part.safetensors").write_bytes(b"")
        index.write_text(json.dumps({"weight_map": {"w": "part.safetensors"}}))
        assert [file.name for file in find_model(str(folder)).files] == ["config.json", index.name, "part.safetensors"]
        index.write_text(json.dumps({"weight_map": {"w": "../part.safetensors"}}))
        with pytest.raises(ModelError, match="not beside it"):
            find_model(str(folder))

    def test_the_cache_is_where_the_hub_keeps_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert hub_cache() == tmp_path / ".cache" / "huggingface" / "hub"
        monkeypatch.setenv("HF_HOME", str(tmp_path / "x"))
        assert hub_cache() == tmp_path / "x" / "hub"

    def test_the_newest_snapshot_counts_where_main_is_not_known(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        snapshots = tmp_path / "models--lab--one" / "snapshots"
        snapshots.mkdir(parents=True)
        folder = config_folder(snapshots / "abc", model_type="sam3_tracker", prompt_encoder_config={"image_size": 504})
        (folder / "model.safetensors").write_bytes(b"")
        found = find_model("lab/one")
        assert (found.folder, found.input_size, found.mean, found.source) == (
            folder,
            504,
            (0.5, 0.5, 0.5),
            "hub: lab/one",
        )

    def test_the_processor_says_how_the_input_is_normalised(self, tmp_path: Path) -> None:
        folder = config_folder(tmp_path / "a", model_type="sam")
        (folder / "model.safetensors").write_bytes(b"")
        told = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}}
        (folder / "processor_config.json").write_text(json.dumps(told))
        assert find_model(str(folder)).mean == (0.1, 0.2, 0.3)

    @pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="the extra [hf] is installed")
    def test_without_the_extra_the_error_says_what_to_install(self, home: Home, tmp_path: Path) -> None:
        folder = config_folder(tmp_path / "a", model_type="sam")
        (folder / "model.safetensors").write_bytes(b"")
        add_hf(home.paths, "tiny", str(folder), taken=[])
        choice = resolve_model(Config(), home.paths, "tiny")
        with pytest.raises(ModelError, match="needs transformers") as raised:
            plugins.load(choice.family, LoadRequest("tiny", choice.config))
        assert "segment-duo[hf]" in raised.value.hint
