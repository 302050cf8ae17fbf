"""One state of the document, frozen: everything that an edit can change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segment_duo.types import Box, Mask, Point


@dataclass(frozen=True, slots=True)
class Logits:
    """The engine's handle of low-res logits, and the part of the image that they are of (None: all)."""

    handle: str
    part: Box | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the document.

    Attributes:
        masks: in list order.
        selected: ids of the selected masks.
        points, box: the prompt of the mask being made.
        mask_input: the engine's handle of the low-res logits that this prompt refines.
        part: what the model sees of the image for this prompt; None for all of it.
        refines: id of the mask that the prompt corrects; accepting replaces it.
        verdicts: mask id -> accepted or rejected.
        logits: mask id -> the low-res logits it was made with.
    """

    masks: tuple[Mask, ...] = ()
    selected: frozenset[int] = frozenset()
    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask_input: str | None = None
    part: Box | None = None
    refines: int | None = None
    logits: Mapping[int, Logits] = field(default_factory=dict)
    verdicts: Mapping[int, bool] = field(default_factory=dict)
