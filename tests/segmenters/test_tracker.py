"""Our propagation beside ``SAM2VideoPredictor``: same weights, prompts and frames, the same masks; and the traps of the stock one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from segment_duo.errors import Cancelled, PromptError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.segmenters.base import PromptArrays
from segment_duo.segmenters.sam2.conditioning import MemoryConditioner, pooled
from segment_duo.segmenters.sam2.memory import Memory, ObjectMemory, Reach, Seen
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.segmenters.sam2.tracker import Sam2Tracker
from segment_duo.segmenters.tracking import ObjectPrompt, TrackedObject, TrackStep
from tests.engine_stock import NANO
from tests.stock_video import (
    Film,
    attentive,
    centre,
    disc_mask,
    film,
    quiet,
    stock_masks,
    stock_of,
    stock_state,
    whole,
    write_micro,
)

if TYPE_CHECKING:
    import numpy.typing as npt

Found = dict[int, dict[int, TrackedObject]]
"""Frame, object id, what was found."""
Logits = Mapping[int, Mapping[int, "npt.NDArray[np.float32]"]]

ROUNDING = 1e-4
"""Logits (up to some tenths here) may differ by so much: batches, blocks of attention and the order of two matrix products round differently.
With AVX-512 they stayed below 2e-5, with AVX2 2.2e-5 was seen."""


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_micro(tmp_path_factory.mktemp("micro")))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterable[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tracker_of(config: str, frames: int) -> Sam2Tracker:
    return Sam2Tracker(Predictor(attentive(config)), frames)


def points(
    ident: int, frame: int, *places: tuple[float, float], labels: Sequence[int] = (), **more: Any
) -> ObjectPrompt:
    arrays = PromptArrays(
        np.array(places, np.float32).reshape(-1, 2), np.array(labels or [1] * len(places)), box=more.pop("box", None)
    )
    return ObjectPrompt(ident, frame, arrays, **more)


def run(
    tracker: Sam2Tracker,
    pictures: Film,
    prompts: Sequence[ObjectPrompt],
    order: Iterable[int],
    *,
    reverse: bool = False,
) -> Found:
    """Prompts first, as stock's users give them, then frame by frame."""
    found: Found = {}
    for frame in sorted({prompt.frame for prompt in prompts}):
        here = [prompt for prompt in prompts if prompt.frame == frame]
        found[frame] = by_id(tracker.step(pictures[frame], TrackStep(frame, here)))
    first = {prompt.object_id: prompt.frame for prompt in prompts}
    for frame in order:
        follow = [
            ident
            for ident, begin in first.items()
            if (frame < begin if reverse else frame > begin) and ident not in found.get(frame, {})
        ]
        if follow:
            step = TrackStep(frame, follow=follow, reverse=reverse)
            found[frame] = found.get(frame, {}) | by_id(tracker.step(pictures[frame], step))
    return found


def by_id(objects: Iterable[TrackedObject]) -> dict[int, TrackedObject]:
    return {one.id: one for one in objects}


def assert_equal(found: Found, stock: Logits, shape: Sequence[int]) -> None:
    """The same masks. A pixel whose logit is as near to zero as rounding reaches may fall on either side: one in 100,000 at most does."""
    near = pixels = 0
    for frame, objects in found.items():
        for ident, one in objects.items():
            logits = stock[frame][ident]
            differs = whole(one.mask, shape) != (logits > 0)
            assert np.abs(logits[differs]).max(initial=0.0) < ROUNDING, (
                f"frame {frame}, object {ident}: {differs.sum()}"
            )
            near += int(differs.sum())
            pixels += logits.size
    assert near <= 1e-5 * pixels


def assert_telling(found: Found) -> None:
    """Objects differ from each other and from frame to frame: memory matters, and the masks are neither empty nor full."""
    last = found[max(found)]
    areas = [one.mask.area for one in last.values()]
    assert min(areas) > 50
    shape = (120, 160)
    masks = [whole(one.mask, shape) for one in last.values()]
    for one, other in itertools.pairwise(masks):
        assert (one != other).sum() > 20


