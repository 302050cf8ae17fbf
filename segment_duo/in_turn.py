"""Points in turn: each refines the mask of those before it, as when a user clicks, looks, and clicks again.

    box, or the first include point ──> mask ──its logits and the next point──> mask ── ... ──> the answer

A model that learned corrections of its own masks does worse when it gets all points at once. Pure arithmetic around a function that predicts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from segment_duo.results import PredictedObject
from segment_duo.types import Prompt

Ask: TypeAlias = Callable[[Sequence[Prompt]], list[PredictedObject]]
"""One answer for each prompt."""

TOGETHER = 32
"""Prompts asked together: the engine keeps their low-res logits from one step to the next."""


def ask_in_turn(ask: Ask, first: Ask, prompts: Sequence[Prompt]) -> list[PredictedObject]:
    """The answers to prompts whose points are given one after the other.

    Args:
        ask: answers whole prompts.
        first: answers those that are to be refined; only the best candidate counts.
        prompts: one that refines a mask already, or has nothing to begin with, is asked at once.
    """
    found: list[PredictedObject] = []
    for start in range(0, len(prompts), TOGETHER):
        found += _in_turn(ask, first, prompts[start : start + TOGETHER])
    return found


def _in_turn(ask: Ask, first: Ask, prompts: Sequence[Prompt]) -> list[PredictedObject]:
    steps = [_steps(prompt) for prompt in prompts]
    logits: list[str | None] = [None] * len(prompts)
    for number in range(max(map(len, steps), default=1) - 1):
        waiting = [i for i, own in enumerate(steps) if number < len(own) - 1]
        found = first([dataclasses.replace(steps[i][number], mask_input=logits[i]) for i in waiting])
        for i, answer in zip(waiting, found, strict=True):
            logits[i] = answer.best.logits or None
    last = [
        own[-1] if len(own) == 1 else dataclasses.replace(own[-1], mask_input=handle)
        for own, handle in zip(steps, logits, strict=True)
    ]
    return ask(last)


def _steps(prompt: Prompt) -> list[Prompt]:
    """A prompt with ever more of its points, the whole prompt last."""
    begins = prompt.box is not None or any(point.label for point in prompt.points)
    if prompt.mask_input is not None or prompt.mask is not None or not begins:
        return [prompt]
    points = list(prompt.points)
    if prompt.box is None:
        points.insert(0, points.pop(next(i for i, point in enumerate(points) if point.label)))
    begin = 0 if prompt.box is not None else 1
    return [dataclasses.replace(prompt, points=tuple(points[:count])) for count in range(begin, len(points))] + [prompt]
