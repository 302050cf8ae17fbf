"""Classes: the labels a user works with, their colours and number keys, from ``[classes]`` of ``config.toml``; giving them, and counts by label.

A mask carries its class as its ``label``, a text; nothing else refers to a class, so sets stay readable without any configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segment_duo.masks.overlay import PALETTE
from segment_duo.provenance import edited, label_step
from segment_duo.text import well_formed
from segment_duo.types import Mask, MaskSet, Origin

if TYPE_CHECKING:
    from segment_duo.config import ClassSettings

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class MaskClass:
    """``colour``: RGB. ``key``: a digit from 1 to 9, or empty."""

    name: str
    colour: Colour
    key: str = ""


def classes_of(table: Mapping[str, ClassSettings]) -> tuple[MaskClass, ...]:
    """The classes of a configuration, in its order; colours and keys it does not name are given by place."""
    taken = {one.key for one in table.values()}
    free = [digit for digit in "123456789" if digit not in taken]
    found = []
    for place, (name, one) in enumerate(table.items()):
        colour = _rgb(one.colour) if one.colour else PALETTE[place % len(PALETTE)]
        key = one.key or (free.pop(0) if free else "")
        found.append(MaskClass(name, colour, key))
    return tuple(found)


def colours(classes: Iterable[MaskClass]) -> dict[str, Colour]:
    """Label -> RGB."""
    return {one.name: one.colour for one in classes}


def counts(masks: Iterable[Mask]) -> dict[str, int]:
    """Label -> how many masks have it, most frequent first; "" for those without."""
    return dict(Counter(mask.label for mask in masks).most_common())


def labelled(masks: Sequence[Mask], ids: Container[int], label: str) -> tuple[Mask, ...]:
    """Masks with a label given to those of ``ids``, or taken off by an empty one; their origins say so. Those that have it are the same objects."""
    origins: dict[int, Origin] = {}
    label = well_formed(label)

    def changed(mask: Mask) -> Mask:
        # Masks of one run share an origin, and so they do afterwards.
        origin = origins.get(id(mask.origin)) or edited(mask.origin, label_step(label))
        return replace(mask, label=label, origin=origins.setdefault(id(mask.origin), origin))

    return tuple(changed(mask) if mask.id in ids and mask.label != label else mask for mask in masks)


def ordered_labels(sets: Iterable[MaskSet], classes: Sequence[MaskClass], unlabelled: str) -> list[str]:
    """The labels that a format numbers: all classes in their order, so that numbers are the same in every file, then other labels, sorted.

    Args:
        unlabelled: the name of masks without a label.

    Returns:
        at least one name.
    """
    known = [one.name for one in classes]
    used = {mask.label or unlabelled for mask_set in sets for mask in mask_set.masks}
    return known + sorted(used - set(known)) or [unlabelled]


def _rgb(text: str) -> Colour:
    value = int(text.removeprefix("#"), 16)
    return value >> 16, value >> 8 & 255, value & 255