def test_nano_equals_stock_in_masks_and_logits() -> None:
    config = str(NANO / "nano.yaml")
    pictures = film(3)
    stock = stock_of(config)
    state = stock_state(stock, pictures)
    with quiet():
        for ident in (1, 2):
            stock.add_new_points_or_box(state, 0, ident, points=[centre(ident, 0)], labels=[1])
    reference = dict(stock_masks(stock, state))

    tracker = tracker_of(config, len(pictures))
    logits: list[torch.Tensor] = []
    decode = tracker.heads.followed

    def recorded(*given: Any) -> Any:
        outcome = decode(*given)
        logits.append(outcome.low_res)
        return outcome

    tracker.heads.followed = recorded  # type: ignore[method-assign]
    found = run(tracker, pictures, [points(1, 0, centre(1, 0)), points(2, 0, centre(2, 0))], range(1, 3))
    assert_equal(found, reference, pictures[0].shape)
    for frame, ours in enumerate(logits, start=1):
        for row, ident in enumerate((1, 2)):
            held = state["output_dict_per_obj"][row]["non_cond_frame_outputs"][frame]
            assert (ours[row] - held["pred_masks"][0, 0]).abs().max() < ROUNDING
            assert abs(found[frame][ident].score - float(held["object_score_logits"])) < ROUNDING


def test_a_long_film_needs_only_the_last_frames(micro: str) -> None:
    pictures = film(20)
    stock = stock_of(micro)
    state = stock_state(stock, pictures)
    with quiet():
        for ident in (1, 2):
            stock.add_new_points_or_box(state, 0, ident, points=[centre(ident, 0)], labels=[1])
    reference = dict(stock_masks(stock, state))
    tracker = tracker_of(micro, len(pictures))
    found = run(tracker, pictures, [points(ident, 0, centre(ident, 0)) for ident in (1, 2)], range(1, 20))
    assert_equal(found, reference, pictures[0].shape)
    assert_telling(found)
    held = tracker.memory_of(1)
    assert len(held.followed) <= 2 * 17  # the last ones, and those just behind the prompt for a pass backward
    assert sum(memory.features is not None for memory in held.followed.values()) <= 2 * 8


def test_objects_may_start_on_different_frames_where_stock_fails_on_a_cpu(micro: str) -> None:
    """Trap 2: one stock state fails; one for each first frame is what ours must equal."""
    pictures = film(12)
    stock = stock_of(micro)
    begins = {1: 0, 2: 3, 3: 7}
    prompts = [points(ident, frame, centre(ident, frame)) for ident, frame in begins.items()]
    together = stock_state(stock, pictures)
    reference: dict[int, dict[int, Any]] = {}
    with quiet():
        for ident, frame in begins.items():
            alone = stock_state(stock, pictures)
            for state in (together, alone):
                stock.add_new_points_or_box(state, frame, ident, points=[centre(ident, frame)], labels=[1])
            for number, logits in stock_masks(stock, alone):
                reference.setdefault(number, {}).update(logits)
    with pytest.raises(RuntimeError, match="same dtype"):
        list(stock_masks(stock, together))
    found = run(tracker_of(micro, len(pictures)), pictures, prompts, range(12))
    assert_equal(found, reference, pictures[0].shape)
    assert [len(found[frame]) for frame in (0, 5, 11)] == [1, 2, 3]


def test_stock_goes_backward_from_the_earliest_prompt_only_and_counts_one_frame_more(micro: str) -> None:
    """Trap 4; ours is asked for each frame by itself, whatever was prompted where."""
    pictures = film(6)
    stock = stock_of(micro)
    state = stock_state(stock, pictures)
    with quiet():
        for frame in (0, 4):
            stock.add_new_points_or_box(state, frame, 1, points=[centre(1, frame)], labels=[1])
    assert [frame for frame, _ in stock_masks(stock, state, reverse=True)] == []
    assert [frame for frame, _ in stock_masks(stock, state, max_frame_num_to_track=3)] == [0, 1, 2, 3]

    tracker = tracker_of(micro, len(pictures))
    prompts = [points(1, frame, centre(1, frame)) for frame in (0, 4)]
    found = run(tracker, pictures, prompts[1:], range(3, 0, -1), reverse=True)
    assert sorted(found) == [1, 2, 3, 4]
    assert all(found[frame][1].seen for frame in found)


def test_backward_and_forward_then_backward(micro: str) -> None:
    pictures = film(22)
    stock = stock_of(micro)
    state = stock_state(stock, pictures)
    with quiet():
        for ident in (1, 2):
            stock.add_new_points_or_box(state, 5, ident, points=[centre(ident, 5)], labels=[1])
    prompts = [points(ident, 5, centre(ident, 5)) for ident in (1, 2)]
    alone = dict(stock_masks(stock, state, reverse=True))
    tracker = tracker_of(micro, len(pictures))
    assert_equal(run(tracker, pictures, prompts, range(4, -1, -1), reverse=True), alone, pictures[0].shape)

    with quiet():
        stock.reset_state(state)
        for ident in (1, 2):
            stock.add_new_points_or_box(state, 5, ident, points=[centre(ident, 5)], labels=[1])
    forward = dict(stock_masks(stock, state))
    back = dict(stock_masks(stock, state, reverse=True))
    tracker = tracker_of(micro, len(pictures))
    assert_equal(run(tracker, pictures, prompts, range(6, 22)), forward, pictures[0].shape)
    found = {
        frame: by_id(tracker.step(pictures[frame], TrackStep(frame, follow=[1, 2], reverse=True)))
        for frame in range(4, -1, -1)
    }
    assert_equal(found, back, pictures[0].shape)
    # What lies ahead is seen in a pass back: without it the masks would be those of the pass alone.
    assert any((alone[4][ident] > 0).tolist() != (back[4][ident] > 0).tolist() for ident in (1, 2))


