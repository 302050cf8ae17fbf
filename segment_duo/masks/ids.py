"""Ids of masks: unique within a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segment_duo.types import Mask


def unique_ids(masks: Sequence[Mask]) -> tuple[Mask, ...]:
    """The masks with the ids they have, or with their positions when two are the same."""
    if len({mask.id for mask in masks}) == len(masks):
        return tuple(masks)
    return tuple(replace(mask, id=position) for position, mask in enumerate(masks))
