"""SAM 2's mask decoder over many prompts of one image, with the bits of ``MaskDecoder.forward`` and far less work.

The weights and modules are those of an unmodified ``SAM2Base``; only the order of the work differs:

    prepare          once an image: keys of layer 0 and their K, V and Q projections (every prompt without a mask input shares them)
      tokens           the few prompt tokens: always with the batch size stock uses, because small matrix products round differently at other sizes
      image chunks     the 4,096 image tokens a prompt: a few prompts at a time, so that the working set stays in the cache
      heads            predicted IoU of all masks, then up-scaling of the prompts the caller still wants

It must not know images, thresholds or masks at image size. Equality with stock is tested in ``tests/segmenters/test_decoder.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.segmenters.sam2.machine import image_chunk_bytes

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding

log = logging.getLogger("segduo.engine")

IMAGE_CHUNK_BYTES = image_chunk_bytes()
"""Bytes of image tokens processed at once on a CPU."""

Wanted = Callable[[Tensor], Tensor]
"""Given the predicted IoU of all masks, float (B, 4), says which prompts are up-scaled: bool (B,)."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """What all prompts of an image share. Shapes: T image tokens (h * w), C channels, I = C / 2 channels inside attention.

    Attributes:
        keys: (1, T, C), image embedding plus the embedding of "no mask input".
        position: (1, T, C), dense positional encoding.
        key, value: (1, T, I), projections of layer 0's token-to-image attention.
        query: (1, T, I), projection of layer 0's image-to-token attention.
        high_res: as the embedding has them, channels last, as the up-scaled features are that they are added to (a sum across layouts takes ten times
            as long).
    """

    embed: Tensor
    keys: Tensor
    position: Tensor
    key: Tensor
    value: Tensor
    query: Tensor
    high_res: tuple[Tensor, ...]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class DecoderOutput:
    """Outputs of the decoder for B prompts.

    Attributes:
        iou: float32 (B, 4), predicted IoU of the single-mask token and the three multi-mask tokens.
        rows: int64 (M,), the prompts that were up-scaled, ascending.
        masks: float32 (M, 4, 4h, 4w), their low-res logits.
    """

    iou: Tensor
    rows: Tensor
    masks: Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    b, n, c = x.shape
    return x.reshape(b, n, heads, c // heads).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention on projected (B, N, I) tensors; (B, N, I) before the output projection."""
    out = F.scaled_dot_product_attention(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads))
    b, h, n, c = out.shape
    return out.transpose(1, 2).reshape(b, n, h * c)