def test_masks_boxes_and_several_clicks(micro: str) -> None:
    pictures = film(6)
    stock = stock_of(micro)
    state = stock_state(stock, pictures)
    x, y = centre(1, 0)
    clicks = [(x, y), (x + 4, y - 3), (5.0, 5.0)]
    box = (x - 15, y - 15, x + 15, y + 15)
    given = disc_mask(2, 0)
    with quiet():
        stock.add_new_points_or_box(state, 0, 1, points=clicks, labels=[1, 1, 0])
        stock.add_new_points_or_box(state, 0, 2, box=box)
        stock.add_new_points_or_box(state, 0, 3, box=box, points=[(x, y)], labels=[1])
        stock.add_new_mask(state, 0, 4, given)
        stock.add_new_mask(state, 2, 4, disc_mask(2, 2))
    reference = dict(stock_masks(stock, state))
    prompts = [
        points(1, 0, *clicks, labels=[1, 1, 0]),
        points(2, 0, box=box),
        points(3, 0, (x, y), box=box),
        ObjectPrompt(4, 0, mask=CroppedMask.of(given)),
        ObjectPrompt(4, 2, mask=CroppedMask.of(disc_mask(2, 2))),
    ]
    tracker = tracker_of(micro, len(pictures))
    found = {
        frame: by_id(tracker.step(pictures[frame], TrackStep(frame, [p for p in prompts if p.frame == frame])))
        for frame in (0, 2)
    }
    for frame in range(1, 6):
        follow = [ident for ident in (1, 2, 3, 4) if ident not in found.get(frame, {})]
        found[frame] = found.get(frame, {}) | by_id(tracker.step(pictures[frame], TrackStep(frame, follow=follow)))
    # A mask that was given is answered as it is; stock answers it blurred by its way to low resolution and back.
    assert (whole(found[0].pop(4).mask, given.shape) == given).all()
    assert (whole(found[2].pop(4).mask, given.shape) == disc_mask(2, 2)).all()
    assert_equal(found, reference, pictures[0].shape)


def test_a_correction_holds(micro: str) -> None:
    """Trap 1: stock loses it by default; ours equals stock where every corrected frame becomes a conditioned one."""
    pictures = film(12)
    wrong = (30.0, 100.0)

    def corrected(**settings: Any) -> tuple[dict[int, Any], dict[int, Any]]:
        stock = stock_of(micro, **settings)
        state = stock_state(stock, pictures)
        with quiet():
            for ident in (1, 2):
                stock.add_new_points_or_box(state, 0, ident, points=[centre(ident, 0)], labels=[1])
            before = dict(stock_masks(stock, state))
            stock.add_new_points_or_box(state, 6, 1, points=[centre(1, 6), wrong], labels=[1, 0])
            return before, before | dict(stock_masks(stock, state, start_frame_idx=6))

    before, lost = corrected()
    assert all((lost[frame][1] == before[frame][1]).all() for frame in range(6, 12)), "stock keeps corrections by now"
    _, reference = corrected(add_all_frames_to_correct_as_cond=True)
    assert any(((reference[frame][1] > 0) != (before[frame][1] > 0)).any() for frame in range(7, 12))

    tracker = tracker_of(micro, len(pictures))
    found = run(tracker, pictures, [points(ident, 0, centre(ident, 0)) for ident in (1, 2)], range(1, 6))
    correction = points(1, 6, centre(1, 6), wrong, labels=[1, 0], correction=True)
    found[6] = by_id(tracker.step(pictures[6], TrackStep(6, [correction], follow=[2])))
    for frame in range(7, 12):
        found[frame] = by_id(tracker.step(pictures[frame], TrackStep(frame, follow=[1, 2])))
    assert_equal(found, reference, pictures[0].shape)


