"""The prompt decoder with its products in another order: less arithmetic, rounding differences of some 1e-6."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segment_duo.segmenters.sam2.decoder import PreparedImage, PromptDecoder, attend, image_tokens, split_heads

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding


class ReassociatedDecoder(PromptDecoder):
    """The same function with its products taken in another order: half the arithmetic, rounding differences of some 1e-6.

    An attention between 8 prompt tokens and T image tokens projects every image token (C to I channels) before it meets 8 queries. Moving the
    projection to the tokens' side, q (W k) = (q W) k and a (W v) = W (a v), replaces each (T, C) x (C, I) product, I = C / 2, by one with
    64 columns (8 heads x 8 tokens), a quarter of C in official models. For the fast mode.

    Args:
        dtype: of the image tokens; None keeps the embedding's. The few prompt tokens stay in float32: they cost little, and predicted IoU comes from
            them. (Autocast gains nothing on a CPU: its casts cost what the products save.)
    """

    def __init__(self, model: SAM2Base, dtype: torch.dtype | None = None) -> None:
        super().__init__(model)
        self.dtype = dtype

    @torch.inference_mode()
    def prepare(
        self, embedding: Sam2Embedding, batch: int, precision: AbstractContextManager[Any] | None = None
    ) -> PreparedImage:
        image = super().prepare(embedding, batch, precision)
        if self.dtype is None:
            return image
        return replace(image, keys=image.keys.to(self.dtype), position=image.position.to(self.dtype))

    def _transform(
        self,
        image: PreparedImage,
        tokens: Tensor,
        mask_input: Tensor | None,
        chunks: list[slice],
        check: Callable[[], None],
    ) -> tuple[Tensor, list[Tensor]]:
        dense = None if mask_input is None else self.embed_masks(mask_input)
        hs, store = [], []
        for s in chunks:
            check()
            keys = (
                image.keys if dense is None else image_tokens(image.embed + dense[s]).to(image.keys.dtype).contiguous()
            )
            queries, keys = self._both_layers(image, tokens[s], keys, shared=dense is None)
            hs.append(queries)
            store.append(keys)
        return torch.cat(hs), store

    def _both_layers(
        self, image: PreparedImage, tokens: Tensor, keys: Tensor, *, shared: bool
    ) -> tuple[Tensor, Tensor]:
        first, second = self.transformer.layers
        batch = tokens.shape[0]
        queries = first.norm1(first.self_attn(q=tokens, k=tokens, v=tokens))
        attention = first.cross_attn_token_to_image
        if shared:
            q = attention.q_proj(queries + tokens)
            shape = (batch, -1, -1)
            attended = attend(q, image.key.expand(shape), image.value.expand(shape), attention.num_heads)
        else:
            attended = _tokens_from_image(attention, queries + tokens, keys + image.position, keys)
        queries = self._rest(first, queries, attended)
        placed = (keys + image.position).expand(batch, -1, -1)
        keys = first.norm4(_image_from_tokens(first.cross_attn_image_to_token, keys, placed, queries + tokens, queries))
        asked = queries + tokens
        queries = second.norm1(queries + second.self_attn(q=asked, k=asked, v=queries))
        placed = keys + image.position
        attended = _tokens_from_image(second.cross_attn_token_to_image, queries + tokens, placed, keys)
        queries = self._rest(second, queries, attended)
        keys = second.norm4(
            _image_from_tokens(second.cross_attn_image_to_token, keys, placed, queries + tokens, queries)
        )
        final = self.transformer.final_attn_token_to_image
        attended = _tokens_from_image(final, queries + tokens, keys + image.position, keys)
        return self.transformer.norm_final_attn(queries + final.out_proj(attended)), keys

    def _upscale_features(self, src: Tensor, high_res: tuple[Tensor, ...]) -> Tensor:
        return super()._upscale_features(src if self.dtype is None else src.float(), high_res)

    @staticmethod
    def _rest(layer: Any, queries: Tensor, attended: Tensor) -> Tensor:
        """Token side of a block after its attention to the image."""
        queries = layer.norm2(queries + layer.cross_attn_token_to_image.out_proj(attended))
        return layer.norm3(queries + layer.mlp(queries))  # type: ignore[no-any-return]


def _tokens_from_image(attention: Any, asking: Tensor, placed: Tensor, keys: Tensor) -> Tensor:
    """Attention of tokens (B, N, C) to an image (B, T, C), before the output projection: (B, N, I).

    The bias of ``k_proj`` shifts all scores of a token alike and falls out of the softmax.
    """
    heads = attention.num_heads
    b, n, c = asking.shape
    q = split_heads(attention.q_proj(asking), heads)  # (B, H, N, d)
    d = q.shape[-1]
    towards = torch.einsum("bhnd,hdc->bhnc", q, attention.k_proj.weight.view(heads, d, c)).reshape(b, heads * n, c)
    shares = torch.bmm(towards.mul_(d**-0.5).to(placed.dtype), placed.transpose(1, 2)).softmax(dim=-1)
    seen = torch.bmm(shares, keys.expand(b, -1, -1)).view(b, heads, n, c).to(asking.dtype)
    out = torch.einsum("bhnc,hdc->bnhd", seen, attention.v_proj.weight.view(heads, d, c))
    joined: Tensor = out.reshape(b, n, heads * d) + attention.v_proj.bias
    return joined


def _image_from_tokens(attention: Any, keys: Tensor, placed: Tensor, offered: Tensor, values: Tensor) -> Tensor:
    """``keys`` plus attention of the image (B, T, C) to tokens (B, N, C), output projection included: (B, T, C).

    Overwrites ``keys`` unless all prompts share them (1, T, C).
    """
    heads = attention.num_heads
    b, n, c = offered.shape
    k = split_heads(attention.k_proj(offered), heads)  # (B, H, N, d)
    v = split_heads(attention.v_proj(values), heads)
    d = k.shape[-1]
    scale = d**-0.5
    towards = torch.einsum("bhnd,hdc->bhnc", k, attention.q_proj.weight.view(heads, d, c)).reshape(b, heads * n, c)
    bias = torch.einsum("bhnd,hd->bhn", k, attention.q_proj.bias.view(heads, d)).reshape(b, heads * n, 1)
    # Image tokens last: a softmax over 8 neighbours in memory runs element by element, one over rows takes 16 columns at a time.
    computed = placed.dtype
    scores = torch.baddbmm(bias.mul_(scale).to(computed), towards.mul_(scale).to(computed), placed.transpose(1, 2))
    shares = scores.view(b, heads, n, -1).softmax(dim=2).view(b, heads * n, -1)
    carried = torch.einsum("bhnd,chd->bhnc", v, attention.out_proj.weight.view(c, heads, d)).reshape(b, heads * n, c)
    # The shares of each head sum to 1, so a bias on what is carried arrives as a bias on the sum, without a pass over the image tokens.
    carried = (carried + attention.out_proj.bias / heads).to(computed)
    if keys.shape[0] == b:
        return keys.baddbmm_(shares.transpose(1, 2), carried)
    return torch.baddbmm(keys.expand(b, -1, -1), shares.transpose(1, 2), carried)