class PromptDecoder:
    """Decodes prompts against an :class:`~segment_duo.segmenters.sam2.embedding.Sam2Embedding`.

    Args:
        model: an unmodified ``SAM2Base`` in evaluation mode.
    """

    def __init__(self, model: SAM2Base) -> None:
        self.model = model
        self.prompts = model.sam_prompt_encoder
        self.decoder = model.sam_mask_decoder
        self.transformer = self.decoder.transformer
        if len(self.transformer.layers) != 2:
            raise ValueError("the mask decoder of SAM 2 has two layers")
        self._most = 1 << 30

    # -- once an image ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prepare(
        self, embedding: Sam2Embedding, batch: int, precision: AbstractContextManager[Any] | None = None
    ) -> PreparedImage:
        """Compute what all prompts of this image share, for batches of one prompt or for larger ones.

        The two differ in the last bit: for one prompt stock keeps the layout of the embedding, for several it repeats it into a
        plain NCHW tensor, and the matrix products round by layout. ``precision`` holds for the projections alone: positional
        encodings in half precision are off by up to 0.4 of 1.
        """
        copies = 1 if batch == 1 else 2
        embed = embedding.image_embed if batch == 1 else embedding.image_embed.contiguous()
        no_mask = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        repeated = embed if batch == 1 else torch.repeat_interleave(embed, copies, dim=0)
        keys = image_tokens(repeated + no_mask)
        position = image_tokens(torch.repeat_interleave(self.prompts.get_dense_pe(), copies, dim=0))
        layer = self.transformer.layers[0]
        placed = keys + position
        with precision or nullcontext():
            return PreparedImage(
                embed=embed,
                keys=keys[:1].contiguous(),
                position=position[:1].contiguous(),
                key=layer.cross_attn_token_to_image.k_proj(placed)[:1].contiguous(),
                value=layer.cross_attn_token_to_image.v_proj(keys)[:1].contiguous(),
                query=layer.cross_attn_image_to_token.q_proj(placed)[:1].contiguous(),
                high_res=tuple(t.contiguous(memory_format=torch.channels_last) for t in embedding.high_res_feats),
                size=(int(embed.shape[-2]), int(embed.shape[-1])),
            )

    # -- prompts ------------------------------------------------------------------------------------------------------

    def embed_prompts(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Sparse embeddings (B, N + 1, C) of B prompts of N points each, in model-input pixels; labels 2 and 3 are box corners."""
        sparse, _ = self.prompts(points=(coords, labels), boxes=None, masks=None)
        return sparse  # type: ignore[no-any-return]

    def embed_masks(self, logits: Tensor) -> Tensor:
        """Dense embeddings (B, C, h, w) of previous low-res logits (B, 1, 4h, 4w)."""
        return self.prompts._embed_masks(logits)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def decode(
        self,
        image: PreparedImage,
        sparse: Tensor,
        *,
        mask_input: Tensor | None = None,
        wanted: Wanted | None = None,
        check: Callable[[], None] | None = None,
    ) -> DecoderOutput:
        """Decode B prompts.

        Args:
            image: from :meth:`prepare`.
            sparse: (B, N, C) from :meth:`embed_prompts`.
            mask_input: previous low-res logits (B, 1, 4h, 4w), or None.
            wanted: which prompts to up-scale; None for all.
            check: called between chunks of prompts; it raises to cancel.

        On an accelerator all prompts go at once; where that does not fit its memory, half as many from then on.
        """
        while True:
            try:
                return self._decode(image, sparse, mask_input, wanted, check or _nothing)
            except RuntimeError as error:
                chunk = self._chunk(image, sparse.shape[0])
                if not _out_of_memory(error) or chunk < 2:
                    raise
                self._most = chunk // 2
                log.warning("the device's memory does not hold %d prompts at once: now %d", chunk, self._most)
            if image.keys.device.type == "cuda":
                torch.cuda.empty_cache()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _decode(
        self,
        image: PreparedImage,
        sparse: Tensor,
        mask_input: Tensor | None,
        wanted: Wanted | None,
        check: Callable[[], None],
    ) -> DecoderOutput:
        batch = sparse.shape[0]
        tokens = torch.cat((self._output_tokens().expand(batch, -1, -1), sparse), dim=1)
        chunks = _slices(batch, self._chunk(image, batch))
        hs, keys = self._transform(image, tokens, mask_input, chunks, check)
        start = 1 if self.decoder.pred_obj_scores else 0
        iou = self.decoder.iou_prediction_head(hs[:, start, :])
        mask_tokens = hs[:, start + 1 : start + 1 + self.decoder.num_mask_tokens, :]
        # On the full batch: a smaller one rounds differently (seen as 1e-7 in the logits).
        hyper = torch.stack(
            [mlp(mask_tokens[:, i, :]) for i, mlp in enumerate(self.decoder.output_hypernetworks_mlps)], dim=1
        )
        rows = torch.arange(batch, device=iou.device) if wanted is None else wanted(iou).nonzero().flatten()
        masks = self._upscale(image, list(zip(chunks, keys, strict=True)), hyper, rows, check)
        return DecoderOutput(iou=iou.float(), rows=rows, masks=masks)

    def _chunk(self, image: PreparedImage, batch: int) -> int:
        if image.keys.device.type != "cpu":
            return min(batch, self._most)
        per_prompt = image.keys.numel() * image.keys.element_size()
        return max(1, min(batch, self._most, IMAGE_CHUNK_BYTES // per_prompt))

    def _output_tokens(self) -> Tensor:
        d = self.decoder
        first = [d.obj_score_token.weight] if d.pred_obj_scores else []
        return torch.cat([*first, d.iou_token.weight, d.mask_tokens.weight], dim=0).unsqueeze(0)

    def _transform(
        self,
        image: PreparedImage,
        tokens: Tensor,
        mask_input: Tensor | None,
        chunks: list[slice],
        check: Callable[[], None],
    ) -> tuple[Tensor, list[Tensor]]:
        """``TwoWayTransformer.forward``: token outputs (B, N, C), and image outputs (b, T, C) by chunk."""
        first, second = self.transformer.layers
        final = self.transformer.final_attn_token_to_image
        batch = tokens.shape[0]
        dense = None
        if mask_input is not None:
            # The convolutions on the full batch: with one thread they round differently on a smaller one.
            embedded = self.embed_masks(mask_input)
            dense = [image_tokens(image.embed + embedded[s]) for s in chunks]

        # Layer 0, tokens.
        queries = first.norm1(first.self_attn(q=tokens, k=tokens, v=tokens))
        attention = first.cross_attn_token_to_image
        q = attention.q_proj(queries + tokens)
        if dense is None:
            shape = (batch, -1, -1)
            attended = attend(q, image.key.expand(shape), image.value.expand(shape), attention.num_heads)
        else:
            attended = torch.cat(
                [
                    attend(q[s], attention.k_proj(keys + image.position), attention.v_proj(keys), attention.num_heads)
                    for s, keys in zip(chunks, dense, strict=True)
                ]
            )
        queries, k0, v0 = self._finish_tokens(first, queries, tokens, attended)

        # Layer 0, image; layer 1, tokens up to the attention's output projection.
        placed = queries + tokens
        queries = second.norm1(queries + second.self_attn(q=placed, k=placed, v=queries))
        q = second.cross_attn_token_to_image.q_proj(queries + tokens)
        kept, parts = image.keys.new_empty((batch, *image.keys.shape[1:])), []
        for i, s in enumerate(chunks):
            check()
            attention = first.cross_attn_image_to_token
            if dense is None:
                keys, image_q = image.keys, image.query.expand(k0[s].shape[0], -1, -1)
            else:
                keys = dense[i]
                image_q = attention.q_proj(keys + image.position)
            keys = attention.out_proj(attend(image_q, k0[s], v0[s], attention.num_heads)).add_(keys)
            keys = kept[s].copy_(first.norm4(keys))
            attention = second.cross_attn_token_to_image
            placed = keys + image.position
            parts.append(attend(q[s], attention.k_proj(placed), attention.v_proj(keys), attention.num_heads))
        queries, k1, v1 = self._finish_tokens(second, queries, tokens, torch.cat(parts))

        # Layer 1, image; final attention.
        q = final.q_proj(queries + tokens)
        parts = []
        for s in chunks:
            check()
            attention = second.cross_attn_image_to_token
            # Once more: kept since the first loop, the sum and its projection would take 6 MiB a prompt.
            image_q = attention.q_proj(kept[s] + image.position)
            keys = attention.out_proj(attend(image_q, k1[s], v1[s], attention.num_heads)).add_(kept[s])
            keys = kept[s].copy_(second.norm4(keys))
            parts.append(attend(q[s], final.k_proj(keys + image.position), final.v_proj(keys), final.num_heads))
        queries = self.transformer.norm_final_attn(queries + final.out_proj(torch.cat(parts)))
        return queries, [kept[s] for s in chunks]

    @staticmethod
    def _finish_tokens(layer: Any, queries: Tensor, tokens: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rest of a block's token side; returns the queries and the K and V of its image-to-token attention."""
        queries = layer.norm2(queries + layer.cross_attn_token_to_image.out_proj(attended))
        queries = layer.norm3(queries + layer.mlp(queries))
        attention = layer.cross_attn_image_to_token
        return queries, attention.k_proj(queries + tokens), attention.v_proj(queries)

    def _upscale(
        self,
        image: PreparedImage,
        keys: list[tuple[slice, Tensor]],
        hyper: Tensor,
        rows: Tensor,
        check: Callable[[], None],
    ) -> Tensor:
        """Low-res logits (M, 4, 4h, 4w) of the prompts ``rows``. ``keys``: image outputs of the transformer by chunk."""
        h, w = image.size
        out = hyper.new_empty((len(rows), hyper.shape[1], 4 * h, 4 * w), dtype=torch.float32)
        done = 0
        for s, part in keys:
            check()
            mine = rows[(rows >= s.start) & (rows < s.stop)]
            count = len(mine)
            if not count:
                continue
            if count == 1 < len(hyper):
                mine = mine.repeat(2)  # a batch of one takes other kernels
            src = part if count == len(part) else part[mine - s.start]
            up = self._upscale_features(src.transpose(1, 2).view(len(mine), -1, h, w), image.high_res)
            logits = hyper[mine] @ up.reshape(len(mine), up.shape[1], -1)
            out[done : done + count] = logits.view(len(mine), -1, 4 * h, 4 * w)[:count]
            done += count
        return out

    def _upscale_features(self, src: Tensor, high_res: tuple[Tensor, ...]) -> Tensor:
        if not self.decoder.use_high_res_features:
            return self.decoder.output_upscaling(src)  # type: ignore[no-any-return]
        dc1, norm, act1, dc2, act2 = self.decoder.output_upscaling
        finest, middle = high_res
        up = dc1(src).add_(middle)
        # LayerNorm2d of sam2, without computing the difference twice.
        up = up.sub_(up.mean(1, keepdim=True))
        up = up.div_(torch.sqrt(up.pow(2).mean(1, keepdim=True) + norm.eps))
        up = act1(up.mul_(norm.weight[:, None, None]).add_(norm.bias[:, None, None]))
        return act2(dc2(up).add_(finest))  # type: ignore[no-any-return]


def select_masks(decoder: Any, masks: Tensor, iou: Tensor, *, multimask_output: bool) -> tuple[Tensor, Tensor]:
    """The masks ``MaskDecoder.forward`` returns: the three of the multi-mask tokens, or the single one.

    Args:
        masks: low-res logits (B, 4, h, w); iou: (B, 4).
    """
    if multimask_output:
        return masks[:, 1:], iou[:, 1:]
    if decoder.dynamic_multimask_via_stability:
        return decoder._dynamic_multimask_via_stability(masks, iou)  # type: ignore[no-any-return]
    return masks[:, :1], iou[:, :1]


def image_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) as a (B, h * w, C) view, transposed in memory as in stock: the matrix products round by layout."""
    return x.flatten(2).permute(0, 2, 1)


def _slices(batch: int, chunk: int) -> list[slice]:
    """Cut a batch into chunks, never leaving one prompt alone: a batch of one takes other kernels."""
    starts = list(range(0, batch, max(chunk, 2)))
    if len(starts) > 1 and batch - starts[-1] == 1:
        del starts[-1]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], batch], strict=True)]


def _out_of_memory(error: RuntimeError) -> bool:
    # CUDA has a class of its own; MPS raises a plain RuntimeError with these words.
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def _nothing() -> None:
    """No cancellation asked for."""