def test_stock_options_that_fail_or_change_masks_are_not_needed(micro: str) -> None:
    """Trap 3: the advice to clear memories around a click fails. Holes are filled with stock's CUDA extension alone."""
    pictures = film(3)
    stock = stock_of(micro, clear_non_cond_mem_around_input=True)
    state = stock_state(stock, pictures)
    with quiet():
        stock.add_new_points_or_box(state, 0, 1, points=[centre(1, 0)], labels=[1])
    with pytest.raises(AttributeError):
        list(stock_masks(stock, state))


def test_holes_stay_and_masks_overlap_as_they_do_in_stock_on_a_cpu(micro: str) -> None:
    """``fill_hole_area`` asks for stock's CUDA extension, ``non_overlap_masks`` is off by default; with it stock gives a pixel to one object only."""
    from sam2.utils.misc import fill_holes_in_mask_scores

    pictures = film(4)
    place = centre(1, 0)
    prompts = [points(1, 0, place), points(2, 0, (place[0] + 3, place[1])), points(3, 0, centre(2, 0))]

    def reference(**settings: Any) -> Logits:
        stock = stock_of(micro, **settings)
        state = stock_state(stock, pictures)
        with quiet():
            for one in prompts:
                assert one.prompt is not None
                stock.add_new_points_or_box(state, 0, one.object_id, points=one.prompt.points, labels=one.prompt.labels)
        return dict(stock_masks(stock, state))

    found = run(tracker_of(micro, len(pictures)), pictures, prompts, range(1, 4))
    shape = pictures[0].shape
    assert_equal(found, reference(), shape)
    assert_equal(found, reference(fill_hole_area=0), shape)
    masks = {ident: whole(found[3][ident].mask, shape) for ident in (1, 2, 3)}
    assert (masks[1] & masks[2]).sum() > 50
    alone = reference(non_overlap_masks=True)
    assert not ((alone[3][1] > 0) & (alone[3][2] > 0)).any()
    # No mask here has a hole; one that is given keeps it, and so do stock's scores without the extension.
    ring = disc_mask(1, 0)
    ring[int(place[1]), int(place[0])] = False
    (kept,) = tracker_of(micro, 1).step(pictures[0], TrackStep(0, [ObjectPrompt(1, 0, mask=CroppedMask.of(ring))]))
    assert (whole(kept.mask, shape) == ring).all()
    scores = torch.from_numpy(np.where(ring, 1.0, -1.0))[None, None]
    with quiet():
        assert torch.equal(fill_holes_in_mask_scores(scores.clone(), 8), scores)


def test_an_object_that_is_gone_has_an_empty_mask_and_returns(micro: str) -> None:
    model = attentive(micro)
    bias = model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    pictures = film(4)
    tracker = tracker_of(micro, len(pictures))
    tracker.step(pictures[0], TrackStep(0, [points(1, 0, centre(1, 0))]))
    with torch.no_grad():
        bias.fill_(-20.0)
        (gone,) = tracker.step(pictures[1], TrackStep(1, follow=[1]))
        bias.fill_(2.0)
        (back,) = tracker.step(pictures[2], TrackStep(2, follow=[1]))
    assert gone.score < 0
    assert gone.mask.area == 0
    assert not gone.seen
    assert back.seen


def test_a_cancelled_frame_leaves_no_trace(micro: str) -> None:
    pictures = film(3)
    prompts = [points(ident, 0, centre(ident, 0)) for ident in (1, 2)]
    straight = tracker_of(micro, 3)
    run(straight, pictures, prompts, [1])
    wanted = straight.step(pictures[2], TrackStep(2, follow=[1, 2]))

    tracker = tracker_of(micro, 3)
    run(tracker, pictures, prompts, [1])
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Cancelled("stopped")

    before = tracker.memory_of(1).followed.copy()
    with pytest.raises(Cancelled):
        tracker.step(pictures[2], TrackStep(2, follow=[1, 2]), check=check)
    assert tracker.memory_of(1).followed == before
    for ours, theirs in zip(tracker.step(pictures[2], TrackStep(2, follow=[1, 2])), wanted, strict=True):
        assert (whole(ours.mask, (120, 160)) == whole(theirs.mask, (120, 160))).all()
    # And once more, as a client does that did not get the answer.
    again = tracker.step(pictures[2], TrackStep(2, follow=[1, 2]))
    assert [one.score for one in again] == [one.score for one in wanted]


