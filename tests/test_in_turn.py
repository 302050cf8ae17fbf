"""Points in turn: which prompts are asked in which order, and that a real engine answers each step with the logits of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from segment_duo.config import Resolved
from segment_duo.errors import UsageError
from segment_duo.in_turn import TOGETHER, ask_in_turn
from segment_duo.masks.rle import decode, encode
from segment_duo.results import Candidate, PredictedObject
from segment_duo.segmenters.base import Capability
from segment_duo.session import Session
from segment_duo.types import Box, Mask, Point, Prompt
from tests.engine_fixtures import Home

NOTHING = encode(np.zeros((2, 2), bool))


class Asked:
    """Answers nothing, with logits that tell what was asked."""

    def __init__(self) -> None:
        self.steps: list[list[Prompt]] = []

    def __call__(self, prompts: Sequence[Prompt]) -> list[PredictedObject]:
        self.steps.append(list(prompts))
        handles = [f"{one.object_id} after {len(one.points)}" for one in prompts]
        return [
            PredictedObject(one.object_id, (Candidate(Mask(NOTHING, 0, (0, 0, 0, 0)), handle),))
            for one, handle in zip(prompts, handles, strict=True)
        ]


def ask(*prompts: Prompt) -> tuple[list[PredictedObject], list[list[Prompt]], list[list[Prompt]]]:
    first, last = Asked(), Asked()
    return ask_in_turn(last, first, prompts), first.steps, last.steps


A, B, C, OUT = Point(1, 1), Point(2, 2), Point(3, 3), Point(4, 4, 0)


def test_each_point_refines_the_mask_of_those_before() -> None:
    prompt = Prompt((A, OUT, B), object_id="x")
    found, first, last = ask(prompt)
    assert first == [
        [dataclasses.replace(prompt, points=(A,))],
        [dataclasses.replace(prompt, points=(A, OUT), mask_input="x after 1")],
    ]
    assert last == [[dataclasses.replace(prompt, mask_input="x after 2")]]
    assert [one.object_id for one in found] == ["x"]


def test_an_object_begins_with_its_box_or_an_include_point() -> None:
    box = Box(0, 0, 5, 5)
    _, first, last = ask(Prompt((OUT, A), box=box, object_id="b"))
    assert [step[0].points for step in first] == [(), (OUT,)]
    assert last[0][0] == Prompt((OUT, A), box=box, mask_input="b after 1", object_id="b")
    _, first, last = ask(Prompt((OUT, A, B)))
    assert [step[0].points for step in first] == [(A,), (A, OUT)]
    assert last[0][0].points == (OUT, A, B)  # in the user's order


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt((A,)),
        Prompt(box=Box(0, 0, 5, 5)),
        Prompt((OUT,)),
        Prompt((A, B), mask_input="h"),
        Prompt((A, B), mask=NOTHING),
    ],
)
def test_what_has_one_step_is_asked_as_it_is(prompt: Prompt) -> None:
    _, first, last = ask(prompt)
    assert (first, last) == ([], [[prompt]])


def test_many_objects_go_together_and_come_back_in_order() -> None:
    prompts = [Prompt((A, B, C)[: 1 + i % 3], object_id=str(i)) for i in range(TOGETHER + 5)]
    found, first, last = ask(*prompts)
    assert [one.object_id for one in found] == [one.object_id for one in prompts]
    assert [len(step) for step in last] == [TOGETHER, 5]
    assert {len(step) for step in first} == {21, 10, 3, 2}
    for before, after in zip(prompts, [one for step in last for one in step], strict=True):
        kept = f"{before.object_id} after {len(before.points) - 1}" if len(before.points) > 1 else None
        assert after == dataclasses.replace(before, mask_input=kept)
    assert ask() == ([], [], [])


def test_nano_gets_points_in_turn_and_at_once_if_asked(real_engine: Home) -> None:
    yy, xx = np.ogrid[:160, :200]
    pixels = np.random.default_rng(0).normal(70, 6, (160, 200))
    pixels[(xx - 60) ** 2 + (yy - 70) ** 2 <= 30**2] = 180
    path = real_engine.root / "disc.png"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    session = Session(Resolved(real_engine.config, {}), real_engine.paths)
    image = session.open_image(session.reference(str(path)))
    clicks = Prompt((Point(60, 70), Point(80, 70), Point(120, 70, 0)))
    own, turns, at_once = (
        session.predict_at_scale(image, [clicks], "whole", in_turn=way)[0].best.mask for way in (None, True, False)
    )
    assert own.rle == (turns if session.model.learns_in_turn else at_once).rle
    assert turns.origin is not None
    assert at_once.origin is not None
    assert turns.origin.parameters["mask_input"] is True
    assert "mask_input" not in at_once.origin.parameters
    # As a user who clicks and looks gets it.
    (step,) = session.predict(image, [Prompt(clicks.points[:1])])
    for count in (2, 3):
        (step,) = session.predict(image, [Prompt(clicks.points[:count], mask_input=step.best.logits)])
    assert (decode(step.best.mask.rle) == decode(turns.rle)).all()


def test_a_model_that_refines_no_masks_cannot_take_points_in_turn(
    real_engine: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(Resolved(real_engine.config, {}), real_engine.paths)
    plain = dataclasses.replace(session.model, capabilities=session.model.capabilities - {Capability.MASK_INPUT})
    path = real_engine.root / "grey.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    image = session.open_image(session.reference(str(path)))
    monkeypatch.setattr(Session, "model", property(lambda _session: plain))
    assert not plain.learns_in_turn
    with pytest.raises(UsageError, match="refines no masks"):
        session.predict_at_scale(image, [Prompt((A, B))], in_turn=True)
