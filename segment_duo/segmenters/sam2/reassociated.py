"""The prompt decoder with its products in another order: less arithmetic, rounding differences of some 1e-6."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segment_duo.segmenters.sam2.decoder import PreparedImage, PromptDecoder, attend, image_tokens, split_heads
from segment_duo.segmenters.sam2.products import handed_out, linear, looked_up

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

    from segment_duo.segmenters.sam2.embedding import Sam2Embedding


class ReassociatedDecoder(PromptDecoder):
    """The same function with its products taken in another order: half the arithmetic, rounding differences of some 1e-6.

    An attention between 8 prompt tokens and T image tokens projects every image token (C to I channels) before it meets 8 queries. Moving the
    projection to the tokens' side, q (W k) = (q W) k and a (W v) = W (a v), replaces each (T, C) x (C, I) product, I = C / 2, by one with
    64 columns (8 heads x 8 tokens), a quarter of C in official models.

    The up-scaler's transposed convolutions (2 x 2, stride 2) are matrix products that make four neighbours of every token. Here the neighbours stay
    beside each other, (T, 4, 4, channels), until only the masks are left to be put in order: a half of the time, none of it for rearranging.

    Args:
        dtype: of the image tokens and of up-scaling; None keeps the embedding's. The few prompt tokens stay in float32: they cost little, and
            predicted IoU comes from them. (Autocast gains nothing on a CPU: its casts cost what the products save.)
    """

    def __init__(self, model: SAM2Base, dtype: torch.dtype | None = None) -> None:
        super().__init__(model)
        self.dtype = dtype
        first, self._norm, _, second, _ = self.decoder.output_upscaling
        self._upscaling = tuple(_as_linear(layer, dtype) for layer in (first, second))

    @torch.inference_mode()
    def prepare(
        self, embedding: Sam2Embedding, batch: int, precision: AbstractContextManager[Any] | None = None
    ) -> PreparedImage:
        image = super().prepare(embedding, batch, precision)
        dtype = self.dtype or image.keys.dtype
        nested = tuple(
            _nested(feature, levels).to(dtype) for feature, levels in zip(image.high_res, (2, 1), strict=False)
        )
        return replace(image, keys=image.keys.to(dtype), position=image.position.to(dtype), high_res=nested)

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
        keys = first.norm4(
            _image_from_tokens(
                first.cross_attn_image_to_token,
                keys.expand(batch, -1, -1),
                placed,
                queries + tokens,
                queries,
                in_place=not shared,
            )
        )
        asked = queries + tokens
        queries = second.norm1(queries + second.self_attn(q=asked, k=asked, v=queries))
        placed = keys + image.position
        attended = _tokens_from_image(second.cross_attn_token_to_image, queries + tokens, placed, keys)
        queries = self._rest(second, queries, attended)
        keys = second.norm4(
            _image_from_tokens(second.cross_attn_image_to_token, keys, placed, queries + tokens, queries, in_place=True)
        )
        final = self.transformer.final_attn_token_to_image
        attended = _tokens_from_image(final, queries + tokens, keys + image.position, keys)
        return self.transformer.norm_final_attn(queries + final.out_proj(attended)), keys

    def _upscale(
        self,
        image: PreparedImage,
        keys: list[tuple[slice, Tensor]],
        hyper: Tensor,
        rows: Tensor,
        check: Callable[[], None],
    ) -> Tensor:
        h, w = image.size
        masks = hyper.shape[1]
        out = hyper.new_empty((len(rows), masks, 4 * h, 4 * w), dtype=torch.float32)
        # One prompt at a time on a CPU: what is made of it stays in the cache.
        step = 1 if out.device.type == "cpu" else max(len(rows), 1)
        done = 0
        for s, part in keys:
            check()
            mine = rows[(rows >= s.start) & (rows < s.stop)]
            for some in torch.split(mine, step) if len(mine) else ():
                logits = self._logits(part[some - s.start], hyper[some], image.high_res)
                # (row, column, then both halves of each, twice) to rows and columns; in two steps, which take a third of the time of one.
                square = logits.float().view(-1, h, w, 2, 2, 2, 2, masks).permute(0, 1, 2, 3, 5, 4, 6, 7)
                square = square.reshape(-1, h, w, 4, 4, masks).permute(0, 5, 1, 3, 2, 4)
                out[done : done + len(some)].view(-1, masks, h, 4, w, 4).copy_(square)
                done += len(some)
        return out

    def _logits(self, tokens: Tensor, hyper: Tensor, high_res: tuple[Tensor, ...]) -> Tensor:
        """Masks (B, T * 16, masks) of image tokens (B, T, C) by ``hyper`` (B, masks, C / 8), the 16 neighbours of a token beside each other."""
        (first, first_bias), (second, second_bias) = self._upscaling
        finest, middle = high_res or (None, None)
        norm = self._norm
        shape = (*tokens.shape[:2], 4, -1)
        up = linear(tokens, first, first_bias).view(shape)
        if middle is not None:
            up += middle
        dtype = up.dtype
        up = F.gelu(F.layer_norm(up, up.shape[-1:], norm.weight.to(dtype), norm.bias.to(dtype), norm.eps))
        up = linear(up, second, second_bias).view(*tokens.shape[:2], 4, 4, -1)
        if finest is not None:
            up += finest
        up = F.gelu(up).flatten(1, 3)
        return up @ hyper.to(up.dtype).transpose(1, 2)

    @staticmethod
    def _rest(layer: Any, queries: Tensor, attended: Tensor) -> Tensor:
        """Token side of a block after its attention to the image."""
        queries = layer.norm2(queries + layer.cross_attn_token_to_image.out_proj(attended))
        return layer.norm3(queries + _through(layer.mlp, queries))  # type: ignore[no-any-return]


def _through(mlp: Any, x: Tensor) -> Tensor:
    """``mlp(x)`` of the token side."""
    *hidden, last = mlp.layers
    for layer in hidden:
        x = mlp.act(linear(x, layer.weight, layer.bias))
    return linear(x, last.weight, last.bias)


def _tokens_from_image(attention: Any, asking: Tensor, placed: Tensor, keys: Tensor) -> Tensor:
    """Attention of tokens (B, N, C) to an image (B, T, C), before the output projection: (B, N, I).

    The bias of ``k_proj`` shifts all scores of a token alike and falls out of the softmax.
    """
    heads = attention.num_heads
    b, n, c = asking.shape
    q = split_heads(attention.q_proj(asking), heads)  # (B, H, N, d)
    d = q.shape[-1]
    towards = torch.einsum("bhnd,hdc->bhnc", q, attention.k_proj.weight.view(heads, d, c)).reshape(b, heads * n, c)
    seen = looked_up(towards.mul_(d**-0.5).to(placed.dtype), placed, keys.expand(b, -1, -1))
    seen = seen.view(b, heads, n, c).to(asking.dtype)
    out = torch.einsum("bhnc,hdc->bnhd", seen, attention.v_proj.weight.view(heads, d, c))
    joined: Tensor = out.reshape(b, n, heads * d) + attention.v_proj.bias
    return joined


def _image_from_tokens(
    attention: Any,
    keys: Tensor,
    placed: Tensor,
    offered: Tensor,
    values: Tensor,
    *,
    in_place: bool,
) -> Tensor:
    """``keys`` plus attention of the image (B, T, C) to tokens (B, N, C), output projection included: (B, T, C).

    ``in_place``: overwrite ``keys``. Not keys that prompts share: a batch of one has their very shape.
    """
    heads = attention.num_heads
    b, n, c = offered.shape
    k = split_heads(attention.k_proj(offered), heads)  # (B, H, N, d)
    v = split_heads(attention.v_proj(values), heads)
    d = k.shape[-1]
    scale = d**-0.5
    towards = torch.einsum("bhnd,hdc->bhnc", k, attention.q_proj.weight.view(heads, d, c)).reshape(b, heads * n, c)
    bias = torch.einsum("bhnd,hd->bhn", k, attention.q_proj.bias.view(heads, d)).reshape(b, heads * n, 1)
    computed = placed.dtype
    carried = torch.einsum("bhnd,chd->bhnc", v, attention.out_proj.weight.view(c, heads, d)).reshape(b, heads * n, c)
    # The shares of each head sum to 1, so a bias on what is carried arrives as a bias on the sum, without a pass over the image tokens.
    carried = (carried + attention.out_proj.bias / heads).to(computed)
    asked = towards.mul_(scale).to(computed)
    return handed_out(keys, placed, asked, bias.mul_(scale).to(computed), carried, heads, in_place=in_place)


def _as_linear(layer: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """A transposed convolution of 2 x 2 with stride 2 as weight (4 * out, in), rows before columns, and bias (4 * out,)."""
    if tuple(layer.kernel_size) != (2, 2) or tuple(layer.stride) != (2, 2):
        raise ValueError("the mask decoder of SAM 2 up-scales twice by 2")
    weight = layer.weight.detach().permute(2, 3, 1, 0).reshape(-1, layer.weight.shape[0])
    bias = layer.bias.detach().repeat(4)
    return (weight, bias) if dtype is None else (weight.to(dtype), bias.to(dtype))


def _nested(feature: Tensor, levels: int) -> Tensor:
    """A map (1, C, H, W) by token, in the order in which ``levels`` up-scalings by 2 make it: (T, 4, ..., C)."""
    _, c, height, width = feature.shape
    h, w = height >> levels, width >> levels
    split = feature[0].reshape(c, h, *[2] * levels, w, *[2] * levels)
    order = [1, 2 + levels]
    for level in range(levels):
        order += [2 + level, 3 + levels + level]
    return split.permute(*order, 0).reshape(h * w, *[4] * levels, c).contiguous()
