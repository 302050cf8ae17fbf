"""Build a SAM 2 model with the unmodified classes of the ``sam2`` package, and load its checkpoint.

The one place that constructs models: official checkpoints, the shipped nano model and fine-tuned ones take the same path.
It must not choose models (``models.registry`` does), download, or cache. Imports torch and sam2: only the engine's process
and the training code import this module.

A config is a yaml file anywhere on disk, or the name of one inside the ``sam2`` package (``configs/sam2.1/sam2.1_hiera_t.yaml``).
Hydra's search path is not used: ``config_file`` reads the file and ``hydra.utils.instantiate`` builds its ``model`` node.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segment_duo.errors import ModelError
from segment_duo.segmenters.base import unchecked
from segment_duo.segmenters.sam2.config_file import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sam2.modeling.sam2_base import SAM2Base

# What sam2.build_sam.build_sam2 adds to every config by default (apply_postprocessing=True): with more than one click the
# single-mask output falls back to the best of the three when it is unstable.
DECODER_DEFAULTS: dict[str, Any] = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}

_LISTED_KEYS = 4  # names shown in an error about a checkpoint that does not fit


def find_config(config: Path | str) -> Path:
    """Path of a model config: ``config`` itself if it is a file, else the file of that name inside the ``sam2`` package.

    Raises:
        ModelError: there is no such file in either place.
    """
    path = Path(config).expanduser()
    if path.is_file():
        return path
    if not path.is_absolute() and ".." not in path.parts:
        packaged = Path(str(resources.files("sam2"))).joinpath(*path.parts)
        for candidate in (packaged, packaged.with_name(packaged.name + ".yaml")):
            if candidate.is_file():
                return candidate
    raise ModelError(
        f"model config {str(config)!r} does not exist",
        "Give the absolute path of a yaml file, or a name inside the sam2 package such as configs/sam2.1/sam2.1_hiera_l.yaml.",
    )


def build_model(
    config: Path | str,
    checkpoint: Path | str | None = None,
    device: str | torch.device = "cpu",
    *,
    check: Callable[[], None] = unchecked,
) -> SAM2Base:
    """Build the model of ``config`` in evaluation mode, with the weights of ``checkpoint`` if one is given.

    Args:
        config: yaml file, or the name of a config packaged with ``sam2``.
        checkpoint: a file whose top level is ``{"model": state_dict}``; 16-bit values are converted to float32.
            Without it the weights keep their random initial values.
        device: where the model goes.
        check: called often; what it raises ends the building.

    Raises:
        ModelError: the config or the checkpoint is missing, unreadable, or they do not fit each other exactly.
    """
    path = find_config(config)
    model = _instantiate(path, check)  # on the CPU, as sam2.build_sam does
    if checkpoint is not None:
        check()
        state = read_checkpoint(checkpoint)
        check_state_dict(model, state, name=str(checkpoint))
        model.load_state_dict(state)
    return model.to(device).eval()


def read_checkpoint(checkpoint: Path | str) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint file, floating values as float32. Nothing but tensors is ever unpickled.

    Raises:
        ModelError: the file is missing, damaged, or has no ``model`` at its top level.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise ModelError(f"checkpoint {str(path)!r} does not exist", "Fetch the model first, or correct the path.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"checkpoint {str(path)!r} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # torch's reader raises nearly anything on bytes that are no checkpoint
        # Its own text advises to read the file again with weights_only off: what must not be done with a file of this kind.
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise ModelError(
                f"checkpoint {str(path)!r} asks for {asked[1]!r}: it holds more than tensors and was not loaded",
                "Such a file can run code. Use one that holds {'model': state_dict} and nothing else, from a source you trust.",
            ) from error
        raise ModelError(
            f"checkpoint {str(path)!r} cannot be read: it is damaged, or no PyTorch checkpoint of tensors",
            "Fetch it again, or correct the path.",
        ) from error
    state = loaded.get("model") if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(
            f"checkpoint {str(path)!r} has no weights under 'model'", "SAM 2 checkpoints hold {'model': state_dict}."
        )
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def check_state_dict(model: SAM2Base, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Check that ``state`` has exactly the model's tensors, in name and shape.

    Raises:
        ModelError: naming the first missing, unexpected or differently shaped tensors.
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    problems = [
        _listing("missing", [key for key in expected if key not in state]),
        _listing("unexpected", [key for key in state if key not in expected]),
        _listing(
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} instead of {shape}"
                for key, shape in expected.items()
                if key in state and tuple(state[key].shape) != shape
            ],
        ),
    ]
    if any(problems):
        raise ModelError(
            f"checkpoint {name!r} does not fit its config: {'; '.join(p for p in problems if p)}",
            "Config and checkpoint must be of the same model (tiny, small, base-plus, large, or a fine-tuned pair).",
        )


class _Ended(BaseException):
    """Leads a failed check past hydra, which wraps every Exception in one of its own."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


@contextmanager
def _checked_often(check: Callable[[], None]) -> Iterator[None]:
    """Inside, ``check`` is called whenever this thread gives a module a submodule: so a huge model can be given up while it is being built."""
    from torch.nn.modules.module import register_module_module_registration_hook

    here = threading.get_ident()

    def look(*_: object) -> None:
        if threading.get_ident() == here:
            try:
                check()
            except Exception as reason:
                raise _Ended(reason) from None

    handle = register_module_module_registration_hook(look)
    try:
        yield
    except _Ended as ended:
        raise ended.reason from None
    finally:
        handle.remove()


def _instantiate(path: Path, check: Callable[[], None]) -> SAM2Base:
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        node = read_config(path).model
        for key, value in DECODER_DEFAULTS.items():
            if OmegaConf.select(node, f"sam_mask_decoder_extra_args.{key}") is None:
                OmegaConf.update(node, f"sam_mask_decoder_extra_args.{key}", value, force_add=True)
        _refuse_foreign_classes(OmegaConf.to_container(node), path)
        with _checked_often(check):
            model: SAM2Base = instantiate(node, _recursive_=True)
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelError(
            f"model config {str(path)!r} cannot be built: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "Use a SAM 2 model yaml, such as those inside the sam2 package.",
        ) from error
    return model


def _refuse_foreign_classes(node: object, path: Path) -> None:
    """A yaml names the classes that are called; only those of sam2 may be, so that a config is never a way to run code.

    The beginning of the name is not enough: ``sam2.modeling.sam2_base.torch.load`` is a walk out of the package.
    """
    for target in _targets(node):
        module, _, name = target.rpartition(".")
        found = None
        if module.startswith("sam2.modeling."):
            with suppress(ImportError):
                found = getattr(importlib.import_module(module), name, None)
        if not isinstance(found, type) or found.__module__ != module:
            raise ModelError(
                f"model config {str(path)!r} asks for {target!r}", "Only classes under sam2.modeling may be built."
            )


def _targets(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _LISTED_KEYS} more" if len(keys) > _LISTED_KEYS else ""
    return f"{what}: {', '.join(keys[:_LISTED_KEYS])}{more}"
