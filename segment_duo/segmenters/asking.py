"""What a segmenter's methods are given: prompts as arrays, and how to tell progress and ask whether to stop. Part of the protocol in ``base``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.errors import PromptError
from segment_duo.types import Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class PromptArrays:
    """What asks for one object, in image pixels.

    Attributes:
        points: float32 (N, 2), x and y; may be empty.
        labels: int64 (N,), 1 include, 0 exclude.
        box: XYXY, or None.
        mask_input: low-res logits float32 (h, w) to refine, or None.
        multimask_output: three candidates or one; None follows SAM's advice (three for a single point without box or mask input).
    """

    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    box: tuple[float, float, float, float] | None = None
    mask_input: npt.NDArray[np.float32] | None = None
    multimask_output: bool | None = None

    def __post_init__(self) -> None:
        import numpy as np

        if self.box is None and len(self.points) == 0:
            raise PromptError("a prompt needs a point or a box")
        if len(self.points) != len(self.labels):
            raise PromptError("a prompt needs one label per point")
        if not np.isfinite(self.points).all() or (self.box is not None and not np.isfinite(self.box).all()):
            raise PromptError("prompt coordinates must be finite numbers")

    @classmethod
    def of(
        cls, prompt: Prompt, mask_input: npt.NDArray[np.float32] | None = None, multimask_output: bool | None = None
    ) -> PromptArrays:
        """The points and the box of a prompt; what it refines is given apart.

        Raises:
            PromptError: it has neither.
        """
        import numpy as np

        box = prompt.box
        return cls(
            points=np.array([(point.x, point.y) for point in prompt.points], dtype=np.float32).reshape(-1, 2),
            labels=np.array([point.label for point in prompt.points], dtype=np.int64),
            box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
            mask_input=mask_input,
            multimask_output=multimask_output,
        )

    @property
    def wants_multimask(self) -> bool:
        if self.multimask_output is not None:
            return self.multimask_output
        return len(self.points) == 1 and self.box is None and self.mask_input is None


OnProgress = Callable[[str, int, int], None]
"""Called with (phase, done, total); the phase names the unit: ``points``, ``tiles`` or ``frames``."""


def no_progress(_phase: str, _done: int, _total: int) -> None:
    """Nobody asked for progress."""


def never() -> bool:
    """Nobody asked to cancel."""
    return False


def unchecked() -> None:
    """Nobody asked to cancel, as a check."""