def test_what_is_remembered_does_not_grow() -> None:
    reach = Reach(memories=7, stride=1, pointers=16, conditioned=-1, past_pointers=True, signed=True, frames=1000)
    memory = Memory(torch.zeros(64, 64, dtype=torch.bfloat16), torch.zeros(128))
    held = ObjectMemory()
    held.condition(10, memory)
    sizes = []
    for frame in range(11, 200):
        held.follow(frame, memory, reach)
        sizes.append(held.nbytes)
    assert len(set(sizes[40:])) == 1
    # Twice what the model sees: the last frames, and those just behind the prompt, which a pass backward looks at.
    assert sizes[-1] <= memory.nbytes + 2 * (7 * memory.nbytes + 9 * 128 * 4)
    assert held.seen_from(200, reach, reverse=False).lengths == (7, 16)
    assert held.seen_from(9, reach, reverse=True).lengths == (6, 15)  # the prompt itself is the first frame back


def test_known_masks_take_the_place_of_a_memory_that_is_lost(micro: str) -> None:
    pictures = film(20)
    prompts = [points(ident, 0, centre(ident, 0)) for ident in (1, 2)]
    found = run(tracker_of(micro, 20), pictures, prompts, range(1, 19))
    anew = tracker_of(micro, 20)
    anew.step(pictures[0], TrackStep(0, prompts))
    for frame in range(4, 19):
        known = {ident: one.mask for ident, one in found[frame].items()}
        assert anew.step(pictures[frame], TrackStep(frame, known=known)) == ()
    after = by_id(anew.step(pictures[19], TrackStep(19, follow=[1, 2])))
    assert after.keys() == {1, 2}
    assert all(one.mask.area for one in after.values())


def test_what_cannot_be_followed_is_refused(micro: str) -> None:
    pictures = film(2)
    tracker = tracker_of(micro, 2)
    with pytest.raises(PromptError, match="object 5 is not known on frame 1"):
        tracker.step(pictures[1], TrackStep(1, follow=[5]))
    outside = CroppedMask(np.ones((10, 10), dtype=bool), 155, 0)
    with pytest.raises(PromptError, match="reaches out of frame 0"):
        tracker.step(pictures[0], TrackStep(0, [ObjectPrompt(1, 0, mask=outside)]))
    tracker.step(pictures[0], TrackStep(0, [points(1, 0, centre(1, 0))]))
    with pytest.raises(PromptError, match="those before are 160 x 120"):
        tracker.step(pictures[1][:100], TrackStep(1, follow=[1]))
    with pytest.raises(PromptError, match="either points and a box, or a mask"):
        ObjectPrompt(1, 0)


def test_the_fast_mode_pools_what_it_remembers_of_followed_frames(micro: str) -> None:
    pictures = film(12)
    prompts = [points(ident, 0, centre(ident, 0)) for ident in (1, 2)]
    exact = tracker_of(micro, len(pictures))
    fast = Sam2Tracker(Predictor(attentive(micro)), len(pictures), fast=True)
    found, other = (run(tracker, pictures, prompts, range(1, 12)) for tracker in (exact, fast))
    sizes = [
        {len(one.features) for one in held.values() if one.features is not None}
        for memory in fast._objects.values()
        for held in (memory.conditioned, memory.followed)
    ]
    assert sizes == [{64}, {16}] * 2
    shape = pictures[0].shape
    overlaps = []
    for frame in range(1, 12):
        for ident in (1, 2):
            a, b = whole(found[frame][ident].mask, shape), whole(other[frame][ident].mask, shape)
            overlaps.append((a & b).sum() / (a | b).sum())
    assert np.mean(overlaps) > 0.9
    assert min(overlaps) < 1.0


@torch.inference_mode()
def test_a_map_that_is_even_attends_alike_to_whole_and_pooled_memories(micro: str) -> None:
    """Four equal tokens and one that stands for them differ by where they lie alone; without positions they are the same."""
    model = attentive(micro)
    conditioner = MemoryConditioner(model, 16)
    conditioner._space = torch.zeros_like(conditioner._spatial())
    for layer in model.memory_attention.layers:
        conditioner.frame(torch.zeros(64, 128), torch.zeros(64, 128))
        layer.cross_attn_image.freqs_cis = torch.ones_like(layer.cross_attn_image.freqs_cis)
    try:
        features = torch.randn(1, 1, 64).expand(1, 64, 64).to(torch.bfloat16)
        shared = conditioner.frame(torch.randn(64, 128), torch.zeros(64, 128))
        pointer = (1, torch.randn(128))
        seen = [Seen([(6, one)], [pointer]) for one in (features[0], pooled(features)[0])]
        whole_, quarter = (conditioner.objects(shared, [one], lambda: None) for one in seen)
        torch.testing.assert_close(whole_, quarter, rtol=1e-4, atol=1e-4)
    finally:
        for layer in model.memory_attention.layers:
            layer.cross_attn_image.freqs_cis = layer.cross_attn_image.compute_cis(end_x=8, end_y=8)
