"""Looking closer at a prompt's part of the picture: which windows are asked, which answer stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segment_duo.boxes import covered, whole
from segment_duo.closer import look_closer, part_around
from segment_duo.config import Resolved
from segment_duo.masks.rle import bounding_box, decode, encode_crop
from segment_duo.results import Candidate, PredictedObject
from segment_duo.session import Session
from segment_duo.types import Box, Mask, Point, Prompt
from tests.engine_fixtures import Home

INPUT = 512


class Squares:
    """A model that finds the square around a click, the better the larger it is in the part. ``sides``: by the click's place."""

    def __init__(self, width: int, height: int, sides: dict[tuple[float, float], int]) -> None:
        self.width, self.height, self.sides = width, height, sides
        self.asked: list[tuple[Box | None, int]] = []

    def __call__(self, prompts: Sequence[Prompt], part: Box | None) -> list[PredictedObject]:
        self.asked.append((part, len(prompts)))
        return [self._answer(prompt, part) for prompt in prompts]

    def _answer(self, prompt: Prompt, part: Box | None) -> PredictedObject:
        left, top, width, height = (0, 0, self.width, self.height) if part is None else covered(part)
        x, y = prompt.points[0].x, prompt.points[0].y
        side = self.sides[x, y]
        x0, y0 = max(int(x) - side // 2, left), max(int(y) - side // 2, top)
        x1, y1 = min(int(x) + side // 2, left + width), min(int(y) + side // 2, top + height)
        rle = encode_crop(np.ones((y1 - y0, x1 - x0), bool), x0, y0, self.height, self.width)
        score = min(1.0, side / max(width, height) * 5)
        mask = Mask(rle, (x1 - x0) * (y1 - y0), bounding_box(rle), 0, score, crop_box=(left, top, width, height))
        return PredictedObject(prompt.object_id, (Candidate(mask, ""),))

    def look(self, *prompts: Prompt, input_size: int = INPUT) -> list[tuple[float, float, float, float]]:
        """The parts that the answers are from, XYWH."""
        found = look_closer(self, prompts, self.width, self.height, input_size)
        return [answer.best.mask.crop_box for answer in found]


def click(x: float, y: float) -> Prompt:
    return Prompt((Point(x, y),))


def test_a_small_object_is_seen_in_the_closest_window_that_suits_it() -> None:
    model = Squares(1000, 800, {(500, 400): 20})
    ((*_, width, height),) = model.look(click(500, 400))
    assert (width, height) == (round(0.3 * INPUT),) * 2
    assert [part if part is None else covered(part)[2] for part, _ in model.asked] == [None, 154]


def test_an_object_too_large_for_a_window_is_seen_whole() -> None:
    model = Squares(1000, 800, {(500, 400): 300})
    assert model.look(click(500, 400)) == [whole(800, 1000)]
    assert model.asked == [(None, 1)]


def test_a_mask_that_its_window_cuts_does_not_count() -> None:
    """The object is 60 pixels wide for the whole picture, and reaches out of the window in the closer look."""

    class Grows(Squares):
        def _answer(self, prompt: Prompt, part: Box | None) -> PredictedObject:
            self.sides = {(500, 400): 60 if part is None else 600}
            return super()._answer(prompt, part)

    model = Grows(1000, 800, {})
    assert model.look(click(500, 400)) == [whole(800, 1000)]
    assert len(model.asked) == 2


def test_a_mask_that_holds_the_click_counts_more_than_a_surer_one_that_does_not() -> None:
    class Beside(Squares):
        """Seen whole, the click is answered with something 100 pixels away that the model is sure of."""

        def _answer(self, prompt: Prompt, part: Box | None) -> PredictedObject:
            if part is not None:
                return super()._answer(prompt, part)
            rle = encode_crop(np.ones((20, 20), bool), 600, 400, self.height, self.width)
            mask = Mask(
                rle, 400, bounding_box(rle), 0, 0.99, crop_box=(0.0, 0.0, float(self.width), float(self.height))
            )
            return PredictedObject(prompt.object_id, (Candidate(mask, ""),))

    model = Beside(1000, 800, {(500, 400): 20})
    assert model.look(click(500, 400))[0][2] == 154
    assert model.look(Prompt((Point(610, 410), Point(500, 400, 0)))) == [whole(800, 1000)]


def test_what_touches_the_pictures_edge_is_not_cut_by_a_window() -> None:
    model = Squares(1000, 800, {(3, 3): 40})
    ((left, top, width, _),) = model.look(click(3, 3))
    assert (left, top) == (0, 0)
    assert width < 400


def test_a_huge_picture_is_not_squeezed_unless_the_object_is_large() -> None:
    model = Squares(10_000, 9_000, {(7000, 5000): 20, (2000, 2000): 900, (5000, 4500): 6000})
    small, middle, large = model.look(click(7000, 5000), click(2000, 2000), click(5000, 4500))
    assert small[2] < INPUT
    assert 1500 < middle[2] < 3200
    assert large == whole(9_000, 10_000)


def test_prompts_near_each_other_share_a_window() -> None:
    places = [(float(500 + 7 * i), float(400 + 5 * i)) for i in range(6)]
    model = Squares(1000, 800, dict.fromkeys(places, 60))
    model.look(*(click(x, y) for x, y in places))
    assert model.asked[0] == (None, 6)
    assert 1 <= len(model.asked[1:]) <= 2


def test_a_window_holds_all_points_and_the_box_or_is_not_looked_at() -> None:
    model = Squares(1000, 800, {(100, 100): 20})
    near = Prompt((Point(100, 100), Point(180, 120, 0)))
    ((left, top, width, height),) = model.look(near)
    assert width == 154
    for x, y in ((100, 100), (180, 120)):
        assert left <= x < left + width
        assert top <= y < top + height
    assert model.look(Prompt((Point(100, 100), Point(900, 700, 0)))) == [whole(800, 1000)]
    assert model.look(Prompt((Point(100, 100),), box=Box(50, 50, 700, 700))) == [whole(800, 1000)]


def test_a_model_that_takes_pictures_as_they_are_sees_all() -> None:
    model = Squares(5000, 4000, {(500, 400): 20})
    assert model.look(click(500, 400), input_size=0) == [whole(4000, 5000)]
    assert model.asked == [(None, 1)]


def test_nothing_is_asked_for_no_prompts() -> None:
    model = Squares(5000, 4000, {})
    assert model.look() == []
    assert model.asked == []


def test_windows_lie_on_a_raster_inside_the_picture() -> None:
    parts = {part_around((x, y), 200, 1000, 150) for x in range(400, 420, 3) for y in (0, 75, 149)}
    assert len(parts) <= 2
    for part in parts:
        assert part is not None
        assert covered(part)[1:] == (0, 200, 150)
    assert part_around((999, 0), 200, 1000, 150) == Box(800, 0, 999, 149)
    assert part_around((100, 70), 200, 1000, 150, [(0, 70), (900, 70)]) is None


def test_a_small_disc_in_a_large_picture_is_found_with_one_click(real_engine: Home) -> None:
    large = np.random.default_rng(0).normal(80, 8, (2400, 2400)).clip(0, 255)
    yy, xx = np.ogrid[:2400, :2400]
    truth = (xx - 1500) ** 2 + (yy - 900) ** 2 <= 12**2
    large[truth] = 190
    path = real_engine.root / "large.png"
    Image.fromarray(large.astype(np.uint8)).save(path)
    session = Session(Resolved(real_engine.config, {}), real_engine.paths)
    image = session.open_image(session.reference(str(path)))
    (found,) = session.predict_at_scale(image, [click(1500, 900)], "closer")
    mask = found.best.mask
    bits = decode(mask.rle)
    assert bits.shape == truth.shape
    assert mask.origin is not None
    if session.model.id == "nano":  # of weights of chance nothing can be asked
        assert mask.origin.parameters["part"] is not None
        assert (bits & truth).sum() / (bits | truth).sum() > 0.8
    (at_once,) = session.predict_at_scale(image, [click(1500, 900)], "whole")
    assert at_once.best.mask.origin is not None
    assert "part" not in at_once.best.mask.origin.parameters
    (own,) = session.predict_at_scale(image, [click(1500, 900)])
    assert own.best.mask.rle == (found if session.model.is_small else at_once).best.mask.rle
