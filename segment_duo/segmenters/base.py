"""The protocol every segmenter follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segment_duo.errors import PromptError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.types import Rle

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class PromptArrays:
    """What asks for one object, in image pixels.

    Attributes:
        points: float32 (N, 2), x and y; may be empty.
        labels: (N,), 1 include, 0 exclude.
        box: XYXY, or None.
        previous: low-res logits float32 (h, w) to refine, or None.
        multimask: three candidates or one; None follows SAM's advice (three for a single point without box or previous logits).
    """

    points: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    box: tuple[float, float, float, float] | None = None
    previous: npt.NDArray[np.float32] | None = None
    multimask: bool | None = None

    def __post_init__(self) -> None:
        if self.box is None and len(self.points) == 0:
            raise PromptError("a prompt needs a point or a box")
        if len(self.points) != len(self.labels):
            raise PromptError("a prompt needs one label per point")
        if not np.isfinite(self.points).all() or (self.box is not None and not np.isfinite(self.box).all()):
            raise PromptError("prompt coordinates must be finite numbers")

    @property
    def wants_multimask(self) -> bool:
        if self.multimask is not None:
            return self.multimask
        return len(self.points) == 1 and self.box is None and self.previous is None


@dataclass(frozen=True, eq=False)
class CandidateMask:
    """One mask for a prompt.

    Attributes:
        mask: the mask inside its rectangle, at image size or at preview size.
        height, width: the size that ``mask`` refers to.
        predicted_iou, stability_score: as in SAM records; stability is that of the full-size mask with offset 1 (None for a preview).
        low_res: float32 (h, w), clamped to +-32 as SAM does, for :attr:`PromptArrays.previous`.
    """

    mask: CroppedMask
    height: int
    width: int
    predicted_iou: float
    stability_score: float | None
    low_res: npt.NDArray[np.float32]

    @property
    def rle(self) -> Rle:
        return self.mask.rle(self.height, self.width)

    @property
    def area(self) -> int:
        return self.mask.area

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """XYWH with stock's convention: width and height are differences of inclusive pixel indices."""
        rows, cols = self.mask.pixels.shape
        if not rows:
            return (0.0, 0.0, 0.0, 0.0)
        return (float(self.mask.left), float(self.mask.top), float(cols - 1), float(rows - 1))

    def array(self) -> npt.NDArray[np.bool_]:
        """The whole mask, bool (height, width)."""
        full = np.zeros((self.height, self.width), dtype=bool)
        r = self.mask
        full[r.top : r.top + r.pixels.shape[0], r.left : r.left + r.pixels.shape[1]] = r.pixels
        return full


Prediction = tuple[CandidateMask, ...]
"""Candidates for one prompt, best predicted IoU first."""
