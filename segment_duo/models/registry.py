"""Which model runs: the one that is named, else the best that is here. No torch here: every command may ask."""

from __future__ import annotations

import difflib

from segment_duo.config import Config
from segment_duo.errors import ConfigError, ModelError
from segment_duo.models import licences
from segment_duo.models.choice import ModelChoice, split_options, with_options
from segment_duo.models.known import CUSTOM, NANO, KnownModel, auto_defaults, plug_in, without_plug_ins
from segment_duo.paths import Paths
from segment_duo.segmenters import plugins
from segment_duo.segmenters.plugins import SAM2
from segment_duo.segmenters.sam2.catalogue import SAM21, ModelSpec

FALLBACK_NOTICE = "Using the small built-in model 'nano'. For better masks: `segduo models pull sam2.1-large` (898 MB)."


def spec_of(model_id: str) -> ModelSpec:
    """The checkpoint to pull for ``model_id``.

    Raises:
        ModelError: none of that name; suggests the nearest.
    """
    for spec in SAM21:
        if spec.id == model_id:
            return spec
    raise unknown_model(model_id, [spec.id for spec in SAM21])


def resolve_model(config: Config, paths: Paths, flag: str | None = None) -> ModelChoice:
    """Which model runs: the flag, else the configured one, else the largest SAM 2.1 checkpoint already pulled, else nano with a notice.

    Raises:
        ModelError: unknown name, not pulled yet, files missing, or a licence that is to be accepted first.
        ConfigError: only one half of the custom pair is set.
    """
    if bool(config.model_config_path) != bool(config.checkpoint_path):
        given, missing = (
            ("model_config_path", "checkpoint_path")
            if config.model_config_path
            else ("checkpoint_path", "model_config_path")
        )
        raise ConfigError(
            f"{given} is set, but {missing} is not", "A custom model needs both: MODEL_CONFIG and CHECKPOINT_PATH."
        )
    named = flag or config.model or (CUSTOM if config.checkpoint_path else None)
    # The first of a name counts: a definition that takes the name of another model is the damaged one.
    models = {model.id: model for model in reversed(without_plug_ins(paths, config))}
    if named is not None:
        name, options = split_options(named)
        found = plugins.describe(name) if name not in models else None
        if found is not None:
            models[name] = plug_in(found)
        if name not in models:
            raise unknown_model(name, [*reversed(models), *plugins.names()])
        choice = _choose(models[name])
        if models[name].asks:
            licences.check(paths, name, models[name].licence)
        return with_options(choice, models[name].options, options)
    for spec in reversed(SAM21):
        if models[spec.id].usable:
            return _choice(models[spec.id])
    if not models[NANO].usable:
        raise ModelError(
            "the built-in model's files are missing", "Install segduo again, or pull a model: segduo models pull."
        )
    return _choice(models[NANO], FALLBACK_NOTICE)


def _choose(model: KnownModel) -> ModelChoice:
    named = model.id
    if model.state in {"missing", "partial"}:
        raise ModelError(
            f"the model '{named}' is not on this machine yet", f"Get it with `segduo models pull {named}`."
        )
    if not model.usable and model.family != SAM2:
        raise ModelError(
            f"the model '{named}' cannot be used: {model.description}", "`segduo doctor` checks all models."
        )
    if not model.usable:
        raise ModelError(
            f"the model '{named}' is incomplete: {model.description}", "`segduo models verify` tells more."
        )
    return _choice(model)


def _choice(model: KnownModel, notice: str = "") -> ModelChoice:
    return ModelChoice(
        model.id,
        model.config,
        str(model.checkpoint) if model.family == SAM2 else "",
        model.sha256,
        notice,
        auto_defaults(model),
        model.family,
        model.capabilities,
        model.input_size,
    )


def unknown_model(named: str, names: list[str]) -> ModelError:
    """The error for a name that no model has."""
    close = difflib.get_close_matches(named, names, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"Known here: {', '.join(names)}."
    return ModelError(f"no model is called '{named}'", hint)
