"""Following objects through frames: what is asked, what is answered, and what a segmenter that can do it keeps meanwhile.

    session.track ── plans steps, reads frames lazily ──> engine ── holds the tracker ──> Tracker.step, one frame a call

A :class:`Tracker` knows pixels, never a file: who drives it decides which frame comes next, so that frames are read when they are needed,
work stops within a frame, and nothing piles up. NumPy arrays cross this border. It must not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from segment_duo.errors import PromptError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.asking import OnProgress, PromptArrays, no_progress, unchecked

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.types import ImageData

Direction = Literal["forward", "backward", "both"]
"""``forward``: from an object's first prompt on; ``backward``: from its last one to the beginning; ``both``: from its first one on, and then from
there back."""


LOOKS_BACK = 15
"""Frames whose results decide what SAM 2.1 finds next, beside the prompted ones; see :attr:`Tracker.looks_back`."""


class Frames(Protocol):
    """Frames of one size, read when they are asked for: :class:`segment_duo.images.sequences.FrameSequence`, or what looks like it."""

    def __len__(self) -> int: ...

    def frame(self, number: int) -> ImageData: ...


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """What says where an object is on one frame; exactly one of ``prompt`` and ``mask``.

    Attributes:
        object_id: the object's number, above 0; the same through all frames.
        frame: counted from 0.
        prompt: points and a box in pixels of the frame. ``multimask_output`` is not looked at: the model decides.
        mask: the object's pixels on this frame, taken as they are.
        correction: the frame was followed before, and this says what was wrong: the object is followed to this frame first, and the
            clicks refine what was found. Otherwise the prompt is answered as if there were no other frames.
    """

    object_id: int
    frame: int
    prompt: PromptArrays | None = None
    mask: CroppedMask | None = None
    correction: bool = False

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.mask is None):
            raise PromptError(f"object {self.object_id}, frame {self.frame}: give either points and a box, or a mask")
        if self.object_id < 1 or self.frame < 0:
            raise PromptError(f"object {self.object_id}, frame {self.frame}: objects count from 1 and frames from 0")


@dataclass(frozen=True, eq=False)
class TrackedObject:
    """An object on one frame.

    Attributes:
        id: as in its prompts.
        mask: in pixels of the frame; empty where the object is not seen.
        score: occlusion logit; 0 or less means that the object is not seen.
    """

    id: int
    mask: CroppedMask
    score: float

    @property
    def seen(self) -> bool:
        return self.score > 0 and self.mask.pixels.size > 0


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """The objects on one frame, by id.

    Attributes:
        frame: counted from 0. With direction ``both`` a frame can come twice, each time with other objects.
        objects: those that are followed on this frame, seen or not.
        notes: what happened at this frame that makes this one and those after it differ from an uninterrupted run; empty as a rule.
    """

    frame: int
    objects: tuple[TrackedObject, ...]
    notes: tuple[str, ...] = ()


Known = Callable[[int], Mapping[int, CroppedMask]]
"""Frame to masks by object id: results of a run before. An object that was followed there and not seen has an empty mask."""


Newcomers = Callable[[int, Mapping[int, CroppedMask]], "Sequence[ObjectPrompt]"]
"""Frame, and the masks of the objects on it by id, to objects that come in there, or that have another mask there: their prompts on that frame."""


@dataclass(frozen=True, eq=False)
class TrackStep:
    """One frame's work for a :class:`Tracker`.

    Attributes:
        frame: counted from 0.
        prompts: of this frame. An object with a prompt that is no correction is answered from it alone; one with a correction is followed first.
        follow: ids of objects that are followed to this frame by what is remembered of them; each was prompted before.
        known: masks, by id, that a run before found here. They are remembered as if they had been found now, and not answered.
        reverse: time runs backward: the frames before this one have higher numbers.
    """

    frame: int
    prompts: Sequence[ObjectPrompt] = ()
    follow: Sequence[int] = ()
    known: Mapping[int, CroppedMask] = field(default_factory=dict)
    reverse: bool = False


class Tracker(ABC):
    """What a segmenter remembers of objects while it follows them. Called from one thread; an exception leaves it as it was before the step."""

    looks_back: int
    """How many frames back its answer depends on: masks of so many frames make a lost tracker go on."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of what is remembered; does not grow with the number of frames."""

    @abstractmethod
    def step(
        self,
        pixels: npt.NDArray[np.uint8],
        step: TrackStep,
        *,
        on_progress: OnProgress = no_progress,
        check: Callable[[], None] = unchecked,
    ) -> tuple[TrackedObject, ...]:
        """Do one frame.

        Args:
            pixels: uint8 (H, W, 3).
            check: called between pieces of work; raises Cancelled.

        Returns:
            The prompted and the followed objects, by id.

        Raises:
            PromptError: an object is to be followed that was never prompted, or a prompt is not on the frame.
        """
