"""Prompts: the same masks as stock's predictor, batches of objects, refinement, previews."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from segment_duo.errors import PromptError
from segment_duo.segmenters.base import PromptArrays
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.prompting import preview_size
from tests.engine_stock import make_predictor, picture, small_model, small_predictor

PIXELS = picture(200, 260)


def prompt(*points: tuple[float, float, int], **fields: object) -> PromptArrays:
    array = np.array([p[:2] for p in points], dtype=np.float32).reshape(-1, 2)
    labels = np.array([p[2] for p in points], dtype=np.int64)
    return PromptArrays(array, labels, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def embedding() -> Sam2Embedding:
    return small_predictor().embed(PIXELS)


def stock(
    p: PromptArrays, multimask_output: bool
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    predictor = make_predictor(small_model())
    predictor.set_image(PIXELS)
    masks, iou, low = predictor.predict(
        point_coords=p.points if len(p.points) else None,
        point_labels=p.labels if len(p.points) else None,
        box=None if p.box is None else np.array(p.box),
        mask_input=None if p.mask_input is None else p.mask_input[None],
        multimask_output=multimask_output,
    )
    order = np.argsort(-iou, kind="stable")
    return masks[order].astype(bool), iou[order], low[order]


def assert_equal(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    masks, iou, low = theirs
    assert len(ours) == len(masks)
    for i, candidate in enumerate(ours):
        assert np.array_equal(candidate.array(), masks[i])
        assert candidate.predicted_iou == float(iou[i])
        assert np.array_equal(candidate.low_res, low[i])
        assert candidate.area == int(masks[i].sum())


@pytest.mark.parametrize(
    ("asked", "multimask_output"),
    [
        (prompt((100, 90, 1)), True),
        (prompt((100, 90, 1), multimask_output=False), False),
        (prompt((100, 90, 1), (30, 40, 0)), False),
        (prompt(box=(40.0, 30.0, 150.0, 120.0)), False),
        (prompt((80, 70, 1), box=(40.0, 30.0, 150.0, 120.0), multimask_output=True), True),
    ],
)
def test_one_prompt_equals_stock(embedding: Sam2Embedding, asked: PromptArrays, multimask_output: bool) -> None:
    assert_equal(small_predictor().predict(embedding, [asked])[0], stock(asked, multimask_output))


def test_refining_with_previous_logits_equals_stock(embedding: Sam2Embedding) -> None:
    predictor = small_predictor()
    first = predictor.predict(embedding, [prompt((100, 90, 1))])[0][0]
    second = prompt((100, 90, 1), (140, 60, 0), mask_input=first.low_res)
    assert_equal(predictor.predict(embedding, [second])[0], stock(second, False))


def test_several_objects_share_batches_and_keep_their_order(embedding: Sam2Embedding) -> None:
    predictor = small_predictor()
    asked = [
        prompt((100, 90, 1)),
        prompt((30, 40, 1), (60, 60, 0)),
        prompt((200, 150, 1)),
        prompt(box=(40.0, 30.0, 150.0, 120.0)),
    ]
    together = predictor.predict(embedding, asked)
    assert [len(p) for p in together] == [3, 1, 3, 1]
    for alone, answer in zip(asked, together, strict=True):
        single = predictor.predict(embedding, [alone])[0]
        # Another batch size rounds differently in the last bits of the logits.
        for a, b in zip(single, answer, strict=True):
            assert np.allclose(a.low_res, b.low_res, atol=1e-4)
            assert abs(a.predicted_iou - b.predicted_iou) < 1e-5


def test_preview_masks_have_preview_size(embedding: Sam2Embedding) -> None:
    preview = small_predictor().predict(embedding, [prompt((100, 90, 1))], preview_max_side=65)[0]
    assert preview[0].array().shape == (50, 65)
    assert preview[0].stability_score is None
    assert preview_size(100, 50, 200) == (100, 50)
    assert preview_size(2000, 3, 20) == (20, 1)


def test_embeddings_survive_their_tensors_with_the_same_bits(embedding: Sam2Embedding) -> None:
    predictor = small_predictor()
    restored = Sam2Embedding.from_arrays(embedding.to_arrays())
    assert (restored.height, restored.width) == (200, 260)
    for restored_map, original in zip(restored.high_res_feats, embedding.high_res_feats, strict=True):
        assert restored_map.stride()[1:] == original.stride()[1:]
        assert torch.equal(restored_map, original)
    a = predictor.predict(embedding, [prompt((100, 90, 1))])[0]
    b = predictor.predict(restored, [prompt((100, 90, 1))])[0]
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(one.low_res, other.low_res)
    with pytest.raises((KeyError, ValueError)):
        Sam2Embedding.from_arrays({"image_embed": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    "make",
    [
        prompt,
        lambda: prompt((float("nan"), 1, 1)),
        lambda: PromptArrays(np.zeros((2, 2), np.float32), np.ones(1, np.int64)),
        lambda: prompt(box=(0.0, float("inf"), 1.0, 2.0)),
    ],
)
def test_prompts_that_cannot_be(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PromptError):
        make()


def test_previous_logits_of_another_model_are_refused(embedding: Sam2Embedding) -> None:
    with pytest.raises(PromptError, match="mask input"):
        small_predictor().predict(embedding, [prompt((9, 9, 1), mask_input=np.zeros((7, 7), np.float32))])


def test_pixels_must_be_rgb_bytes() -> None:
    with pytest.raises(ValueError, match="uint8"):
        small_predictor().embed(np.zeros((4, 4, 3), dtype=np.float32))  # type: ignore[arg-type]
