"""The files of a fine-tuning run: the state it resumes from, and the finished model with its card.

    <models folder>/.NAME.partial/state.pt     after every check; gone when the model is written
    <models folder>/NAME/                      model.yaml, model.pt, card.json: written beside its place, then renamed

Nothing here trains or scores.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segment_duo import __version__
from segment_duo.segmenters.sam2.build import find_config
from segment_duo.training.views import LabelledPicture

FORMAT = 3
"""Of the state file; a state of another format is not resumed."""

Weights = dict[str, torch.Tensor]


def fingerprint(base_sha256: str, options: Mapping[str, Any], pictures: Sequence[LabelledPicture]) -> str:
    """What a state must agree in to be resumed: base, options and data."""
    facts = {
        "format": FORMAT,
        "base": base_sha256,
        "options": dict(options),
        "data": [[p.sha256, len(p.objects), sum(o.area for o in p.objects), p.complete] for p in pictures],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Checkpoint:
    """The state file of one run, in its folder ``partial``."""

    def __init__(self, partial: Path, mark: str) -> None:
        """``mark``: the run's :func:`fingerprint`."""
        self.partial, self.mark = partial, mark

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state: tensors, numbers and text.

        Raises:
            OSError: the folder cannot be written.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        torch.save({"fingerprint": self.mark, **state}, self.partial / "state.pt.tmp")
        (self.partial / "state.pt.tmp").replace(self.partial / "state.pt")

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state of a run that was cut off; None when there is none, it is damaged, or it is of other data or options."""
        try:
            state = torch.load(self.partial / "state.pt", map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            return None
        return state if isinstance(state, dict) and state.get("fingerprint") == self.mark else None

    def write_model(
        self, target: Path, config: str, weights: Mapping[str, torch.Tensor], card: Mapping[str, Any]
    ) -> None:
        """The finished model, whole or not at all; then the state is removed.

        Raises:
            OSError: it cannot be written.
        """
        staging = self.partial / "finished"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        torch.save({"model": {k: v.detach().cpu() for k, v in weights.items()}}, staging / "model.pt")
        shutil.copyfile(find_config(config), staging / "model.yaml")
        (staging / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        for path in staging.iterdir():
            with _opened(path) as descriptor:
                os.fsync(descriptor)
        staging.rename(target)
        shutil.rmtree(self.partial, ignore_errors=True)


def card_of(
    *,
    base: Mapping[str, Any],
    training: Sequence[LabelledPicture],
    validation: Sequence[LabelledPicture],
    parameters: Mapping[str, Any],
    scores: Mapping[str, Any],
    auto_defaults: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``card.json`` holds. A picture of which some objects were kept apart appears in both roles.

    ``licence`` is left to the owner: whoever shares the weights must say under which terms, and those of the pictures.
    """
    return {
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "program": {"segment_duo": __version__, "torch": torch.__version__},
        "base": dict(base),
        "data": [
            {"name": p.name, "sha256": p.sha256, "masks": len(p.objects), "complete": p.complete, "role": role}
            for role, pictures in (("training", training), ("validation", validation))
            for p in pictures
        ],
        "licence": {"weights": "", "data": "", "note": "Fill in before you share this model."},
        "parameters": dict(parameters),
        "scores": dict(scores),
        "auto_defaults": dict(auto_defaults),
        **run,
    }


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
