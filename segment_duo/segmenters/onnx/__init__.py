"""Encoder and decoder pairs as ONNX files, SAM 1 and SAM 2 alike: MobileSAM, distilled models, exports of one's own. Extra ``[onnx]``.

    contents    what a file asks for, read without loading it: custom operators, other files
    signature   which input and output plays which part
    probe       a process of its own that runs the pair once
    pair        the sessions: arrays in, arrays out
    segmenter   the family's face

This module says what is kept of an added pair. Light: every command that names a model imports it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from segment_duo.segmenters.base import Capability

ID = "onnx"
ENCODER = "encoder.onnx"
DECODER = "decoder.onnx"

Preparation = Literal["normalised", "unit", "raw"]
"""What an encoder wants: normalised as SAM's, values from 0 to 1, or the image's own 0 to 255 (it does the rest itself)."""


class Signature(BaseModel):
    """Names of a pair's inputs and outputs by the part they play, and what a run of it showed.

    Attributes:
        image: the encoder's input, of ``image_rank`` dimensions; ``channels_last`` for (H, W, 3) and (1, H, W, 3); ``fixed``: it takes one size
            only, so that we pad.
        features: (the encoder's output, the decoder's input), the image embedding first.
        size: pixels a side of the input.
        low_size: height and width of the low-res logits.
        candidates: masks for a prompt: 1, or 3, or 4 (the single mask first).
        batched: the decoder takes several prompts at once.
        coords, labels, mask_input, has_mask_input, original_size: the decoder's inputs; empty where it has none.
        masks, iou: the decoder's outputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["sam1", "sam2"]
    preparation: Preparation = "normalised"
    image: str
    channels_last: bool = False
    image_rank: int = 4
    fixed: bool = True
    size: int = Field(1024, ge=16, le=8192)
    features: tuple[tuple[str, str], ...]
    coords: str
    labels: str
    mask_input: str = ""
    has_mask_input: str = ""
    original_size: str = ""
    masks: str
    iou: str
    low_size: tuple[int, int] = (256, 256)
    candidates: int = Field(1, ge=1, le=16)
    batched: bool = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the pair can: SAM's prompts all are points with labels."""
        refines = {Capability.MASK_INPUT} if self.mask_input else set()
        return frozenset({Capability.POINTS, Capability.BOX, Capability.AUTOMATIC, *refines})
