"""What a fine-tuning run is told, and what it tells: options, the base, progress. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segment_duo.errors import UsageError
from segment_duo.training.validation import (
    Scores,
)

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """Attributes:
    steps: optimizer steps at most.
    lr: highest learning rate of the decoder; falls to zero as a cosine.
    full: also train the image encoder and prompt encoder.
    val_split: share of the pictures kept for validation (at most four); below three pictures the same share of the objects.
    prompts: prompts a step; 0 chooses 12 for inputs up to 512 pixels, 8 above.
    check_every: steps between validations; patience: validations without a better state before an early stop.
    seed: of windows, clicks and scenes.
    """

    steps: int = 240
    lr: float = 3e-4
    full: bool = False
    val_split: float = 0.2
    prompts: int = 0
    check_every: int = 40
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or not 0 <= self.val_split < 1 or self.check_every < 1 or self.prompts < 0:
            raise UsageError(
                "steps, lr, val-split, prompts or check-every are out of range", "See `segduo train --help`."
            )


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What is adapted: the registry's facts. ``auto_defaults`` are its own parameters for automatic masks; the thresholds among them are replaced."""

    id: str
    config: str
    checkpoint: str
    sha256: str
    auto_defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Sent after every step, and from within the longer phases.

    ``phase``: ``prepare`` (pictures), ``train`` (steps), ``validate`` (points of one picture's grid), of which ``step`` of ``steps`` are done;
    ``loss`` of the last step; ``before`` and ``best``: scores of the base and of the best state, None until they are known.
    """

    step: int
    steps: int
    loss: float
    before: Scores | None
    best: Scores | None
    phase: str = "train"


OnTraining = Callable[[TrainingProgress], None]
