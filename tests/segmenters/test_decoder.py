"""The decoder and the up-sampling beside stock's modules, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segment_duo.masks.cropped import trim
from segment_duo.segmenters.sam2 import decoder as module
from segment_duo.segmenters.sam2.embedding import Sam2Embedding
from segment_duo.segmenters.sam2.upsample import Upsampler, cut_out
from tests.engine_stock import picture, small_model, small_predictor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def embedding() -> Sam2Embedding:
    return small_predictor().embed(picture(200, 260))


def stock_decoder(
    embedding: Sam2Embedding, points: torch.Tensor, mask_input: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    model = small_model()
    labels = torch.ones(points.shape[:2], dtype=torch.int)
    sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=mask_input)
    masks, iou, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.image_embed,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=len(points) > 1,
        high_res_features=list(embedding.high_res_feats),
    )
    return masks, iou


@pytest.mark.parametrize("batch", [1, 2, 3, 9, 17])
@pytest.mark.parametrize("refining", [False, True])
@torch.inference_mode()
def test_logits_and_scores_equal_stock(
    embedding: Sam2Embedding, batch: int, refining: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = small_predictor()
    generator = torch.Generator().manual_seed(batch)
    points = torch.rand(batch, 1, 2, generator=generator) * predictor.model.image_size
    rows, cols = predictor.decoder.prompts.mask_input_size
    mask_input = torch.randn(batch, 1, rows, cols, generator=generator) * 5 if refining else None
    masks, iou = stock_decoder(embedding, points, mask_input)
    monkeypatch.setattr(module, "IMAGE_CHUNK_BYTES", 4 * embedding.image_embed.numel() * 4)  # four prompts a chunk
    image = predictor.prepare(embedding, batch)
    sparse = predictor.decoder.embed_prompts(points, torch.ones(batch, 1, dtype=torch.int))
    ours = predictor.decoder.decode(image, sparse, mask_input=mask_input)
    assert torch.equal(ours.iou, iou)
    assert torch.equal(ours.masks, masks)
    some = predictor.decoder.decode(
        image, sparse, mask_input=mask_input, wanted=lambda iou: torch.arange(batch) % 4 == 2
    )
    assert some.rows.tolist() == list(range(2, batch, 4))
    assert torch.equal(some.masks, masks[some.rows])


def test_running_out_of_device_memory_halves_the_chunk(
    embedding: Sam2Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = small_predictor()
    decoder = module.PromptDecoder(predictor.model)
    image = predictor.prepare(embedding, 6)
    sparse = decoder.embed_prompts(torch.full((6, 1, 2), 50.0), torch.ones(6, 1, dtype=torch.int))
    transform, tried = decoder._transform, []

    def small_device(image, tokens, mask_input, chunks, check):  # type: ignore[no-untyped-def]
        tried.append(max(s.stop - s.start for s in chunks))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return transform(image, tokens, mask_input, chunks, check)

    monkeypatch.setattr(decoder, "_transform", small_device)
    fitted = decoder.decode(image, sparse)
    assert tried == [6, 3, 2]
    assert torch.equal(fitted.masks, predictor.decoder.decode(image, sparse).masks)

    def broken(*_: object) -> None:
        raise RuntimeError("another failure")

    monkeypatch.setattr(decoder, "_transform", broken)
    with pytest.raises(RuntimeError, match="another"):
        decoder.decode(image, sparse)


def test_a_chunk_never_leaves_one_prompt_alone() -> None:
    for batch in range(1, 40):
        for chunk in range(1, 12):
            parts = module._slices(batch, chunk)
            assert [i for s in parts for i in range(s.start, s.stop)] == list(range(batch))
            assert batch == 1 or all(s.stop - s.start > 1 for s in parts)


def blobs(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    out = []
    for _ in range(count):
        cx, cy, radius = (torch.rand(3, generator=generator) * size).tolist()
        distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt()
        out.append(
            ((radius * 0.15 - distance) * 0.8 + torch.randn(size, size, generator=generator) * 0.3).clamp(-20, 12)
        )
    return torch.stack(out)


@pytest.mark.parametrize(
    ("low", "size"), [(256, (310, 413)), (128, (777, 503)), (128, (60, 50)), (64, (64, 64)), (64, (1, 700))]
)
@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 1.0), (0.5, 0.25), (-1.0, 2.0), (0.0, 0.0)])
@torch.inference_mode()
def test_stability_boxes_masks_and_rle_equal_stock(
    low: int, size: tuple[int, int], threshold: float, offset: float
) -> None:
    from sam2.utils.amg import batched_mask_to_box, calculate_stability_score, coco_encode_rle, mask_to_rle_pytorch

    logits = blobs(16, low)
    logits[3], logits[4] = -5.0, 3.0
    logits[5, 3, 3], logits[6, 7, 8] = float("nan"), float("inf")
    logits[7] = torch.where(logits[7] > 0, threshold, logits[7])  # plateaus right at the threshold
    up = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    stability = calculate_stability_score(up, threshold, offset)
    boxes = batched_mask_to_box(up > threshold)
    full = Upsampler((low, low), size, CPU)
    for i, cut in enumerate(cut_out(logits, threshold - offset)):
        measured = full.measure(cut, threshold, offset)
        assert torch.equal(measured.stability, stability[i]) or bool(measured.stability.isnan() & stability[i].isnan())
        assert torch.equal(measured.box, boxes[i])
        region = full.binary(cut, threshold)
        canvas = np.zeros(size, dtype=bool)
        canvas[region.top : region.top + region.pixels.shape[0], region.left : region.left + region.pixels.shape[1]] = (
            region.pixels
        )
        assert np.array_equal(canvas, (up[i] > threshold).numpy())
        assert trim(region).area == region.area
        rle = coco_encode_rle(mask_to_rle_pytorch((up[i] > threshold)[None])[0])
        assert region.rle(*size).counts == rle["counts"]


@pytest.mark.parametrize("size", [(260, 300), (300, 260)])
@torch.inference_mode()
def test_a_rectangle_that_ends_as_far_out_as_the_logits_are_wide(size: tuple[int, int]) -> None:
    """torch copies along an axis whose output is as long as its input, whatever the scale."""
    logits = torch.full((1, 128, 128), -5.0)
    logits[0, 20:50, 20:50] = 0.0  # everywhere at the threshold: torch itself decides
    logits[0, 30:40, 30:40] = 5.0
    up = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0, 0]
    full, (cut,) = Upsampler((128, 128), size, CPU), cut_out(logits, -1.0)
    for bottom, right in ((128, 200), (200, 128), (128, 128)):
        window = full._direct(cut, 60, 60, bottom, right)
        assert torch.equal(window > 0.5, up[60:bottom, 60:right] > 0.5)
        assert bool((window > 0.5).any())


@torch.inference_mode()
def test_pixels_at_a_threshold_are_decided_as_torch_does() -> None:
    """Thresholds taken from the up-sampled values themselves: the two ways of interpolating often differ there."""
    logits = blobs(1, 64)
    size = (301, 207)
    up = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0, 0]
    full = Upsampler((64, 64), size, CPU)
    values = up[up > -2][::40]
    assert len(values) > 20
    for value in values.tolist():
        region = full.binary(cut_out(logits, value)[0], value)
        assert region.area == int((up > value).sum())


def test_logits_cut_at_a_higher_threshold_are_refused() -> None:
    full = Upsampler((64, 64), (100, 100), CPU)
    with pytest.raises(ValueError, match="higher threshold"):
        full.binary(cut_out(blobs(1, 64), 0.5)[0], 0.0)
