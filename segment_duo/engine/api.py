"""The engine as front ends see it: one call for every operation, whichever way it is reached.

    engine = connect(config, paths)
    state = engine.ensure_image(pixels, model=choice)
    objects = engine.predict(state.id, [Prompt(points=(Point(10, 20),))], model=choice)

Implemented by the daemon's client and by the engine of the calling process. Heavy imports (requests, NumPy) happen in the calls that need them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from segment_duo.engine.protocol import (
    AUTO,
    PREDICT,
    TRACK,
    A,
    AutoEvent,
    AutoRequest,
    ImageState,
    ModelRequest,
    Operation,
    PredictRequest,
    Q,
    TrackEvent,
    TrackFrameRequest,
)
from segment_duo.engine.reports import EngineStatus, ModelList, ReleaseReport
from segment_duo.errors import ModelError
from segment_duo.models.choice import ModelChoice, split_options, with_options
from segment_duo.parameters import AutoParameters
from segment_duo.results import AutoResult, PredictedObject
from segment_duo.segmenters.base import Option
from segment_duo.types import Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]


class Engine(ABC):
    """What computes. All methods raise classes of :mod:`segment_duo.errors` only."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def status(self) -> EngineStatus:
        """What the engine holds and does; answers at once, also while it computes."""

    @abstractmethod
    def doing(self) -> str:
        """What it does now, in a few words for whoever waits for it. Soon there, raises nothing."""

    @abstractmethod
    def models(self) -> ModelList:
        """The models the engine itself can run, with its default."""

    @abstractmethod
    def ensure_image(
        self,
        pixels: Pixels | Callable[[], Pixels],
        *,
        image_id: str | None = None,
        model: ModelChoice | None = None,
        embed: bool = True,
    ) -> ImageState:
        """Make the engine know an image and (``embed``) its embedding; nothing travels or is computed that is there already.

        Args:
            pixels: uint8, shape (H, W, 3), or a function that returns them (called only when they must travel; needs ``image_id``).
            image_id: ``protocol.image_id(pixels)`` if known, else it is computed.
            model: None is the engine's default.
        """

    @abstractmethod
    def image_state(self, image_id: str, *, model: ModelChoice | None = None) -> ImageState:
        """What the engine holds of an image; no computation. An unknown image has ``embedding`` None and ``pixels`` False."""

    @abstractmethod
    def call(
        self,
        operation: Operation[Q, A],
        image_id: str,
        request: Q,
        *,
        on_event: Callable[[Any], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> A:
        """Have an operation done on an image that the engine knows, or can be told of again.

        Args:
            on_event: sees every event of an operation that streams.
            cancelled: is asked about twice a second while a stream runs.

        Raises:
            Cancelled: ``cancelled`` returned True; the engine stops at its next check.
        """

    @abstractmethod
    def model_request(self, model: ModelChoice | None) -> ModelRequest:
        """A model as this engine is asked for it."""

    @abstractmethod
    def release(self, image_id: str | None = None) -> ReleaseReport:
        """Forget one image or all: pixels, embeddings and candidates, in memory and on disk."""

    @abstractmethod
    def hold_track(self, track: str) -> AbstractContextManager[None]:
        """While the block runs the engine keeps a track; at its end, or with the end of this process, it forgets it."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the engine."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. The engine goes on."""

    def predict(
        self,
        image_id: str,
        prompts: Sequence[Prompt],
        *,
        model: ModelChoice | None = None,
        multimask_output: bool | None = None,
        preview_max_side: int | None = None,
    ) -> list[PredictedObject]:
        """One object for each prompt, in order; coordinates are pixels of the image as it was sent.

        Masks have the size of the image, or with ``preview_max_side`` a smaller one of the same shape (``mask.rle`` says which; ``area``
        and ``bbox`` are then in preview pixels).

        Raises:
            PromptError: a prompt without points and box, not finite, or outside of the image.
            ModelError, EngineFailed, EngineUnavailable
        """
        request = PredictRequest(
            prompts=list(prompts),
            model=self.model_request(model),
            multimask_output=multimask_output,
            preview_max_side=preview_max_side,
        )
        return self.call(PREDICT, image_id, request).objects

    def auto(
        self,
        image_id: str,
        params: AutoParameters,
        *,
        model: ModelChoice | None = None,
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult:
        """All masks of an image. See :meth:`call` for ``on_event`` and ``cancelled``."""
        request = AutoRequest(parameters=params, model=self.model_request(model))
        return self.call(AUTO, image_id, request, on_event=on_event, cancelled=cancelled)

    def track(
        self,
        image_id: str,
        request: TrackFrameRequest,
        *,
        on_event: Callable[[TrackEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> TrackEvent:
        """Advance a track by one frame. See :meth:`call`.

        Raises:
            TrackLost: the engine does not hold this track.
        """
        return self.call(TRACK, image_id, request, on_event=on_event, cancelled=cancelled)


def engine_model(engine: Engine, named: str | None) -> ModelChoice:
    """The model ``named`` among the engine's own, or its default: which models there are is decided by the machine the engine runs on.

    For engines named by ``--socket``; for the user's own engine ``registry.resolve_model`` gives the same answer without asking.

    Raises:
        ModelError: the engine has none of that name.
    """
    models = engine.models().models
    name, given = split_options(named) if named else (None, {})
    for model in models:
        if model.id == name or (name is None and model.default):
            choice = ModelChoice(
                model.id,
                "",
                "",
                model.sha256,
                auto_defaults=model.auto_defaults,
                capabilities=frozenset(model.capabilities),
                input_size=model.input_size,
            )
            return with_options(choice, {key: Option(**option) for key, option in model.options.items()}, given)
    there = ", ".join(model.id for model in models)
    raise ModelError(
        f"the engine has no model '{named}'",
        f"It has: {there}. Pull it on the engine's machine: segduo models pull {named}",
    )
