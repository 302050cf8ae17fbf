"""Stock ``SAM2VideoPredictor`` beside ours: built from the same config and weights, fed with frames from memory; and small films to follow."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf

from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.sam2 import build
from segment_duo.segmenters.sam2.config_file import read_config
from segment_duo.segmenters.sam2.predictor import model_input

from .engine_stock import NANO

if TYPE_CHECKING:
    import numpy.typing as npt
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_video_predictor import SAM2VideoPredictor

Film = Sequence["npt.NDArray[np.uint8]"]


def stock_predictor(model: SAM2Base, config: str, **settings: Any) -> SAM2VideoPredictor:
    """A stock video predictor with the weights of ``model``, as ``build_sam2_video_predictor`` sets it up by default."""
    from hydra.utils import instantiate

    node = read_config(build.find_config(config)).model
    node._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    defaults = {"binarize_mask_from_pts_for_mem_enc": True, "fill_hole_area": 8, **settings}
    extra = {f"sam_mask_decoder_extra_args.{key}": value for key, value in build.DECODER_DEFAULTS.items()}
    for key, value in {**defaults, **extra}.items():
        OmegaConf.update(node, key, value, force_add=True)
    stock: SAM2VideoPredictor = instantiate(node, _recursive_=True)
    stock.load_state_dict(model.state_dict())
    return stock.to(model.device).eval()


@lru_cache(maxsize=8)
def stock_of(config: str, **settings: Any) -> SAM2VideoPredictor:
    """Stock with the weights of :func:`attentive`."""
    return stock_predictor(attentive(config), config, **settings)


def write_micro(folder: Path) -> Path:
    """A config of nano's kind that reads frames at 128 x 128 and has two layers of memory attention: what a long film is followed with in a test."""
    text = (NANO / "nano.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("image_size: 512", "image_size: 128"),
        ("feat_sizes: [32, 32]", "feat_sizes: [8, 8]"),
        ("num_layers: 1\n\n  memory_encoder", "num_layers: 2\n\n  memory_encoder"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "micro.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def make_attentive(model: SAM2Base) -> SAM2Base:
    """Random weights under which memory decides what is found: equality would prove little if it did not matter."""
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(2.0)
        model.maskmem_tpos_enc.mul_(20.0)
        for block in model.memory_encoder.fuser.layers:
            block.gamma.fill_(0.3)
        for layer in model.memory_attention.layers:
            layer.cross_attn_image.k_proj.weight.mul_(4.0)
            layer.cross_attn_image.out_proj.weight.mul_(6.0)
    return model


@lru_cache(maxsize=4)
def attentive(config: str, seed: int = 3) -> SAM2Base:
    torch.manual_seed(seed)
    return make_attentive(build.build_model(config))


def stock_state(stock: SAM2VideoPredictor, film: Film) -> dict[str, Any]:
    """What ``init_state`` makes, without its reader of JPEG folders."""
    height, width = film[0].shape[:2]
    state: dict[str, Any] = {
        name: {}
        for name in (
            "point_inputs_per_obj", "mask_inputs_per_obj", "cached_features", "constants", "output_dict_per_obj",
            "temp_output_dict_per_obj", "frames_tracked_per_obj",
        )
    }  # fmt: skip
    return state | {
        "images": [model_input(frame, stock.image_size)[0] for frame in film],
        "num_frames": len(film),
        "offload_video_to_cpu": False,
        "offload_state_to_cpu": False,
        "video_height": height,
        "video_width": width,
        "device": stock.device,
        "storage_device": stock.device,
        "obj_id_to_idx": OrderedDict(),
        "obj_idx_to_id": OrderedDict(),
        "obj_ids": [],
    }


def stock_masks(
    stock: SAM2VideoPredictor, state: dict[str, Any], **how: Any
) -> Iterator[tuple[int, dict[int, npt.NDArray[np.float32]]]]:
    """``propagate_in_video``, as (frame, logits at frame size by object)."""
    with quiet():
        for frame, ids, logits in stock.propagate_in_video(state, **how):
            yield frame, {number: one[0].cpu().numpy() for number, one in zip(ids, logits, strict=True)}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of a stock without its CUDA extension, and without its progress bars."""
    import sam2.sam2_video_predictor as module

    shown, module.tqdm = module.tqdm, lambda order, **_: order
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        module.tqdm = shown


def small_film_model(name: str, config: str) -> tuple[SAM2Base, str]:
    """A model to measure with, and its config: nano, or one with random weights."""
    if name != "nano":
        torch.manual_seed(3)
        return build.build_model(config), config
    config = str(NANO / config)
    return build.build_model(config, NANO / "nano.pt"), config


class LazyFilm(Sequence["npt.NDArray[np.uint8]"]):
    """A film whose frames are drawn when they are asked for, so that only a segmenter's own memory grows."""

    def __init__(self, frames: int, size: int, discs: int) -> None:
        self._shape = (frames, size, discs)

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, number: int) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError
        return film(1, height=self._shape[1], width=self._shape[1], discs=self._shape[2], first=number)[0]


def film(frames: int, *, height: int = 120, width: int = 160, discs: int = 3, first: int = 0) -> Film:
    """Discs that drift over a noisy ground; see :func:`centre`."""
    rows, cols = np.mgrid[:height, :width]
    out: list[npt.NDArray[np.uint8]] = []
    for number in range(first, first + frames):
        picture = np.random.default_rng(number).normal(70, 12, (height, width))
        for disc in range(discs):
            x, y = centre(disc, number, height, width)
            inside = (rows - y) ** 2 + (cols - x) ** 2 < (height / 10) ** 2
            picture[inside] += 90 + 20 * disc
        grey = np.clip(picture, 0, 255).astype(np.uint8)
        out.append(np.repeat(grey[:, :, None], 3, axis=2))
    return out


def centre(disc: int, frame: int, height: int = 120, width: int = 160) -> tuple[float, float]:
    """x and y of a disc's centre."""
    x = width * (0.2 + 0.25 * (disc % 3)) + 1.5 * (frame % 60)
    y = height * (0.25 + 0.25 * (disc // 3)) + (frame % 60) * (0.7 if disc % 2 else 1.1)
    return x, y


def disc_mask(disc: int, frame: int, height: int = 120, width: int = 160) -> npt.NDArray[np.bool_]:
    x, y = centre(disc, frame, height, width)
    rows, cols = np.mgrid[:height, :width]
    return np.asarray((rows - y) ** 2 + (cols - x) ** 2 < (height / 10) ** 2)


def whole(mask: CroppedMask, shape: Sequence[int]) -> npt.NDArray[np.bool_]:
    """The mask on its frame."""
    full = np.zeros(tuple(shape[:2]), dtype=bool)
    rows, cols = mask.pixels.shape
    full[mask.top : mask.top + rows, mask.left : mask.left + cols] = mask.pixels
    return full
